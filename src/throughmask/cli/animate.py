"""The main job, animate: a picture and a sentence become a Sample with masks and video.

All that comes in between is kept in the Sample's folder, so that an interrupted animate goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..errors import OutputError, SampleError, ThroughMaskError
from .generate import Apart, Device, Dtype, Fps, Frames, Guide, Negative, Offload, OwnSteps, Seed, write_candidates
from .perceive import (
    Boxes,
    BoxThreshold,
    DetectorName,
    Heard,
    LanguageKind,
    Llm,
    Masks,
    Points,
    See,
    Seeing,
    SegmenterName,
    TextThreshold,
    Timeout,
    Url,
    masks_from,
    must_be_one_way,
    open_language,
    open_perception,
    parse,
    read_boxes,
    read_points,
)
from .requests import CANDIDATES, SHEET, find_checkpoint, parse_options, parse_seeds
from .runs import RUN, Options, Run, read_runs, write_runs
from .samples import Force
from .shell import Answer, as_json_now, command, note

if TYPE_CHECKING:
    from ..animation import Animation, Animator

VERB = "animate"
# In the bundled model's folder: a picture and what shall happen in it.
DEMO_IMAGE, DEMO_PROMPT = "demo.png", "demo.txt"
# The smallest base for photographs, with the sizes of its parts on the hub in GB: float32, four bytes a parameter.
PHOTO_BASE = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
PHOTO_PRESET = "wan-1.3b-lora"
PHOTO_SIZES = {"text encoder": 22.7, "denoiser": 5.7, "VAE": 0.5}

Image = Annotated[Path, typer.Argument(metavar="IMAGE")]
Prompt = Annotated[str, typer.Option(help="What shall happen, in plain English.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The Sample that is written; one begun goes on.")]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="CKPT",
        help="A bundled model's name, or a folder with both stages in motion/ and video/. Default: toybox; with "
        "--perception real there is none.",
    ),
]
Seeds = Annotated[
    str, typer.Option(metavar="A..B", help="Candidate motions, in DIR/candidates; the most confident is rendered.")
]
Pick = Annotated[int | None, typer.Option(metavar="N", help="Which of --seeds is rendered.")]
Size = Annotated[str, typer.Option(metavar="HxW", help="Stretch the picture; by default its own proportions are kept.")]


def add_to(app: typer.Typer) -> None:
    command(app, "animate")(animate)
    command(app, "demo")(demo)


def animate(
    image: Image,
    prompt: Prompt,
    out: Out,
    model: Model = None,
    seed: Seed = None,
    seeds: Seeds = "",
    pick: Pick = None,
    masks: Masks = None,
    boxes: Boxes = "",
    points: Points = "",
    perception: See = None,
    detector: DetectorName = "",
    segmenter: SegmenterName = "",
    box_threshold: BoxThreshold = None,
    text_threshold: TextThreshold = None,
    language: LanguageKind = "rules",
    url: Url = "",
    llm: Llm = "",
    timeout: Timeout = 120.0,
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
    force: Force = False,
) -> Answer:
    """Animate a picture from a sentence: parse, move and render. Started again, it goes on where it stopped."""
    started = time.perf_counter()
    from ..animation import Animator
    from ..stages.bundle import DEFAULT_MODEL

    must_be_one_way(masks, boxes, points)
    seeing = Seeing(perception, detector, segmenter, box_threshold, text_threshold, device)
    numbers = parse_seeds(seed, seeds)
    if model is None and perception == "real":
        note("No model moves photographs yet: what the prompt names is found and kept, and that is all.")
        how: dict[str, Any] = {**vars(seeing), "perception": seeing.kind, "masks": masks, "boxes": boxes}
        how |= {"points": points, "language": language, "url": url, "llm": llm, "timeout": timeout, "force": force}
        del how["kind"]
        parse(image, prompt, out, **how)
        raise no_photo_model(out)
    model = DEFAULT_MODEL if model is None else model
    rest = (frames, fps, size, negative_prompt, device, dtype, offload)
    moving, rendering = (
        parse_options(find_checkpoint(model, stage), steps, guidance, *rest, apart=apart)
        for stage in ("motion", "video")
    )
    animator = Animator.load(model, device=device, dtype=dtype, offload=offload)
    animator.language = reader = Heard(open_language(language, url, llm, timeout=timeout, device=device, stay=False))
    if perception is not None:
        animator.find = partial(open_perception, seeing, surely=not boxes and not points)
    wanted: dict[str, Any] = {"boxes": read_boxes(boxes), "points": read_points(points), "pick": pick}
    wanted |= {"seeds": numbers if seeds else None}
    arguments = {
        "image": _content(image),
        "masks": None if masks is None else _content(masks),
        "prompt": prompt,
        "language": llm or language,
        "perception": seeing.facts() if masks is None else None,
        "model": str(animator.folder.absolute()),
        **wanted,
        "seed": numbers[0],
        **_settings(moving, rendering),
    }
    folder = Folder(out, json.loads(json.dumps(arguments)), animator, moving, rendering, started, bool(seeds))
    begun = None if force else folder.begun()
    wanted |= {"seed": None if seeds else numbers[0], "steps": moving.steps, "size": moving.size}
    # Without --guidance each stage has its own scales.
    wanted |= {"guidance": moving.guidance if guidance else None, "negative_prompt": negative_prompt}
    wanted |= {
        "apart": moving.apart,
        "frames": frames,
        "fps": moving.fps,
        "progress": not as_json_now.get(),
        "masks": masks,
    }
    with ExitStack() as stack:
        if begun is None:
            folder.open(stack, masks_from(masks, boxes, points), force)
            if language != "rules" and masks is None:
                _ = animator.perception  # a language model's answer may cost money: not before all else is there
        try:
            made = animator.animate(image, prompt, **wanted, begun=begun, keep=folder.keep)
        except (KeyboardInterrupt, ThroughMaskError):
            if folder.is_there:
                again = "the same command without --force" if force else "the same command"
                note(f"{out} keeps what is done; {again} goes on from there.")
            else:
                reader.tell()
            raise
    folder.add_pictures(made)
    return _answer(folder, made, begun)


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The Sample that is written.")] = Path("demo"),
    prompt: Annotated[str, typer.Option(help="Another sentence about the same picture.")] = "",
    seed: Seed = None,
    force: Force = False,
) -> Answer:
    """Animate the picture that the bundled model comes with."""
    from ..stages.bundle import bundled

    folder = bundled()
    sentence = prompt or (folder / DEMO_PROMPT).read_text(encoding="utf-8").strip()
    note(f"{folder / DEMO_IMAGE}: {sentence}")
    return animate(folder / DEMO_IMAGE, sentence, out, seed=seed, force=force)


def no_photo_model(out: Path) -> SampleError:
    """What to train or download so that photographs move, and how large it is."""
    parts = ", ".join(f"{name} {size:g}" for name, size in PHOTO_SIZES.items())
    train = f"throughmask train {PHOTO_PRESET} --data SAMPLES --held-out OTHERS --stage"
    fix = (
        f"train one on {PHOTO_BASE} ({sum(PHOTO_SIZES.values()):.0f} GB to download: {parts}) with videos and their "
        f"masks (docs/train.md): {train} motion --out M, the same with video and --out V; then go on from here: "
        f"throughmask move {out} --model M/model, throughmask render {out} --model V/model"
    )
    return SampleError(f"no model for photographs is shipped or published; {out} keeps what was found", fix=fix)


class Folder:
    """The Sample's folder while it is filled: what is in it, with what arguments it was begun, and what comes next."""

    def __init__(
        self,
        out: Path,
        arguments: dict[str, Any],
        animator: Animator,
        moving: Options,
        rendering: Options,
        started: float,
        several: bool,
    ) -> None:
        self.out, self.arguments, self.animator, self.several = out, arguments, animator, several
        self.is_there = False
        self.runs = {
            "move": Run("move", animator.motion, moving, started),
            "render": Run("render", animator.video, rendering, started),
        }

    def begun(self) -> Animation | None:
        """What is there already, made with the same arguments; None where nothing is.

        Raises OutputError for anything else.
        """
        from .. import storage
        from ..animation import Animation

        if not self.out.is_dir() or not any(self.out.iterdir()):
            return None  # a file in its place is found when the folder is opened
        runs = read_runs(self.out)
        entry = runs.get(VERB)
        if not isinstance(entry, dict) or not isinstance(entry.get("arguments"), dict):
            fix = "choose another --out; throughmask move and render go on with a Sample"
            raise OutputError("the folder holds something that animate did not make", seen=str(self.out), fix=fix)
        before = entry["arguments"]
        others = sorted(
            key for key in before.keys() | self.arguments.keys() if before.get(key) != self.arguments.get(key)
        )
        if others:
            fix = "choose another --out, or pass --force to make it all again"
            seen = f"{self.out}: {', '.join(others)}"
            raise OutputError("the folder holds what animate made with other arguments", seen=seen, fix=fix)
        self.is_there = True
        return Animation(storage.load_sample(self.out), seed=runs.get("move", {}).get("seed"))

    def open(self, stack: ExitStack, masks: str, force: bool) -> None:
        """Begin a new folder, before anything is loaded; it appears when the first step is done."""
        from ..storage import new_sample_folder

        self.stack, self.masks = stack, masks
        self.place = stack.enter_context(new_sample_folder(self.out, force=force))

    def keep(self, step: str, made: Animation) -> None:
        """Write what a step made. run.json comes first: a step without its result is done again, never the reverse."""
        from .. import storage

        if step == "parse":
            storage.save_sample(made.sample, self.place)
            seconds = round(sum(made.seconds.values()), 3)
            record: dict[str, Any] = {"prompt": made.sample.scene.prompt, "masks": self.masks}
            record |= {key: self.arguments[key] for key in ("language", "perception")}
            record |= {"notes": list(made.notes), "throughmask": __version__, "seconds": seconds}
            entry = {"arguments": self.arguments, "throughmask": __version__}
            write_runs(self.place / RUN, {VERB: entry, "parse": record})
            self.stack.close()
            self.is_there = True
        elif step == "move":
            records = [self._record("move", made, each.seed, each.confidence) for each in made.candidates]
            if self.several:
                self._write_candidates(made, records)
            chosen = next(record for record in records if record["seed"] == made.seed)
            self._add_run("move", chosen)
            storage.add_to_sample(self.out, trajectory=made.sample.trajectory)
        else:
            seed = self.arguments["seed"] if made.seed is None else made.seed
            self._add_run("render", self._record("render", made, seed))
            storage.add_to_sample(self.out, video=made.sample.video)
            self.add_pictures(made)

    def add_pictures(self, made: Animation) -> None:
        """Overlay and contact sheet, if they are missing."""
        from ..animation import OVERLAY, SHEET, write_pictures

        if not all((self.out / name).is_file() for name in (OVERLAY, SHEET)):
            write_pictures(made.sample, self.out)

    def _write_candidates(self, made: Animation, records: list[dict[str, Any]]) -> None:
        from ..files import new_folder
        from ..types import Sample

        still = Sample(made.sample.scene)
        with new_folder(self.out / CANDIDATES, force=True) as place:
            write_candidates(place, None, still, self.animator.motion, made.candidates, records)

    def _record(self, verb: str, made: Animation, seed: int, confidence: float | None = None) -> dict[str, Any]:
        run = self.runs[verb]
        run.device, run.dtype = self.animator.place, self.animator.precision
        run.seconds = {"load": made.seconds["load"], "sample": made.seconds[verb]}
        motion = made.sample.trajectory
        facts: dict[str, Any] = {"frames": len(motion or ()), "motion": run.info.recipe.motion}
        if confidence is not None:
            facts["confidence"] = round(confidence, 4)
        return run.record(seed, **facts)

    def _add_run(self, verb: str, record: dict[str, Any]) -> None:
        from ..files import new_file

        with new_file(self.out / RUN, force=True) as file:
            write_runs(file, {**read_runs(self.out), verb: record})


