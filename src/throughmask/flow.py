"""Optical flow as colours and back: the motion of the Recipe `flow` (the paper's ablation; the wheel is our choice).

Hue is the direction on the screen: red moves right, then chartreuse down, cyan left, violet up. Saturation is the
length as a share of `maximum`: white stands still, full colour moves by `maximum` or more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidValueError
from .types import Pixels

# Pixels a frame at full colour, the same for every clip, so that a colour always means one speed.
MAXIMUM = 32.0

Flow = npt.NDArray[np.floating]


def paint_flow(flow: Flow, maximum: float = MAXIMUM) -> Pixels:
    """Flow (... 2: x to the right, y down; pixels a frame) to colours (... 3, uint8); longer is cut to `maximum`.

    Raises InvalidValueError if the flow has another shape or is not finite, or `maximum` is not positive.
    """
    _check(flow.dtype.kind == "f" and flow.shape[-1:] == (2,), "flow is floating-point, ... 2", flow)
    _check(bool(np.isfinite(flow).all()), "flow is finite", flow)
    _check_maximum(maximum)
    x, y = (flow[..., axis].astype(np.float64) / maximum for axis in (0, 1))
    saturation = np.minimum(np.hypot(x, y), 1)
    sector = np.arctan2(y, x) / (np.pi / 3)  # 0 is red, 2 green, 4 blue
    # Each channel is full within one sector of its own hue, empty beyond two, and linear between.
    channels = [_peak(sector - hue) for hue in (0, 2, 4)]
    colours = 1 - saturation[..., None] * (1 - np.stack(channels, -1))
    return np.rint(255 * colours).astype(np.uint8)


def read_flow(colours: Pixels, maximum: float = MAXIMUM) -> npt.NDArray[np.float32]:
    """Colours of the wheel to flow (... 2), within 1 % of `maximum`; darkness, which the wheel has not, is ignored.

    Raises InvalidValueError if the colours have another shape or type, or `maximum` is not positive.
    """
    _check(colours.dtype == np.uint8 and colours.shape[-1:] == (3,), "colours are uint8, ... 3", colours)
    _check_maximum(maximum)
    red, green, blue = np.moveaxis(colours.astype(np.float64), -1, 0)
    top = np.maximum(np.maximum(red, green), blue)
    spread = top - np.minimum(np.minimum(red, green), blue)
    safe = np.where(spread > 0, spread, 1)
    sector = np.where(
        top == red, (green - blue) / safe, np.where(top == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    length = maximum * spread / np.where(top > 0, top, 1)
    angle = sector * (np.pi / 3)
    flow: npt.NDArray[np.float32] = length[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    return flow.astype(np.float32)


def hold_last(flow: Flow) -> Flow:
    """Consecutive forward flow of a clip, T-1 H W 2, made as long as the clip: the last one stands twice.

    Raises InvalidValueError if there is none: one frame has no flow.
    """
    if flow.ndim != 4 or not len(flow):
        raise InvalidValueError("flow between frames is T-1 H W 2, at least one", seen=flow.shape)
    return np.concatenate([flow, flow[-1:]])


def _peak(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 within one sector of a channel's hue, 0 from two sectors on; the wheel has six."""
    around = np.abs((distance + 3) % 6 - 3)
    return np.asarray(np.clip(2 - around, 0, 1))


def _check(right: bool, problem: str, values: npt.NDArray[Any]) -> None:
    if not right:
        raise InvalidValueError(problem, seen=f"{values.dtype} {values.shape}")


def _check_maximum(maximum: float) -> None:
    if not 0 < maximum < float("inf"):
        raise InvalidValueError("the flow's maximum is a positive number of pixels", seen=maximum)
