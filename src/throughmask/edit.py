"""Edits of a mask trajectory: every function takes a MaskTrajectory and returns a new one.

An edit acts on one object (`resample` and `reorder` on all) and leaves every other object bit for bit as it was: the
edited object is drawn only where no other object is, so it passes behind them, unless `in_front=True`. Pixels that it
leaves become background. Lengths are pixels, x to the right and y down; degrees turn clockwise as seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .errors import InvalidValueError
from .shapes import Box, Mask, box_of, in_between, placed, stretch
from .types import MAX_OBJECTS, Labels, MaskTrajectory, exact_fps

MAX_FRAMES = 100_000  # an hour at 24 frames a second is 86,400
MAX_AMOUNT = 1e6  # far beyond any frame, and still exact in the arithmetic below


@dataclass(frozen=True)
class Keyframe:
    """At `frame` the object is `dx`, `dy` away from its mask, `scale` times its size, turned by `degrees`."""

    frame: int
    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    degrees: float = 0.0

    def __post_init__(self) -> None:
        _whole(self.frame, "a keyframe's frame")
        for name in ("dx", "dy", "scale", "degrees"):
            _finite(getattr(self, name), f"a keyframe's {name}")
        if self.scale <= 0:
            raise InvalidValueError(
                "a scale must be more than 0", seen=self.scale, fix="use remove to take an object away"
            )


def follow(
    trajectory: MaskTrajectory,
    id: int,
    keyframes: Sequence[Keyframe],
    *,
    shape_from: int | None = None,
    in_front: bool = False,
) -> MaskTrajectory:
    """Move, scale and turn object `id` about its centroid, linearly between keyframes and held before and after them.

    Amounts are relative to the object's own mask of each frame or, with `shape_from=k`, to its mask of frame k, carried
    along through all frames. Raises InvalidValueError for an unknown id, no keyframes, two at one frame, or a frame
    that the trajectory does not have.
    """
    own = _masks(trajectory, id)
    keyframes = sorted(keyframes, key=lambda key: key.frame)
    frames = [key.frame for key in keyframes]
    if not frames:
        raise InvalidValueError("there are no keyframes", fix="give at least one")
    if len(set(frames)) != len(frames):
        raise InvalidValueError("two keyframes are at the same frame", seen=frames)
    for frame in frames:
        _check_frame(trajectory, frame)
    if shape_from is not None:
        _check_frame(trajectory, shape_from)
        if not own[shape_from].any():
            fix = f"it is visible in frame {int(own.any((1, 2)).argmax())}"
            raise InvalidValueError(f"object {id} is absent from frame {shape_from}, so it has no shape there", fix=fix)
    at = np.arange(len(own))
    amounts = [np.interp(at, frames, [getattr(k, n) for k in keyframes]) for n in ("dx", "dy", "scale", "degrees")]
    masks = own if shape_from is None else np.broadcast_to(own[shape_from], own.shape)
    moved = [placed(mask, *map(float, amount)) for mask, *amount in zip(masks, *amounts, strict=True)]
    return _redrawn(trajectory, id, np.stack(moved), in_front)


def move(
    trajectory: MaskTrajectory,
    id: int,
    dx: float = 0.0,
    dy: float = 0.0,
    *,
    start: int = 0,
    end: int | None = None,
    ramp: bool = False,
    in_front: bool = False,
) -> MaskTrajectory:
    """Shift object `id` by `dx`, `dy` pixels in the frames `start` to `end` (the last one if None), both included.

    With `ramp` the shift grows from nothing at `start` to the full amount at `end` and is kept after it, so that the
    frame `start`, and all before it, stay. Raises InvalidValueError as `follow` does.
    """
    return _between(trajectory, id, Keyframe(0, dx=dx, dy=dy), start, end, ramp, in_front)


def scale(
    trajectory: MaskTrajectory,
    id: int,
    factor: float,
    *,
    start: int = 0,
    end: int | None = None,
    ramp: bool = False,
    in_front: bool = False,
) -> MaskTrajectory:
    """Scale object `id` about its centroid; frames and `ramp` as in `move`."""
    return _between(trajectory, id, Keyframe(0, scale=factor), start, end, ramp, in_front)


def rotate(
    trajectory: MaskTrajectory,
    id: int,
    degrees: float,
    *,
    start: int = 0,
    end: int | None = None,
    ramp: bool = False,
    in_front: bool = False,
) -> MaskTrajectory:
    """Turn object `id` clockwise about its centroid; frames and `ramp` as in `move`."""
    return _between(trajectory, id, Keyframe(0, degrees=degrees), start, end, ramp, in_front)


def remove(trajectory: MaskTrajectory, id: int) -> MaskTrajectory:
    """Take object `id` out of every frame; its pixels become background."""
    return _redrawn(trajectory, id, np.zeros_like(_masks(trajectory, id)), in_front=False)


def freeze(trajectory: MaskTrajectory, id: int, at_frame: int, *, in_front: bool = False) -> MaskTrajectory:
    """From `at_frame` on, object `id` keeps the mask that it has there."""
    masks = _masks(trajectory, id)
    _check_frame(trajectory, at_frame)
    masks[at_frame:] = masks[at_frame]
    return _redrawn(trajectory, id, masks, in_front)


def retime(
    trajectory: MaskTrajectory,
    id: int,
    speed: float | Fraction | None = None,
    *,
    frames: Sequence[int] | None = None,
    in_front: bool = False,
) -> MaskTrajectory:
    """Play object `id` at `speed` times its pace, or from the source frames `frames`, one for each frame.

    With a speed, frame 0 stays and the object rests where its motion ends. Raises InvalidValueError unless exactly
    one of the two is given, for a speed that is not more than 0, and for frames that the trajectory does not have.
    """
    masks = _masks(trajectory, id)
    if (speed is None) == (frames is None):
        raise InvalidValueError(
            "give a speed or a list of source frames, and only one of them", seen=f"{speed}, {frames}"
        )
    if speed is not None:
        _finite(speed, "a speed")
        if speed <= 0:
            raise InvalidValueError("a speed must be more than 0", seen=speed, fix="use freeze, or give source frames")
        last = len(masks) - 1
        source = [math.floor(min(last, frame * speed) + Fraction(1, 2)) for frame in range(len(masks))]
    else:
        source = list(frames or ())
        if len(source) != len(masks):
            raise InvalidValueError(f"{len(masks)} frames need as many source frames", seen=len(source))
        for frame in source:
            _check_frame(trajectory, frame)
    return _redrawn(trajectory, id, masks[source], in_front)


def resample(trajectory: MaskTrajectory, *, num_frames: int | None = None, fps: object = None) -> MaskTrajectory:
    """The whole clip with another number of frames or at another rate; frame 0 stays frame 0.

    With `fps` alone the clip lasts as long as before and frames are repeated or left out. With `num_frames` the clip is
    spread evenly over that many frames, the first and the last included, at `fps` or the rate that it had.
    Raises InvalidValueError if neither is given, or for fewer than one frame.
    """
    old, length = trajectory.fps, len(trajectory)
    if num_frames is None and fps is None:
        raise InvalidValueError("give a number of frames or a frame rate")
    rate = old if fps is None else exact_fps(fps)
    half = Fraction(1, 2)
    if num_frames is None:
        count = _whole(max(1, math.floor(length * rate / old + half)), "a number of frames", most=MAX_FRAMES)
        source = [min(length - 1, math.floor(frame * old / rate + half)) for frame in range(count)]
    else:
        _whole(num_frames, "a number of frames", least=1, most=MAX_FRAMES)
        step = Fraction(length - 1, max(1, num_frames - 1))
        source = [math.floor(frame * step + half) for frame in range(num_frames)]
    return MaskTrajectory(trajectory.labels[source], rate)


def reorder(trajectory: MaskTrajectory, new_ids: Mapping[int, int]) -> MaskTrajectory:
    """Give objects other ids: {1: 2, 2: 1} swaps two. Objects that are not named keep theirs.

    Raises InvalidValueError for an unknown id, for one outside 1..255, and where two objects would end with the same
    id.
    """
    table = np.arange(256, dtype=np.uint8)
    for old, new in new_ids.items():
        for id in (old, new):
            _whole(id, "an object's id", least=1, most=MAX_OBJECTS)
        table[old] = new
    present = set(trajectory.ids)
    unknown = sorted(set(new_ids) - present - set(new_ids.values()))
    if unknown:
        raise InvalidValueError("there is no object with that id", seen=unknown, fix=f"ids: {sorted(present)}")
    ends = [int(table[id]) for id in sorted(present | set(new_ids))]
    if len(set(ends)) != len(ends):
        twice = sorted({id for id in ends if ends.count(id) > 1})
        raise InvalidValueError("two objects would have the same id", seen=twice, fix="swap them: {1: 2, 2: 1}")
    return MaskTrajectory(table[trajectory.labels], trajectory.fps)


def interpolate(
    trajectory: MaskTrajectory, id: int, keys: Mapping[int, Mask | Box], *, in_front: bool = False
) -> MaskTrajectory:
    """Object `id` has the given masks at the given frames and changes evenly between them; other frames stay.

    A key is a mask (bool, H W) or a box (x0, y0, x1, y1; x1 and y1 excluded): the shape of the nearest mask key, or
    else the object's own nearest shape, is stretched into the box. The id may be one that the trajectory does not have.
    Raises InvalidValueError for no keys, frames out of range, masks of another size or empty ones, and boxes off the
    frame.
    """
    _whole(id, "an object's id", least=1, most=MAX_OBJECTS)
    if not keys:
        raise InvalidValueError("there are no keyframes", fix="give at least one")
    for frame in keys:
        _check_frame(trajectory, frame)
    own = trajectory.labels == id
    shapes = _key_masks(keys, own)
    frames, masks = sorted(shapes), own.copy()
    for first, last in itertools.pairwise(frames):
        masks[first:last] = in_between(shapes[first], shapes[last], last - first)
    masks[frames[-1]] = shapes[frames[-1]]
    return _redrawn(trajectory, id, masks, in_front)


def _key_masks(keys: Mapping[int, Mask | Box], own: Mask) -> dict[int, Mask]:
    size = own.shape[1:]
    given = {frame: np.asarray(key) for frame, key in keys.items() if np.ndim(key) == 2}
    for frame, mask in given.items():
        if mask.dtype != np.bool_ or mask.shape != size:
            raise InvalidValueError(f"the mask of frame {frame} must be bool {size}", seen=f"{mask.dtype} {mask.shape}")
        if not mask.any():
            raise InvalidValueError(f"the mask of frame {frame} is empty", fix="leave that frame out")
    sources = given or {int(frame): own[frame] for frame in np.flatnonzero(own.any((1, 2)))}
    shapes = dict(given)
    for frame, key in keys.items():
        if frame not in given:
            box = _checked_box(key, size)
            nearest = min(sources, key=lambda other: abs(other - frame), default=None)
            source = np.ones(size, np.bool_) if nearest is None else sources[nearest]  # a new object: a filled box
            shapes[frame] = stretch(source, box_of(source), box, size)
    return shapes


def _checked_box(key: object, size: tuple[int, ...]) -> Box:
    try:
        x0, y0, x1, y1 = (int(value) for value in key)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        raise InvalidValueError("a key is a mask or a box of four whole numbers x0, y0, x1, y1", seen=key) from None
    if not (0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]):
        raise InvalidValueError(f"a box must lie inside the frame, {size[1]} wide and {size[0]} high", seen=key)
    return x0, y0, x1, y1


def _between(
    trajectory: MaskTrajectory, id: int, full: Keyframe, start: int, end: int | None, ramp: bool, in_front: bool
) -> MaskTrajectory:
    """`full`'s amounts from `start` to `end`; with `ramp`, growing between the two and kept."""
    last = len(trajectory) - 1 if end is None else end
    for frame in (start, last):
        _check_frame(trajectory, frame)
    if last < start or (ramp and last == start):
        raise InvalidValueError("an edit must end after it starts", seen=f"start {start}, end {last}")
    amounts = {"dx": full.dx, "dy": full.dy, "scale": full.scale, "degrees": full.degrees}
    if ramp:
        keyframes = [Keyframe(start), Keyframe(last, **amounts)]
        return follow(trajectory, id, keyframes, in_front=in_front)
    masks = _masks(trajectory, id)
    for frame in range(start, last + 1):
        masks[frame] = placed(masks[frame], **amounts)
    return _redrawn(trajectory, id, masks, in_front)


