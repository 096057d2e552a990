"""PSNR, and means with intervals: known numbers."""

import numpy as np
import pytest
from oracles import ONE, STILL

from throughmask.errors import InvalidValueError
from throughmask.evaluate.psnr import changing, psnr_tally
from throughmask.evaluate.tally import counted, mean_of_scenes, total
from throughmask.types import Video


def grey(*levels):
    return Video(np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), 4, 6, 3)), 12)


def test_equal_videos_have_the_most_decibels():
    assert psnr_tally(ONE.video, ONE.video) == {
        "psnr": (100, 1),
        "psnr_changing": (100, 1),
        "psnr_resting": (100, 1),
    }


def test_an_error_of_one_level_is_48_decibels():
    assert psnr_tally(grey(0, 100), grey(0, 101))["psnr"] == (pytest.approx(20 * np.log10(255)), 1)
    assert psnr_tally(grey(0, 255), grey(0, 0))["psnr"] == (0, 1)


def test_frame_0_does_not_count():
    assert psnr_tally(grey(0, 100), grey(50, 100)) == {"psnr": (100, 1), "psnr_changing": (100, 1)}


def test_changing_pixels_differ_from_frame_0_by_more_than_eight_levels():
    assert changing(grey(100, 108, 109, 92, 91)).any((1, 2)).tolist() == [False, True, False, True]
    assert "psnr_changing" not in psnr_tally(grey(100, 104), grey(100, 90))
    truth = np.full((2, 4, 6, 3), 100, np.uint8)
    truth[1, :2, :, 0] = 200  # one channel is enough
    still = Video(np.full_like(truth, 100), 12)
    tally = psnr_tally(Video(truth, 12), still)
    assert tally["psnr_changing"] == (pytest.approx(10 * np.log10(255**2 / (100**2 / 3))), 1)
    assert tally["psnr"] == (pytest.approx(tally["psnr_changing"][0] + 10 * np.log10(2)), 1)
    assert tally["psnr_resting"] == (100, 1)


def test_what_should_rest_and_does_not_is_told_apart():
    truth = np.full((2, 4, 6, 3), 100, np.uint8)
    truth[1, :2] = 200  # a toy moves away from here
    made = truth.copy()
    made[1, 3] = 50  # and another one vanishes
    tally = psnr_tally(Video(truth, 12), Video(made, 12))
    assert tally["psnr_changing"] == (100, 1)
    assert tally["psnr_resting"] == (pytest.approx(10 * np.log10(255**2 / (50**2 / 2))), 1)


def test_a_still_picture_is_worst_where_things_change():
    tally = psnr_tally(ONE.video, STILL.render(ONE.sample.scene, None, 0))
    assert tally["psnr_changing"][0] < 12 < tally["psnr"][0]


def test_videos_of_another_length_are_refused():
    with pytest.raises(InvalidValueError, match="length"):
        psnr_tally(grey(1, 2), grey(1, 2, 3))


def test_tallies_add_up():
    assert counted([True, False, 0.5]) == (1.5, 3)
    assert total([{"a": (1.0, 2)}, {"a": (0.5, 1), "b": (1.0, 1)}, {}]) == {"a": (1.5, 3), "b": (1.0, 1)}


def test_a_mean_pools_what_scenes_counted():
    """A scene of three toys weighs as much as three scenes of one."""
    mean = mean_of_scenes([(3.0, 3), (0.0, 1), (0.0, 0)])
    assert (mean.value, mean.count, mean.scenes) == (0.75, 4, 2)


def test_intervals_hold_the_mean_and_tell_scenes_from_toys():
    same = mean_of_scenes([(2.0, 4)] * 9)
    assert (same.low, same.value, same.high) == (0.5, 0.5, 0.5)
    rng = np.random.default_rng(0)
    scenes = [(float(hit), 1) for hit in rng.random(400) < 0.3]
    mean = mean_of_scenes(scenes)
    error = 1.96 * np.sqrt(mean.value * (1 - mean.value) / 400)
    assert mean.low == pytest.approx(mean.value - error, abs=0.01)
    assert mean.high == pytest.approx(mean.value + error, abs=0.01)
    # The same toys, ten alike in each scene, say less.
    alike = mean_of_scenes([(10 * hit, 10) for hit, _ in scenes[:40]])
    assert alike.count == 400
    assert alike.high - alike.low > 2 * (mean.high - mean.low)
    assert mean_of_scenes(scenes) == mean


def test_what_cannot_be_said_is_not_said():
    assert mean_of_scenes([]) is None
    assert mean_of_scenes([(0.0, 0)]) is None
    alone = mean_of_scenes([(1.0, 2), (0.0, 0)])
    assert (alone.value, alone.low, alone.high) == (0.5, None, None)
