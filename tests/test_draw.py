"""Overlays change objects only; a contact sheet shows every row, its first and its last frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughmask.draw import contact_sheet, overlay
from throughmask.errors import InvalidValueError
from throughmask.palette import DAVIS, OURS


def scene(num_frames=2, height=30, width=40):
    pixels = np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    labels = np.zeros((num_frames, height, width), np.uint8)
    labels[:, 5:20, 5:20], labels[:, 10:25, 15:30] = 1, 2
    return pixels, labels


def flat(value, num_frames=3, height=20, width=40):
    return np.full((num_frames, height, width, 3), value, np.uint8)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.booleans(), st.integers(0, 99))
def test_the_background_never_changes_and_objects_are_mixed(opacity, contours, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (2, 6, 7)).astype(np.uint8)
    pixels = rng.integers(0, 256, (2, 6, 7, 3), dtype=np.uint8)
    drawn = overlay(pixels, labels, opacity=opacity, contours=contours)
    assert np.array_equal(drawn[labels == 0], pixels[labels == 0])
    mixed = np.rint((1 - opacity) * pixels + opacity * OURS.paint(labels)).astype(np.uint8)
    as_mixed = (drawn == mixed).all(-1)
    as_outline = (drawn == OURS.paint(labels)).all(-1)
    assert (as_mixed | (as_outline & contours))[labels > 0].all()


def test_opacity_zero_and_one():
    pixels, labels = scene()
    assert np.array_equal(overlay(pixels, labels, opacity=0, contours=False), pixels)
    painted = overlay(pixels, labels, opacity=1)
    assert np.array_equal(painted[labels > 0], OURS.paint(labels)[labels > 0])


def test_outlines_follow_the_edges_of_objects_but_not_of_the_frame():
    pixels, labels = flat(100, 1, 30, 40), np.zeros((1, 30, 40), np.uint8)
    labels[0, :10, :10] = 1
    drawn = overlay(pixels, labels, opacity=0)[0]
    outline = (drawn == OURS.colours[1]).all(-1)
    expected = np.zeros((30, 40), bool)
    expected[9, :10] = expected[:10, 9] = True
    assert np.array_equal(outline, expected)


def test_two_objects_that_touch_are_outlined_each_in_its_colour():
    pixels, labels = scene()
    drawn = overlay(pixels, labels, opacity=0)
    assert (drawn[:, 12, 14] == OURS.colours[1]).all()
    assert (drawn[:, 12, 15] == OURS.colours[2]).all()


def test_outlines_are_wider_in_large_frames():
    labels = np.zeros((1, 480, 480), np.uint8)
    labels[0, :, :240] = 1
    drawn = overlay(flat(9, 1, 480, 480), labels, opacity=0)
    assert (drawn[0, 50] == OURS.colours[1]).all(-1).sum() == 2


def test_the_input_is_left_alone_and_other_palettes_serve_more_objects():
    pixels, labels = scene()
    before = pixels.copy()
    overlay(pixels, labels * 100, DAVIS)
    assert np.array_equal(pixels, before)
    with pytest.raises(InvalidValueError, match="no colour in the palette"):
        overlay(pixels, labels * 100)


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_opacity_is_a_share(opacity):
    with pytest.raises(InvalidValueError, match="between 0 and 1"):
        overlay(*scene(), opacity=opacity)


def test_overlay_needs_frames_and_labels_of_one_size():
    pixels, labels = scene()
    for one, other in (
        (pixels[:1], labels),
        (pixels[0], labels[0]),
        (pixels, labels[:, 1:]),
        (pixels.astype(int), labels),
    ):
        with pytest.raises(InvalidValueError, match="of the same size"):
            overlay(one, other)


def test_a_sheet_shows_the_first_and_the_last_frame_of_each_row():
    frames = np.stack([np.full((20, 40, 3), 10 * k, np.uint8) for k in range(10)])
    sheet = contact_sheet([("masks", frames)], columns=4, width=640)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1:] == (640, 3)
    for level in (0, 30, 60, 90):
        assert (sheet == level).all(-1).sum() > 5_000, f"frame {level // 10} is there"
    assert not (sheet == 50).all(-1).sum() > 500, "frame 5 is not"


def test_rows_stand_below_each_other_and_short_ones_are_shorter():
    sheet = contact_sheet([("one", flat(50)), ("two", flat(150, 1))], columns=3, width=600)
    first, second = ((sheet == level).all(-1) for level in (50, 150))
    assert first.any(1).nonzero()[0].max() < second.any(1).nonzero()[0].min()
    assert first.sum() > 2.5 * second.sum()
    assert contact_sheet([("one", flat(50))], columns=3, width=600).shape[0] < sheet.shape[0]


def test_titles_are_drawn_cut_to_the_width_and_may_be_empty():
    short, long = (contact_sheet([("a" * n, flat(50))], width=400) for n in (4, 4000))
    assert short.shape == long.shape
    dark = [(sheet[8:19] < 100).all(-1).any(0).nonzero()[0] for sheet in (short, long)]
    assert dark[0].max() < 100 < dark[1].max() < 400
    assert contact_sheet([("", flat(50))], width=400).shape[0] < short.shape[0]


def test_letters_that_the_font_lacks_are_replaced():
    row = flat(50)
    assert np.array_equal(contact_sheet([("Grün 漢", row)]), contact_sheet([("Grun ?", row)]))


def test_captions_shrink_in_narrow_cells():
    assert contact_sheet([("x", flat(50, 40))], columns=20, width=480).shape[1] == 480


def test_enlarging_and_shrinking_do_not_invent_colours():
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    frames[0, :, 4:] = 200
    for width, margin in ((32, 8), (900, 11)):
        cell = width - 2 * margin
        sheet = contact_sheet([("", np.repeat(np.repeat(frames, 3, 1), 3, 2))], columns=1, width=width)
        assert sheet[margin : margin + cell, margin : margin + cell].max() <= 200


@pytest.mark.parametrize(
    ("rows", "options"),
    [([], {}), ([("a", flat(1))], {"columns": 0}), ([("a", flat(1))], {"columns": 50, "width": 300})],
)
def test_a_sheet_needs_rows_columns_and_room(rows, options):
    with pytest.raises(InvalidValueError, match="needs a row, a column"):
        contact_sheet(rows, **options)


@pytest.mark.parametrize("bad", [flat(1)[0], flat(1)[:0], flat(1).astype(float), flat(1)[..., 0]])
def test_a_row_is_frames(bad):
    with pytest.raises(InvalidValueError, match="must be uint8 T H W 3"):
        contact_sheet([("a", bad)])
