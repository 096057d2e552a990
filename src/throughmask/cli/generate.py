"""The commands that make things with a model: move (a Scene's motion) and render (its video)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .requests import (
    CANDIDATES,
    FLOW,
    SHEET,
    find_checkpoint,
    motion_for,
    must_fit,
    must_lack,
    open_place,
    open_sample,
    parse_options,
    parse_seeds,
    rate_of,
)
from .runs import RUN, Run, read_runs, write_runs
from .samples import Force
from .shell import Answer, command, note

if TYPE_CHECKING:
    from ..stages.checkpoint import StageInfo
    from ..stages.image_to_motion import Proposal
    from ..types import MaskTrajectory, Sample, Video

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A Sample: its picture, objects and prompts.")]
Model = Annotated[
    str, typer.Option(metavar="CKPT", help="A checkpoint made by init or by training, or a model of both stages.")
]
Seed = Annotated[int | None, typer.Option(help="Of the noise; 0 if not given.")]
Steps = Annotated[int, typer.Option(help="Of the sampler.")]
OwnSteps = Annotated[int | None, typer.Option(metavar="N", help="Of the sampler; by default the model's own.")]
Guide = Annotated[
    str, typer.Option(metavar="IMAGE,TEXT", help="The two scales of guidance, 1 is none; by default the model's own.")
]
Apart = Annotated[
    bool | None,
    typer.Option("--apart/--together", help="Move several objects one after another; by default as is best for it."),
]
Frames = Annotated[int | None, typer.Option(metavar="N", help="By default the motion's, or the checkpoint's.")]
Fps = Annotated[str | None, typer.Option(help="Exact, such as 12 or 30000/1001; by default as for --frames.")]
Size = Annotated[str, typer.Option(metavar="HxW", help="Resize the Sample first; needs --out.")]
Negative = Annotated[str, typer.Option(metavar="TEXT", help="What to keep away from.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="auto: bfloat16 on cuda, else float32.")
]
Offload = Annotated[bool, typer.Option("--offload", help="Keep only the network at work on the device.")]
To = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write another Sample; without it, add to DIR.")]


def add_to(app: typer.Typer) -> None:
    command(app, "move")(move)
    command(app, "render")(render)


def move(
    source: Folder,
    model: Model = "toybox",
    seed: Seed = None,
    seeds: Annotated[str, typer.Option(metavar="A..B", help="Candidates to choose from, in DIR/candidates.")] = "",
    steps: OwnSteps = None,
    guidance: Guide = "",
    apart: Apart = None,
    frames: Frames = None,
    fps: Fps = None,
    size: Size = "",
    negative_prompt: Negative = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = False,
    out: To = None,
    force: Force = False,
) -> Answer:
    """Make the masks of every frame, from a Sample's picture."""
    started = time.perf_counter()
    from ..stages.checkpoint import StageInfo

    numbers = parse_seeds(seed, seeds)
    folder = find_checkpoint(model, "motion")
    rest = (frames, fps, size, negative_prompt, device, dtype, offload)
    options = parse_options(folder, steps, guidance, *rest, apart=apart)
    info = StageInfo.read(folder, "motion")
    sample = open_sample(source, options.size, out, force)
    still = replace(sample, trajectory=None, video=None)
    count = info.check(still.scene, frames=frames, steps=options.steps, guidance=options.guidance, seeds=numbers)
    flow = info.recipe.motion == "flow"
    if out is None and not seeds:
        must_lack(source, sample, FLOW if flow else "masks", force)
    run = Run("move", info, options, started)
    with open_place(source, out, bool(seeds), force) as place:
        pipeline: Any = run.load()
        wanted = {"steps": options.steps, "guidance": options.guidance, "frames": frames, "fps": options.fps}
        wanted["apart"] = options.apart
        proposals: list[Proposal] = run.sample(
            lambda: pipeline.propose(still.scene, numbers, **wanted, negative_prompt=negative_prompt)
        )
        facts = {"frames": count, "motion": info.recipe.motion}
        records = [
            run.record(made.seed, **facts, **({} if flow else {"confidence": round(made.confidence, 4)}))
            for made in proposals
        ]
        if seeds:
            write_candidates(place, out, still, info, proposals, records)
        elif out is not None:
            _write_moved(place, still, proposals[0].motion, records[0])
        else:
            _add_moved(source, place, sample, proposals[0].motion, records[0], force)
    return _moved(out or source, bool(seeds), proposals, records)


