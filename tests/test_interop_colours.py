"""Colour mask video: lossless round trips, the paper's own clips against measured areas, MagicMotion's, palettes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from throughmask import media
from throughmask.errors import FormatError, InvalidValueError, MediaError, ThroughMaskError
from throughmask.interop.colours import choose_palette, read_colours, write_colours
from throughmask.interop.imported import resize_nearest
from throughmask.palette import DAVIS, OURS, PAPER, Palette
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory, Video

CLIPS = [f"comb_cp_unet/{name}" for name in ("bug_car", "fox", "jeep", "ocean", "parrots", "sharks")]
CLIPS.append("vs_flow/ours/jeep_cond")
labels = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=20), elements=st.integers(0, 13))


@pytest.mark.slow
@given(labels, st.sampled_from([12, "30000/1001"]))
@settings(deadline=None, max_examples=30)
def test_reading_inverts_writing(tmp_path_factory, array, fps):
    path = tmp_path_factory.mktemp("colours") / "masks.mp4"
    write_colours(MaskTrajectory(array, fps), path)
    assert read_colours(path, palette="ours").trajectory == MaskTrajectory(array, fps)
    assert read_colours(path).trajectory == MaskTrajectory(array, fps)


@pytest.mark.parametrize("palette", [OURS, PAPER, DAVIS])
def test_lossless_video_keeps_every_id_of_every_palette(tmp_path, palette):
    array = np.arange(palette.num_objects + 1, dtype=np.uint8).reshape(1, 1, -1).repeat(2, 1)
    write_colours(MaskTrajectory(array, 24), tmp_path / "m.mp4", palette=palette.name)
    imported = read_colours(tmp_path / "m.mp4")
    assert np.array_equal(imported.trajectory.labels, array)
    assert f"'{palette.name}'" in imported.notes[0]
    assert "0.00%" in imported.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
def test_areas_in_the_papers_own_clips(assets, clip):
    expected = json.loads((assets / "oracles" / "ttm_page_masks.json").read_text())["videos"][f"ttm_page/{clip}.mp4"]
    crop = (512, 1024) if clip.startswith("comb") else None
    imported = read_colours(assets / "ttm_page" / f"{clip}.mp4", palette="paper", num_objects=5, crop=crop)
    masks = imported.trajectory.labels
    assert masks.shape == (expected["frames"], 512, 512)
    areas = np.stack([np.bincount(one.ravel(), minlength=6) / one.size for one in masks])
    assert areas.mean(0) == pytest.approx(expected["mean_area_by_id"], abs=0.002)
    assert areas[0] == pytest.approx(expected["first"], abs=0.002)
    assert areas[-1] == pytest.approx(expected["last"], abs=0.002)
    far = float(imported.notes[0].split("; ")[1].split("%")[0])
    assert 0 < far < 1.3


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["comb_cp_unet/fox", "vs_flow/ours/jeep_cond"])
def test_the_papers_palette_is_recognised(assets, clip):
    crop = (512, 1024) if clip.startswith("comb") else None
    imported = read_colours(assets / "ttm_page" / f"{clip}.mp4", crop=crop)
    assert imported.trajectory.ids == (1, 2)
    assert "'paper' (objects 1 to 2)" in imported.notes[0]


@pytest.mark.slow
def test_magicmotion_has_a_mammoth_and_a_rhino(assets):
    folder = assets / "videos" / "magicmotion_mammoth_rhino"
    with pytest.raises(FormatError, match=r"480×864, video 480×854.*--resize-masks nearest"):
        read_colours(folder / "mask_trajectory.mp4", palette="paper", video=folder / "video.mp4")
    imported = read_colours(folder / "mask_trajectory.mp4", video=folder / "video.mp4", resize="nearest")
    sample = imported.to_sample(names={1: "rhino", 2: "mammoth"}, prompt="two animals walk")
    assert sample.video.size == sample.trajectory.size == (480, 854)
    assert "'paper' (objects 1 to 2)" in imported.notes[0]
    detected = read_colours(folder / "mask_trajectory.mp4", palette="detected").trajectory.labels
    centres = {k: np.nonzero(detected == k)[2].mean() / 864 for k in (1, 2)}
    assert centres[1] < 0.5 < centres[2], "of two that appear together the larger comes first: the mammoth, on the left"
    assert 0.05 < (detected == 2).mean() < (detected == 1).mean() < 0.1
    # The same two objects under either palette, but for the seams
    known = sample.trajectory.labels
    assert (resize_nearest(detected, (480, 854)) == np.array([0, 2, 1], np.uint8)[known]).mean() > 0.995


def test_lossy_video_of_our_palette_is_recognised_and_keeps_its_ids(tmp_path):
    sample = make_sample(3, num_objects=3)
    media.write_video(tmp_path / "m.mp4", Video(OURS.paint(sample.trajectory.labels), 12))
    imported = read_colours(tmp_path / "m.mp4")
    assert "'ours'" in imported.notes[0]
    assert (imported.trajectory.labels == sample.trajectory.labels).mean() > 0.99


def test_an_unknown_palette_is_detected():
    strange = Palette("strange", np.array([(10, 10, 10), (60, 180, 90), (200, 60, 140)], np.uint8))
    masks = np.zeros((3, 32, 32), np.uint8)
    masks[:, 8:16, 8:16], masks[1:, 20:30, 4:28] = 1, 2
    found = choose_palette(strange.paint(masks))
    assert found.name == "detected"
    assert np.array_equal(found.snap(strange.paint(masks))[0], masks)
    assert choose_palette(strange.paint(masks), strange) is strange
    with pytest.raises(FormatError, match="1 colours"):
        choose_palette(strange.paint(masks[:, :4]))


@pytest.mark.slow
def test_pictures_are_no_masks(assets):
    with pytest.raises(FormatError, match="do not look like a colour mask video"):
        read_colours(assets / "ttm_page" / "vs_flow" / "ours" / "jeep.mp4")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_objects": 14}, "num_objects"),
        ({"num_objects": True}, "num_objects"),
        ({"palette": "rainbow"}, "no palette"),
        ({"crop": (0, 129)}, "crop"),
        ({"crop": (5, 5)}, "crop"),
        ({"crop": (0.5, 5)}, "crop"),
        ({"resize": "nearest", "video": "other rate"}, "frame rate"),
        ({"resize": "bilinear", "video": "same"}, "nearest"),
    ],
)
def test_impossible_options(tmp_path, options, words):
    sample = make_sample(4, frames=4)
    write_colours(sample, tmp_path / "m.mp4")
    media.write_video(tmp_path / "same.mp4", sample.video)
    media.write_video(tmp_path / "other rate.mp4", Video(sample.video.frames, 24))
    options = dict(options)
    if "video" in options:
        options["video"] = tmp_path / f"{options['video']}.mp4"
    with pytest.raises(ThroughMaskError, match=words):
        read_colours(tmp_path / "m.mp4", **{"palette": "ours", **options})


def test_crop_takes_the_panel_that_holds_the_masks(tmp_path):
    sample = make_sample(5, frames=4)
    panels = np.concatenate([sample.video.frames, OURS.paint(sample.trajectory.labels)], axis=2)
    media.write_video(tmp_path / "m.mp4", Video(panels, 12), lossless=True)
    assert read_colours(tmp_path / "m.mp4", crop=(128, 256)).trajectory == sample.trajectory


def test_fps_resamples_masks_and_video_alike(tmp_path):
    sample = make_sample(6, frames=12, fps=12)
    write_colours(sample, tmp_path / "m.mp4")
    media.write_video(tmp_path / "v.mp4", sample.video)
    imported = read_colours(tmp_path / "m.mp4", fps=6, video=tmp_path / "v.mp4")
    assert np.array_equal(imported.trajectory.labels, sample.trajectory.labels[::2])
    assert imported.to_sample().video.fps == 6


def test_what_cannot_be_written(tmp_path):
    masks = MaskTrajectory(np.full((1, 4, 4), 14, np.uint8), 24)
    with pytest.raises(InvalidValueError, match="no colour"):
        write_colours(masks, tmp_path / "m.mp4")
    with pytest.raises(MediaError, match="mp4"):
        write_colours(masks, tmp_path / "m.avi", palette="davis")
    assert list(tmp_path.iterdir()) == []


@given(labels, st.integers(1, 4))
@settings(deadline=None)
def test_nearest_resizing_by_a_whole_factor_loses_nothing(array, factor):
    size = array.shape[1:]
    large = resize_nearest(array, (size[0] * factor, size[1] * factor))
    assert np.array_equal(large, array.repeat(factor, 1).repeat(factor, 2))
    assert np.array_equal(resize_nearest(large, size), array)
