"""Contact sheets of what a stage makes of held-out Samples, beside the truth."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..draw import INK, PAPER, contact_sheet, overlay
from ..palette import OURS, Palette
from ..types import MaskTrajectory, Pixels, Sample, Video

WIDTH = 1600  # pixels
Row = tuple[str, Pixels]


def motion_sheet(rows: Iterable[tuple[Sample, MaskTrajectory]], palette: Palette = OURS) -> Pixels:
    """Stage 1: for each Sample its sentence, the picture it starts from, the true masks, and those predicted (H W 3).

    Masks lie over the true video, where there is one: a right one covers its object. Raises InvalidValueError if a
    prediction differs from its Sample in size or length, or there is no Sample.
    """
    parts = []
    for sample, prediction in rows:
        scene, truth = sample.scene, sample.trajectory
        pictures = [_given(sample)]
        if truth is not None:
            pictures.append(("true masks", _masks(sample, truth, palette)))
        pictures.append(("predicted masks", _masks(sample, prediction, palette)))
        parts.append((scene.motion_prompt or scene.prompt, pictures))
    return _stack(parts)


def video_sheet(rows: Iterable[tuple[Sample, Video]], palette: Palette = OURS) -> Pixels:
    """Stage 2: for each Sample its sentence, the true video, the one made, and the masks that it should follow (H W 3).

    The masks' outlines lie over the video made: it obeys where objects fill them. Raises InvalidValueError if a video
    differs from its Sample's masks in size or length, or there is no Sample.
    """
    parts = []
    for sample, made in rows:
        pictures = [_given(sample), ("made", made.frames)]
        if sample.trajectory is not None:
            outlined = overlay(made.frames, sample.trajectory.labels, palette, opacity=0.15)
            pictures.append(("made, under the outlines of the masks", outlined))
        parts.append((sample.scene.prompt, pictures))
    return _stack(parts)


def _given(sample: Sample) -> Row:
    if sample.video is None:
        return "the picture that is given", sample.scene.image[None]
    return "the true video; its first frame is given", sample.video.frames


def _masks(sample: Sample, trajectory: MaskTrajectory, palette: Palette) -> Pixels:
    if sample.video is None:
        return palette.paint(trajectory.labels)
    return overlay(sample.video.frames, trajectory.labels, palette, opacity=0.6)


def _stack(parts: list[tuple[str, list[Row]]]) -> Pixels:
    blocks = []
    for number, (sentence, rows) in enumerate(parts, 1):
        blocks += [_sentence(f"{number}. {sentence}"), contact_sheet(rows, width=WIDTH)]
    return np.concatenate(blocks) if blocks else contact_sheet([])


def _sentence(text: str) -> Pixels:
    """A sentence in as many lines as it takes: H W 3."""
    margin, font = WIDTH // 80, ImageFont.load_default(WIDTH // 50)
    text = " ".join(text.split()).encode("ascii", "replace").decode()  # Pillow's own font knows no other letters
    letters = 0.92 * (WIDTH - 2 * margin) * len(text) / font.getlength(text)  # in one line, a little less than fit
    lines = textwrap.wrap(text, int(letters))
    step = WIDTH // 40
    strip = Image.new("RGB", (WIDTH, margin + step * len(lines)), PAPER)
    for place, line in enumerate(lines):
        ImageDraw.Draw(strip).text((margin, margin + step * place), line, INK, font=font)
    return np.array(strip)
