"""How near a video's pixels are to the truth: PSNR over all of them, over those that change, and over the others."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidValueError
from ..types import Video
from .segmentation import Masks
from .tally import Tally

CHANGES = 8  # levels, in any channel: less is noise of the renderer, or a shadow's rim
MOST = 100.0  # dB: stands for pixels that are equal


def psnr_tally(truth: Video, found: Video) -> Tally:
    """PSNR in dB over frames 1 to T-1 (frame 0 is given): `psnr`; `psnr_changing` where the truth is not frame 0;
    `psnr_resting` elsewhere, where the room is, and whatever nobody spoke of.

    Raises InvalidValueError if the two differ in size or length.
    """
    if truth.frames.shape != found.frames.shape:
        seen = f"{truth.frames.shape} and {found.frames.shape}"
        raise InvalidValueError("two videos differ in size or length", seen=seen)
    true, made = truth.frames[1:], found.frames[1:]
    error = (true.astype(np.int32) - made) ** 2
    changes = changing(truth)
    tally: Tally = {"psnr": _decibel(error.mean())} if error.size else {}
    for name, part in (("psnr_changing", changes), ("psnr_resting", ~changes)):
        if part.any():
            tally[name] = _decibel(error[part].mean())
    return tally


def changing(truth: Video) -> Masks:
    """T-1 H W: where a later frame differs from the first one by more than 8 levels in some channel."""
    first = truth.frames[0].astype(np.int16)
    differs: Masks = (np.abs(truth.frames[1:] - first) > CHANGES).any(-1)
    return differs


def _decibel(error: float) -> tuple[float, int]:
    least = 255**2 / 10 ** (MOST / 10)
    return float(10 * np.log10(255**2 / max(error, least))), 1
