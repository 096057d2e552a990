"""Times one denoising step of stage 2 at the true shapes, with and without masked blocks, and its memory with
offloading.

    python benchmarks/step.py --out docs/results/step-h200        # writes .json and .md; needs a GPU

Wan 2.1 1.3B (30 layers, 12 heads × 128, feed-forward 8960), 480×832, 81 frames: 32,760 tokens; random weights in
bfloat16.
Two objects cover the given share of the frame, each with a local prompt of 64 tokens. "without" is the same model
with the same input channels and K = 0. Times are medians in milliseconds, memory is the peak above the weights, in MiB.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel

from throughmask.backbones.wan import BACKBONE, byte_tokenizer
from throughmask.nn.guidance import Condition, Guidance
from throughmask.nn.plan import SortPlan
from throughmask.nn.regions import token_regions
from throughmask.stages.motion_to_video import MotionToVideoPipeline
from throughmask.types import MaskTrajectory, Scene, SceneObject

WAN_1_3B = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30, "text_dim": 4096}
FRAMES, HEIGHT, WIDTH = 81, 480, 832
K = 10
LOCAL_TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.30, help="of the frame that the two objects cover")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip", nargs="*", default=[], choices=["eager", "compiled", "offload"])
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.md")
    args = parser.parse_args()
    torch.manual_seed(0)
    machine = {"machine": torch.cuda.get_device_name(), "torch": torch.__version__}
    result: dict = {**machine, "share": args.share, "rows": []}
    labels = trajectory(args.share)
    for mode in ("eager", "compiled"):
        if mode not in args.skip:
            result["rows"] += step_rows(labels, mode, args.repeats)
            print(json.dumps(result["rows"][-2:]), flush=True)
    if "offload" not in args.skip:
        result["offload_peak_GB"] = offload_peak(labels)
    text = to_table(result)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(text)


def trajectory(share: float) -> np.ndarray:
    """Two rectangles that cross the frame in opposite directions, in lanes of their own."""
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    height = HEIGHT * 2 // 5
    width = round(share / 2 * HEIGHT * WIDTH / height)
    for frame in range(FRAMES):
        x = round((WIDTH - width) * frame / (FRAMES - 1))
        labels[frame, 20 : 20 + height, x : x + width] = 1
        labels[frame, HEIGHT - 20 - height : HEIGHT - 20, WIDTH - x - width : WIDTH - x] = 2
    return labels


def denoiser(num_masked_blocks: int) -> torch.nn.Module:
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        try:
            base = WanTransformer3DModel(in_channels=16, out_channels=16, **WAN_1_3B)
            model = BACKBONE.build(base, cond_latents=2, num_masked_blocks=num_masked_blocks)
        finally:
            torch.set_default_dtype(torch.float32)
    for name, parameter in model.named_parameters():
        if "to_out.weight" in name and "masked" in name:
            torch.nn.init.normal_(parameter, std=0.02)  # trained layers, not the identity
    return model.eval()


def condition(labels: np.ndarray, masked: bool) -> Condition:
    like = {"device": "cuda", "dtype": torch.bfloat16}
    given = Condition(torch.randn(1, 32, 21, 60, 104, **like), torch.randn(1, 512, 4096, **like))
    if not masked:
        return given
    label, sees = token_regions(torch.from_numpy(labels)[None].cuda(), BACKBONE.grid(FRAMES, (4, 16)), 2)
    local = torch.randn(1, 2, LOCAL_TOKENS, 4096, **like)
    return given._replace(label=label, sees=sees, local=local, key_mask=local.new_ones(1, 2, LOCAL_TOKENS).bool())


def step_rows(labels: np.ndarray, mode: str, repeats: int) -> list[dict]:
    rows = []
    scales = [Guidance(1, 1), Guidance(1.5, 5)] if mode == "eager" else [Guidance(1, 1)]
    for guidance in scales:
        branches = guidance.num_branches()
        pair = {}
        for blocks in (0, K):
            torch._dynamo.reset()
            model = denoiser(blocks)
            if mode == "compiled":
                model.compile_repeated_blocks(fullgraph=True)
            given = guidance.branches(condition(labels, bool(blocks)), torch.zeros(512, 4096, device="cuda"))
            plan = SortPlan.of(given.label) if given.label is not None else None
            latents = torch.randn(branches, 16, 21, 60, 104, device="cuda", dtype=torch.bfloat16)
            time = torch.full((branches,), 500.0, device="cuda")
            pair[blocks] = timed((model, latents, time, given, plan), repeats)
            del model, given, latents
            torch.cuda.empty_cache()
        (without, memory_without), (masked, memory) = pair[0], pair[K]
        row = {"mode": mode, "branches": branches, "without_ms": without, "masked_ms": masked}
        row |= {"ratio": masked / without, "memory_without": memory_without, "memory": memory}
        rows.append(row | {"memory_ratio": memory / memory_without})
    return rows


@torch.no_grad()
def timed(arguments: tuple, repeats: int) -> tuple[float, float]:
    for _ in range(2):
        BACKBONE.denoise(*arguments)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        BACKBONE.denoise(*arguments)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times), (torch.cuda.max_memory_allocated() - before) / 2**20


def offload_peak(labels: np.ndarray) -> float:
    """Peak of the whole stage with `--offload`: UMT5-XXL (encoder), VAE and denoiser of the true shapes, two steps."""
    from transformers import UMT5Config, UMT5EncoderModel

    umt5 = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        text_encoder, vae = UMT5EncoderModel(umt5), AutoencoderKLWan()
    torch.set_default_dtype(torch.float32)
    parts = {"text_encoder": text_encoder, "vae": vae, "transformer": denoiser(K)}
    parts = {name: part.eval().to("cpu") for name, part in parts.items()}
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    print("parameters", sizes, flush=True)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    stage = MotionToVideoPipeline(tokenizer=byte_tokenizer(), scheduler=scheduler, **parts)
    stage.enable_model_cpu_offload()
    things = (SceneObject(1, "red box", "a red box going right"), SceneObject(2, "blue box", "a blue box going left"))
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    scene = Scene(image, labels[0], "a red box and a blue box pass each other", "the boxes pass each other", things)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    video = stage.render(scene, MaskTrajectory(labels, 16), steps=2, guidance=(1.5, 5))
    assert video.frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    return torch.cuda.max_memory_allocated() / 1e9


def to_table(result: dict) -> str:
    head = "mode|guidance branches|without masked blocks ms|with ms|ratio|memory without MiB|with MiB|ratio"
    lines = [f"{result['machine']}, torch {result['torch']}; objects cover {result['share']:.0%}, K = {K}", ""]
    lines += [f"|{head}|", "|---" * 8 + "|"]
    for row in result["rows"]:
        times = [f"{row[key]:.1f}" for key in ("without_ms", "masked_ms")]
        memory = [f"{row[key]:.0f}" for key in ("memory_without", "memory")]
        cells = [row["mode"], row["branches"], *times, f"{row['ratio']:.3f}", *memory, f"{row['memory_ratio']:.3f}"]
        lines.append("|" + "|".join(map(str, cells)) + "|")
    if "offload_peak_GB" in result:
        peak = result["offload_peak_GB"]
        lines.append(f"\nThe whole stage 2 with `--offload`, three guidance branches: peak {peak:.2f} GB.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
