"""Stage 1, image-to-motion (paper Sec. 3.2): a Scene becomes a mask trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..connected import remove_specks
from ..nn.guidance import Guidance
from ..types import Labels, MaskTrajectory, Pixels, Scene, Video, exact_fps
from .checkpoint import DEFAULT_GUIDANCE, DEFAULT_STEPS
from .conditioning import decode, motion_condition, palette_of
from .pipeline import StagePipeline

SPECK = 1 / 16  # of a token's pixels: smaller regions are noise of the VAE, not objects


class Proposal(NamedTuple):
    """A candidate motion. confidence: the share of pixels whose decoded colour is close to one of the palette's."""

    motion: MaskTrajectory | Video
    confidence: float
    seed: int


class ImageToMotionPipeline(StagePipeline):
    """Picture, label map and motion prompt -> mask trajectories, or, in the `flow` Recipe, videos of the flow wheel."""

    stage = "motion"

    def move(self, scene: Scene, seeds: Sequence[int] = (0,), **options: Any) -> list[MaskTrajectory | Video]:
        """One motion for each seed, made in one batch; the options are those of `propose`."""
        return [proposal.motion for proposal in self.propose(scene, seeds, **options)]

    __call__ = move

    def propose(
        self,
        scene: Scene,
        seeds: Sequence[int] = (0,),
        *,
        steps: int = DEFAULT_STEPS,
        guidance: tuple[float, float] = DEFAULT_GUIDANCE,
        frames: int | None = None,
        fps: object = None,
        negative_prompt: str = "",
        generators: Sequence[torch.Generator] | None = None,
        callback_on_step_end: Callable[..., Any] | None = None,
    ) -> list[Proposal]:
        """Candidate motions with their confidence. guidance: scales of image and text; 1 is none.

        Decoded colours are snapped to the labels of the scene's own objects, frame 0 is the given mask, and regions of
        less than 1/16 of a token's pixels take the label around them.

        Raises InvalidValueError for a request that does not fit the model (see checkpoint.StageInfo.check).
        """
        info, guidance = self.info, Guidance(*guidance)
        frames = info.check(scene, frames=frames, steps=steps, guidance=guidance, seeds=seeds)
        if generators:
            seeds = [generator.initial_seed() for generator in generators]
        rate = self.default_fps() if fps is None else exact_fps(fps)
        latents = self._sample(
            lambda: motion_condition(info, self.encoders, scene, frames, self.repeat),
            scene.size,
            frames,
            seeds=seeds,
            generators=generators,
            steps=steps,
            guidance=guidance,
            negative_prompt=negative_prompt,
            callback_on_step_end=callback_on_step_end,
        )
        decoded = decode(info.backbone, self.vae, latents)
        self.maybe_free_model_hooks()
        if info.recipe.motion == "flow":
            return [Proposal(Video(colours, rate), 1.0, seed) for colours, seed in zip(decoded, seeds, strict=True)]
        smallest = round(info.patch**2 * SPECK)
        proposals = []
        for colours, seed in zip(decoded, seeds, strict=True):
            labels, far = self._snap(colours, scene)
            labels = remove_specks(labels, smallest)
            labels[0] = scene.labels
            proposals.append(Proposal(MaskTrajectory(labels, rate), 1 - far, seed))
        return proposals

    def _snap(self, colours: Pixels, scene: Scene) -> tuple[Labels, float]:
        if not scene.objects:
            return np.zeros(colours.shape[:-1], np.uint8), 0.0
        rows, far = palette_of(self.info, scene).snap(colours)
        return np.array([0, *scene.ids], np.uint8)[rows], far
