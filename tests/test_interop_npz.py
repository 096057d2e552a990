"""NPZ: round trips, and archives that lie, are damaged, or carry a pickle."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from throughmask import media
from throughmask.errors import FormatError, InvalidValueError, OutputError, ThroughMaskError
from throughmask.interop.npz import read_npz, write_npz
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory, Sample

labels = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.integers(0, 255))


@given(labels, st.sampled_from([24, "30000/1001"]))
@settings(deadline=None, max_examples=50)
def test_reading_inverts_writing(tmp_path_factory, array, fps):
    path = tmp_path_factory.mktemp("npz") / "masks.npz"
    write_npz(MaskTrajectory(array, fps), path)
    imported = read_npz(path)
    assert imported.trajectory == MaskTrajectory(array, fps)
    assert (imported.prompt, imported.names, imported.notes) == ("", {}, ())


def test_a_sample_keeps_its_words_under_any_file_name(tmp_path):
    sample = make_sample(0)
    write_npz(sample, tmp_path / "größe 1.data")
    imported = read_npz(tmp_path / "größe 1.data")
    assert imported.trajectory == sample.trajectory
    assert imported.prompt == sample.scene.prompt
    assert imported.names == {thing.id: thing.name for thing in sample.scene.objects}
    with pytest.raises(OutputError):
        write_npz(sample, tmp_path / "größe 1.data")


def test_a_video_can_be_joined(tmp_path):
    sample = make_sample(0, frames=3)
    write_npz(sample, tmp_path / "m.npz")
    media.write_video(tmp_path / "v.mp4", sample.video)
    assert read_npz(tmp_path / "m.npz", video=tmp_path / "v.mp4").to_sample().video.size == sample.video.size


def test_fortran_order_and_other_byte_order_are_read(tmp_path):
    array = np.asfortranarray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    np.savez(tmp_path / "m.npz", labels=array, fps=np.array("24/1", ">U4"))
    assert read_npz(tmp_path / "m.npz").trajectory == MaskTrajectory(array, 24)


def _header(shape, descr="|u1"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


GOOD = {"labels": np.ones((1, 2, 2), np.uint8), "fps": np.array("24/1")}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": np.ones((1, 2, 2), bool)}, "wrong kind"),
        ({"labels": np.ones((2, 2), np.uint8)}, "wrong kind"),
        ({"labels": np.ones((1, 2, 0), np.uint8)}, "not empty"),
        ({"fps": np.array(24.0)}, "wrong kind"),
        ({"fps": np.array("29.97.1")}, "exact"),
        ({"fps": np.array("1e999999999")}, "exact"),
        ({"labels": np.array([{}], object)}, "wrong kind"),
        ({"prompt": np.array({}, object)}, "wrong kind"),
        ({"prompt": np.array("x" * (1 << 20) + "y")}, "too large"),
        ({"ids": np.ones(1, np.uint8)}, "with a name each"),
        ({"ids": np.ones(2, np.uint8), "names": np.array(["a", "b"])}, "different"),
        ({"ids": np.zeros(1, np.uint8), "names": np.array(["a"])}, "from 1 to 255"),
        ({"ids": np.ones(1, np.uint8), "names": np.array([" "])}, "empty"),
        ({"ids": np.zeros(300, np.uint8), "names": np.array(["a"] * 300)}, "too large"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "bad.npz", **{**GOOD, **arrays})
    with pytest.raises(ThroughMaskError, match=words):
        read_npz(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_header((10**6, 10**6, 10**6)), "too large"),
        (_header((-1, 2, 2)), "wrong kind"),
        (_header((1, 2, 2)) + b"\1\1", "not a readable NPZ"),
        (_header((1, 2, 2), "|O"), "wrong kind"),
        (b"\x93NUMPY\x09\x00" + _header((1, 2, 2))[8:], "not known|readable"),
        (b"\x93NUMPY\x03\x00" + _header((1, 2, 2))[8:], "not known"),
        (b"hello", "not a readable NPZ"),
    ],
)
def test_lying_headers_are_refused_before_memory_is_taken(tmp_path, content, words):
    np.savez(tmp_path / "fps.npz", fps="24/1")
    with zipfile.ZipFile(tmp_path / "fps.npz", "a") as archive:
        archive.writestr("labels.npy", content)
    with pytest.raises(FormatError, match=words):
        read_npz(tmp_path / "fps.npz")


def test_damaged_archives_are_refused(tmp_path):
    write_npz(make_sample(0), tmp_path / "good.npz")
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(whole[:200] + bytes(b ^ 85 for b in whole[200:300]) + whole[300:])
    np.savez(tmp_path / "lacking.npz", labels=GOOD["labels"])
    for name, words in (("cut", "readable"), ("flipped", "readable"), ("lacking", "lacks arrays"), ("no", "readable")):
        with pytest.raises(FormatError, match=words):
            read_npz(tmp_path / f"{name}.npz")


def test_nothing_to_write(tmp_path):
    with pytest.raises(InvalidValueError, match="no trajectory"):
        write_npz(Sample(make_sample(0).scene), tmp_path / "m.npz")
    assert list(tmp_path.iterdir()) == []
