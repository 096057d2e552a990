"""A sheet of many scenes: for each three frames, its masks, and its caption below. For people; nothing is read back."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..palette import OURS
from ..types import Pixels, Sample

PICTURE, GAP, LINE, LINES = 104, 3, 12, 4
PAPER, INK = (255, 255, 255), (30, 30, 34)


def preview(samples: Iterable[Sample], *, columns: int = 3) -> Pixels:
    """One picture (H W 3) with a cell for each Sample (which has masks and a video)."""
    font = ImageFont.load_default(10)
    cells = [_cell(sample, font) for sample in samples]
    wide, high = max(c.width for c in cells) + 4 * GAP, max(c.height for c in cells) + 2 * GAP
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * wide + 2 * GAP, rows * high + 2 * GAP), PAPER)
    for k, cell in enumerate(cells):
        sheet.paste(cell, (3 * GAP + k % columns * wide, 2 * GAP + k // columns * high))
    return np.array(sheet)


def _cell(sample: Sample, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    assert sample.video is not None
    assert sample.trajectory is not None
    frames, labels = sample.video.frames, sample.trajectory.labels
    last = len(frames) - 1
    pictures = [frames[0], frames[last // 2], frames[last], OURS.paint(labels[last])]
    height = round(PICTURE * sample.scene.size[0] / sample.scene.size[1])
    cell = Image.new("RGB", (4 * PICTURE + 3 * GAP, height + GAP + LINES * LINE), PAPER)
    for k, pixels in enumerate(pictures):
        small = Image.fromarray(pixels).resize((PICTURE, height), Image.Resampling.HAMMING)
        cell.paste(small, (k * (PICTURE + GAP), 0))
    draw = ImageDraw.Draw(cell)
    lines = wrap(sample.scene.prompt, 84)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1] + " …"]
    for k, line in enumerate(lines):
        draw.text((0, height + GAP + k * LINE - 1), line, INK, font=font)
    return cell
