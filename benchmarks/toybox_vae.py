"""Scores a VAE for the Toybox models on held-out scenes, against the bars that it has to reach.

    python benchmarks/toybox_vae.py --vae out/toybox-vae --out out/vae-score     # score.json, score.md, sheet.png
    python benchmarks/toybox_vae.py --speed                                      # a training step, by setting

Scenes are rendered once, 25 frames of 256×256, by processes of their own. Measured in float32: PSNR of decoded pixels;
the label round trip (paint with ids dealt anew, encode, decode, snap to the whole palette) as the IoU of each toy,
pooled over its clip; mean and deviation of the normalised latents, channel by channel; seconds for one clip.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from throughmask import draw, media
from throughmask.backbones import backbone
from throughmask.evaluate.vae import BARS, Clip, VAEScore, score_vae
from throughmask.files import new_folder
from throughmask.palette import OURS
from throughmask.toybox import HELD_OUT_SPLITS, make_sample, split_seeds
from throughmask.train.clips import Clips
from throughmask.train.vae import ClipBatches, VAEConfig, VAELearner
from throughmask.types import Labels, Pixels

SHOWN = 4  # scenes of the contact sheet, evenly spread over the split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, help="a diffusers folder of an AutoencoderKLWan")
    parser.add_argument("--split", choices=HELD_OUT_SPLITS, default="toybox-128")
    parser.add_argument("--limit", type=int, help="so many scenes, evenly spread over the split")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--processes", type=int, default=1, help="that render")
    parser.add_argument("--batch", type=int, default=4, help="clips at a time")
    parser.add_argument("--out", type=Path, help="a folder; an earlier one is replaced")
    parser.add_argument(
        "--speed", action="store_true", help="time training steps instead: two to four minutes on a GPU"
    )
    args = parser.parse_args()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    machine = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    if args.speed:
        print(f"{machine}, torch {torch.__version__}")
        for name, clips in time_steps(device):
            print(f"{clips:7.1f} clips/s  {name}", flush=True)
        return
    if args.vae is None:
        parser.error("--vae FOLDER says which VAE to score")
    print(to_table(score(args, device, machine)))


def score(args: argparse.Namespace, device: str, machine: str) -> dict[str, Any]:
    seeds = split_seeds(args.split)
    if args.limit:
        seeds = tuple(seeds[k * len(seeds) // args.limit] for k in range(min(args.limit, len(seeds))))
    vae = AutoencoderKLWan.from_pretrained(args.vae, use_safetensors=True).float().eval().to(device)
    begun = time.perf_counter()
    clips = render(seeds, args.processes)
    rendered = time.perf_counter()
    shown = {k * len(clips) // SHOWN for k in range(SHOWN)}
    rows: list[tuple[str, Pixels]] = []

    def show(index: int, labels: Labels, pixels: Pixels, colours: Pixels) -> None:
        if index in shown:
            name = f"seed {seeds[index]}"
            rows.extend([(f"{name}: pixels", clips[index][0]), (f"{name}: pixels decoded", pixels)])
            rows.extend([(f"{name}: colours", OURS.paint(labels)), (f"{name}: colours decoded", colours)])

    result = score_vae(vae, clips, OURS, batch=args.batch, show=show)
    report = result.report() | {"vae": str(args.vae), "split": args.split, "machine": machine}
    report["torch"] = torch.__version__
    report["seconds"] = {"render": rendered - begun, "score": time.perf_counter() - rendered} | seconds(vae, clips[0])
    report["channels"] = channels(result)
    report["bars"] = {bar.value: {**bar._asdict(), "holds": bar.holds(report)} for bar in BARS}
    if args.out:
        with new_folder(args.out, force=True) as folder:
            (folder / "score.json").write_text(json.dumps(report, indent=1) + "\n")
            (folder / "score.md").write_text(to_table(report))
            media.write_image(folder / "sheet.png", draw.contact_sheet(rows, columns=6))
    return report


def render(seeds: tuple[int, ...], processes: int) -> list[Clip]:
    # A process that was forked after OpenGL started would share its context.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(render_one, seeds))


def render_one(seed: int) -> Clip:
    sample = make_sample(seed)
    return sample.video.frames, sample.trajectory.labels


def seconds(vae: AutoencoderKLWan, clip: Clip) -> dict[str, float]:
    """To encode and to decode one clip, the best of three."""
    wan, device = backbone("wan"), next(vae.parameters()).device
    pixels = torch.from_numpy(clip[0].copy())[None].to(device)

    def best(call: Callable[[], torch.Tensor]) -> float:
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            float(call().flatten()[0])  # waits for the device
            times.append(time.perf_counter() - begun)
        return min(times)

    with torch.no_grad():
        latents = wan.encode(vae, pixels)
        return {"encode": best(lambda: wan.encode(vae, pixels)), "decode": best(lambda: wan.decode(vae, latents))}


def channels(score: VAEScore) -> dict[str, dict[str, list[float]]]:
    both = score.latents["pixels"] + score.latents["colours"]
    kinds = {**score.latents, "both": both}
    return {kind: {"mean": part.mean().tolist(), "std": part.std().tolist()} for kind, part in kinds.items()}


def time_steps(device: str) -> Iterator[tuple[str, float]]:
    """Clips a second of training steps, on noise: of float32 and bfloat16, memory layout, with and without compiling.

    On the CPU the clips are small and few, which shows that it runs and no more.
    """
    cuda = device == "cuda"
    size = {"frames": 9, "crop": 128, "batch": 16} if cuda else {"frames": 5, "crop": 32, "batch": 2}
    labels = np.random.default_rng(0).integers(0, 14, (8, 25, 256, 256), np.uint8)
    clips = Clips(np.stack([labels * 19] * 3, -1), labels)
    for compiled, dtype, channels_last in itertools.product((False, True), ("float32", "bfloat16"), (False, True)):
        if compiled and (dtype == "float32" or not cuda):
            continue
        torch._dynamo.reset()
        config = VAEConfig(dtype=dtype, channels_last=channels_last, compile=compiled, snap=0.05, balance=0.01, **size)
        place = torch.device(device, 0) if cuda else torch.device(device)
        learner, data = VAELearner(config, place), ClipBatches(clips, config, place, 0)

        def steps(number: int, learner: VAELearner = learner, data: ClipBatches = data) -> float:
            begun = time.perf_counter()
            for _ in range(number):
                loss = learner.step(data.batch(), 1e-4, 0.99)
            float(loss)  # waits for the device
            return time.perf_counter() - begun

        first = steps(3 if cuda else 1)
        number = 20 if cuda else 2
        name = f"{dtype}{', channels last' * channels_last}{', compiled' * compiled} (first steps {first:.1f} s)"
        yield name, number * config.batch / steps(number)


def to_table(report: dict[str, Any]) -> str:
    head = (
        f"{report['vae']}: {report['clips']} clips of {report['split']}, {report['toys']} toys of 100 pixels and more"
    )
    lines = [head, "", "| | value | bar | |", "|---|---|---|---|"]
    names = {
        "psnr": "PSNR of pixels, dB",
        "iou": "IoU of a toy",
        "worst_iou": f"worst colour (id {report['worst_id']})",
    }
    for value, bar in report["bars"].items():
        kind, _, rest = value.partition("_")
        what = {"mean": "largest mean of a channel", "least_std": "least deviation", "most_std": "largest deviation"}
        name = names.get(value) or f"latents of {kind}: {what[rest]}"
        measured = "–" if report[value] is None else f"{report[value]:.3f}"
        limit = f"≥ {bar['least']:g}" if bar["most"] is None else f"{bar['least']:g} to {bar['most']:g}"
        lines.append(f"| {name} | {measured} | {limit} | {'passes' if bar['holds'] else '**fails**'} |")
    small = "–" if report["iou_small"] is None else f"{report['iou_small']:.3f}"
    lines.append(f"| IoU of the {report['small_toys']} smaller toys | {small} | | |")
    lines += ["", "IoU by palette id: " + ", ".join(f"{k} {iou:.3f}" for k, iou in report["iou_by_id"].items())]
    lines.append("Seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in report["seconds"].items()))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
