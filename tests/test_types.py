"""The values check themselves, stay as they were made, and say what is wrong."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughmask import MaskTrajectory, Origin, Sample, Scene, SceneObject, ThroughMaskError, Video
from throughmask.errors import InvalidValueError, MediaError, MissingPackageError
from throughmask.types import exact_fps, present_ids


def frames(num_frames=3, height=4, width=5):
    return np.arange(num_frames * height * width * 3, dtype=np.uint8).reshape(num_frames, height, width, 3)


def labels(num_frames=3, height=4, width=5):
    maps = np.zeros((num_frames, height, width), np.uint8)
    for k in range(num_frames):
        maps[k, 1, k % width], maps[k, 2, 0] = 1, 2
    return maps


def scene(**changes):
    objects = (SceneObject(2, "ball", "a red ball"), SceneObject(1, "dog", "a dog runs"))
    parts = {"image": frames()[0], "labels": labels()[0], "prompt": "play", "motion_prompt": "roll", "objects": objects}
    return Scene(**{**parts, **changes})


def sample(**changes):
    parts = {"scene": scene(), "trajectory": MaskTrajectory(labels(), 24), "video": Video(frames(), 24)}
    return Sample(**{**parts, **changes})


def test_values_describe_themselves():
    video, trajectory = Video(frames(), "30000/1001"), MaskTrajectory(labels(), Fraction(24))
    assert (len(video), video.size, video.fps) == (3, (4, 5), Fraction(30000, 1001))
    assert video.seconds == pytest.approx(0.1001)
    assert (len(trajectory), trajectory.size, trajectory.ids) == (3, (4, 5), (1, 2))
    assert scene().size == (4, 5)
    assert scene().ids == (1, 2), "objects are kept in id order"
    assert sample().origin == Origin("", "")


@pytest.mark.parametrize("make", [lambda: Video(frames(), 8), lambda: MaskTrajectory(labels(), 8), scene, sample])
def test_equal_content_is_equal_and_other_content_is_not(make):
    assert make() == make()
    assert make() != "something else"
    assert make() != 3


def test_each_part_counts_for_equality():
    changed = frames().copy()
    changed[2, 0, 0, 0] ^= 1
    assert Video(frames(), 8) != Video(changed, 8)
    assert Video(frames(), 8) != Video(frames(), 9)
    assert MaskTrajectory(labels(), 8) != MaskTrajectory(np.roll(labels(), 1, 0), 8)
    assert scene() != scene(prompt="rest")
    assert scene() != scene(image=changed[2])
    assert sample() != sample(video=None)
    assert sample() != sample(origin=Origin("a film", "CC0"))


@pytest.mark.parametrize(
    "array", [Video(frames(), 8).frames, MaskTrajectory(labels(), 8).labels, scene().image, scene().labels]
)
def test_arrays_are_read_only(array):
    with pytest.raises(ValueError, match="read-only"):
        array[:] = 0


def test_holding_an_array_does_not_lock_the_callers():
    mine = frames()
    Video(mine, 8)
    mine[:] = 0
    assert not mine.any()


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        Video(frames(), 8).fps = Fraction(9)


@pytest.mark.parametrize(
    "bad",
    [
        frames().astype(np.float32),
        frames()[0],
        frames()[..., :2],
        frames()[:0],
        np.zeros((1, 0, 4, 3), np.uint8),
        labels(),
        "text",
    ],
)
def test_frames_of_another_kind_are_refused(bad):
    with pytest.raises(InvalidValueError, match="frames must be uint8 T H W 3"):
        Video(bad, 8)


@pytest.mark.parametrize("bad", [labels().astype(np.int64), labels()[0], labels().astype(bool), labels()[:, :0]])
def test_labels_of_another_kind_are_refused(bad):
    with pytest.raises(InvalidValueError, match="labels must be uint8 T H W"):
        MaskTrajectory(bad, 8)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_frame_rate_is_kept_exactly(numerator, denominator):
    rate = Fraction(numerator, denominator)
    assert exact_fps(rate) == exact_fps(str(rate)) == exact_fps(f"{numerator}/{denominator}") == rate


@pytest.mark.parametrize(("value", "rate"), [(24, 24), (24.0, 24), (np.int32(8), 8), (np.float64(8), 8), ("12", 12)])
def test_whole_frame_rates_of_every_kind(value, rate):
    assert exact_fps(value) == rate


@pytest.mark.parametrize(
    "bad",
    [
        29.97,
        0,
        -1,
        "0/5",
        "1/0",
        "1e5",
        "9" * 41,
        "fast",
        None,
        True,
        float("inf"),
        float("nan"),
        np.float32(23.976),
        1j,
        [24],
    ],
)
def test_inexact_or_impossible_frame_rates_are_refused(bad):
    with pytest.raises(InvalidValueError, match="frame rate must be"):
        exact_fps(bad)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_present_ids(values):
    assert present_ids(np.array(values, np.uint8)) == tuple(sorted(set(values) - {0}))


@pytest.mark.parametrize("bad", [0, 256, -1, True, "1", 1.0, None])
def test_object_ids_are_1_to_255(bad):
    with pytest.raises(InvalidValueError, match="whole number from 1 to 255"):
        SceneObject(bad, "dog", "a dog")


@pytest.mark.parametrize("bad", ["", "  ", None, 3])
def test_objects_have_names_and_prompts(bad):
    with pytest.raises(InvalidValueError, match="object 1 has an empty name"):
        SceneObject(1, bad, "a dog")
    with pytest.raises(InvalidValueError, match="object 1 has an empty prompt"):
        SceneObject(1, "dog", bad)


def test_a_scene_may_hold_255_objects_and_no_object():
    objects = tuple(SceneObject(k, f"thing {k}", "a thing") for k in range(255, 0, -1))
    maps = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.zeros((16, 16, 3), np.uint8)
    assert Scene(image, maps, objects=objects).ids == tuple(range(1, 256))
    assert Scene(image, maps * 0).ids == ()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: scene(labels=labels(height=6)[0]), "image and labels differ in size (seen: 4×5 and 6×5)"),
        (lambda: scene(objects=(SceneObject(1, "a", "b"), SceneObject(1, "c", "d"))), "two objects share an id"),
        (
            lambda: scene(objects=(SceneObject(1, "a", "b"),)),
            "labels use ids that no object of the scene has (seen: [2])",
        ),
        (lambda: sample(trajectory=MaskTrajectory(labels(width=6), 24)), "scene and its trajectory differ in size"),
        (lambda: sample(trajectory=MaskTrajectory(labels() * 3, 24)), "the trajectory use ids that no object"),
        (
            lambda: sample(trajectory=MaskTrajectory(labels()[1:], 24)),
            "first label map must be the scene's (seen: 2 pix",
        ),
        (lambda: sample(video=Video(frames(width=6), 24)), "scene and its video differ in size"),
        (lambda: sample(video=Video(frames(2), 24)), "masks and video differ in frame count (seen: 3 and 2)"),
        (lambda: sample(video=Video(frames(), 25)), "masks and video differ in frame rate (seen: 24 and 25)"),
    ],
)
def test_contradictions_are_refused_in_plain_words(make, says):
    with pytest.raises(InvalidValueError) as caught:
        make()
    assert says in str(caught.value)


def test_a_sample_may_lack_masks_or_video():
    assert sample(trajectory=None).video is not None
    assert sample(video=None).trajectory is not None
    assert sample(trajectory=None, video=None).scene == scene()


def test_an_object_may_be_absent_from_the_first_frame():
    maps = labels()
    maps[0][maps[0] == 2] = 0
    assert Sample(scene(labels=maps[0]), MaskTrajectory(maps, 24)).trajectory.ids == (1, 2)


def test_an_error_is_one_line_with_problem_value_and_fix():
    error = ThroughMaskError("it broke", seen="two\nlines  here", fix="mend\nit")
    assert str(error) == "it broke (seen: two lines here); mend it"
    assert str(ThroughMaskError("it broke")) == "it broke"
    assert str(ThroughMaskError("it broke", seen=[1])) == "it broke (seen: [1])"
    assert isinstance(error, ValueError)
    assert len(str(ThroughMaskError("long", seen="x" * 10_000))) < 250


@pytest.mark.parametrize(
    "error", [MediaError("bad", seen={"a": 1}, fix="mend"), MediaError("bad"), MissingPackageError("tea", "kettle")]
)
def test_errors_survive_a_worker_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)


def test_a_missing_package_names_its_extra():
    assert "pip install 'through-the-mask[kettle]'" in str(MissingPackageError("tea", "kettle"))


def test_a_frame_rate_that_could_not_be_read_again_is_refused():
    assert exact_fps(Fraction(30000, 1001)) == exact_fps("30000/1001")
    longest = Fraction(10**18 + 1, 10**17)
    assert exact_fps(str(exact_fps(longest))) == longest
    with pytest.raises(InvalidValueError, match="one can read"):
        exact_fps(Fraction(19830295626288898043, 10000000000000000009))
