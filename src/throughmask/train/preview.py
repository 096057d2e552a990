"""What the network makes of held-out Samples while it trains, with its averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..nn.guidance import Condition, Guidance
from ..nn.scales import Scales
from ..stages.checkpoint import DEFAULT_GUIDANCE
from ..stages.conditioning import decode, global_prompt
from ..stages.sampling import sample_latents, seeded_noise
from ..types import MaskTrajectory, Sample, Video
from .devices import Processes, to_channels_last
from .samples import open_samples
from .state import Average
from .subject import Subject

if TYPE_CHECKING:
    from .config import StageConfig

Made = MaskTrajectory | Video


class Preview:
    """The held-out Samples of a run, read when they are first needed."""

    def __init__(self, config: StageConfig, subject: Subject, processes: Processes) -> None:
        self.config, self.subject, self.processes = config, subject, processes
        self.samples: list[tuple[Sample, Video | None]] = []

    def make(self, denoiser: nn.Module, average: Average) -> list[tuple[Sample, Made]]:
        """Each held-out Sample with what the network makes of it. All processes must ask: a shared denoiser runs on
        all of them."""
        if not self.samples:
            self.samples = list(self._read())
        dtype = getattr(torch, self.config.dtype)
        with average.in_place(), on_device(self.subject, self.processes.device), as_in_training(denoiser, dtype):
            return [(sample, self._made(sample, flow)) for sample, flow in self.samples]

    def _read(self) -> Iterator[tuple[Sample, Video | None]]:
        config = self.config
        height, width = config.size
        source = open_samples(
            config.held_out, size=(height, width), frames=config.frames, fps=config.fps, films=config.films
        )
        for index in range(len(source)):
            sample = source.item(index)
            wheel = config.recipe == "flow" and config.stage == "video"
            yield sample, Video(source.flow(index), sample.video.fps) if wheel and sample.video else None

    @torch.no_grad()
    def _made(self, sample: Sample, flow: Video | None) -> Made:
        pipeline, config = self.subject.pipeline, self.config
        # Without dropping conditions the branches that lack one are never trained, and guidance would ask them.
        guidance = DEFAULT_GUIDANCE if config.drop else Scales(1.0, 1.0)
        wanted = {"steps": config.sample_steps, "frames": config.frames, "guidance": guidance}
        if config.stage == "motion":
            made: Made = pipeline.move(sample.scene, **wanted)[0]
        elif config.stage == "video":
            motion = {"labels": sample.trajectory, "flow": flow, "none": None}[pipeline.info.recipe.motion]
            made = pipeline.render(sample.scene, motion, **wanted)
        else:
            made = self._from_text(sample)
        return made

    def _from_text(self, sample: Sample) -> Video:
        """The base knows the sentence only."""
        subject, config = self.subject, self.config
        backbone, encoders = subject.backbone, subject.encoders
        shape = backbone.latent_shape(encoders.vae, config.frames, *sample.scene.size)
        noise = seeded_noise(shape, [torch.Generator().manual_seed(0)])
        text, empty = (global_prompt(backbone, encoders, prompt) for prompt in (sample.scene.prompt, ""))
        latents = sample_latents(
            backbone,
            subject.denoiser,
            subject.pipeline.scheduler,
            Condition(noise[:, :0], text),
            empty[0],
            noise,
            steps=config.sample_steps,
            guidance=Guidance(1.0, 4.0 if config.drop else 1.0),
            device=self.processes.device,
        )
        assert sample.video is not None
        return Video(decode(backbone, encoders.vae, latents)[0], sample.video.fps)


@contextmanager
def on_device(subject: Subject, device: torch.device) -> Iterator[None]:
    """VAE and text encoder are on the device for a while; the denoiser trains in the memory that they leave."""
    parts: list[Any] = [subject.pipeline.vae, subject.pipeline.text_encoder]
    for part in parts:
        part.to(device)
    if device.type == "cuda":
        to_channels_last(subject.pipeline.vae)
    try:
        yield
    finally:
        for part in parts:
            part.to("cpu")
        for weight in subject.pipeline.vae.parameters():
            weight.data = weight.data.contiguous()  # safetensors takes no other layout


@contextmanager
def as_in_training(denoiser: Any, dtype: torch.dtype) -> Iterator[None]:
    """The denoiser alone computes in `dtype`, as in training; the VAE would lose colours in bfloat16. Nothing is
    compiled: a few samples of other shapes, without gradients, are not worth another minute of the compiler."""
    training, kind = denoiser.training, next(denoiser.parameters()).device.type
    denoiser.eval()
    denoiser.forward = torch.autocast(kind, dtype, enabled=dtype != torch.float32)(denoiser.forward)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        del denoiser.forward
        denoiser.train(training)
