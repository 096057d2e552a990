"""How well masks obey others: hand-made squares whose IoU, displacement and presence can be worked out on paper."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughmask.errors import InvalidValueError
from throughmask.evaluate.adherence import measure, must_match
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory, Scene, SceneObject, Video

HEIGHT, WIDTH, SIDE = 20, 40, 4


def squares(*paths, side=SIDE):
    """A square for each object: (x, y) of its corner in every frame, None where it is not there."""
    labels = np.zeros((len(paths[0]), HEIGHT, WIDTH), np.uint8)
    for id, path in enumerate(paths, 1):
        for frame, place in enumerate(path):
            if place is not None:
                x, y = place
                labels[frame, y : y + side, x : x + side] = id
    return MaskTrajectory(labels, 12)


def scene(count):
    blank = np.zeros((HEIGHT, WIDTH), np.uint8)
    things = tuple(SceneObject(id, f"toy {id}", "it moves") for id in range(1, count + 1))
    return Scene(np.zeros((HEIGHT, WIDTH, 3), np.uint8), blank, objects=things)


@pytest.mark.parametrize("seed", range(3))
def test_masks_that_obey_to_the_pixel(seed):
    sample = make_sample(seed, num_objects=3, size=(48, 64), frames=9, entering=True)
    whole = measure(sample.trajectory, sample.trajectory, sample.scene)
    assert (whole.iou, whole.error, whole.presence) == (1, 0, 1)
    assert whole.intrusion in (0, None)
    assert [thing.id for thing in whole.objects] == list(sample.scene.ids)
    assert {value for thing in whole.objects for value in thing.frames_iou} <= {1.0, None}


@given(dx=st.integers(-8, 8), dy=st.integers(-6, 6))
def test_a_wrong_end_is_off_by_the_shift(dx, dy):
    asked = squares([(10, 8), (15, 8), (20, 8)])
    [thing] = measure(asked, squares([(10, 8), (15, 8), (20 + dx, 8 + dy)]), scene(1)).objects
    assert thing.asked_way == pytest.approx((10 / WIDTH, 0))
    assert thing.found_way == pytest.approx(((10 + dx) / WIDTH, dy / WIDTH))
    assert thing.error == pytest.approx(np.hypot(dx, dy) / WIDTH)
    common = max(0, SIDE - abs(dx)) * max(0, SIDE - abs(dy))
    assert thing.frames_iou == pytest.approx((1, 1, common / (2 * SIDE**2 - common)))
    assert thing.iou == pytest.approx(np.mean(thing.frames_iou[1:]))


def test_frame_0_does_not_count():
    asked = squares([(0, 0), (10, 8), (20, 8)])
    [thing] = measure(asked, squares([(30, 12), (10, 8), (20, 8)]), scene(1)).objects
    assert thing.frames_iou == (0, 1, 1)
    assert (thing.iou, thing.num_asked, thing.num_found) == (1, 2, 2)


def test_an_object_that_enters_and_leaves():
    asked = squares([None, None, (0, 8), (4, 8), (8, 8), (12, 8), None])
    found = squares([None, (0, 0), None, (4, 8), (8, 8), (14, 8), (14, 8)])
    [thing] = measure(asked, found, scene(1)).objects
    # Frame 0 is empty in both and says nothing; then unasked, missing, right, right, half right, unasked.
    assert thing.frames_iou == pytest.approx((None, 0, 0, 1, 1, 1 / 3, 0), nan_ok=True)
    assert thing.iou == pytest.approx((1 + 1 + 1 / 3) / 6)
    assert thing.span == (3, 5)
    assert thing.asked_way == pytest.approx((8 / WIDTH, 0))
    assert thing.found_way == pytest.approx((10 / WIDTH, 0))
    assert thing.error == pytest.approx(2 / WIDTH)
    assert (thing.num_found, thing.num_asked, thing.presence) == (3, 4, 0.75)
    assert (thing.num_unasked, thing.num_absent, thing.intrusion) == (2, 2, 1)


def test_an_object_that_is_never_found():
    path = [(0, 8), (10, 8), (20, 8)]
    whole = measure(squares(path, [(0, 0)] * 3), squares(path, [(0, 0), None, None]), scene(2))
    right, lost = whole.objects
    assert (right.iou, right.error, right.presence) == (1, 0, 1)
    assert (lost.iou, lost.presence) == (0, 0)
    assert (lost.span, lost.asked_way, lost.found_way, lost.error) == (None, None, None, None)
    assert (whole.iou, whole.error, whole.presence, whole.motion_accuracy) == (0.5, 0, 0.5, 1)


def test_an_object_that_is_never_asked_for():
    path = [(0, 8), (10, 8), (20, 8)]
    nobody = measure(squares(path), squares(path), scene(2))
    assert [nobody.objects[1].iou, nobody.objects[1].presence, nobody.objects[1].intrusion] == [None, None, 0]
    assert nobody.iou == 1
    uncalled = measure(squares(path), squares(path, [None, None, (0, 0)]), scene(2)).objects[1]
    assert (uncalled.iou, uncalled.presence, uncalled.intrusion) == (0, None, 0.5)


def test_motion_accuracy_is_that_of_the_benchmark():
    asked = squares([(0, 0), (20, 0)], [(0, 8), (20, 8)], [(0, 16), (20, 16)], [(30, 0), (31, 0)])
    found = squares([(0, 0), (13, 0)], [(0, 8), (11, 8)], [(0, 16), None], [(30, 0), (36, 0)])
    # Off by 7 of 20: right; by 9: wrong; lost: wrong; the last one is asked to move by too little to count.
    assert measure(asked, found, scene(4)).motion_accuracy == pytest.approx(1 / 3)
    still = squares([(0, 0), (0, 0)])
    assert measure(still, still, scene(1)).motion_accuracy is None


def test_labels_of_no_object_are_ignored():
    path, other = [(0, 8), (10, 8)], [(30, 0), (30, 12)]
    whole = measure(squares(path, other), squares(path), scene(1))
    assert len(whole.objects) == 1
    assert (whole.iou, whole.motion_accuracy) == (1, 1)


def test_json_holds_all_of_it_in_pixels_too():
    whole = measure(squares([(0, 8), (5, 8), (20, 8)]), squares([(0, 8), None, (16, 11)]), scene(1))
    data = json.loads(json.dumps(whole.as_json(), allow_nan=False))
    [thing] = data["objects"]
    assert thing["frames_iou"] == pytest.approx([1, 0, 0])
    way = thing["displacement"]
    assert way["span"] == [0, 2]
    assert way["asked_pixels"] == pytest.approx([20, 0])
    assert way["found_pixels"] == pytest.approx([16, 3])
    assert way["error_pixels"] == pytest.approx(5)
    assert way["error"] == data["error"] == pytest.approx(5 / WIDTH)
    assert (thing["presence"], thing["found_frames"], thing["asked_frames"]) == (0.5, 1, 2)
    assert "frames_iou" not in whole.as_json(each_frame=False)["objects"][0]


def test_a_scene_without_objects_has_no_numbers():
    data = measure(squares([None, None]), squares([None, None]), scene(0)).as_json()
    assert data["objects"] == []
    assert data["iou"] is data["error"] is data["presence"] is data["motion_accuracy"] is None


@pytest.mark.parametrize(
    ("shape", "problem"),
    [((3, HEIGHT, WIDTH + 2), "differ in size.*20×40 and 20×42"), ((4, HEIGHT, WIDTH), "differ in length.*3 and 4")],
)
def test_other_sizes_and_lengths(shape, problem):
    asked = squares([(0, 8), (10, 8), (20, 8)])
    with pytest.raises(InvalidValueError, match=problem):
        measure(asked, MaskTrajectory(np.zeros(shape, np.uint8), 12), scene(1))
    with pytest.raises(InvalidValueError, match="the video " + problem):
        must_match(asked, Video(np.zeros((*shape, 3), np.uint8), 12))


def test_one_frame_has_nothing_to_measure():
    one = squares([(0, 8)])
    with pytest.raises(InvalidValueError, match="one frame"):
        measure(one, one, scene(1))
