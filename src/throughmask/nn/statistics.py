"""The mean and deviation of a VAE's latents, channel by channel: what normalises them, pixels and colours alike."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """Sums over latents B C F Y X, a float64 for each channel; `+` joins what two of them have seen."""

    count: int
    total: Tensor
    squares: Tensor

    @classmethod
    def of(cls, latents: Tensor) -> LatentStatistics:
        flat = latents.detach().transpose(0, 1).flatten(1).double()
        return cls(flat.shape[1], flat.sum(1), flat.square().sum(1))

    def __add__(self, other: LatentStatistics) -> LatentStatistics:
        sums = self.total + other.total, self.squares + other.squares
        return LatentStatistics(self.count + other.count, *sums)

    def mean(self) -> Tensor:
        return self.total / self.count

    def std(self) -> Tensor:
        return (self.squares / self.count - self.mean().square()).clamp(min=0).sqrt()

    def summary(self) -> tuple[float, float, float]:
        """The largest |mean| of a channel, the least deviation and the largest."""
        std = self.std()
        return float(self.mean().abs().max()), float(std.min()), float(std.max())
