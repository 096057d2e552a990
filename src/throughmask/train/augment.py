"""Samples made different for training: mirrored, with words that follow; and masks with a generator's mistakes."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import InvalidValueError
from ..types import Labels, MaskTrajectory, Sample, Video, present_ids

Mask = npt.NDArray[np.bool_]
Grid = npt.NDArray[np.float32]

LETTER = r"[^\W\d_]"
ENDING = r"(?i:wards?|most|hand|handed|wardly)?"
OTHERS = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
CASES = "|".join(form for word in OTHERS for form in (word, word.capitalize(), word.upper()))
SIDE = re.compile(rf"(?<!{LETTER})({CASES})({ENDING})(?!{LETTER})")
SPELLINGS = re.compile(rf"(?<!{LETTER})(?:anti-?|counter-)clockwise(?!{LETTER})", re.IGNORECASE)
ARTICLE = re.compile(r"\b([Aa])[Nn](?=\s+anti-?clockwise\b)", re.IGNORECASE)

# Shares of the width.
GROWTH = (0.01, 0.02)  # how far an outline as a whole is at most off
RAGGED = 0.0045  # and each piece of it, one standard deviation
SHIFT = 0.015
PIECE = 0.035  # how long such a piece is
THIN = 0.09  # of the root of an object's area: no outline moves further than this, or small objects would vanish
SLOW, LIVELY = 6, 3  # frames over which objects, and pieces of outlines, change
LOST, LONGEST = 0.1, 4  # how likely an object is lost for a while, and for how many frames at most


def flip(sample: Sample) -> Sample:
    """The mirrored Sample: pixels and labels, and left and right in all of its words; ids stay.

    Twice is the Sample itself. Writing in the picture is mirrored too.
    """
    scene, trajectory, video = sample.scene, sample.trajectory, sample.video
    objects = (replace(o, name=swap_sides(o.name), prompt=swap_sides(o.prompt)) for o in scene.objects)
    mirrored = replace(
        scene,
        image=scene.image[:, ::-1].copy(),
        labels=scene.labels[:, ::-1].copy(),
        prompt=swap_sides(scene.prompt),
        motion_prompt=swap_sides(scene.motion_prompt),
        objects=tuple(objects),
    )
    return replace(
        sample,
        scene=mirrored,
        trajectory=trajectory and MaskTrajectory(trajectory.labels[:, :, ::-1].copy(), trajectory.fps),
        video=video and Video(video.frames[:, :, ::-1].copy(), video.fps),
    )


def swap_sides(text: str) -> str:
    """Left and right exchanged, in leftward, leftmost, left-hand ... too, and clockwise with counterclockwise.

    Twice is the text itself, but anticlockwise comes back as counterclockwise. Words are not understood: "all right",
    "right away" and "the ball left" come out wrong.
    """
    text = ARTICLE.sub(r"\1", text)  # an anticlockwise turn
    text = SPELLINGS.sub(lambda match: _cased_as(match[0], "counterclockwise"), text)
    return SIDE.sub(lambda match: _cased_as(match[1], OTHERS[match[1].lower()]) + match[2], text)


def _cased_as(word: str, other: str) -> str:
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


def noisy(labels: Labels, rng: np.random.Generator, strength: float = 1.0) -> Labels:
    """Labels T H W as a generator would have them: outlines off and ragged, objects shifted, or lost for a while.

    Mistakes are slow in time and grow from frame 0, which is given and stays as it is; no new id appears. The paper
    trains stage 2 on true masks only: every number here is our choice. `strength` multiplies them.
    Raises InvalidValueError for a negative one.
    """
    if strength < 0:
        raise InvalidValueError("the strength of noise must not be negative", seen=strength)
    out = np.zeros_like(labels)
    for id in rng.permutation(present_ids(labels)).tolist():  # who covers whom is drawn by lot, once for a clip
        _paint(out, np.asarray(labels == id), id, rng, strength)
    return out


def _paint(out: Labels, mask: Mask, id: int, rng: np.random.Generator, strength: float) -> None:
    """Draw one object (T H W, somewhere true) with its mistakes into `out`."""
    frames, width = len(mask), mask.shape[2] * strength
    fade = np.minimum(1, np.arange(frames) / SLOW)
    growth = rng.uniform(*GROWTH) * width * _walk(rng, frames)
    shifts = np.rint(SHIFT * width * np.stack([_walk(rng, frames), _walk(rng, frames)], 1)).astype(int)
    seen = np.flatnonzero(mask.any((1, 2)))
    lost = range(0)
    if rng.random() < LOST * strength and frames > 1:
        first = int(rng.integers(1, frames))
        lost = range(first, first + int(rng.integers(1, LONGEST + 1)))
    area = np.count_nonzero(mask, axis=(1, 2))
    most = THIN * strength * np.sqrt(area) * fade
    margin = int(np.ceil(most.max())) + 1
    windows, corners = _windows(mask, seen, margin)
    ragged = RAGGED * width * _waves(rng, windows.shape, PIECE * mask.shape[2])
    limit = most[seen, None, None]
    moved = np.rint(np.clip((fade * growth)[seen, None, None] + fade[seen, None, None] * ragged, -limit, limit))
    shapes = _outline_moved(windows, moved.astype(np.int16))
    for frame, shape, corner in zip(seen, shapes, corners + shifts[seen], strict=True):
        if frame not in lost:
            _stamp(out[frame], shape, corner, id)


def _windows(mask: Mask, frames: npt.NDArray[np.intp], margin: int) -> tuple[Mask, npt.NDArray[np.intp]]:
    """An object cut out of each of the frames that show it, n h w, with a margin; and the corner (y, x) of each.

    What touches the frame's edge goes on beyond it.
    """
    starts, sizes, places = [], [], []
    for axis in (2, 1):
        along: Mask = np.asarray(mask.any(axis))[frames]
        length = along.shape[1]
        first, last = along.argmax(1), length - along[:, ::-1].argmax(1)
        size = int((last - first).max()) + 2 * margin
        start = np.minimum(first - margin, length + margin - size)
        starts.append(start)
        sizes.append(size)
        places.append((start[:, None] + np.arange(size)).clip(0, length - 1))
    windows = np.empty((len(frames), *sizes), np.bool_)
    for window, frame, rows, columns in zip(windows, frames, *places, strict=True):
        mask[frame].take(rows, 0).take(columns, 1, out=window)
    return windows, np.stack(starts, 1)


def _outline_moved(inside: Mask, by: npt.NDArray[np.int16]) -> Mask:
    """Masks n h w whose outlines are moved outwards by so many pixels (n h w), inwards where negative."""
    # How many steps outside (positive) or inside (not positive) its mask a pixel is, as far as anyone asks.
    steps = np.zeros(inside.shape, np.int16)
    grown, outside = inside, ~inside
    for step in range(max(0, int(by.max()))):
        steps += ~grown
        grown = _grown(grown, step % 2 == 1)
    steps += ~grown
    for step in range(max(0, -int(by.min()))):
        outside = _grown(outside, step % 2 == 1)
        steps -= ~outside
    return np.asarray(steps <= by)


def _grown(mask: Mask, square: bool) -> Mask:
    """Masks n h w and their 4 neighbours, or 8: the two in turn make an octagon of a point."""
    out = mask.copy()
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    source = out.copy() if square else mask
    out[:, :, 1:] |= source[:, :, :-1]
    out[:, :, :-1] |= source[:, :, 1:]
    return out


def _stamp(frame: Labels, shape: Mask, corner: npt.NDArray[np.intp], id: int) -> None:
    """Draw a shape (h w) with its corner there, as far as it is in the frame (H W)."""
    start = np.maximum(corner, 0)
    stop = np.minimum(corner + shape.shape, frame.shape)
    if (start < stop).all():
        (top, left), (bottom, right) = start, stop
        part = shape[top - corner[0] : bottom - corner[0], left - corner[1] : right - corner[1]]
        np.copyto(frame[top:bottom, left:right], id, where=part)


def _walk(rng: np.random.Generator, frames: int) -> npt.NDArray[np.float64]:
    """A slow random walk within -1..1 that starts at 0: one value for each frame."""
    places = [0.0]
    for step in rng.normal(0, 0.45, frames // SLOW + 1):
        places.append(float(np.clip(places[-1] + step, -1, 1)))
    return np.interp(np.arange(frames), SLOW * np.arange(len(places)), places)


def _waves(rng: np.random.Generator, shape: tuple[int, ...], piece: float) -> Grid:
    """Noise n h w that changes over LIVELY frames and `piece` pixels, about as often above 0 as below."""
    time, down, across = (_tents(length, step) for length, step in zip(shape, (LIVELY, piece, piece), strict=True))
    knots = rng.standard_normal((time.shape[1], down.shape[1], across.shape[1]), np.float32)
    return np.asarray(down @ np.tensordot(time, knots, 1) @ across.T, np.float32)


def _tents(length: int, step: float) -> Grid:
    """Weights (length, knots) that draw straight lines between knots `step` apart."""
    at = np.arange(length, dtype=np.float32)[:, None] / np.float32(max(1.0, step))
    return np.asarray(np.maximum(0, 1 - np.abs(at - np.arange(int(at[-1, 0]) + 2))), np.float32)
