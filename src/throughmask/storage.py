"""A Sample as a folder that a person can open: scene.json, image.png, masks/00000.png ..., video.mp4.

scene.json says what is there and is written last, so a run that was killed half-way leaves a readable Sample.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .errors import OutputError, SampleError, ThroughMaskError, ThroughMaskWarning
from .files import inside, new_file, new_files, new_folder
from .media import MAX_FRAMES, MAX_VIDEO_PIXELS, read_image, read_labels, read_video, write_image, write_labels
from .media import write_video as write_video_file
from .types import Labels, MaskTrajectory, Origin, Pixels, Sample, Scene, SceneObject, Video, exact_fps

FORMAT, VERSION = "throughmask-sample", 1
HEADER, IMAGE, MASKS, VIDEO = "scene.json", "image.png", "masks", "video.mp4"
MAX_HEADER_BYTES = 8 << 20


def save_sample(sample: Sample, folder: str | Path, *, force: bool = False) -> None:
    """Write a Sample as a new folder. With `force`, a Sample that is there is replaced with all that is in its folder.

    Raises OutputError if the folder is filled and `force` is not set, is not a Sample, or cannot be written.
    """
    with new_sample_folder(folder, force=force) as temporary:
        write_image(temporary / IMAGE, sample.scene.image)
        _write_masks(temporary / MASKS, sample.scene, sample.trajectory)
        if sample.video is not None:
            write_video_file(temporary / VIDEO, sample.video)
        _write_header(temporary, _header(sample))


@contextmanager
def new_sample_folder(folder: str | Path, *, force: bool = False) -> Iterator[Path]:
    """As `files.new_folder`, for a folder that will hold a Sample and more; with `force` it replaces Samples only."""
    folder = Path(folder)
    filled = folder.is_dir() and any(folder.iterdir())
    if force and filled and not (folder / HEADER).is_file():
        fix = "choose another name; --force replaces Samples only"
        raise OutputError("the folder is filled and is not a Sample", seen=str(folder), fix=fix)
    with new_folder(folder, force=force) as temporary:
        yield temporary


def load_sample(folder: str | Path) -> Sample:
    """Read a Sample's folder; the video comes back as the lossy mp4 holds it, with the same length, rate and size.

    Raises SampleError or MediaError with the first problem that `check_sample` would list.
    """
    sample, problems = _read(Path(folder))
    if sample is not None:
        return sample
    first, *others = problems
    if not others:
        raise first
    fix = f"{first.fix}; `throughmask validate` lists {len(others)} more problems".removeprefix("; ")
    raise type(first)(first.problem, seen=first.seen, fix=fix) from first


def check_sample(folder: str | Path) -> list[str]:
    """Every problem of a Sample's folder, one sentence each; none if it can be loaded."""
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always", ThroughMaskWarning)
        problems = [str(problem) for problem in _read(Path(folder))[1]]
    return problems + [str(notice.message) for notice in notices if issubclass(notice.category, ThroughMaskWarning)]


def add_to_sample(
    folder: str | Path,
    *,
    trajectory: MaskTrajectory | None = None,
    video: Video | None = None,
    drop_video: bool = False,
    force: bool = False,
) -> None:
    """Add the masks or the video that a Sample lacks; with `force`, replace them. All else in its folder stays.

    drop_video: remove the video that is there, which does not follow the new masks.

    Raises OutputError if it has them already and `force` is not set, InvalidValueError if they do not fit the rest.
    """
    folder = Path(folder)
    old = load_sample(folder)
    for name, new, present in (("masks", trajectory, old.trajectory), ("a video", video, old.video)):
        if new is not None and present is not None and not force:
            fix = "write to another folder, or pass --force"
            raise OutputError(f"the Sample has {name} already", seen=str(folder), fix=fix)
    kept = None if drop_video else old.video
    sample = Sample(old.scene, trajectory or old.trajectory, video or kept, old.origin)
    header = _load_json(folder)
    final = {**header, **{key: _header(sample)[key] for key in ("trajectory", "video")}}
    # What changes is struck from scene.json just before it takes its place: wherever this stops, a Sample is left.
    changed = {"trajectory": trajectory is not None, "video": video is not None or drop_video}
    struck = {key: None for key, new in changed.items() if new}
    with ExitStack() as stack:
        if trajectory is not None:
            _write_masks(stack.enter_context(new_files(folder / MASKS)), sample.scene, trajectory)
        if video is not None:
            write_video_file(stack.enter_context(new_file(folder / VIDEO, force=True)), video, force=True)
        _write_header(folder, {**header, **struck})
    if trajectory is not None:
        for number in range(len(trajectory), len(old.trajectory or ())):
            (folder / MASKS / f"{number:05d}.png").unlink(missing_ok=True)
    if sample.video is None and drop_video:
        (folder / VIDEO).unlink(missing_ok=True)
    _write_header(folder, final)


