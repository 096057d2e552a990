"""The command that makes Samples of toys in a room, by physics: toybox."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InvalidValueError, OutputError
from .shell import Answer, command

Seeds = Annotated[str, typer.Option(metavar="A..B", help="Both ends included; below 1,000,000 is training.")]
Split = Annotated[str, typer.Option(help="A held-out split instead: toybox-128, -entering, -twins, -compositional ...")]
Size = Annotated[str, typer.Option(metavar="HxW", help="Height and width in pixels, both even.")]
Toys = Annotated[int | None, typer.Option(help="How many, 1 to 5; the seed decides if not given.")]
Verbs = Annotated[str, typer.Option(metavar="A,B", help="Only these motions: stay, roll, slide, hop, jump, ...")]
Again = Annotated[int, typer.Option(help="Not 0: the same scenes and words, exact speeds drawn anew.")]
Device = Annotated[int | None, typer.Option(help="Which of EGL's devices renders.")]


def add_to(app: typer.Typer) -> None:
    command(app, "toybox")(toybox)


def toybox(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write seed-A ...")],
    seeds: Seeds = "",
    split: Split = "",
    size: Size = "256x256",
    frames: Annotated[int, typer.Option()] = 25,
    fps: Annotated[str, typer.Option(help="Exact, such as 12 or 30000/1001.")] = "12",
    toys: Toys = None,
    verbs: Verbs = "",
    again: Again = 0,
    stripped: Annotated[bool, typer.Option("--stripped", help="Motion prompts without attributes.")] = False,
    flow: Annotated[bool, typer.Option("--flow/--no-flow", help="Write the optical flow too.")] = True,
    preview: Annotated[bool, typer.Option("--preview", help="Also a sheet of all, DIR/preview.png.")] = False,
    gl_device: Device = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what exists.")] = False,
) -> Answer:
    """Make Samples of toys that roll, bump and fall."""
    from .. import toybox as world
    from ..media import write_image
    from ..storage import new_sample_folder, save_sample

    chosen = _seeds(seeds, split, world.split_seeds)
    match = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", size.strip())
    if match is None:
        raise InvalidValueError("a size is written HxW, such as 256x256", seen=size)
    options = {
        "size": (int(match[1]), int(match[2])),
        "frames": frames,
        "fps": fps,
        "toys": toys,
        "verbs": tuple(word.strip() for word in verbs.split(",") if word.strip()),
        "again": again,
    }
    sheet = out / "preview.png"
    for path in [out / f"seed-{seed}" for seed in chosen] + [sheet] * preview:
        if os.path.lexists(path) and not force:
            raise OutputError("the output exists already", seen=str(path), fix="choose another name, or pass --force")
    world.prepare_opengl(gl_device)
    made, shown = [], []
    for seed in chosen:
        sample, truth = world.make_sample_with_truth(seed, stripped=stripped, gl_device=gl_device, flow=flow, **options)
        folder = out / f"seed-{seed}"
        with new_sample_folder(folder, force=force) as temporary:
            save_sample(sample, temporary)
            world.write_truth(temporary, truth)
        shown += [sample] * preview
        made.append({"path": str(folder), "seed": seed, "prompt": sample.scene.prompt})
    data: dict[str, Any] = {"samples": made}
    lines = [f"{item['path']}: {item['prompt']}" for item in made]
    if preview:
        write_image(sheet, world.preview(shown), force=force)
        data["preview"] = str(sheet)
        lines.append(str(sheet))
    return Answer(data, lines)


def _seeds(seeds: str, split: str, split_seeds: Any) -> tuple[int, ...]:
    if bool(seeds) == bool(split):
        raise InvalidValueError("give either --seeds or --split", fix="such as --seeds 0..7, or --split toybox-128")
    if split:
        return tuple(split_seeds(split))
    match = re.fullmatch(r"(\d{1,15})(?:\.\.(\d{1,15}))?", seeds.strip())
    if match is None:
        raise InvalidValueError("seeds are written A..B, such as 0..99, or A alone", seen=seeds)
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 <= last - first < 1_000_000:
        raise InvalidValueError("seeds go from a smaller to a larger number, at most a million", seen=seeds)
    return tuple(range(first, last + 1))
