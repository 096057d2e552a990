"""Sources of Samples: seeds, folders and shards give the same; each Sample is fitted, or says why it cannot be."""

import json
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction
from multiprocessing import get_context

import numpy as np
import pytest

from throughmask import edit, media
from throughmask.errors import InvalidValueError, MissingPackageError, SampleError
from throughmask.flow import MAXIMUM, paint_flow, read_flow
from throughmask.shards import write_shards
from throughmask.storage import load_sample, save_sample
from throughmask.synthetic import make_sample
from throughmask.toybox import make_sample_with_truth, make_story
from throughmask.train.clips import make_clips
from throughmask.train.flows import estimated_flow, flip_wheel, wheel
from throughmask.train.samples import Texts, fit, open_samples, runs, seeds_of
from throughmask.types import MaskTrajectory, Sample, Scene, SceneObject, Video

TOYS = {"size": (64, 64), "frames": 13, "fps": 12}
STORED = [((32, 32), 12), ((32, 32), 12), ((48, 80), 24)]  # sizes and rates of the Samples of `folder`, by seed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three Sample folders, the last of another size and rate, and what a killed process left behind."""
    folder = tmp_path_factory.mktemp("samples")
    for seed, (size, fps) in enumerate(STORED):
        save_sample(make_sample(seed, size=size, frames=9, fps=fps), folder / f"seed-{seed}")
    save_sample(make_sample(0, size=(32, 32), frames=9), folder / ".tmp-1f" / "x")
    os.rename(folder / ".tmp-1f" / "x" / "scene.json", folder / ".tmp-1f" / "scene.json")
    return folder


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("shards") / "set"
    write_shards([(f"seed-{seed}", folder / f"seed-{seed}") for seed in range(3)], place, per_shard=2)
    return place


def test_folders_and_shards_give_the_same(folder, shards):
    form = {"size": (16, 24), "frames": 4, "fps": 12}
    inside, packed, one = (open_samples(str(p), **form) for p in (folder, shards, shards / "00000.tar"))
    assert [len(samples) for samples in (inside, packed, one)] == [3, 3, 2]
    for index in range(3):
        sample = inside.item(index)
        assert (len(sample.video), sample.scene.size, sample.video.fps) == (4, (16, 24), 12)
        assert packed.item(index) == sample
        assert packed.texts(index) == inside.texts(index) == [Texts.of(sample.scene)]
    assert one.item(1) == inside.item(1)
    assert packed.name(2) == f"{shards / '00001.tar'}, key seed-2"
    assert inside.name(2) == str(folder / "seed-2")


def test_as_they_are(folder):
    samples = open_samples(str(folder))
    assert [samples.item(index) for index in range(3)] == [load_sample(folder / f"seed-{seed}") for seed in range(3)]


@pytest.mark.parametrize("form", [{}, {"size": (16, 24), "frames": 4, "fps": 12}], ids=["as they are", "fitted"])
def test_without_films_all_else_is_the_same(form, folder, shards, tmp_path):
    """As the drawn Sample, with its video, is fitted; whether the stored one has a video or not."""
    drawn = [make_sample(seed, size=size, frames=9, fps=fps) for seed, (size, fps) in enumerate(STORED)]
    for seed, sample in enumerate(drawn):
        save_sample(replace(sample, video=None), tmp_path / f"seed-{seed}")
    assert not list(tmp_path.rglob("*.mp4"))
    fitted = [fit(sample, **form) for sample in drawn]
    assert all(np.array_equal(sample.scene.image, sample.video.frames[0]) for sample in fitted)
    for place in (tmp_path, folder, shards):
        samples = open_samples(str(place), **form, films=False)
        assert [samples.item(index) for index in range(3)] == [replace(sample, video=None) for sample in fitted]
        assert samples.texts(2) == [Texts.of(drawn[2].scene)]


def test_the_same_sample_may_be_asked_for_with_and_without_its_film(folder):
    whole, lean = (open_samples(str(folder), films=films) for films in (True, False))
    for _ in range(2):
        assert (whole.item(0).video is None, lean.item(0).video is None) == (False, True)


def test_a_sample_that_was_written_again_is_read_again(tmp_path):
    for seed in (1, 2):
        save_sample(make_sample(seed, size=(32, 32), frames=3), tmp_path / "a", force=True)
        os.utime(tmp_path / "a" / "scene.json", (seed, seed))  # clocks of file systems may be coarse
        assert open_samples(str(tmp_path)).item(0).scene == make_sample(seed, size=(32, 32), frames=3).scene


