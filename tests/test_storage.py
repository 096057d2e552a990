"""A Sample that was saved loads as it was; a folder that is no Sample says why; nothing is half-written."""

import json
import os
import resource
import shutil
import signal
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from throughmask import MaskTrajectory, Origin, Sample, Scene, SceneObject, Video
from throughmask.errors import FormatError, InvalidValueError, MediaError, OutputError, SampleError, ThroughMaskWarning
from throughmask.media import write_image, write_labels, write_video
from throughmask.storage import add_to_sample, check_sample, load_sample, save_sample

FPS = Fraction(30000, 1001)


def make(num_frames=4, height=31, width=46, *, trajectory=True, video=True, num_objects=3, fps=FPS):
    """A Sample of small blocks, one for each object, that move right."""
    labels = np.zeros((num_frames, height, width), np.uint8)
    for t in range(num_frames):
        for k in range(1, num_objects + 1):
            labels[t, (k - 1) % height, (t + k) % width] = k
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., 0] = np.linspace(0, 200, width).astype(np.uint8)
    objects = tuple(SceneObject(k, f"thing {k}", f"a thing № {k}") for k in range(1, num_objects + 1))
    scene = Scene(frames[0], labels[0], "Größe: “quotes” \n and 漢字", "they move", objects)
    return Sample(
        scene,
        MaskTrajectory(labels, fps) if trajectory else None,
        Video(frames, fps) if video else None,
        Origin("a film", "CC0-1.0"),
    )


@pytest.fixture
def folder(tmp_path):
    save_sample(make(), tmp_path / "sample")
    return tmp_path / "sample"


def edit(folder, **changes):
    header = json.loads((folder / "scene.json").read_text(encoding="utf-8"))
    (folder / "scene.json").write_text(json.dumps({**header, **changes}), encoding="utf-8")


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("trajectory", [True, False])
@pytest.mark.parametrize("video", [True, False])
def test_saved_and_loaded_is_the_same(tmp_path, trajectory, video):
    sample = make(trajectory=trajectory, video=video)
    save_sample(sample, tmp_path / "a b" / "größe 漢")
    back = load_sample(tmp_path / "a b" / "größe 漢")
    assert (back.scene, back.trajectory, back.origin) == (sample.scene, sample.trajectory, sample.origin)
    assert (back.video is None) == (sample.video is None)
    if video:
        assert (len(back.video), back.video.fps, back.video.size) == (4, FPS, (31, 46))
        assert np.abs(back.video.frames.astype(int) - sample.video.frames).mean() < 4
    assert check_sample(tmp_path / "a b" / "größe 漢") == []


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_scene_comes_back(tmp_path_factory, data):
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    filled = text.filter(str.strip)
    ids = data.draw(st.lists(st.integers(1, 255), unique=True, max_size=5))
    objects = tuple(SceneObject(k, data.draw(filled), data.draw(filled)) for k in ids)
    size = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    labels = rng.choice([0, *ids], (data.draw(st.integers(1, 3)), *size)).astype(np.uint8)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    scene = Scene(image, labels[0], data.draw(text), data.draw(text), objects)
    fps = data.draw(st.fractions(min_value=Fraction(1, 9), max_value=500, max_denominator=10**15))
    sample = Sample(scene, MaskTrajectory(labels, fps), None, Origin(data.draw(text), data.draw(text)))
    path = tmp_path_factory.mktemp("any") / "sample"
    save_sample(sample, path)
    assert load_sample(path) == sample


def test_what_the_folder_holds(tmp_path):
    save_sample(make(2), tmp_path / "full")
    assert names(tmp_path / "full") == ["image.png", "masks/00000.png", "masks/00001.png", "scene.json", "video.mp4"]
    header = json.loads((tmp_path / "full" / "scene.json").read_text(encoding="utf-8"))
    assert (header["format"], header["version"]) == ("throughmask-sample", 1)
    assert header["trajectory"] == header["video"] == {"frames": 2, "fps": "30000/1001"}
    assert header["size"] == [31, 46]
    assert header["objects"][0] == {"id": 1, "name": "thing 1", "prompt": "a thing № 1"}
    assert "漢字" in (tmp_path / "full" / "scene.json").read_text(encoding="utf-8"), "readable, not escaped"
    save_sample(make(trajectory=False, video=False), tmp_path / "bare")
    assert names(tmp_path / "bare") == ["image.png", "masks/00000.png", "scene.json"]
    with Image.open(tmp_path / "full" / "masks" / "00001.png") as image:
        assert image.mode == "P"


