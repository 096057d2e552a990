"""What a stage learns to predict (paper Sec. 10): flow matching (DiT), or v-prediction with zero terminal SNR (U-Net).

Each objective knows how to draw training times, mix data with noise, and convert between data, noise and its
prediction. Samplers are diffusers schedulers; nothing here takes a sampling step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InvalidValueError


class Objective(Protocol):
    """Latents are B ..., a time is one number for each sample (B,)."""

    def draw_times(self, num: int, generator: torch.Generator | None = None) -> Tensor: ...

    def timesteps(self, time: Tensor) -> Tensor:
        """Times as the network is told them, which is how diffusers' schedulers count."""
        ...

    def mix(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the network sees: data and noise, mixed as the time says."""
        ...

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the network must predict."""
        ...

    def clean(self, mixed: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        """The data that a prediction implies."""
        ...


@dataclass(frozen=True)
class FlowMatching:
    """Straight paths from data to noise: x = (1-σ)·clean + σ·noise, predicted velocity dx/dσ = noise - clean.

    Times are σ in 0..1, drawn logit-normal (Movie Gen; Stable Diffusion 3), then shifted towards noise as the base's
    sampler is: σ' = shift·σ / (1 + (shift - 1)·σ). The network's timestep is 1000·σ, as in diffusers.
    """

    shift: float = 1.0
    mean: float = 0.0
    deviation: float = 1.0

    def draw_times(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        sigma = torch.sigmoid(torch.randn(num, generator=generator) * self.deviation + self.mean)
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)

    def timesteps(self, time: Tensor) -> Tensor:
        return 1000 * time

    def mix(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        sigma = _like(time, clean)
        return (1 - sigma) * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        return noise - clean

    def clean(self, mixed: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        return mixed - _like(time, mixed) * prediction


@dataclass(frozen=True)
class VPrediction:
    """v-prediction on a schedule of 1000 steps, rescaled to zero terminal SNR (Lin et al. 2024, Alg. 1).

    The paper calls zero terminal SNR critically important: trajectories are mostly black, and a schedule that leaks the
    data's mean at the last step cannot make them from noise. Times are whole steps 0..999. schedule: how β rises, as
    diffusers names it: "scaled_linear" (Stable Diffusion) or "linear" (AnimateDiff).
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    num_steps: int = 1000
    zero_terminal_snr: bool = True
    schedule: str = "scaled_linear"

    def __post_init__(self) -> None:
        if self.schedule not in ("scaled_linear", "linear"):
            raise InvalidValueError("β rises scaled_linear or linear", seen=self.schedule)

    def alphas_cumprod(self) -> Tensor:
        """ᾱ of every step, float64; the last is 0 with zero terminal SNR."""
        power = 2 if self.schedule == "scaled_linear" else 1
        ends = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        beta = torch.linspace(*ends, self.num_steps, dtype=torch.float64) ** power
        alpha_bar = torch.cumprod(1 - beta, 0)
        if self.zero_terminal_snr:
            signal = alpha_bar.sqrt()
            signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
            alpha_bar = signal**2
        return alpha_bar

    def draw_times(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randint(self.num_steps, (num,), generator=generator)

    def timesteps(self, time: Tensor) -> Tensor:
        return time

    def mix(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        signal, spread = self._scales(time, clean)
        return signal * clean + spread * noise

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        signal, spread = self._scales(time, clean)
        return signal * noise - spread * clean

    def clean(self, mixed: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        signal, spread = self._scales(time, mixed)
        return signal * mixed - spread * prediction

    def _scales(self, time: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alphas_cumprod().to(time.device)[time.long()]
        return _like(alpha_bar.sqrt(), latents), _like((1 - alpha_bar).sqrt(), latents)


def linear_quadratic_sigmas(num_steps: int, emulate_steps: int = 250) -> list[float]:
    """Movie Gen's schedule for flow matching: num_steps values of σ from 1 downward (the final 0 is the scheduler's).

    The first half walks like the first steps of an `emulate_steps`-step linear schedule, the second half quadratically
    covers the rest. Raises InvalidValueError for fewer than one step.
    """
    if num_steps < 1:
        raise InvalidValueError("sampling takes at least one step", seen=num_steps)
    if num_steps >= emulate_steps:
        return [1 - step / num_steps for step in range(num_steps)]
    half = num_steps // 2
    linear = [step / emulate_steps for step in range(half)]
    # The quadratic part continues with the slope of the linear one, and ends at 1.
    rest, reached = num_steps - half, half / emulate_steps
    slope = 1 / emulate_steps if half else 0.0
    bend = (1 - reached - slope * rest) / rest**2
    quadratic = [reached + slope * step + bend * step**2 for step in range(rest)]
    return [1 - time for time in linear + quadratic]


def _like(value_B: Tensor, latents: Tensor) -> Tensor:
    """One number for each sample, ready to multiply B ... latents."""
    return value_B.to(latents).view(-1, *(1,) * (latents.ndim - 1))
