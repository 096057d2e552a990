"""The pooling rule, page by page: what a token is labelled, and which local prompts it sees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughmask.errors import InvalidValueError
from throughmask.nn.regions import TokenGrid, first_regions, token_regions

ONE = TokenGrid.one_to_one(1, (4, 4))


def regions(labels, grid=ONE, num_objects=3):
    return token_regions(torch.as_tensor(np.asarray(labels, np.uint8))[None], grid, num_objects)


def test_an_eighth_of_a_patch_is_enough_and_less_is_not():
    labels = np.zeros((1, 4, 12), np.uint8)
    labels[0, 0, :2] = 1  # 2 of 16 pixels
    labels[0, 0, 4] = 1  # 1 of 16
    assert regions(labels)[0].tolist() == [[1, 0, 0]]


def test_first_regions_are_those_of_frame_0_at_every_frame():
    labels = np.zeros((5, 8, 8), np.uint8)
    labels[0, :4, :4] = 1
    labels[0, 5, 5] = 2  # too small to win a token of a still clip, and yet there
    labels[1:, 4:, :4] = 1
    grid = TokenGrid.causal(5, (4, 4))
    label, sees = first_regions(torch.from_numpy(labels[:1]), grid, 2)
    assert label.tolist() == [[1, 0, 0, 2] * 2]
    assert sees.tolist() == [[[True, False], [False, False], [False, False], [False, True]] * 2]
    assert token_regions(torch.from_numpy(labels)[None], grid, 2)[0].tolist() == [[1, 0, 0, 2, 0, 0, 1, 0]]


def test_the_larger_object_wins_and_a_tie_goes_to_the_lower_id():
    labels = np.zeros((1, 4, 8), np.uint8)
    labels[0, :3, :4], labels[0, 3, :4] = 2, 1
    labels[0, :2, 4:], labels[0, 2:, 4:] = 3, 1
    label, _ = regions(labels)
    assert label.tolist() == [[2, 1]]


def test_a_tiny_object_keeps_the_token_it_covers_most():
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, 5, 5] = 1
    assert regions(labels)[0].tolist() == [[0, 0, 0, 1]]


def test_a_tiny_object_does_not_take_anothers_last_token():
    labels = np.zeros((1, 4, 8), np.uint8)
    labels[0, :2, :4] = 1
    labels[0, 3, 0], labels[0, 3, 4] = 2, 3
    label, _ = regions(labels)
    assert label.tolist() == [[1, 3]]  # 2 meets only 1's last token: it has to go without


def test_a_fast_object_counts_over_all_frames_that_a_token_covers():
    grid = TokenGrid.causal(5, (4, 4))
    labels = np.zeros((5, 4, 8), np.uint8)
    labels[1, :, 4:] = 1  # one of four frames: a quarter
    labels[2, 0, 0] = 2  # 1 of 64
    label, sees = regions(labels, grid)
    assert label.tolist() == [[0, 0, 2, 1]]
    assert sees[0, :, 0].tolist() == [False, False, False, True]


def test_a_token_sees_a_prompt_where_its_patch_meets_the_box_not_the_silhouette():
    labels = np.zeros((1, 12, 12), np.uint8)
    labels[0, 0, 0] = labels[0, 8, 8] = 1  # the box covers rows and columns 0..8, all 3 × 3 patches
    labels[0, 11, 11] = 2
    label, sees = regions(labels)
    assert sees[0, :, 0].all()
    assert sees[0, :, 1].nonzero().flatten().tolist() == [8]
    assert not sees[0, :, 2].any()
    assert label[0, 4] == 0


def test_boxes_are_per_frame_not_of_the_whole_path():
    grid = TokenGrid.one_to_one(2, (4, 4))
    labels = np.zeros((2, 4, 12), np.uint8)
    labels[0, :, :4] = labels[1, :, 8:] = 1
    assert regions(labels, grid)[1][0, :, 0].tolist() == [True, False, False, False, False, True]


def test_frames_of_a_causal_vae():
    assert TokenGrid.causal(9, (16, 16)).frames == (1, 4, 4)
    assert TokenGrid.causal(81, (16, 16)).tokens(480, 832) == (21, 30, 52)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TokenGrid.causal(8, (16, 16)), "nearest is 9"),
        (lambda: TokenGrid.causal(0, (16, 16)), "nearest is 1"),
        (lambda: ONE.tokens(6, 8), "nearest is 8×8"),
        (lambda: regions(np.zeros((2, 4, 4))), "frame count"),
        (lambda: regions(np.full((1, 4, 4), 4)), "larger than the number of objects"),
    ],
)
def test_bad_sizes_say_what_fits(call, words):
    with pytest.raises(InvalidValueError, match=words):
        call()


def test_no_objects():
    label, sees = regions(np.zeros((1, 4, 4)), num_objects=0)
    assert label.tolist() == [[0]]
    assert sees.shape == (1, 1, 0)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_against_the_rule_written_out(seed, num_objects):
    rng = np.random.default_rng(seed)
    grid = TokenGrid.causal(5, (2, 4))
    labels = np.zeros((2, 5, 6, 8), np.uint8)
    for _ in range(rng.integers(0, 8)):  # rectangles and specks
        b, t, y, x = rng.integers((2, 5, 6, 8))
        labels[b, t : t + rng.integers(1, 4), y : y + rng.integers(1, 5), x : x + rng.integers(1, 6)] = rng.integers(
            0, num_objects + 1
        )
    label, sees = token_regions(torch.from_numpy(labels), grid, num_objects)
    for b in range(2):
        cover, expected, box = [], [], []
        for frames in (slice(0, 1), slice(1, 5)):
            for y in range(3):
                for x in range(2):
                    patch = labels[b, frames, 2 * y : 2 * y + 2, 4 * x : 4 * x + 4]
                    cover.append([(patch == k).sum() for k in range(1, num_objects + 1)])
                    best = int(np.argmax(cover[-1]))
                    expected.append(best + 1 if cover[-1][best] * 8 >= patch.size else 0)
                    box.append([_meets(labels[b, frames], k, y, x) for k in range(1, num_objects + 1)])
        for k in range(1, num_objects + 1):
            if k not in expected and any(row[k - 1] for row in cover):
                free = [
                    0 if owner and expected.count(owner) == 1 else row[k - 1]
                    for owner, row in zip(expected, cover, strict=True)
                ]
                if max(free):
                    expected[int(np.argmax(free))] = k
        assert label[b].tolist() == expected
        assert sees[b].tolist() == box


def _meets(frames, k, y, x):
    for frame in frames:
        rows, columns = np.nonzero(frame == k)
        if len(rows):
            up, down, left, right = rows.min(), rows.max(), columns.min(), columns.max()
            if up < 2 * y + 2 and down >= 2 * y and left < 4 * x + 4 and right >= 4 * x:
                return True
    return False
