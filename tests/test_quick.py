"""The quick judge of a motion: the truth scores 1, a still picture 0 in motion, and each number counts what it says."""

import math

import numpy as np
import pytest

from throughmask.errors import InvalidValueError
from throughmask.evaluate.quick import quick_motion_accuracy
from throughmask.types import MaskTrajectory, Sample, Scene, SceneObject


def squares(*ends):
    """A Sample of three frames, 50 by 100: object k is 4 by 4 and goes in a straight line from (x, y) to (x, y)."""
    labels = np.zeros((3, 50, 100), np.uint8)
    for id, ((x0, y0), (x1, y1)) in enumerate(ends, 1):
        for frame in range(3):
            x, y = x0 + (x1 - x0) * frame // 2, y0 + (y1 - y0) * frame // 2
            labels[frame, y : y + 4, x : x + 4] = id
    objects = tuple(SceneObject(id, f"thing {id}", f"thing {id}") for id in range(1, len(ends) + 1))
    return Sample(Scene(np.zeros((50, 100, 3), np.uint8), labels[0], objects=objects), MaskTrajectory(labels, 12))


ONE = squares([(10, 10), (50, 10)])
TWO = squares([(10, 10), (50, 10)], [(80, 20), (60, 20)])
STILL = squares([(10, 10), (10, 10)])


def stays(sample):
    return MaskTrajectory(sample.trajectory.labels[[0, 0, 0]], 12)


def test_the_truth_scores_one_and_a_still_picture_moves_nothing():
    assert quick_motion_accuracy([ONE, TWO], [ONE.trajectory, TWO.trajectory]) == {"single": 1, "all": 1, "iou": 1}
    assert quick_motion_accuracy([ONE, TWO], [stays(ONE), stays(TWO)]) == {"single": 0, "all": 0, "iou": 0}


def test_objects_are_pooled_over_scenes():
    """Three objects move, one of them rightly: a mean over scenes would say a quarter."""
    labels = np.where(TWO.trajectory.labels == 1, 1, 0) + np.where(stays(TWO).labels == 2, 2, 0)
    half = MaskTrajectory(labels.astype(np.uint8), 12)
    scores = quick_motion_accuracy([ONE, TWO], [stays(ONE), half])
    assert scores["single"] == 0
    assert scores["all"] == pytest.approx(1 / 3)
    assert scores["iou"] == pytest.approx(1 / 3)


def test_the_first_frame_does_not_count_for_iou():
    labels = ONE.trajectory.labels.copy()
    labels[0] = 0
    assert quick_motion_accuracy([ONE], [MaskTrajectory(labels, 12)])["iou"] == 1
    labels[1] = 0
    assert quick_motion_accuracy([ONE], [MaskTrajectory(labels, 12)])["iou"] == 0.5


def test_nothing_to_measure_is_nan_and_leaves_the_rest():
    scores = quick_motion_accuracy([STILL], [STILL.trajectory])
    assert math.isnan(scores["single"])
    assert math.isnan(scores["all"])
    assert scores["iou"] == 1
    assert all(math.isnan(value) for value in quick_motion_accuracy([], []).values())


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(InvalidValueError, match="without masks"):
        quick_motion_accuracy([Sample(ONE.scene)], [ONE.trajectory])
    with pytest.raises(InvalidValueError, match="frame count"):
        quick_motion_accuracy([ONE], [MaskTrajectory(ONE.trajectory.labels[:2], 12)])
    with pytest.raises(InvalidValueError, match="size"):
        quick_motion_accuracy([ONE], [MaskTrajectory(np.zeros((3, 8, 8), np.uint8), 12)])
