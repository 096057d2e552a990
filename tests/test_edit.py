"""The laws of editing: nothing is nothing, there and back is home, and the other objects never change."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from throughmask import MaskTrajectory, ThroughMaskError, edit
from throughmask.edit import Keyframe
from throughmask.shapes import box_of

FRAMES, HEIGHT, WIDTH = 5, 14, 18
quick = settings(max_examples=30, deadline=None)


@st.composite
def trajectories(draw, least=1, most=3):
    """Rectangles that jump about and cover one another; an object may be absent from some frames, not from all."""
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    ids = range(1, draw(st.integers(least, most)) + 1)
    for frame in range(FRAMES):
        for id in draw(st.permutations(ids)):
            if draw(st.booleans()):
                y, x = draw(st.integers(0, HEIGHT - 2)), draw(st.integers(0, WIDTH - 2))
                labels[frame, y : y + draw(st.integers(1, 6)), x : x + draw(st.integers(1, 6))] = id
    assume(set(np.unique(labels)) >= set(ids))
    return MaskTrajectory(labels, Fraction(24))


def roomy():
    """One object that stays at least 5 pixels away from the frame's edges, and none other."""
    return st.integers(0, 2**32).map(scattered)


def scattered(seed):
    random, labels = np.random.default_rng(seed), np.zeros((FRAMES, 20, 24), np.uint8)
    for frame in labels:
        y, x, density = random.integers(5, 8), random.integers(5, 10), random.choice([0, 0.02, 0.5, 1])
        frame[y : y + 8, x : x + 10] = 3 * (random.random((8, 10)) < density)
    labels[0, 10, 12] = 3
    return MaskTrajectory(labels, Fraction(24))


amounts = st.tuples(
    st.floats(-30, 30), st.floats(-30, 30), st.floats(0.05, 4), st.floats(-720, 720), st.integers(0, FRAMES - 1)
).map(lambda a: Keyframe(a[4], *a[:4]))
steps = st.integers(-5, 5)


def two_objects():
    """Object 1 moves right by 2 pixels a frame, object 2 stands in the lower half."""
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for frame in range(FRAMES):
        labels[frame, 2:6, 1 + 2 * frame : 5 + 2 * frame] = 1
    labels[:, 9:13, 6:12] = 2
    return MaskTrajectory(labels, Fraction(24))


EDITS = {
    "follow": lambda t, id, key: edit.follow(t, id, [key]),
    "move": lambda t, id, key: edit.move(t, id, key.dx, key.dy, ramp=True),
    "scale": lambda t, id, key: edit.scale(t, id, key.scale, start=key.frame),
    "rotate": lambda t, id, key: edit.rotate(t, id, key.degrees, end=key.frame),
    "remove": lambda t, id, key: edit.remove(t, id),
    "freeze": lambda t, id, key: edit.freeze(t, id, key.frame),
    "retime": lambda t, id, key: edit.retime(t, id, key.scale),
    "interpolate": lambda t, id, key: edit.interpolate(t, id, {0: (1, 2, 5, 4), key.frame: (3, 3, 9, 12)}),
}


@pytest.mark.parametrize("name", EDITS)
@quick
@given(data=st.data(), trajectory=trajectories(), key=amounts)
def test_other_objects_never_change(name, data, trajectory, key):
    id = data.draw(st.sampled_from(trajectory.ids))
    result = EDITS[name](trajectory, id, key)
    others = np.where(trajectory.labels == id, 0, trajectory.labels)
    assert np.array_equal(np.where(result.labels == id, 0, result.labels), others)
    assert result.fps == trajectory.fps


@quick
@given(trajectories(), amounts)
def test_in_front_covers_the_others_and_only_them(trajectory, key):
    behind, front = (edit.follow(trajectory, 1, [key], in_front=flag) for flag in (False, True))
    changed = behind.labels != front.labels
    assert (front.labels[changed] == 1).all()
    assert (behind.labels[changed] > 1).all()


