"""`parse` and `track` from the command line: given masks, boxes, a small segmenter of random weights, and mistakes."""

import json

import numpy as np
import pytest
from tiny_words import save_tiny_words

from throughmask.cli import main
from throughmask.media import write_image, write_labels
from throughmask.stages import bundle
from throughmask.storage import load_sample, save_sample
from throughmask.synthetic import make_sample

PROMPT = "the red ball rolls to the left while the blue block stays still"


@pytest.fixture
def picture(tmp_path):
    pixels = np.full((32, 48, 3), 200, np.uint8)
    masks = np.zeros((32, 48), np.uint8)
    masks[4:12, 30:40], masks[4:12, 4:12] = 1, 2
    write_image(tmp_path / "toys.png", pixels)
    write_labels(tmp_path / "masks.png", masks)
    return tmp_path / "toys.png"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return save_tiny_words(tmp_path_factory.mktemp("words"))


def call(*words, status=0):
    assert main([str(word) for word in words]) == status


def test_given_masks_become_a_sample(picture, tmp_path, capsys):
    call("parse", picture, "--prompt", PROMPT, "--masks", tmp_path / "masks.png", "--out", tmp_path / "s", "--json")
    answer = json.loads(capsys.readouterr().out)
    assert [thing["name"] for thing in answer["objects"]] == ["red ball", "blue block"]
    scene = load_sample(tmp_path / "s").scene
    assert scene.prompt == PROMPT
    assert (scene.labels[4:12, 30:40] == 1).all()
    assert "rolls" in scene.objects[0].prompt
    assert "rolls" not in scene.objects[1].prompt
    assert json.loads((tmp_path / "s" / "run.json").read_text())["parse"]["masks"] == "given"


def test_what_was_not_used_is_told(picture, tmp_path, capsys):
    prompt = PROMPT + ", in the style of Monet"
    call("parse", picture, "--prompt", prompt, "--masks", tmp_path / "masks.png", "--out", tmp_path / "s")
    assert "style of Monet" in capsys.readouterr().err


@pytest.mark.slow
def test_a_video_is_followed(words, tmp_path, capsys):
    sample = make_sample(0, size=(32, 48), frames=5)
    save_sample(sample, tmp_path / "s")
    more = ("--scene", tmp_path / "s", "--perception", words, "--out")
    call("track", tmp_path / "s" / "video.mp4", *more, tmp_path / "tracked")
    tracked = load_sample(tmp_path / "tracked")
    assert len(tracked.trajectory) == 5
    assert np.array_equal(tracked.trajectory.labels[0], sample.scene.labels)
    assert set(np.unique(tracked.trajectory.labels)) <= {0, *sample.scene.ids}
    call("track", tmp_path / "s" / "video.mp4", *more, tmp_path / "free", "--free")
    assert not np.array_equal(load_sample(tmp_path / "free").scene.labels, sample.scene.labels)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ((), "needs a segmenter; give --masks, or --perception"),
        (("--perception", "real"), "sam2.1-hiera-large cannot be downloaded"),
        (("--perception", "nowhere"), "nowhere is no segmenter: it lacks tokenizer"),
        (("--boxes", "red ball=1,2,3"), "left,top,right,bottom"),
        (("--boxes", "green cat=1,2,9,9"), "names no such object"),
        (("--boxes", "red ball=1,2,99,9"), "inside the picture"),
        (("--boxes", "1=1,2,9,9", "--masks", "masks.png"), "give --masks or --boxes"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(picture, tmp_path, capsys, monkeypatch, more, problem):
    monkeypatch.setattr(bundle, "BUNDLED_FOLDER", tmp_path / "models")  # an installation without weights
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    call("parse", picture, "--prompt", PROMPT, "--out", "s", *more, status=2)
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_boxes_are_hints_to_the_segmenter(picture, words, tmp_path, capsys):
    more = ("--perception", words, "--out", tmp_path / "s")
    status = main([str(w) for w in ("parse", picture, "--prompt", PROMPT, "--boxes", "red ball=30,4,40,12", *more)])
    # Random weights may find nothing at all; then they must say what was not found.
    assert status in (0, 2)
    err = capsys.readouterr().err
    assert status == 0 or "does not show what the prompt names" in err
    assert "Loading weights" not in err
