"""The stages as a subject, and the command: on tiny models of random weights, and what is refused."""

import json
import re
import shlex
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import ONE
from transformers import UMT5Config, UMT5EncoderModel

from throughmask.cli import main
from throughmask.cli.evaluate import _bundled, _fingerprints, _tracker
from throughmask.errors import InvalidValueError
from throughmask.evaluate.judge import judge
from throughmask.evaluate.scenes import Clip, make_case, make_cases
from throughmask.evaluate.subjects import Stages, check_stages
from throughmask.nn.scales import Scales
from throughmask.perception.segmenter import PhraseSegmenter
from throughmask.stages.bundle import make_bundle
from throughmask.stages.init import make_stage
from throughmask.storage import save_sample
from throughmask.synthetic import make_sample
from throughmask.train.words import train_tokenizer
from throughmask.types import MaskTrajectory

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluate.md"
FRAMES, SIZE = 5, (32, 48)
OPTIONS = {"frames": FRAMES, "fps": Fraction(12), "steps": 1, "guidance": Scales(1.0, 1.0)}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipelines():
    made = {"motion": make_stage("tiny-wan", "motion", frames=FRAMES)}
    made |= {
        name: make_stage("tiny-wan", "video", recipe_name=name, frames=FRAMES) for name in ("paper", "ti2v", "flow")
    }
    for pipeline in made.values():
        pipeline.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def sample():
    return make_sample(0, num_objects=2, size=SIZE, frames=FRAMES)


@pytest.mark.slow
def test_stages_make_what_their_pipelines_make(pipelines, sample):
    motion, video = pipelines["motion"], pipelines["paper"]
    stages = Stages(motion, video, video_guidance=Scales(1.5, 2.0), **OPTIONS)
    common = {"frames": FRAMES, "fps": 12, "steps": 1}
    moved = stages.moves(sample.scene, [3, 4])
    assert moved == motion.move(sample.scene, seeds=[3, 4], guidance=(1, 1), **common)
    assert moved[1] != moved[0]
    apart = Stages(motion, video, apart=True, **OPTIONS).moves(sample.scene, [3])
    assert apart == motion.move(sample.scene, seeds=[3], guidance=(1, 1), apart=True, **common)
    assert apart[0] != moved[0]
    rendered = stages.render(sample.scene, sample.trajectory, 3)
    assert rendered == video.render(sample.scene, sample.trajectory, seed=3, guidance=(1.5, 2), **common)
    assert stages.follows_masks


def test_a_round_trip_goes_through_the_vae_alone(pipelines, sample):
    from throughmask.stages.conditioning import decode, encode

    video = pipelines["paper"]
    back = Stages(None, video, **OPTIONS).round_trip(sample.video)
    assert (back.frames.shape, back.fps) == (sample.video.frames.shape, sample.video.fps)
    backbone = video.info.backbone
    assert np.array_equal(back.frames, decode(backbone, video.vae, encode(backbone, video.vae, sample.video.frames))[0])


def test_what_is_missing_makes_nothing(pipelines, sample):
    mover, renderer = Stages(pipelines["motion"], None, **OPTIONS), Stages(None, pipelines["paper"], **OPTIONS)
    assert mover.render(sample.scene, sample.trajectory, 0) is None
    assert mover.round_trip(sample.video) is None
    assert renderer.move(sample.scene, 0) is None
    assert renderer.moves(sample.scene, [0, 1]) is None


def test_a_stage_that_sees_no_masks_is_told_none(pipelines, sample):
    teller = Stages(None, pipelines["ti2v"], **OPTIONS)
    assert not teller.follows_masks
    other = MaskTrajectory(np.roll(sample.trajectory.labels, 5, 2), 12)
    assert teller.render(sample.scene, other, 0) == teller.render(sample.scene, None, 0)


def test_stages_that_do_not_fit_each_other_are_refused(pipelines):
    infos = {name: pipeline.info for name, pipeline in pipelines.items()}
    for motion, video, says in (
        (None, None, "nothing to judge"),
        ("motion", "ti2v", "does not see masks"),
        ("motion", "flow", "optical flow"),
    ):
        with pytest.raises(InvalidValueError, match=says):
            check_stages(infos.get(motion), infos.get(video))


