"""Times masked self-attention against dense attention without a mask and SDPA with a boolean mask, in one process.

    python benchmarks/attention.py --out docs/results/attention-h200     # writes .json and .md

On a GPU in bfloat16: the shapes of Wan 1.3B and 14B, a small one, and the training shape of the Toybox models. On the
CPU in float32: the small one. Gather and scatter (one `plan.sort`, one `plan.unsort` of hidden states) are included;
the plan is not, it is made once for a trajectory. Times are medians in milliseconds (on a GPU short calls are queued
four in a row); memory is the peak above what the inputs take, in MiB.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from throughmask.errors import ThroughMaskError
from throughmask.nn.attention import choose_self_backend, region_self_attention
from throughmask.nn.plan import SortPlan

# name, batch, heads, width of a head, token grid F Y X, share of the tokens that belong to objects
SHAPES = {
    "wan-1.3b": (1, 12, 128, (21, 30, 52), 0.30),
    "wan-14b": (1, 40, 128, (21, 45, 80), 0.30),
    "small": (1, 6, 64, (16, 16, 16), 0.45),
    "training": (64, 6, 64, (7, 16, 16), 0.45),
}
OBJECTS = (1, 2, 4, 8)
QUEUED = 4  # calls of under 20 ms, timed in a row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES)
    parser.add_argument("--backends", nargs="+", default=["cudnn", "runs", "varlen", "flex"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.md")
    args = parser.parse_args()
    shapes = args.shapes or (["small"] if args.device == "cpu" else list(SHAPES))
    torch.manual_seed(0)
    rows = [row for shape in shapes for row in measure_shape(shape, args)]
    machine = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    result = {"machine": machine, "torch": torch.__version__, "python": platform.python_version(), "rows": rows}
    table = to_table(result)
    print(table)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(table)


def measure_shape(name: str, args: argparse.Namespace) -> list[dict]:
    B, A, E, grid, share = SHAPES[name]
    N = grid[0] * grid[1] * grid[2]
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    q, k, v, grad = (torch.randn(B, N, A, E, device=args.device, dtype=dtype).transpose(1, 2) for _ in range(4))
    hidden = torch.randn(B, N, A * E, device=args.device, dtype=dtype)
    inputs = [x.requires_grad_() for x in (q, k, v, hidden)]
    # wan-14b's backward is left out of the repeats that do not decide anything: it takes a second each
    repeats = max(3, args.repeats // 3) if B * A * N * N > 1e11 else args.repeats
    dense = fastest_dense(q, k, v, grad, args.device, repeats)
    rows = []
    for num_objects in OBJECTS:
        label = labels(B, grid, num_objects, share).to(args.device)
        plan = SortPlan.of(label)
        runs = [n for n in plan.list_runs() if n > 0]
        work = sum(n * n for n in runs) / (B * N * N)
        base = {
            "shape": name,
            "tokens": N,
            "batch": B,
            "heads": A,
            "objects": num_objects,
            "work": work,
            "dense": dense,
        }
        masked = boolean_mask(q, k, v, grad, label, args.device, repeats)
        for backend in args.backends:

            def attend(backend=backend, label=label, plan=plan):
                h = plan.sort(inputs[3])
                out = region_self_attention(*inputs[:3], label, plan=plan, presorted=True, backend=backend)
                return h, plan.unsort(out.transpose(1, 2).flatten(2))

            row = {**base, "backend": backend, "boolean_mask": masked, "chosen": choose_self_backend(q) == backend}
            try:
                grads = (torch.ones_like(hidden), grad.transpose(1, 2).flatten(2))
                row |= timed(attend, inputs, grads, args.device, repeats)
            except ThroughMaskError as error:
                row["skipped"] = str(error)
            except torch.OutOfMemoryError:
                row["skipped"] = "out of memory"
            rows.append(row)
            print(json.dumps({key: row[key] for key in row if key not in ("dense", "boolean_mask")}), flush=True)
    return rows


def labels(B: int, grid: tuple[int, int, int], num_objects: int, share: float) -> torch.Tensor:
    """Rectangles that drift over the grid, a different set for each sample; together they cover about `share`."""
    num_frames, height, width = grid
    g = torch.Generator().manual_seed(num_objects)
    label = torch.zeros(B, *grid, dtype=torch.long)
    columns = width // num_objects
    for b in range(B):
        for k in range(num_objects):  # each in a column of its own, so that none hides another
            area = share * height * width / num_objects * (0.8 + 0.4 * torch.rand((), generator=g).item())
            w = max(1, min(columns, round(columns * 0.9)))
            h = max(1, min(height, round(area / w)))
            start = torch.rand((), generator=g).item()
            for f in range(num_frames):
                y = round((height - h) * abs((start + f / num_frames) % 2 - 1))
                label[b, f, y : y + h, k * columns : k * columns + w] = k + 1
    return label.flatten(1)


def fastest_dense(q, k, v, grad, device, repeats) -> dict:
    """SDPA without a mask, by the fastest of PyTorch's own backends."""
    if device == "cpu":
        found = {"default": timed(lambda: F.scaled_dot_product_attention(q, k, v), (q, k, v), grad, device, repeats)}
    else:
        found = {}
        for kind in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            with sdpa_kernel(kind):
                call = lambda: F.scaled_dot_product_attention(q, k, v)  # noqa: E731
                found[kind.name] = timed(call, (q, k, v), grad, device, repeats)
    name = min(found, key=lambda key: found[key]["forward"])
    return {"kernel": name, **found[name]}


