"""One optimiser step, on however many processes: gradients, clipping, AdamW, the average of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from ..backbones import Backbone
from ..nn.guidance import Condition
from ..nn.objective import Objective
from ..nn.plan import SortPlan
from .batches import Batch
from .devices import Processes, spread, whole
from .state import Average

if TYPE_CHECKING:
    from .config import StageConfig


class Learner:
    """A denoiser that learns: moved to the device, made ready as the config says, spread over the processes."""

    def __init__(
        self, config: StageConfig, backbone: Backbone, objective: Objective, denoiser: Any, processes: Processes
    ) -> None:
        self.config, self.objective, self.processes = config, objective, processes
        self.dtype: torch.dtype = getattr(torch, config.dtype)
        self.denoiser = denoiser.to(processes.device).train()
        if config.checkpointing:
            denoiser.enable_gradient_checkpointing()
        if config.compile:
            backbone.compile(denoiser)
        predict = Predict(backbone, denoiser)
        self.model = spread(
            predict, denoiser, backbone.repeated(denoiser), processes, how=config.parallel, dtype=self.dtype
        )
        trained = [value for value in denoiser.parameters() if value.requires_grad]
        fused = processes.device.type == "cuda"
        self.optimiser = torch.optim.AdamW(
            trained, lr=config.lr, betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=fused
        )
        self.average = Average(denoiser)
        self.noise = torch.Generator(processes.device)

    def step(self, step: int, parts: Sequence[Batch], lr: float) -> tuple[Tensor, Tensor]:
        """Learn from this process's parts of a step. Returns the mean loss and the gradient's norm before clipping."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.noise.manual_seed((self.config.seed * 1_000_003 + step) * 4099 + self.processes.rank)
        loss = torch.zeros((), device=self.processes.device)
        for index, part in enumerate(parts):
            self._exchange_gradients(index == len(parts) - 1)
            loss += self._backward(part, 1 / len(parts))
        norm = whole(nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.config.clip))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(min(self.config.ema, (1 + step) / (10 + step)))
        return loss, norm

    def _backward(self, part: Batch, weight: float) -> Tensor:
        """Adds the gradient of a part of the step, and returns the part's share of the loss."""
        random = torch.randn(part.clean.shape, generator=self.noise, device=part.clean.device)
        mixed = self.objective.mix(part.clean, random, part.time)
        with torch.autocast(part.clean.device.type, self.dtype, enabled=self.dtype != torch.float32):
            prediction = self.model(mixed, self.objective.timesteps(part.time), part.condition, part.plan)
        target = self.objective.target(part.clean, random, part.time)
        loss = nn.functional.mse_loss(prediction.float(), target) * weight
        loss.backward()
        return loss.detach()

    def _exchange_gradients(self, last: bool) -> None:
        """Gradients are added up on each process and exchanged with the last part of a step only."""
        if isinstance(self.model, DistributedDataParallel):
            self.model.require_backward_grad_sync = last
        elif isinstance(self.denoiser, FSDPModule):
            self.denoiser.set_requires_gradient_sync(last)


class Predict(nn.Module):
    """One prediction of the denoiser, as a module so that DDP sees it."""

    def __init__(self, backbone: Backbone, denoiser: nn.Module) -> None:
        super().__init__()
        self.backbone, self.denoiser = backbone, denoiser

    def forward(self, latents: Tensor, timestep: Tensor, condition: Condition, plan: SortPlan | None) -> Tensor:
        return self.backbone.denoise(self.denoiser, latents, timestep, condition, plan)