@quick
@given(trajectories())
def test_nothing_is_the_same(trajectory):
    for id in trajectory.ids:
        assert edit.follow(trajectory, id, [Keyframe(2)]) == trajectory
        assert edit.move(trajectory, id) == trajectory
        assert edit.scale(trajectory, id, 1) == trajectory
        assert edit.rotate(trajectory, id, 360) == trajectory
        assert edit.retime(trajectory, id, 1) == trajectory
        assert edit.retime(trajectory, id, frames=range(FRAMES)) == trajectory
        visible = np.flatnonzero((trajectory.labels == id).any((1, 2)))
        keys = {int(k): trajectory.labels[k] == id for k in visible[:1]}
        assert edit.interpolate(trajectory, id, keys) == trajectory
    assert edit.reorder(trajectory, {}) == trajectory
    assert edit.resample(trajectory, num_frames=FRAMES) == trajectory
    assert edit.resample(trajectory, fps=24) == trajectory


@quick
@given(roomy(), steps, steps, steps, steps, st.booleans())
def test_moves_add_up_and_come_back(trajectory, dx, dy, more_x, more_y, ramp):
    there = edit.move(trajectory, 3, dx, dy, ramp=ramp)
    assert edit.move(there, 3, -dx, -dy, ramp=ramp) == trajectory
    assume(max(abs(dx + more_x), abs(dy + more_y)) <= 5)
    if not ramp:  # halfway amounts are rounded, so only full ones add up
        assert edit.move(there, 3, more_x, more_y) == edit.move(trajectory, 3, dx + more_x, dy + more_y)


@quick
@given(roomy(), st.integers(-4, 4))
def test_quarter_turns_add_up(trajectory, turns):
    result = trajectory
    for _ in range(4):
        result = edit.rotate(result, 3, 90 * turns)
    assert np.array_equal((result.labels > 0).sum((1, 2)), (trajectory.labels > 0).sum((1, 2))), "no pixel is lost"
    assert edit.rotate(trajectory, 3, 90 * turns) == edit.rotate(trajectory, 3, 90 * turns + 360)


def test_a_whole_move_is_exact_and_clipped_at_the_edge():
    moved = edit.move(two_objects(), 1, -2, 1)
    for frame in range(FRAMES):
        expected = np.zeros((HEIGHT, WIDTH), bool)
        expected[3:7, max(0, 2 * frame - 1) : 2 * frame + 3] = True
        assert np.array_equal(moved.labels[frame] == 1, expected)


def test_an_object_passes_behind_the_others_unless_in_front():
    behind, front = (edit.move(two_objects(), 1, dy=7, in_front=flag) for flag in (False, True))
    assert np.array_equal(behind.labels == 2, two_objects().labels == 2)
    assert (front.labels[2, 9:13, 6:9] == 1).all()
    assert (behind.labels[2, 9:13, 5] == 1).all()


def test_a_ramp_keeps_the_start_and_ends_with_the_full_amount():
    trajectory = two_objects()
    ramped = edit.move(trajectory, 2, dx=4, start=1, end=3, ramp=True)
    full = edit.move(trajectory, 2, dx=4)
    half = edit.move(trajectory, 2, dx=2)
    for frame, like in enumerate((trajectory, trajectory, half, full, full)):
        assert np.array_equal(ramped.labels[frame], like.labels[frame])


def test_start_and_end_bound_an_edit():
    trajectory = two_objects()
    moved = edit.move(trajectory, 2, dx=4, start=1, end=3)
    differ = (moved.labels != trajectory.labels).any((1, 2))
    assert differ.tolist() == [False, True, True, True, False]


def test_scale_and_rotate_about_the_centroid():
    labels = np.zeros((1, 20, 20), np.uint8)
    labels[0, 8:12, 6:14] = 1  # 4 high, 8 wide, centroid 9.5, 9.5
    trajectory = MaskTrajectory(labels, Fraction(1))
    assert box_of(edit.scale(trajectory, 1, 2).labels[0] == 1) == (2, 6, 18, 14)
    assert box_of(edit.scale(trajectory, 1, 0.5).labels[0] == 1) == (8, 9, 12, 11)
    assert box_of(edit.rotate(trajectory, 1, 90).labels[0] == 1) == (8, 6, 12, 14)
    assert (edit.scale(trajectory, 1, 0.001).labels == 1).sum() == 1, "small, but not gone"


