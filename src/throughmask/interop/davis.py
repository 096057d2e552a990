"""DAVIS: a folder of indexed PNG, one for each frame, the pixel's value is the object's id; 255 is void.

The data set keeps pictures in JPEGImages/480p/<sequence>/ and masks in Annotations/480p/<sequence>/, at 24 frames a
second.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from .. import media
from ..errors import FormatError, InvalidValueError
from ..files import inside, new_folder
from ..types import MaskTrajectory, Sample, Video, exact_fps
from .imported import Imported, check_extent, trajectory_of

VOID = 255
FPS = Fraction(24)


def read_davis(
    folder: str | Path,
    *,
    fps: Fraction | int | str | None = None,
    video: str | Path | None = None,
    resize: str | None = None,
) -> Imported:
    """Read a folder of masks, in the order of their numbers (or names); void becomes background and is counted.

    fps: of the masks, else the video's, else 24. video: the clip that the masks belong to; without it the pictures are
    taken from JPEGImages where the usual layout is met. resize="nearest" brings the masks to the video's size. Masks
    stored as grey 0 and 255, as in DAVIS 2016, are object 1.

    Raises FormatError if the folder holds no PNG, or the masks differ in size or are not evenly numbered.
    """
    folder = Path(folder)
    paths, step = numbered(folder, (".png",))
    rate = exact_fps(fps) if fps is not None else (media.probe_video(video).fps if video is not None else FPS)
    first = media.read_labels(paths[0])
    height, width = first.shape
    check_extent(len(paths), height, width, str(folder))
    labels = np.empty((len(paths), height, width), np.uint8)
    for frame, path in enumerate(paths):
        one = media.read_labels(path)
        if one.shape != first.shape:
            raise FormatError("masks differ in size", seen=f"{path.name} {one.shape}, {paths[0].name} {first.shape}")
        labels[frame] = one
    notes = void_to_background(labels, paths)
    if step > 1 and fps is None and video is None:
        rate = rate / step
        notes.append(f"The masks are numbered in steps of {step}: they were taken to be {rate} frames a second.")
    trajectory = MaskTrajectory(labels, rate)
    if video is not None:
        return Imported(trajectory, notes=tuple(notes)).with_video(media.read_video(video), resize=resize)
    pictures = _pictures(folder, paths, trajectory.fps, notes)
    imported = Imported(trajectory, notes=tuple(notes))
    return imported if pictures is None else imported.with_video(pictures, resize=resize)


def write_davis(value: Sample | MaskTrajectory, folder: str | Path, *, force: bool = False) -> None:
    """Write the masks as 00000.png, 00001.png, ... with the DAVIS palette. Kept: labels. Lost: rate, pictures, text.

    Raises InvalidValueError if there is no trajectory or an object has the id 255, OutputError if the folder is not
    empty.
    """
    trajectory = trajectory_of(value)
    if VOID in trajectory.ids:
        raise InvalidValueError(
            "DAVIS reserves the id 255 for void", seen=VOID, fix="reorder the objects, or write npz"
        )
    with new_folder(folder, force=force) as temporary:
        for frame, labels in enumerate(trajectory.labels):
            media.write_labels(temporary / f"{frame:05d}.png", labels)


def numbered(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], int]:
    """The folder's files of a kind in frame order, and the step of their numbers (1 where they have none)."""
    if not folder.is_dir():
        raise FormatError("there is no such folder", seen=str(folder))
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.suffix.lower() in suffixes and entry.name[0] != "."
    )
    if not names:
        raise FormatError(f"the folder holds no {suffixes[0]} files", seen=str(folder))
    if len(names) > media.MAX_FRAMES:
        raise FormatError(f"the folder holds more than {media.MAX_FRAMES} frames", seen=len(names), fix="split it")
    stems = [Path(name).stem for name in names]
    step = 1
    if all(stem.isascii() and stem.isdecimal() and len(stem) < 10 for stem in stems):
        names.sort(key=lambda name: (int(Path(name).stem), name))
        numbers = [int(Path(name).stem) for name in names]
        steps = {b - a for a, b in pairwise(numbers)}
        if len(steps) > 1 or 0 in steps:
            seen = next(f"{a} then {b}" for a, b in pairwise(numbers) if b - a != min(steps) or a == b)
            fix = "a missing or doubled frame would shift all later ones in time: renumber the files"
            raise FormatError("the frame numbers are not evenly spaced", seen=f"{seen} in {folder}", fix=fix)
        step = steps.pop() if steps else 1
    return [inside(folder, name) for name in names], step


def void_to_background(labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], paths: list[Path]) -> list[str]:
    """Replace 255 in place; returns what to tell the user."""
    void = labels == VOID
    num_void = int(void.sum())
    if not num_void:
        return []
    if not ((labels > 0) & ~void).any() and not any(_has_palette(path) for path in paths):
        labels[void] = 1
        return ["The masks are grey, 0 and 255, as in DAVIS 2016: 255 was read as object 1, not as void."]
    labels[void] = 0
    frames = int(void.any((1, 2)).sum())
    return [f"Void (255) became background: {num_void} pixels in {frames} of {len(labels)} frames."]


def _has_palette(path: Path) -> bool:
    with Image.open(path) as image:
        return image.mode == "P"


def _pictures(folder: Path, masks: list[Path], fps: Fraction, notes: list[str]) -> Video | None:
    """The frames of JPEGImages that the masks are named after, or None with a note where they do not fit."""
    folder = folder.absolute()
    root = folder.parent.parent
    if root.name != "Annotations":
        return None
    place = root.parent / "JPEGImages" / folder.parent.name / folder.name
    if not place.is_dir():
        return None
    known = {path.stem: path for path in numbered(place, (".jpg", ".jpeg"))[0]}
    missing = [path.stem for path in masks if path.stem not in known]
    if missing:
        notes.append(f"The pictures in JPEGImages were left out: {len(missing)} masks have none.")
        return None
    frames = np.stack([media.read_image(known[path.stem]) for path in masks])
    if len(known) > len(masks):
        notes.append(f"{len(known) - len(masks)} pictures in JPEGImages have no mask and were left out.")
    return Video(frames, fps)
