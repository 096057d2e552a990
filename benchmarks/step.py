"""Times one denoising step of stage 2 at the true shapes, with and without masked blocks, and measures its memory.

    python benchmarks/step.py --out out/step            # step.json and step.md; needs a GPU; four to six minutes
    python benchmarks/step.py --tiny --out out/step     # the same at a small size on the CPU, in about two minutes

Wan 2.1 1.3B (30 layers, 12 heads × 128, feed-forward 8960), 480×832, 81 frames: 32,760 tokens; random weights in
bfloat16. Two objects cover the given share of the frame, each with a local prompt of 64 tokens. "without" is the same
model with the same input channels and K = 0. Eager with one guidance branch and with three; compiled block by block
(`compile_repeated_blocks`) with one; then the whole stage with `--offload` and three branches. Times are medians in
milliseconds, memory is the peak above the weights and inputs, in MiB. Files are written after every part.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from throughmask.backbones.wan import BACKBONE, byte_tokenizer
from throughmask.nn.guidance import Condition, Guidance
from throughmask.nn.plan import SortPlan
from throughmask.nn.regions import token_regions
from throughmask.stages.motion_to_video import MotionToVideoPipeline
from throughmask.types import MaskTrajectory, Scene, SceneObject

LOCAL_TOKENS = 64
ONE, THREE = Guidance(1, 1), Guidance(1.5, 5)  # by the number of their branches


@dataclass(frozen=True)
class Shape:
    """Sizes of the clip and of the models; one of the two below."""

    device: str
    dtype: torch.dtype
    frames: int
    size: tuple[int, int]
    masked_blocks: int
    wan: dict[str, int]
    umt5: dict[str, int]
    vae: dict[str, object] = field(default_factory=dict)

    def latents(self) -> tuple[int, int, int]:
        return 1 + (self.frames - 1) // 4, self.size[0] // 8, self.size[1] // 8


TRUE = Shape(
    "cuda",
    torch.bfloat16,
    frames=81,
    size=(480, 832),
    masked_blocks=10,
    wan={"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30, "text_dim": 4096},
    umt5={"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
)
TINY = Shape(
    "cpu",
    torch.float32,
    frames=9,
    size=(256, 416),
    masked_blocks=1,
    wan={"num_attention_heads": 2, "attention_head_dim": 64, "ffn_dim": 747, "num_layers": 3, "text_dim": 64},
    umt5={"vocab_size": 384, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    vae={"base_dim": 8},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.30, help="of the frame that the two objects cover")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--skip", nargs="*", default=[], choices=["eager", "compiled", "offload"])
    parser.add_argument("--tiny", action="store_true", help="small sizes on the CPU, without offloading")
    parser.add_argument("--out", type=Path, help="write step.json and step.md into this folder")
    args = parser.parse_args()
    torch.manual_seed(0)
    shape = TINY if args.tiny else TRUE
    begun = time.perf_counter()
    machine = f"CPU, {torch.get_num_threads()} threads" if args.tiny else torch.cuda.get_device_name()
    result: dict = {"machine": machine, "torch": torch.__version__, "share": args.share, "K": shape.masked_blocks}
    result |= {"size": [*shape.size, shape.frames], "rows": []}
    labels = trajectory(shape, args.share)
    parts: list[tuple[str, Callable[[], None]]] = [
        ("eager", lambda: result["rows"].append(compare(shape, labels, "eager", ONE, args.repeats))),
        ("eager", lambda: result["rows"].append(compare(shape, labels, "eager", THREE, args.repeats))),
        ("compiled", lambda: result["rows"].append(compare(shape, labels, "compiled", ONE, args.repeats))),
        ("offload", lambda: result.update(whole_stage(shape, labels))),
    ]
    for name, measure in parts:
        if name in args.skip:
            continue
        measure()
        result["seconds"] = round(time.perf_counter() - begun)
        print(to_table(result), flush=True)
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / "step.json").write_text(json.dumps(result, indent=1) + "\n")
            (args.out / "step.md").write_text(to_table(result))


def trajectory(shape: Shape, share: float) -> np.ndarray:
    """Two rectangles that cross the frame in opposite directions, in lanes of their own."""
    H, W = shape.size
    labels = np.zeros((shape.frames, H, W), np.uint8)
    edge, height = H // 24, H * 2 // 5
    width = round(share / 2 * H * W / height)
    for frame in range(shape.frames):
        x = round((W - width) * frame / (shape.frames - 1))
        labels[frame, edge : edge + height, x : x + width] = 1
        labels[frame, H - edge - height : H - edge, W - x - width : W - x] = 2
    return labels


def denoiser(shape: Shape, num_masked_blocks: int) -> torch.nn.Module:
    with torch.device(shape.device):
        torch.set_default_dtype(shape.dtype)
        try:
            base = WanTransformer3DModel(in_channels=16, out_channels=16, **shape.wan)
            model = BACKBONE.build(base, cond_latents=2, num_masked_blocks=num_masked_blocks)
        finally:
            torch.set_default_dtype(torch.float32)
    for name, parameter in model.named_parameters():
        if "to_out.weight" in name and "masked" in name:
            torch.nn.init.normal_(parameter, std=0.02)  # trained layers, not the identity
    return model.eval()


def condition(shape: Shape, labels: np.ndarray, masked: bool) -> Condition:
    like = {"device": shape.device, "dtype": shape.dtype}
    width = shape.wan["text_dim"]
    given = Condition(torch.randn(1, 32, *shape.latents(), **like), torch.randn(1, 512, width, **like))
    if not masked:
        return given
    labels_BTHW = torch.from_numpy(labels)[None].to(shape.device)
    label, sees = token_regions(labels_BTHW, BACKBONE.grid(shape.frames, (4, 16)), 2)
    local = torch.randn(1, 2, LOCAL_TOKENS, width, **like)
    return given._replace(label=label, sees=sees, local=local, key_mask=local.new_ones(1, 2, LOCAL_TOKENS).bool())


def compare(shape: Shape, labels: np.ndarray, mode: str, guidance: Guidance, repeats: int) -> dict:
    """A row: the step without and with masked blocks, in turns, so that a chip that grows hot slows both."""
    branches = guidance.num_branches()
    torch._dynamo.reset()
    steps: dict[str, Callable[[], Any]] = {}
    for name, blocks in (("without", 0), ("masked", shape.masked_blocks)):
        model = denoiser(shape, blocks)
        if mode == "compiled":
            model.compile_repeated_blocks(fullgraph=True)
        given = condition(shape, labels, bool(blocks))
        given = guidance.branches(given, torch.zeros_like(given.text[0]))
        plan = SortPlan.of(given.label) if given.label is not None else None
        latents = torch.randn(branches, 16, *shape.latents(), device=shape.device, dtype=shape.dtype)
        times = torch.full((branches,), 500.0, device=shape.device)
        steps[name] = partial(BACKBONE.denoise, model, latents, times, given, plan)
    row: dict = {"mode": mode, "branches": branches}
    with torch.no_grad():
        milliseconds = timed(shape, steps, repeats)
        for name, step in steps.items():
            row |= {f"{name}_ms": milliseconds[name], f"{name}_MiB": peak_bytes(shape, step) / 2**20}
    del model, given, latents, steps, step
    release(shape)
    return row | {"ratio": row["masked_ms"] / row["without_ms"], "memory_ratio": row["masked_MiB"] / row["without_MiB"]}


def timed(shape: Shape, steps: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median of each step in milliseconds."""
    milliseconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(2 + repeats):
        for name, step in steps.items():
            synchronise(shape)
            start = time.perf_counter()
            step()
            synchronise(shape)
            if repeat >= 2:
                milliseconds[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in milliseconds.items()}


