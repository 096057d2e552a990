"""`measure` from the command line: masks by another tracker, a small segmenter of random weights, and mistakes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_words import save_tiny_words

from throughmask.cli import main
from throughmask.edit import move
from throughmask.stages import bundle
from throughmask.storage import load_sample, save_sample
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory

FRAMES = 5


@pytest.fixture
def sample(tmp_path):
    """Written to s; the working folder is the one above."""
    made = make_sample(0, size=(32, 48), frames=FRAMES)
    save_sample(made, tmp_path / "s")
    return made


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return save_tiny_words(tmp_path_factory.mktemp("words"))


def call(*words, status=0):
    assert main([str(word) for word in words]) == status


def answer_of(capsys, *words):
    call(*words, "--json")
    return json.loads(capsys.readouterr().out)


def shifted(sample, pixels):
    """The Sample with object 1 moved to the right from frame 1 on."""
    moved = move(sample.trajectory, 1, dx=pixels, start=1)
    return replace(sample, trajectory=moved, video=None)


def test_its_own_masks_are_obeyed(sample, tmp_path, capsys):
    save_sample(sample, "same")
    data = answer_of(capsys, "measure", "s", "--masks", "same")
    assert (data["iou"], data["error"], data["presence"], data["frames"]) == (1, 0, 1, FRAMES)
    assert data["masks"] == str(tmp_path / "same")


def test_masks_that_are_off(sample, capsys):
    save_sample(shifted(sample, 3), "off")
    call("measure", "s", "--masks", "off")
    table = capsys.readouterr().out
    assert "3.0 (6.2%)" in table
    assert sample.scene.objects[0].name in table
    wrong, right = answer_of(capsys, "measure", "s", "--masks", "off")["objects"]
    assert wrong["displacement"]["error_pixels"] == pytest.approx(3, abs=0.1)  # another part of it is hidden
    assert wrong["iou"] < 1
    assert len(wrong["frames_iou"]) == FRAMES
    assert (right["iou"], right["displacement"]["error"]) == (1, 0)


def test_against_the_masks_of_another(sample, tmp_path, capsys):
    truth = shifted(sample, 3)
    save_sample(truth, "truth")
    data = answer_of(capsys, "measure", "s", "--against", "truth", "--masks", "truth")
    assert (data["iou"], data["error"]) == (1, 0)
    assert data["against"] == str(tmp_path / "truth")
    save_sample(replace(sample, trajectory=None), "unmoved")  # a video alone can be measured against others' masks
    assert answer_of(capsys, "measure", "unmoved", "--against", "truth", "--masks", "truth")["iou"] == 1


def test_run_json_gets_a_summary_and_keeps_the_rest(sample, tmp_path):
    (tmp_path / "s" / "run.json").write_text('{"render": {"seed": 3}}')
    save_sample(shifted(sample, 3), "off")
    call("measure", "s", "--masks", "off", "--out", "numbers.json")
    runs = json.loads((tmp_path / "s" / "run.json").read_text())
    assert runs["render"] == {"seed": 3}
    every = json.loads((tmp_path / "numbers.json").read_text())
    assert every["objects"][0].pop("frames_iou")
    assert every["objects"][1].pop("frames_iou")
    assert runs["measure"] == every
    assert load_sample("s").trajectory == sample.trajectory


def test_a_video_is_segmented_again(sample, words, tmp_path, capsys):
    data = answer_of(capsys, "measure", "s", "--perception", words, "--found", "again")
    assert data["iou"] < 1  # random weights do not see what was asked for
    again = load_sample("again")
    assert len(again.trajectory) == FRAMES
    assert np.array_equal(again.trajectory.labels[0], sample.scene.labels)
    assert [thing["id"] for thing in data["objects"]] == list(sample.scene.ids)
    assert "track" in json.loads((tmp_path / "again" / "run.json").read_text())
    # What was kept, given back as masks, says the same.
    same = answer_of(capsys, "measure", "s", "--masks", "again")
    assert same["objects"] == data["objects"]


def test_names_and_rates_that_differ_are_told(sample, capsys):
    other = tuple(replace(thing, name="thing") for thing in sample.scene.objects)
    slow = MaskTrajectory(sample.trajectory.labels, 6)
    save_sample(replace(sample, scene=replace(sample.scene, objects=other), trajectory=slow, video=None), "other")
    call("measure", "s", "--masks", "other")
    notes = capsys.readouterr().err
    assert "'thing' in other: ids decide" in notes
    assert "Frame rates differ (12 and 6)" in notes


def unusual(sample):
    """Samples that do not fit."""
    labels, scene = sample.trajectory.labels, sample.scene
    save_sample(replace(sample, trajectory=None, video=None), "still")
    save_sample(replace(sample, video=None), "unseen")
    save_sample(replace(sample, trajectory=MaskTrajectory(labels[:3], 12), video=None), "short")
    small = replace(scene, image=scene.image[::2, ::2], labels=scene.labels[::2, ::2])
    save_sample(replace(sample, scene=small, trajectory=MaskTrajectory(labels[:, ::2, ::2], 12), video=None), "small")
    one = np.where(labels == 1, labels, 0)
    fewer = replace(scene, labels=one[0], objects=scene.objects[:1])
    save_sample(replace(sample, scene=fewer, trajectory=MaskTrajectory(one, 12), video=None), "fewer")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("still",), "no masks beyond frame 0"),
        (("unseen", "--perception", "seer"), "no video to measure"),
        (("s",), "needs a segmenter"),
        (("s", "--found", "again"), "needs a segmenter"),
        (("s", "--against", "still"), "no masks beyond frame 0"),
        (("s", "--against", "short"), "the masks asked for and the video differ in length (seen: 3 and 5 frames)"),
        (("s", "--masks", "short"), "the masks asked for and the masks found differ in length (seen: 5 and 3 frames)"),
        (("s", "--masks", "small"), "differ in size (seen: 32×48 and 16×24)"),
        (("s", "--against", "fewer"), "fewer does not know every object (seen: 2 "),
        (("s", "--masks", "fewer"), "fewer does not know every object (seen: 2 "),
        (("s", "--masks", "unseen", "--found", "again"), "nothing is segmented again"),
        (("s", "--masks", "unseen", "--perception", "seer"), "nothing is segmented again"),
        (("s", "--masks", "unseen", "--out", "again"), "--out is a JSON file"),
        (("s", "--masks", "unseen", "--out", "s/scene.json", "--force"), "a Sample has a file of this name"),
        (("s", "--found", "s", "--force"), "would replace its own source"),
        (("s", "--against", "unseen", "--found", "unseen", "--force"), "would replace its own source"),
        (("s", "--found", "still"), "not empty"),
        (("nowhere",), "no such folder"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(sample, tmp_path, capsys, monkeypatch, words, problem):
    monkeypatch.setattr(bundle, "BUNDLED_FOLDER", tmp_path / "models")  # an installation without weights
    unusual(sample)
    before = sorted(tmp_path.rglob("*"))
    call("measure", *words, status=2)
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_existing_file_of_numbers_stays(sample, tmp_path, capsys):
    save_sample(sample, "same")
    (tmp_path / "numbers.json").write_text("mine")
    call("measure", "s", "--masks", "same", "--out", "numbers.json", status=2)
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "numbers.json").read_text() == "mine"
    assert not (tmp_path / "s" / "run.json").exists()
    call("measure", "s", "--masks", "same", "--out", "numbers.json", "--force")
    assert json.loads((tmp_path / "numbers.json").read_text())["iou"] == 1
