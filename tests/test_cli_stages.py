"""The commands init, move and render, on tiny models of random weights; and everything that they refuse."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from throughmask import MaskTrajectory, Sample, Scene, SceneObject, Video, media, storage
from throughmask.cli import main
from throughmask.cli.runs import choose_device, enough_memory
from throughmask.errors import DeviceError
from throughmask.synthetic import make_sample

SIZE, FRAMES = (32, 48), 5
QUICK = ["--steps", "2", "--device", "cpu"]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """One checkpoint for each stage and Recipe that these tests run, made by the command itself."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {"motion": "paper", "video": "paper", "flow-motion": "flow", "flow-video": "flow", "ti2v": "ti2v"}
    for name, recipe in kinds.items():
        stage = "motion" if name.endswith("motion") else "video"
        words = ["init", "--base", "tiny-wan", "--stage", stage, "--recipe", recipe, "--frames", str(FRAMES)]
        assert main([*words, "--out", str(folder / name)]) == 0
    # As the first two, but with nothing in their weights: whoever loads these fails.
    for name in ("motion", "video", "flow-video"):
        shutil.copytree(folder / name, folder / f"hollow-{name}")
        for weights in (folder / f"hollow-{name}").glob("*/*.safetensors"):
            weights.write_bytes(b"nothing")
    return folder


@pytest.fixture
def scene(tmp_path):
    """A Sample without masks or video."""
    storage.save_sample(replace(still(), trajectory=None), tmp_path / "scene")
    return tmp_path / "scene"


@pytest.fixture
def moving(tmp_path):
    """A Sample with masks, without a video."""
    storage.save_sample(still(), tmp_path / "moving")
    return tmp_path / "moving"


def still(seed=1, **options):
    options = {"num_objects": 2, "size": SIZE, "frames": FRAMES, **options}
    return replace(make_sample(seed, **options), video=None)


@pytest.fixture
def call(capsys):
    def run(*arguments):
        capsys.readouterr()
        status = main([str(word) for word in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def ask(call):
    def run(*arguments):
        status, out, err = call(*arguments, "--json")
        assert "it/s" not in err
        return status, json.loads(out)

    return run


def contents(folder):
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def run_of(folder):
    return json.loads((folder / "run.json").read_text())


# init


def test_init_says_what_it_made(call, ask, tmp_path):
    words = ["init", "--base", "tiny-wan", "--stage", "video", "--blocks", "2", "--recipe", "cross-only"]
    status, data = ask(*words, "--palette", "paper", "--out", tmp_path / "v")
    assert status == 0
    assert (data["masked_blocks"], data["blocks"], data["recipe"], data["frames"]) == (2, 3, "cross-only", 25)
    index = json.loads((tmp_path / "v" / "model_index.json").read_text())
    assert (index["palette"], index["num_ids"], index["recipe"]) == ("paper", 21, "cross-only")
    status, out, err = call(*words, "--out", tmp_path / "v")
    assert (status, out) == (2, "")
    assert "not empty" in err
    status, out, err = call(*words, "--out", tmp_path / "v", "--force")
    assert (status, err) == (0, "")
    assert f"{data['parameters']:,} parameters, {data['added_parameters']:,} of them added" in out
    assert "the first 2 with masked attention" in out


def test_what_init_adds_is_what_the_base_lacks(ask, tmp_path):
    from throughmask.stages.init import load_base

    count = sum(parameter.numel() for parameter in load_base("tiny-wan")[1]["transformer"].parameters())
    for stage in ("motion", "video"):
        data = ask("init", "--base", "tiny-wan", "--stage", stage, "--out", tmp_path / stage)[1]
        assert data["parameters"] - data["added_parameters"] == count


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--stage", "motion", "--blocks", "2"], "leave --blocks out"),
        (["--stage", "video", "--blocks", "4"], "masked blocks are 0 to 3"),
        (["--stage", "video", "--blocks", "-1"], "masked blocks are 0 to"),
        (["--stage", "video", "--frames", "8"], "nearest is 9"),
    ],
)
def test_what_init_refuses(call, tmp_path, words, says):
    status, _, err = call("init", "--base", "tiny-wan", *words, "--out", tmp_path / "x")
    assert status == 2
    assert says in err
    assert list(tmp_path.iterdir()) == []


