"""Synthetic samples: exact masks, captions that are true of the motion, and the same sample for the same seed."""

from functools import cache

import numpy as np
import pytest

from throughmask import ThroughMaskError
from throughmask.synthetic import COLOURS, SHAPES, make_sample


@cache
def alone(seed):
    return make_sample(seed, num_objects=1, size=(64, 80))


def centres(labels, id):
    return np.array([np.argwhere(frame == id).mean(0) for frame in labels])  # T 2: y, x


@pytest.mark.parametrize("seed", range(60))
def test_captions_are_true_of_the_motion(seed):
    sample = alone(seed)
    labels, phrase = sample.trajectory.labels, sample.scene.objects[0].prompt
    area = (labels == 1).sum((1, 2))
    assert area.max() - area.min() <= 0.2 * area.max(), "alone and inside the frame, an object keeps its area"
    way = centres(labels, 1)
    shift, extent = way[-1] - way[0], np.ptp(way, 0)
    axis = 0 if any(word in phrase for word in (" up", "down")) else 1
    assert extent[1 - axis] < 1, "every motion is along one axis"
    if "resting" in phrase:
        assert extent.max() < 0.1
        return
    assert extent[axis] > 2
    if "hopping" in phrase:
        assert abs(shift[0]) < 1
        assert way[0, 0] == pytest.approx(way[:, 0].max(), abs=1), "it starts on the ground"
        return
    sign = -1 if "left" in phrase or "up" in phrase else 1
    pace = sign * np.diff(way[:, axis])
    assert pace[0] > -0.5
    if "bouncing back" in phrase:
        turn = int((sign * way[:, axis]).argmax())
        assert (pace[:turn] > -0.5).all()
        assert (pace[turn:] < 0.5).all()
        assert pace[turn:].sum() < -2
    else:
        assert sign * shift[axis] > 2
        assert (pace > -0.5).all()
        faster = pace[-5:].mean() > 2 * pace[:5].mean()
        assert faster == ("ever faster" in phrase)


def test_every_kind_of_motion_occurs():
    phrases = " ".join(alone(seed).scene.prompt for seed in range(60))
    for words in ("rests", "hops", "bounces back", "ever faster", "to the left", "to the right", "up", "down", "rolls"):
        assert words in phrases
    for word in SHAPES:
        assert word in phrases


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_objects", [1, 3, 12])
def test_one_object_enters(seed, num_objects):
    sample = make_sample(seed, num_objects=num_objects, size=(72, 96), entering=True)
    labels = sample.trajectory.labels
    absent = set(sample.scene.ids) - set(np.unique(labels[0]))
    assert len(absent) == 1
    thing = sample.scene.objects[absent.pop() - 1]
    from_left = "in from the left" in thing.prompt
    assert from_left or "in from the right" in thing.prompt
    seen = np.argwhere(labels == thing.id)
    if num_objects == 1:
        column = seen[0, 2] if from_left else seen[seen[:, 0] == seen[0, 0], 2].max()
        assert column == (0 if from_left else 95), "it touches the side that it comes from"


@pytest.mark.parametrize("num_objects", range(13))
def test_objects_are_distinct_visible_and_named_in_id_order(num_objects):
    for seed in range(3):
        sample = make_sample(seed, num_objects=num_objects, frames=5)
        scene = sample.scene
        assert scene.ids == tuple(range(1, num_objects + 1))
        names = [thing.name for thing in scene.objects]
        assert len(set(names)) == num_objects
        assert all(name.split()[0] in COLOURS and name.split()[1] in SHAPES for name in names)
        places = [scene.prompt.lower().index(name) for name in names]
        assert places == sorted(places)
        assert set(np.unique(scene.labels)) == {0, *scene.ids}
        assert np.array_equal(scene.image, sample.video.frames[0])


def test_the_motion_prompt_keeps_an_attribute_only_where_names_would_clash():
    for seed in range(8):
        scene = make_sample(seed, num_objects=5, frames=5).scene
        shapes = [thing.name.split()[1] for thing in scene.objects]
        for thing, shape in zip(scene.objects, shapes, strict=True):
            assert (thing.name in scene.motion_prompt) == (shapes.count(shape) > 1)
            assert f" {shape} " in scene.motion_prompt


def test_the_prompts_of_nobody():
    scene = make_sample(0, num_objects=0).scene
    assert (scene.prompt, scene.motion_prompt, scene.objects) == ("An empty floor.", "Nothing moves.", ())


def test_same_seed_same_sample_other_seed_other_sample():
    options = {"num_objects": 3, "size": (48, 64), "frames": 9, "fps": "30000/1001", "entering": True}
    assert make_sample(5, **options) == make_sample(5, **options)
    assert make_sample(5, **options) != make_sample(6, **options)


@pytest.mark.parametrize("size", [(16, 16), (33, 101), (90, 40)])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_any_size_and_length(size, frames):
    sample = make_sample(3, num_objects=1, size=size, frames=frames, fps=24)
    assert sample.video.frames.shape == (frames, *size, 3)
    assert (sample.trajectory.labels == 1).any((1, 2)).all()
    if frames == 1:
        assert "rest" in sample.scene.prompt


def test_an_object_in_front_hides_the_one_behind():
    """Where areas shrink, it is another object that covers the pixels: masks are exclusive and exact."""
    sample = make_sample(2, num_objects=3)
    labels = sample.trajectory.labels
    areas = [(labels == 2).sum((1, 2)), (labels == 3).sum((1, 2))]
    hidden = min(areas, key=min)
    assert hidden.min() < 0.7 * hidden[0]


def test_pixels_of_an_object_have_its_colour():
    for seed in range(6):
        sample = make_sample(seed, num_objects=2, frames=1)
        for thing in sample.scene.objects:
            mean = sample.scene.image[sample.scene.labels == thing.id].mean(0)
            nearest = min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name]) - mean).sum())
            assert nearest == thing.name.split()[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_objects": 13}, "number of objects must be a whole number from 0 to 12"),
        ({"num_objects": -1}, "from 0 to 12"),
        ({"frames": 0}, "number of frames"),
        ({"size": (8, 64)}, "height"),
        ({"size": (64, 64.5)}, "width"),
        ({"size": (16, 16), "num_objects": 12}, "12 objects need a larger picture"),
        ({"fps": 29.97}, "exact"),
        ({"entering": True, "num_objects": 0}, "at least one object and two frames"),
        ({"entering": True, "frames": 1}, "at least one object and two frames"),
        ({"seed": -1}, "a seed must be"),
        ({"seed": True}, "a seed must be"),
    ],
)
def test_mistakes_are_explained(options, says):
    with pytest.raises(ThroughMaskError, match=says):
        make_sample(**{"seed": 0, **options})
