"""What zero terminal SNR is worth to stage 1 of a U-Net: the same stage learns the same Toybox scenes with and without.

    python benchmarks/zero_snr.py --out out/zero-snr                            # in small, on a CPU
    python benchmarks/zero_snr.py --data toybox:0..1499 --size 256,256 --frames 25 --batch 128 --steps 2000 \\
        --test 1000000..1000063 --out out/zero-snr                              # on a GPU

Without it the noisiest latents of training still hold 4 % of the signal, and with it their mean colour; sampling starts
from noise that holds none (Lin et al. 2024; the paper, Sec. 10, calls the schedule critically important). Both stages
start from the same untrained U-Net and see the same batches; only `rescale_betas_zero_snr` differs.

Each then moves the scenes of --test, by default those that were learnt, from several seeds of noise. Told are motion
accuracy and mask IoU (see docs/evaluate.md), and of all pixels after frame 0 the share whose label is wrong.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from throughmask.backbones.animatediff import BACKBONE
from throughmask.evaluate.benchmark import evaluate_scenes
from throughmask.evaluate.scenes import Clip, make_cases
from throughmask.evaluate.scores import Scores
from throughmask.evaluate.subjects import Stages
from throughmask.evaluate.tally import mean_of_scenes
from throughmask.nn.scales import Scales
from throughmask.stages.bundle import DEFAULT_MODEL, find_model
from throughmask.toybox import prepare_opengl
from throughmask.train.presets import preset
from throughmask.train.samples import seeds_of
from throughmask.train.stage import train_stage
from throughmask.types import MaskTrajectory, Scene

KINDS = {"zero": True, "leaky": False}  # rescale_betas_zero_snr


class Watched(Stages):
    """Keeps what it moved, to count pixels."""

    moved: dict[bytes, list[MaskTrajectory]]

    def moves(self, scene: Scene, seeds: Sequence[int]) -> list[MaskTrajectory] | None:
        made = super().moves(scene, seeds)
        self.moved[scene.image.tobytes()] = made or []
        return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="toybox:0..7", help="scenes that are learnt")
    parser.add_argument("--test", help="A..B: scenes that are moved; by default those")
    parser.add_argument("--size", default="128,128", help="height, width")
    parser.add_argument("--frames", type=int, default=13)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--layers", type=int, default=1, help="blocks at each resolution")
    parser.add_argument("--takes", type=int, default=3, help="seeds of noise for each scene")
    parser.add_argument("--out", type=Path, required=True, help="a folder; also writes PATH.json and PATH.md")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cuda = torch.cuda.is_available()
    result: dict[str, Any] = {
        "machine": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "options": {name: str(value) for name, value in vars(args).items() if name != "out"},
        "rows": {},
    }
    write_base(args.out / "base", args.layers)
    for kind, zero in KINDS.items():
        row = learn(args, kind, zero, cuda)
        result["rows"][kind] = row | judge(args, kind, cuda)
        args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(to_table(result))
    print(to_table(result))


def write_base(folder: Path, layers: int) -> None:
    """An untrained U-Net on the bundled VAE and text encoder."""
    if folder.exists():
        return
    model = find_model(DEFAULT_MODEL)
    torch.manual_seed(0)
    form = {"width": 48, "layers": layers, "heads": 4, "ffn": 0}
    BACKBONE.base_pipeline(BACKBONE.untrained(model / "vae", model, **form)).save_pretrained(folder)


def learn(args: argparse.Namespace, kind: str, zero: bool, cuda: bool) -> dict[str, Any]:
    base = args.out / f"base-{kind}"
    shutil.rmtree(base, ignore_errors=True)
    shutil.copytree(args.out / "base", base)
    path = base / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rescale_betas_zero_snr": zero}))
    height, width = map(int, args.size.split(","))
    config = replace(
        preset("toybox-unet-motion"),
        base=str(base),
        data=args.data,
        out=str(args.out / kind),
        cache=str(args.out / "latents"),
        size=(height, width),
        frames=args.frames,
        films=False,
        variants=1,
        flips=False,
        batch=args.batch,
        steps=args.steps,
        lr=args.lr,
        warmup=min(50, args.steps // 4),
        decay=0.5,
        ema=0.99,
        drop=0.1,
        dtype="bfloat16" if cuda else "float32",
        held_out="toybox:0..0",
        sheet_every=0,
        save_every=args.steps,
        workers=0,
    )
    begun = time.perf_counter()
    done = train_stage(config)
    return {"steps": done["steps"], "loss": done["loss"], "seconds": time.perf_counter() - begun}


def judge(args: argparse.Namespace, kind: str, cuda: bool) -> dict[str, Any]:
    prepare_opengl()
    place = {"device": "cuda", "dtype": "bfloat16"} if cuda else {}
    clip = Clip(tuple(map(int, args.size.split(","))), args.frames)
    subject = Watched.load(
        args.out / kind / "model", None, frames=args.frames, fps=Fraction(12), guidance=Scales(1, 1.5), **place
    )
    subject.moved = {}
    first, _, last = (args.test or "").partition("..")
    scenes = range(int(first), int(last) + 1) if args.test else seeds_of(args.data)
    kept: dict[bytes, np.ndarray] = {}

    def cases(missing: Sequence[int]) -> Any:
        for case in make_cases(missing, clip, 0):
            kept[case.sample.scene.image.tobytes()] = case.trajectory.labels
            yield case

    found = evaluate_scenes(scenes, cases, subject, seeds=tuple(range(args.takes)))
    scores = Scores("", tuple(range(args.takes)), found)
    wrong = []
    for key, takes in subject.moved.items():
        shares = [float(np.mean(take.labels[1:] != kept[key][1:])) for take in takes]
        wrong.append((sum(shares), len(shares)))
    means = {name: scores.mean("motion", "model", name) for name in ("motion", "iou")}
    means["wrong"] = mean_of_scenes(wrong)
    return {name: None if mean is None else vars(mean) for name, mean in means.items()}


def to_table(result: dict[str, Any]) -> str:
    lines = [f"{result['machine']}, torch {result['torch']}; {result['options']}", ""]
    lines += ["| terminal SNR | steps | loss | motion accuracy | mask IoU | wrong pixels |", "|---" * 6 + "|"]
    for kind, row in result["rows"].items():
        cells = [kind, str(row["steps"]), f"{row['loss']:.3f}"]
        for name, digits in (("motion", 2), ("iou", 2), ("wrong", 3)):
            mean = row[name]
            edges = (
                f" [{mean['low']:.{digits}f}, {mean['high']:.{digits}f}]" if mean and mean["low"] is not None else ""
            )
            cells.append("–" if mean is None else f"{mean['value']:.{digits}f}{edges}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