def _content(path: Path) -> str:
    """A fingerprint of a file. Raises MediaError if it cannot be read."""
    from ..files import must_be_file

    must_be_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settings(moving: Options, rendering: Options) -> dict[str, Any]:
    """The options that decide what comes out."""
    return {
        "steps": moving.steps,
        "guidance": [*moving.guidance, *rendering.guidance],
        "apart": moving.apart,
        "frames": moving.frames,
        "fps": None if moving.fps is None else str(moving.fps),
        "size": moving.size,
        "negative_prompt": moving.negative_prompt,
        "dtype": moving.dtype,
    }


def _answer(folder: Folder, made: Animation, begun: Animation | None) -> Answer:
    from .. import storage
    from ..animation import OVERLAY
    from ..animation import SHEET as OVERVIEW

    out, video = folder.out, made.sample.video
    assert video is not None
    runs = read_runs(out)
    confidence = runs.get("move", {}).get("confidence")
    sample = None if begun is None else begun.sample
    there = {"parse": sample, "move": sample and sample.trajectory, "render": sample and sample.video}
    before = [step for step, part in there.items() if part is not None]
    steps = ("parse", "load", "move", "render", "write")
    seconds = {name: round(made.seconds[name], 3) for name in steps if name in made.seconds}
    seconds["total"] = round(time.perf_counter() - folder.runs["render"].started, 3)
    paths = {"video": storage.VIDEO, "overlay": OVERLAY, "sheet": OVERVIEW, "run": RUN}
    data: dict[str, Any] = {"path": str(out), **{key: str(out / name) for key, name in paths.items()}}
    data |= {"frames": len(video), "fps": str(video.fps), "size": list(video.size), "seed": made.seed}
    data |= {"confidence": confidence, "done_before": before, "seconds": seconds}
    height, width = video.size
    sure = "" if confidence is None else f", confidence {confidence:.3f}"
    shape = f"{len(video)} frames of {height} × {width} at {video.fps} fps, seed {made.seed}{sure}"
    lines = [
        f"{data['video']}: {shape}",
        f"{data['overlay']}: the masks over the video",
        f"{data['sheet']}: the same at a glance",
    ]
    if folder.several:
        data["candidates"] = str(out / CANDIDATES / SHEET)
        more = f"throughmask render {out / CANDIDATES}/seed-N --model {folder.animator.folder} --out OTHER"
        lines.append(f"{data['candidates']}: the candidates; to render another: {more}")
    if before:
        lines.append(f"  done before: {', '.join(before)}")
    spent = [f"{name} {value:.1f}" for name, value in seconds.items()]
    return Answer(data, [*lines, f"  seconds: {', '.join(spent)}"])
