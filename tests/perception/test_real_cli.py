"""The whole chain from the command line: a server that misbehaves, tiny Grounding DINO and SAM 2, tiny stages."""

import json
import re

import numpy as np
import pytest
import torch
from fake_llm import FakeServer, fails, says
from test_instruct_cli import ANSWER, PROMPT
from tiny_bundle import FRAMES, make_tiny_bundle
from tiny_seeing import tiny_detector, tiny_video_model
from transformers import GroundingDinoForObjectDetection, Sam2VideoModel

from throughmask import media
from throughmask.cli import main
from throughmask.cli.animate import PHOTO_BASE, PHOTO_PRESET, PHOTO_SIZES
from throughmask.storage import load_sample, save_sample
from throughmask.synthetic import make_sample

SIZE = (75, 101)
ONE = {**ANSWER, "objects": ANSWER["objects"][:1]}
WELL = says(json.dumps(ONE))
BOXES = ("--boxes", "ball=10,12,60,50; block=50,30,99,70")


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A folder with dino/ and sam2/."""
    folder = tmp_path_factory.mktemp("seeing")
    for part in tiny_detector():
        part.save_pretrained(folder / "dino")
    tiny_video_model().save_pretrained(folder / "sam2")
    return folder


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("stages"))


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def call(tmp_path, capsys, seeing, monkeypatch):
    """A command with the tiny models; nothing is refused by a threshold. Gives status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    rng = np.random.default_rng(0)
    media.write_image(tmp_path / "photo.png", rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))

    def run(*words, detector=seeing / "dino", threshold=0):
        more = ("--perception", "real", "--detector", detector, "--segmenter", seeing / "sam2", "--device", "cpu")
        more += ("--box-threshold", threshold, "--text-threshold", 0)
        capsys.readouterr()
        status = main([str(word) for word in (*words, *more)])
        return status, *capsys.readouterr()

    return run


def asking(server, prompt=PROMPT):
    return "--prompt", prompt, "--language", "openai", "--url", server.url, "--llm", "tiny"


def runs_of(folder):
    return json.loads((folder / "run.json").read_text())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def errors_in(err):
    return [line for line in err.splitlines() if not line.startswith("note: ")]


@pytest.mark.slow
def test_a_photograph_is_animated_though_the_server_misbehaves(call, fake, stages, seeing, tmp_path):
    fake.replies = [fails(429, Retry_After="0"), fails(500, Retry_After="0"), says('{"objects": "none"}'), WELL]
    words = ("animate", "photo.png", "--model", stages, "--out", "out", "--steps", "1")
    status, _, err = call(*words, *asking(fake))
    assert status == 0, err
    assert len(fake.heard) == 4
    sample = load_sample(tmp_path / "out")
    assert [thing.prompt for thing in sample.scene.objects] == ["The ball rolls to the left."]
    assert "transformers]" not in err  # nothing that only a programmer understands
    assert (len(sample.video), sample.scene.labels.max()) == (FRAMES, 1)
    record = runs_of(tmp_path / "out")["parse"]
    assert record["language"] == "tiny"
    assert record["perception"] == {
        "kind": "real",
        "detector": str(seeing / "dino"),
        "segmenter": str(seeing / "sam2"),
        "box_threshold": 0,
        "text_threshold": 0,
    }
    assert "secret" not in json.dumps(runs_of(tmp_path / "out")) + err
    # Started again it is done; with another threshold it would be another result.
    assert call(*words, *asking(fake))[0] == 0
    status, _, err = call(*words, *asking(fake), threshold=0.1)
    assert (status, "made with other arguments" in err and "perception" in err) == (2, True)
    assert len(fake.heard) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (fails(429, Retry_After="0"), "takes no more requests now"),
        (fails(500, Retry_After="0"), "fails (HTTP 500)"),
        (lambda handler, body: handler.server.gone.wait(5), "did not answer within 0.3 seconds"),
        (says("no JSON {"), "cannot be used"),
        (says(json.dumps({"motion_prompt": "x", "objects": [{"name": "ball"}]})), "cannot be used"),
        (says(None, refusal="I will not help."), "I will not help"),
    ],
    ids=["busy", "failing", "slow", "no JSON", "wrong schema", "refusal"],
)
def test_a_server_that_fails_loses_nothing(call, fake, tmp_path, reply, problem):
    import threading

    fake.server.gone, fake.replies = threading.Event(), [reply]
    save_sample(make_sample(0, size=(32, 48), frames=3), tmp_path / "out")
    before = contents(tmp_path)
    status, _, err = call("parse", "photo.png", "--out", "out", "--force", "--timeout", "0.3", *asking(fake))
    fake.server.gone.set()
    assert status == 2
    assert problem in err
    assert len(errors_in(err)) == 1
    assert contents(tmp_path) == before


def test_a_missing_detector_costs_no_answer(call, fake, tmp_path):
    fake.replies = [WELL]
    for name, problem in (
        ("nowhere", "no such model"),
        ("IDEA-Research/grounding-dino-base", "it is 0.93 GB: hf down"),
    ):
        status, _, err = call("parse", "photo.png", "--out", "out", *asking(fake), detector=name)
        assert (status, problem in err) == (2, True), err
    assert fake.heard == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["parse", "animate"])
def test_what_was_read_is_told_if_it_is_not_found(call, fake, stages, tmp_path, command):
    fake.replies = [WELL]
    model = ("--model", stages) if command == "animate" else ()
    status, _, err = call(command, "photo.png", "--out", "out", *model, *asking(fake), threshold=1)
    assert status == 2
    assert "note: The prompt was read: 1 ball. Masks with these ids, boxes or points make the search needless." in err
    assert re.search(r"note: Not found: 'ball': not seen surely enough \(best score [01]\.\d\d\)\.", err)
    assert len(errors_in(err)) == 1


