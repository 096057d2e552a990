"""Times `animate` of the bundled model, once loaded: whole, and each of its steps; the video is not encoded.

    python benchmarks/animate.py --out out/animate
    python benchmarks/animate.py --repeats 1 --steps 2       # on a CPU, quickly

The first run also loads the networks and warms up the device; the table has it, and the median of the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from throughmask import Animator
from throughmask.stages.bundle import DEFAULT_MODEL

EXAMPLES = Path(__file__).parents[1] / "examples"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, help="by default the model's own")
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.md")
    args = parser.parse_args()
    cuda = torch.cuda.is_available()
    machine = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    result: dict[str, Any] = {"machine": machine, "torch": torch.__version__, "rows": []}
    for line in (EXAMPLES / "sentences.tsv").read_text(encoding="utf-8").splitlines():
        _, picture, prompt = line.split("\t")
        animator = Animator.load(args.model)
        runs = []
        for seed in range(1 + args.repeats):
            begun = time.perf_counter()
            made = animator.animate(EXAMPLES / picture, prompt, seed=seed, steps=args.steps, progress=False)
            assert made.sample.video is not None
            runs.append({"all": time.perf_counter() - begun, **made.seconds})
        names = [name for name in runs[0] if name != "load"]
        later = {name: statistics.median(run[name] for run in runs[1:]) for name in names}
        row = {"prompt": prompt, "first": runs[0], "later": later}
        row["MiB"] = torch.cuda.max_memory_allocated() / 2**20 if cuda else None
        result["rows"].append(row)
        table = to_table(result)
        print(table, flush=True)
        if args.out:  # what is there, if it is ended early
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
            args.out.with_suffix(".md").write_text(table)


def to_table(result: dict[str, Any]) -> str:
    lines = [f"{result['machine']}, torch {result['torch']}; seconds", ""]
    lines += ["|prompt|first, with loading|once loaded|of it parse|move|render|peak MiB|", "|---" * 7 + "|"]
    for row in result["rows"]:
        later, memory = row["later"], "" if row["MiB"] is None else f"{row['MiB']:.0f}"
        cells = [row["prompt"], f"{row['first']['all']:.1f}"]
        cells += [f"{later[name]:.2f}" for name in ("all", "parse", "move", "render")]
        lines.append("|" + "|".join([*cells, memory]) + "|")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
