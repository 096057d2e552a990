"""What is judged: something that moves masks, renders videos, or both."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InvalidValueError
from ..nn.scales import Scales
from ..stages.checkpoint import DEFAULT_GUIDANCE, DEFAULT_STEPS, StageInfo
from ..types import MaskTrajectory, Scene, Video


class Subject(Protocol):
    """What is judged. What it cannot do it answers with None, and that is not measured; so do these defaults.

    follows_masks: whether its videos are told where things go. One that is not is rendered without a trajectory.
    """

    follows_masks: bool = True

    def move(self, scene: Scene, seed: int) -> MaskTrajectory | None:
        """Where everything goes (stage 1)."""
        return None

    def moves(self, scene: Scene, seeds: Sequence[int]) -> list[MaskTrajectory] | None:
        """One motion for each seed; to be replaced where a batch is quicker."""
        made = [self.move(scene, seed) for seed in seeds]
        return [motion for motion in made if motion is not None] or None

    def render(self, scene: Scene, trajectory: MaskTrajectory | None, seed: int) -> Video | None:
        """The video that follows a trajectory (stage 2)."""
        return None

    def round_trip(self, video: Video) -> Video | None:
        """What its VAE makes of a video: the best that it can render."""
        return None


class Still(Subject):
    """Nothing moves: frame 0 repeated."""

    def __init__(self, frames: int, fps: Fraction) -> None:
        self.frames, self.fps = frames, fps

    def move(self, scene: Scene, seed: int) -> MaskTrajectory:
        return MaskTrajectory(np.broadcast_to(scene.labels, (self.frames, *scene.size)), self.fps)

    def render(self, scene: Scene, trajectory: MaskTrajectory | None, seed: int) -> Video:
        return Video(np.broadcast_to(scene.image, (self.frames, *scene.image.shape)), self.fps)


class Stages(Subject):
    """The two stages as pipelines, one of which may be missing.

    A renderer whose Recipe sees no motion (`ti2v`) stands alone: its videos go from picture and words.
    """

    def __init__(
        self,
        motion: Any = None,
        video: Any = None,
        *,
        frames: int,
        fps: Fraction,
        steps: int = DEFAULT_STEPS,
        guidance: Scales = DEFAULT_GUIDANCE,
        video_guidance: Scales | None = None,
        apart: bool = False,
    ) -> None:
        check_stages(*(pipeline and pipeline.info for pipeline in (motion, video)))
        self.motion, self.video = motion, video
        self.frames, self.fps, self.steps = frames, fps, steps
        self.guidance, self.video_guidance, self.apart = guidance, video_guidance or guidance, apart
        self.follows_masks = video is None or video.info.recipe.motion == "labels"

    @classmethod
    def load(
        cls,
        motion: Path | None,
        video: Path | None,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        offload: bool = False,
        **options: Any,
    ) -> Stages:
        """From checkpoint folders. offload: keep only the network at work on the device; options: as for Stages.

        Raises SampleError for a folder that is not a checkpoint of that stage.
        """
        import torch

        from ..stages.init import PIPELINES
        from ..stages.pipeline import hide_loading_bars

        hide_loading_bars()
        loaded = {}
        for stage, folder in (("motion", motion), ("video", video)):
            if folder is not None:
                pipeline: Any = PIPELINES[stage].from_pretrained(folder, dtype=getattr(torch, dtype))
                pipeline.set_progress_bar_config(disable=True)
                if offload and device != "cpu":
                    pipeline.enable_model_cpu_offload(device=device)
                else:
                    pipeline.to(device)
                loaded[stage] = pipeline
        return cls(**loaded, **options)

    def move(self, scene: Scene, seed: int) -> MaskTrajectory | None:
        made = self.moves(scene, [seed])
        return made[0] if made else None

    def moves(self, scene: Scene, seeds: Sequence[int]) -> list[MaskTrajectory] | None:
        if self.motion is None:
            return None
        options = {"frames": self.frames, "fps": self.fps, "steps": self.steps, "guidance": self.guidance}
        options["apart"] = self.apart
        made: list[MaskTrajectory] = self.motion.move(scene, seeds=list(seeds), **options)
        return made

    def render(self, scene: Scene, trajectory: MaskTrajectory | None, seed: int) -> Video | None:
        if self.video is None:
            return None
        options = {"frames": self.frames, "fps": self.fps, "steps": self.steps, "guidance": self.video_guidance}
        made: Video = self.video.render(scene, trajectory if self.follows_masks else None, seed=seed, **options)
        return made

    def round_trip(self, video: Video) -> Video | None:
        if self.video is None:
            return None
        from ..stages.conditioning import decode, encode

        backbone, vae = self.video.info.backbone, self.video.vae
        return Video(decode(backbone, vae, encode(backbone, vae, video.frames))[0], video.fps)


def check_stages(motion: StageInfo | None, video: StageInfo | None) -> None:
    """Raises InvalidValueError if neither stage is there, or one that this benchmark does not measure."""
    if motion is None and video is None:
        raise InvalidValueError("there is nothing to judge", fix="give a motion stage, a video stage, or both")
    for info in (motion, video):
        if info is not None and info.recipe.motion == "flow":
            fix = "use checkpoints of another recipe"
            raise InvalidValueError("a stage that goes by optical flow has no masks to judge", seen="flow", fix=fix)
    if motion is not None and video is not None and video.recipe.motion == "none":
        fix = "leave the motion stage out"
        raise InvalidValueError("this video stage does not see masks", seen=video.recipe.name, fix=fix)
