"""Times training steps: samples a second, model FLOPs utilisation, memory; the loop's own code on random latents.

    python benchmarks/train.py --shapes toybox-motion toybox-video wan-video --out out/train
    torchrun --nproc-per-node 4 benchmarks/train.py --shapes toybox-video --out out/train-4
    torchrun --nproc-per-node 2 benchmarks/train.py --shapes wan-video --parallel fsdp --out out/train-fsdp
    python benchmarks/train.py --shapes tiny --steps 2 --compile false         # on a CPU

Batches are gathered from rows in the CPU's memory and copied ahead by a thread, as from a cache on disk. FLOPs are
counted by train.flops (without recomputation); the peak is that of the device (train.flops.PEAKS). The first steps,
which compile, are not timed. Two objects cover 30 % of each frame, with local prompts of 16 tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from throughmask.backbones import Backbone
from throughmask.backbones.animatediff import BACKBONE as UNET
from throughmask.backbones.animatediff import SCHEDULE, ZERO_SNR, small_unet
from throughmask.backbones.wan import BACKBONE as WAN
from throughmask.stages.recipes import COND_LATENTS, recipe
from throughmask.train.batches import Batch, Batches
from throughmask.train.config import StageConfig
from throughmask.train.devices import Processes
from throughmask.train.flops import clip_flops, peak_flops
from throughmask.train.learner import Learner

ITEMS, LOCAL = 64, 16


@dataclass(frozen=True)
class Shape:
    """latents: C F Y X. text: tokens of a global prompt, and their width. batch: on each process. A U-Net has `layers`
    blocks at each of three resolutions."""

    stage: str
    width: int
    heads: int
    layers: int
    ffn: int
    blocks: int
    latents: tuple[int, int, int, int]
    text: tuple[int, int]
    batch: int
    checkpointing: bool = False
    recipe: str = "paper"
    backbone: Backbone = WAN

    @property
    def patch(self) -> int:
        """Latents along a token's side."""
        return 2 if self.backbone is WAN else 1


TOYBOX = Shape("motion", 256, 4, 7, 768, 0, (16, 7, 32, 32), (128, 192), 128)
TOYBOX_UNET = replace(TOYBOX, width=48, layers=2, ffn=0, backbone=UNET)
SHAPES = {
    "toybox-motion": replace(TOYBOX, blocks=1, recipe="bound"),
    "toybox-plain": TOYBOX,
    "toybox-video": replace(TOYBOX, stage="video", blocks=2),
    "toybox-wide": replace(TOYBOX, width=512, heads=8, layers=12, ffn=2048, batch=64),
    "toybox-unet-motion": TOYBOX_UNET,
    "toybox-unet-video": replace(TOYBOX_UNET, stage="video", blocks=6),
    "wan-video": Shape("video", 1536, 12, 30, 8960, 10, (16, 21, 60, 104), (512, 4096), 1, checkpointing=True),
    "tiny": Shape("video", 24, 2, 2, 32, 1, (16, 2, 8, 8), (16, 32), 2),
}


