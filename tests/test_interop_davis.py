"""DAVIS folders: round trips, void, the data set's own layout, and folders that must be refused."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from throughmask import media
from throughmask.errors import FormatError, InvalidValueError, OutputError
from throughmask.interop.davis import read_davis, write_davis
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory, Sample

labels = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.integers(0, 254))


def _folder(path, arrays, names=None):
    path.mkdir(parents=True)
    for k, array in enumerate(arrays):
        media.write_labels(path / (names[k] if names else f"{k:05d}.png"), np.asarray(array, np.uint8))
    return path


@given(labels)
@settings(deadline=None, max_examples=50)
def test_reading_inverts_writing(tmp_path_factory, array):
    folder = tmp_path_factory.mktemp("davis") / "out"
    write_davis(MaskTrajectory(array, 24), folder)
    assert read_davis(folder).trajectory == MaskTrajectory(array, 24)


@pytest.mark.slow
@pytest.mark.parametrize("masks", ["davis17_multi/dogs_jump/gt_instances", "davis16/horsejump-high/derived_instances"])
def test_real_folder_round_trip(assets, tmp_path, masks):
    source = assets / "videos" / masks
    imported = read_davis(source, video=source.parent / "video.mp4")
    assert imported.notes == ()
    assert imported.trajectory.fps == 24
    for path, one in zip(sorted(source.glob("*.png")), imported.trajectory.labels, strict=True):
        assert np.array_equal(one, np.array(Image.open(path)))
    sample = imported.to_sample()
    assert sample.video.size == sample.scene.size
    write_davis(sample, tmp_path / "out")
    assert read_davis(tmp_path / "out").trajectory == imported.trajectory
    assert sorted(p.name for p in (tmp_path / "out").iterdir())[0] == "00000.png"


def test_void_becomes_background_and_is_counted(tmp_path):
    folder = _folder(tmp_path / "a", [[[0, 1, 255], [255, 2, 2]], [[0, 1, 1], [0, 0, 0]]])
    imported = read_davis(folder)
    assert imported.trajectory.labels[0].tolist() == [[0, 1, 0], [0, 2, 2]]
    assert imported.notes == ("Void (255) became background: 2 pixels in 1 of 2 frames.",)


def test_grey_masks_of_davis_2016_are_an_object_and_indexed_void_is_not(tmp_path):
    (tmp_path / "grey").mkdir()
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "grey" / "0.png")
    imported = read_davis(tmp_path / "grey")
    assert imported.trajectory.labels.tolist() == [[[0, 1]]]
    assert "DAVIS 2016" in imported.notes[0]
    assert read_davis(_folder(tmp_path / "indexed", [[[0, 255]]])).trajectory.ids == ()


def test_numbers_order_frames_and_steps_slow_them(tmp_path):
    folder = _folder(tmp_path / "a", [[[1]], [[2]], [[3]]], names=["10.png", "5.png", "0.png"])
    imported = read_davis(folder)
    assert imported.trajectory.labels.ravel().tolist() == [3, 2, 1]
    assert imported.trajectory.fps * 5 == 24
    assert "steps of 5" in imported.notes[0]
    assert read_davis(folder, fps=8).trajectory.fps == 8
    words = _folder(tmp_path / "b", [[[1]], [[2]]], names=["b.png", "a.PNG"])
    assert read_davis(words).trajectory.labels.ravel().tolist() == [2, 1]


@pytest.mark.parametrize("names", [["0.png", "1.png", "3.png"], ["0.png", "1.png", "01.png"]])
def test_missing_and_doubled_frames_are_refused(tmp_path, names):
    with pytest.raises(FormatError, match="evenly spaced"):
        read_davis(_folder(tmp_path / "a", [[[1]]] * 3, names=names))


def _dataset(root, sample):
    masks, pictures = root / "Annotations" / "480p" / "clip", root / "JPEGImages" / "480p" / "clip"
    write_davis(sample, masks)
    pictures.mkdir(parents=True)
    for k, frame in enumerate(sample.video.frames):
        media.write_image(pictures / f"{k:05d}.jpg", frame)
    return masks, pictures


def test_pictures_are_found_in_the_usual_layout(tmp_path):
    sample = make_sample(1, frames=5, fps=24)
    masks, pictures = _dataset(tmp_path, sample)
    imported = read_davis(masks)
    assert np.abs(imported.video.frames.astype(int) - sample.video.frames).mean() < 4
    assert imported.to_sample().trajectory == sample.trajectory
    media.write_image(pictures / "00005.jpg", sample.video.frames[0])
    extra = read_davis(masks)
    assert extra.video == imported.video
    assert "1 pictures in JPEGImages have no mask" in extra.notes[0]
    (pictures / "00005.jpg").unlink()
    (pictures / "00004.jpg").unlink()
    short = read_davis(masks)
    assert short.video is None
    assert "1 masks have none" in short.notes[0]
    shutil.rmtree(pictures)
    assert read_davis(masks).video is None


def test_masks_of_another_size_than_the_video(tmp_path):
    sample = make_sample(2, size=(32, 48), frames=3, fps=24)
    media.write_video(tmp_path / "v.mp4", sample.video)
    folder = _folder(tmp_path / "m", sample.trajectory.labels[:, ::2, ::2])
    with pytest.raises(FormatError, match="--resize-masks nearest"):
        read_davis(folder, video=tmp_path / "v.mp4")
    imported = read_davis(folder, video=tmp_path / "v.mp4", resize="nearest")
    assert np.array_equal(imported.trajectory.labels[:, ::2, ::2], sample.trajectory.labels[:, ::2, ::2])
    assert "from 16×24 to 32×48" in imported.notes[0]
    with pytest.raises(InvalidValueError, match="nearest"):
        read_davis(folder, video=tmp_path / "v.mp4", resize="bilinear")
    (folder / "00002.png").unlink()
    with pytest.raises(FormatError, match="frame count"):
        read_davis(folder, video=tmp_path / "v.mp4", resize="nearest")


def test_folders_that_are_not_davis(tmp_path, monkeypatch):
    with pytest.raises(FormatError, match="no such folder"):
        read_davis(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"no \.png files"):
        read_davis(tmp_path / "empty")
    with pytest.raises(FormatError, match="masks differ in size"):
        read_davis(_folder(tmp_path / "sizes", [[[1, 1]], [[1], [1]]]))
    folder = _folder(tmp_path / "many", [[[1]]] * 3)
    monkeypatch.setattr(media, "MAX_FRAMES", 2)
    with pytest.raises(FormatError, match="more than 2 frames"):
        read_davis(folder)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    outside = _folder(tmp_path / "outside", [[[1]]])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").symlink_to(outside / "00000.png")
    with pytest.raises(FormatError, match="out of its folder"):
        read_davis(tmp_path / "a")


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(InvalidValueError, match="255 for void"):
        write_davis(MaskTrajectory(np.full((1, 2, 2), 255, np.uint8), 24), tmp_path / "a")
    with pytest.raises(InvalidValueError, match="no trajectory"):
        write_davis(Sample(make_sample(0).scene), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    trajectory = MaskTrajectory(np.ones((1, 2, 2), np.uint8), 24)
    write_davis(trajectory, tmp_path / "b")
    with pytest.raises(OutputError):
        write_davis(trajectory, tmp_path / "b")
    write_davis(trajectory, tmp_path / "b", force=True)
