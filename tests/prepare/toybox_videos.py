"""Toybox videos without their masks: prepared with the Toybox perception, scored, four of them learnt and one animated.

    python tests/prepare/toybox_videos.py --perception DIR --videos 200 --out DIR

Held-out scenes, of one toy and of several in turn, as NAME.mp4 with the caption in NAME.txt. The score of a toy is the
IoU of its recovered and its true mask, pooled over all frames; one that was not found has 0. Clips that were rejected
have no labels and are counted apart. Every step goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from throughmask.cli import main
from throughmask.media import write_video
from throughmask.storage import load_sample
from throughmask.toybox import make_sample, split_seeds

FRAMES, FEW = 25, 4
SMALL = {"width": 128, "layers": 4, "heads": 2, "ffn": 384, "size": "128,128", "frames": 9, "sheet-every": 0}


def seeds_of(videos: int) -> list[int]:
    """Held-out scenes of one toy and of several, in turn; beyond the 64 of a split its seeds go on."""
    first = [split_seeds(name)[0] for name in ("toybox-single", "toybox-multi")]
    return [first[k % 2] + k // 2 for k in range(videos)]


def write_videos(videos: Path, truth: Path, seeds: Iterable[int]) -> None:
    """NAME.mp4 and NAME.txt in one folder, the labels (uint8 T H W) as NAME.npy in the other."""
    truth.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        name = f"scene-{seed}"
        if (truth / f"{name}.npy").exists():
            continue
        sample = make_sample(seed, frames=FRAMES)
        write_video(videos / f"{name}.mp4", sample.video, force=True)
        (videos / f"{name}.txt").write_text(sample.scene.prompt)
        np.save(truth / f"{name}.npy", sample.trajectory.labels)


def scores(samples: Path, truth: Path) -> dict[str, dict[int, float]]:
    """IoU of each toy of each Sample, by the name of its video and by id."""
    found = {}
    for place in sorted(samples.iterdir()):
        name = place.name.removesuffix(f"-00000-{FRAMES:05d}")
        labels, true = load_sample(place).trajectory.labels, np.load(truth / f"{name}.npy")
        found[name] = {
            int(id): float(((labels == id) & (true == id)).sum() / ((labels == id) | (true == id)).sum())
            for id in np.unique(true[true > 0])
        }
    return found


def summary(by_toy: dict[str, dict[int, float]], videos: int) -> dict[str, Any]:
    single = [value for toys in by_toy.values() if len(toys) == 1 for value in toys.values()]
    several = [value for toys in by_toy.values() if len(toys) > 1 for value in toys.values()]
    counts = {"videos": videos, "samples": len(by_toy), "toys": len(single + several)}
    ious = {"iou": mean(single + several), "iou of one": mean(single), "iou of several": mean(several)}
    return counts | {name: round(value, 4) for name, value in ious.items()}


def run(*words: object) -> None:
    line = [str(word) for word in words]
    if main(line) != 0:
        raise SystemExit(f"throughmask {' '.join(line)} failed")


def end_to_end(out: Path, perception: Path, videos: int, steps: int) -> dict[str, Any]:
    """All of it; the summary, once something has been animated."""
    seeds = seeds_of(videos)
    write_videos(out / "videos", out / "truth", seeds)
    run("prepare", out / "videos", "--out", out / "prepared", "--perception", perception, "--report")
    samples = out / "prepared" / "samples"
    by_toy = scores(samples, out / "truth")
    result = summary(by_toy, videos) | {"by toy": by_toy}
    (out / "scores.json").write_text(json.dumps(result, indent=1) + "\n")
    few = out / "few"  # to be learnt by heart
    for place in sorted(samples.iterdir())[:FEW]:
        shutil.copytree(place, few / place.name, dirs_exist_ok=True)
    for stage in ("motion", "video"):
        keys = SMALL | {"stage": stage, "data": few, "held-out": few, "base": "", "words": perception}
        keys |= {"steps": steps, "cache": out / "latents", "out": out / stage}
        run("train", "overfit", *(word for key, value in keys.items() for word in (f"--{key}", value)))
    if (out / "animated").exists():
        return result
    shutil.rmtree(out / "model", ignore_errors=True)
    parts = ("--motion", out / "motion" / "model", "--video", out / "video" / "model", "--words", perception)
    run("bundle", *parts, "--steps", 5, "--guidance", "1,1", "--out", out / "model")
    place = min(few.iterdir())
    scene = ("--prompt", load_sample(place).scene.prompt, "--size", "128x128")
    run("animate", place / "image.png", *scene, "--model", out / "model", "--out", out / "animated")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perception", type=Path, required=True, help="what train toybox-words made")
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--steps", type=int, default=450, help="of training each stage")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result = end_to_end(options.out, options.perception, options.videos, options.steps)
    print(json.dumps({name: value for name, value in result.items() if name != "by toy"}, indent=1))