@pytest.fixture(scope="module")
def models(tmp_path_factory, pipelines):
    folder = tmp_path_factory.mktemp("models")
    for name, pipeline in pipelines.items():
        pipeline.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["toybox"], "no such split"),
        (["toybox-128"], "nothing to judge"),
        (["toybox-128", "--motion", "{}/paper"], "checkpoint of the other stage"),
        (["toybox-128", "--motion", "{}"], "is not a checkpoint"),
        (["toybox-128", "--model", "{}/motion"], "not a bundle"),
        (["toybox-128", "--motion", "{}/motion", "--limit", "0"], "at least one"),
        (["toybox-128", "--motion", "{}/motion", "--seeds", "3"], "A..B"),
        (["toybox-128", "--motion", "{}/motion", "--part", "2/2"], "K below N"),
        (["toybox-128", "--motion", "{}/motion", "--frames", "13", "--size", "40x64"], "multiple"),
        (["toybox-128", "--motion", "{}/motion", "--frames", "13", "--size", "64"], "HxW"),
        (["toybox-128", "--motion", "{}/motion", "--frames", "13", "--steps", "0"], "at least one step"),
        (["toybox-128", "--motion", "{}/motion", "--frames", "13", "--guidance", "-1,1"], "from 0 up"),
        (["toybox-128", "--motion", "{}/motion", "--frames", "12", "--size", "64x64"], "frames"),
        (["toybox-128", "--motion", "{}/motion", "--size", "64x64"], "from 1 to 10 seconds"),
        (["toybox-128", "--motion", "{}/motion", "--video", "{}/ti2v"], "does not see masks"),
        (["toybox-128", "--video", "{}/flow"], "optical flow"),
        (["toybox-128", "--motion", "{}/motion", "--frames", "13", "--out", "{}"], "something else than results"),
    ],
)
def test_a_bad_request_is_one_clear_line(models, tmp_path, capsys, words, says):
    words = [word.format(models) for word in words]
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    assert main(["evaluate", *words, *out]) == 2
    text, error = capsys.readouterr()
    assert text == ""
    assert says in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_its_stages_wherever_they_lie(models, tmp_path):
    make_bundle(tmp_path / "toys", models / "motion", models / "paper")
    motion, video, perception = _bundled(tmp_path / "toys", None, None, None)
    assert (motion, video, perception) == (tmp_path / "toys" / "motion", tmp_path / "toys" / "video", None)
    assert _bundled(tmp_path / "toys", models / "motion", None, models)[::2] == (models / "motion", models)
    whole = _fingerprints({"motion": models / "motion", "video": models / "paper"})
    assert _fingerprints({"motion": motion, "video": video}) == whole
    assert whole["motion"] != whole["video"]
    weights = tmp_path / "toys" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    changed = _fingerprints({"motion": motion, "video": video})
    assert {changed[name] != whole[name] for name in whole} == {True}


def test_toys_are_found_again_by_the_segmenter(tmp_path, sample):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a red ball"], 300)
    config = UMT5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    UMT5EncoderModel(config).save_pretrained(tmp_path / "text_encoder")
    PhraseSegmenter(16, (8, 8, 16, 16), 1, 2).save_pretrained(tmp_path / "segmenter")
    found = _tracker(tmp_path, "cpu")(sample.video, sample.scene)
    assert (found.size, len(found)) == (SIZE, FRAMES)
    assert np.array_equal(found.labels[0], sample.scene.labels)


def test_the_programs_of_the_page_run(tmp_path, monkeypatch, capsys):
    benchmark, measuring = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    for folder in ("out/toys", "tracked"):
        save_sample(ONE.sample, tmp_path / folder)
    exec(compile(measuring, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("1.0 0.0")
    names = {}
    exec(compile(benchmark, str(PAGE), "exec"), names)
    assert callable(names["scores"])
    with pytest.raises(InvalidValueError, match="neither masks nor videos"):
        judge(ONE, names["Model"](), None, [0])


@pytest.mark.slow
@pytest.mark.usefixtures("opengl")
def test_the_commands_of_the_page_run_and_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fences = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    commands = [shlex.split(line, comments=True)[1:] for fence in fences for line in fence.splitlines()]
    assert [words[0] for words in commands] == ["init", "init", "evaluate"]
    for words in commands:
        assert main([*words, *(["--workers", "0"] if words[0] == "evaluate" else [])]) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert "1 of 1 scenes" in err
    for name in ("table.txt", "scores.json", "page.html", "results.jsonl"):
        assert (tmp_path / "scores" / name).is_file()
    assert (tmp_path / "scores" / "table.txt").read_text().strip() in out
    data = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert list(data["modes"]) == ["motion", "video", "whole"]
    assert data["modes"]["motion"]["still"]["motion"]["all"]["value"] == 0
    assert data["modes"]["video"]["truth"]["likeness"]["all"]["value"] > 0.8
    assert set(data["made_with"]) >= {"motion", "video", "steps", "motion_guidance", "video_guidance", "dtype", "seeds"}
    # The same command makes no scene again, in either form of answer.
    assert main([*commands[-1], "--json"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 1" not in err
    assert json.loads(out)["modes"] == data["modes"]


@pytest.mark.slow
@pytest.mark.usefixtures("opengl")
def test_scenes_of_another_process_are_the_same():
    clip = Clip((64, 64), 13)
    [made] = make_cases([1_000_000], clip, workers=1)
    here = make_case(1_000_000, clip)
    assert (made.seed, made.toys) == (here.seed, here.toys)
    assert made.sample.trajectory == here.sample.trajectory
    assert made.again.trajectory == here.again.trajectory != here.sample.trajectory
    assert made.again.scene.prompt == here.sample.scene.prompt
