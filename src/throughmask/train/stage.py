"""Training a stage, or the text-to-video base that both start from: one story, told once in order.

Paper Sec. 10: fine-tune a text-to-video model with its own objective. The loop knows no backbone and no Recipe: what
is learnt and what the network is told come from `batches`, which join conditions as sampling does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import palette
from ..errors import InvalidValueError
from ..stages.recipes import recipe
from ..types import MaskTrajectory, Video, exact_fps
from .batches import Batch, Batches
from .devices import Processes
from .flops import clip_flops, peak_flops
from .latents import CacheConfig, Encoder, make_latents
from .learner import Learner
from .preview import Preview, on_device
from .sheets import motion_sheet, video_sheet
from .state import Checkpoints
from .subject import Subject, start
from .watch import Judge, Progress, write_run_record

Say = Callable[[str], None]

STAGES = ("base", "motion", "video")
# What may change between a run and its resumption: where and how fast it runs, and when it stops.
FREE = (
    "steps",
    "minutes",
    "decay",
    "workers",
    "device",
    "save_every",
    "export_every",
    "sheet_every",
    "log_every",
    "keep",
    "held_out",
    "cache",
)


@dataclass(frozen=True)
class StageConfig:
    """stage: "base" (text to video), "motion" (stage 1) or "video" (stage 2). data, held_out: see samples.open_samples.
    base: the text-to-video model to start from: a folder, a hub id, or a name of backbones.BASES; empty for an
    untrained one of width, layers, heads and ffn around the folders vae ("toybox" is the bundled one) and words. init:
    a checkpoint of this very stage, whose weights it goes on from. blocks: K, how many are masked; -1 is a quarter.

    variants, flips, phrasings, films: see latents.CacheConfig. batch: samples of one step, over all processes;
    accumulate: in so many parts. lr: constant after `warmup` steps, falling to 0 over the last share `decay` of the
    run. clip: the gradient's norm. ema: of the averaged weights. drop: how often text, image and both are null
    (InstructPix2Pix). minutes: stop after so many, 0 for no limit. lora: rank of adapters on the base's layers, 0 to
    train all of it. *_every: in steps, 0 for never; export_every: out/model is written meanwhile too, not only at the
    end. keep: checkpoints of the run. held_out, sample_steps: Samples of a sheet.
    """

    stage: str = "motion"
    data: str = "toybox:0..9999"
    out: str = "out/stage"
    cache: str = "out/latents"
    base: str = "out/toybox-base/model"
    init: str | None = None
    recipe: str = "paper"
    blocks: int = -1
    backbone: str = "wan"
    vae: str = "toybox"
    words: str = "out/toybox-words"
    width: int = 256
    layers: int = 8
    heads: int = 4
    ffn: int = 1024
    size: tuple[int, ...] = (256, 256)
    frames: int = 25
    fps: str = "12"
    palette: str = "ours"
    variants: int = 1
    flips: bool = False
    phrasings: int = 1
    films: bool = True
    steps: int = 20_000
    minutes: float = 0.0
    batch: int = 64
    accumulate: int = 1
    lr: float = 5e-4
    warmup: int = 200
    decay: float = 0.0
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    drop: float = 0.05
    dtype: str = "bfloat16"
    checkpointing: bool = False
    compile: bool = False
    parallel: str = "ddp"
    lora: int = 0
    save_every: int = 1000
    export_every: int = 0
    sheet_every: int = 2000
    log_every: int = 50
    keep: int = 2
    held_out: str = "toybox:1000000..1000003"
    sample_steps: int = 10
    workers: int = 2
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("stage", STAGES), ("dtype", ("float32", "bfloat16")), ("parallel", ("ddp", "fsdp"))):
            if getattr(self, name) not in known:
                raise InvalidValueError(f"{name} is one of {', '.join(known)}", seen=getattr(self, name))
        least = {0: ("steps", "minutes", "warmup", "weight_decay", "lora", "workers"), 1: ("width", "layers", "heads")}
        least[0] += ("save_every", "export_every", "sheet_every", "log_every")
        least[1] += ("ffn", "frames", "variants", "phrasings", "batch", "accumulate", "keep", "sample_steps")
        for value, names in least.items():
            for name in names:
                if getattr(self, name) < value:
                    raise InvalidValueError(f"{name} must be at least {value}", seen=getattr(self, name))
        for name, most in (("decay", 1.0), ("drop", 1 / 3), ("ema", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise InvalidValueError(f"{name} is from 0 to {most:.3g}", seen=getattr(self, name))
        if len(self.size) != 2:
            raise InvalidValueError("size is height,width", seen=self.size, fix="such as 256,256")
        if self.batch % self.accumulate:
            raise InvalidValueError("batch must divide by accumulate", seen=f"{self.batch}, {self.accumulate}")
        if self.lora and self.stage == "base":
            raise InvalidValueError("a base is trained whole", seen=f"lora {self.lora}", fix="leave --lora out")
        if not self.films and (self.stage != "motion" or recipe(self.recipe).motion == "flow"):
            seen = f"stage {self.stage}, recipe {self.recipe}"
            raise InvalidValueError("only a stage 1 of masks learns without films", seen=seen, fix="leave --films out")
        exact_fps(self.fps)
        recipe(self.recipe)
        palette.named(self.palette)


def train_stage(config: StageConfig, say: Say = print, judge: Judge | None = None) -> dict[str, Any]:
    """Train, keep checkpoints to resume from, and write `out/model`, a diffusers folder of the averaged weights.

    Started again with the same settings it goes on from the newest checkpoint, exactly. judge: scores a held-out
    Sample's predicted motion, for the log. Returns the last step, its loss (None if nothing was left to do) and the
    minutes.
    """
    processes = Processes.join(config.device)
    if config.batch % (processes.world * config.accumulate):
        seen = f"{config.batch} over {processes.world} processes in {config.accumulate} parts"
        raise InvalidValueError("batch must divide by processes × accumulate", seen=seen)
    say = say if processes.rank == 0 else (lambda text: None)
    torch.manual_seed(config.seed)
    out = Path(config.out)

    # What is trained, and on what.
    subject = start(config, say)
    batches = _batches(config, subject, processes, say)
    learner = Learner(config, subject.backbone, subject.objective, subject.denoiser, processes)
    checkpoints = Checkpoints(out, _settings(config), processes, keep=config.keep, defaults=_settings(StageConfig()))
    step = checkpoints.load(learner.denoiser, learner.optimiser, learner.average)
    watch = Watch(config, subject, processes, say, judge, step)
    if processes.rank == 0:
        write_run_record(
            out, asdict(config), {"step": step, "processes": processes.world}, device=str(processes.device)
        )

    # The loop.
    begun = time.monotonic()
    limit = config.minutes * 60 or float("inf")
    parts = batches.iterate(step, processes.device)
    saved = step
    while step < config.steps:
        progress = max(step / config.steps, (time.monotonic() - begun) / limit)
        if config.minutes and processes.any(progress >= 1):
            break
        share, lr = next(parts), learning_rate(config, step, progress)
        loss, norm = learner.step(step, share, lr)
        step += 1
        watch.step(step, loss, norm, share[-1], lr)
        if _due(step, config.sheet_every) and step < config.steps:
            watch.sheet(step, learner)
        if _due(step, config.save_every):
            with watch.paused():
                checkpoints.save(step, learner.denoiser, learner.optimiser, learner.average)
            saved = step
        if _due(step, config.export_every) and step < config.steps:
            with watch.paused():
                _export(step, config, subject, learner, processes)
    parts.close()

    # What is left behind.
    if saved < step:
        checkpoints.save(step, learner.denoiser, learner.optimiser, learner.average)
    scores = watch.sheet(step, learner) if config.sheet_every else {}
    _export(step, config, subject, learner, processes)
    watch.close()
    return {"steps": step, "loss": watch.last_loss, "minutes": (time.monotonic() - begun) / 60, **scores}


def _export(step: int, config: StageConfig, subject: Subject, learner: Learner, processes: Processes) -> None:
    """Write the averaged weights to out/model, in place of an earlier step's. All processes must come here."""
    weights = learner.average.gathered()
    if processes.rank == 0:
        stored = torch.float32 if config.dtype == "float32" else torch.float16
        subject.save(weights, Path(config.out) / "model", {"config": asdict(config), "step": step}, stored)
    processes.wait()


