"""How a motion model does on a few held-out Samples, quickly enough to ask while it trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InvalidValueError
from ..types import MaskTrajectory, Sample
from .motion import motion_accuracy, object_motions
from .segmentation import region_similarity


def quick_motion_accuracy(samples: Sequence[Sample], trajectories: Sequence[MaskTrajectory]) -> dict[str, float]:
    """Motion accuracy over the objects of `single`-object scenes and of `all`, and `iou`, the mean J of all objects.

    trajectories: what was predicted for each Sample, of its size and length. Frame 0, which is given, does not count
    for J. NaN where there is nothing to measure. Raises InvalidValueError for a Sample without masks, and for a
    prediction of another size or length.
    """
    single, every, iou = [], [], []
    for sample, prediction in zip(samples, trajectories, strict=True):
        truth = sample.trajectory
        if truth is None:
            raise InvalidValueError("a Sample without masks cannot judge a motion", seen=sample.scene.prompt)
        motions = list(object_motions(truth, prediction).values())
        every += motions
        single += motions if len(sample.scene.objects) == 1 else []
        for id in truth.ids:
            iou.append(region_similarity(truth.labels == id, prediction.labels == id)[1:])
    frames = np.concatenate([np.zeros(0), *iou])
    return {
        "single": motion_accuracy(single),
        "all": motion_accuracy(every),
        "iou": float(frames.mean()) if len(frames) else float("nan"),
    }
