"""Times one denoising step and one training step of stage 2 on the U-Net at the true shapes, and measures their memory.

    python benchmarks/step_unet.py --out out/step-unet          # out/step-unet.json and .md; needs a GPU; a minute
    python benchmarks/step_unet.py --tiny --out out/step-unet   # the same at a small size on the CPU
    python benchmarks/step_unet.py --skip parameters train --profile   # and what a denoising step consists of

Stable Diffusion 1.5 with AnimateDiff's third motion adapter, 512×512, 16 frames: latents of 16 × 64 × 64, 65,536 tokens
at the finest level; random weights. Two objects cover the given share of the frame; the prompt and each object's local
prompt have CLIP's 77 tokens. All is eager, with one guidance branch.

Denoising is in bfloat16. "without" is the same model with the same input channels and K = 0; "per frame" and "joint"
are K masked blocks. Sort plans are made once, as for a clip. Memory is the peak above the weights and inputs; the total
adds the weights.

The training step is `train.learner`'s: float32 weights, autocast to bfloat16, AdamW, averaged weights, gradient
checkpointing, a batch of 1. Its memory is the peak of everything. Times are medians in milliseconds. The column
"attention" tells which kernel ran masked self-attention, and in what precision. Files are written after every part.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNetMotionModel
from step import peak_bytes, release, synchronise  # the file beside this one
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPTextConfig, CLIPTextModel

from throughmask.backbones.animatediff import BACKBONE, SCHEDULE, ZERO_SNR
from throughmask.nn.guidance import Condition
from throughmask.nn.regions import token_regions
from throughmask.stages.recipes import COND_LATENTS
from throughmask.train.batches import Batch
from throughmask.train.config import StageConfig
from throughmask.train.devices import Processes
from throughmask.train.learner import Learner

WARM, TEXT_TOKENS = 5, 77
BARS = {"per frame": 1.15, "joint": 1.7}  # of the plan, times the step without masked blocks
CLIP_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}  # ViT-L/14's, as in SD 1.5


@dataclass(frozen=True)
class Shape:
    """Sizes of the clip and of the model; one of the two below. widths: of the U-Net's levels."""

    device: str
    dtype: torch.dtype
    frames: int
    side: int
    widths: tuple[int, ...]
    text_width: int
    heads: int = 8
    masked_blocks: int = 6

    def latents(self) -> tuple[int, int, int, int]:
        return 4, self.frames, self.side // 8, self.side // 8


TRUE = Shape("cuda", torch.bfloat16, frames=16, side=512, widths=(320, 640, 1280, 1280), text_width=768)
TINY = Shape("cpu", torch.float32, frames=8, side=64, widths=(32, 64, 64, 64), text_width=32, heads=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.50, help="of the frame that the two objects cover")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--skip", nargs="*", default=[], choices=["step", "parameters", "train"])
    parser.add_argument("--profile", action="store_true", help="print where each denoising step's time goes")
    parser.add_argument("--tiny", action="store_true", help="small sizes on the CPU")
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.md")
    args = parser.parse_args()
    torch.manual_seed(0)
    shape = TINY if args.tiny else TRUE
    processes = Processes.join(shape.device)  # first: it also tells the CPU how to round
    begun = time.perf_counter()
    machine = f"CPU, {torch.get_num_threads()} threads" if args.tiny else torch.cuda.get_device_name()
    labels = trajectory(shape, args.share)
    share = float((labels > 0).float().mean())
    result: dict = {"machine": machine, "torch": torch.__version__, "share": share, "K": shape.masked_blocks}
    result |= {"size": [shape.side, shape.side, shape.frames]}
    parts: dict[str, Callable[[], Any]] = {
        "step": lambda: denoising(shape, labels, args.repeats, profile=args.profile),
        "parameters": lambda: parameters(shape),
        "train": lambda: training(shape, labels, args.repeats, processes),
    }
    for name, measure in parts.items():
        if name in args.skip:
            continue
        try:
            result[name] = measure()
        except torch.OutOfMemoryError as error:
            result[name] = {"failed": str(error).splitlines()[0]}
        release(shape)
        result["seconds"] = round(time.perf_counter() - begun)
        print(to_table(result), flush=True)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
            args.out.with_suffix(".md").write_text(to_table(result))


def trajectory(shape: Shape, share: float) -> Tensor:
    """Two rectangles that cross the frame in opposite directions, in lanes of their own: labels 1 T H W."""
    side = shape.side
    labels = torch.zeros(1, shape.frames, side, side, dtype=torch.uint8)
    edge, height = side // 24, side * 2 // 5
    width = round(share / 2 * side * side / height)
    for frame in range(shape.frames):
        x = round((side - width) * frame / (shape.frames - 1))
        labels[0, frame, edge : edge + height, x : x + width] = 1
        labels[0, frame, side - edge - height : side - edge, side - x - width : side - x] = 2
    return labels