def release(shape: Shape) -> None:
    """Give back what a compiled model still holds through references to itself."""
    torch._dynamo.reset()
    gc.collect()
    if shape.device == "cuda":
        torch.cuda.empty_cache()


def synchronise(shape: Shape) -> None:
    if shape.device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(shape: Shape, call: Callable[[], object]) -> int:
    """The most that a call holds at once, above what was held before it."""
    if shape.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def whole_stage(shape: Shape, labels: np.ndarray) -> dict:
    """Peak of the whole stage, three branches, two steps: all of it with offloading, on the CPU what it adds."""
    torch._dynamo.reset()
    torch.set_default_dtype(shape.dtype)
    with torch.device(shape.device):
        text_encoder, vae = UMT5EncoderModel(UMT5Config(**shape.umt5)), AutoencoderKLWan(**shape.vae)
    torch.set_default_dtype(torch.float32)
    parts = {"text_encoder": text_encoder, "vae": vae, "transformer": denoiser(shape, shape.masked_blocks)}
    parts = {name: part.eval().to("cpu") for name, part in parts.items()}
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    stage = MotionToVideoPipeline(tokenizer=byte_tokenizer(), scheduler=scheduler, **parts)
    del text_encoder, vae
    release(shape)
    if shape.device == "cuda":
        stage.enable_model_cpu_offload()
    things = (SceneObject(1, "red box", "a red box going right"), SceneObject(2, "blue box", "a blue box going left"))
    image = np.random.default_rng(0).integers(0, 256, (*shape.size, 3), np.uint8)
    scene = Scene(image, labels[0], "a red box and a blue box pass each other", "the boxes pass each other", things)

    def render() -> None:
        video = stage.render(scene, MaskTrajectory(labels, 16), steps=2, guidance=(1.5, 5))
        assert video.frames.shape == (shape.frames, *shape.size, 3)

    peak = peak_bytes(shape, render)
    peak = torch.cuda.max_memory_allocated() if shape.device == "cuda" else peak
    return {"parameters": sizes, "stage_peak_GB": peak / 1e9}


def to_table(result: dict) -> str:
    height, width, frames = result["size"]
    head = "mode|guidance branches|without masked blocks ms|with ms|ratio|memory without MiB|with MiB|ratio"
    lines = [f"{result['machine']}, torch {result['torch']}; {height}×{width}×{frames}, K = {result['K']}, objects"]
    lines[0] += f" cover {result['share']:.0%}; {result['seconds']} s in all"
    lines += ["", f"|{head}|", "|---" * 8 + "|"]
    for row in result["rows"]:
        ms = [f"{row[key]:.1f}" for key in ("without_ms", "masked_ms")]
        memory = [f"{row[key]:.0f}" for key in ("without_MiB", "masked_MiB")]
        cells = [row["mode"], row["branches"], *ms, f"{row['ratio']:.3f}", *memory, f"{row['memory_ratio']:.3f}"]
        lines.append("|" + "|".join(map(str, cells)) + "|")
    if "stage_peak_GB" in result:
        sizes = ", ".join(f"{name} {number:,}" for name, number in result["parameters"].items())
        how = "above its weights" if result["machine"].startswith("CPU") else "with `--offload`"
        lines.append(f"\nThe whole stage 2 ({sizes} parameters), three guidance branches, two steps:")
        lines[-1] += f" peak {result['stage_peak_GB']:.2f} GB {how}."
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
