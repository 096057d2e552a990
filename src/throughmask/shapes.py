"""The mask of one object in one frame (bool, H W) as a shape: placed elsewhere, stretched, or changed into another."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Distance = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]
Scalar = TypeVar("Scalar", bound=np.generic)


def box_of(mask: Mask) -> Box:
    """The smallest box (x0, y0, x1, y1; x1 and y1 excluded) around a mask (bool, H W) that is not empty."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def placed(mask: Mask, dx: float = 0.0, dy: float = 0.0, scale: float = 1.0, degrees: float = 0.0) -> Mask:
    """`mask` scaled and turned (clockwise as seen) about its centroid, then shifted; sampled at the nearest pixels."""
    out = np.zeros_like(mask)
    y, x = np.nonzero(mask)
    if not len(y):
        return out
    if scale == 1 and degrees % 360 == 0:  # exact; halves round to even, so that there and back meets again
        y, x = y + np.rint(dy).astype(int), x + np.rint(dx).astype(int)
        inside = _inside(y, x, mask)
        out[y[inside], x[inside]] = True
        return out
    centre_y, centre_x = y.mean(), x.mean()
    to_y, to_x = centre_y + dy, centre_x + dx
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Only the part of the frame that the turned bounding box can reach is sampled.
    x0, y0, x1, y1 = box_of(mask)
    corner_x = np.array([x0, x1, x0, x1]) - 0.5 - centre_x
    corner_y = np.array([y0, y0, y1, y1]) - 0.5 - centre_y
    rows = _reach(to_y + scale * (sine * corner_x + cosine * corner_y), mask.shape[0])
    cols = _reach(to_x + scale * (cosine * corner_x - sine * corner_y), mask.shape[1])
    off_y, off_x = rows[:, None] - to_y, cols[None] - to_x
    from_y = _nearest(centre_y + (cosine * off_y - sine * off_x) / scale)
    from_x = _nearest(centre_x + (sine * off_y + cosine * off_x) / scale)
    hit = mask[from_y.clip(0, mask.shape[0] - 1), from_x.clip(0, mask.shape[1] - 1)]
    out[np.ix_(rows, cols)] = hit & _inside(from_y, from_x, mask)
    middle = _nearest(np.array([to_y, to_x]))
    if scale < 1 and not out.any() and _inside(middle[0], middle[1], mask):
        out[middle[0], middle[1]] = True  # an object may become small but does not vanish
    return out


def stretch(mask: Mask, source: Box, target: Box, size: tuple[int, ...]) -> Mask:
    """A mask of `size` (H, W) whose `target` box holds what `mask` has in its `source` box."""
    out = np.zeros(size, np.bool_)
    out[target[1] : target[3], target[0] : target[2]] = _sampled(_crop(mask, source), target)
    return out


def in_between(first: Mask, last: Mask, steps: int) -> Mask:
    """The masks (bool, `steps` H W) from `first`, exactly, up to the one before `last`; neither is empty.

    The bounding box moves linearly, and inside it the outline changes evenly (a blend of signed distances).
    """
    boxes = box_of(first), box_of(last)
    # Both shapes on one grid, the larger of the two boxes, so that the same shape only moved stays pixel for pixel.
    grid = (0, 0, max(b[2] - b[0] for b in boxes), max(b[3] - b[1] for b in boxes))
    inside = [_signed_distance(_sampled(_crop(m, b), grid)) for m, b in zip((first, last), boxes, strict=True)]
    masks = np.zeros((steps, *first.shape), np.bool_)
    masks[0] = first
    for step in range(1, steps):
        share = step / steps
        corners = (1 - share) * np.array(boxes[0]) + share * np.array(boxes[1])
        x0, y0, x1, y1 = map(int, _nearest(corners))
        box = (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))
        blend = (1 - share) * inside[0] + share * inside[1]
        sampled = _sampled(blend, box)
        part = sampled > 0
        if not part.any():  # two shapes without a common pixel, such as a ring and its hole
            part = sampled >= sampled.max()
        masks[step, box[1] : box[3], box[0] : box[2]] = part
    return masks


def _crop(mask: Mask, box: Box) -> Mask:
    return mask[box[1] : box[3], box[0] : box[2]]


def _sampled(picture: npt.NDArray[Scalar], box: Box) -> npt.NDArray[Scalar]:
    """A picture (h w) at the nearest pixels for the size of `box`; its own size gives it back."""
    rows, cols = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip(_hw(box), picture.shape, strict=True))
    return picture[np.ix_(rows, cols)]


def _signed_distance(mask: Mask) -> Distance:
    """Steps (up, down, left, right) to the outline, positive inside; what lies beyond the edges is outside."""
    padded = np.pad(mask, 1)
    return (_steps_to(~padded) - _steps_to(padded))[1:-1, 1:-1]


def _steps_to(target: Mask) -> Distance:
    """City-block distance of every pixel (h w) to the nearest True: two running minima along each axis."""
    distance = np.where(target, 0.0, float(sum(target.shape)))
    for axis in (0, 1):
        ramp = np.arange(target.shape[axis], dtype=float).reshape((-1, 1) if axis == 0 else (1, -1))
        forward = np.minimum.accumulate(distance - ramp, axis) + ramp
        backward = np.flip(np.minimum.accumulate(np.flip(distance + ramp, axis), axis), axis) - ramp
        distance = np.minimum(forward, backward)
    return distance


def _hw(box: Box) -> tuple[int, int]:
    return box[3] - box[1], box[2] - box[0]


def _inside(y: Indices, x: Indices, mask: Mask) -> Mask:
    inside: Mask = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
    return inside


def _reach(corners: npt.NDArray[np.float64], length: int) -> Indices:
    return np.arange(max(0, math.floor(corners.min())), min(length - 1, math.ceil(corners.max())) + 1)


def _nearest(values: npt.NDArray[np.float64]) -> Indices:
    # Rounded to a millionth first: a turn by 90 degrees is off by 1e-16, which must not decide a tie.
    nearest: Indices = np.floor(np.round(values, 6) + 0.5).astype(np.int64)
    return nearest