def test_init_from_a_folder(ask, call, base_folder, tmp_path):
    words = ["init", "--base", str(base_folder), "--stage", "video", "--out", tmp_path / "v"]
    status, _, err = call(*words, "--blocks", "9")
    assert (status, "masked blocks are 0 to 3" in err) == (2, True)
    status, data = ask(*words)
    assert (status, data["frames"], data["fps"]) == (0, 81, "16")


@pytest.mark.slow
def test_init_downloads_from_a_hub_and_then_needs_it_no_more(base_folder, hub, tmp_path):
    """The first time it says how much comes; the second time, without the hub, the cache serves."""
    words = [sys.executable, "-c", FIND, "some/model"]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment |= {"HF_HUB_DISABLE_XET": "1"}
    for _ in range(2):
        done = subprocess.run(words, env={**environment, "HF_ENDPOINT": hub}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said, folder = done.stdout.splitlines()
        assert contents(folder).keys() >= {f"{folder}/model_index.json", f"{folder}/transformer/config.json"}
        assert " files to download, 0.0 GB" in said
    assert "some/model: 0 of " in said
    for more in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = subprocess.run(words, env={**environment, **more}, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines() == ["some/model: from the cache, without asking the hub", folder], done.stderr


FIND = """import sys
from throughmask.stages.bases import find_base
print(find_base(sys.argv[1], say=print).folder)"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "says"),
    [({"HF_HUB_OFFLINE": "1"}, "unset HF_HUB_OFFLINE"), ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "refused")],
)
def test_no_hub_is_one_line_at_once(tmp_path, environment, says):
    words = ["init", "--base", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "--stage", "video", "--out", "x"]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), **environment}
    done = subprocess.run(
        [sys.executable, "-m", "throughmask", *words],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: Wan-AI/Wan2.1-T2V-1.3B-Diffusers cannot be downloaded")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    """A whole text-to-video pipeline, as on the hub."""
    from diffusers import WanPipeline

    from throughmask.stages.init import load_base

    folder = tmp_path_factory.mktemp("base")
    WanPipeline(**load_base("tiny-wan")[1]).save_pretrained(folder)
    return folder


@pytest.fixture
def hub(base_folder):
    """A hub with one model, on this machine."""
    files = {str(path.relative_to(base_folder)): path for path in base_folder.rglob("*") if path.is_file()}
    commit = "0" * 40

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/api/models/some/model/tree"):
                tree = [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": name}
                    for name, path in files.items()
                ]
                return self.answer(json.dumps(tree).encode())
            if self.path.startswith("/api/models/some/model"):
                siblings = [{"rfilename": name} for name in files]
                about = {"id": "some/model", "sha": commit, "siblings": siblings, "private": False, "tags": []}
                return self.answer(json.dumps(about).encode())
            return self.answer(files[self.path.split(f"/some/model/resolve/{commit}/")[1]].read_bytes())

        do_HEAD = do_GET  # noqa: N815

        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{abs(hash(body))}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# What is refused before torch is loaded


def refusals(folder, models):
    """name: (command line, what the one line says). The Samples that they need are made in `folder`."""
    sample = still()
    storage.save_sample(sample, folder / "moving")
    storage.save_sample(replace(sample, trajectory=None), folder / "scene")
    blank = Video(np.zeros((FRAMES, *SIZE, 3), np.uint8), sample.trajectory.fps)
    storage.save_sample(replace(sample, video=blank), folder / "whole")
    storage.save_sample(replace(sample, trajectory=None, video=blank), folder / "filmed")
    storage.save_sample(still(size=(40, 48)), folder / "odd")
    things = (*sample.scene.objects, SceneObject(14, "moon", "a moon"))
    many = replace(sample.scene, objects=things)
    storage.save_sample(Sample(many, sample.trajectory), folder / "many")
    storage.save_sample(sample, folder / "unknown")
    header = json.loads((folder / "unknown" / "scene.json").read_text())
    header["objects"].pop()
    (folder / "unknown" / "scene.json").write_text(json.dumps(header))
    (folder / "scene" / "candidates").mkdir()
    (folder / "scene" / "candidates" / "notes.txt").write_text("mine")
    for name, change in SPOILED.items():
        shutil.copytree(models / "hollow-motion", folder / name)
        change(folder / name)
    short = Video(np.zeros((9, *SIZE, 3), np.uint8), sample.trajectory.fps)
    small = Video(np.zeros((FRAMES, 16, 16, 3), np.uint8), sample.trajectory.fps)
    media.write_video(folder / "short.mp4", short)
    media.write_video(folder / "small.mp4", small)
    motion, video, flow = (str(models / f"hollow-{name}") for name in ("motion", "video", "flow-video"))
    moves = {name: (["move", *words], says) for name, (words, says) in MOVES.items()}
    renders = {name: (["render", *words], says) for name, (words, says) in RENDERS.items()}
    names = {"MOTION": motion, "VIDEO": video, "FLOW": flow}
    return {
        name: ([names.get(word, word) for word in words], says)
        for name, (words, says) in {**moves, **renders, **INITS}.items()
    }


def spoil_weights(folder):
    for path in (folder / "transformer").glob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))


def spoil_shards(folder):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "transformer" / "model.safetensors.index.json").write_text(json.dumps(index))


def spoil_index(key, value):
    def change(folder):
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, key: value}))

    return change


SPOILED = {
    "pickled": spoil_weights,
    "sharded": spoil_shards,
    "textless": lambda folder: shutil.rmtree(folder / "text_encoder"),
    "vaeless": lambda folder: shutil.rmtree(folder / "vae"),
    "unlisted": spoil_index("tokenizer", [None, None]),
    "foreign": spoil_index("_class_name", "WanPipeline"),
    "wordy": spoil_index("num_ids", "many"),
    "colourful": spoil_index("palette", "rainbow"),
    "garbled": lambda folder: (folder / "model_index.json").write_text("{"),
    "listed": lambda folder: (folder / "model_index.json").write_text("[]"),
}
MOVES = {
    "other stage": (["scene", "--model", "VIDEO"], "needs one made for --stage motion; this one is for render"),
    "no checkpoint": (["scene", "--model", "nothing"], "it has no model_index.json"),
    "pickles": (["scene", "--model", "pickled"], "weights only as pickles"),
    "lost shard": (["scene", "--model", "sharded"], "lacks some of its weights"),
    "no text encoder": (["scene", "--model", "textless"], "lacks its component 'text_encoder'"),
    "no vae": (["scene", "--model", "vaeless"], "vae/config.json"),
    "no tokenizer": (["scene", "--model", "unlisted"], "lacks its component 'tokenizer'"),
    "base model": (["scene", "--model", "foreign"], "make one with throughmask init"),
    "wrong kind of setting": (["scene", "--model", "wordy"], "lacks a setting, or has one of another kind"),
    "unknown palette": (["scene", "--model", "colourful"], "there is no palette of that name"),
    "no JSON": (["scene", "--model", "garbled"], "cannot be read"),
    "no JSON object": (["scene", "--model", "listed"], "is not a JSON object"),
    "no Sample": (["nothing", "--model", "MOTION"], "there is no such folder"),
    "unknown object": (["unknown", "--model", "MOTION"], "a mask uses ids that no object has"),
    "too many objects": (["many", "--model", "MOTION", "--force"], "this model knows ids 1 to 13 (seen: [14])"),
    "negative guidance": (["scene", "--model", "MOTION", "--guidance=-1,2"], "image guidance must be a number from 0"),
    "endless guidance": (["scene", "--model", "MOTION", "--guidance", "1,inf"], "text guidance must be"),
    "no number": (["scene", "--model", "MOTION", "--guidance", "nan,1"], "image guidance must be"),
    "one guidance": (["scene", "--model", "MOTION", "--guidance", "7"], "guidance is written IMAGE,TEXT"),
    "no steps": (["scene", "--model", "MOTION", "--steps", "0"], "at least one step"),
    "odd frames": (["scene", "--model", "MOTION", "--frames", "8"], "nearest is 9"),
    "no frames": (["scene", "--model", "MOTION", "--frames", "0"], "nearest is 1"),
    "odd size": (["odd", "--model", "MOTION", "--force"], "nearest is 32×48"),
    "odd new size": (["scene", "--model", "MOTION", "--size", "50x70", "--out", "o"], "nearest is 48×64"),
    "no size": (["scene", "--model", "MOTION", "--size", "big", "--out", "o"], "a size is written HxW"),
    "empty size": (["scene", "--model", "MOTION", "--size", "0x16", "--out", "o"], "a picture has 1 to"),
    "size in place": (["scene", "--model", "MOTION", "--size", "64x96"], "name another folder with --out"),
    "device": (["scene", "--model", "MOTION", "--device", "tpu"], "there is no such device"),
    "dtype": (["scene", "--model", "MOTION", "--dtype", "float8"], "float8"),
    "rate": (["scene", "--model", "MOTION", "--fps", "slow"], "frame rate must be exact"),
    "negative seed": (["scene", "--model", "MOTION", "--seed", "-1"], "whole numbers from 0 up"),
    "two seeds": (["scene", "--model", "MOTION", "--seed", "1", "--seeds", "0..1"], "not both"),
    "seeds down": (["scene", "--model", "MOTION", "--seeds", "7..0"], "from a smaller to a larger"),
    "too many seeds": (["scene", "--model", "MOTION", "--seeds", "0..64"], "at most 64"),
    "seeds of words": (["scene", "--model", "MOTION", "--seeds", "all"], "such as 0..7"),
    "masks there": (["moving", "--model", "MOTION"], "the Sample already has masks"),
    "video there": (["filmed", "--model", "MOTION"], "would not follow new masks"),
    "candidates there": (["scene", "--model", "MOTION", "--seeds", "0..1"], "exists and is not empty"),
    "others' candidates": (["scene", "--model", "MOTION", "--seeds", "0..1", "--force"], "holds other things"),
    "output there": (["scene", "--model", "MOTION", "--out", "moving"], "exists and is not empty"),
    "output no Sample": (["scene", "--model", "MOTION", "--out", "pickled", "--force"], "is not a Sample"),
    "output is source": (["scene", "--model", "MOTION", "--out", "scene", "--force"], "replace its own source"),
}  # fmt: skip
RENDERS = {
    "stage of move": (["moving", "--model", "MOTION"], "needs one made for --stage video; this one is for move"),
    "no masks": (["scene", "--model", "VIDEO"], "throughmask move makes one"),
    "other length": (["moving", "--model", "VIDEO", "--frames", "9"], "another number of frames"),
    "other rate": (["moving", "--model", "VIDEO", "--fps", "5"], "the motion has 12 frames a second"),
    "a video there": (["whole", "--model", "VIDEO"], "the Sample already has a video"),
    "many objects": (["many", "--model", "VIDEO"], "this model knows ids 1 to 13 (seen: [14])"),
    "flow for masks": (["moving", "--model", "VIDEO", "--flow", "short.mp4"], "does not see flow"),
    "no flow": (["moving", "--model", "FLOW"], "there is none (seen: moving/flow.mp4)"),
    "longer flow": (["moving", "--model", "FLOW", "--flow", "short.mp4"], "masks and video differ in frame count"),
    "smaller flow": (["moving", "--model", "FLOW", "--flow", "small.mp4"], "differ in size"),
}  # fmt: skip
INITS = {
    "no base": (["init", "--base", "nothing", "--stage", "video", "--out", "o"], "known names: Wan-AI/Wan2.1"),
    "no pipeline": (["init", "--base", "moving", "--stage", "video", "--out", "o"], "it has no model_index.json"),
    "a stage as base": (["init", "--base", "MOTION", "--stage", "video", "--out", "o"], "known: WanPipeline"),
    "init over a Sample": (
        ["init", "--base", "tiny-wan", "--stage", "video", "--out", "moving", "--force"],
        "is not a checkpoint",
    ),
    "init: no frames": (["init", "--base", "tiny-wan", "--stage", "video", "--out", "o", "--frames", "0"], "one frame"),
    "init: rate": (["init", "--base", "tiny-wan", "--stage", "video", "--out", "o", "--fps", "x"], "must be exact"),
    "init: seed": (["init", "--base", "tiny-wan", "--stage", "video", "--out", "o", "--seed", "-1"], "from 0 up"),
    "init: recipe": (["init", "--base", "tiny-wan", "--stage", "video", "--out", "o", "--recipe", "soup"], "soup"),
}  # fmt: skip
REFUSE = """import contextlib, io, json, sys
from throughmask.cli import main
answers = {}
for name, (words, _) in json.load(sys.stdin).items():
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        status = main(words)
    heavy = [package for package in ("torch", "diffusers", "transformers") if package in sys.modules]
    answers[name] = status, err.getvalue(), heavy
print(json.dumps(answers))
"""


@pytest.fixture(scope="session")
def refused(tmp_path_factory, models):
    """What each of them answers, all in one process that never needs torch; and the folder before and after."""
    folder = tmp_path_factory.mktemp("refused")
    asked = refusals(folder, models)
    before = contents(folder)
    command = [sys.executable, "-c", REFUSE]
    done = subprocess.run(command, input=json.dumps(asked), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return asked, json.loads(done.stdout), before, contents(folder)


@pytest.mark.parametrize("name", [*MOVES, *RENDERS, *INITS])
def test_what_is_refused_before_torch_is_loaded(refused, name):
    asked, answers, _, _ = refused
    status, err, heavy = answers[name]
    assert status == 2
    assert asked[name][1] in err
    assert err.splitlines()[-1].startswith("error: ")
    assert heavy == []


def test_a_refusal_writes_nothing(refused):
    _, _, before, after = refused
    assert before == after


def test_weights_that_cannot_be_loaded(call, models, scene):
    before = contents(scene)
    status, _, err = call("move", scene, "--model", models / "hollow-motion", *QUICK)
    assert status == 2
    assert "hollow-motion cannot be loaded" in err
    assert contents(scene) == before


def test_a_device_that_is_not_there(call, models, scene):
    before = contents(scene)
    status, _, err = call("move", scene, "--model", models / "hollow-motion", "--device", "cuda:99")
    assert (status, "this machine has no such device (seen: cuda:99)" in err) == (2, True)
    assert contents(scene) == before
    assert choose_device("cpu") == "cpu"


def test_full_memory_is_one_line():
    import torch

    with pytest.raises(DeviceError, match="try --offload"), enough_memory():
        torch.empty(1 << 60)
    for error in (torch.OutOfMemoryError("CUDA out of memory. Tried ..."), MemoryError()):
        with pytest.raises(DeviceError, match="ran out of memory"), enough_memory():
            raise error
    with pytest.raises(RuntimeError, match="shapes"), enough_memory():
        raise RuntimeError("shapes differ")


# move


def test_move_adds_masks_and_says_how_they_came(ask, models, scene):
    words = ["move", scene, "--model", models / "motion", *QUICK, "--seed", "3", "--guidance", "1,2"]
    status, data = ask(*words, "--negative-prompt", "blur", "--dtype", "bfloat16")
    assert status == 0
    sample = storage.load_sample(scene)
    assert (len(sample.trajectory), str(sample.trajectory.fps)) == (FRAMES, "12")
    assert (data["seed"], data["frames"], data["size"], data["fps"]) == (3, FRAMES, list(SIZE), "12")
    run = run_of(scene)["move"]
    assert (run["seed"], run["confidence"], run["device"], run["dtype"]) == (3, data["confidence"], "cpu", "bfloat16")
    assert run["options"]["guidance"] == {"image": 1, "text": 2}
    assert (run["options"]["negative_prompt"], run["options"]["steps"]) == ("blur", 2)
    model = run["model"]
    assert model["path"] == str(models / "motion")
    assert (model["class"], model["recipe"], model["palette"]) == ("ImageToMotionPipeline", "paper", "ours")
    assert run["versions"].keys() == {"throughmask", "torch", "diffusers", "transformers", "python"}
    assert run["seconds"].keys() == {"load", "sample", "total"}
    assert run["seconds"]["total"] >= run["seconds"]["load"] + run["seconds"]["sample"]


@pytest.mark.slow
def test_candidates_are_those_of_their_seeds(call, ask, models, scene, tmp_path):
    model = ["--model", models / "motion", *QUICK]
    status, out, err = call("move", scene, *model, "--seeds", "2..3")
    assert status == 0
    assert "move: 100%" in err
    assert f"throughmask render {scene}/candidates/seed-2" in out
    folder = scene / "candidates"
    assert sorted(path.name for path in folder.iterdir()) == ["seed-2", "seed-3", "sheet.png"]
    assert storage.load_sample(scene).trajectory is None
    assert media.read_image(folder / "sheet.png").shape[1] == 1600
    assert ask("move", scene, *model, "--seed", "3", "--out", tmp_path / "three")[0] == 0
    three, candidate = storage.load_sample(tmp_path / "three"), storage.load_sample(folder / "seed-3")
    assert three == candidate
    assert run_of(folder / "seed-3")["move"]["seed"] == run_of(tmp_path / "three")["move"]["seed"] == 3
    status, data = ask("move", scene, *model, "--seeds", "2..2", "--force")
    assert [item["seed"] for item in data["candidates"]] == [2]
    assert not (folder / "seed-3").exists()


def test_candidates_in_another_folder_at_another_size(ask, models, moving, tmp_path):
    words = ["move", moving, "--model", models / "motion", *QUICK, "--seeds", "0..0", "--out", tmp_path / "c"]
    status, data = ask(*words, "--size", "48x48", "--fps", "24", "--frames", "9")
    assert (status, data["size"], data["fps"], data["frames"]) == (0, [48, 48], "24", 9)
    assert any("resized from 32×48 to 48×48" in text for text in data["notes"])
    assert any("stretched" in text for text in data["notes"])
    here, there = storage.load_sample(tmp_path / "c"), storage.load_sample(tmp_path / "c" / "candidates" / "seed-0")
    assert here.trajectory is None
    assert here.scene == there.scene
    assert set(np.unique(here.scene.labels)) <= set(np.unique(still().scene.labels))
    assert (there.trajectory.labels[0] == here.scene.labels).all()


def test_new_masks_take_the_old_video_away(ask, models, tmp_path):
    blank = Video(np.zeros((FRAMES, *SIZE, 3), np.uint8), 12)
    storage.save_sample(replace(still(), video=blank), tmp_path / "s")
    (tmp_path / "s" / "run.json").write_text("not JSON")
    status, data = ask("move", tmp_path / "s", "--model", models / "motion", *QUICK, "--frames", "9", "--force")
    assert status == 0
    assert data["notes"] == ["The video was removed: it does not follow the new masks."]
    sample = storage.load_sample(tmp_path / "s")
    assert (len(sample.trajectory), sample.video) == (9, None)
    assert not (tmp_path / "s" / "video.mp4").exists()
    assert run_of(tmp_path / "s").keys() == {"move"}


# render


@pytest.mark.slow
def test_render_adds_a_video_or_writes_another_sample(call, ask, models, moving, tmp_path):
    (moving / "run.json").write_text('{"move": {"seed": 5}}')
    words = ["render", moving, "--model", models / "video", *QUICK]
    status, data = ask(*words, "--out", tmp_path / "r", "--offload")
    assert status == 0
    assert data["notes"] == ["--offload has no effect on the CPU."]
    made = storage.load_sample(tmp_path / "r")
    assert (made.scene, made.trajectory) == (still().scene, still().trajectory)
    assert (len(made.video), made.video.fps) == (FRAMES, made.trajectory.fps)
    runs = run_of(tmp_path / "r")
    assert runs["move"] == {"seed": 5}
    assert runs["render"]["model"]["class"] == "MotionToVideoPipeline"
    assert storage.load_sample(moving).video is None
    status, out, err = call(*words)
    assert (status, "render: 100%" in err, "seed 0" in out) == (0, True, True)
    assert storage.load_sample(moving).video == made.video
    assert run_of(moving).keys() == {"move", "render"}
    assert ask(*words)[0] == 2
    assert ask(*words, "--seed", "1", "--force")[0] == 0
    assert storage.load_sample(moving).video != made.video


def test_render_at_another_size_takes_the_masks_along(ask, models, moving, tmp_path):
    words = ["render", moving, "--model", models / "video", *QUICK, "--size", "16x32", "--out", tmp_path / "r"]
    assert ask(*words)[0] == 0
    made = storage.load_sample(tmp_path / "r")
    assert made.trajectory.size == made.video.size == (16, 32)


def test_what_vanishes_when_resized_is_named(tmp_path):
    from throughmask.cli.requests import _resized
    from throughmask.errors import ThroughMaskWarning

    labels = np.zeros((32, 32), np.uint8)
    labels[0, 0] = 1
    sample = Sample(
        Scene(np.zeros((32, 32, 3), np.uint8), labels, objects=(SceneObject(1, "dot", "a dot"),)),
        video=Video(np.zeros((1, 32, 32, 3), np.uint8), 1),
    )
    with pytest.warns(ThroughMaskWarning) as notices:
        small = _resized(sample, (16, 16))
    said = [str(notice.message) for notice in notices]
    assert "Objects [1] are too small to be seen at 16×16." in said
    assert "The video was left out." in said
    assert small.video is None


def test_a_scene_without_objects(ask, models, tmp_path):
    storage.save_sample(Sample(Scene(still().scene.image, np.zeros(SIZE, np.uint8), "a lake")), tmp_path / "lake")
    status, data = ask("move", tmp_path / "lake", "--model", models / "motion", *QUICK)
    assert (status, data["confidence"]) == (0, 1)
    assert not storage.load_sample(tmp_path / "lake").trajectory.labels.any()
    assert ask("render", tmp_path / "lake", "--model", models / "video", *QUICK)[0] == 0
    assert len(storage.load_sample(tmp_path / "lake").video) == FRAMES


@pytest.mark.slow
def test_a_model_that_sees_no_motion(ask, models, scene, tmp_path):
    words = ["--model", models / "ti2v", *QUICK]
    status, data = ask("render", scene, *words, "--fps", "8")
    assert (status, data["fps"], data["frames"]) == (0, "8", FRAMES)
    assert storage.load_sample(scene).trajectory is None
    assert run_of(scene)["render"]["model"]["recipe"] == "ti2v"
    storage.save_sample(
        replace(still(), trajectory=MaskTrajectory(still(frames=9).trajectory.labels, 10)), tmp_path / "9"
    )
    status, data = ask("render", tmp_path / "9", *words)
    assert (status, data["fps"], data["frames"]) == (0, "10", 9)


@pytest.mark.slow
def test_flow_goes_from_move_to_render(ask, models, scene, tmp_path):
    move, render = (["--model", models / f"flow-{stage}", *QUICK] for stage in ("motion", "video"))
    status, data = ask("move", scene, *move)
    assert (status, data["confidence"]) == (0, None)
    flow = media.read_video(scene / "flow.mp4")
    assert (len(flow), flow.size) == (FRAMES, SIZE)
    assert storage.load_sample(scene).trajectory is None
    assert ask("move", scene, *move)[0] == 2
    assert ask("move", scene, *move, "--force")[0] == 0
    assert media.read_video(scene / "flow.mp4") == flow
    assert ask("render", scene, *render, "--out", tmp_path / "r")[0] == 0
    assert media.read_video(tmp_path / "r" / "flow.mp4") == flow
    shutil.move(scene / "flow.mp4", tmp_path / "wheel.mp4")
    assert ask("render", scene, *render, "--flow", tmp_path / "wheel.mp4")[0] == 0
    assert storage.load_sample(scene).video == storage.load_sample(tmp_path / "r").video
    status, data = ask("move", scene, *move, "--seeds", "0..1", "--out", tmp_path / "c")
    assert media.read_video(tmp_path / "c" / "candidates" / "seed-0" / "flow.mp4") == flow


# Interrupted


@pytest.mark.slow
def test_an_interrupted_run_leaves_the_sample_as_it_was(models, scene):
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("needs the main thread, which gets the signal")
    before = contents(scene.parent)
    for words in (["--out", str(scene.parent / "o")], ["--seeds", "0..1"], []):
        watch = Interrupter(signal.SIGINT)
        with watch:
            status = main(["move", str(scene), "--model", str(models / "motion"), "--steps", "100000", *words])
        assert (status, watch.bar_was_seen) == (130, True)
        assert contents(scene.parent) == before
        assert [path.name for path in scene.parent.iterdir()] == ["scene"]


class Interrupter:
    """Sends this process a signal as soon as the bar of the sampler has moved."""

    def __init__(self, signal):
        self.signal, self.bar_was_seen, self.usual = signal, False, None

    def __enter__(self):
        self.usual, sys.stderr = sys.stderr, self
        self.handler = signal.signal(self.signal, signal.default_int_handler)  # a shell's "&" has it ignored

    def __exit__(self, *error):
        sys.stderr = self.usual
        signal.signal(self.signal, self.handler)

    def write(self, text):
        if not self.bar_was_seen and "1/100000" in text:
            self.bar_was_seen = True
            os.kill(os.getpid(), self.signal)
        return len(text)

    def flush(self):
        pass
