"""J and F against davis2017-evaluation's numbers on real tracker outputs, and the laws they obey."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from throughmask.errors import InvalidValueError
from throughmask.evaluate.segmentation import boundary, boundary_accuracy, dilate, region_similarity, score_objects
from throughmask.types import MaskTrajectory

masks = arrays(bool, (3, 9, 11))
SEQUENCES = ["blackswan", "bmx-trees", "dog", "horsejump-high", "motocross-jump"]


def _stack(folder: Path) -> np.ndarray:
    return np.stack([np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))])


@given(masks)
@settings(deadline=None)
def test_perfect_agreement_scores_one(mask):
    assert (region_similarity(mask, mask) == 1).all()
    assert (boundary_accuracy(mask, mask) == 1).all()


@given(masks, masks)
@settings(deadline=None)
def test_scores_are_symmetric_and_between_zero_and_one(a, b):
    for score in (region_similarity, boundary_accuracy):
        assert np.array_equal(score(a, b), score(b, a))
        assert ((score(a, b) >= 0) & (score(a, b) <= 1)).all()


@given(arrays(bool, (9, 11)), st.integers(0, 5))
@settings(deadline=None)
def test_dilation_is_every_pixel_within_the_radius(mask, radius):
    ys, xs = np.nonzero(mask)
    grid_y, grid_x = np.mgrid[:9, :11]
    near = (grid_y[..., None] - ys) ** 2 + (grid_x[..., None] - xs) ** 2 <= radius**2
    assert np.array_equal(dilate(mask, radius), near.any(-1))


def test_one_empty_mask_scores_zero_and_a_missed_boundary_zero():
    full, empty = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    full[4:9, 4:9] = True
    away = np.roll(full, 25, axis=(0, 1))
    for a, b in ((full, empty), (empty, full), (full, away)):
        assert region_similarity(a, b).tolist() == [0]
        assert boundary_accuracy(a, b).tolist() == [0]
    assert region_similarity(empty, empty).tolist() == boundary_accuracy(empty, empty).tolist() == [1]


def test_the_frame_edge_is_no_boundary():
    assert not boundary(np.ones((5, 6), bool)).any()
    assert boundary(np.eye(3, dtype=bool)).tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 0]]


def test_tolerance_in_pixels_and_as_a_share_of_the_diagonal():
    a, b = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    a[5:20, 5:20], b[5:20, 8:23] = True, True
    assert boundary_accuracy(a, b, tolerance=3) == 1 > boundary_accuracy(a, b, tolerance=2)
    assert boundary_accuracy(a, b, tolerance=3 / 50) == 1  # diagonal 50


def test_mistakes_are_named():
    with pytest.raises(InvalidValueError, match="differ in size"):
        region_similarity(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(InvalidValueError, match="T H W or H W"):
        region_similarity(np.zeros(4), np.zeros(4))
    with pytest.raises(InvalidValueError, match="tolerance"):
        boundary_accuracy(np.zeros((4, 4)), np.zeros((4, 4)), tolerance=float("nan"))
    trajectory = MaskTrajectory(np.zeros((1, 4, 4), np.uint8), 24)
    with pytest.raises(InvalidValueError, match="1 to 255"):
        score_objects(trajectory, trajectory, ids=(256,))


@pytest.mark.slow
@pytest.mark.parametrize("name", SEQUENCES)
def test_real_tracker_output_scores_as_the_challenge_says(assets, name):
    folder = assets / "videos" / "davis16" / name
    expected = json.loads((assets / "oracles" / "davis_jf.json").read_text())["seqs"][name]["osvos_pred"]
    truth, prediction = _stack(folder / "gt_union"), _stack(folder / "osvos_pred")
    j, f = region_similarity(truth, prediction), boundary_accuracy(truth, prediction)
    assert j.mean() == pytest.approx(expected["J_mean"], abs=1e-4)
    assert f.mean() == pytest.approx(expected["F_mean"], abs=1e-4)
    assert j[:5] == pytest.approx(expected["J_frames_first5"], abs=1e-4)
    assert f[:5] == pytest.approx(expected["F_frames_first5"], abs=1e-4)


def test_real_tracker_output_scores_per_object(assets):
    folder = assets / "videos" / "davis17_multi" / "dogs_jump"
    expected = json.loads((assets / "oracles" / "dogs_jump_jf_per_object.json").read_text())
    truth = MaskTrajectory(_stack(folder / "gt_instances"), 24)
    scores = score_objects(truth, MaskTrajectory(_stack(folder / "osvos_pred"), 24))
    assert list(scores) == [1, 2, 3]
    for k, score in scores.items():
        assert score.region.mean() == pytest.approx(expected[str(k)]["J_mean"], abs=1e-4)
        assert score.boundary.mean() == pytest.approx(expected[str(k)]["F_mean"], abs=1e-4)
        assert score.region == pytest.approx(expected[str(k)]["J"], abs=1e-4)
        assert score.mean == pytest.approx((expected[str(k)]["J_mean"] + expected[str(k)]["F_mean"]) / 2, abs=1e-4)