def learning_rate(config: StageConfig, step: int, progress: float) -> float:
    """Rising over the warm-up, then constant, then falling in a straight line to 0. progress: of the run, 0..1."""
    rising = min(1.0, (step + 1) / max(1, config.warmup))
    falling = min(1.0, (1 - progress) / config.decay) if config.decay else 1.0
    return config.lr * rising * max(0.0, falling)


class Watch:
    """What a run tells while it goes on: its log, and sheets of held-out Samples."""

    def __init__(
        self, config: StageConfig, subject: Subject, processes: Processes, say: Say, judge: Judge | None, step: int
    ) -> None:
        self.config, self.subject, self.processes, self.judge = config, subject, processes, judge
        peak = peak_flops(processes.device)
        self.progress = Progress(
            Path(config.out),
            asdict(config),
            config.steps,
            say,
            processes.rank,
            first_step=step,
            peak=peak and peak * processes.world,
            minutes=config.minutes,
        )
        self.preview = Preview(config, subject, processes)
        self.losses: list[Tensor] = []
        self.last_loss: float | None = None
        self.since = time.monotonic()

    def step(self, step: int, loss: Tensor, norm: Tensor, part: Batch, lr: float) -> None:
        """After each step. Only where a line is due does it wait for the device."""
        self.losses.append(loss)
        if not (_due(step, self.config.log_every) or step == self.config.steps):
            return
        self.last_loss = loss_now = self.processes.mean(torch.stack(self.losses).mean())
        seconds = time.monotonic() - self.since
        samples = len(self.losses) * self.config.batch
        flops = samples * self._flops(part)  # a step is as dear as any other, but for the runs of masked attention
        self.progress.log(step, loss_now, samples, seconds, flops=flops, lr=lr, norm=float(norm))
        self.losses, self.since = [], time.monotonic()

    def close(self) -> None:
        """The last steps, too few for a line, are told as the last loss where there was no line at all."""
        if self.last_loss is None and self.losses:
            self.last_loss = self.processes.mean(torch.stack(self.losses).mean())
        self.progress.close()

    def sheet(self, step: int, learner: Learner) -> dict[str, float]:
        """Draw what the network makes of the held-out Samples now; returns the judge's scores, on the first process."""
        with self.paused():
            made = self.preview.make(learner.denoiser, learner.average)
            if self.processes.rank:
                return {}
            motions = [(sample, motion) for sample, motion in made if isinstance(motion, MaskTrajectory)]
            videos = [(sample, video) for sample, video in made if isinstance(video, Video)]
            self.progress.picture(step, self.config.stage, motion_sheet(motions) if motions else video_sheet(videos))
            scores: dict[str, float] = {}
            if self.judge and motions:
                samples, trajectories = zip(*motions, strict=True)
                scores = dict(self.judge(samples, trajectories))
                self.progress.measure(step, scores)
        return scores

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile is no training: samples a second do not count it."""
        begun = time.monotonic()
        yield
        self.since += time.monotonic() - begun

    def _flops(self, part: Batch) -> float:
        """Of one sample of the step."""
        subject, squared = self.subject, None if part.plan is None else part.squared_runs
        return clip_flops(subject.backbone, subject.denoiser, part.clean, part.condition, squared)


def cache_of(config: StageConfig) -> CacheConfig:
    """What the cache of a run holds."""
    height, width = config.size
    return CacheConfig(
        config.data,
        (height, width),
        config.frames,
        config.fps,
        "flow" if recipe(config.recipe).motion == "flow" else "labels",
        config.variants,
        config.flips,
        config.phrasings,
        config.seed,
        config.films,
    )


def encoder_of(config: StageConfig, subject: Subject, device: torch.device) -> Encoder:
    """What makes a run's cache. Raises InvalidValueError for a size or length that the backbone cannot take."""
    backbone, pipeline = subject.backbone, subject.pipeline
    grid = backbone.grid(config.frames, backbone.strides(pipeline.vae.config, pipeline.transformer.config))
    grid.tokens(*config.size)  # refuses a size that does not divide, before anything is read
    colours = palette.named(config.palette)
    dtype = getattr(torch, config.dtype) if device.type == "cuda" else torch.float32  # a CPU is no faster for it
    return Encoder(backbone, subject.encoders, colours, colours.num_objects, grid, "latents", device, dtype)


def _batches(config: StageConfig, subject: Subject, processes: Processes, say: Say) -> Batches:
    encoder = encoder_of(config, subject, processes.device)
    with on_device(subject, processes.device):
        cache = Path(config.cache)
        items = make_latents(cache_of(config), encoder, cache, processes, workers=config.workers, say=say)
    return Batches(
        items,
        config.stage,
        recipe(config.recipe),
        subject.backbone,
        subject.pipeline.tokenizer,
        subject.objective,
        batch=config.batch,
        accumulate=config.accumulate,
        variants=config.variants,
        drop=config.drop,
        seed=config.seed,
        rank=processes.rank,
        world=processes.world,
    )


def _settings(config: StageConfig) -> dict[str, Any]:
    """What must not change when a run goes on."""
    return {key: value for key, value in asdict(config).items() if key not in FREE}


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
