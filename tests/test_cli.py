"""The command line: every command, its `--json`, its errors in one line, and what `--help` must not load."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import throughmask
from throughmask import Sample, Scene, SceneObject, Video, __version__, edit, media, storage
from throughmask.cli import main
from throughmask.synthetic import make_sample

COMMANDS = [
    "animate",
    "parse",
    "track",
    "measure",
    "bundle",
    "evaluate",
    "compare",
    "inspect",
    "validate",
    "convert",
    "edit",
    "show",
    "synthetic",
    "toybox",
    "train",
    "demo",
    "init",
    "move",
    "render",
    "doctor",
]
SEED = 2  # three objects, all in frame 0


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "ein Bällchen"
    storage.save_sample(make_sample(SEED, num_objects=3, size=(48, 64), frames=7), folder)
    return folder


@pytest.fixture
def call(capsys):
    """Run a command line here; gives the status, standard output and standard error."""

    def run(*arguments):
        status = main([str(word) for word in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def ask(call):
    """Run with --json; gives the status and the one object on standard output."""

    def run(*arguments):
        status, out, _ = call(*arguments, "--json")
        assert out.count("\n") == 1
        return status, json.loads(out)

    return run


def run_command(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "throughmask", *arguments], capture_output=True, text=True, **options)


# What help must not load


@pytest.mark.parametrize("code", ["import throughmask", "from throughmask.cli import main; main(['--help'])"])
def test_import_and_help_load_nothing_heavy(code):
    heavy = "('torch', 'diffusers', 'transformers', 'av', 'PIL', 'numpy', 'rich')"
    check = f"{code}\nimport sys\nsys.exit(','.join(m for m in {heavy} if m in sys.modules) or 0)"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_every_name_of_the_package_is_there():
    for name in throughmask.__all__:
        assert getattr(throughmask, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        throughmask.nothing


@pytest.mark.slow
def test_help_is_quick():
    script = shutil.which("throughmask", path=Path(sys.executable).parent) or pytest.skip(
        "throughmask is not installed"
    )
    times = []
    for _ in range(6):
        start = time.perf_counter()
        subprocess.run([script, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    assert statistics.median(times[1:]) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(call, command):
    status, out, err = call(command, "--help")
    assert (status, err) == (0, "")
    assert "--json" in out
    assert "--verbose" in out
    listing = call("--help")[1]
    line = next(line for line in listing.splitlines() if line.split()[:1] == [command])
    assert not line.endswith("...")


def test_no_arguments_show_help(call):
    assert call() == call("--help")
    assert call("-h") == call("--help")


def test_version(call, ask):
    assert call("--version") == (0, f"throughmask {__version__}\n", "")
    assert ask("--version") == (0, {"version": __version__})


# Mistakes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["jump"], "No such command"),
        (["inspect"], "Missing argument"),
        (["inspect", "x", "--colour"], "No such option"),
        (["convert", "x", "y", "--to", "gif"], "gif"),
        (["--verbose"], "a command is missing"),
        (["inspect", "not there"], "no such file or folder (seen: not there)"),
    ],
)
def test_mistakes_are_one_line_and_status_2(call, ask, words, says):
    status, out, err = call(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert says in err
    status, answer = ask(*words)
    assert status == 2
    assert says in answer["error"]["message"]
    assert list(answer) == ["error"]


def test_a_bug_keeps_its_traceback(original, monkeypatch):
    monkeypatch.setattr(storage, "load_sample", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["inspect", str(original)])


def test_an_interrupt_is_one_line_and_status_130(tmp_path):
    words = ["synthetic", "--out", str(tmp_path / "x"), "--seeds", "0..9999", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "throughmask", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's "&" has it ignored
    )
    try:
        while not list(tmp_path.glob("x/seed-0/scene.json")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "error: interrupted\n")
    assert json.loads(out)["error"]["kind"] == "Interrupted"
    assert not list(tmp_path.glob("x/.tmp*"))


def test_an_interrupt_before_any_command(call, monkeypatch):
    monkeypatch.setattr("throughmask.cli.app", interrupted)
    assert call("doctor") == (130, "", "error: interrupted\n")


def interrupted(**options):
    raise KeyboardInterrupt


def test_a_closed_pipe_is_no_error(original):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "throughmask", "inspect", str(original)]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, "")


def test_output_that_the_terminal_cannot_show(original):
    result = run_command("inspect", str(original), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    assert "ein B\\xe4llchen: a Sample" in result.stdout


def test_verbose_logs_to_standard_error(original, tmp_path):
    code = "import logging, sys; from throughmask.cli import main; main(['-v', 'inspect', sys.argv[1]]); "
    code += "logging.getLogger('throughmask.test').info('hello')"
    result = subprocess.run([sys.executable, "-c", code, str(original)], capture_output=True, text=True)
    assert "INFO throughmask.test: hello" in result.stderr


# inspect, validate


def test_inspect_a_sample(call, ask, original):
    status, out, err = call("inspect", original)
    scene = storage.load_sample(original).scene
    assert (status, err) == (0, "")
    for text in ("a Sample", "48 × 64", "7 frames at 12 fps", scene.prompt, scene.motion_prompt, "CC0-1.0"):
        assert text in out
    status, data = ask("inspect", original)
    assert (data["kind"], data["size"], data["frames"], data["fps"]) == ("sample", [48, 64], 7, "12")
    assert [thing["name"] for thing in data["objects"]] == [thing.name for thing in scene.objects]
    labels = storage.load_sample(original).trajectory.labels
    share = 100 * (labels == 1).sum() / labels.size
    assert data["objects"][0]["area_percent"] == pytest.approx(share, abs=0.001)


def test_inspect_pictures_videos_and_masks(ask, original, tmp_path):
    assert ask("inspect", original / "image.png")[1] == {
        "path": str(original / "image.png"), "kind": "image", "size": [48, 64]
    }  # fmt: skip
    video = ask("inspect", original / "video.mp4")[1]
    assert (video["kind"], video["frames"], "objects" in video) == ("video", 7, False)
    masks = ask("inspect", original / "masks")[1]
    assert (masks["kind"], len(masks["objects"])) == ("davis", 3)
    sample = storage.load_sample(original)
    media.write_video(tmp_path / "noise.mp4", Video(noise(), 5))
    assert ask("inspect", tmp_path / "noise.mp4")[1]["kind"] == "video"
    storage.save_sample(Sample(sample.scene), tmp_path / "scene only")
    bare = ask("inspect", tmp_path / "scene only")[1]
    assert (bare["has_masks"], "frames" in bare, len(bare["objects"])) == (False, False, 3)


def noise():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def test_inspect_tells_of_absent_objects(call, tmp_path):
    scene = Scene(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), "", "", (SceneObject(7, "dog", "dog"),))
    storage.save_sample(Sample(scene), tmp_path / "dog")
    assert "visible in 0 frames  dog" in call("inspect", tmp_path / "dog")[1]
    storage.save_sample(make_sample(0, num_objects=1, frames=5, entering=True), tmp_path / "enters")
    assert "visible in 4 frames from frame 1" in call("inspect", tmp_path / "enters")[1]


def test_inspect_what_is_damaged(call, tmp_path):
    for name, content in (
        ("clip.mp4", b"\0\0\0\x18ftypisom" + b"\0" * 40),
        ("a.png", b"\x89PNG\r\n\x1a\n"),
        ("b", b"?"),
    ):
        (tmp_path / name).write_bytes(content)
        status, out, err = call("inspect", tmp_path / name)
        assert (status, out, err.count("\n")) == (2, "", 1)


def test_validate(call, ask, original, tmp_path):
    assert call("validate", original) == (0, f"{original}: no problem found\n", "")
    shutil.copytree(original, tmp_path / "all" / "good")
    shutil.copytree(original, tmp_path / "all" / "bad")
    (tmp_path / "all" / "bad" / "masks" / "00003.png").unlink()
    (tmp_path / "x.npz").write_bytes(b"PK\3\4 no")
    status, data = ask("validate", tmp_path / "all", tmp_path / "x.npz", original / "masks", tmp_path / "none")
    assert (status, data["valid"]) == (1, False)
    found = {Path(item["path"]).name: len(item["problems"]) for item in data["paths"]}
    assert found == {"good": 0, "bad": found["bad"], "x.npz": 1, "masks": 0, "none": 1}
    assert found["bad"] >= 1


# synthetic, show


def test_synthetic(call, ask, tmp_path):
    options = ["--objects", 1, "--size", "32x48", "--frames", 3, "--fps", "30000/1001", "--entering"]
    status, data = ask("synthetic", "--out", tmp_path / "one", "--seed", 5, *options)
    made = storage.load_sample(tmp_path / "one")
    assert (status, data["samples"][0]["prompt"]) == (0, made.scene.prompt)
    expected = make_sample(5, num_objects=1, size=(32, 48), frames=3, fps="30000/1001", entering=True)
    assert (made.scene, made.trajectory) == (expected.scene, expected.trajectory)
    status, out, _ = call("synthetic", "--out", tmp_path / "few", "--seeds", "3..5", *options)
    assert (status, out.count("\n")) == (0, 3)
    assert storage.load_sample(tmp_path / "few" / "seed-5") == made
    assert call("synthetic", "--out", tmp_path / "one", *options)[0] == 2, "it exists"
    assert call("synthetic", "--out", tmp_path / "one", *options, "--force")[0] == 0
    assert storage.load_sample(tmp_path / "one").origin.source.endswith("seed 0")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--size", "128"], "HxW"),
        (["--seeds", "7"], "A..B"),
        (["--seeds", "7..1"], "smaller to a larger"),
        (["--seed", "1", "--seeds", "1..2"], "not both"),
        (["--objects", "13"], "from 0 to 12"),
        (["--objects", "two"], "valid"),
    ],
)
def test_synthetic_mistakes(call, tmp_path, options, says):
    status, _, err = call("synthetic", "--out", tmp_path / "x", *options)
    assert status == 2
    assert says in err
    assert not (tmp_path / "x").exists()


def test_show(call, ask, original, tmp_path):
    assert ask("show", original, "--out", tmp_path / "o")[1]["files"] == [
        str(tmp_path / "o" / name) for name in ("overlay.mp4", "sheet.png")
    ]
    drawn = media.read_video(tmp_path / "o" / "overlay.mp4")
    sample = storage.load_sample(original)
    assert (drawn.fps, drawn.frames.shape) == (sample.video.fps, sample.video.frames.shape)
    inside = sample.trajectory.labels > 0
    change = np.abs(drawn.frames.astype(int) - sample.video.frames).mean(-1)
    assert change[inside].mean() > 5 * change[~inside].mean()
    assert call("show", original, "--out", tmp_path / "o")[0] == 2
    assert call("show", original, "--out", tmp_path / "o", "--force")[0] == 0
    assert call("show", original, "--out", tmp_path / "o" / "one.PNG")[0] == 0
    assert call("show", original / "masks", "--out", tmp_path / "masks.png")[0] == 0
    assert call("show", original, "--out", tmp_path / "p.png", "--opacity", 2)[0] == 2
    status, _, err = call("show", original / "image.png", "--out", tmp_path / "q.png")
    assert (status, "no masks to show" in err) == (2, True)


def test_show_without_video_or_masks_and_with_many_ids(call, original, tmp_path):
    sample = storage.load_sample(original)
    storage.save_sample(Sample(sample.scene, sample.trajectory), tmp_path / "still")
    storage.save_sample(Sample(sample.scene), tmp_path / "scene")
    for name, frames in (("still", 7), ("scene", 1)):
        assert call("show", tmp_path / name, "--out", tmp_path / f"{name}.mp4")[0] == 0
        assert len(media.read_video(tmp_path / f"{name}.mp4")) == frames
    assert call("convert", original, tmp_path / "m.npz", "--to", "npz")[0] == 0
    assert call("edit", tmp_path / "m.npz", "--out", tmp_path / "n.npz", "--do", "reorder 1=200")[0] == 0
    assert call("show", tmp_path / "n.npz", "--out", tmp_path / "n.png")[0] == 0


# convert


@pytest.mark.parametrize(
    ("format", "name"), [("davis", "d"), ("rle", "r.json"), ("colours", "c.mp4"), ("npz", "n.npz"), ("sample", "s")]
)
def test_convert_there_and_back(call, ask, original, tmp_path, format, name):
    status, data = ask("convert", original, tmp_path / name, "--to", format)
    assert (status, data["format"], data["frames"], data["ids"]) == (0, format, 7, [1, 2, 3])
    assert call("convert", original, tmp_path / name, "--to", format)[0] == 2
    assert call("convert", original, tmp_path / name, "--to", format, "--force")[0] == 0
    if format == "sample":
        return
    extra = ["--fps", "12"] if format == "davis" else []
    video = ["--video", original / "video.mp4"]
    assert call("convert", tmp_path / name, tmp_path / "back", "--to", "sample", *video, *extra)[0] == 0
    back, sample = storage.load_sample(tmp_path / "back"), storage.load_sample(original)
    assert back.trajectory == sample.trajectory
    # A lossy video is written a second time.
    assert np.abs(back.video.frames.astype(int) - sample.video.frames).mean() < 3
    if format in ("rle", "npz"):
        assert [thing.name for thing in back.scene.objects] == [thing.name for thing in sample.scene.objects]


def test_convert_between_neighbours(call, ask, original, tmp_path):
    call("convert", original, tmp_path / "a.json", "--to", "rle")
    call("convert", tmp_path / "a.json", tmp_path / "b.npz", "--to", "npz")
    data = ask("inspect", tmp_path / "b.npz")[1]
    names = [thing.name for thing in storage.load_sample(original).scene.objects]
    assert [thing["name"] for thing in data["objects"]] == names
    out = call("convert", tmp_path / "b.npz", tmp_path / "c", "--to", "davis")[1]
    assert "davis does not keep the frame rate" in out
    before, after = (ask("inspect", path)[1]["objects"] for path in (original, tmp_path / "c"))
    assert [thing["area_percent"] for thing in before] == [thing["area_percent"] for thing in after]


def test_convert_time_to_move(call, ask, original, tmp_path):
    assert call("convert", original, tmp_path / "case", "--to", "time-to-move")[0] == 0
    status, data = ask("convert", tmp_path / "case", tmp_path / "s", "--to", "sample", "--names", "1=all of them")
    assert (status, data["from"], data["ids"]) == (0, "time-to-move", [1])
    assert storage.load_sample(tmp_path / "s").scene.objects[0].name == "all of them"
    with_video = ["--to", "sample", "--video", original / "video.mp4"]
    assert call("convert", tmp_path / "case", tmp_path / "t", *with_video)[0] == 0
    assert storage.load_sample(tmp_path / "t").video is not None


def test_convert_names_prompts_and_pictures(call, original, tmp_path):
    names = ["--names", "1=dog, 2 = white cat", "--prompt", "Zwei Tiere."]
    image = ["--image", original / "image.png"]
    assert call("convert", original / "masks", tmp_path / "s", "--to", "sample", *image, *names)[0] == 0
    scene = storage.load_sample(tmp_path / "s").scene
    assert scene.prompt == "Zwei Tiere."
    assert [thing.name for thing in scene.objects] == ["dog", "white cat", "object 3"]
    assert call("convert", original, tmp_path / "t", "--to", "sample", *names)[0] == 0
    renamed = storage.load_sample(tmp_path / "t")
    assert [thing.name for thing in renamed.scene.objects][:2] == ["dog", "white cat"]
    assert renamed.video is not None
    err = call("convert", original / "masks", tmp_path / "d", "--to", "davis", *names)[2]
    assert "note: The format davis does not hold names and a prompt" in err


def test_convert_colours(call, ask, original, tmp_path):
    assert call("convert", original, tmp_path / "p.mp4", "--to", "colours", "--palette", "paper")[0] == 0
    call("convert", original, tmp_path / "o.mp4", "--to", "colours")
    for palette, name in (("paper", "p.mp4"), ("detect", "o.mp4")):
        words = ["--to", "npz", "--palette", palette, "--crop", "0,64", "--from", "colours"]
        words += ["--num-objects", "2"] if palette == "paper" else []
        status, data = ask("convert", tmp_path / name, tmp_path / f"{palette}.npz", *words)
        assert (status, len(data["ids"])) == (0, 2 if palette == "paper" else 3)
        assert any("palette" in note for note in data["notes"])
    big = np.kron(media.read_video(tmp_path / "p.mp4").frames, np.ones((1, 2, 2, 1), np.uint8))
    media.write_video(tmp_path / "big.mp4", Video(big, 12), lossless=True)
    words = ["convert", tmp_path / "big.mp4", tmp_path / "s", "--to", "sample", "--video", original / "video.mp4"]
    assert call(*words)[0] == 2, "the sizes differ"
    assert call(*words, "--resize-masks", "nearest")[0] == 0
    assert storage.load_sample(tmp_path / "s").trajectory == storage.load_sample(original).trajectory


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--to", "davis", "--crop", "5"], "X0,X1"),
        (["--to", "davis", "--palette", "ours"], "a palette belongs to colours"),
        (["--to", "davis", "--resize-masks", "nearest"], "give it with --video"),
        (["--to", "davis", "--fps", "12"], "a Sample has no such option (seen: fps)"),
        (["--to", "sample", "--names", "dog"], '"1=dog,2=cat"'),
        (["--to", "sample", "--names", "1=dog,1=cat"], "two names"),
        (["--to", "sample", "--names", "9=dog"], "no object with that id"),
        (["--to", "colours", "--palette", "detect"], "palette"),
        (["--to", "davis", "--from", "gif"], "no format of that name"),
    ],
)
def test_convert_mistakes(call, original, tmp_path, options, says):
    status, out, err = call("convert", original, tmp_path / "x.mp4", *options)
    assert (status, out) == (2, "")
    assert says in err
    assert not (tmp_path / "x.mp4").exists()


def test_convert_needs_masks_and_a_picture(call, original, tmp_path):
    for source, says in (
        (original / "video.mp4", "a video without masks"),
        (original / "image.png", "a picture"),
        (original / "scene.json", ""),
    ):
        status, _, err = call("convert", source, tmp_path / "x", "--to", "davis")
        assert status == 2
        assert says in err
    assert "--video or --image" in call("convert", original / "masks", tmp_path / "x", "--to", "sample")[2]
    storage.save_sample(Sample(storage.load_sample(original).scene), tmp_path / "bare")
    assert "a Sample without a trajectory" in call("convert", tmp_path / "bare", tmp_path / "x", "--to", "npz")[2]


def test_nothing_foreign_is_overwritten(call, original, tmp_path):
    shutil.copytree(original, tmp_path / "s")
    for target in (tmp_path / "s", tmp_path):
        status, _, err = call("convert", tmp_path / "s", target, "--to", "davis", "--force")
        assert (status, "replace its own source" in err) == (2, True)
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("dear")
    assert "something else than davis" in call("convert", original, tmp_path / "diary", "--to", "davis", "--force")[2]
    assert call("convert", original, tmp_path / "diary", "--to", "sample", "--force")[0] == 2
    shutil.copytree(original / "masks", tmp_path / "masks")
    assert call("convert", original, tmp_path / "masks", "--to", "npz", "--force")[0] == 2
    assert (tmp_path / "diary" / "monday.txt").read_text() == "dear"
    assert len(list((tmp_path / "masks").iterdir())) == 7


# edit


def edited(call, source, out, *steps):
    words = [word for step in steps for word in ("--do", step)]
    status, _, err = call("edit", source, "--out", out, *words)
    assert status == 0, err
    return storage.load_sample(out)


def test_edits_are_done_in_order(call, original, tmp_path):
    before = storage.load_sample(original)
    after = edited(call, original, tmp_path / "e", "move 1 dx=-4 dy=2.5 ramp", "freeze 2 at=3 front")
    expected = edit.freeze(edit.move(before.trajectory, 1, -4, 2.5, ramp=True), 2, 3, in_front=True)
    assert after.trajectory == expected
    assert after.video is None
    assert after.scene == before.scene


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("move 1 dx=3 start=1 end=4", lambda t: edit.move(t, 1, 3, start=1, end=4)),
        ("scale 2 factor=0.5 start=2", lambda t: edit.scale(t, 2, 0.5, start=2)),
        ("rotate 3 degrees=-45 ramp", lambda t: edit.rotate(t, 3, -45, ramp=True)),
        ("retime 1 speed=1/2", lambda t: edit.retime(t, 1, 0.5)),
        ("retime 1 frames=0,0,1,1,2,2,3", lambda t: edit.retime(t, 1, frames=[0, 0, 1, 1, 2, 2, 3])),
        ("resample frames=13", lambda t: edit.resample(t, num_frames=13)),
        ("resample fps=24", lambda t: edit.resample(t, fps=24)),
        (
            "follow 1 0:0,0 6:3,-5,1.2,15",
            lambda t: edit.follow(t, 1, [edit.Keyframe(0), edit.Keyframe(6, 3, -5, 1.2, 15)]),
        ),
        (
            "follow 1 0:0,0 6:3,-5 shape=0 front",
            lambda t: edit.follow(t, 1, [edit.Keyframe(0), edit.Keyframe(6, 3, -5)], shape_from=0, in_front=True),
        ),
        (
            "interpolate 2 2:1,2,12,20 6:3,3,9,12",
            lambda t: edit.interpolate(t, 2, {2: (1, 2, 12, 20), 6: (3, 3, 9, 12)}),
        ),
    ],
)
def test_every_edit(call, original, tmp_path, step, expected):
    before = storage.load_sample(original).trajectory
    after = edited(call, original, tmp_path / "e", step).trajectory
    assert after == expected(before)
    assert after != before


def test_an_edit_that_changes_nothing_keeps_the_video(call, original, tmp_path):
    before = storage.load_sample(original)
    after = edited(call, original, tmp_path / "e", "move 1 dx=0")
    assert (after.trajectory, after.scene) == (before.trajectory, before.scene)
    assert after.video is not None


def test_reorder_renumbers_the_scene_and_keeps_the_video(call, ask, original, tmp_path):
    before = storage.load_sample(original)
    after = edited(call, original, tmp_path / "e", "reorder 1=2 2=1")
    assert [thing.name for thing in after.scene.objects][:2] == [thing.name for thing in before.scene.objects][1::-1]
    assert after.video is not None
    assert after.trajectory == edit.reorder(before.trajectory, {1: 2, 2: 1})
    call("convert", original, tmp_path / "r.json", "--to", "rle")
    assert call("edit", tmp_path / "r.json", "--out", tmp_path / "q.json", "--do", "reorder 1=2 2=1")[0] == 0
    names = [thing["name"] for thing in ask("inspect", tmp_path / "q.json")[1]["objects"]]
    assert names == [thing.name for thing in after.scene.objects]


def test_frame_0_of_a_sample_must_stay(call, original, tmp_path):
    status, _, err = call("edit", original, "--out", tmp_path / "e", "--do", "freeze 1 at=2", "--do", "move 2 dx=2")
    assert (status, err.count("\n")) == (2, 1)
    assert "the edit changes frame 0, which the picture shows (seen: move 2 dx=2); add ramp" in err
    assert "--to npz" in call("edit", original, "--out", tmp_path / "e", "--do", "remove 2")[2]
    assert not (tmp_path / "e").exists()
    edited(call, original, tmp_path / "e", "move 2 dx=1", "move 2 dx=-1")


def test_edit_masks_without_a_picture(call, ask, original, tmp_path):
    for format, name in (("davis", "d"), ("rle", "r.json"), ("colours", "c.mp4"), ("npz", "n.npz")):
        call("convert", original, tmp_path / name, "--to", format)
        status, data = ask("edit", tmp_path / name, "--out", tmp_path / f"x{name}", "--do", "remove 2")
        assert (status, data["format"], data["changed_frames"]) == (0, format, 7)
        areas = {t["id"]: t["area_percent"] for t in ask("inspect", tmp_path / f"x{name}")[1]["objects"]}
        assert areas.get(2, 0) == 0
        assert areas[1] > 0


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("", "no edit of that name"),
        ("jump 1", "edits: move, scale"),
        ("move", "write move ID"),
        ("move one dx=3", "write move ID"),
        ("move 1", "write move ID"),
        ("move 1 dx=a", "write move ID"),
        ("move 1 dx=1 dx=2", "write move ID"),
        ("move 1 dx=1 ramp=yes", "write move ID"),
        ("move 1 dx=nan", "finite number"),
        ("move 9 dx=1", "no object with that id"),
        ("remove 1 now", "write remove ID"),
        ("freeze 1", "write freeze ID"),
        ("freeze 1 at=99", "from 0 to 6"),
        ("retime 1", "only one of them"),
        ("retime 1 speed=1/0", "write retime ID"),
        ("follow 1", "no keyframes"),
        ("follow 1 0:1", "write follow ID"),
        ("follow 1 0:1,2,3,4,5", "write follow ID"),
        ("interpolate 1 0:1,2,3", "a mask or a box"),
        ("interpolate 1 0:1,2,3,4 0:1,2,3,4", "write interpolate"),
        ("reorder", "write reorder"),
        ("reorder 1=2", "same id"),
        ("reorder 1=2 1=3", "write reorder"),
        ("resample", "a number of frames or a frame rate"),
    ],
)
def test_edit_mistakes(call, original, tmp_path, step, says):
    status, out, err = call("edit", original, "--out", tmp_path / "e", "--do", step)
    assert (status, out) == (2, "")
    assert says in err
    assert not (tmp_path / "e").exists()


# doctor


def test_doctor(call, ask, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not yet" / "made"))
    status, data = ask("doctor")
    assert status == (1 if data["problems"] else 0)
    assert data["throughmask"] == __version__
    assert data["packages"]["numpy"] == np.__version__
    assert data["codecs"] == {"libx264": True, "libx264rgb": True}
    assert data["devices"][0].startswith("cpu")
    assert data["cache"]["writable"]
    assert not (tmp_path / "not yet").exists()
    assert f"Python {sys.version.split()[0]}" in call("doctor")[1]


def test_doctor_finds_what_is_missing(call, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("throughmask.cli.doctor.PACKAGES", ("numpy", "torch", "av", "no-such-package"))
    monkeypatch.setattr("throughmask.cli.doctor.CODECS", ("libx264", "binkvideo", "h999"))
    status, out, _ = call("doctor")
    assert status == 1
    for text in (
        "no-such-package is not installed",
        "lacks the codec binkvideo:",
        "lacks the codec h999:",
        "cannot be written to",
    ):
        assert text in out
    assert out.count("problem: ") == 4


# real files


@pytest.mark.slow
def test_real_files_are_known_by_content(ask, assets):
    for path, kind, objects in (
        ("videos/davis16/dog/video.mp4", "video", None),
        ("videos/davis17_multi/dogs_jump/gt_instances", "davis", 3),
        ("videos/magicmotion_mammoth_rhino/mask_trajectory.mp4", "colours", 2),
        ("videos/time_to_move/cutdrag_wan_Owl", "time-to-move", 1),
    ):
        status, data = ask("inspect", assets / path)
        assert (status, data["kind"]) == (0, kind)
        assert len(data.get("objects", ())) == (objects or 0)


@pytest.mark.parametrize(("world", "late"), [("1", True), ("2", False)])
def test_one_of_several_processes_ends_without_taking_the_interpreter_down(world, late):
    """Threads of a process group may be at work still, and would abort it."""
    script = "import atexit, sys; atexit.register(print, 'late'); from throughmask.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "--version"]
    done = subprocess.run(command, env={**os.environ, "WORLD_SIZE": world}, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"throughmask {__version__}"
    assert ("late" in done.stdout) == late
