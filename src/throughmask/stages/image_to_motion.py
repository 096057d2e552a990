"""Stage 1, image-to-motion (paper Sec. 3.2): a Scene becomes a mask trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..connected import remove_specks
from ..nn.guidance import Guidance
from ..types import Labels, MaskTrajectory, Pixels, Scene, Video, exact_fps
from .apart import groups, laid, part, rounds
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
        apart: bool = False,
        frames: int | None = None,
        fps: object = None,
        negative_prompt: str = "",
        generators: Sequence[torch.Generator] | None = None,
        callback_on_step_end: Callable[..., Any] | None = None,
    ) -> list[Proposal]:
        """Candidate motions with their confidence. guidance: scales of image and text; 1 is none. apart: objects
        that have nothing to do with each other are moved one after another, by their own local prompts (see
        `apart.groups`).

        Decoded colours are snapped to the labels of the scene's own objects, frame 0 is the given mask, and regions of
        less than 1/16 of a token's pixels take the label around them.

        Raises InvalidValueError for a request that does not fit the model (see checkpoint.StageInfo.check).
        """
        info, guidance = self.info, Guidance(*guidance)
        frames = info.check(scene, frames=frames, steps=steps, guidance=guidance, seeds=seeds)
        if generators:
            seeds = [generator.initial_seed() for generator in generators]
        generators = generators or [torch.Generator().manual_seed(seed) for seed in seeds]
        rate = self.default_fps() if fps is None else exact_fps(fps)
        options = {"steps": steps, "guidance": guidance, "negative_prompt": negative_prompt}
        options |= {"seeds": seeds, "generators": generators, "callback_on_step_end": callback_on_step_end}
        if info.recipe.motion == "flow":
            decoded = self._decoded(scene, frames, **options)
            return [Proposal(Video(colours, rate), 1.0, seed) for colours, seed in zip(decoded, seeds, strict=True)]
        if rounds(scene, apart) == 1:
            found = self._labels(scene, frames, **options)
        else:
            found = self._labels_apart(scene, frames, **options)
        proposals = []
        for (labels, far), seed in zip(found, seeds, strict=True):
            labels[0] = scene.labels
            proposals.append(Proposal(MaskTrajectory(labels, rate), 1 - far, seed))
        return proposals

    def _labels(self, scene: Scene, frames: int, **options: Any) -> list[tuple[Labels, float]]:
        """Labels T H W of each sample, and the share of pixels whose colour was far from all of the palette's."""
        smallest = round(self.info.patch**2 * SPECK)
        found = []
        for colours in self._decoded(scene, frames, **options):
            labels, far = self._snap(colours, scene)
            found.append((remove_specks(labels, smallest), far))
        return found

    def _labels_apart(self, scene: Scene, frames: int, **options: Any) -> list[tuple[Labels, float]]:
        """As `_labels`. The generators go on from group to group: each has noise of its own."""
        made = [(ids, self._labels(part(scene, ids), frames, **options)) for ids in groups(scene)]
        found = []
        for k in range(len(made[0][1])):
            masks = {id: each[k][0] == n for ids, each in made for n, id in enumerate(ids, 1)}
            found.append((laid(masks), float(np.mean([each[k][1] for _, each in made]))))
        return found

    def _decoded(self, scene: Scene, frames: int, **options: Any) -> list[Pixels]:
        info = self.info
        latents = self._sample(
            lambda: motion_condition(info, self.encoders, scene, frames, self.repeat), scene.size, frames, **options
        )
        decoded = decode(info.backbone, self.vae, latents)
        self.maybe_free_model_hooks()
        return decoded

    def _snap(self, colours: Pixels, scene: Scene) -> tuple[Labels, float]:
        if not scene.objects:
            return np.zeros(colours.shape[:-1], np.uint8), 0.0
        rows, far = palette_of(self.info, scene).snap(colours)
        return np.array([0, *scene.ids], np.uint8)[rows], far
