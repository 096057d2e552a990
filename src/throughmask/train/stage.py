"""Training a stage, or the text-to-video base that both start from: one story, told once in order.

Paper Sec. 10: fine-tune a text-to-video model with its own objective. The loop knows no backbone and no Recipe: what
is learnt and what the network is told come from `batches`, which join conditions as sampling does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import palette
from ..errors import InvalidValueError
from ..stages.recipes import recipe
from ..types import MaskTrajectory, Video
from .batches import Batch, Batches
from .config import StageConfig
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
    processes.leave()
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
