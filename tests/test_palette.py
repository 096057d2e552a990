"""Ids become colours and come back; far colours are counted; unknown palettes are found from the video itself."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from throughmask.errors import InvalidValueError
from throughmask.palette import DAVIS, FAR, NAMED, OURS, PAPER, Palette, detect, named

PALETTES = list(NAMED.values())
few = settings(max_examples=12, deadline=None)  # `snap` counts all 16 million colours each time


@pytest.mark.parametrize("palette", PALETTES, ids=lambda palette: palette.name)
@few
@given(data=st.data())
def test_snap_undoes_paint(palette, data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=8))
    maps = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, palette.num_objects)))
    back, far = palette.snap(palette.paint(maps))
    assert np.array_equal(back, maps)
    assert far == 0


@few
@given(st.integers(0, 2**32 - 1))
def test_our_palette_survives_noise_of_a_quarter_of_its_spacing(seed):
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, OURS.num_objects + 1, (9, 9)).astype(np.uint8)
    noise = rng.integers(-FAR, FAR + 1, (9, 9, 3))
    back, far = OURS.snap(np.clip(OURS.paint(maps) + noise, 0, 255).astype(np.uint8))
    assert np.array_equal(back, maps)
    assert far == 0


def test_far_pixels_are_counted_and_given_to_the_nearest():
    colours = OURS.paint(np.array([[0, 1, 2, 3]], np.uint8))
    colours[0, 0] = (FAR + 1, 0, 0)
    back, far = OURS.snap(colours)
    assert back.tolist() == [[0, 1, 2, 3]]
    assert far == 0.25


def test_snap_of_many_distinct_colours_agrees_with_the_definition():
    colours = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)  # more than one block of 65,536
    back, far = PAPER.snap(colours)
    some = colours[::30, ::30].astype(int)
    distances = ((some[..., None, :] - PAPER.colours.astype(int)) ** 2).sum(-1)
    assert np.array_equal(back[::30, ::30], distances.argmin(-1))
    nearest = PAPER.colours[back].astype(int)
    assert far == pytest.approx((np.abs(colours - nearest).max(-1) > FAR).mean())


def test_ours_has_twelve_colours_far_apart():
    distances = np.linalg.norm(OURS.colours[:, None].astype(float) - OURS.colours[None], axis=-1)
    assert OURS.num_objects >= 12
    assert distances[~np.eye(len(distances), dtype=bool)].min() > 179


def test_papers_palette_is_the_librarys_at_half_brightness(assets):
    oracle = json.loads((assets / "oracles" / "supervision_palette.json").read_text())
    assert PAPER.colours.tolist() == oracle["half_on_black_rgb_by_object_id"]


def test_davis_palette_is_the_published_one(assets):
    from PIL import Image

    path = next((assets / "videos" / "davis17_multi" / "dogs_jump" / "gt_instances").glob("*.png"))
    with Image.open(path) as image:
        stored = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    assert np.array_equal(DAVIS.colours[: len(stored)], stored)


def test_davis_paints_all_255_objects():
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(DAVIS.snap(DAVIS.paint(every))[0], every)


def test_ids_beyond_the_palette_are_refused():
    with pytest.raises(InvalidValueError, match=r"no colour in the palette \(seen: \[200\]\).*13 colours"):
        OURS.paint(np.array([0, 1, 200], np.uint8))


@pytest.mark.parametrize(
    "colours",
    [
        np.zeros((3, 3), np.uint8),
        np.zeros((1, 3), np.uint8),
        np.zeros((257, 3), np.uint8),
        np.arange(6).reshape(2, 3),
        np.arange(8, dtype=np.uint8).reshape(2, 4),
    ],
)
def test_a_palette_is_distinct_rgb_rows(colours):
    with pytest.raises(InvalidValueError, match="palette"):
        Palette("bad", colours)


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.zeros((2, 4), np.uint8)])
def test_snap_takes_rgb_bytes(bad):
    with pytest.raises(InvalidValueError, match="three channels"):
        OURS.snap(bad)


def test_palettes_are_equal_by_name_and_colours_and_read_only():
    assert Palette("a", OURS.colours) == Palette("a", OURS.colours.copy())
    assert Palette("a", OURS.colours) != Palette("b", OURS.colours)
    assert Palette("a", OURS.colours) != Palette("a", OURS.colours[:-1])
    assert OURS != "ours"
    with pytest.raises(ValueError, match="read-only"):
        OURS.colours[0] = 1


def test_palettes_by_name():
    assert named("paper") is PAPER
    with pytest.raises(InvalidValueError, match="known: ours, paper, davis"):
        named("rainbow")


def moving(num_objects, num_frames=5, size=(48, 64)):
    """Labels of blocks that move right; block k first appears in frame k - 1, and later blocks are larger."""
    maps = np.zeros((num_frames, *size), np.uint8)
    for k in range(1, num_objects + 1):
        top = (k - 1) * (size[0] // num_objects) + 1
        for t in range(min(k - 1, num_frames - 1), num_frames):
            maps[t, top : top + size[0] // num_objects - 2, 4 + t : 14 + t + 3 * k] = k
    return maps


# The paper's third colour is only 27 levels from its first, closer than `detect` can part: that palette must be named.
@pytest.mark.slow
@pytest.mark.parametrize(("palette", "num_objects"), [(OURS, 1), (OURS, 2), (OURS, 4), (PAPER, 2)])
@few
@given(seed=st.integers(0, 2**32 - 1))
def test_detect_finds_the_objects_of_a_noisy_video_in_order_of_appearance(palette, num_objects, seed):
    maps = moving(num_objects)
    noise = np.random.default_rng(seed).integers(-6, 7, (*maps.shape, 3))
    colours = np.clip(palette.paint(maps).astype(int) + noise, 0, 255).astype(np.uint8)
    found = detect(colours, name="found")
    assert found.name == "found"
    assert np.array_equal(found.snap(colours)[0], maps)
    assert np.abs(found.colours.astype(int) - palette.colours[: num_objects + 1]).max() <= 6


def test_detect_takes_the_borders_most_common_colour_where_nothing_is_black():
    maps = moving(2)
    white = Palette("white", np.array([(255, 255, 255), (200, 30, 30), (30, 30, 200)], np.uint8))
    assert detect(white.paint(maps)) == Palette("detected", white.colours)


def test_detect_takes_a_single_frame():
    maps = moving(1)
    assert detect(OURS.paint(maps[0])).num_objects == 1


def test_detect_refuses_one_colour_and_photographs():
    with pytest.raises(InvalidValueError, match=r"do not look like a colour mask video \(seen: 1 colours\)"):
        detect(np.zeros((2, 8, 8, 3), np.uint8))
    photograph = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    with pytest.raises(InvalidValueError, match="name the palette"):
        detect(photograph)
