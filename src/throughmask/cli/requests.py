"""What `move` and `render` are asked for: read, checked against Sample and checkpoint, before torch is loaded."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValueError, MediaError, OutputError
from .runs import RUN, Options
from .shell import note

if TYPE_CHECKING:
    from ..nn.scales import Scales
    from ..stages.checkpoint import StageInfo
    from ..types import MaskTrajectory, Sample, Video

CANDIDATES, SHEET, FLOW = "candidates", "sheet.png", "flow.mp4"
MOST_CANDIDATES = 64


def find_checkpoint(model: str, stage: str) -> Path:
    """The checkpoint of a stage, from a bundled model's name, a folder of both stages, or the checkpoint's own."""
    from ..stages.bundle import find_model, stage_folder

    return stage_folder(find_model(model), stage)


def parse_options(
    model: Path,
    steps: int | None,
    guidance: str,
    frames: int | None,
    fps: str | None,
    size: str,
    *rest: Any,
    apart: bool | None = None,
) -> Options:
    """model: a stage's checkpoint. steps None, guidance "", apart None: as the model it is part of is best used."""
    from ..stages.bundle import Habits
    from ..types import exact_fps

    habits = Habits.read(model)
    scales = parse_scales(guidance) if guidance else habits.guidance_of(model.name)
    height_width = parse_size(size) if size else None
    rate = None if fps is None else exact_fps(fps)
    options = Options(model, habits.steps if steps is None else steps, scales, frames, rate, height_width, *rest)
    return replace(options, apart=habits.apart if apart is None else apart)


def parse_scales(guidance: str) -> Scales:
    from ..nn.scales import Scales

    try:
        image, text = (float(part) for part in guidance.split(","))
    except ValueError:
        fix = "such as 1.5,7.5; 1,1 is no guidance"
        raise InvalidValueError("guidance is written IMAGE,TEXT", seen=guidance, fix=fix) from None
    scales = Scales(image, text)
    scales.weights()  # refuses negative ones
    return scales


def parse_size(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})\s*[xX×]\s*(\d{1,5})", size.strip())
    if match is None:
        raise InvalidValueError("a size is written HxW, such as 480x832", seen=size)
    return int(match[1]), int(match[2])


def parse_seeds(seed: int | None, seeds: str) -> list[int]:
    if not seeds:
        return [seed or 0]
    if seed is not None:
        raise InvalidValueError("give --seed or --seeds, not both")
    match = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", seeds.strip())
    if match is None:
        raise InvalidValueError("seeds are written A..B, such as 0..7", seen=seeds)
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MOST_CANDIDATES:
        problem = f"seeds go from a smaller to a larger number, at most {MOST_CANDIDATES}"
        raise InvalidValueError(problem, seen=seeds)
    return list(range(first, last + 1))


def open_sample(source: Path, size: tuple[int, int] | None, out: Path | None, force: bool) -> Sample:
    """The Sample, at the size that was asked for. Raises OutputError if --out would replace it."""
    from .. import storage
    from .convert import check_places

    if out is not None:
        check_places(source, out, "sample", force)
    sample = storage.load_sample(source)
    if size is None or size == sample.scene.size:
        return sample
    if out is None:
        fix = "name another folder with --out"
        raise InvalidValueError("another size makes another Sample", seen=f"{size[0]}×{size[1]}", fix=fix)
    return _resized(sample, size)


def _resized(sample: Sample, size: tuple[int, int]) -> Sample:
    from .. import media
    from ..animation import resized_scene
    from ..types import MaskTrajectory

    scene, notes = resized_scene(sample.scene, size)
    trajectory = sample.trajectory
    if trajectory is not None:
        trajectory = MaskTrajectory(media.resize_labels(trajectory.labels, size), trajectory.fps)
    if sample.video is not None:
        notes.append("The video was left out.")
    for text in notes:
        note(text)
    return replace(sample, scene=scene, trajectory=trajectory, video=None)


def motion_for(source: Path, sample: Sample, info: StageInfo, flow: Path | None) -> MaskTrajectory | Video | None:
    """What the checkpoint's Recipe renders; for one that sees no motion, masks still say how long the video is."""
    from .. import media

    if info.recipe.motion != "flow":
        if flow is not None:
            fix = "leave --flow out, or use a checkpoint of recipe flow"
            raise InvalidValueError(f"recipe {info.recipe.name!r} does not see flow", seen=str(flow), fix=fix)
        return sample.trajectory
    path = flow or source / FLOW
    if not path.is_file():
        fix = "make one with throughmask move and a flow checkpoint, or name one with --flow"
        raise MediaError("recipe 'flow' renders a video of flow, and there is none", seen=str(path), fix=fix)
    return media.read_video(path)


def rate_of(info: StageInfo, motion: MaskTrajectory | Video | None, options: Options) -> Fraction:
    from ..types import exact_fps

    if motion is None:
        return options.fps or exact_fps(info.fps)
    if options.fps not in (None, motion.fps):
        fix = "leave --fps out, or change the motion first: throughmask edit --do 'resample fps=...'"
        raise InvalidValueError(f"the motion has {motion.fps} frames a second", seen=str(options.fps), fix=fix)
    return motion.fps


def must_fit(sample: Sample, count: int, rate: Any) -> None:
    """Raises InvalidValueError if the Sample could not hold a video of that length and rate."""
    import numpy as np

    from ..types import Video

    blank = np.broadcast_to(np.zeros(1, np.uint8), (count, *sample.scene.size, 3))
    replace(sample, video=Video(blank, rate))


def must_lack(source: Path, sample: Sample, what: str, force: bool) -> None:
    """Raises OutputError if the Sample has `what` (masks, a video or flow.mp4), unless it may be replaced."""
    found = {"masks": sample.trajectory, "a video": sample.video}.get(what) is not None
    found |= what == FLOW and os.path.lexists(source / FLOW)
    if what == "masks" and not found and sample.video is not None:
        found, what = True, "a video, which would not follow new masks"
    if found and not force:
        fix = "write to another folder with --out, or pass --force"
        raise OutputError(f"the Sample already has {what}", seen=str(source), fix=fix)


def open_place(source: Path, out: Path | None, several: bool, force: bool) -> AbstractContextManager[Path]:
    """What is to be filled: a new Sample folder, a folder of candidates, or a new run.json in the Sample itself.

    It is opened before the model loads, so that a place that cannot be written to costs no time.
    """
    from ..files import new_file, new_folder
    from ..storage import new_sample_folder

    if out is not None:
        return new_sample_folder(out, force=force)
    if not several:
        return new_file(source / RUN, force=True)
    folder = source / CANDIDATES
    strange = [path.name for path in folder.glob("*") if not re.fullmatch(r"seed-\d+|sheet\.png", path.name)]
    if force and strange:
        fix = "move them elsewhere, or write with --out"
        raise OutputError("the folder of candidates holds other things", seen=strange, fix=fix)
    return new_folder(folder, force=force)
