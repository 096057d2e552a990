"""The RLE codec against pycocotools and its numbers, SA-V's layout both ways, and files that must be refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from throughmask import media
from throughmask.errors import FormatError, InvalidValueError
from throughmask.interop import rle
from throughmask.interop.sav import read_rle, resolve_overlaps, write_rle
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory, Video

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))
labels = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.integers(0, 255))


@pytest.fixture(scope="module")
def sav_path(assets):
    return assets / "sav" / "sav_000001_manual.json"


@pytest.fixture(scope="module")
def sav(sav_path):
    return json.loads(sav_path.read_text())


@given(masks, st.booleans())
@settings(deadline=None, max_examples=50)
def test_decode_inverts_encode(mask, compressed):
    assert np.array_equal(rle.decode(rle.encode(mask, compressed=compressed)), mask)


@given(masks)
@settings(deadline=None, max_examples=50)
def test_codec_equals_pycocotools(mask):
    coco = pytest.importorskip("pycocotools.mask")
    ours, theirs = rle.encode(mask), coco.encode(np.asfortranarray(mask, np.uint8))
    assert ours["counts"].encode() == theirs["counts"]
    assert ours["size"] == theirs["size"]
    assert np.array_equal(rle.decode(theirs), coco.decode(theirs))
    assert rle.area(ours) == coco.area(theirs)
    assert rle.box(ours) == tuple(coco.toBbox(theirs))
    plain = rle.encode(mask, compressed=False)
    assert coco.frPyObjects(plain, *mask.shape)["counts"] == theirs["counts"]


@given(st.lists(st.integers(0, 1 << 26), min_size=1, max_size=30))
@settings(deadline=None, max_examples=50)
def test_any_counts_survive_compression(counts):
    assert rle.decompress(rle.compress(np.array(counts, np.int64)), 1 << 26).tolist() == counts


def test_every_real_masklet_has_the_area_and_box_that_pycocotools_finds(assets, sav):
    oracle = json.loads((assets / "oracles" / "sav_area_box.json").read_text())
    rows = sav["masklet"]
    assert len(rows) == len(oracle["area"]) == 121
    assert [[rle.area(item) for item in row] for row in rows] == oracle["area"]
    assert [[list(rle.box(item)) for item in row] for row in rows] == oracle["xywh"]


@pytest.mark.slow
def test_every_real_masklet_decodes_and_encodes_as_in_pycocotools(sav):
    coco = pytest.importorskip("pycocotools.mask")
    for item in (item for row in sav["masklet"] for item in row):
        mask = rle.decode(item)
        assert np.array_equal(mask, coco.decode(item))
        assert rle.encode(mask) == item


@pytest.mark.slow
def test_sav_file_keeps_true_times_and_shifts_ids(sav_path, sav):
    imported = read_rle(sav_path)
    trajectory = imported.trajectory
    assert (len(trajectory), trajectory.size, trajectory.fps) == (121, (848, 480), 6)
    assert trajectory.ids == (1, 2, 3, 4, 5)
    assert imported.origin.source == "SA-V sav_000001"
    stack = np.array([[rle.decode(item) for item in row] for row in sav["masklet"][::20]])
    contested = (np.array([[rle.decode(i) for i in row] for row in sav["masklet"]], bool).sum(1) > 1).sum((1, 2))
    expected = f"{contested.sum()} pixels in {(contested > 0).sum()} of 121 frames"
    assert expected in imported.notes[0]
    assert contested.min() > 0, "this file's masks overlap in every frame"
    for one, objects in zip(trajectory.labels[::20], stack, strict=True):
        assert np.array_equal(one > 0, objects.any(0))
        alone = objects.sum(0) == 1
        assert np.array_equal(one[alone], objects.argmax(0)[alone] + 1)


@pytest.mark.slow
def test_sav_file_round_trip_and_layout(sav_path, sav, tmp_path):
    trajectory = read_rle(sav_path).trajectory
    write_rle(trajectory, tmp_path / "back.json", every=4)
    assert read_rle(tmp_path / "back.json").trajectory == trajectory
    back = json.loads((tmp_path / "back.json").read_text())
    for key in ("video_height", "video_width", "video_resolution", "masklet_id", "masklet_num", "masklet_frame_count"):
        assert back[key] == sav[key]
    assert len(back["masklet"]) == 121
    assert set(back["masklet"][0][0]) == {"size", "counts"}
    assert back["video_fps"] == "24"
    assert back["masklet_first_appeared_frame"][0] == 0


def test_smaller_objects_lie_on_top_and_equal_ones_by_id():
    large, small, other = np.zeros((3, 6, 6), bool)
    large[:4, :4], small[2:5, 2:4], other[2:4, 1:4] = True, True, True
    row = [rle.encode(mask) for mask in (small, large, other)]
    result, contested = resolve_overlaps(row, [1, 2, 3], (6, 6))
    assert set(result[large & ~small & ~other]) == {2}
    assert set(result[small & ~other]) == {1}
    assert set(result[other]) == {3}  # six pixels as well: the higher id
    assert contested == ((large * 1 + small + other) > 1).sum()


@given(labels, st.sampled_from([6, "30000/1001"]), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_reading_inverts_writing(tmp_path_factory, array, fps, every):
    path = tmp_path_factory.mktemp("rle") / "masks.json"
    write_rle(MaskTrajectory(array, fps), path, every=every)
    imported = read_rle(path)
    assert imported.trajectory == MaskTrajectory(array, fps)
    assert imported.notes == ()


def test_a_sample_keeps_the_names_of_objects_that_never_show(tmp_path):
    sample = make_sample(0)
    labels = np.where(sample.trajectory.labels == 2, 0, sample.trajectory.labels)
    scene = type(sample.scene)(sample.scene.image, labels[0], objects=sample.scene.objects)
    write_rle(type(sample)(scene, MaskTrajectory(labels, 12)), tmp_path / "x.json")
    imported = read_rle(tmp_path / "x.json")
    assert imported.names == {thing.id: thing.name for thing in sample.scene.objects}
    assert imported.trajectory.ids == (1,)
    assert json.loads((tmp_path / "x.json").read_text())["masklet_first_appeared_frame"] == [0, None]


def test_rates_come_from_the_arguments_then_the_file_then_the_format(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"masklet": [[rle.encode(np.eye(3))]] * 2}))
    assert read_rle(path).trajectory.fps == 6
    assert read_rle(path, video_fps=30, every=5).trajectory.fps == 6
    assert read_rle(path, video_fps="30000/1001").trajectory.fps * 4 * 1001 == 30000
    with pytest.raises(FormatError, match="every"):
        read_rle(path, every=0)
    with pytest.raises(InvalidValueError, match="every"):
        write_rle(MaskTrajectory(np.zeros((1, 2, 2), np.uint8), 6), tmp_path / "y.json", every=0)


def test_the_annotated_video_is_thinned_to_the_masks(tmp_path):
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.full((16, 16, 3), 20, np.uint8)
    media.write_video(tmp_path / "v.mp4", Video(frames, 24), lossless=True)
    write_rle(MaskTrajectory(np.ones((3, 16, 16), np.uint8), 6), tmp_path / "m.json", every=4)
    imported = read_rle(tmp_path / "m.json", video=tmp_path / "v.mp4")
    assert np.array_equal(imported.video.frames, frames[::4])
    assert imported.to_sample().video.fps == 6


def test_a_mask_count_that_does_not_fit_the_video_is_noted(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"masklet": [[rle.encode(np.eye(3))]] * 2, "video_frame_count": 80.0}))
    assert "2 mask frames, one every 4, for a video of 80 frames" in read_rle(path).notes[0]


GOOD = {"size": [2, 3], "counts": [1, 5]}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"size": [2, 3], "counts": [1, 4]}, "do not fill"),
        ({"size": [2, 3], "counts": [-1, 7]}, "whole numbers"),
        ({"size": [2, 3], "counts": [1.0, 5]}, "whole numbers"),
        ({"size": [2, 3], "counts": [float("nan"), 5]}, "no such number"),
        ({"size": [2, 3], "counts": [True, 5]}, "whole numbers"),
        ({"size": [2, 3], "counts": [1 << 80, 5]}, "whole numbers"),
        ({"size": [2, 3], "counts": None}, "text or a list"),
        ({"size": [2, 3], "counts": ""}, "damaged"),
        ({"size": [2, 3], "counts": "é"}, "damaged"),
        ({"size": [2, 3], "counts": "\x01"}, "damaged"),
        ({"size": [2, 3], "counts": "P"}, "damaged"),  # promises more
        ({"size": [2, 3], "counts": "PPPPPPP1"}, "damaged"),  # a number of 40 bits
        ({"size": [2, 3], "counts": "O7"}, "damaged"),  # -1
        ({"size": [2, 3], "counts": "15", "more": 1}, ""),
        ({"size": [2, -3], "counts": [6]}, "size"),
        ({"size": [2.0, 3], "counts": [6]}, "size"),
        ({"size": [1 << 40, 1 << 40], "counts": [6]}, "size"),
        ({"size": "23", "counts": [6]}, "size"),
        ({"size": [3, 2], "counts": [6]}, "another size"),
        ({"counts": [6]}, '"size" and "counts"'),
        (None, '"size" and "counts"'),
    ],
)
def test_damaged_rle_is_refused_with_its_frame(tmp_path, item, words):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"masklet": [[GOOD], [item]], "video_height": 2.0, "video_width": 3}))
    if not words:
        assert len(read_rle(path).trajectory) == 2
        return
    with pytest.raises(FormatError, match=words) as caught:
        read_rle(path)
    assert "frame 1" in str(caught.value) or "no such number" in words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"masklet": [[' + "9" * 5000 + "]]}", "not JSON"),
        ("[]", "masklet"),
        ('{"masklet": []}', "masklet"),
        ('{"masklet": [1]}', "masklet"),
        ('{"masklet": [[], [1]]}', "same objects"),
        ('{"masklet": [[]]}', "video_height"),
        ('{"masklet": [[]], "video_height": 1e999, "video_width": 2}', "video_height"),
        ('{"masklet": [[]], "video_height": 2.5, "video_width": 2}', "video_height"),
        ('{"masklet": [[]], "video_height": 2000000000, "video_width": 2000000000}', "too large"),
        ('{"masklet": [[{"size": [1, 1], "counts": [1]}]], "masklet_id": [255]}', "masklet_id"),
        ('{"masklet": [[{"size": [1, 1], "counts": [1]}]], "masklet_id": [0, 1]}', "masklet_id"),
        ('{"masklet": [[{"size": [1, 1], "counts": [1]}]], "masklet_name": [" "]}', "masklet_name"),
        ('{"masklet": [[{"size": [1, 1], "counts": [1]}]], "masklet_name": ["a", "b"]}', "masklet_name"),
        ('{"masklet": [[{"size": [1, 1], "counts": [1]}]], "annotation_every": 2.5}', "every"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, words):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(FormatError, match=words):
        read_rle(path)


def test_unreadable_files_are_refused(tmp_path, monkeypatch):
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(FormatError, match="UTF-8"):
        read_rle(tmp_path / "latin.json")
    with pytest.raises(FormatError, match="cannot be read"):
        read_rle(tmp_path / "absent.json")
    monkeypatch.setattr("throughmask.interop.sav.MAX_BYTES", 5)
    with pytest.raises(FormatError, match="larger than"):
        read_rle(tmp_path / "latin.json")


def test_codec_refuses_what_is_no_mask():
    with pytest.raises(InvalidValueError, match="H W"):
        rle.encode(np.zeros((0, 3)))
    assert rle.box(rle.encode(np.zeros((4, 5)))) == (0, 0, 0, 0)
    assert rle.decode({"size": (2, 3), "counts": "15"}).sum() == 5
