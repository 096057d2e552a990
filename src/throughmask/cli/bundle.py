"""The command `bundle`: both stages, and what finds objects, as one folder that `animate` and the others take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidValueError
from .requests import parse_scales, parse_size
from .shell import Answer, command

Scale = Annotated[str, typer.Option(metavar="IMAGE,TEXT", help="The guidance it is best used with.")]


def add_to(app: typer.Typer) -> None:
    command(app, "bundle")(bundle)


def bundle(
    motion: Annotated[Path, typer.Option(metavar="CKPT", help="The stage that moves.")],
    video: Annotated[Path, typer.Option(metavar="CKPT", help="The stage that renders, on the same VAE and text.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")],
    words: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What train toybox-words made; its segmenter is taken along.")
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Of the sampler, as it is best used.")] = 30,
    guidance: Scale = "1.5,7.5",
    video_guidance: Annotated[
        str, typer.Option(metavar="IMAGE,TEXT", help="For the stage that renders, if other scales.")
    ] = "",
    size: Annotated[str, typer.Option(metavar="HxW", help="Of the pictures that it learnt from.")] = "",
    least_psnr: Annotated[
        float | None,
        typer.Option(metavar="DB", help="How well its VAE reproduces all such pictures; others are warned of."),
    ] = None,
    vocabulary: Annotated[
        str,
        typer.Option(
            metavar="SOURCE", help="Samples as train --data names them: prompts with other words are warned of."
        ),
    ] = "",
    apart: Annotated[bool, typer.Option("--apart", help="It is best used with move --apart.")] = False,
) -> Answer:
    """Put two stages into one folder that says how it is best used."""
    from ..stages.bundle import Habits, make_bundle

    if steps < 1:
        raise InvalidValueError("there must be at least one step", seen=steps)
    words_read = _words_read(vocabulary) if vocabulary else None
    rendering = parse_scales(video_guidance) if video_guidance else None
    habits = Habits(
        steps, parse_scales(guidance), rendering, parse_size(size) if size else None, least_psnr, apart, words_read
    )
    make_bundle(out, motion, video, words=words, habits=habits)
    files = [path for path in out.rglob("*") if path.is_file()]
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    parts = sorted(path.name for path in out.iterdir() if path.is_dir())
    data = {"path": str(out), "parts": parts, "megabytes": round(size_mb, 2)}
    return Answer(data, [f"{out}: {size_mb:.1f} MB in {len(files)} files: {', '.join(parts)}"])


def _words_read(source: str) -> tuple[str, ...]:
    """All words of the texts of a source, sorted."""
    from ..stages.bundle import words_of
    from ..train.samples import open_samples

    samples, words = open_samples(source, phrasings=8), set[str]()
    for index in range(len(samples)):
        for text in samples.texts(index):
            words.update(
                words_of([text.prompt, text.motion_prompt, *(part for thing in text.objects for part in thing)])
            )
    return tuple(sorted(words))