def test_255_objects(tmp_path):
    sample = make(num_objects=255, height=256, video=False)
    save_sample(sample, tmp_path / "many")
    assert load_sample(tmp_path / "many") == sample


def test_saving_needs_an_empty_place_or_force(folder):
    with pytest.raises(OutputError, match="not empty"):
        save_sample(make(2), folder)
    assert len(load_sample(folder).trajectory) == 4
    save_sample(make(2), folder, force=True)
    assert len(load_sample(folder).trajectory) == 2
    assert names(folder) == ["image.png", "masks/00000.png", "masks/00001.png", "scene.json", "video.mp4"]


def test_force_replaces_samples_only(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(OutputError, match="not a Sample"):
        save_sample(make(), tmp_path, force=True)
    assert names(tmp_path) == ["holiday.jpg"]


def test_a_full_disk_leaves_the_old_sample(folder):
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    sample = Sample(Scene(noise[0], noise[0, :, :, 0] * 0), None, Video(noise, 24))
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, old[1]))
    try:
        for target in (folder, folder.parent / "other"):
            with pytest.raises(OutputError, match="cannot write the output"):
                save_sample(sample, target, force=True)
        with pytest.raises(OutputError, match="cannot write the output"):
            add_to_sample(folder, video=Video(np.resize(noise, (4, 31, 46, 3)), FPS), force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert [path.name for path in folder.parent.iterdir()] == ["sample"]


def test_adding_what_is_missing(tmp_path):
    whole = make()
    save_sample(make(trajectory=False, video=False), tmp_path / "s")
    (tmp_path / "s" / "run.json").write_text("{}")
    edit(tmp_path / "s", mood="kept")
    add_to_sample(tmp_path / "s", trajectory=whole.trajectory)
    assert load_sample(tmp_path / "s").trajectory == whole.trajectory
    add_to_sample(tmp_path / "s", video=whole.video)
    back = load_sample(tmp_path / "s")
    assert (back.trajectory, len(back.video)) == (whole.trajectory, 4)
    assert (tmp_path / "s" / "run.json").exists()
    assert json.loads((tmp_path / "s" / "scene.json").read_text(encoding="utf-8"))["mood"] == "kept"


def test_adding_what_is_there_needs_force(folder):
    longer = make(6)
    for part in ({"trajectory": longer.trajectory}, {"video": longer.video}):
        with pytest.raises(OutputError, match=r"already.*--force"):
            add_to_sample(folder, **part)
        with pytest.raises(InvalidValueError, match="differ in frame count"):
            add_to_sample(folder, **part, force=True)
    assert len(load_sample(folder).trajectory) == 4
    add_to_sample(folder, trajectory=longer.trajectory, video=longer.video, force=True)
    assert (len(load_sample(folder).trajectory), len(load_sample(folder).video)) == (6, 6)
    assert check_sample(folder) == []


def test_an_addition_that_stops_anywhere_leaves_a_sample(folder, monkeypatch):
    longer, replace = make(6), os.replace

    def run(number_of_steps):
        """Replace everything, but die at the given rename of a file or folder."""
        steps = iter(range(number_of_steps))

        def dying(source, target):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return replace(source, target)

        monkeypatch.setattr(os, "replace", dying)
        monkeypatch.setattr(os, "rename", dying)
        try:
            add_to_sample(folder, trajectory=longer.trajectory, video=longer.video, force=True)
            return True
        except KeyboardInterrupt:
            return False
        finally:
            monkeypatch.undo()

    finished, steps, lengths = False, 0, set()
    while not finished:
        shutil.rmtree(folder)
        save_sample(make(), folder)
        finished, steps = run(steps), steps + 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ThroughMaskWarning)
            back = load_sample(folder)
        assert back.scene == longer.scene
        assert back.trajectory is None or len(back.trajectory) in (4, 6)
        lengths.add(back.trajectory and len(back.trajectory))
    assert steps > 8
    assert lengths == {4, None, 6}, "the old, none for a moment, the new"
    assert len(back.trajectory) == len(back.video) == 6
    assert check_sample(folder) == []


