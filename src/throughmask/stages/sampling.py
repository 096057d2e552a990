"""The one sampling loop, for both stages: noise from seeds, a diffusers scheduler, batched two-scale guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backbones import Backbone
from ..errors import InvalidValueError
from ..nn.guidance import Condition, Guidance
from ..nn.objective import FlowMatching, linear_quadratic_sigmas

SCHEDULES = ("scheduler", "linear-quadratic")

Callback = Callable[[int, Tensor, Tensor], Tensor | None]  # step, time, latents -> latents to go on with, or None


def seeded_noise(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> Tensor:
    """One float32 sample for each CPU generator, so that seed 3 alone equals seed 3 among others, on every device."""
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators])


@torch.no_grad()
def sample_latents(
    backbone: Backbone,
    denoiser: Any,
    scheduler: Any,
    condition: Condition,
    empty_text: Tensor,
    noise: Tensor,
    *,
    steps: int,
    guidance: Guidance,
    schedule: str = "scheduler",
    device: torch.device | str | None = None,
    progress: Callable[[], object] | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Latents B C F Y X from noise of that shape.

    condition: of one scene (B = 1) or of each sample. empty_text: S D, the null or negative prompt. schedule:
    "scheduler" takes the scheduler's own times, "linear-quadratic" Movie Gen's (paper Sec. 10).
    """
    device = torch.device(device or noise.device)
    batch = len(noise)
    each = Condition._make(None if part is None else _for_each(part, batch).to(device) for part in condition)
    branches = guidance.branches(each, empty_text.to(device))
    # Labels do not change from step to step or layer to layer, and neither does their order.
    size = noise.shape[2], noise.shape[3], noise.shape[4]
    plan = backbone.plan(branches.label, size) if branches.label is not None else None
    _set_times(backbone, scheduler, steps, schedule, device)
    latents = noise.to(device, torch.float32) * getattr(scheduler, "init_noise_sigma", 1.0)
    num_branches = guidance.num_branches()
    for step, time in enumerate(scheduler.timesteps):
        joined = torch.cat([latents] * num_branches)
        prediction = backbone.denoise(denoiser, joined, time.expand(len(joined)), branches, plan)
        latents = scheduler.step(guidance.combine(prediction.float()), time, latents, return_dict=False)[0]
        if callback is not None:
            changed = callback(step, time, latents)
            latents = latents if changed is None else changed
        if progress is not None:
            progress()
    return latents


def _set_times(backbone: Backbone, scheduler: Any, steps: int, schedule: str, device: torch.device) -> None:
    if schedule != "linear-quadratic":
        scheduler.set_timesteps(steps, device=device)
        return
    objective = backbone.objective(scheduler)
    if not isinstance(objective, FlowMatching):
        raise InvalidValueError("the linear-quadratic schedule is one of flow matching", seen=backbone.name)
    # Schedulers shift the times they are given, too; Movie Gen's are final, so the shift is undone first.
    sigmas = np.array(linear_quadratic_sigmas(steps))
    scheduler.set_timesteps(sigmas=sigmas / (objective.shift - (objective.shift - 1) * sigmas), device=device)


def _for_each(part: Tensor, batch: int) -> Tensor:
    """A part of a condition for every sample of the batch: one scene may serve them all."""
    return part.expand(batch, *part.shape[1:]) if len(part) == 1 else part
