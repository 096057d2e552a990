"""Optical flow as the motion between the stages (the paper's ablation, Recipe `flow`): known exactly, or estimated."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from ..errors import MissingPackageError
from ..flow import Flow, hold_last, paint_flow, read_flow
from ..types import Pixels


def wheel(flow: Flow) -> Pixels:
    """Flow from each frame to the next (T-1 H W 2) as colours, as long as the clip: T H W 3.

    The last frame has no next one and repeats the one before.
    """
    return paint_flow(hold_last(flow))


def flip_wheel(colours: Pixels) -> Pixels:
    """The wheel of the mirrored clip: mirrored, and what moved right moves left."""
    return paint_flow(read_flow(colours[..., ::-1, :]) * np.array([-1, 1], np.float32))


def estimated_flow(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Flow from each frame of T H W 3 to the next, T-1 H W 2, by OpenCV's DIS.

    Raises MissingPackageError without OpenCV.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingPackageError("optical flow", "evaluate") from error
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in np.ascontiguousarray(pixels)]
    flow = [estimator.calc(one, two, None) for one, two in itertools.pairwise(grey)]
    return np.array(flow, np.float32).reshape(-1, *pixels.shape[1:3], 2)