def boolean_mask(q, k, v, grad, label, device, repeats) -> dict | None:
    if q.shape[0] * q.shape[2] ** 2 > 2e9:  # 75,600 tokens: the mask alone takes 5.7 GB, and its bias twice that
        return None
    mask = (label[:, :, None] == label[:, None, :])[:, None]
    return timed(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (q, k, v), grad, device, repeats)


def timed(call, inputs, grads, device: str, repeats: int) -> dict:
    def forward():
        with torch.no_grad():
            call()

    def both():
        outputs = call()
        torch.autograd.grad(outputs, inputs, grads)

    result = {}
    result["forward"], result["forward_memory"] = _time(forward, device, repeats)
    try:
        result["both"], result["both_memory"] = _time(both, device, repeats)
    except ThroughMaskError:  # flex has no backward on the CPU
        result["both"] = None
    return result


def _time(call, device: str, repeats: int) -> tuple[float, float | None]:
    for _ in range(3 if device == "cuda" else 1):
        begun = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
    queued = QUEUED if time.perf_counter() - begun < 0.02 else 1
    memory = None
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        memory = (torch.cuda.max_memory_allocated() - before) / 2**20
    times = []
    for _ in range(repeats):
        if device == "cuda":  # short calls in a row, so that launches overlap with work as they do in a model
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(queued):
                call()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / queued)
        else:
            begun = time.perf_counter()
            call()
            times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times), memory


def to_table(result: dict) -> str:
    head = "shape|objects|backend|work share|forward ms|MiB|/ dense|/ boolean|forward+backward ms|MiB|/ dense|/ boolean"
    lines = [f"{result['machine']}, torch {result['torch']}", "", f"|{head}|", "|---" * 12 + "|"]
    for row in result["rows"]:
        name = f"{row['shape']} ({row['batch']}×{row['tokens']:,})"
        cells = [name, row["objects"], row["backend"] + (" ←" if row["chosen"] else ""), f"{row['work']:.3f}"]
        for mode in ("forward", "both"):
            value, mask = row.get(mode), row["boolean_mask"]
            cells += [_number(value), _number(row.get(f"{mode}_memory"), 0), _ratio(value, row["dense"][mode])]
            cells.append(_ratio(value, mask[mode]) if mask else "n/a")
        lines.append("|" + "|".join(map(str, cells)) + "|")
    for shape in dict.fromkeys(row["shape"] for row in result["rows"]):
        dense = next(row["dense"] for row in result["rows"] if row["shape"] == shape)
        lines.append(
            f"\n{shape}: dense without a mask ({dense['kernel']}) {dense['forward']:.3f} ms forward, "
            f"{dense['both']:.3f} ms forward+backward. ← marks the backend that is chosen by default."
        )
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int = 3) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _ratio(value: float | None, reference: float | None) -> str:
    return "n/a" if value is None or not reference else f"{value / reference:.3f}"


if __name__ == "__main__":
    main()