def base(shape: Shape) -> UNetMotionModel:
    return UNetMotionModel(
        block_out_channels=shape.widths,
        cross_attention_dim=shape.text_width,
        num_attention_heads=shape.heads,
        motion_num_attention_heads=shape.heads,
        use_motion_mid_block=False,  # as in version 3
    )


def denoiser(shape: Shape, num_masked_blocks: int, *, per_frame: bool = False) -> Any:
    """The stage's denoiser, all of it random: the added layers are trained ones, not the identity."""
    with torch.device(shape.device):
        torch.set_default_dtype(shape.dtype)
        try:
            model = BACKBONE.build(
                base(shape), cond_latents=COND_LATENTS, num_masked_blocks=num_masked_blocks, per_frame=per_frame
            )
        finally:
            torch.set_default_dtype(torch.float32)
    for name, parameter in model.named_parameters():
        if "to_out.weight" in name and "masked" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


def condition(shape: Shape, labels: Tensor, *, masked: bool, pad: int = 1) -> Condition:
    """pad: local prompts are padded to a multiple of so many tokens."""
    like: dict[str, Any] = {"device": shape.device, "dtype": shape.dtype}
    channels, *grid = shape.latents()
    text = torch.randn(1, TEXT_TOKENS, shape.text_width, **like)
    given = Condition(torch.randn(1, COND_LATENTS * channels, *grid, **like), text)
    if not masked:
        return given
    label, sees = token_regions(labels.to(shape.device), BACKBONE.grid(shape.frames, (1, 8, 64, 32)), 2)
    padded = TEXT_TOKENS + -TEXT_TOKENS % pad
    local = torch.randn(1, 2, padded, shape.text_width, **like)
    key_mask = (torch.arange(padded, device=shape.device) < TEXT_TOKENS).expand(1, 2, -1)
    return given._replace(label=label, sees=sees, local=local, key_mask=key_mask)


def denoising(shape: Shape, labels: Tensor, repeats: int, *, profile: bool) -> list[dict]:
    """A row for each model: their steps run in turns, so that a chip that grows hot slows all."""
    K, size = shape.masked_blocks, shape.latents()[1:]
    kinds: dict[str, dict] = {
        "joint": {"num_masked_blocks": K},
        "per frame": {"num_masked_blocks": K, "per_frame": True},
        "without": {"num_masked_blocks": 0},
    }
    latents = torch.randn(1, *shape.latents(), device=shape.device, dtype=shape.dtype)
    times = torch.full((1,), 500, device=shape.device)
    steps: dict[str, Callable[[], Any]] = {}
    rows: dict[str, dict] = {}
    for name, kind in kinds.items():
        model = denoiser(shape, **kind)
        given = condition(shape, labels, masked=kind["num_masked_blocks"] > 0)
        plan = None if given.label is None else BACKBONE.plan(given.label, size)
        steps[name] = partial(BACKBONE.denoise, model, latents, times, given, plan)
        rows[name] = {"model": name, "parameters": count(model), "weights_MiB": 2**-20 * held_bytes(model)}
    with torch.no_grad():
        milliseconds = timed(shape, steps, repeats)
        for name, step in steps.items():
            row = rows[name]
            row |= {"ms": milliseconds[name], "ratio": milliseconds[name] / milliseconds["without"]}
            row |= {"bar": BARS.get(name), "MiB": 2**-20 * peak_bytes(shape, step), "attention": kernels(step)}
            row |= {"total_MiB": row["weights_MiB"] + row["MiB"]}
            assert bool(step().isfinite().all()), name
            if profile:
                print(f"{name}\n{profiled(shape, step)}", flush=True)
    return [rows[name] for name in ("without", "per frame", "joint")]


def training(shape: Shape, labels: Tensor, repeats: int, processes: Processes) -> dict:
    """Stage 2's training step with joint masked blocks, on one batch over and over."""
    cuda = shape.device == "cuda"
    single = replace(shape, dtype=torch.float32)
    config = StageConfig(
        stage="video",
        backbone="animatediff",
        blocks=shape.masked_blocks,
        size=(shape.side, shape.side),
        frames=shape.frames,
        batch=1,
        dtype="bfloat16" if cuda else "float32",
        checkpointing=True,
        lr=1e-5,
    )
    model = denoiser(single, shape.masked_blocks)
    objective = BACKBONE.objective(DDIMScheduler(**SCHEDULE, **ZERO_SNR))
    given = condition(single, labels, masked=True, pad=16)  # as train.batches does it
    assert given.label is not None
    plan = BACKBONE.plan(given.label, shape.latents()[1:])
    clean = torch.randn(1, *shape.latents(), device=shape.device)
    batch = Batch(clean, torch.full((1,), 500, device=shape.device), given, plan, squared_runs=0.0)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    learner = Learner(config, BACKBONE, objective, model, processes)
    numbers = itertools.count()

    def step() -> float:
        return float(learner.step(next(numbers), [batch], config.lr)[0])

    first = step()
    milliseconds = timed(shape, {"train": step}, repeats)["train"]
    peak = 2**-30 * torch.cuda.max_memory_allocated() if cuda else None
    row = {"ms": milliseconds, "GiB": peak, "parameters": count(model), "attention": kernels(step)}
    return row | {"losses": [first, step()]}


