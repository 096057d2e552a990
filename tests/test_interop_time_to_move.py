"""Time-to-Move case folders: real ones, what a written one holds, its crude animation, and folders to refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from throughmask import media
from throughmask.connected import connected_regions
from throughmask.errors import FormatError, InvalidValueError, OutputError
from throughmask.interop.time_to_move import motion_signal, read_time_to_move, write_time_to_move
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory, Sample, Scene, SceneObject, Video


@pytest.mark.slow
@pytest.mark.parametrize(("case", "fps"), [("Monkey", 16), ("Owl", 24), ("Rhino", 24)])
def test_real_case(assets, tmp_path, case, fps):
    folder = assets / "videos" / "time_to_move" / f"cutdrag_wan_{case}"
    imported = read_time_to_move(folder)
    trajectory = imported.trajectory
    assert (len(trajectory), trajectory.size, trajectory.fps, trajectory.ids) == (81, (480, 720), fps, (1,))
    assert imported.prompt == (folder / "prompt.txt").read_text().strip()
    assert imported.video is None
    assert any("motion_signal.mp4 was left out" in note for note in imported.notes)
    sample = imported.to_sample(names={1: case})
    assert np.array_equal(sample.scene.image, media.read_image(folder / "first_frame.jpg"))
    short = Sample(sample.scene, MaskTrajectory(trajectory.labels[:5], fps))
    write_time_to_move(short, tmp_path / "case")
    back = read_time_to_move(tmp_path / "case")
    assert back.trajectory == short.trajectory
    assert np.array_equal(back.image, imported.image)
    assert back.prompt == imported.prompt


def test_written_case_holds_the_union_the_picture_and_the_prompt(tmp_path):
    sample = make_sample(0, num_objects=2, size=(63, 65), frames=6)
    write_time_to_move(sample, tmp_path / "case")
    names = {path.name for path in (tmp_path / "case").iterdir()}
    assert names == {"first_frame.png", "mask.mp4", "motion_signal.mp4", "prompt.txt"}
    back = read_time_to_move(tmp_path / "case")
    assert np.array_equal(back.trajectory.labels, sample.trajectory.labels > 0)
    assert np.array_equal(back.image, sample.scene.image)
    assert (back.trajectory.fps, back.prompt) == (12, sample.scene.prompt)
    signal = media.read_video(tmp_path / "case" / "motion_signal.mp4")
    assert (len(signal), signal.size, signal.fps) == (6, (63, 65), 12)
    with pytest.raises(OutputError):
        write_time_to_move(sample, tmp_path / "case")


def _square(frames, size=8):
    """A noisy square on noise, and its masks where its top left corners are `frames` (None: absent)."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    labels = np.zeros((len(frames), 40, 50), np.uint8)
    for one, corner in zip(labels, frames, strict=True):
        if corner is not None:
            one[corner[0] : corner[0] + size, corner[1] : corner[1] + size] = 1
    return image, MaskTrajectory(labels, 8)


def test_motion_signal_moves_the_pixels_exactly_and_fills_what_they_leave():
    image, trajectory = _square([(4, 5), (20, 30), None, (4, 5)])
    signal = motion_signal(image, trajectory)
    assert np.array_equal(signal[0], image)
    assert np.array_equal(signal[3], image)
    assert np.array_equal(signal[1, 20:28, 30:38], image[4:12, 5:13])
    assert np.array_equal(signal[2, 4:12, 5:9], image[4:12, 4:5].repeat(4, 1))
    assert np.array_equal(signal[2, 4:12, 9:13], image[4:12, 13:14].repeat(4, 1))
    outside = trajectory.labels[0] == 0
    assert np.array_equal(signal[2][outside], image[outside])


def test_motion_signal_scales_the_cut_out_to_its_box():
    image, trajectory = _square([(4, 5), (10, 20)])
    labels = trajectory.labels.copy()
    labels[1] = 0
    labels[1, 10:26, 20:36] = 1
    signal = motion_signal(image, MaskTrajectory(labels, 8))
    assert np.array_equal(signal[1, 10:26, 20:36], image[4:12, 5:13].repeat(2, 0).repeat(2, 1))