def test_boxes_and_points_need_no_detector(call, tmp_path):
    words = ("parse", "photo.png", "--prompt", PROMPT, "--out", "out", "--points", "block=80,50")
    status, _, err = call(*words, "--boxes", "ball=10,12,60,50", detector="nowhere")
    assert status == 0, err
    assert runs_of(tmp_path / "out")["parse"]["masks"] == "boxes"
    status, _, err = call(*words, "--force", detector="nowhere")  # the ball must be found
    assert (status, "no such model (seen: nowhere)" in err) == (2, True), err
    assert load_sample(tmp_path / "out").scene.labels.any()


@pytest.mark.parametrize("found", ["by phrase", "by box", "given"])
def test_without_a_model_for_photographs_it_says_what_to_do(call, tmp_path, found):
    media.write_labels(tmp_path / "masks.png", np.eye(*SIZE, dtype=np.uint8))
    more = {"by phrase": (), "by box": ("--boxes", "ball=10,12,60,50"), "given": ("--masks", "masks.png")}[found]
    status, _, err = call("animate", "photo.png", "--prompt", "A ball rolls.", "--out", "out", *more)
    assert status == 2
    [error] = errors_in(err)
    assert "no model for photographs is shipped or published; out keeps what was found" in error
    assert f"train one on {PHOTO_BASE} (29 GB to download: text encoder 22.7, denoiser 5.7, VAE 0.5)" in error
    assert f"throughmask train {PHOTO_PRESET} " in error
    assert "throughmask move out --model M/model, throughmask render out --model V/model" in error
    scene = load_sample(tmp_path / "out").scene
    assert ([thing.name for thing in scene.objects], scene.size) == (["ball"], SIZE)
    assert set(np.unique(scene.labels)) == {0, 1}
    assert runs_of(tmp_path / "out")["parse"]["masks"] == {"by phrase": "phrases", "by box": "boxes"}.get(found, found)


def test_what_it_tells_to_do_can_be_done(stages):
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    from throughmask.train.presets import preset

    assert preset(PHOTO_PRESET).base == PHOTO_BASE
    umt5 = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    wan = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30, "text_dim": 4096}
    with torch.device("meta"):
        parts = {
            "text encoder": UMT5EncoderModel(UMT5Config(**umt5)),
            "denoiser": WanTransformer3DModel(in_channels=16, out_channels=16, **wan),
            "VAE": AutoencoderKLWan(),
        }
    sizes = {name: 4e-9 * sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert sizes == pytest.approx(PHOTO_SIZES, abs=0.05)


def full(*arguments, **options):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


@pytest.mark.slow
@pytest.mark.parametrize("who", [GroundingDinoForObjectDetection, Sam2VideoModel])
def test_a_full_device_loses_nothing(call, tmp_path, monkeypatch, who):
    sample = make_sample(0, size=(32, 48), frames=3)
    save_sample(sample, tmp_path / "s")
    save_sample(sample, tmp_path / "out")
    (tmp_path / "s" / "run.json").write_text('{"render": {"seed": 3}}')
    monkeypatch.setattr(who, "forward", full)
    before = contents(tmp_path)
    words = ("track", "s/video.mp4", "--scene", "s", "--out", "out", "--force", "--free")
    commands = [words] if who is GroundingDinoForObjectDetection else [words, ("measure", "s", "--found", "again")]
    for words in commands:
        status, _, err = call(*words)
        assert (status, "does not fit the device's memory (seen: cpu); take a smaller" in err) == (2, True), err
        assert len(errors_in(err)) == 1
    assert contents(tmp_path) == before


def test_track_and_measure_go_through_the_real_classes(call, tmp_path, seeing):
    save_sample(make_sample(0, size=(32, 48), frames=3), tmp_path / "s")
    status, _, err = call("track", "s/video.mp4", "--scene", "s", "--out", "tracked", detector="nowhere")
    assert status == 0, err  # all objects are shown in frame 0
    assert runs_of(tmp_path / "tracked")["track"]["perception"]["segmenter"] == str(seeing / "sam2")
    status, _, err = call("measure", "s")
    assert status == 0, err
    assert runs_of(tmp_path / "s")["measure"]["perception"]["box_threshold"] == 0


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--detector", "x"), "only --perception real takes --detector (seen: --perception None)"),
        (("--perception", "toybox", "--box-threshold", "0.3"), "only --perception real takes --box-threshold"),
        (("--perception", "real", "--text-threshold", "1.5"), "the text threshold is from 0 to 1 (seen: 1.5)"),
        (("--perception", "real", "--segmenter", "nowhere"), "there is no such model (seen: nowhere)"),
        (("--perception", "real", "--device", "abacus"), "there is no such device (seen: abacus)"),
        (("--perception", "real", "--device", "cuda:7"), "this machine has no such device"),
        (("--perception", "./real"), "real is no segmenter: it lacks tokenizer"),
    ],
)
@pytest.mark.parametrize("command", ["parse", "animate"])
def test_parts_that_cannot_be(call, stages, tmp_path, capsys, command, more, problem):
    model = ("--model", str(stages)) if command == "animate" else ()
    words = (command, "photo.png", "--prompt", "A ball rolls.", "--out", "out", *model, *more)
    assert main(list(words)) == 2
    err = capsys.readouterr().err
    assert problem in err
    assert len(errors_in(err)) == 1
    assert not (tmp_path / "out").exists()
