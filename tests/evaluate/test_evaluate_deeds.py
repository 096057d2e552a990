"""What toys do, told from masks: the truth does it all, a still picture nothing, and each ruler reads what is drawn."""

import math

import numpy as np
import pytest

from throughmask.errors import InvalidValueError
from throughmask.evaluate import deeds
from throughmask.evaluate.deeds import Toy, deed_tally, iou_tally
from throughmask.types import MaskTrajectory


def squares(*ways, size=(64, 200), frames=5, side=8):
    """Object k goes through the given corners (x, y), one for each frame; None where it is not seen."""
    labels = np.zeros((frames, *size), np.uint8)
    for id, way in enumerate(ways, 1):
        for frame, at in enumerate(way):
            if at is not None:
                labels[frame, at[1] : at[1] + side, at[0] : at[0] + side] = id
    return MaskTrajectory(labels, 12)


def bars(*degrees, length=40, width=9, size=(80, 80)):
    """One bar about the middle of each frame, at these angles."""
    y, x = np.mgrid[: size[0], : size[1]] - np.array(size).reshape(2, 1, 1) / 2
    labels = np.zeros((len(degrees), *size), np.uint8)
    for frame, angle in enumerate(np.radians(degrees)):
        along, across = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
        labels[frame][(abs(along) < length / 2) & (abs(across) < width / 2)] = 1
    return MaskTrajectory(labels, 12)


def line(start, step, frames=5):
    return [(start[0] + step[0] * k, start[1] + step[1] * k) for k in range(frames)]


def toys(*verbs, turn=0.0):
    return tuple(Toy(id, verb, "red", turn) for id, verb in enumerate(verbs, 1))


def still(trajectory):
    return MaskTrajectory(np.repeat(trajectory.labels[:1], len(trajectory), 0), 12)


MIXED = squares(line((10, 5), (10, 0)), [(100, 10)] * 5, [(150, 40), (150, 30), (150, 20), (150, 30), (150, 40)])


def test_the_truth_does_everything():
    tally = deed_tally(toys("slide", "stay", "jump"), MIXED, MIXED)
    assert tally == {
        "motion": (1, 1),
        "staying": (1, 1),
        "jump": (1, 1),
        "spin": (0, 0),
        "tip": (0, 0),
        "iou": (3, 3),
        "iou_small": (0, 0),
    }


def test_a_still_picture_keeps_what_stays_and_does_nothing_else():
    tally = deed_tally(toys("slide", "stay", "jump"), MIXED, still(MIXED))
    assert (tally["motion"], tally["staying"], tally["jump"]) == ((0, 1), (1, 1), (0, 1))


@pytest.mark.parametrize(("off", "kept"), [(3, 1), (4, 0), (-3, 1), (9, 0)])
def test_a_toy_stays_within_two_percent_of_the_width(off, kept):
    there = squares([(100, 10)] * 5)
    moved = squares([(100, 10)] * 4 + [(100 + off, 10)])
    assert deed_tally(toys("stay"), there, moved)["staying"] == (kept, 1)


def test_what_returns_to_its_place_is_no_staying_toy():
    assert deed_tally(toys("jump"), squares([(9, 40), (9, 20), (9, 40)], frames=3), MIXED_ONE)["staying"] == (0, 0)


MIXED_ONE = squares([(9, 40), (9, 30), (9, 40)], frames=3)


@pytest.mark.parametrize(("rise", "right"), [(20, 1), (12, 1), (28, 1), (11, 0), (29, 0), (0, 0)])
def test_a_jump_is_as_high_as_the_true_one_within_forty_percent(rise, right):
    """The apex counts, whenever it comes."""
    truth = squares([(9, 40), (9, 20), (9, 40), (9, 40)], frames=4)
    found = squares([(9, 40), (9, 40), (9, 40 - rise), (9, 40)], frames=4)
    assert deeds.rise(truth.labels, 1) == pytest.approx(20 / 200)
    assert deed_tally(toys("jump"), truth, found)["jump"] == (right, 1)