def test_fewer_masks_replace_more(folder):
    add_to_sample(folder, trajectory=make(2).trajectory, video=make(2).video, force=True)
    assert load_sample(folder).trajectory == make(2).trajectory
    assert names(folder) == ["image.png", "masks/00000.png", "masks/00001.png", "scene.json", "video.mp4"]


def test_parts_that_scene_json_does_not_list_are_ignored_with_a_notice(folder):
    edit(folder, trajectory=None, video=None)
    with pytest.warns(ThroughMaskWarning) as notices:
        back = load_sample(folder)
    assert (back.trajectory, back.video) == (None, None)
    assert [str(notice.message).split(": ")[1][:24] for notice in notices] == [
        "3 masks after the first ",
        "video.mp4 is ignored",
    ]
    assert len(check_sample(folder)) == 2


def broken(**changes):
    return lambda folder: edit(folder, **changes)


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def remove(name):
    return lambda folder: (folder / name).unlink()


def mask(number, labels):
    return lambda folder: write_labels(folder / "masks" / f"{number:05d}.png", labels, force=True)


def other_video(**options):
    return lambda folder: write_video(folder / "video.mp4", make(**options).video, force=True)


def link_out(name):
    def change(folder):
        outside = folder.parent / "outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


SMALL = np.zeros((31, 46), np.uint8)
BAD = {
    "no scene.json": (remove("scene.json"), SampleError, "not a Sample: it has no scene.json"),
    "not JSON": (write("scene.json", b"{"), SampleError, "cannot be read"),
    "not UTF-8": (write("scene.json", b'{"a": "\xff"}'), SampleError, "cannot be read"),
    "deep JSON": (write("scene.json", b"[" * 100_000), SampleError, "cannot be read"),
    "long number": (write("scene.json", b"1" * 10_000), SampleError, "cannot be read"),
    "too large": (write("scene.json", b" " * (9 << 20)), SampleError, "too large"),
    "a list": (write("scene.json", b"[]"), SampleError, "not of the format 'throughmask-sample'"),
    "another format": (broken(format="other"), SampleError, "not of the format"),
    "future": (broken(version=2), SampleError, r"newer version than 1 \(seen: 2\); upgrade: pip install --upgrade"),
    "no version": (broken(version=None), SampleError, "no valid version"),
    "version 0": (broken(version=0), SampleError, "no valid version"),
    "version text": (broken(version="1"), SampleError, "no valid version"),
    "prompt": (broken(prompt=3), SampleError, "prompt must be text"),
    "origin": (broken(origin=[1]), SampleError, "origin must hold"),
    "licence": (broken(origin={"licence": 1}), SampleError, "licence must be text"),
    "objects": (broken(objects={}), SampleError, "objects must be a list"),
    "object": (broken(objects=[3]), SampleError, "needs id, name and prompt"),
    "object id": (broken(objects=[{"id": 256, "name": "a", "prompt": "b"}]), InvalidValueError, "from 1 to 255"),
    "object id path": (
        broken(objects=[{"id": "../x", "name": "a", "prompt": "b"}]),
        InvalidValueError,
        "from 1 to 255",
    ),
    "twice": (broken(objects=[{"id": 1, "name": "a", "prompt": "b"}] * 2), SampleError, "two objects share an id"),
    "unknown ids": (broken(objects=[]), SampleError, r"ids that no object has \(seen: 00000.png: \[1, 2, 3\]\)"),
    "frames": (broken(trajectory={"frames": 0, "fps": "24"}), SampleError, "trajectory needs frames"),
    "many frames": (broken(trajectory={"frames": 10**9, "fps": "24"}), SampleError, "trajectory needs frames"),
    "frames text": (broken(video={"frames": "4", "fps": "24"}), SampleError, "video needs frames"),
    "trajectory list": (broken(trajectory=[4]), SampleError, "trajectory needs frames"),
    "fps": (broken(trajectory={"frames": 4, "fps": 29.97}), InvalidValueError, "frame rate must be exact"),
    "fps zero": (broken(video={"frames": 4, "fps": "0/1"}), InvalidValueError, "frame rate must be positive"),
    "rates": (broken(trajectory={"frames": 4, "fps": "24/1"}), InvalidValueError, "differ in frame rate"),
    "size": (broken(size=[46, 31]), SampleError, r"scene.json and image.png differ in size"),
    "no image": (remove("image.png"), MediaError, "no such file"),
    "not an image": (write("image.png", b"hello"), MediaError, "not a picture"),
    "one mask less": (remove("masks/00002.png"), SampleError, "3 for 4 frames; the first that differs is 00002.png"),
    "last mask less": (remove("masks/00003.png"), SampleError, "masks and frames differ in number"),
    "one mask more": (mask(4, SMALL), SampleError, "5 for 4 frames; the first that differs is 00004.png"),
    "no masks": (lambda folder: shutil.rmtree(folder / "masks"), SampleError, "0 for 4 frames"),
    "mask size": (mask(2, SMALL[:30]), SampleError, "mask and image.png differ in size"),
    "mask ids": (mask(2, SMALL + 9), SampleError, r"ids that no object has \(seen: 00002.png: \[9\]\)"),
    "mask colours": (
        lambda folder: write_image(folder / "masks" / "00001.png", np.zeros((31, 46, 3), np.uint8), force=True),
        MediaError,
        "labels must be an indexed PNG",
    ),
    "first mask": (mask(0, SMALL), None, None),  # the scene's labels are the first mask: consistent by construction
    "no video": (remove("video.mp4"), MediaError, "no such file"),
    "not a video": (write("video.mp4", b"hello"), MediaError, "not a video"),
    "video length": (other_video(num_frames=5), SampleError, "5 frames at 30000/1001, not 4 at 30000/1001"),
    "video rate": (other_video(fps=Fraction(24)), SampleError, "4 frames at 24, not 4 at"),
    "video size": (other_video(width=48), SampleError, "video.mp4 and image.png differ in size"),
    "image linked out": (link_out("image.png"), FormatError, "leads out of its folder"),
    "masks linked out": (link_out("masks"), FormatError, "leads out of its folder"),
    "video linked out": (link_out("video.mp4"), FormatError, "leads out of its folder"),
    "scene linked out": (link_out("scene.json"), FormatError, "leads out of its folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_with_a_mistake_says_so(folder, case):
    change, kind, says = BAD[case]
    change(folder)
    if kind is None:
        assert check_sample(folder) == []
        return
    with pytest.raises(kind, match=says):
        load_sample(folder)
    assert check_sample(folder), "validate finds it too"


def test_every_mistake_is_listed_at_once(folder):
    edit(folder, prompt=3, size=[1, 1], trajectory={"frames": 5, "fps": "24"}, video={"frames": 4, "fps": "x"})
    problems = check_sample(folder)
    for says in ("prompt must be text", "differ in size", "masks and frames differ in number", "must be exact"):
        assert sum(says in problem for problem in problems) == 1, problems
    with pytest.raises(SampleError, match=r"prompt must be text.*validate` lists \d more problems"):
        load_sample(folder)


def test_masks_beyond_memory_are_refused_before_they_are_read(folder, monkeypatch):
    monkeypatch.setattr("throughmask.storage.MAX_VIDEO_PIXELS", 4 * 31 * 46 - 1)
    assert ["too large for memory" in problem for problem in check_sample(folder)] == [True]


def test_several_broken_masks_are_each_listed(folder):
    mask(1, SMALL + 9)(folder)
    mask(3, SMALL[1:])(folder)
    assert [name in "".join(check_sample(folder)) for name in ("00001", "00002", "00003")] == [True, False, True]


def test_places_that_are_no_folder(tmp_path):
    (tmp_path / "file").touch()
    for path, says in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "file", "this is a file"),
        (tmp_path, "no scene.json"),
    ):
        with pytest.raises(SampleError, match=says):
            load_sample(path)
        assert len(check_sample(path)) == 1


def test_a_scene_json_that_is_a_folder(folder):
    (folder / "scene.json").unlink()
    (folder / "scene.json").mkdir()
    with pytest.raises(SampleError, match="cannot be read"):
        load_sample(folder)
