"""Optical flow as colours: what the wheel means, and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from throughmask.errors import InvalidValueError
from throughmask.flow import hold_last, paint_flow, read_flow

vectors = arrays(np.float32, (2, 3, 4, 2), elements=st.floats(-50, 50, width=32))


@pytest.mark.parametrize(
    ("vector", "colour"),
    [
        ((0, 0), (255, 255, 255)),
        ((10, 0), (255, 0, 0)),
        ((-10, 0), (0, 255, 255)),
        ((0, 10), (128, 255, 0)),
        ((0, -10), (128, 0, 255)),
        ((5, 0), (255, 128, 128)),
        ((99, 0), (255, 0, 0)),
    ],
)
def test_the_convention(vector, colour):
    assert np.abs(paint_flow(np.array(vector, float), 10).astype(int) - colour).max() <= 1


@given(vectors, st.floats(0.1, 100))
def test_there_and_back(flow, maximum):
    colours = paint_flow(flow, maximum)
    assert (colours.shape, colours.dtype) == ((2, 3, 4, 3), np.uint8)
    assert (colours.max(-1) == 255).all()
    length = np.hypot(flow[..., 0].astype(float), flow[..., 1].astype(float))
    cut = flow * np.minimum(1, maximum / np.maximum(length, 1e-12))[..., None]
    assert np.abs(read_flow(colours, maximum) - cut).max() <= 0.01 * maximum


@given(arrays(np.uint8, (5, 3)))
def test_any_colour_is_some_flow_within_the_maximum(colours):
    flow = read_flow(colours, 7.0)
    assert np.isfinite(flow).all()
    assert np.hypot(flow[:, 0], flow[:, 1]).max() <= 7.0001


def test_the_last_flow_is_held():
    flow = np.random.default_rng(0).normal(size=(4, 2, 2, 2))
    held = hold_last(flow)
    assert len(held) == 5
    assert (held[:4] == flow).all()
    assert (held[4] == flow[3]).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: paint_flow(np.zeros((2, 3))),
        lambda: paint_flow(np.zeros((2, 2), int)),
        lambda: paint_flow(np.array([np.nan, 0])),
        lambda: paint_flow(np.zeros((2, 2)), 0),
        lambda: read_flow(np.zeros((2, 2), np.uint8)),
        lambda: read_flow(np.zeros((2, 3))),
        lambda: read_flow(np.zeros((2, 3), np.uint8), float("nan")),
        lambda: hold_last(np.zeros((0, 2, 2, 2))),
    ],
)
def test_what_is_refused(wrong):
    with pytest.raises(InvalidValueError):
        wrong()