def parameters(shape: Shape) -> dict[str, int]:
    """Counted without memory. added: by the stage to its base, masked blocks and input channels."""
    with torch.device("meta"):
        unet = base(shape)
        model = BACKBONE.build(unet, cond_latents=COND_LATENTS, num_masked_blocks=shape.masked_blocks)
        text_encoder = CLIPTextModel(CLIPTextConfig(**CLIP_TEXT))
    sizes = {"base": count(unet), "added": BACKBONE.num_added(model), "denoiser": count(model)}
    assert sizes["base"] + sizes["added"] == sizes["denoiser"]
    return sizes | {"text_encoder": count(text_encoder), "with_text_encoder": count(model) + count(text_encoder)}


def count(model: torch.nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


def held_bytes(model: torch.nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in itertools.chain(model.parameters(), model.buffers()))


class Recorder(TorchDispatchMode):
    """Notes the kernel and the precision of every call of our packed attention."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.throughmask.run_attention.default:
            precision = "/".join(dict.fromkeys(str(part.dtype).removeprefix("torch.") for part in args[:3]))
            self.seen.add(f"{args[-1]}, {precision}")
        return func(*args, **(kwargs or {}))


def kernels(step: Callable[[], Any]) -> str:
    with Recorder() as recorder:
        step()
    return "; ".join(sorted(recorder.seen))


def timed(shape: Shape, steps: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median of each step in milliseconds."""
    milliseconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(WARM + repeats):
        for name, step in steps.items():
            synchronise(shape)
            start = time.perf_counter()
            step()
            synchronise(shape)
            if repeat >= WARM:
                milliseconds[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in milliseconds.items()}


def profiled(shape: Shape, step: Callable[[], Any], rows: int = 25) -> str:
    """The operations that take most of the device's time, and most of the host's, in one step."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    keys = ["self_cpu_time_total"]
    if shape.device == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
        keys.insert(0, "self_device_time_total")
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        synchronise(shape)
    averages = profile.key_averages()
    return "\n".join(averages.table(sort_by=key, row_limit=rows, max_name_column_width=70) for key in keys)


def to_table(result: dict) -> str:
    height, width, frames = result["size"]
    lines = [f"{result['machine']}, torch {result['torch']}; {height}×{width}×{frames}, K = {result['K']}, objects"]
    lines[0] += f" cover {result['share']:.0%}; {result['seconds']} s in all"
    rows = result.get("step", [])
    if isinstance(rows, dict):
        lines += ["", f"Denoising does not fit: {rows['failed']}"]
    elif rows:
        head = "denoising step|parameters|ms|× without|bar|MiB above weights|total MiB|attention"
        lines += ["", f"|{head}|", "|---" * 8 + "|"]
        for row in rows:
            bar = "" if row["bar"] is None else f"≤ {row['bar']}"
            cells = [row["model"], f"{row['parameters'] / 1e6:,.1f} M", f"{row['ms']:.1f}", f"{row['ratio']:.3f}", bar]
            cells += [f"{row['MiB']:,.0f}", f"{row['total_MiB']:,.0f}", row["attention"]]
            lines.append("|" + "|".join(cells) + "|")
    row = result.get("train", {})
    if "failed" in row:
        lines += ["", f"The training step does not fit: {row['failed']}"]
    elif row:
        lines += ["", "|training step|parameters|ms|peak GiB|attention|", "|---" * 5 + "|"]
        cells = ["joint, checkpointing, batch 1", f"{row['parameters'] / 1e6:,.1f} M", f"{row['ms']:.1f}"]
        cells += ["" if row["GiB"] is None else f"{row['GiB']:.1f}", row["attention"]]
        lines.append("|" + "|".join(cells) + "|")
    sizes = result.get("parameters", {})
    if sizes:
        lines += ["", f"Parameters: base {sizes['base']:,} + added {sizes['added']:,} = {sizes['denoiser']:,};"]
        lines[-1] += f" with the text encoder's {sizes['text_encoder']:,}: {sizes['with_text_encoder']:,}."
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