class RandomItems:
    """Stands for a cache of latents and its prompts (train.latents.LatentItems): rows in memory, gathered alike."""

    def __init__(self, shape: Shape) -> None:
        generator = torch.Generator().manual_seed(0)
        C, F, Y, X = shape.latents
        self.fields = {
            "video": torch.randn((ITEMS, C, F, Y, X), generator=generator).half(),
            "motion": torch.randn((ITEMS, 1, C, F, Y, X), generator=generator).half(),
            "image": torch.randn((ITEMS, C, 1, Y, X), generator=generator).half(),
            "first": torch.randn((ITEMS, C, 1, Y, X), generator=generator).half(),
        }
        y, x = Y // shape.patch, X // shape.patch
        labels = torch.zeros(F, y, x, dtype=torch.uint8)
        side = max(1, round((0.15 * y * x) ** 0.5))
        labels[:, :side, :side], labels[:, -side:, -side:] = 1, 2
        self.fields["tokens"] = labels.flatten().expand(ITEMS, 1, -1)
        bits = torch.where(labels.flatten() == 1, 128, torch.where(labels.flatten() == 2, 64, 0)).to(torch.uint8)
        self.fields["begins"] = labels.flatten().expand(ITEMS, -1)
        self.fields["sees"] = bits[:, None].expand(ITEMS, 1, -1, 1)
        self.text = torch.randn(shape.text, generator=generator).half()
        self.prompts = self

    def __len__(self) -> int:
        return ITEMS

    def rows(self, name: str, items: Sequence[int], variants: Sequence[int] | None = None) -> Tensor:
        field = self.fields[name]
        return torch.stack([field[item] if variants is None else field[item, 0] for item in items])

    def texts(self, items: Sequence[int], phrasings: Sequence[int], column: int) -> tuple[Tensor, Tensor]:
        text = self.text[: len(self.text) // 2].expand(len(items), -1, -1)
        return text, torch.ones(text.shape[:2], dtype=torch.bool)

    def local(self, items: Sequence[int], phrasings: Sequence[int], num_objects: int) -> tuple[Tensor, Tensor]:
        text = self.text[:LOCAL].expand(len(items), num_objects, -1, -1)
        return text, torch.ones(text.shape[:3], dtype=torch.bool)

    def num_phrasings(self, item: int) -> int:
        return 1

    def empty(self) -> tuple[Tensor, Tensor]:
        return self.text[None, :1], torch.ones(1, 1, dtype=torch.bool)


class Tokenizer:
    """All that a batch asks of one."""

    def __init__(self, longest: int) -> None:
        self.model_max_length = longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["toybox-motion", "toybox-video"])
    parser.add_argument("--batch", type=int, help="on each process, instead of the shape's")
    parser.add_argument("--steps", type=int, default=40, help="that are timed")
    parser.add_argument("--warm", type=int, default=8, help="steps before those")
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), default="ddp")
    parser.add_argument("--accumulate", type=int, default=1, help="parts of a batch")
    parser.add_argument("--compile", choices=("true", "false"), default="true", help="true by default")
    parser.add_argument("--checkpointing", choices=("true", "false"))
    parser.add_argument(
        "--attention", default="native", help="of unmasked layers, as diffusers names it: _native_cudnn"
    )
    parser.add_argument("--profile", action="store_true", help="print what takes the time of one more step")
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.md")
    args = parser.parse_args()
    processes = Processes.join()
    rows = [measure(name, args, processes) for name in args.shapes]
    if processes.rank:
        return
    cuda = processes.device.type == "cuda"
    machine = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    result = {
        "machine": f"{processes.world} × {machine}",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    result["rows"] = rows
    table = to_table(result)
    print(table)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(table)


def measure(name: str, args: argparse.Namespace, processes: Processes) -> dict[str, Any]:
    shape = SHAPES[name]
    per_process = args.batch or shape.batch
    cuda = processes.device.type == "cuda"
    config = StageConfig(
        stage=shape.stage,
        batch=per_process * processes.world,
        dtype="bfloat16" if cuda else "float32",
        compile=args.compile == "true",
        checkpointing=shape.checkpointing if args.checkpointing is None else args.checkpointing == "true",
        parallel=args.parallel,
        accumulate=args.accumulate,
        lr=1e-4,
    )
    denoiser, backbone = build(shape), shape.backbone
    wan = backbone is WAN
    objective = backbone.objective(
        FlowMatchEulerDiscreteScheduler(shift=3.0) if wan else DDIMScheduler(**SCHEDULE, **ZERO_SNR)
    )
    batches = Batches(
        RandomItems(shape),  # type: ignore[arg-type]
        shape.stage,
        recipe(shape.recipe),
        backbone,
        Tokenizer(shape.text[0]),
        objective,
        batch=config.batch,
        accumulate=config.accumulate,
        variants=1,
        drop=0.05,
        seed=0,
        rank=processes.rank,
        world=processes.world,
    )
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    learner = Learner(config, backbone, objective, denoiser, processes)
    if wan:
        learner.denoiser.set_attention_backend(args.attention)  # before anything is compiled
    parts = batches.iterate(0, processes.device)
    share: list[Batch] = []
    for step in range(args.warm + args.steps):
        if step == args.warm:
            begun = _now(processes)
        share = next(parts)
        loss, _ = learner.step(step, share, config.lr)
    seconds = (_now(processes) - begun) / args.steps
    if args.profile:
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
            learner.step(args.warm + args.steps, next(parts), config.lr)
            _now(processes)
        for key in [*(["self_device_time_total"] if cuda else []), "self_cpu_time_total"]:
            print(seen.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=80))
    parts.close()
    last = share[-1]
    squared = None if last.plan is None else last.squared_runs
    flops = config.batch * clip_flops(backbone, denoiser, last.clean, last.condition, squared)
    peak = peak_flops(processes.device)
    row = {
        "shape": name,
        "attention": args.attention,
        "parameters": sum(value.numel() for value in denoiser.parameters()),
        "tokens": last.clean[0, 0].numel() // shape.patch**2,
        "batch": config.batch,
        "parallel": args.parallel if processes.world > 1 else "",
        "milliseconds": 1000 * seconds,
        "samples_per_second": config.batch / seconds,
        "tflops": flops / seconds / 1e12,
        "mfu": flops / seconds / (peak * processes.world) if peak else None,
        "gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "loss": float(loss),
    }
    if processes.rank == 0:
        print(json.dumps(row), flush=True)
    del learner, denoiser
    torch.cuda.empty_cache()
    return row


def build(shape: Shape) -> Any:
    """The stage's denoiser with random weights, the added layers too: zeros would be as fast, but say less."""
    torch.manual_seed(0)
    if shape.backbone is UNET:
        form = {"layers": shape.layers, "heads": shape.heads, "text_dim": shape.text[1]}
        unet = small_unet(shape.width, shape.latents[0], **form)
        return UNET.build(unet, cond_latents=COND_LATENTS, num_masked_blocks=shape.blocks)
    base = WanTransformer3DModel(
        num_attention_heads=shape.heads,
        attention_head_dim=shape.width // shape.heads,
        in_channels=shape.latents[0],
        out_channels=shape.latents[0],
        text_dim=shape.text[1],
        ffn_dim=shape.ffn,
        num_layers=shape.layers,
    )
    return WAN.build(base, cond_latents=COND_LATENTS, num_masked_blocks=shape.blocks)


def to_table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['machine']}, torch {result['torch']}, Python {result['python']}",
        "",
        "| shape | parameters | tokens | batch | ms a step | samples/s | TFLOP/s | MFU | GiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        name = " ".join(filter(None, (row["shape"], row["parallel"])))
        mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
        memory = "" if row["gib"] is None else f"{row['gib']:.1f}"
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.1f} M | {row['tokens']:,} | {row['batch']}"
            f" | {row['milliseconds']:.1f} | {row['samples_per_second']:,.1f} | {row['tflops']:.3g} | {mfu}"
            f" | {memory} |"
        )
    return "\n".join(lines) + "\n"


def _now(processes: Processes) -> float:
    if processes.device.type == "cuda":
        torch.cuda.synchronize()
    processes.wait()
    return time.perf_counter()


if __name__ == "__main__":
    main()
