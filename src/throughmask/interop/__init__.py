"""The formats of neighbours, each read and written. What a file holds becomes an `Imported`; a Sample is written.

`read(path)` looks at the content to know the format; a note says whatever was not taken as it stood.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from ..errors import FormatError, InvalidValueError
from ..types import MaskTrajectory, Sample
from .colours import read_colours, write_colours
from .davis import read_davis, write_davis
from .imported import Imported
from .npz import read_npz, write_npz
from .sav import read_rle, write_rle
from .time_to_move import read_time_to_move, write_time_to_move

__all__ = ["FORMATS", "Imported", "read", "sniff", "write"]

FORMATS: dict[str, str] = {
    "davis": "a folder of indexed PNG, one a frame",
    "rle": "JSON of COCO run-length masks in SA-V's layout",
    "colours": "a video of masks in constant colours",
    "npz": "numpy arrays: labels, fps, names, prompt",
    "time-to-move": "a folder with first_frame, mask.mp4, motion_signal.mp4 and prompt.txt",
}
_READERS: dict[str, Callable[..., Imported]] = {
    "davis": read_davis,
    "rle": read_rle,
    "colours": read_colours,
    "npz": read_npz,
    "time-to-move": read_time_to_move,
}
_WRITERS: dict[str, Callable[..., None]] = {
    "davis": write_davis,
    "rle": write_rle,
    "colours": write_colours,
    "npz": write_npz,
    "time-to-move": write_time_to_move,
}


def sniff(path: str | Path) -> str:
    """The format of a file or folder, by its content. Raises FormatError if it is none of `FORMATS`."""
    path = Path(path)
    try:
        found = _folder_format(path) if path.is_dir() else _file_format(path)
    except OSError as error:
        raise FormatError("the file cannot be read", seen=f"{path}: {error.strerror}") from None
    if found is None:
        known = "; ".join(f"{name}: {text}" for name, text in FORMATS.items())
        raise FormatError("the format is not one that can be read", seen=str(path), fix=f"known formats are {known}")
    return found


def read(path: str | Path, *, format: str | None = None, **options: Any) -> Imported:
    """Read masks in `format` (by content if not given); the options are those of the format's own reader.

    Raises FormatError for damaged content, InvalidValueError for an unknown format or an option that it does not have.
    """
    format = sniff(path) if format is None else format
    reader: Callable[..., Imported] = _known(_READERS, format)
    _check_options(reader, format, options)
    return reader(path, **options)


def write(
    value: Sample | MaskTrajectory, path: str | Path, format: str, *, force: bool = False, **options: Any
) -> None:
    """Write a trajectory, or a Sample that has one, in `format`; the options are those of the format's own writer.

    Raises OutputError if the output exists and `force` is not set, InvalidValueError if the format cannot hold the
    value.
    """
    writer = _known(_WRITERS, format)
    _check_options(writer, format, options)
    writer(value, path, force=force, **options)


def _folder_format(path: Path) -> str | None:
    names = {entry.name for entry in path.iterdir()}
    if "scene.json" in names:
        raise FormatError("the folder is a Sample, not a neighbour's format", seen=str(path), fix="load it as a Sample")
    if "mask.mp4" in names:
        return "time-to-move"
    return "davis" if any(name.lower().endswith(".png") for name in names) else None


def _file_format(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"PK\3\4"):
        return "npz"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "rle"
    # MP4 and MOV, Matroska and WebM, AVI
    is_video = (
        head[4:8] == b"ftyp" or head.startswith(b"\x1a\x45\xdf\xa3") or (head[:4], head[8:12]) == (b"RIFF", b"AVI ")
    )
    return "colours" if is_video else None


def _known(table: dict[str, Any], format: str) -> Any:
    if format not in table:
        raise InvalidValueError("there is no format of that name", seen=format, fix=f"known: {', '.join(table)}")
    return table[format]


def _check_options(function: Callable[..., Any], format: str, options: dict[str, Any]) -> None:
    known = [name for name, item in signature(function).parameters.items() if item.kind is item.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            fix = f"it knows: {', '.join(known) or 'none'}"
            raise InvalidValueError(f"the format {format!r} has no option of that name", seen=name, fix=fix)