def test_positive_degrees_turn_clockwise():
    labels = np.zeros((1, 21, 21), np.uint8)
    labels[0, 4:17, 10] = 1
    labels[0, 4, 10:15] = 1  # a flag that points right at the top of its pole
    turned = edit.rotate(MaskTrajectory(labels, Fraction(1)), 1, 90).labels[0] == 1
    # Clockwise, the top goes to the right, and the flag at the top points down.
    x0, y0, x1, y1 = box_of(turned)
    assert x1 - x0 == 13
    assert y1 - y0 == 5
    assert turned[y0:y1, x1 - 1].sum() == 5
    assert turned[y0 + 1 :, x0 : x1 - 1].sum() == 0


def test_follow_interpolates_between_keyframes_and_holds_outside():
    trajectory = edit.freeze(two_objects(), 1, 0)
    followed = edit.follow(trajectory, 1, [Keyframe(3, dx=8), Keyframe(1, dx=4)])
    lefts = [box_of(labels == 1)[0] for labels in followed.labels]
    assert lefts == [5, 5, 7, 9, 9]


def test_follow_carries_the_shape_of_one_frame():
    trajectory = two_objects()
    labels = trajectory.labels.copy()
    labels[2][labels[2] == 1] = 0  # hidden for a moment
    carried = edit.follow(MaskTrajectory(labels, trajectory.fps), 1, [Keyframe(0), Keyframe(4, dx=8)], shape_from=0)
    assert carried == trajectory


@quick
@given(trajectories(), st.integers(0, FRAMES - 1))
def test_freeze_is_idempotent(trajectory, frame):
    frozen = edit.freeze(trajectory, 1, frame)
    assert np.array_equal(frozen.labels[: frame + 1], trajectory.labels[: frame + 1])
    if 1 in frozen.ids:
        assert edit.freeze(frozen, 1, frame) == frozen


@quick
@given(trajectories(), st.permutations([1, 2, 3, 7]))
def test_reorder_and_its_inverse(trajectory, targets):
    mapping = dict(zip([1, 2, 3, 7], targets, strict=True))
    there = edit.reorder(trajectory, mapping)
    assert edit.reorder(there, {new: old for old, new in mapping.items()}) == trajectory
    for id in trajectory.ids:
        assert np.array_equal(there.labels == mapping[id], trajectory.labels == id)


def test_reorder_to_an_unused_id():
    assert edit.reorder(two_objects(), {1: 9}).ids == (2, 9)


@quick
@given(trajectories())
def test_remove(trajectory):
    assert edit.remove(trajectory, 1).ids == tuple(i for i in trajectory.ids if i != 1)


def test_retime():
    trajectory = two_objects()
    lefts = {
        speed: [box_of(labels == 1)[0] for labels in edit.retime(trajectory, 1, speed).labels]
        for speed in (2, 0.5, Fraction(3, 2))
    }
    assert lefts == {2: [1, 5, 9, 9, 9], 0.5: [1, 3, 3, 5, 5], Fraction(3, 2): [1, 5, 7, 9, 9]}
    backwards = edit.retime(trajectory, 1, frames=[4, 3, 2, 1, 0])
    assert np.array_equal(backwards.labels == 1, trajectory.labels[::-1] == 1)
    assert edit.retime(backwards, 1, frames=[4, 3, 2, 1, 0]) == trajectory