def _header(sample: Sample) -> dict[str, Any]:
    scene = sample.scene
    return {
        "format": FORMAT,
        "version": VERSION,
        "prompt": scene.prompt,
        "motion_prompt": scene.motion_prompt,
        "objects": [{"id": thing.id, "name": thing.name, "prompt": thing.prompt} for thing in scene.objects],
        "size": list(scene.size),
        "trajectory": _clock(sample.trajectory),
        "video": _clock(sample.video),
        "origin": {"source": sample.origin.source, "licence": sample.origin.licence},
    }


def _clock(part: MaskTrajectory | Video | None) -> dict[str, Any] | None:
    if part is None:
        return None
    return {"frames": len(part), "fps": f"{part.fps.numerator}/{part.fps.denominator}"}


def _write_header(folder: Path, header: dict[str, Any]) -> None:
    text = json.dumps(header, ensure_ascii=False, indent=2) + "\n"
    with new_file(folder / HEADER, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_masks(folder: Path, scene: Scene, trajectory: MaskTrajectory | None) -> None:
    for number, labels in enumerate(scene.labels[None] if trajectory is None else trajectory.labels):
        write_labels(folder / f"{number:05d}.png", labels)


def _read(folder: Path) -> tuple[Sample | None, list[ThroughMaskError]]:
    """The Sample, if it is whole, and every problem met on the way."""
    problems: list[ThroughMaskError] = []
    header: dict[str, Any] = {}
    with _collect(problems):
        header = _load_json(folder)
    if problems:
        return None, problems
    text = _texts(header, problems)
    objects = _objects(header, problems)
    clocks = {key: _read_clock(header, key, problems) for key in ("trajectory", "video")}
    image = _read_image(folder, header, problems)
    known = {0, *(thing.id for thing in objects)}
    broken = {key for key, clock in clocks.items() if clock is None and header.get(key) is not None}
    labels = None if "trajectory" in broken else _read_masks(folder, clocks["trajectory"], image, known, problems)
    video = None if "video" in broken else _read_video(folder, clocks["video"], image, problems)
    if problems or image is None or labels is None:
        return None, problems
    with _collect(problems):
        scene = Scene(image, labels[0], text["prompt"], text["motion_prompt"], objects)
        clock = clocks["trajectory"]
        trajectory = MaskTrajectory(labels, clock[1]) if clock else None
        return Sample(scene, trajectory, video, Origin(text["source"], text["licence"])), []
    return None, problems


@contextmanager
def _collect(problems: list[ThroughMaskError]) -> Iterator[None]:
    try:
        yield
    except ThroughMaskError as error:
        problems.append(error)


def _load_json(folder: Path) -> dict[str, Any]:
    """The content of scene.json, if it is one and of a version that we know."""
    if not folder.is_dir():
        reason = "a Sample is a folder, this is a file" if folder.exists() else "there is no such folder"
        raise SampleError(reason, seen=str(folder), fix="name a folder that holds a scene.json")
    path = folder / HEADER
    if not os.path.lexists(path):
        raise SampleError("the folder is not a Sample: it has no scene.json", seen=str(folder), fix="name a Sample")
    try:
        with inside(folder, HEADER).open("rb") as file:
            raw = file.read(MAX_HEADER_BYTES + 1)
        if len(raw) > MAX_HEADER_BYTES:
            raise SampleError("scene.json is too large", seen=str(path), fix="it is a page of text")
        header = json.loads(raw.decode("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SampleError("scene.json cannot be read", seen=f"{path}: {error}", fix="restore it from a copy") from error
    except ValueError as error:  # our own errors, and a number of more than 4,300 digits
        if isinstance(error, ThroughMaskError):
            raise
        raise SampleError("scene.json cannot be read", seen=f"{path}: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        seen = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise SampleError(f"scene.json is not of the format {FORMAT!r}", seen=str(seen), fix="name a Sample")
    version = header.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SampleError("scene.json has no valid version", seen=version, fix=f"this program writes {VERSION}")
    if version > VERSION:
        fix = "upgrade: pip install --upgrade through-the-mask"
        raise SampleError(f"the Sample is of a newer version than {VERSION}", seen=version, fix=fix)
    return header


def _texts(header: dict[str, Any], problems: list[ThroughMaskError]) -> dict[str, str]:
    origin = header.get("origin") or {}
    if not isinstance(origin, dict):
        problems.append(SampleError("origin must hold source and licence", seen=origin))
        origin = {}
    found = {key: header.get(key, "") for key in ("prompt", "motion_prompt")}
    found |= {key: origin.get(key, "") for key in ("source", "licence")}
    for key, value in found.items():
        if not isinstance(value, str):
            problems.append(SampleError(f"{key} must be text", seen=value))
    return found


def _objects(header: dict[str, Any], problems: list[ThroughMaskError]) -> tuple[SceneObject, ...]:
    found: list[SceneObject] = []
    listed = header.get("objects")
    if not isinstance(listed, list):
        problems.append(SampleError("objects must be a list", seen=listed))
        return ()
    for entry in listed:
        if not isinstance(entry, dict) or not {"id", "name", "prompt"} <= entry.keys():
            problems.append(SampleError("an object needs id, name and prompt", seen=entry))
            continue
        with _collect(problems):
            thing = SceneObject(entry["id"], entry["name"], entry["prompt"])
            if any(other.id == thing.id for other in found):
                raise SampleError("two objects share an id", seen=thing.id)
            found.append(thing)
    return tuple(found)


def _read_clock(header: dict[str, Any], key: str, problems: list[ThroughMaskError]) -> tuple[int, Fraction] | None:
    """Number of frames and frame rate of a part; None where scene.json says that it has not been made."""
    clock = header.get(key)
    if clock is None:
        return None
    frames = clock.get("frames") if isinstance(clock, dict) else None
    if not isinstance(frames, int) or isinstance(frames, bool) or not 1 <= frames <= MAX_FRAMES:
        problems.append(SampleError(f"{key} needs frames (1 to {MAX_FRAMES}) and fps", seen=clock))
        return None
    with _collect(problems):
        return frames, exact_fps(clock.get("fps"))
    return None


def _read_image(folder: Path, header: dict[str, Any], problems: list[ThroughMaskError]) -> Pixels | None:
    with _collect(problems):
        image = read_image(inside(folder, IMAGE))
        if header.get("size") != list(image.shape[:2]):
            seen = f"{header.get('size')} and {list(image.shape[:2])}"
            raise SampleError("scene.json and image.png differ in size", seen=seen)
        return image
    return None


def _read_masks(
    folder: Path,
    clock: tuple[int, Fraction] | None,
    image: Pixels | None,
    known: set[int],
    problems: list[ThroughMaskError],
) -> Labels | None:
    """All label maps (T H W), or the first alone where there is no trajectory."""
    count = clock[0] if clock else 1
    present = sorted(path.name for path in (folder / MASKS).glob("*.png"))
    expected = [f"{number:05d}.png" for number in range(count)]
    if clock is None and len(present) > 1 and present[0] == expected[0]:
        _notice(folder, f"{len(present) - 1} masks after the first are ignored: scene.json lists no trajectory")
    elif present != expected:
        odd = sorted(set(present) ^ set(expected))
        seen = f"{len(present)} for {count} frames; the first that differs is {odd[0]}"
        problems.append(SampleError("masks and frames differ in number", seen=seen, fix=f"check {folder / MASKS}"))
        return None
    if image is not None and count * image.shape[0] * image.shape[1] > MAX_VIDEO_PIXELS:
        problems.append(SampleError("the masks are too large for memory", seen=f"{count} of {image.shape[:2]}"))
        return None
    labels: Labels | None = None
    for number, name in enumerate(expected):
        with _collect(problems):
            one = read_labels(inside(folder, f"{MASKS}/{name}"))
            size = image.shape[:2] if image is not None else one.shape
            if one.shape != size or (labels is not None and one.shape != labels.shape[1:]):
                raise SampleError("a mask and image.png differ in size", seen=f"{name}: {one.shape} and {size}")
            unknown = set(np.unique(one).tolist()) - known
            if unknown:
                fix = f"known ids: {sorted(known - {0})}; add the object to scene.json"
                raise SampleError("a mask uses ids that no object has", seen=f"{name}: {sorted(unknown)}", fix=fix)
            labels = np.empty((count, *one.shape), np.uint8) if labels is None else labels
            labels[number] = one
    return labels


def _read_video(
    folder: Path, clock: tuple[int, Fraction] | None, image: Pixels | None, problems: list[ThroughMaskError]
) -> Video | None:
    if clock is None:
        if os.path.lexists(folder / VIDEO):
            _notice(folder, "video.mp4 is ignored: scene.json lists no video")
        return None
    with _collect(problems):
        video = read_video(inside(folder, VIDEO))
        seen, stated = (len(video), video.fps), clock
        if seen != stated:
            fix = "write it again with throughmask, or correct scene.json"
            text = f"{seen[0]} frames at {seen[1]}, not {stated[0]} at {stated[1]}"
            raise SampleError("video.mp4 is not as scene.json says", seen=text, fix=fix)
        if image is not None and video.size != image.shape[:2]:
            raise SampleError("video.mp4 and image.png differ in size", seen=f"{video.size} and {image.shape[:2]}")
        return video
    return None


def _notice(folder: Path, text: str) -> None:
    warnings.warn(f"{folder}: {text}", ThroughMaskWarning, stacklevel=2)
