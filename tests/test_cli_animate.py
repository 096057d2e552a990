"""`animate` from the command line: what is written, going on after an interruption, and bad input."""

import errno
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import FRAMES, ONE, PROMPT, hollow, make_tiny_bundle, picture

from throughmask import media, storage
from throughmask.cli import main
from throughmask.stages import bundle, pipeline

FILES = ["image.png", "masks", "overlay.mp4", "run.json", "scene.json", "sheet.png", "video.mp4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def hollow_model(model, tmp_path_factory):
    """Whoever loads this one fails."""
    folder = tmp_path_factory.mktemp("hollow") / "model"
    shutil.copytree(model, folder)
    hollow(folder)
    return folder


@pytest.fixture
def toys(tmp_path):
    pixels, labels = picture()
    media.write_image(tmp_path / "toys.png", pixels)
    media.write_labels(tmp_path / "masks.png", labels)
    return tmp_path / "toys.png"


@pytest.fixture
def call(capsys):
    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def animate(call, toys, model, tmp_path):
    """Animate the toys into a folder, with more options; gives status, standard output and standard error."""

    def run(out, *more, prompt=PROMPT):
        words = ("animate", toys, "--prompt", prompt, "--model", model, "--device", "cpu")
        return call(*words, "--masks", tmp_path / "masks.png", "--out", out, *more)

    return run


@pytest.fixture
def whole(animate, tmp_path):
    """An uninterrupted run with candidates."""
    status, _, err = animate(tmp_path / "whole", "--seeds", "0..1")
    assert status == 0, err
    return tmp_path / "whole"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results(folder):
    """All but run.json, which has times."""
    return {name: content for name, content in contents(folder).items() if not name.endswith("run.json")}


def runs_of(folder):
    return json.loads((folder / "run.json").read_text())


def interrupt(monkeypatch, call_number):
    """Ctrl-C after the first step of the sampler's n-th call."""
    real, calls = pipeline.sample_latents, []

    def sample(*args, **options):
        calls.append(None)
        if len(calls) == call_number:
            options["progress"] = press
        return real(*args, **options)

    def press():
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "sample_latents", sample)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_all_that_is_made_is_kept(animate, tmp_path):
    out = tmp_path / "out"
    status, said, err = animate(out, "--seed", "4")
    assert status == 0, err
    assert sorted(path.name for path in out.iterdir()) == FILES
    sample = storage.load_sample(out)
    assert (sample.scene.prompt, len(sample.trajectory), len(sample.video)) == (PROMPT, FRAMES, FRAMES)
    runs = runs_of(out)
    assert set(runs) == {"animate", "parse", "move", "render"}
    assert (runs["move"]["seed"], runs["render"]["seed"], runs["move"]["options"]["steps"]) == (4, 4, 2)
    assert runs["move"]["device"] == runs["render"]["device"] == "cpu"
    assert {"load", "sample", "total"} == set(runs["render"]["seconds"])
    for step in ("parse ", "load ", "move ", "render ", "write ", "total "):
        assert step in said.splitlines()[-1]
    assert "4/4" in err  # one bar, over two steps of each stage
    assert "2/2" not in err
    assert len(media.read_video(out / "overlay.mp4")) == FRAMES


def test_json_says_the_same_without_a_bar(animate, tmp_path):
    status, said, err = animate(tmp_path / "out", "--json")
    data = json.loads(said)
    assert (status, err, data["done_before"]) == (0, "", [])
    assert (data["frames"], data["size"], data["seed"]) == (FRAMES, [32, 48], 0)
    assert all((tmp_path / "out" / data[key].split("/")[-1]).is_file() for key in ("video", "overlay", "sheet", "run"))
    assert data["seconds"]["total"] >= data["seconds"]["move"] + data["seconds"]["render"]


