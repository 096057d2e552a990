"""The command evaluate: the benchmark of models of Toybox, as a table, JSON and a page with videos."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidValueError, OutputError, SampleError
from .generate import Apart, Device, Dtype, Guide, Offload, OwnSteps
from .perceive import Words
from .requests import parse_options, parse_seeds
from .runs import Options, choose_device, enough_memory, versions
from .shell import Answer, as_json_now, command

if TYPE_CHECKING:
    from ..evaluate.judge import Tracker
    from ..evaluate.scenes import Clip
    from ..evaluate.scores import Scores
    from ..stages.checkpoint import StageInfo

TABLE, NUMBERS, PAGE = "table.txt", "scores.json", "page.html"

SPLITS = "toybox-128, -single, -multi, -entering, -twins, -compositional or -bystanders."
Split = Annotated[str, typer.Argument(help=SPLITS)]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="For all results; a run that stopped goes on here.")]
Model = Annotated[
    str | None, typer.Option(metavar="DIR", help="A bundle, or its name: both stages, and what finds toys again.")
]
Motion = Annotated[Path | None, typer.Option(metavar="CKPT", help="The stage that moves; without it only --video.")]
Video = Annotated[Path | None, typer.Option(metavar="CKPT", help="The stage that renders; without it only --motion.")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="So many scenes of the split, evenly spaced.")]
Part = Annotated[
    str,
    typer.Option(metavar="K/N", help="Every N-th scene from the K-th on, 0/N the first: processes may share --out."),
]
Seeds = Annotated[str, typer.Option(metavar="A..B", help="Of the noise, for each scene.")]
Other = Annotated[str, typer.Option(metavar="IMAGE,TEXT", help="For the stage that renders, if other scales.")]
Size = Annotated[str, typer.Option(metavar="HxW", help="Height and width of the scenes, both even.")]
Frames = Annotated[int | None, typer.Option(metavar="N", help="By default the checkpoint's.")]
Fps = Annotated[str | None, typer.Option(help="Exact, such as 12 or 30000/1001; by default the checkpoint's.")]
Workers = Annotated[int | None, typer.Option(metavar="N", help="Processes that make scenes; 0 for none.")]
GlDevice = Annotated[int | None, typer.Option(help="Which of EGL's devices renders the scenes.")]


Runs = Annotated[list[Path], typer.Argument(metavar="DIR...", help="What evaluate wrote with --out, two or more.")]
Names = Annotated[str, typer.Option(metavar="A,B,...", help="Of the runs; by default their folders'.")]


def add_to(app: typer.Typer) -> None:
    command(app, "evaluate")(evaluate)
    command(app, "compare")(compare)


def compare(runs: Runs, names: Names = "") -> Answer:
    """Put several evaluations beside each other, scene by scene."""
    from ..evaluate.compare import compare_runs, named

    found = compare_runs(named(runs, [name.strip() for name in names.split(",")] if names else ()))
    return Answer(found.as_json(), [found.table()])


def evaluate(
    split: Split,
    out: Out,
    model: Model = None,
    motion: Motion = None,
    video: Video = None,
    perception: Words = None,
    limit: Limit = None,
    part: Part = "0/1",
    seeds: Seeds = "0..2",
    steps: OwnSteps = None,
    guidance: Guide = "",
    video_guidance: Other = "",
    apart: Apart = None,
    size: Size = "256x256",
    frames: Frames = None,
    fps: Fps = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = False,
    workers: Workers = None,
    gl_device: GlDevice = None,
) -> Answer:
    """Score a model on held-out scenes of Toybox."""
    from ..evaluate.benchmark import evaluate_split
    from ..evaluate.scenes import chosen_seeds
    from ..evaluate.subjects import Stages, check_stages
    from ..stages.checkpoint import StageInfo
    from ..toybox import prepare_opengl

    numbers, share = parse_seeds(None, seeds), _part(part)
    if model is not None:
        motion, video, perception = _bundled(model, motion, video, perception)
    rest = (frames, fps, size, "", device, dtype, offload)
    moving = parse_options(motion or Path(), steps, guidance, *rest, apart=apart)
    rendering = parse_options(video or Path(), steps, video_guidance or guidance, *rest)
    chosen_seeds(split, limit)
    mover = StageInfo.read(motion, "motion") if motion is not None else None
    renderer = StageInfo.read(video, "video") if video is not None else None
    check_stages(mover, renderer)
    stages = [(info, options) for info, options in ((mover, moving), (renderer, rendering)) if info is not None]
    clip = _clip(stages, numbers, gl_device)
    _must_be_ours(out)
    prepare_opengl(gl_device)
    place = choose_device(device)
    kind = dtype if dtype != "auto" else "bfloat16" if place.startswith("cuda") else "float32"
    folders = {"motion": motion, "video": video, "perception": perception}
    models = {name: folder for name, folder in folders.items() if folder is not None}
    with enough_memory():
        subject = Stages.load(
            motion,
            video,
            device=place,
            dtype=kind,
            offload=offload,
            frames=clip.frames,
            fps=clip.fps,
            steps=moving.steps,
            guidance=moving.guidance,
            video_guidance=rendering.guidance,
            apart=moving.apart,
        )
        scores = evaluate_split(
            split,
            subject,
            None if perception is None else _tracker(perception, place),
            seeds=numbers,
            limit=limit,
            part=share,
            clip=clip,
            workers=max(1, (os.cpu_count() or 2) - 1) if workers is None else workers,
            out=out,
            made_with={**_fingerprints(models), **_settings(moving, rendering, models), "dtype": kind},
            say=(lambda text: None) if as_json_now.get() else (lambda text: typer.echo(text, err=True)),
        )
    paths = {f"{name} model": str(folder) for name, folder in models.items()}
    facts = {"models": paths, **scores.facts, "device": place, "versions": versions()}
    return _answer(replace(scores, facts=facts), out)


def _part(text: str) -> tuple[int, int]:
    first, _, each = text.partition("/")
    if not (first.isdecimal() and each.isdecimal() and int(first) < int(each)):
        raise InvalidValueError("part is K/N with K below N", seen=text, fix="such as 0/2 and 1/2")
    return int(first), int(each)


def _bundled(
    model: str, motion: Path | None, video: Path | None, perception: Path | None
) -> tuple[Path, Path, Path | None]:
    """The parts of a bundle, each unless another is given. Raises SampleError for a folder that is none."""
    from ..stages.bundle import find_model
    from ..stages.checkpoint import BUNDLE

    folder = find_model(model)
    if not (folder / BUNDLE).is_file():
        fix = "give its stages with --motion and --video"
        raise SampleError("this is not a bundle of both stages", seen=model, fix=fix)
    seer = folder if (folder / "segmenter").is_dir() else None
    return motion or folder / "motion", video or folder / "video", perception or seer


def _tracker(folder: Path, device: str) -> Tracker:
    from ..perception.parse import track_video
    from ..perception.toybox import ToyboxPerception

    perception = ToyboxPerception.load(folder)
    perception.text.encoder.to(device)
    perception.segmenter.to(device)
    return partial(track_video, perception=perception)


def _clip(stages: Sequence[tuple[StageInfo, Options]], seeds: Sequence[int], gl_device: int | None) -> Clip:
    """How the scenes are filmed. Raises InvalidValueError for a request that does not fit each stage."""
    import numpy as np

    from ..evaluate.scenes import Clip
    from ..types import MaskTrajectory, Scene, exact_fps

    first, asked = stages[0]
    fps = asked.fps or exact_fps(first.fps)
    clip = Clip(asked.size or (256, 256), asked.frames or first.frames, fps, gl_device)
    blank = np.zeros((clip.frames, *clip.size), np.uint8)
    scene, still = Scene(np.zeros((*clip.size, 3), np.uint8), blank[0]), MaskTrajectory(blank, fps)
    for info, options in stages:
        motion = still if info.stage == "video" and info.recipe.motion == "labels" else None
        steps, guidance = options.steps, options.guidance
        info.check(scene, motion, frames=clip.frames, steps=steps, guidance=guidance, seeds=seeds)
    return clip


def _must_be_ours(out: Path) -> None:
    """Raises OutputError for a folder that holds something else than results."""
    from ..evaluate.journal import RESULTS

    if not out.exists() or (out.is_dir() and (not any(out.iterdir()) or (out / RESULTS).is_file())):
        return
    raise OutputError("this holds something else than results", seen=str(out), fix="name another folder")


def _fingerprints(models: dict[str, Path]) -> dict[str, str]:
    """What the files of each model hold, wherever they lie."""
    from ..files import fingerprint
    from ..stages.checkpoint import STAGES, StageInfo, component_folder

    names: dict[str, tuple[str, ...]] = {"perception": ("tokenizer", "text_encoder", "segmenter")}
    names |= {stage: StageInfo.read(models[stage], stage).layout.components for stage in STAGES if stage in models}
    return {
        part: fingerprint(folder / "model_index.json", *(component_folder(folder, name) for name in names[part]))
        for part, folder in models.items()
    }


def _settings(moving: Options, rendering: Options, models: dict[str, Path]) -> dict[str, Any]:
    """The options that decide what comes out."""
    settings: dict[str, Any] = {"steps": moving.steps, **({"apart": moving.apart} if "motion" in models else {})}
    for name, options in (("motion", moving), ("video", rendering)):
        if name in models:
            settings[f"{name}_guidance"] = list(options.guidance)
    return settings


def _answer(scores: Scores, out: Path) -> Answer:
    """Write the three files."""
    from ..evaluate.benchmark import CLIPS
    from ..evaluate.page import write_page
    from ..files import new_file

    data, table = scores.as_json(), scores.table()
    for name, text in ((NUMBERS, json.dumps(data, ensure_ascii=False, indent=2)), (TABLE, table)):
        with new_file(out / name, force=True) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    write_page(out / PAGE, scores, out / CLIPS / scores.facts["key"])
    files = {"table": str(out / TABLE), "scores": str(out / NUMBERS), "page": str(out / PAGE)}
    return Answer({**data, "files": files}, [table, "", *files.values()])