def test_a_rise_is_measured_from_the_first_frame_and_skips_what_hides():
    assert deeds.rise(squares([(9, 40), None, (9, 30), (9, 50)], frames=4).labels, 1) == pytest.approx(10 / 200)
    assert deeds.rise(squares([None, (9, 30)], frames=2).labels, 1) is None


@pytest.mark.parametrize(
    "angles", [(0, 30, 60, 90), (80, 110, 140, 170, 200), (0, -45, -90, -135, -180, -225), (0, 85)]
)
def test_a_turn_is_followed_past_the_half_circle_that_looks_alike(angles):
    assert math.degrees(deeds.turn(bars(*angles).labels, 1)) == pytest.approx(angles[-1] - angles[0], abs=2)


@pytest.mark.parametrize(("step", "right"), [(45, 1), (-45, 1), (30, 1), (60, 1), (24, 0), (66, 0), (0, 0)])
def test_a_spin_turns_as_far_either_way_round(step, right):
    truth, found = bars(*range(0, 181, 45)), bars(*(step * k for k in range(5)))
    assert deed_tally(toys("spin", turn=-math.pi), truth, found)["spin"] == (right, 1)


@pytest.mark.parametrize(("angles", "right"), [((90, 60, 30, 0), 1), ((90, 70, 50, 30), 1), ((90, 120, 150, 180), 0)])
def test_tipping_over_has_a_side(angles, right):
    truth = bars(90, 60, 30, 0)
    assert deed_tally(toys("tip"), truth, bars(*angles))["tip"] == (right, 1)


def test_what_masks_do_not_show_is_left_out():
    disk = bars(*range(0, 181, 45), length=24, width=24)
    disk = MaskTrajectory(np.where(np.hypot(*(np.mgrid[:80, :80] - 40)) < 12, disk.labels, 0).astype(np.uint8), 12)
    quicker = bars(*range(0, 181, 45))  # a mask that turns otherwise than the toy tells nothing of the toy
    away = MaskTrajectory(np.concatenate([bars(90, length=n).labels for n in (40, 30, 20)]), 12)
    for verb, turn, truth in (("spin", math.pi, disk), ("spin", 3 * math.pi, quicker), ("tip", 0, away)):
        assert deed_tally(toys(verb, turn=turn), truth, truth)[verb] == (0, 0)
        assert deeds.unseen(toys(verb, turn=turn), truth) == {"jump": 0, "spin": 0, "tip": 0, verb: 1}
    assert deeds.unseen(toys("spin", turn=math.pi), quicker)["spin"] == 0


def test_a_toy_that_is_lost_does_nothing_right():
    truth = bars(90, 60, 30, 0)
    for lost in (0, -1):
        labels = truth.labels.copy()
        labels[lost] = 0
        for verb, turn in (("tip", 0), ("spin", math.pi / 2)):
            assert deed_tally(toys(verb, turn=turn), truth, MaskTrajectory(labels, 12))[verb] == (0, 1)


def test_iou_of_a_shifted_square_is_known_and_frame_0_does_not_count():
    truth = squares([(20, 20)] * 3, frames=3)
    shifted = squares([(90, 20), (22, 20), (22, 20)], frames=3)
    assert iou_tally(truth, shifted) == {"iou": (pytest.approx(6 * 8 / (10 * 8)), 1), "iou_small": (0, 0)}


def test_small_toys_stand_apart_by_their_mean_share_of_the_frame():
    large = np.zeros((2, 256, 256), np.uint8)
    large[:, :10, :10] = 1
    large[0, 100:120, 100:110], large[1, 200, 200] = 2, 2  # 200 pixels, then one
    large[:, 50:59, 50:61] = 3
    assert iou_tally(MaskTrajectory(large, 12), MaskTrajectory(large, 12)) == {"iou": (2, 2), "iou_small": (1, 1)}


def test_masks_of_another_size_or_length_are_refused():
    with pytest.raises(InvalidValueError, match="size"):
        deed_tally(toys("stay"), MIXED, squares([(1, 1)] * 5, size=(32, 32)))
    with pytest.raises(InvalidValueError, match="frame count"):
        deed_tally(toys("stay"), MIXED, squares([(1, 1)] * 4, frames=4))
