"""The front of interop: formats known by content, options checked, and Imported as a Sample."""

import numpy as np
import pytest

from throughmask import interop, media
from throughmask.errors import FormatError, InvalidValueError, ThroughMaskError
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory, Origin, Video

OUTPUTS = {"davis": "d", "rle": "r.txt", "colours": "c.mp4", "npz": "n.bin", "time-to-move": "t"}


@pytest.mark.parametrize("format", interop.FORMATS)
def test_what_is_written_is_recognised_by_content_and_read(tmp_path, format):
    sample = make_sample(0, frames=5, fps=24)
    path = tmp_path / "a folder ü" / OUTPUTS[format]
    interop.write(sample, path, format)
    if path.is_file() and format != "colours":
        path = path.rename(path.with_suffix(".xyz"))
    assert interop.sniff(path) == format
    imported = interop.read(path)
    expected = sample.trajectory.labels
    if format == "time-to-move":
        expected = (expected > 0).astype(np.uint8)
    assert imported.trajectory == MaskTrajectory(expected, 24)
    assert interop.read(path, format=format).trajectory == imported.trajectory
    again = imported.to_sample(video=sample.video)
    assert again.video == sample.video
    with pytest.raises(ThroughMaskError, match="--force"):
        interop.write(sample, path, format)
    interop.write(sample, path if format != "colours" else path.with_suffix(".mp4"), format, force=True)


def test_real_files_are_recognised(assets):
    videos = assets / "videos"
    assert interop.sniff(videos / "davis17_multi" / "dogs_jump" / "gt_instances") == "davis"
    assert interop.sniff(videos / "time_to_move" / "cutdrag_wan_Owl") == "time-to-move"
    assert interop.sniff(videos / "magicmotion_mammoth_rhino" / "mask_trajectory.mp4") == "colours"
    assert interop.sniff(assets / "sav" / "sav_000001_manual.json") == "rle"


@pytest.mark.parametrize("content", [b"", b"hello", b"[1, 2]", b"\x89PNG\r\n\x1a\n", b"RIFF1234WAVE"])
def test_other_files_are_refused_with_a_list_of_formats(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FormatError) as caught:
        interop.sniff(tmp_path / "file")
    assert all(name in str(caught.value) for name in interop.FORMATS)


@pytest.mark.parametrize("head", [b"\x1a\x45\xdf\xa3webm", b"RIFF1234AVI ", b"\0\0\0\x20ftypisom"])
def test_other_containers_are_video(tmp_path, head):
    (tmp_path / "file").write_bytes(head)
    assert interop.sniff(tmp_path / "file") == "colours"


def test_folders_and_paths_that_hold_nothing(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        interop.sniff(tmp_path / "absent")
    with pytest.raises(FormatError, match="not one that can be read"):
        interop.sniff(tmp_path)
    (tmp_path / "scene.json").write_text("{}")
    with pytest.raises(FormatError, match="is a Sample"):
        interop.sniff(tmp_path)


def test_unknown_formats_and_options(tmp_path):
    sample = make_sample(0, frames=2)
    interop.write(sample, tmp_path / "m.npz", "npz")
    with pytest.raises(InvalidValueError, match=r"no format of that name.*davis"):
        interop.read(tmp_path / "m.npz", format="coco")
    with pytest.raises(InvalidValueError, match=r"no option of that name.*crop"):
        interop.read(tmp_path / "m.npz", crop=(0, 2))
    with pytest.raises(InvalidValueError, match=r"no option of that name.*palette"):
        interop.write(sample, tmp_path / "x.npz", "npz", palette="ours")
    (tmp_path / "text").write_text("x")
    with pytest.raises(FormatError, match="not JSON"):
        interop.read(tmp_path / "text", format="rle")


def test_imported_becomes_a_sample():
    sample = make_sample(0, frames=3)
    bare = interop.Imported(sample.trajectory, names={3: "hat"}, prompt="old", origin=Origin("here", "CC0"))
    with pytest.raises(InvalidValueError, match="needs a picture"):
        bare.to_sample()
    made = bare.to_sample(image=sample.scene.image, names={1: "ball"})
    assert [(thing.id, thing.name) for thing in made.scene.objects] == [(1, "ball"), (2, "object 2"), (3, "hat")]
    assert (made.scene.prompt, made.origin.licence, made.video) == ("old", "CC0", None)
    made = bare.to_sample(video=sample.video, prompt="")
    assert np.array_equal(made.scene.image, sample.video.frames[0])
    assert made.scene.prompt == ""
    with pytest.raises(InvalidValueError, match="frame rate"):
        bare.to_sample(video=Video(sample.video.frames, 13))


def test_masks_too_large_for_memory_are_refused(tmp_path, monkeypatch):
    interop.write(make_sample(0, frames=3), tmp_path / "m.npz", "npz")
    for name, value in (("MAX_PIXELS", 100), ("MAX_FRAMES", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(media, name, value)
            with pytest.raises(FormatError, match="too large"):
                interop.read(tmp_path / "m.npz")
