"""Time-to-Move case folders: a first frame, a mask video of the region that is dragged, a crude animation, a prompt.

mask.mp4 is white where the motion is prescribed; motion_signal.mp4 shows the first frame with cut-outs dragged over it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import media
from ..connected import Mask, connected_regions
from ..errors import FormatError, InvalidValueError
from ..files import inside, new_folder
from ..types import MAX_OBJECTS, Labels, MaskTrajectory, Pixels, Sample, Video, present_ids
from .imported import Imported, check_extent, read_text, trajectory_of

FIRST_FRAMES = ("first_frame.png", "first_frame.jpg", "first_frame.jpeg")
MIN_REGION = 64  # pixels over all frames: smaller regions are compression noise


def read_time_to_move(folder: str | Path, *, threshold: int = 128, separate: bool = False) -> Imported:
    """Read the mask as one object, the picture and the prompt; the motion signal is left out, for it is no true video.

    threshold: grey level (0 to 255) from which a pixel is masked. separate: regions that touch at no moment become
    objects of their own, numbered by first appearance.

    Raises FormatError if a part is missing, the sizes differ, or the mask is empty.
    """
    folder = Path(folder)
    picture = next((folder / name for name in FIRST_FRAMES if (folder / name).is_file()), None)
    if picture is None or not (folder / "mask.mp4").is_file():
        fix = "it holds first_frame.jpg (or .png), mask.mp4, motion_signal.mp4 and prompt.txt"
        raise FormatError("the folder is no Time-to-Move case", seen=str(folder), fix=fix)
    image, clip = media.read_image(inside(folder, picture.name)), media.read_video(inside(folder, "mask.mp4"))
    check_extent(len(clip), *clip.size, str(folder))
    if image.shape[:2] != clip.size:
        raise FormatError("first frame and mask differ in size", seen=f"{image.shape[:2]} and {clip.size}")
    if type(threshold) is not int or not 1 <= threshold <= 255:
        raise InvalidValueError("the threshold must be a grey level from 1 to 255", seen=threshold)
    mask = clip.frames.max(-1) >= threshold
    if not mask.any():
        raise FormatError("the mask is empty in every frame", seen=str(folder))
    notes = []
    labels = mask.astype(np.uint8)
    if separate:
        labels, dropped = _separated(mask)
        notes.append(f"The mask has {labels.max()} separate regions; {dropped} pixels of smaller specks were left out.")
    if (folder / "motion_signal.mp4").is_file():
        notes.append("motion_signal.mp4 was left out: it is a crude animation, not the video of these masks.")
    prompt = read_text(inside(folder, "prompt.txt")).strip() if (folder / "prompt.txt").is_file() else ""
    return Imported(MaskTrajectory(labels, clip.fps), image=image, prompt=prompt, notes=tuple(notes))


def write_time_to_move(value: Sample | MaskTrajectory, folder: str | Path, *, force: bool = False) -> None:
    """Write a case folder; the motion signal drags each object's first-frame pixels to its box in every frame.

    Kept: picture, prompt, rate, and the union of the masks. Lost: which pixel belongs to which object, names and other
    prompts, the true video. An object that is not in the first frame has no pixels to drag: only the mask shows it.

    Raises InvalidValueError for a trajectory alone, which has no picture; OutputError if the folder is not empty.
    """
    if not isinstance(value, Sample):
        raise InvalidValueError("a Time-to-Move case needs the picture", fix="give a Sample, not only its masks")
    trajectory = trajectory_of(value)
    mask = np.where(trajectory.labels[..., None] > 0, np.uint8(255), np.uint8(0)).repeat(3, axis=-1)
    with new_folder(folder, force=force) as temporary:
        media.write_image(temporary / "first_frame.png", value.scene.image)
        media.write_video(temporary / "mask.mp4", Video(mask, trajectory.fps), lossless=True)
        signal = Video(motion_signal(value.scene.image, trajectory), trajectory.fps)
        media.write_video(temporary / "motion_signal.mp4", signal)
        (temporary / "prompt.txt").write_text(value.scene.prompt, encoding="utf-8")


def motion_signal(image: Pixels, trajectory: MaskTrajectory) -> Pixels:
    """The crude animation, T H W 3: cut-outs of the picture, moved and stretched box to box, smaller ones on top.

    Where an object has left its first place, the nearest background of the same row shows.
    """
    first = trajectory.labels[0]
    ids = sorted(present_ids(first), key=lambda k: -int((first == k).sum()))
    background = _filled(image, first > 0)
    cut_outs = {k: (first == k, _box(first == k)) for k in ids}
    frames = np.empty((*trajectory.labels.shape, 3), np.uint8)
    for frame, labels in zip(frames, trajectory.labels, strict=True):
        frame[:] = background
        present = present_ids(labels)
        for k in ids:
            if k in present:
                mask, source = cut_outs[k]
                _drag(frame, image, mask, source, _box(labels == k))
    return frames


def _drag(frame: Pixels, image: Pixels, mask: Mask, source: tuple[slice, slice], target: tuple[slice, slice]) -> None:
    """Paint a cut-out of the image into the target box of `frame`, in place; nearest neighbours."""
    rows, columns = (
        a.start + (2 * np.arange(b.stop - b.start) + 1) * (a.stop - a.start) // (2 * (b.stop - b.start))
        for a, b in zip(source, target, strict=True)
    )
    inside_cut_out = mask[rows[:, None], columns]
    frame[target][inside_cut_out] = image[rows[:, None], columns][inside_cut_out]


def _box(mask: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _filled(image: Pixels, hole: Mask) -> Pixels:
    """The image with each hole pixel replaced by the nearest other pixel of its row; a row that is all hole is kept."""
    height, width = hole.shape
    columns = np.broadcast_to(np.arange(width), (height, width))
    left = np.maximum.accumulate(np.where(hole, -1, columns), axis=1)
    right = np.minimum.accumulate(np.where(hole, 2 * width, columns)[:, ::-1], axis=1)[:, ::-1]
    nearer_left = (left >= 0) & ((columns - left <= right - columns) | (right >= width))
    nearest = np.where(nearer_left, left, np.where(right < width, right, columns))
    return image[np.arange(height)[:, None], nearest]


def _separated(mask: Mask) -> tuple[Labels, int]:
    """One id for each region of at least MIN_REGION pixels, and the number of pixels in the others."""
    regions = connected_regions(mask)
    sizes = np.bincount(regions.ravel())
    large = [k for k in range(1, len(sizes)) if sizes[k] >= MIN_REGION]
    if not large or len(large) > MAX_OBJECTS:
        raise FormatError("the mask does not fall into 1 to 255 regions", seen=len(large), fix="read it as one object")
    table = np.zeros(len(sizes), np.uint8)
    table[large] = np.arange(1, len(large) + 1)
    return table[regions], int(sizes[1:].sum() - sizes[large].sum())
