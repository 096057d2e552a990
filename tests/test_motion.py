"""Motion accuracy on label maps whose displacements are known."""

import numpy as np
import pytest

from throughmask.errors import InvalidValueError
from throughmask.evaluate.motion import ObjectMotion, displacement, motion_accuracy, object_motions
from throughmask.types import MaskTrajectory


def squares(*ends):
    """A trajectory of two frames, 50 by 100: object k goes from (x, y) to (x, y); None is not there."""
    labels = np.zeros((2, 50, 100), np.uint8)
    for id, pair in enumerate(ends, 1):
        for frame, place in enumerate(pair):
            if place is not None:
                x, y = place
                labels[frame, y : y + 4, x : x + 4] = id
    return MaskTrajectory(labels, 12)


def test_displacement_is_in_shares_of_the_width():
    labels = squares([(10, 10), (40, 15)]).labels
    assert displacement(labels, 1) == pytest.approx((0.3, 0.05))
    assert displacement(labels, 2) is None


def test_itself_agrees_and_a_still_picture_does_not():
    truth = squares([(10, 10), (40, 10)], [(60, 30), (60, 31)], [(80, 10), None], [None, (20, 30)])
    same = object_motions(truth, truth)
    assert sorted(same) == [1, 2, 3, 4]
    assert [same[k].counts for k in (1, 2, 3, 4)] == [True, False, False, False]
    assert motion_accuracy(list(same.values())) == 1
    still = object_motions(truth, MaskTrajectory(truth.labels[[0, 0]], 12))
    assert motion_accuracy(list(still.values())) == 0


@pytest.mark.parametrize(("end", "agrees"), [((65, 10), True), ((67, 10), False), ((50, 25), True), ((50, 27), False)])
def test_within_forty_percent_of_the_true_length(end, agrees):
    truth, prediction = squares([(10, 10), (50, 10)]), squares([(10, 10), end])
    assert object_motions(truth, prediction)[1].agrees == agrees


def test_what_is_not_there_does_not_agree():
    truth = squares([(10, 10), (50, 10)])
    assert not object_motions(truth, squares([(10, 10), None]))[1].agrees
    assert not ObjectMotion(None, (0.0, 0.0)).agrees


def test_nothing_counts_and_sizes_differ():
    assert np.isnan(motion_accuracy([]))
    with pytest.raises(InvalidValueError, match="size"):
        object_motions(squares(), MaskTrajectory(np.zeros((2, 8, 8), np.uint8), 12))
