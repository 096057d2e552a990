"""Pictures and labels at another size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from throughmask.errors import InvalidValueError
from throughmask.media import resize, resize_labels

sides = st.integers(1, 20)
labels = arrays(np.uint8, st.tuples(st.integers(1, 2), sides, sides))


@given(labels, sides, sides)
def test_labels_stay_labels(before, height, width):
    after = resize_labels(before, (height, width))
    assert after.shape == (len(before), height, width)
    assert set(np.unique(after)) <= set(np.unique(before))


@given(labels, st.sampled_from([1, 3, 5]))
def test_enlarged_and_shrunk_again_is_the_same(before, factor):
    """Only odd factors keep a pixel's centre in it."""
    height, width = before.shape[1:]
    large = resize_labels(before, (factor * height, factor * width))
    assert (large == before.repeat(factor, 1).repeat(factor, 2)).all()
    assert (resize_labels(large, (height, width)) == before).all()


@given(st.integers(0, 255), sides, sides, sides, sides)
def test_a_plain_picture_stays_plain(value, height, width, new_height, new_width):
    picture = np.full((height, width, 3), value, np.uint8)
    assert (resize(picture, (new_height, new_width)) == np.full((new_height, new_width, 3), value)).all()


def test_picture_and_labels_stay_together():
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 15:45] = 1
    picture = np.repeat(255 * mask[..., None], 3, -1)
    for size in ((20, 30), (80, 90), (33, 47)):
        assert ((resize(picture, size)[..., 0] > 127) != resize_labels(mask, size)).mean() < 0.03


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (1 << 14, 1 << 14)])
def test_an_impossible_size(size):
    for function, values in ((resize, np.zeros((2, 2, 3), np.uint8)), (resize_labels, np.zeros((2, 2), np.uint8))):
        with pytest.raises(InvalidValueError, match="a picture has 1 to"):
            function(values, size)
