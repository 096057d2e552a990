"""Colour mask video: every object painted in a constant colour (MagicMotion's trajectories, the paper's own clips).

Compression blurs the colours, so each pixel is given to the nearest colour of a palette, which is named or detected.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .. import media
from ..errors import FormatError, InvalidValueError, ThroughMaskError
from ..palette import FAR, NAMED, Palette, detect, named
from ..types import MaskTrajectory, Pixels, Sample, Video
from .imported import Imported, check_extent, trajectory_of

NEAR = 24  # L-infinity levels: a detected colour this close to a known one is that one
FLAT = 16  # L-infinity levels between neighbours inside one object, compression included
MAX_BLURRED = 0.15  # share of pixels further off; real mask clips have at most 0.03, real pictures 0.29 and more
MAX_LOOK = 1 << 22  # pixels of the evenly spaced frames that are looked at to find the palette
MIN_SHARE = 0.001  # of all pixels: rarer colours are blends at edges, not objects


def read_colours(
    path: str | Path,
    *,
    palette: str | Palette = "auto",
    num_objects: int | None = None,
    crop: tuple[int, int] | None = None,
    fps: Fraction | int | str | None = None,
    video: str | Path | None = None,
    resize: str | None = None,
) -> Imported:
    """Read a colour mask video; the notes tell the palette and the share of pixels far from all its colours.

    palette: ours, paper, davis, detected, or auto (one of the three where it fits, else detected). num_objects:
    keep only the palette's first so many objects. crop: columns (first, one past the last) of the panel that holds the
    masks. video: the clip that the masks belong to; resize="nearest" brings the masks to its size.

    Raises FormatError if masks and video do not fit or no palette does, InvalidValueError for an impossible option.
    """
    clip = media.read_video(path, fps=fps)
    check_extent(len(clip), *clip.size, str(path))
    frames = _cropped(clip.frames, crop)
    chosen = choose_palette(frames, palette)
    if num_objects is not None:
        if type(num_objects) is not int or not 1 <= num_objects <= chosen.num_objects:
            fix = f"palette {chosen.name!r} has {chosen.num_objects}"
            raise InvalidValueError("num_objects must be from 1 to the palette's number", seen=num_objects, fix=fix)
        chosen = Palette(chosen.name, chosen.colours[: num_objects + 1])
    labels, far = chosen.snap(frames)
    which = f"the palette {chosen.name!r} (objects 1 to {chosen.num_objects})"
    note = f"Colours were snapped to {which}; {far:.2%} of pixels are more than {FAR} levels from all of them."
    imported = Imported(MaskTrajectory(labels, clip.fps), notes=(note,))
    return imported if video is None else imported.with_video(media.read_video(video, fps=fps), resize=resize)


def write_colours(
    value: Sample | MaskTrajectory, path: str | Path, *, palette: str | Palette = "ours", force: bool = False
) -> None:
    """Write the masks painted with a palette as lossless video. Kept: labels, rate. Lost: pictures, text.

    Raises InvalidValueError if there is no trajectory or an id has no colour, OutputError if the file exists.
    """
    trajectory = trajectory_of(value)
    chosen = named(palette) if isinstance(palette, str) else palette
    media.write_video(path, Video(chosen.paint(trajectory.labels), trajectory.fps), lossless=True, force=force)


def choose_palette(frames: Pixels, palette: str | Palette = "auto") -> Palette:
    """The palette of colour frames (T H W 3), by name or by looking. Raises FormatError if none fits."""
    if isinstance(palette, Palette):
        return palette
    if palette not in ("auto", "detected"):
        return named(palette)
    if palette == "detected":
        return _detected(frames)
    present = _distinct(frames)
    for known in NAMED.values():  # lossless video has no other colours; also holds where there is no object at all
        if len(present) <= len(known.colours) and set(present) <= set(map(tuple, known.colours.tolist())):
            return known
    found = _detected(frames)
    for known in NAMED.values():
        distance = np.abs(found.colours[:, None].astype(int) - known.colours.astype(int)).max(-1)
        owners = distance.argmin(1)
        if (distance.min(1) <= NEAR).all() and len(set(owners)) == len(owners) and owners[0] == 0:
            # The palette's later colours are not there, but blends of those that are would be taken for them.
            return Palette(known.name, known.colours[: int(owners.max()) + 1])
    return found


def _detected(frames: Pixels) -> Palette:
    """The palette found in evenly spaced frames, at most MAX_LOOK pixels of them unless one is larger."""
    some = frames[:: -(-frames[..., 0].size // MAX_LOOK)]
    try:
        found = detect(without_edges(some), min_share=MIN_SHARE)
    except ThroughMaskError as error:
        raise FormatError(error.problem, seen=error.seen, fix=error.fix) from None
    distance = _largest_channel(some, found.colours[found.snap(some)[0]])
    blurred = float((distance > FLAT).mean())
    if blurred > MAX_BLURRED:
        seen = f"{blurred:.0%} of the pixels have a colour of their own"
        fix = "name the palette that made the colours, or crop to the panel that holds the masks"
        raise FormatError("the frames do not look like a colour mask video", seen=seen, fix=fix)
    return found


def without_edges(frames: Pixels) -> Pixels:
    """Colour frames (T H W 3) with each pixel beside a change replaced by the last in its row that is not.

    Compression blends colours where they meet, and the blends would pass for colours of small objects.
    """
    flat = np.ones(frames.shape[:3], bool)
    for axis in (1, 2):
        before, after = (slice(None),) * axis + (slice(-1),), (slice(None),) * axis + (slice(1, None),)
        same = _largest_channel(frames[before], frames[after]) <= FLAT
        flat[before] &= same
        flat[after] &= same
    here = np.arange(flat.size).reshape(flat.shape)
    last = np.maximum.accumulate(np.where(flat, here, here[..., :1]), axis=2)
    filled: Pixels = frames.reshape(-1, 3)[last]
    return filled


def _largest_channel(a: Pixels, b: Pixels) -> npt.NDArray[np.uint8]:
    """The L-infinity distance of two arrays of colours (... 3)."""
    difference = np.maximum(a, b) - np.minimum(a, b)
    largest: npt.NDArray[np.uint8] = np.maximum(np.maximum(difference[..., 0], difference[..., 1]), difference[..., 2])
    return largest


def _cropped(frames: Pixels, crop: tuple[int, int] | None) -> Pixels:
    if crop is None:
        return frames
    width = frames.shape[2]
    if len(crop) != 2 or any(type(x) is not int for x in crop) or not 0 <= crop[0] < crop[1] <= width:
        fix = f"first column and one past the last, from 0 to {width}"
        raise InvalidValueError("the crop lies outside the frame", seen=crop, fix=fix)
    return frames[:, :, crop[0] : crop[1]]


def _distinct(frames: Pixels) -> list[tuple[int, ...]]:
    """The distinct colours of the frames, or the first frame's alone where these are already too many for a palette."""
    seen: set[int] = set()
    for frame in frames:
        codes = frame.reshape(-1, 3).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        seen.update(np.unique(codes).tolist())
        if len(seen) > 256:
            break
    return [(code >> 16, code >> 8 & 255, code & 255) for code in seen]