@pytest.mark.slow
def test_it_equals_the_verbs_one_by_one(animate, call, toys, model, whole, tmp_path):
    one = tmp_path / "one"
    status, _, err = call("parse", toys, "--prompt", PROMPT, "--masks", tmp_path / "masks.png", "--out", one)
    assert status == 0, err
    more = ("--model", model, "--device", "cpu")
    assert call("move", one, "--seeds", "0..1", *more)[0] == 0
    assert results(one / "candidates") == results(whole / "candidates")
    seed = runs_of(whole)["move"]["seed"]
    assert call("render", one / "candidates" / f"seed-{seed}", "--seed", seed, *more)[0] == 0
    chosen = one / "candidates" / f"seed-{seed}"
    assert storage.load_sample(chosen) == storage.load_sample(whole)
    assert (chosen / "video.mp4").read_bytes() == (whole / "video.mp4").read_bytes()


@pytest.mark.parametrize(("stop", "done"), [(1, ["parse"]), (2, ["parse", "move"])])
@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_stopped(animate, whole, tmp_path, monkeypatch, stop, done):
    out, words = tmp_path / "out", ("--seeds", "0..1")
    with monkeypatch.context() as patch:
        interrupt(patch, stop)
        status, _, err = animate(out, *words)
    assert status == 130
    assert f"{out} keeps what is done; the same command goes on from there." in err
    assert not list(tmp_path.rglob(".tmp-*"))
    sample = storage.load_sample(out)
    assert (sample.trajectory is not None, sample.video) == (stop == 2, None)
    before = contents(out)
    with monkeypatch.context() as patch:
        interrupt(patch, 1)
        assert animate(out, *words)[0] == 130
    assert contents(out) == before
    status, said, err = animate(out, *words)
    assert (status, f"done before: {', '.join(done)}" in said) == (0, True), err
    assert f"{2 * len(done) - 2}/4" in err
    assert results(out) == results(whole)
    assert runs_of(out)["render"]["seed"] == runs_of(whole)["render"]["seed"]


def test_interrupted_while_reading_it_leaves_nothing(animate, tmp_path, monkeypatch):
    def press(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("throughmask.animation.animator.parse_scene", press)
    before = contents(tmp_path)
    status, _, err = animate(tmp_path / "deep" / "out")
    assert (status, "goes on" in err) == (130, False)
    assert contents(tmp_path) == before
    assert not (tmp_path / "deep").exists()


def test_a_finished_run_is_left_alone(animate, whole):
    before = contents(whole)
    status, said, _ = animate(whole, "--seeds", "0..1")
    assert (status, "done before: parse, move, render" in said) == (0, True)
    assert contents(whole) == before
    (whole / "sheet.png").unlink()
    assert animate(whole, "--seeds", "0..1")[0] == 0
    assert (whole / "sheet.png").is_file()


@pytest.mark.slow
def test_other_masks_are_rendered_anew(animate, call, model, tmp_path):
    out = tmp_path / "out"
    animate(out)
    assert call("move", out, "--model", model, "--seed", "9", "--device", "cpu", "--force")[0] == 0
    masks = storage.load_sample(out).trajectory
    status, said, _ = animate(out)
    assert (status, "done before: parse, move" in said) == (0, True)
    assert storage.load_sample(out).trajectory == masks
    assert runs_of(out)["render"]["seed"] == 9


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--seed", "5"), "seed"),
        (("--steps", "1"), "steps"),
        (("--guidance", "1,2"), "guidance"),
        (("--seeds", "0..1", "--pick", "1"), "pick, seeds"),
        (("--fps", "10"), "fps"),
    ],
)
def test_other_arguments_are_refused(animate, tmp_path, more, named):
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 1)
        animate(out)
    before = contents(out)
    status, _, err = animate(out, *more)
    assert status == 2
    assert f"made with other arguments (seen: {out}: {named}); choose another --out, or pass --force" in err
    assert err.count("\n") == 1
    assert contents(out) == before