def render(
    source: Folder,
    model: Model = "toybox",
    flow: Annotated[
        Path | None, typer.Option(metavar="VIDEO", help="Motion for a flow model; by default DIR/flow.mp4.")
    ] = None,
    seed: Seed = None,
    steps: OwnSteps = None,
    guidance: Guide = "",
    frames: Frames = None,
    fps: Fps = None,
    size: Size = "",
    negative_prompt: Negative = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = False,
    out: To = None,
    force: Force = False,
) -> Answer:
    """Make the video of a Sample, from picture and masks."""
    started = time.perf_counter()
    from .. import media, storage
    from ..stages.checkpoint import StageInfo
    from ..types import Video

    number = parse_seeds(seed, "")[0]
    folder = find_checkpoint(model, "video")
    options = parse_options(folder, steps, guidance, frames, fps, size, negative_prompt, device, dtype, offload)
    info = StageInfo.read(folder, "video")
    sample = open_sample(source, options.size, out, force)
    motion = motion_for(source, sample, info, flow)
    count = info.check(
        sample.scene, motion, frames=frames, steps=options.steps, guidance=options.guidance, seeds=[number]
    )
    rate = rate_of(info, motion, options)
    must_fit(sample, count, rate)
    if out is None:
        must_lack(source, sample, "a video", force)
    run = Run("render", info, options, started)
    with open_place(source, out, False, force) as place:
        pipeline: Any = run.load()
        wanted = {"steps": options.steps, "guidance": options.guidance, "frames": count, "fps": rate, "seed": number}
        video = run.sample(lambda: pipeline.render(sample.scene, motion, **wanted, negative_prompt=negative_prompt))
        record = run.record(number, frames=count, motion=info.recipe.motion)
        runs = {**read_runs(source), "render": record}
        runs.pop("measure", None)  # of an earlier video
        if out is None:
            storage.add_to_sample(source, video=video, force=force)
            write_runs(place, runs)
        else:
            storage.save_sample(replace(sample, video=video), place)
            if isinstance(motion, Video):
                media.write_video(place / FLOW, motion, lossless=True)
            write_runs(place / RUN, runs)
    path = out or source
    data = {"path": str(path), "video": str(path / storage.VIDEO), "run": str(path / RUN), "frames": count}
    data.update(fps=str(rate), size=list(video.size), seed=number, seconds=record["seconds"])
    seconds = record["seconds"]
    lines = [
        f"{data['video']}: {count} frames of {video.size[0]} × {video.size[1]} at {rate} fps, seed {number}",
        f"  {seconds['load']:.1f} s to load, {seconds['sample']:.1f} s to sample",
    ]
    return Answer(data, lines)


def _write_moved(folder: Path, still: Sample, motion: MaskTrajectory | Video, record: dict[str, Any]) -> None:
    """A Sample folder with a motion and its run.json."""
    from .. import media, storage
    from ..types import MaskTrajectory

    masks = motion if isinstance(motion, MaskTrajectory) else None
    storage.save_sample(replace(still, trajectory=masks), folder)
    if masks is None:
        media.write_video(folder / FLOW, motion, lossless=True)  # type: ignore[arg-type]
    write_runs(folder / RUN, {"move": record})


def _add_moved(
    source: Path, file: Path, sample: Sample, motion: MaskTrajectory | Video, record: dict[str, Any], force: bool
) -> None:
    from .. import media, storage
    from ..types import MaskTrajectory

    runs = read_runs(source)
    if isinstance(motion, MaskTrajectory):
        storage.add_to_sample(source, trajectory=motion, drop_video=True, force=force)
        for verb in ("render", "measure"):
            runs.pop(verb, None)
        if sample.video is not None:
            note("The video was removed: it does not follow the new masks.")
    else:
        media.write_video(source / FLOW, motion, lossless=True, force=force)
    write_runs(file, {**runs, "move": record})


def write_candidates(
    place: Path,
    out: Path | None,
    still: Sample,
    info: StageInfo,
    proposals: Sequence[Proposal],
    records: Sequence[dict[str, Any]],
) -> None:
    """candidates/seed-<k>/ for each proposal, and one sheet of them all; in a new Sample, beside its picture."""
    from .. import draw, media, storage
    from ..types import Video

    if out is not None:
        storage.save_sample(still, place)
        place = place / CANDIDATES
        place.mkdir()
    rows = []
    for made, record in zip(proposals, records, strict=True):
        _write_moved(place / f"seed-{made.seed}", still, made.motion, record)
        if isinstance(made.motion, Video):
            rows.append((f"seed {made.seed}", made.motion.frames))
        else:
            title = f"seed {made.seed}, confidence {made.confidence:.3f}"
            rows.append((title, info.palette.paint(made.motion.labels)))
    media.write_image(place / SHEET, draw.contact_sheet(rows))


def _moved(folder: Path, several: bool, proposals: Sequence[Proposal], records: Sequence[dict[str, Any]]) -> Answer:
    first, seconds = proposals[0].motion, records[0]["seconds"]
    data: dict[str, Any] = {"path": str(folder), "seconds": seconds}
    data.update(frames=len(first), fps=str(first.fps), size=list(first.size))
    timing = f"  {seconds['load']:.1f} s to load, {seconds['sample']:.1f} s to sample"
    height, width = first.size
    shape = f"{len(first)} frames of {height} × {width} at {first.fps} fps"
    if not several:
        data.update(seed=records[0]["seed"], confidence=records[0].get("confidence"), run=str(folder / RUN))
        sure = f", confidence {data['confidence']:.3f}" if data["confidence"] is not None else ""
        return Answer(data, [f"{folder}: {shape}, seed {data['seed']}{sure}", timing])
    data["sheet"] = str(folder / CANDIDATES / SHEET)
    data["candidates"] = [
        {
            "path": str(folder / CANDIDATES / f"seed-{record['seed']}"),
            "seed": record["seed"],
            "confidence": record.get("confidence"),
        }
        for record in records
    ]
    lines = [f"{data['sheet']}: {len(records)} candidates, {shape}", timing]
    return Answer(
        data, [*lines, f"  to go on with one: throughmask render {data['candidates'][0]['path']} --model ..."]
    )
