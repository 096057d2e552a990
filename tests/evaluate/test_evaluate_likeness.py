"""Likeness by colour: the true video has it, frame 0 repeated has none in new places, other colours have none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import ONE, STILL, TWO, Actor, case_of

from throughmask.errors import InvalidValueError
from throughmask.evaluate.likeness import Appearance, eroded, first_pixels, grown
from throughmask.types import MaskTrajectory, Sample, Video


def shares(case, video, asked=None):
    tally = Appearance(case.sample, case.toys).tally(video, asked or case.trajectory)
    return {name: value / count if count else None for name, (value, count) in tally.items()}


def recoloured(case, table):
    """The video with each toy in another colour."""
    frames = case.video.frames.copy()
    for id, colour in table.items():
        frames[case.trajectory.labels == id] = colour
    return Video(frames, case.video.fps)


def test_the_true_video_shows_every_toy_where_it_is():
    for case in (ONE, TWO):
        assert shares(case, case.video)["likeness"] > 0.99
        assert shares(case, case.video)["likeness_new"] > 0.99


def test_frame_0_repeated_shows_a_moving_toy_in_no_new_place():
    still = STILL.render(ONE.sample.scene, None, 0)
    assert shares(ONE, still)["likeness_new"] == 0
    assert shares(ONE, still)["likeness"] == 0  # its first step already is a whole toy's width
    half = shares(TWO, STILL.render(TWO.sample.scene, None, 0))
    assert half["likeness_new"] == 0  # the toy that stays has no new place
    assert 0.5 < half["likeness"] < 0.7  # and is well shown


def test_other_colours_do_not_pass():
    swapped = recoloured(TWO, {1: (20, 200, 30), 2: (20, 40, 220)})
    assert shares(TWO, swapped)["likeness"] == 0
    assert shares(TWO, recoloured(TWO, {1: (240, 220, 30), 2: (110, 110, 110)}))["likeness"] < 0.05
    assert shares(TWO, recoloured(TWO, {1: (240, 220, 30)}))["likeness"] == pytest.approx(0.5, abs=0.01)


def test_a_change_of_light_or_noise_does_pass():
    noise = np.random.default_rng(3).normal(0, 8, ONE.video.frames.shape)
    for frames in (ONE.video.frames * 0.9, ONE.video.frames + noise):
        assert shares(ONE, Video(frames.clip(0, 255).astype(np.uint8), 12))["likeness"] > 0.95


def test_toys_of_one_colour_do_not_compete():
    actors = [Actor((10, 10), (50, 10)), Actor((70, 40), (30, 40))]
    twins = case_of(1, *actors)
    assert shares(twins, twins.video)["likeness"] > 0.99
    rivals = replace(twins, toys=tuple(replace(toy, colour=str(toy.id)) for toy in twins.toys))
    assert shares(rivals, rivals.video)["likeness"] < 0.9


def test_a_toy_that_comes_in_is_known_from_when_it_is_seen():
    case = case_of(1, Actor((-12, 20), (60, 20)), Actor((70, 45), (70, 45), (20, 40, 220)))
    assert not (case.sample.scene.labels == 1).any()
    assert shares(case, case.video)["likeness"] > 0.99
    assert shares(case, STILL.render(case.sample.scene, None, 0))["likeness_new"] == 0
    pixels = first_pixels(case.video.frames, case.trajectory.labels, 1)
    np.testing.assert_allclose(pixels.mean(0), (200, 20, 20), atol=2)


def test_a_sliver_at_the_edge_tells_no_colours():
    labels, frames = np.zeros((3, 20, 20), np.uint8), np.zeros((3, 20, 20, 3), np.uint8)
    labels[1, :, :1], labels[2, :, :9] = 1, 1
    frames[1], frames[2] = 50, 200
    assert (first_pixels(frames, labels, 1) == 200).all()
    with pytest.raises(InvalidValueError, match="no frame"):
        first_pixels(frames, labels, 2)


def test_masks_are_those_that_were_asked_for():
    elsewhere = MaskTrajectory(np.roll(ONE.trajectory.labels, 30, 1), 12)
    assert shares(ONE, ONE.video, elsewhere) == {"likeness": 0, "likeness_new": 0}


def test_toys_without_a_mask_are_not_counted():
    nothing = MaskTrajectory(np.zeros_like(ONE.trajectory.labels), 12)
    assert shares(ONE, ONE.video, nothing) == {"likeness": None, "likeness_new": None}


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidValueError, match="differ in size or length"):
        shares(ONE, Video(ONE.video.frames[:3], 12))
    with pytest.raises(InvalidValueError, match="shows no toys"):
        Appearance(Sample(ONE.sample.scene), ONE.toys)


@given(arrays(np.bool_, (2, 6, 7), elements=st.booleans()))
def test_masks_shrink_and_grow_by_a_pixel(masks):
    inner, outer = eroded(masks), grown(masks)
    assert not (inner & ~masks).any()
    assert not (masks & ~outer).any()
    for t, y, x in np.argwhere(np.ones(masks.shape)):
        near = masks[t, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert (inner[t, y, x], outer[t, y, x]) == (near.all(), near.any())
