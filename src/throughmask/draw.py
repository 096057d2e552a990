"""Pictures for people: masks laid over pixels, and a sheet of frames with captions. Nothing here is read back."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from .errors import InvalidValueError
from .palette import OURS, Palette
from .types import Labels, Pixels

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 34), (125, 125, 132)


def overlay(
    pixels: Pixels, labels: Labels, palette: Palette = OURS, opacity: float = 0.5, contours: bool = True
) -> Pixels:
    """Frames (T H W 3) with each object tinted in its colour and, with `contours`, outlined; the background as it was.

    Raises InvalidValueError if the sizes differ, an id has no colour, or `opacity` is not in 0..1.
    """
    if pixels.dtype != np.uint8 or labels.dtype != np.uint8 or pixels.shape != (*labels.shape, 3) or labels.ndim != 3:
        seen = f"{pixels.shape} and {labels.shape}"
        raise InvalidValueError("an overlay needs frames T H W 3 and labels T H W of the same size", seen=seen)
    if not 0 <= opacity <= 1:
        raise InvalidValueError("opacity must be between 0 and 1", seen=opacity)
    out = np.array(pixels)
    width = max(1, round(min(labels.shape[1:]) / 240))
    for frame, label in zip(out, labels, strict=True):  # one frame at a time: a long video is not held twice
        colours = palette.paint(label)
        inside = label > 0
        mixed = (1 - opacity) * frame[inside] + opacity * colours[inside]
        frame[inside] = np.rint(mixed).astype(np.uint8)
        if contours:
            edge = _edge(label, width) & inside
            frame[edge] = colours[edge]
    return out


def contact_sheet(rows: Sequence[tuple[str, Pixels]], *, columns: int = 8, width: int = 1600) -> Pixels:
    """One picture (H W 3) with a row for each title and its frames (T H W 3): `columns` of them, evenly spaced in time.

    The first and the last frame are always shown; a row of fewer frames is shorter. Each frame carries its number.

    Raises InvalidValueError if there is no row, a row has no frames, or the frames would be narrower than 16 pixels.
    """
    margin = max(8, width // 80)
    gap = max(2, margin // 3)
    cell = (width - 2 * margin - (columns - 1) * gap) // max(1, columns)
    if not rows or columns < 1 or cell < 16:
        seen = f"{len(rows)} rows, {columns} columns, {width} pixels"
        raise InvalidValueError("a contact sheet needs a row, a column, and 16 pixels for each frame", seen=seen)
    title_font = ImageFont.load_default(max(11, width // 62))
    number_font = ImageFont.load_default(max(9, width // 110))
    strips = [_strip(title, frames, columns, cell, gap, (title_font, number_font)) for title, frames in rows]
    height = 2 * margin + sum(strip.height for strip in strips) + margin * (len(strips) - 1)
    sheet = Image.new("RGB", (width, height), PAPER)
    top = margin
    for strip in strips:
        sheet.paste(strip, (margin, top))
        top += strip.height + margin
    return np.array(sheet)


def _edge(label: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.bool_]:
    """Pixels within `width` of another label, measured along rows and columns; the frame's border is no edge."""
    edge = np.zeros(label.shape, bool)
    for step in range(1, width + 1):
        across, down = label[:, step:] != label[:, :-step], label[step:] != label[:-step]
        edge[:, step:] |= across
        edge[:, :-step] |= across
        edge[step:] |= down
        edge[:-step] |= down
    return edge


def _strip(title: str, frames: Pixels, columns: int, cell: int, gap: int, fonts: tuple[Font, Font]) -> Image.Image:
    """One row: its title above, its frames side by side, each frame's number below."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InvalidValueError(
            "a row of a contact sheet must be uint8 T H W 3, not empty", seen=f"{title}: {frames.shape}"
        )
    title_font, number_font = fonts
    picture = max(1, round(cell * frames.shape[1] / frames.shape[2]))
    head, foot = (_line_height(title_font) if title else 0), _line_height(number_font)
    strip = Image.new("RGB", (columns * (cell + gap) - gap, head + picture + foot), PAPER)
    draw = ImageDraw.Draw(strip)
    if title:
        draw.text((0, 0), _fit(title, title_font, strip.width), INK, font=title_font)
    shrinks = cell < frames.shape[2]
    # Neither filter overshoots at the sharp edges of masks.
    filter_ = Image.Resampling.HAMMING if shrinks else Image.Resampling.BILINEAR
    chosen = np.unique(np.linspace(0, len(frames) - 1, columns).round().astype(int))
    for place, number in enumerate(chosen):
        left = place * (cell + gap)
        strip.paste(Image.fromarray(frames[number]).resize((cell, picture), filter_), (left, head))
        caption = f"frame {number}"
        if draw.textlength(caption, number_font) > cell:
            caption = str(number)
        draw.text((left, head + picture + 2), caption, FAINT, font=number_font)
    return strip


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _line_height(font: Font) -> int:
    return round(float(font.getbbox("Ág")[3]) * 1.45)


def _fit(text: str, font: Font, width: int) -> str:
    """One line that fits, with an ellipsis where it was cut."""
    # Pillow's own font knows ASCII only: accents are dropped, other letters become question marks instead of boxes.
    letters = [c for c in unicodedata.normalize("NFKD", " ".join(text.split())) if not unicodedata.combining(c)]
    text = "".join(c if c.isascii() else "?" for c in letters)
    text, whole = text[:width], text  # a letter is at least a pixel wide
    if text == whole and font.getlength(text) <= width:
        return text
    fits = bisect_right(range(1, len(text) + 1), width, key=lambda n: ceil(font.getlength(text[:n] + "…")))
    return text[:fits].rstrip() + "…"