def _redrawn(trajectory: MaskTrajectory, id: int, masks: Mask, in_front: bool) -> MaskTrajectory:
    """The trajectory with object `id` drawn anew from `masks` (bool, T H W)."""
    labels: Labels = trajectory.labels.copy()
    labels[labels == id] = 0
    labels[masks if in_front else masks & (labels == 0)] = id
    return MaskTrajectory(labels, trajectory.fps)


def _masks(trajectory: MaskTrajectory, id: int) -> Mask:
    masks: Mask = trajectory.labels == _whole(id, "an object's id")
    if not 1 <= id <= MAX_OBJECTS or not masks.any():
        known = ", ".join(map(str, trajectory.ids)) or "none"
        raise InvalidValueError("there is no object with that id", seen=id, fix=f"ids in this trajectory: {known}")
    return masks


def _check_frame(trajectory: MaskTrajectory, frame: object) -> None:
    _whole(frame, f"a frame of a trajectory of {len(trajectory)} frames", least=0, most=len(trajectory) - 1)


def _whole(value: object, what: str, least: int | None = None, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidValueError(f"{what} must be a whole number", seen=value)
    if (least is not None and value < least) or (most is not None and value > most):
        span = f"at least {least}" if most is None else f"from {least or 0} to {most}"
        raise InvalidValueError(f"{what} must be {span}", seen=value)
    return int(value)


def _finite(value: object, what: str) -> None:
    real = isinstance(value, int | float | Fraction | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not abs(value) <= MAX_AMOUNT:  # type: ignore[arg-type]  # (false for NaN)
        raise InvalidValueError(f"{what} must be a finite number, at most a million", seen=value)