def test_resample():
    trajectory = two_objects()
    twice = edit.resample(trajectory, fps=48)
    assert (len(twice), twice.fps) == (10, 48)
    assert edit.resample(twice, fps=24) == trajectory
    ends = edit.resample(trajectory, num_frames=3)
    assert np.array_equal(ends.labels, trajectory.labels[[0, 2, 4]])
    assert edit.resample(trajectory, num_frames=1).labels.shape[0] == 1
    assert edit.resample(trajectory, num_frames=9, fps="30000/1001").fps == Fraction(30000, 1001)


@quick
@given(roomy(), st.integers(1, FRAMES - 1))
@example(scattered(28023), 3)  # where the blend is largest, a smaller box has no pixel
def test_interpolate_is_exact_at_the_keyframes(trajectory, gap):
    visible = [int(k) for k in np.flatnonzero(trajectory.labels.any((1, 2)))]
    keys = {k: trajectory.labels[k] == 3 for k in visible[::gap]}
    result = edit.interpolate(edit.remove(trajectory, 3), 3, keys)
    for frame, mask in keys.items():
        assert np.array_equal(result.labels[frame] == 3, mask)
    inside = result.labels[min(keys) : max(keys) + 1]
    assert inside.any((1, 2)).all(), "between its keyframes an object is never gone"


def test_interpolate_moves_one_shape_in_a_straight_line():
    trajectory = two_objects()
    masks = trajectory.labels == 1
    assert edit.interpolate(edit.freeze(trajectory, 1, 0), 1, {0: masks[0], 4: masks[4]}) == trajectory


def test_interpolate_changes_one_shape_into_another():
    y, x = np.mgrid[:64, :64] - 31.5
    disc, ring = np.hypot(y, x) < 20, (np.hypot(y, x) < 20) & (np.hypot(y, x) > 12)
    blank = MaskTrajectory(np.zeros((9, 64, 64), np.uint8), Fraction(8))
    areas = edit.interpolate(blank, 1, {0: disc, 8: ring}).labels.sum((1, 2)).tolist()
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[6] > areas[8]
    halves = np.abs(x) < 12, np.abs(y) < 12  # two bars that share only their middle
    assert edit.interpolate(blank, 1, dict(zip((0, 8), halves, strict=True))).labels.any((1, 2)).all()


def test_shapes_without_a_common_pixel_still_morph():
    diagonal = np.eye(4, dtype=bool)
    first, last = np.zeros((2, 14, 18), bool)
    first[2:6, 2:6], last[2:6, 2:6] = diagonal, diagonal[::-1]
    result = edit.interpolate(two_objects(), 1, {0: first, 4: last})
    assert (result.labels == 1).any((1, 2)).all()


