"""Specks go, objects stay."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from throughmask.connected import as_labels, connected_regions, remove_specks

few_labels = arrays(
    np.uint8, st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9)), elements=st.integers(0, 2)
)


def test_a_speck_takes_the_label_around_it_and_a_hole_is_filled():
    labels = np.zeros((1, 9, 9), np.uint8)
    labels[0, 1:6, 1:6] = 1
    labels[0, 3, 3] = 2  # inside object 1
    labels[0, 2, 2] = 0  # a hole in it
    labels[0, 8, 8] = 1  # on the background
    labels[0, 7:, :3] = 2  # object 2 itself
    expected = np.zeros((1, 9, 9), np.uint8)
    expected[0, 1:6, 1:6], expected[0, 7:, :3] = 1, 2
    assert np.array_equal(remove_specks(labels, 4), expected)


def test_an_object_that_is_small_as_a_whole_stays():
    labels = np.zeros((1, 6, 6), np.uint8)
    labels[0, 2, 2:4] = 3
    assert np.array_equal(remove_specks(labels, 100), labels)


@given(few_labels, st.integers(0, 6))
def test_labels_that_are_present_stay_present_and_one_pixel_is_never_a_speck_of_size_one(labels, smallest):
    cleaned = remove_specks(labels, smallest)
    for before, after in zip(labels, cleaned, strict=True):
        for label in np.unique(before):
            sizes = np.bincount(connected_regions((before == label)[None]).ravel())[1:]
            if label:
                assert (after == label).any() or sizes.max() < smallest
    if smallest <= 1:
        assert np.array_equal(cleaned, labels)


@given(st.lists(arrays(bool, (5, 6)), min_size=1, max_size=5), st.randoms())
def test_smaller_masks_lie_on_top_in_whichever_order_they_come(masks, random):
    ids = random.sample(range(1, 256), len(masks))
    expected = np.zeros((5, 6), np.uint8)
    for id, mask in sorted(zip(ids, masks, strict=True), key=lambda pair: (-pair[1].sum(), pair[0])):
        expected[mask] = id
    assert np.array_equal(as_labels(dict(zip(ids, masks, strict=True)), (5, 6)), expected)
