"""Carries painted masks through a VAE that we did not train: paint, encode, decode, snap; the IoU of every id.

    python benchmarks/palette_vae.py --assets ../shared/assets --out docs/results/palette-vae   # .json and .md

Real masks of seven clips, in turn, at evenly spread frames; a whole frame is resized (nearest) to a square. The next
object always takes the next of ids 1..13: id k has the same shapes in every palette, and after 91 frames every object
has had every id. Colours are snapped to the first 13 of each palette, and to all of them. IoU is pooled over frames.
The VAE is taef2 (FLUX.2's latents, 32 channels, 1/8 of the size).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from throughmask import interop, media
from throughmask.palette import DAVIS, OURS, PAPER, Palette

NUM_IDS = 13  # as many as our palette has; of the others the first 13
CLIPS = (
    "sav/sav_000001_manual.json",
    "videos/davis17_multi/dogs_jump/gt_instances",
    "videos/davis16/horsejump-high/derived_instances",
    "videos/davis16/motocross-jump/derived_instances",
    "videos/davis16/blackswan/gt_union",
    "videos/davis16/bmx-trees/gt_union",
    "videos/davis16/dog/gt_union",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("../shared/assets"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--frames", type=int, default=14, help="label maps at each size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vae = TinyVAE.load(args.assets / "weights/taef2", args.device)
    begun = time.perf_counter()
    pictures = label_maps(args.assets, args.frames)
    rows = [
        row for size in args.sizes for palette in (OURS, PAPER, DAVIS) for row in measure(vae, palette, pictures, size)
    ]
    result = {
        "vae": "taef2",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": args.device,
        "seconds": round(time.perf_counter() - begun),
        "frames": args.frames,
        "clips": CLIPS,
        "rows": rows,
    }
    table = to_table(result)
    print(table)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(table)


class TinyVAE(NamedTuple):
    """The layers of the public TAESD family, named so that its bare state dicts load strictly."""

    encoder: nn.Module
    decoder: nn.Module

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> TinyVAE:
        """From taef2_encoder.pth and taef2_decoder.pth; float16 on disk, float32 here."""
        vae = cls(_encoder(), _decoder())
        for name, half in zip(cls._fields, vae, strict=True):
            half.load_state_dict(torch.load(folder / f"taef2_{name}.pth", weights_only=True))
            half.float().to(device).eval().requires_grad_(False)
        return vae

    def encode(self, colours: np.ndarray) -> Tensor:
        """H W 3 uint8 to latents 1 C Y X; the network takes 0..1."""
        device = next(self.encoder.parameters()).device
        return self.encoder(torch.from_numpy(colours.copy()).to(device).permute(2, 0, 1)[None] / 255)

    def decode(self, latents: Tensor) -> np.ndarray:
        """Latents 1 C Y X to H W 3 uint8."""
        return (self.decoder(latents)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


class Block(nn.Module):
    """Three convolutions beside a skip; the 1/8 stage of this VAE adds a normalised branch before them."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(64, 64), nn.ReLU(), _conv(64, 64), nn.ReLU(), _conv(64, 64))
        widen, narrow = nn.Conv2d(64, 256, 1, bias=False), nn.Conv2d(256, 64, 1, bias=False)
        self.pool = nn.Sequential(widen, nn.GroupNorm(4, 256), nn.ReLU(), narrow) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _conv(inputs: int, outputs: int, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def _encoder() -> nn.Module:
    layers: list[nn.Module] = [_conv(3, 64), Block(False)]
    for pooled in (False, False, True):
        layers += [_conv(64, 64, stride=2, bias=False), *(Block(pooled) for _ in range(3))]
    return nn.Sequential(*layers, _conv(64, 32))


def _decoder() -> nn.Module:
    layers: list[nn.Module] = [Clamp(), _conv(32, 64), nn.ReLU()]
    for pooled in (True, False, False):
        layers += [*(Block(pooled) for _ in range(3)), nn.Upsample(scale_factor=2), _conv(64, 64, bias=False)]
    return nn.Sequential(*layers, Block(False), _conv(64, 3))


def label_maps(assets: Path, num: int) -> list[np.ndarray]:
    """`num` label maps H W of the clips in turn, their objects under ids 1..13 in rotation."""
    clips = [_frames(assets / clip) for clip in CLIPS[:num]]
    rounds = -(-num // len(CLIPS))
    next_id, pictures = 0, []
    for turn in range(num):
        frames, num_objects = clips[turn % len(clips)]
        labels = frames[(2 * (turn // len(clips)) + 1) * len(frames) // (2 * rounds)]()
        table = np.zeros(256, np.uint8)
        table[1 : num_objects + 1] = (next_id + np.arange(num_objects)) % NUM_IDS + 1
        next_id += num_objects
        pictures.append(table[labels])
    return pictures


def _frames(path: Path) -> tuple[list[Callable[[], np.ndarray]], int]:
    """What reads each frame's labels, and the number of objects (their ids are 1, 2 ...)."""
    if path.is_dir():
        files = sorted(path.glob("*.png"))
        return [partial(media.read_labels, file) for file in files], int(media.read_labels(files[0]).max())
    trajectory = interop.read(path).trajectory
    return [partial(np.asarray, labels) for labels in trajectory.labels], max(trajectory.ids)


def measure(vae: TinyVAE, palette: Palette, pictures: list[np.ndarray], size: int) -> list[dict]:
    """The scores of one palette: snapped to its first 13 colours, and, where it has more, to all of them."""
    first = Palette(palette.name, palette.colours[: NUM_IDS + 1])
    palettes = [first] if palette.num_objects == NUM_IDS else [first, palette]
    confusion = np.zeros((len(palettes), 256, 256), np.int64)
    for labels in pictures:
        labels = resize(labels, size)
        decoded = vae.decode(vae.encode(palette.paint(labels)))
        for k, known in enumerate(palettes):
            pairs = labels.astype(np.int64) * 256 + known.snap(decoded)[0]
            confusion[k] += np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
    return [
        {"size": size, "palette": palette.name, "colours": known.num_objects, **scores(table)}
        for known, table in zip(palettes, confusion, strict=True)
    ]


def scores(confusion: np.ndarray) -> dict:
    """IoU of each id that occurs (0 is background), from pixels by true and found id."""
    truth, found, both = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    iou = {k: float(both[k] / (truth[k] + found[k] - both[k])) for k in range(NUM_IDS + 1) if truth[k]}
    objects = {k: value for k, value in iou.items() if k}
    worst = min(objects, key=objects.__getitem__)
    return {"mean": statistics.mean(objects.values()), "worst": objects[worst], "worst_id": worst, "iou": iou}


def resize(labels: np.ndarray, size: int) -> np.ndarray:
    """Nearest, the whole frame to a square."""
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in labels.shape)
    return labels[rows[:, None], columns]


def to_table(result: dict) -> str:
    lines = [
        f"{result['frames']} label maps of {len(result['clips'])} real clips at each size through {result['vae']} "
        f"({result['device']}, torch {result['torch']}), ids 1 to {NUM_IDS}. IoU in percent, pooled over frames. "
        "An id has the same shapes in every palette and at both sizes; different ids have different shapes.",
        "",
        "| size | palette | snapped to | mean of ids | worst id | background |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        worst = f"{100 * row['worst']:.2f} (id {row['worst_id']})"
        cells = [row["size"], row["palette"], f"{row['colours']} colours", f"{100 * row['mean']:.2f}", worst]
        lines.append("| " + " | ".join(map(str, [*cells, f"{100 * row['iou'][0]:.2f}"])) + " |")
    columns = [row for row in result["rows"] if row["colours"] == NUM_IDS]
    lines += ["", f"Each id, snapped to {NUM_IDS} colours:", ""]
    lines.append("| id | " + " | ".join(f"{row['palette']} {row['size']}" for row in columns) + " |")
    lines.append("|---" * (len(columns) + 1) + "|")
    for k in range(1, NUM_IDS + 1):
        cells = [f"{100 * row['iou'][k]:.2f}" if k in row["iou"] else "–" for row in columns]
        lines.append("| " + " | ".join([str(k), *cells]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
