"""What the tests of the stages share: sizes, and the pieces of one prediction."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch

from throughmask.backbones import Backbone, backbone
from throughmask.nn.guidance import Condition
from throughmask.stages.conditioning import motion_condition, video_condition
from throughmask.stages.pipeline import StagePipeline
from throughmask.stages.recipes import RECIPES
from throughmask.types import Sample

FRAMES, SIZE = 5, (48, 64)
ALL = ["motion", *RECIPES]  # the motion stage, and the video stage with every Recipe

# How each base, unchanged, predicts from latents, time and text.
BASE_FORWARD: dict[str, Callable[..., torch.Tensor]] = {
    "wan": lambda base, latents, time, text: base(latents, time, text, return_dict=False)[0],
    "animatediff": lambda base, latents, time, text: base(
        latents, time, text.repeat_interleave(latents.shape[2], 0), return_dict=False
    )[0],
}

# Numbers of frames that a backbone cannot make, and what it says.
WRONG_FRAMES = {
    "wan": {4: r"1 \+ 4k frames", 0: r"1 \+ 4k frames", -3: r"1 \+ 4k frames"},
    "animatediff": {33: "no such long clip.*33.*at most 32", 0: "at least one frame", -3: "at least one frame"},
}


def backbone_of(pipeline: StagePipeline) -> Backbone:
    name = next(name for name in BASE_FORWARD if type(pipeline.transformer).__name__ == backbone(name).denoiser_class)
    return backbone(name)


@torch.no_grad()
def condition_of(pipeline: StagePipeline, sample: Sample, repeat: str = "latents") -> Condition:
    """The condition that sampling would build."""
    info, frames = pipeline.info, len(sample.video)
    if info.stage == "motion":
        return motion_condition(info, pipeline.encoders, sample.scene, frames, repeat)
    return video_condition(info, pipeline.encoders, sample.scene, motion_for(pipeline, sample), frames, repeat)


def motion_for(pipeline: StagePipeline, sample: Sample) -> Any:
    """What a video stage renders: labels, a video of flow (any video serves), or nothing."""
    return {"labels": sample.trajectory, "flow": sample.video, "none": None}[pipeline.info.recipe.motion]


def run(pipeline: StagePipeline, sample: Sample, seed: int = 0, **options: Any) -> Any:
    """A short run of either stage: a motion, or a video."""
    options = {"steps": 2, "frames": len(sample.video), **options}
    if pipeline.stage == "motion":
        return pipeline.move(sample.scene, seeds=[seed], **options)[0]
    return pipeline.render(sample.scene, motion_for(pipeline, sample), seed=seed, **options)


def last_latents(pipeline: StagePipeline, sample: Sample, **options: Any) -> torch.Tensor:
    """The latents after the last step of a run."""
    seen = []
    run(pipeline, sample, callback_on_step_end=lambda *arguments: seen.append(arguments[3]["latents"]), **options)
    return seen[-1]


def randomise_layers(denoiser: Any, seed: int = 0) -> Any:
    """Give the added layers an output, as trained ones have (in place)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if ".masked_" in name and "to_out" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
    return denoiser


def with_random_layers(pipeline: StagePipeline, seed: int = 0) -> Any:
    return randomise_layers(deepcopy(pipeline.transformer), seed)


def predict(pipeline: StagePipeline, condition: Condition, seed: int = 0, denoiser: Any = None) -> torch.Tensor:
    """One prediction from seeded noise at one time."""
    latents, time = noise_like(condition, seed)
    plan = plan_of(pipeline, condition)
    denoiser = pipeline.transformer if denoiser is None else denoiser
    return backbone_of(pipeline).denoise(denoiser, latents, time, condition, plan)


def plan_of(pipeline: StagePipeline, condition: Condition) -> Any:
    size = tuple(condition.visual.shape[2:])
    return None if condition.label is None else backbone_of(pipeline).plan(condition.label, size)


def first_masked(denoiser: Any, kind: str) -> Any:
    """The first added layer of that kind: masked_self or masked_cross."""
    return next(module for name, module in denoiser.named_modules() if name.endswith(f".{kind}"))


def wide_weight(denoiser: Any) -> str:
    """The name of the weight that gained input channels."""
    return next(name for name in ("patch_embedding.weight", "conv_in.weight") if name in denoiser.state_dict())


def noise_like(condition: Condition, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of the condition's size (it holds two stills or videos of as many channels), and a time."""
    B, C, *rest = condition.visual.shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((B, C // 2, *rest), generator=generator), torch.full((B,), 700.0)


def copy_of(pipeline: StagePipeline, **settings: Any) -> StagePipeline:
    """The same pipeline with other settings, and with added layers that put out something."""
    parts = {name: deepcopy(part) for name, part in pipeline.components.items()}
    parts["transformer"] = randomise_layers(parts["transformer"])
    known = ("recipe", "palette", "num_ids", "frames", "fps", "schedule", "repeat")
    copy = type(pipeline)(**parts, **{name: pipeline.config[name] for name in known} | settings)
    copy.set_progress_bar_config(disable=True)
    return copy
