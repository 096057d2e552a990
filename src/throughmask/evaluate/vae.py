"""How well a VAE carries pixels and labels: PSNR, the round trip paint -> encode -> decode -> snap, and its latents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..backbones import backbone
from ..nn.statistics import LatentStatistics
from ..palette import Palette
from ..types import Labels, Pixels

LARGE = 100  # pixels a frame, on average over the clip: smaller toys are listed apart

Clip = tuple[Pixels, Labels]  # T H W 3 and T H W
Show = Callable[[int, Labels, Pixels, Pixels], object]  # clip, its labels as painted, decoded pixels and colours


class Bar(NamedTuple):
    """What a value of a report has to be: at least `least`, and at most `most` unless that is None."""

    value: str
    least: float
    most: float | None = None

    def holds(self, report: dict[str, Any]) -> bool:
        """A value that could not be measured fails."""
        value = report[self.value]
        return value is not None and self.least <= value and (self.most is None or value <= self.most)


BARS = (  # what the VAE of the Toybox models has to reach on Toybox-128
    Bar("psnr", 32),
    Bar("iou", 0.95),
    Bar("worst_iou", 0.90),
    *(
        bar
        for kind in ("pixels", "colours")
        for bar in (Bar(f"{kind}_mean", 0, 0.1), Bar(f"{kind}_least_std", 0.8, 1.2), Bar(f"{kind}_most_std", 0.8, 1.2))
    ),
)


@dataclass
class VAEScore:
    """Collects clips; `report` says what came out."""

    palette: Palette
    psnr: list[float] = field(default_factory=list)
    iou: list[tuple[int, float, float]] = field(default_factory=list)  # palette id, pixels a frame, IoU over the clip
    latents: dict[str, LatentStatistics] = field(default_factory=dict)  # of "pixels" and of "colours"

    def add_pixels(self, truth: Pixels, decoded: Pixels) -> None:
        """One clip, T H W 3 each."""
        error = float(np.mean((truth.astype(np.float64) - decoded) ** 2))
        self.psnr.append(float(10 * np.log10(255**2 / max(error, 1e-12))))

    def add_colours(self, labels: Labels, decoded: Pixels) -> None:
        """One clip: labels T H W, and what came back of their colours, T H W 3."""
        back, _ = self.palette.snap(decoded)
        for object_id in np.unique(labels[labels > 0]).tolist():
            mine, found = labels == object_id, back == object_id
            iou = (mine & found).sum() / (mine | found).sum()
            self.iou.append((object_id, float(mine.sum() / len(labels)), float(iou)))

    def add_latents(self, kind: str, latents: Tensor) -> None:
        """Latents B C F Y X, normalised by the VAE's own statistics, of "pixels" or of "colours"."""
        more = LatentStatistics.of(latents)
        self.latents[kind] = self.latents[kind] + more if kind in self.latents else more

    def report(self) -> dict[str, Any]:
        """PSNR in dB; IoU of each toy of ≥ 100 pixels a frame pooled over its clip, their mean, and by palette id.

        Of latents, for pixels and for colours: the largest |mean| and the range of deviations of any channel.
        """
        large = [(k, iou) for k, pixels, iou in self.iou if pixels >= LARGE]
        small = [iou for _, pixels, iou in self.iou if pixels < LARGE]
        by_id = {k: float(np.mean([iou for i, iou in large if i == k])) for k in sorted({k for k, _ in large})}
        report: dict[str, Any] = {
            "clips": len(self.psnr),
            "psnr": _mean(self.psnr),
            "iou": _mean([iou for _, iou in large]),
            "iou_by_id": by_id,
            "worst_id": min(by_id, key=lambda k: by_id[k]) if by_id else None,
            "worst_iou": min(by_id.values()) if by_id else None,
            "toys": len(large),
            "iou_small": _mean(small),
            "small_toys": len(small),
        }
        for kind, latents in self.latents.items():
            report |= dict(
                zip((f"{kind}_mean", f"{kind}_least_std", f"{kind}_most_std"), latents.summary(), strict=True)
            )
        return report


@torch.no_grad()
def score_vae(
    vae: Any, clips: Sequence[Clip], palette: Palette, *, batch: int = 4, show: Show | None = None
) -> VAEScore:
    """Carry clips of one size through a VAE of Wan's kind: their pixels, and their labels painted with ids dealt anew.

    On a CPU batches of two and more are several times faster than one clip at a time.
    """
    wan, score = backbone("wan"), VAEScore(palette)
    device = next(vae.parameters()).device

    def carry(kind: str, truth: Sequence[Pixels]) -> Pixels:
        latents = wan.encode(vae, torch.from_numpy(np.stack(truth)).to(device))
        score.add_latents(kind, latents)
        back: Pixels = wan.decode(vae, latents).cpu().numpy()
        return back

    for start in range(0, len(clips), batch):
        part = clips[start : start + batch]
        dealt = [deal_ids(labels, palette, turn) for turn, (_, labels) in enumerate(part, start)]
        pixels = carry("pixels", [truth for truth, _ in part])
        colours = carry("colours", [palette.paint(labels) for labels in dealt])
        for k, (truth, _) in enumerate(part):
            score.add_pixels(truth, pixels[k])
            score.add_colours(dealt[k], colours[k])
            if show is not None:
                show(start + k, dealt[k], pixels[k], colours[k])
    return score


def deal_ids(labels: Labels, palette: Palette, turn: int) -> Labels:
    """The same label maps with ids shifted round the palette by `turn`, so that every id is used over many clips."""
    table = np.zeros(256, np.uint8)
    table[1:] = (np.arange(255) + turn) % palette.num_objects + 1
    dealt: Labels = table[labels]
    return dealt


def _mean(values: Iterable[float]) -> float | None:
    found: npt.NDArray[np.float64] = np.array(list(values), np.float64)
    return float(found.mean()) if len(found) else None