def test_motion_signal_at_the_edges_of_what_can_be():
    image, trajectory = _square([None, (4, 5)])
    assert np.array_equal(motion_signal(image, trajectory), np.stack([image] * 2))  # no pixels to drag
    full = np.ones((2, 40, 50), np.uint8)
    full[1] = 0
    assert np.array_equal(motion_signal(image, MaskTrajectory(full, 8))[1], image)  # no background to fill with
    edge = np.zeros((2, 40, 50), np.uint8)
    edge[0, 3, :10], edge[0, 5, 40:] = 1, 1
    filled = motion_signal(image, MaskTrajectory(edge, 8))[1]
    assert (filled[3, :10] == image[3, 10]).all()
    assert (filled[5, 40:] == image[5, 39]).all()


def _case(folder, masks, image=None):
    folder.mkdir()
    frames = np.where(np.asarray(masks)[..., None], np.uint8(255), np.uint8(0)).repeat(3, -1)
    media.write_video(folder / "mask.mp4", Video(frames, 8), lossless=True)
    media.write_image(folder / "first_frame.png", image if image is not None else frames[0])
    return folder


def test_regions_that_never_touch_become_objects_when_told(tmp_path):
    masks = np.zeros((3, 32, 48), bool)
    masks[:, 2:12, 2:12] = True  # always there
    masks[0, 20:30, 20:30] = masks[1, 20:30, 24:34] = True  # moves
    masks[2, 20:24, 2:3] = True  # a speck
    folder = _case(tmp_path / "case", masks)
    assert read_time_to_move(folder).trajectory.ids == (1,)
    imported = read_time_to_move(folder, separate=True)
    assert imported.trajectory.ids == (1, 2)
    assert np.array_equal(imported.trajectory.labels == 2, masks & (np.arange(48) > 15))
    assert "2 separate regions; 4 pixels" in imported.notes[0]
    assert imported.prompt == ""
    specks = np.zeros((1, 32, 48), bool)
    specks[0, 4, 4] = True
    with pytest.raises(FormatError, match="regions"):
        read_time_to_move(_case(tmp_path / "specks", specks), separate=True)


def _flooded(mask):
    """Slow connected regions: the smallest index spreads until nothing changes."""
    index = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(np.where(mask, index, mask.size + 1), 1, constant_values=mask.size + 1)
        near = [np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for shift in (-1, 0, 1)]
        spread = np.where(mask, np.min(near, axis=0), 0)
        if np.array_equal(spread, index):
            return np.unique(np.append(index, 0), return_inverse=True)[1][:-1].reshape(mask.shape)
        index = spread


@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=7)))
@settings(deadline=None, max_examples=50)
def test_connected_regions_equal_flooding(mask):
    assert np.array_equal(connected_regions(mask), _flooded(mask))


def test_folders_that_are_no_case(tmp_path):
    masks = np.ones((2, 16, 16), bool)
    with pytest.raises(FormatError, match="no Time-to-Move case"):
        read_time_to_move(tmp_path)
    with pytest.raises(FormatError, match="differ in size"):
        read_time_to_move(_case(tmp_path / "size", masks, np.zeros((16, 18, 3), np.uint8)))
    with pytest.raises(FormatError, match="empty in every frame"):
        read_time_to_move(_case(tmp_path / "empty", ~masks))
    good = _case(tmp_path / "good", masks)
    with pytest.raises(InvalidValueError, match="threshold"):
        read_time_to_move(good, threshold=0)
    (good / "prompt.txt").write_bytes(b"\xff")
    with pytest.raises(FormatError, match="UTF-8"):
        read_time_to_move(good)
    (tmp_path / "secret.txt").write_text("secret")
    (good / "prompt.txt").unlink()
    (good / "prompt.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(FormatError, match="out of its folder"):
        read_time_to_move(good)


def test_what_cannot_be_written(tmp_path):
    sample = make_sample(0, frames=3)
    with pytest.raises(InvalidValueError, match="picture"):
        write_time_to_move(sample.trajectory, tmp_path / "case")
    scene = Scene(sample.scene.image, sample.scene.labels, objects=(SceneObject(1, "a", "a"), SceneObject(2, "b", "b")))
    with pytest.raises(InvalidValueError, match="no trajectory"):
        write_time_to_move(Sample(scene), tmp_path / "case")
    assert not (tmp_path / "case").exists()
