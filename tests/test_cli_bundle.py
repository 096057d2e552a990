"""`bundle` from the command line: one folder that the other commands take, used as it says."""

import json

import pytest
from tiny_bundle import FRAMES, ONE, make_tiny_bundle, picture

from throughmask import media
from throughmask.cli import main
from throughmask.stages.bundle import Habits


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Both stages and the segmenter, before they become one folder."""
    return make_tiny_bundle(tmp_path_factory.mktemp("parts")).parent


@pytest.fixture
def call(capsys):
    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


def test_a_bundle_is_used_as_it_says(parts, call, tmp_path):
    stages = ("--motion", parts / "motion", "--video", parts / "video", "--words", parts / "words")
    habits = ("--steps", "1", "--guidance", "1,2", "--video-guidance", "1,3", "--size", "32x48", "--least-psnr", "-99")
    habits += ("--apart", "--vocabulary", "synthetic:0..3")
    status, said, err = call("bundle", *stages, *habits, "--out", tmp_path / "toys")
    assert status == 0, err
    assert "motion, segmenter, text_encoder, tokenizer, vae, video" in said
    assert {"star", "ball", "hopping", "faster"} <= set(Habits.read(tmp_path / "toys").vocabulary)
    pixels, labels = picture()
    media.write_image(tmp_path / "toys.png", pixels)
    media.write_labels(tmp_path / "masks.png", labels)
    given = ("--masks", tmp_path / "masks.png", "--model", tmp_path / "toys", "--device", "cpu")
    status, _, err = call("animate", tmp_path / "toys.png", "--prompt", ONE, *given, "--out", tmp_path / "made")
    assert status == 0, err
    runs = json.loads((tmp_path / "made" / "run.json").read_text())
    assert {verb: runs[verb]["options"]["steps"] for verb in ("move", "render")} == {"move": 1, "render": 1}
    assert {verb: runs[verb]["options"].get("apart") for verb in ("move", "render")} == {"move": True, "render": None}
    status, _, err = call("move", tmp_path / "made", "--together", *given[2:], "--out", tmp_path / "moved")
    assert status == 0, err
    assert json.loads((tmp_path / "moved" / "run.json").read_text())["move"]["options"]["apart"] is False
    assert [runs[verb]["options"]["guidance"]["text"] for verb in ("move", "render")] == [2, 3]
    assert len(media.read_video(tmp_path / "made" / "video.mp4")) == FRAMES


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--guidance", "strong"), "guidance is written IMAGE,TEXT"),
        (("--guidance=-1,2",), "image guidance must be a number from 0"),
        (("--size", "big"), "a size is written HxW"),
        (("--steps", "0"), "at least one step"),
        (("--video", "MOTION"), "motion"),
    ],
)
def test_mistakes_make_nothing(parts, call, tmp_path, more, problem):
    more = [parts / "motion" if word == "MOTION" else word for word in more]
    status, _, err = call(
        "bundle", "--motion", parts / "motion", "--video", parts / "video", *more, "--out", tmp_path / "out"
    )
    assert status == 2
    assert problem in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