def test_interpolate_stretches_a_shape_into_boxes():
    trajectory = two_objects()
    wide = edit.interpolate(trajectory, 1, {2: (1, 0, 9, 8)})
    assert box_of(wide.labels[2] == 1) == (1, 0, 9, 8)
    assert (wide.labels[2] == 1).sum() == 64
    disc = np.hypot(*(np.mgrid[:14, :18] - np.array([6, 8])[:, None, None])) < 4
    boxes = edit.interpolate(trajectory, 2, {0: disc, 4: (2, 2, 16, 12)}).labels[4] == 2
    assert box_of(boxes) == (2, 2, 16, 12)
    assert boxes.sum() < 0.9 * 14 * 10, "a disc, not a filled box"
    new = edit.interpolate(trajectory, 7, {1: (14, 7, 17, 9)})
    assert (new.labels == 7).sum() == 6


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: edit.remove(t, 5), "no object with that id.*seen: 5.*1, 2"),
        (lambda t: edit.remove(t, 0), "no object with that id"),
        (lambda t: edit.remove(t, 300), "no object with that id"),
        (lambda t: edit.remove(t, "1"), "must be a whole number"),
        (lambda t: edit.follow(t, 1, []), "no keyframes"),
        (lambda t: edit.follow(t, 1, [Keyframe(1), Keyframe(1)]), "same frame"),
        (lambda t: edit.follow(t, 1, [Keyframe(5)]), "from 0 to 4"),
        (lambda t: edit.follow(t, 1, [Keyframe(-1)]), "from 0 to 4"),
        (lambda t: edit.follow(t, 1, [Keyframe(0)], shape_from=5), "from 0 to 4"),
        (lambda t: edit.follow(edit.retime(hidden(t), 1, 1), 1, [Keyframe(0)], shape_from=0), "absent from frame 0"),
        (lambda t: Keyframe(1.5), "whole number"),
        (lambda t: edit.move(t, 1, float("nan")), "dx must be a finite number"),
        (lambda t: edit.move(t, 1, dy=float("inf")), "dy must be a finite number"),
        (lambda t: edit.move(t, 1, 1e9), "at most a million"),
        (lambda t: edit.move(t, 1, "4"), "finite number"),
        (lambda t: edit.move(t, 1, 4, start=3, end=2), "end after it starts"),
        (lambda t: edit.move(t, 1, 4, start=3, end=3, ramp=True), "end after it starts"),
        (lambda t: edit.move(t, 1, 4, end=5), "from 0 to 4"),
        (lambda t: edit.scale(t, 1, 0), "more than 0"),
        (lambda t: edit.scale(t, 1, -2), "more than 0"),
        (lambda t: edit.rotate(t, 1, float("nan")), "degrees must be a finite"),
        (lambda t: edit.freeze(t, 1, 5), "from 0 to 4"),
        (lambda t: edit.retime(t, 1), "only one of them"),
        (lambda t: edit.retime(t, 1, 2, frames=[0] * 5), "only one of them"),
        (lambda t: edit.retime(t, 1, 0), "more than 0"),
        (lambda t: edit.retime(t, 1, float("nan")), "finite"),
        (lambda t: edit.retime(t, 1, frames=[0]), "as many source frames"),
        (lambda t: edit.retime(t, 1, frames=[0, 1, 2, 3, 9]), "from 0 to 4"),
        (lambda t: edit.resample(t), "number of frames or a frame rate"),
        (lambda t: edit.resample(t, num_frames=0), "from 1 to"),
        (lambda t: edit.resample(t, fps=10**9), "number of frames must be from"),
        (lambda t: edit.resample(t, fps=29.97), "exact"),
        (lambda t: edit.reorder(t, {1: 2}), "same id.*seen: \\[2\\]"),
        (lambda t: edit.reorder(t, {8: 9}), "no object with that id"),
        (lambda t: edit.reorder(t, {1: 0}), "from 1 to 255"),
        (lambda t: edit.interpolate(t, 1, {}), "no keyframes"),
        (lambda t: edit.interpolate(t, 0, {0: (0, 0, 1, 1)}), "from 1 to 255"),
        (lambda t: edit.interpolate(t, 1, {7: (0, 0, 1, 1)}), "from 0 to 4"),
        (lambda t: edit.interpolate(t, 1, {0: (0, 0, 99, 1)}), "inside the frame, 18 wide and 14 high"),
        (lambda t: edit.interpolate(t, 1, {0: (3, 0, 3, 1)}), "inside the frame"),
        (lambda t: edit.interpolate(t, 1, {0: (3, 0, 3)}), "a mask or a box"),
        (lambda t: edit.interpolate(t, 1, {0: None}), "a mask or a box"),
        (lambda t: edit.interpolate(t, 1, {0: np.ones((3, 3), bool)}), "must be bool \\(14, 18\\)"),
        (lambda t: edit.interpolate(t, 1, {0: np.zeros((14, 18), bool)}), "mask of frame 0 is empty"),
    ],
)
def test_mistakes_are_explained(call, says):
    with pytest.raises(ThroughMaskError, match=says):
        call(two_objects())


def hidden(trajectory):
    labels = trajectory.labels.copy()
    labels[0][labels[0] == 1] = 0
    return MaskTrajectory(labels, trajectory.fps)


def test_edits_leave_their_input_alone():
    trajectory, again = two_objects(), two_objects()
    for name in EDITS:
        EDITS[name](trajectory, 1, Keyframe(2, 3, 4, 1.5, 30))
    assert trajectory == again
