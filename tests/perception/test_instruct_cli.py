"""`parse --language`: an instruct model behind the command line, asked once; and options that do not go together."""

import json

import numpy as np
import pytest
from fake_llm import FakeServer, fails, says

from throughmask import media
from throughmask.cli import main
from throughmask.storage import load_sample

PROMPT = "A ball rolls to the left while a block stays still."
ANSWER = {
    "motion_prompt": "The ball rolls to the left while the block stays still.",
    "objects": [
        {
            "words": words,
            "kind": words,
            "name": words,
            "phrase": words,
            "prompt": prompt,
            "enters": False,
        }
        for words, prompt in (("ball", "The ball rolls to the left."), ("block", "The block stays still."))
    ],
}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def parse(tmp_path, capsys):
    labels = np.zeros((32, 48), np.uint8)
    labels[4:12, 30:40], labels[20:28, 4:14] = 1, 2
    media.write_labels(tmp_path / "masks.png", labels)
    media.write_image(tmp_path / "toys.png", np.repeat(labels[..., None] * 100, 3, 2))

    def run(*more):
        given = ("--prompt", PROMPT, "--masks", tmp_path / "masks.png", "--out", tmp_path / "s")
        status = main([str(word) for word in ("parse", tmp_path / "toys.png", *given, *more)])
        return status, capsys.readouterr()

    return run


def test_a_server_reads_the_prompt_once(fake, parse, tmp_path):
    fake.replies = [says(json.dumps(ANSWER))]
    status, said = parse("--language", "openai", "--url", fake.url, "--llm", "tiny")
    assert status == 0, said.err
    assert len(fake.heard) == 1
    scene = load_sample(tmp_path / "s").scene
    assert [thing.prompt for thing in scene.objects] == [thing["prompt"] for thing in ANSWER["objects"]]
    assert scene.motion_prompt == ANSWER["motion_prompt"]
    record = (tmp_path / "s" / "run.json").read_text()
    assert json.loads(record)["parse"]["language"] == "tiny"
    assert "secret" not in record + said.out + said.err


def test_a_server_that_refuses_costs_nothing_else(fake, parse, tmp_path):
    fake.replies = [fails(401)]
    status, said = parse("--language", "openai", "--url", fake.url, "--llm", "tiny")
    assert status == 2
    assert said.err.count("\n") == 1
    assert "secret" not in said.err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--llm", "tiny"), "the rules ask no language model"),
        (("--language", "openai", "--llm", "tiny"), "needs --url and --llm"),
        (("--language", "openai", "--url", "http://127.0.0.1:9"), "needs --url and --llm"),
        (("--language", "local"), "needs --llm alone"),
        (("--language", "local", "--llm", "x", "--url", "http://127.0.0.1:9"), "needs --llm alone"),
        (("--language", "local", "--llm", "no/such/folder/here"), "there is no such model"),
    ],
)
def test_options_that_do_not_go_together(parse, tmp_path, monkeypatch, more, problem):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, said = parse(*more)
    assert status == 2
    assert problem in said.err
    assert not (tmp_path / "s").exists()