def test_a_description_tells_sources_apart_and_is_stable(folder, shards, tmp_path):
    form = {"size": (16, 16), "frames": 4, "fps": "12"}
    described = [open_samples(str(p), **form).describe() for p in (folder, shards, "toybox:3..9", "toybox:3..8")]
    assert described[0] == open_samples(f"{folder}/", **form).describe()
    assert len({json.dumps(each, sort_keys=True) for each in described}) == 4
    assert described[2]["seeds"] == [[3, 9]]
    assert described[0] != open_samples(str(folder), **{**form, "fps": 24}).describe()
    os.symlink(folder, tmp_path / "elsewhere")
    assert described[0] == open_samples(str(tmp_path / "elsewhere"), **form).describe(), "paths do not matter"
    assert described[2] == open_samples("toybox:3..9", **form, gl_device=3).describe()
    save_sample(make_sample(5, size=(32, 32), frames=9), tmp_path / "more" / "a")
    before = open_samples(str(tmp_path / "more")).describe()
    save_sample(make_sample(6, size=(32, 32), frames=9), tmp_path / "more" / "a", force=True)
    assert open_samples(str(tmp_path / "more")).describe() != before


def test_a_source_serves_other_processes(folder):
    samples = open_samples(str(folder), size=(16, 16), frames=4, fps=12)
    assert pickle.loads(pickle.dumps(samples)) == samples
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(samples.item, 2).result() == samples.item(2)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("toybox:5..1", InvalidValueError, r"toybox:A\.\.B"),
        ("toybox:5", InvalidValueError, r"toybox:A\.\.B"),
        ("toybox:-1..5", InvalidValueError, r"toybox:A\.\.B"),
        ("toybox:1..5,9", InvalidValueError, r"C\.\.D"),
        ("toybox:1..5,", InvalidValueError, r"C\.\.D"),
        ("nowhere", SampleError, "no Samples"),
        ("nowhere.tar", SampleError, "cannot be read"),
    ],
)
def test_no_source(source, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        open_samples(source)


def test_no_form(folder, shards, tmp_path):
    for form in ({"size": (0, 4)}, {"frames": 0}, {"fps": 29.97}, {"phrasings": 0}):
        with pytest.raises(InvalidValueError):
            open_samples(str(folder), **form)
    os.symlink(folder / "seed-0", tmp_path / "seed-0")
    os.symlink(shards / "00000.tar", tmp_path / "0.tar")
    with pytest.raises(SampleError, match="folders and shards"):
        open_samples(str(tmp_path))


def test_a_sample_without_masks_or_video_is_named(tmp_path):
    sample = make_sample(0, size=(32, 32), frames=3)
    save_sample(Sample(sample.scene, sample.trajectory), tmp_path / "mute")
    with pytest.raises(SampleError, match="mute has no masks or no video"):
        open_samples(str(tmp_path)).item(0)
    with pytest.raises(SampleError, match="this Sample has no masks"):
        fit(Sample(sample.scene), (32, 32), 3, 12)
    save_sample(Sample(sample.scene, video=sample.video), tmp_path / "bare")
    with pytest.raises(SampleError, match=r"bare has no masks; training needs masks$"):
        open_samples(str(tmp_path), films=False).item(0)


def test_what_fits_is_left_alone():
    sample = make_sample(0, size=(32, 48), frames=5)
    assert fit(sample, (32, 48), 5, 12) is sample
    assert fit(sample) is sample


@pytest.mark.parametrize(
    ("old", "new"), [(24, 12), (12, 24), (30, 12), ("30000/1001", 16), (12, "24000/1001"), (25, 24)]
)
def test_times(old, new):
    """Labels as edit.resample has them, and each frame of the video goes with its labels."""
    sample = make_sample(1, size=(32, 32), frames=11, fps=old)
    numbers = np.arange(11, dtype=np.uint8)[:, None, None, None]
    sample = Sample(sample.scene, sample.trajectory, Video(np.tile(numbers, (1, 32, 32, 3)), sample.video.fps))
    fitted, expected = fit(sample, fps=new), edit.resample(sample.trajectory, fps=new)
    assert fitted.trajectory == expected
    assert fitted.video.fps == Fraction(new)
    for labels, frame in zip(fitted.trajectory.labels, fitted.video.frames, strict=True):
        assert np.array_equal(labels, sample.trajectory.labels[frame[0, 0, 0]])
    cut = fit(sample, frames=3, fps=new)
    assert np.array_equal(cut.trajectory.labels, expected.labels[:3])


@pytest.mark.parametrize("films", [True, False])
def test_too_short_is_named_with_its_length(films, folder):
    with pytest.raises(SampleError, match=r"seed-2 is too short for 6 frames .*5 frames at 12 fps, 0\.38 s"):
        open_samples(str(folder), size=(16, 16), frames=6, fps=12, films=films).item(2)
    assert len(open_samples(str(folder), size=(16, 16), frames=5, fps=12, films=films).item(2).trajectory) == 5


@pytest.mark.parametrize("size", [(32, 32), (20, 40), (64, 30), (96, 192), (41, 77)])
def test_covered_and_cut_about_the_middle(size):
    """A picture of its own places: after fitting each pixel still says where it came from, and labels go with it."""
    y, x = np.mgrid[:48, :96]
    frames = np.stack([y * 5, x * 2, np.zeros_like(x)], -1).astype(np.uint8)[None].repeat(2, 0)
    labels = (1 + (x >= 48) + 2 * (y >= 24)).astype(np.uint8)[None].repeat(2, 0)
    objects = tuple(SceneObject(k, f"part {k}", "a part") for k in range(1, 5))
    sample = Sample(Scene(frames[0], labels[0], "", "", objects), MaskTrajectory(labels, 12), Video(frames, 12))
    fitted = fit(sample, size)
    assert fitted.scene.size == fitted.video.size == size
    assert np.array_equal(fitted.scene.image, fitted.video.frames[0])
    assert np.array_equal(fitted.scene.labels, fitted.trajectory.labels[0])
    scale = max(size[0] / 48, size[1] / 96)
    rows, columns = (
        (np.arange(new) + 0.5 - new / 2) / scale + old / 2 for new, old in zip(size, (48, 96), strict=True)
    )
    inner = (slice(2, -2), slice(2, -2))
    for channel, places, factor in ((0, rows[:, None], 5), (1, columns[None], 2)):
        found = fitted.video.frames[0][..., channel] / factor + 0.5
        assert np.abs(found - places)[inner].max() < 0.6 + 0.5 / scale
    expected = 1 + (columns[None] >= 48) + 2 * (rows[:, None] >= 24)
    assert (fitted.scene.labels == expected).mean() > 0.93
    assert (
        np.abs(np.bincount(fitted.scene.labels.ravel(), minlength=5)[1:] / fitted.scene.labels.size - 0.25).max() < 0.03
    )


def test_an_object_that_is_cut_away_stays_known():
    labels = np.zeros((3, 16, 64), np.uint8)
    labels[:, 4:8, 2:6], labels[:, 4:8, 30:34] = 1, 2
    objects = (SceneObject(1, "a", "an a"), SceneObject(2, "b", "a b"))
    pixels = np.zeros((3, 16, 64, 3), np.uint8)
    fitted = fit(
        Sample(Scene(pixels[0], labels[0], "", "", objects), MaskTrajectory(labels, 12), Video(pixels, 12)), (16, 16)
    )
    assert fitted.scene.ids == (1, 2)
    assert fitted.trajectory.ids == (2,)


def test_texts_can_be_put_into_the_scene():
    scene = make_sample(2, size=(32, 32), frames=3, num_objects=3).scene
    texts = Texts.of(scene)
    assert texts.put(scene) == scene
    assert Texts.of(Texts("p", "m", (("a", "b"),) * 3).put(scene)) == Texts("p", "m", (("a", "b"),) * 3)
    assert texts.flipped().flipped() == texts
    gap = Scene(scene.image, scene.labels * 0, "p", "m", (SceneObject(2, "b", "a b"), SceneObject(4, "d", "a d")))
    assert Texts.of(gap).objects == (("", ""), ("b", "a b"), ("", ""), ("d", "a d")), "by id"
    assert Texts.of(gap).put(gap) == gap


@pytest.mark.slow
def test_toybox_texts_are_those_of_other_phrasings_in_the_same_order():
    samples = open_samples("toybox:0..9", **TOYS, phrasings=2)
    for index in (0, 2):
        first = make_story(index, **TOYS)
        found = samples.texts(index)
        assert len(found) == len(set(found)) == 2
        told = {}
        for phrasing in range(40):
            story = make_story(index, phrasing=phrasing, **TOYS) if phrasing else first
            if story.text.order == first.text.order:
                pairs = tuple(zip(story.text.names, story.text.prompts, strict=True))
                told[Texts(story.text.caption, story.text.motion, pairs)] = None
            if len(told) == 2:
                break
        assert found == list(told)


def test_synthetic_items():
    samples = open_samples("synthetic:3..5", size=(32, 48), frames=5, fps=12)
    assert len(samples) == 3
    assert samples.item(1) == make_sample(4, size=(32, 48), frames=5, fps=12)
    assert samples.texts(1) == [Texts.of(samples.item(1).scene)]
    assert samples.describe() != open_samples("synthetic:3..6", size=(32, 48), frames=5, fps=12).describe()
    assert samples.name(1) == "synthetic seed 4"
    lean = open_samples("synthetic:3..5", size=(32, 48), frames=5, fps=12, films=False)
    assert lean.item(1) == replace(samples.item(1), video=None)
    assert lean.texts(1) == samples.texts(1)


@pytest.mark.slow
def test_toybox_items_and_their_exact_flow(opengl):
    samples = open_samples("toybox:7..8", **TOYS, phrasings=2)
    assert len(samples) == 2
    assert samples.name(1) == "Toybox seed 8"
    sample, truth = make_sample_with_truth(8, **TOYS)
    assert samples.item(1) == sample
    assert open_samples("toybox:7..8", **TOYS, films=False).item(1) == replace(sample, video=None)
    assert samples.texts(1)[0] == Texts.of(sample.scene)
    assert all(len(text.objects) == len(sample.scene.objects) for text in samples.texts(1))
    flow = samples.flow(1)
    assert flow.shape == (13, 64, 64, 3)
    assert np.array_equal(flow[:-1], paint_flow(truth.flow))
    assert np.array_equal(flow[-1], flow[-2])
    assert np.abs(read_flow(flow[:-1]) - truth.flow).max() < 0.02 * MAXIMUM


@pytest.mark.slow
def test_clips_come_from_shards_too(folder, shards, tmp_path):
    packed = make_clips(str(shards / "00000.tar"), tmp_path / "packed", workers=2)
    assert np.array_equal(packed.pixels[1], load_sample(folder / "seed-1").video.frames)
    with pytest.raises(SampleError, match=r"differ in size or length .*00001\.tar, key seed-2"):
        make_clips(str(shards), tmp_path / "mixed")


def shifted(dx, dy, frames=4):
    """A clip of a smooth pattern that moves evenly."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    wide = media.resize(noise, (96, 96))
    return np.stack([np.roll(wide, (t * dy, t * dx), (0, 1)) for t in range(frames)])


def test_flow_of_a_film_is_estimated():
    pytest.importorskip("cv2", reason="optical flow of films needs opencv-python-headless")
    flow = estimated_flow(shifted(3, -2))
    assert flow.shape == (3, 96, 96, 2)
    assert np.abs(np.median(flow[:, 16:-16, 16:-16], (0, 1, 2)) - (3, -2)).max() < 0.2
    assert estimated_flow(shifted(0, 0, 1)).shape == (0, 96, 96, 2)


def test_flow_of_a_stored_sample(folder):
    pytest.importorskip("cv2", reason="optical flow of films needs opencv-python-headless")
    samples = open_samples(str(folder), size=(32, 32), frames=3, fps=12)
    assert np.array_equal(samples.flow(0), wheel(estimated_flow(samples.item(0).video.frames)))


def test_flow_without_opencv_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingPackageError, match=r"optical flow .*through-the-mask\[evaluate\]"):
        open_samples(str(folder)).flow(0)


def test_the_wheel_of_the_mirrored_clip():
    flow = np.random.default_rng(0).normal(0, 8, (3, 8, 8, 2))
    mirrored = flow[:, :, ::-1] * (-1, 1)
    assert np.abs(flip_wheel(wheel(flow)).astype(int) - wheel(mirrored)).max() <= 2
    with pytest.raises(InvalidValueError, match="at least one"):
        wheel(np.zeros((0, 8, 8, 2)))


def test_seeds_may_come_in_several_ranges():
    assert seeds_of("toybox:3..5,900000..900001") == (3, 4, 5, 900_000, 900_001)
    samples = open_samples("toybox:3..5,900000..900001", **TOYS)
    assert (len(samples), samples.name(3)) == (5, "Toybox seed 900000")
    assert samples.describe()["seeds"] == [[3, 5], [900_000, 900_001]]
    assert runs([7, 8, 9]) == [[7, 9]]
    assert runs([4, 2, 3]) == [[4, 4], [2, 3]]
