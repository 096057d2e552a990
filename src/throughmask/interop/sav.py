"""The JSON layout of SA-V (SAM 2's data set): masklets as COCO RLE, one list of objects for each annotated frame.

Masklet id k is object k + 1. Masklets may overlap; labels may not, so a smaller object lies on top of a larger one.
Annotations are every 4th frame of a 24 fps video: the trajectory has 6 frames a second and its times are true.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import FormatError, InvalidValueError, ThroughMaskError
from ..files import new_file
from ..media import read_video
from ..types import MAX_OBJECTS, Labels, MaskTrajectory, Origin, Sample, exact_fps
from . import rle
from .imported import Imported, check_extent, read_text, trajectory_of

MAX_BYTES = 64 << 20  # SA-V's own are below 1 MiB
VIDEO_FPS, EVERY = Fraction(24), 4  # SA-V's own, where the file does not say


def read_rle(
    path: str | Path,
    *,
    video_fps: Fraction | int | str | None = None,
    every: int | None = None,
    video: str | Path | None = None,
    resize: str | None = None,
) -> Imported:
    """Read a file of masklets; overlaps are resolved, the smaller object on top, and counted in the notes.

    video_fps: frame rate of the annotated video; every: a mask for every so many of its frames. Where they are not
    given the file's own "video_fps" and "annotation_every" hold, else SA-V's 24 and 4. video: the annotated clip;
    resize="nearest" brings the masks to its size.

    Raises FormatError for anything that is not such a file, and MediaError for the video.
    """
    content = _load(Path(path))
    rows = content["masklet"]
    fps = exact_fps(video_fps if video_fps is not None else content.get("video_fps", VIDEO_FPS))
    every = every if every is not None else content.get("annotation_every", EVERY)
    if type(every) is not int or every < 1:
        raise FormatError("masks must come every 1, 2, 3 ... frames of the video", seen=every)
    height, width = _frame_size(content)
    check_extent(len(rows), height, width, str(path))
    ids = _object_ids(content, len(rows[0]))
    labels = np.zeros((len(rows), height, width), np.uint8)
    hidden = []
    for frame, row in enumerate(rows):
        try:
            labels[frame], lost = resolve_overlaps(row, ids, (height, width))
        except FormatError as error:
            raise FormatError(f"frame {frame}: {error.problem}", seen=error.seen, fix=error.fix) from None
        hidden.append(lost)
    trajectory = MaskTrajectory(labels, fps / every)
    name = content.get("video_id")
    origin = Origin(source=f"SA-V {name}" if isinstance(name, str) and name else "")
    names = _names(content, ids)
    imported = Imported(trajectory, names=names, origin=origin, notes=_notes(content, hidden, every))
    return imported if video is None else imported.with_video(read_video(video), every=every, resize=resize)


def resolve_overlaps(row: list[Any], ids: list[int], size: tuple[int, int]) -> tuple[Labels, int]:
    """One frame's RLEs as an H W label map, smaller areas on top (else higher ids), and the contested pixels.

    Raises FormatError if an RLE is damaged or of another size.
    """
    labels = np.zeros(size, np.uint8)
    contested = np.zeros(size, bool)
    for item in row:
        if rle.size_of(item) != size:
            raise FormatError("an RLE has another size than its video", seen=f"{item['size']} in {list(size)}")
    areas = [rle.area(item) for item in row]
    for k in sorted(range(len(row)), key=lambda k: (-areas[k], ids[k])):
        if areas[k]:
            mask = rle.decode(row[k])
            contested |= mask & (labels != 0)
            labels[mask] = ids[k]
    return labels, int(contested.sum())


def write_rle(value: Sample | MaskTrajectory, path: str | Path, *, every: int = 1, force: bool = False) -> None:
    """Write masklets in SA-V's layout, plus the exact rate ("video_fps", "annotation_every") and the objects' names.

    every: the trajectory holds every so many frames of the video that the file is about, 4 in SA-V itself. Kept:
    labels, frame rate, ids, names. Lost: the prompts and the picture.

    Raises OutputError if the file exists and `force` is not set.
    """
    trajectory = trajectory_of(value)
    if type(every) is not int or every < 1:
        raise InvalidValueError("masks must come every 1, 2, 3 ... frames of the video", seen=every)
    objects = value.scene.objects if isinstance(value, Sample) else ()
    ids = sorted({*trajectory.ids, *(thing.id for thing in objects)})
    content = _content(trajectory, ids, every)
    content["video_id"] = value.origin.source.removeprefix("SA-V ") if isinstance(value, Sample) else ""
    if objects:
        known = {thing.id: thing.name for thing in objects}
        content["masklet_name"] = [known[k] for k in ids]
    with new_file(path, force=force) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _content(trajectory: MaskTrajectory, ids: list[int], every: int) -> dict[str, Any]:
    num_frames, (height, width) = len(trajectory), trajectory.size
    masklet = [[rle.encode(labels == k) for k in ids] for labels in trajectory.labels]
    areas = np.array([[rle.area(item) for item in row] for row in masklet], np.int64).reshape(num_frames, len(ids))
    video_fps, video_frames = trajectory.fps * every, (num_frames - 1) * every + 1
    return {
        "video_id": "",
        "video_duration": float(video_frames / video_fps),
        "video_frame_count": video_frames,
        "video_height": height,
        "video_width": width,
        "video_resolution": height * width,
        "video_fps": str(video_fps),
        "annotation_every": every,
        "masklet_num": len(ids),
        "masklet_id": [k - 1 for k in ids],
        "masklet_size_abs": areas.mean(0).tolist(),
        "masklet_size_rel": (areas.mean(0) / (height * width)).tolist(),
        "masklet_first_appeared_frame": [_first(column > 0, every) for column in areas.T],
        "masklet_frame_count": [num_frames] * len(ids),
        "masklet": masklet,
    }


def _first(present: npt.NDArray[np.bool_], every: int) -> int | None:
    return int(present.argmax()) * every if present.any() else None


def _load(path: Path) -> dict[str, Any]:
    text = read_text(path, max_bytes=MAX_BYTES)
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ThroughMaskError):
            raise
        raise FormatError("the file is not JSON", seen=f"{path}: {error}") from None
    rows = content.get("masklet") if isinstance(content, dict) else None
    fix = 'SA-V keeps "masklet": one list of RLEs for each annotated frame'
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        raise FormatError('the file has no list "masklet"', seen=str(path), fix=fix)
    lengths = {len(row) for row in rows}
    if len(lengths) > 1 or max(lengths) > MAX_OBJECTS:
        raise FormatError(
            f"every frame must list the same objects, at most {MAX_OBJECTS}", seen=sorted(lengths)[:9], fix=fix
        )
    assert isinstance(content, dict)
    return content


def _no_constant(name: str) -> NoReturn:
    raise FormatError("JSON knows no such number", seen=name)


def _frame_size(content: dict[str, Any]) -> tuple[int, int]:
    """Height and width as the file states them (SA-V writes 848.0), else those of its first RLE."""
    stated = [content.get(f"video_{side}") for side in ("height", "width")]
    if stated == [None, None] and content["masklet"][0]:
        return rle.size_of(content["masklet"][0][0])
    # The comparison comes before int(): 1e999 reads as infinity.
    whole = all(type(n) in (int, float) and 0 < n < 1 << 31 and n == int(n) for n in stated)  # type: ignore[arg-type,operator]
    if not whole:
        raise FormatError("video_height and video_width must be whole and positive", seen=stated)
    return int(stated[0]), int(stated[1])  # type: ignore[arg-type]


def _object_ids(content: dict[str, Any], num_objects: int) -> list[int]:
    stated = content.get("masklet_id", list(range(num_objects)))
    plain = isinstance(stated, list) and all(type(k) is int and 0 <= k < MAX_OBJECTS for k in stated)
    if not plain or len(stated) != num_objects or len(set(stated)) != num_objects:
        problem = f"masklet_id must list {num_objects} different whole numbers from 0 to {MAX_OBJECTS - 1}"
        raise FormatError(problem, seen=stated)
    return [k + 1 for k in stated]


def _names(content: dict[str, Any], ids: list[int]) -> Mapping[int, str]:
    names = content.get("masklet_name", [])
    if names and not (isinstance(names, list) and all(isinstance(name, str) and name.strip() for name in names)):
        raise FormatError("masklet_name must list a text for each object", seen=names)
    if names and len(names) != len(ids):
        raise FormatError("masklet_name and the objects differ in number", seen=f"{len(names)} and {len(ids)}")
    return dict(zip(ids, names, strict=False))


def _notes(content: dict[str, Any], hidden: list[int], every: int) -> tuple[str, ...]:
    notes, num_frames = [], len(hidden)
    if any(hidden):
        frames = sum(lost > 0 for lost in hidden)
        where = f"{sum(hidden)} pixels in {frames} of {num_frames} frames"
        notes.append(f"Overlaps were resolved, the smaller object on top: {where}.")
    count = content.get("video_frame_count")
    if isinstance(count, int | float) and count != (num_frames - 1) * every + 1 and -(-count // every) != num_frames:
        notes.append(f"The file has {num_frames} mask frames, one every {every}, for a video of {count:g} frames.")
    return tuple(notes)
