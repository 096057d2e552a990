"""The little language of `throughmask edit --do`: one edit in a line, such as "move 1 dx=40 dy=0 ramp"."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .. import edit
from ..errors import InvalidValueError
from ..types import MaskTrajectory

Edit = Callable[[MaskTrajectory], MaskTrajectory]

SPAN = "[start=F] [end=F] [ramp] [front]"
USAGE = {
    "move": f"move ID [dx=PIXELS] [dy=PIXELS] {SPAN}",
    "scale": f"scale ID factor=S {SPAN}",
    "rotate": f"rotate ID degrees=D {SPAN}",
    "remove": "remove ID",
    "freeze": "freeze ID at=F [front]",
    "retime": "retime ID speed=S | frames=F,F,... [front]",
    "follow": "follow ID F:DX,DY[,SCALE[,DEGREES]] ... [shape=F] [front]",
    "interpolate": "interpolate ID F:X0,Y0,X1,Y1 ... [front]",
    "reorder": "reorder OLD=NEW ...",
    "resample": "resample [frames=N] [fps=R]",
}


@dataclass(frozen=True)
class Step:
    """One edit: the text it was written as, its name, and the function that does it; `new_ids` of a reorder."""

    text: str
    name: str
    apply: Edit
    new_ids: dict[int, int] | None = None


def parse_step(text: str) -> Step:
    """Read one edit. Raises InvalidValueError, with the edit's usage, for anything that is not understood."""
    words = text.split()
    name = words[0] if words else ""
    if name not in USAGE:
        raise InvalidValueError("there is no edit of that name", seen=text, fix=f"edits: {', '.join(USAGE)}")
    try:
        if name == "reorder":
            pairs = [tuple(map(_whole, word.split("="))) for word in words[1:]]
            new_ids: dict[int, int] = dict(pairs)  # type: ignore[arg-type]
            if not pairs or len(new_ids) != len(pairs):
                raise ValueError
            return Step(text, name, lambda t: edit.reorder(t, new_ids), new_ids)
        if name == "resample":
            options = _options(words[1:], {"frames": _whole, "fps": str}, flags=())
            return Step(
                text, name, lambda t: edit.resample(t, num_frames=options.get("frames"), fps=options.get("fps"))
            )
        return Step(text, name, _OF_ONE[name](_whole(words[1]), words[2:]))
    except InvalidValueError:
        raise
    except (ValueError, IndexError, ZeroDivisionError):
        raise InvalidValueError("an edit is not understood", seen=text, fix=f"write {USAGE[name]}") from None


def _spanned(function: Callable[..., MaskTrajectory], *amounts: str) -> Callable[[int, list[str]], Edit]:
    def build(id: int, words: list[str]) -> Edit:
        kinds: dict[str, Callable[[str], Any]] = dict.fromkeys(amounts, float) | {"start": _whole, "end": _whole}
        options = _options(words, kinds, flags=("ramp", "front"))
        if not set(amounts) & set(options):
            raise ValueError
        return lambda t: function(t, id, **options)

    return build


def _remove(id: int, words: list[str]) -> Edit:
    _options(words, {}, flags=())
    return lambda t: edit.remove(t, id)


def _freeze(id: int, words: list[str]) -> Edit:
    options = _options(words, {"at": _whole}, flags=("front",))
    if "at" not in options:
        raise ValueError
    at = options.pop("at")
    return lambda t: edit.freeze(t, id, at, **options)


def _retime(id: int, words: list[str]) -> Edit:
    options = _options(words, {"speed": Fraction, "frames": _wholes}, flags=("front",))
    return lambda t: edit.retime(t, id, **options)


def _follow(id: int, words: list[str]) -> Edit:
    keys, rest = _keys(words)
    keyframes = [edit.Keyframe(frame, *_floats(values, 2, 4)) for frame, values in keys]
    options = _options(rest, {"shape": _whole}, flags=("front",))
    shape = options.pop("shape", None)
    return lambda t: edit.follow(t, id, keyframes, shape_from=shape, **options)


def _interpolate(id: int, words: list[str]) -> Edit:
    keys, rest = _keys(words)
    boxes = {frame: tuple(_whole(value) for value in values) for frame, values in keys}
    if len(boxes) != len(keys):
        raise ValueError
    options = _options(rest, {}, flags=("front",))
    return lambda t: edit.interpolate(t, id, boxes, **options)  # type: ignore[arg-type]


_OF_ONE: dict[str, Callable[[int, list[str]], Edit]] = {
    "move": _spanned(edit.move, "dx", "dy"),
    "scale": _spanned(edit.scale, "factor"),
    "rotate": _spanned(edit.rotate, "degrees"),
    "remove": _remove,
    "freeze": _freeze,
    "retime": _retime,
    "follow": _follow,
    "interpolate": _interpolate,
}


def _options(words: list[str], kinds: dict[str, Callable[[str], Any]], flags: tuple[str, ...]) -> dict[str, Any]:
    """`key=value` words and bare flags as keyword arguments. Raises ValueError for any other word, or one twice."""
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key in options or not ((key in kinds and equals) or (key in flags and not equals)):
            raise ValueError
        options[key] = kinds[key](value) if equals else True
    if options.pop("front", False):
        options["in_front"] = True
    return options


def _keys(words: list[str]) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """The leading words "frame:value,value,..." and the rest."""
    count = next((k for k, word in enumerate(words) if ":" not in word), len(words))
    parts = [word.split(":") for word in words[:count]]
    return [(_whole(frame), values.split(",")) for frame, values in parts], words[count:]


def _floats(values: list[str], least: int, most: int) -> list[float]:
    if not least <= len(values) <= most:
        raise ValueError
    return [float(value) for value in values]


def _wholes(text: str) -> list[int]:
    return [_whole(part) for part in text.split(",")]


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise ValueError
    return int(text)
