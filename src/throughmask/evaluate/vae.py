"""How well a VAE carries pixels and labels: PSNR, and the label round trip paint -> encode -> decode -> snap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..palette import Palette
from ..types import Labels, Pixels

LARGE = 100  # pixels a frame, on average over the clip: smaller toys are listed apart


@dataclass
class VAEScore:
    """Collects clips; `report` says what came out."""

    palette: Palette
    psnr: list[float] = field(default_factory=list)
    iou: list[tuple[int, float, float]] = field(default_factory=list)  # palette id, pixels a frame, IoU over the clip

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

    def report(self) -> dict[str, object]:
        """PSNR in dB; IoU of each toy of ≥ 100 pixels a frame pooled over its clip, their mean, and by palette id."""
        large = [(k, iou) for k, pixels, iou in self.iou if pixels >= LARGE]
        small = [iou for _, pixels, iou in self.iou if pixels < LARGE]
        by_id = {k: float(np.mean([iou for i, iou in large if i == k])) for k in sorted({k for k, _ in large})}
        return {
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


def deal_ids(labels: Labels, palette: Palette, turn: int) -> Labels:
    """The same label maps with ids shifted round the palette by `turn`, so that every id is used over many clips."""
    table = np.zeros(256, np.uint8)
    table[1:] = (np.arange(255) + turn) % palette.num_objects + 1
    dealt: Labels = table[labels]
    return dealt


def _mean(values: Iterable[float]) -> float | None:
    found: npt.NDArray[np.float64] = np.array(list(values), np.float64)
    return float(found.mean()) if len(found) else None
