"""Stage 2, motion-to-video (paper Sec. 3.3): a Scene and its mask trajectory become a video."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..nn.guidance import Guidance
from ..types import MaskTrajectory, Scene, Video, exact_fps
from .checkpoint import DEFAULT_GUIDANCE, DEFAULT_STEPS
from .conditioning import decode, video_condition
from .pipeline import StagePipeline


class MotionToVideoPipeline(StagePipeline):
    """Picture, prompts and motion -> video. The motion is what the checkpoint's Recipe says: labels, flow or none."""

    stage = "video"

    def render(
        self,
        scene: Scene,
        motion: MaskTrajectory | Video | None = None,
        *,
        seed: int = 0,
        steps: int = DEFAULT_STEPS,
        guidance: tuple[float, float] = DEFAULT_GUIDANCE,
        frames: int | None = None,
        fps: object = None,
        negative_prompt: str = "",
        generator: torch.Generator | None = None,
        callback_on_step_end: Callable[..., Any] | None = None,
    ) -> Video:
        """The video that follows `motion`. guidance: scales of image and text; 1 is none.

        Raises InvalidValueError for a request that does not fit the model (see checkpoint.StageInfo.check).
        """
        info, guidance = self.info, Guidance(*guidance)
        frames = info.check(scene, motion, frames=frames, steps=steps, guidance=guidance, seeds=[seed])
        default = motion.fps if motion is not None else self.default_fps()
        rate = default if fps is None else exact_fps(fps)
        latents = self._sample(
            lambda: video_condition(info, self.encoders, scene, motion, frames, self.repeat),
            scene.size,
            frames,
            seeds=[seed],
            generators=[generator] if generator is not None else None,
            steps=steps,
            guidance=guidance,
            negative_prompt=negative_prompt,
            callback_on_step_end=callback_on_step_end,
        )
        pixels = decode(info.backbone, self.vae, latents)[0]
        self.maybe_free_model_hooks()
        return Video(pixels, rate)

    __call__ = render