@pytest.mark.slow
def test_another_picture_or_sentence_is_refused_unless_forced(animate, toys, tmp_path):
    out = tmp_path / "out"
    assert animate(out)[0] == 0
    status, _, err = animate(out, prompt=PROMPT.replace("left", "right"))
    assert (status, "other arguments" in err and "prompt" in err) == (2, True)
    media.write_image(toys, picture()[0] // 2, force=True)
    before = contents(out)
    status, _, err = animate(out)
    assert (status, "image" in err, contents(out) == before) == (2, True, True)
    assert animate(out, "--force")[0] == 0
    assert np.array_equal(storage.load_sample(out).scene.image, picture()[0] // 2)


@pytest.mark.slow
def test_forced_and_interrupted_it_says_how_to_go_on(animate, tmp_path, monkeypatch):
    out = tmp_path / "out"
    animate(out)
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        status, _, err = animate(out, "--seed", "5", "--force")
    assert (status, "the same command without --force goes on" in err) == (130, True)
    assert animate(out, "--seed", "5")[0] == 0
    assert runs_of(out)["move"]["seed"] == 5


def test_what_animate_did_not_make_is_refused(animate, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    status, _, err = animate(tmp_path / "mine")
    assert (status, "something that animate did not make" in err) == (2, True)
    status, _, err = animate(tmp_path / "mine", "--force")
    assert (status, "is not a Sample" in err) == (2, True)
    status, _, err = animate(tmp_path / "mine" / "letter.txt")
    assert (status, "a file stands" in err) == (2, True)


def test_the_picked_candidate_is_rendered(animate, tmp_path):
    out = tmp_path / "out"
    assert animate(out, "--seeds", "0..2", "--pick", "1")[0] == 0
    assert sorted(path.name for path in (out / "candidates").iterdir()) == ["seed-0", "seed-1", "seed-2", "sheet.png"]
    candidate = storage.load_sample(out / "candidates" / "seed-1")
    assert storage.load_sample(out).trajectory == candidate.trajectory
    assert runs_of(out)["render"]["seed"] == 1


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_done(animate, whole, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_image", full_disk)
        status, _, err = animate(out, "--seeds", "0..1")
    assert (status, "no space left on the device" in err, out.exists()) == (2, True, False)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_video_file", full_disk)
        status, _, err = animate(out, "--seeds", "0..1")
    assert status == 2
    assert "no space left on the device" in err
    assert "goes on from there" in err
    assert storage.load_sample(out).video is None
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full_disk)  # the contact sheet
        status, _, err = animate(out, "--seeds", "0..1")
    assert (status, storage.load_sample(out).video is not None) == (2, True), err
    assert animate(out, "--seeds", "0..1")[0] == 0
    assert not list(tmp_path.rglob(".tmp-*"))
    for name in ("video.mp4", "masks/00004.png", "scene.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def huge_png(path, side=10_000):
    """The head of a picture of 100 million pixels, and no pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(head)) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"--prompt": " "}, "the prompt is empty"),
        ({"--prompt": "slowly to the left"}, "names no object"),
        ({"IMAGE": "none.png"}, "no such file"),
        ({"IMAGE": "corrupt.png"}, "damaged or cannot be read"),
        ({"IMAGE": "text.png"}, "not a picture"),
        ({"IMAGE": "huge.png"}, "the picture is too large"),
        ({"--masks": "corrupt.png"}, "damaged or cannot be read"),
        ({"--masks": "small.png"}, "masks have another size"),
        ({"--masks": "masks.png", "--boxes": "1=0,0,4,4"}, "give --masks or --boxes or --points"),
        ({"--boxes": "red ball=0,0,99,4"}, "inside the picture"),
        ({"--points": "red ball=1"}, "a point is written NAME=x,y"),
        ({"--points": "cat=1,2"}, "names no such object (seen: cat)"),
        ({"--pick": "1"}, "not among the seeds"),
        ({"--seeds": "3..1"}, "seeds go from a smaller"),
        ({"--seeds": "0..1", "--seed": "1"}, "not both"),
        ({"--steps": "0"}, "at least one step"),
        ({"--guidance": "much"}, "guidance is written"),
        ({"--frames": "6"}, "nearest is 5"),
        ({"--size": "30x48"}, "multiples of 16"),
        ({"--device": "abacus"}, "no such device"),
        ({"--model": "nowhere"}, "a model of both stages"),
    ],
)
def test_bad_input_is_one_line_before_anything_loads(call, toys, hollow_model, tmp_path, monkeypatch, changes, problem):
    monkeypatch.chdir(tmp_path)
    content = toys.read_bytes()
    (tmp_path / "corrupt.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("no picture")
    huge_png(tmp_path / "huge.png")
    media.write_labels(tmp_path / "small.png", picture()[1][:8])
    options = {"--prompt": PROMPT, "--out": "out", "--model": hollow_model, "--device": "cpu", **changes}
    image = options.pop("IMAGE", toys)
    status, said, err = call("animate", image, *(word for pair in options.items() for word in pair))
    assert (status, said, err.count("\n")) == (2, "", 1), err
    assert problem in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("by", ["masks", "segmenter"])
def test_weights_that_cannot_be_loaded(call, toys, hollow_model, tmp_path, by):
    words = ("animate", toys, "--prompt", ONE, "--model", hollow_model, "--out", tmp_path / "out", "--device", "cpu")
    status, _, err = call(*words, *(("--masks", tmp_path / "masks.png") if by == "masks" else ()))
    assert (status, "cannot be loaded" in err) == (2, True)
    assert (tmp_path / "out").exists() == (by == "masks")  # what was parsed is kept


@pytest.mark.parametrize(("size", "made"), [((16, 16), (16, 16)), ((50, 20), (48, 16)), ((4, 60), (16, 64))])
@pytest.mark.slow
def test_small_and_oblong_pictures(call, model, tmp_path, size, made):
    media.write_image(tmp_path / "p.png", np.full((*size, 3), 90, np.uint8))
    words = ("animate", tmp_path / "p.png", "--prompt", ONE, "--model", model, "--out", tmp_path / "out")
    status, _, err = call(*words, "--device", "cpu")
    assert status == 0, err
    assert storage.load_sample(tmp_path / "out").video.size == made
    assert ("note: The picture was resized" in err) == (size != made)


# what is bundled


@pytest.fixture
def bundled(model, tmp_path, monkeypatch):
    """The tiny model as the bundled one."""
    monkeypatch.setattr(bundle, "BUNDLED_FOLDER", tmp_path / "models")
    shutil.copytree(model, tmp_path / "models" / "toybox")
    media.write_image(tmp_path / "models" / "toybox" / "demo.png", picture()[0])
    (tmp_path / "models" / "toybox" / "demo.txt").write_text(ONE + "\n")


@pytest.mark.slow
def test_the_bundled_model_is_the_default(bundled, call, toys, tmp_path):
    status, _, err = call("animate", toys, "--prompt", ONE, "--out", tmp_path / "a", "--points", "red ball=35,8")
    assert status == 0, err
    assert "Loading" not in err  # the bar over both stages is the only one
    sample = storage.load_sample(tmp_path / "a")
    assert (sample.scene.labels == 1).all()
    assert runs_of(tmp_path / "a")["parse"]["masks"] == "points"
    assert call("parse", toys, "--prompt", ONE, "--out", tmp_path / "b")[0] == 0
    assert call("move", tmp_path / "b", "--device", "cpu")[0] == 0
    assert call("render", tmp_path / "b", "--device", "cpu")[0] == 0
    assert storage.load_sample(tmp_path / "b") == sample
    status, _, err = call("track", tmp_path / "b" / "video.mp4", "--scene", tmp_path / "b", "--out", tmp_path / "c")
    assert status == 0, err


@pytest.mark.slow
def test_demo_animates_its_picture(bundled, call, tmp_path):
    status, out, err = call("demo", "--out", tmp_path / "a")
    assert status == 0, err
    assert "demo.png: " + ONE in err
    assert str(tmp_path / "a" / "video.mp4") in out
    sample = storage.load_sample(tmp_path / "a")
    assert (sample.scene.prompt, len(sample.video)) == (ONE, len(sample.trajectory))
    other = "the blue block rolls left"
    assert call("demo", "--prompt", other, "--out", tmp_path / "a")[0] == 2
    assert call("demo", "--prompt", other, "--out", tmp_path / "a", "--force")[0] == 0
    assert storage.load_sample(tmp_path / "a").scene.prompt == other


@pytest.mark.parametrize("words", [("animate", "toys.png", "--prompt", ONE), ("move", "s"), ("render", "s"), ("demo",)])
def test_without_it_that_is_said(call, toys, tmp_path, monkeypatch, words):
    monkeypatch.setattr(bundle, "BUNDLED_FOLDER", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    status, _, err = call(*words, "--out", "out")
    assert status == 2
    assert "the bundled model is not in this installation (seen: toybox); give --model" in err
    assert not (tmp_path / "out").exists()
