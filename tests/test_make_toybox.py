"""What tools/make_toybox.py adds to training: scenes in files, mixtures, and what is left when it is stopped."""

import importlib.util
import json
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest

from throughmask.train.samples import open_samples

TOOL = Path(__file__).parents[1] / "tools" / "make_toybox.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_toybox", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_toybox"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["make_toybox"]


def test_every_start_of_the_seeds_is_mixed_by_their_shares(tool):
    seeds = tool.interleaved([[0, 60], [1000, 30], [2000, 10]])
    assert len(set(seeds)) == 100
    counts = Counter(seed // 1000 for seed in seeds[:50])
    assert (counts[0], counts[1], counts[2]) == (30, 15, 5)
    assert [seed for seed in seeds if seed < 1000] == list(range(60)), "so what is there is the start of each run"


@pytest.mark.slow
@pytest.mark.parametrize("films", [True, False])
def test_a_scene_in_a_file_is_the_scene(tool, films, tmp_path, opengl):
    source = open_samples("toybox:3..4", size=(64, 64), frames=13, fps=12, phrasings=2, films=films)
    for index in range(2):
        tool.write(tmp_path, source.seeds[index], source.item(index), source.texts(index))
    drawn = tool.Drawn(**{item.name: getattr(source, item.name) for item in fields(source)}, folder=tmp_path)
    assert drawn.describe() == source.describe()
    for index in range(2):
        read, made = drawn.item(index), source.item(index)
        assert read.scene == made.scene
        assert read.trajectory == made.trajectory
        assert read.video == made.video
        assert drawn.texts(index) == source.texts(index)


def test_words_learn_from_scenes_in_which_every_toy_has_a_name(tool):
    assert tool.words_source("toybox:0..9,800000..800004,900000..900001") == "toybox:0..9,900000..900001"


def test_export_holds_what_there_is_whole_or_not_at_all(tool, tmp_path):
    run = tool.Run(tmp_path, tool.TINY, gpus=0)
    model = tmp_path / "motion" / "model"
    (model / "transformer").mkdir(parents=True)
    for step in (1, 2):
        (model / "transformer" / "weights").write_text(f"of step {step}")
        (model / "train.json").write_text(json.dumps({"step": step}))
        run.keep_stage("motion")
    kept = {
        path.relative_to(run.export).as_posix(): path.read_text() for path in run.export.rglob("*") if path.is_file()
    }
    assert kept == {"motion-model-transformer/weights": "of step 2", "motion-model-train.json": '{"step": 2}'}


def test_without_films_stage_1_alone_goes_on(tool, tmp_path, monkeypatch):
    run = tool.Run(tmp_path, replace(tool.TINY, films=[], stages=["motion"], words=None, benches=[]), gpus=0)
    setting = {"init": "bundle", "words": "", "backbone": "wan", "every": tool.TINY.every}
    (tmp_path / "setting.json").write_text(json.dumps(setting))
    (tmp_path / "labels.json").write_text('"toybox:10000..10031"')
    done = []
    for name in ("draw", "encode", "judge_all"):
        monkeypatch.setattr(run, name, lambda *words, name=name: done.append((name, *words)))
    monkeypatch.setattr(run, "train", lambda *words: done.append(("train", *words[:2], words[2]["init"])))
    run.all()
    assert done == [
        ("draw", "labels"),
        ("encode", "labels"),
        ("train", "motion", "motion", "bundle/motion"),
        ("judge_all",),
    ]


def test_films_of_another_run_are_taken_if_they_are_alike(tool, tmp_path):
    other, run = tmp_path / "other", tool.Run(tmp_path / "own", tool.TINY, gpus=0)
    (other / "films").mkdir(parents=True)
    (other / "films/24000").write_text("a scene")
    (other / "films.json").write_text('"toybox:24000..24000"')
    setting = {"every": {"size": "64,64"}, "films_of": str(other)}
    (run.out / "setting.json").write_text(json.dumps(setting))
    (other / "setting.json").write_text(json.dumps({"every": {"size": "128,128"}}))
    with pytest.raises(SystemExit, match=r"drew its films with .*128,128"):
        run.draw("films")
    assert not run.has("films")
    (other / "setting.json").write_text(json.dumps({"every": {"size": "64,64"}}))
    run.draw("films")
    assert run.data("films") == "toybox:24000..24000"
    assert (run.out / "films/24000").read_text() == "a scene"


@pytest.mark.slow
def test_a_step_that_fails_or_hangs_is_told_and_ends_no_other(tool, tmp_path):
    run = tool.Run(tmp_path, tool.TINY, gpus=0)
    assert not run.call("bad", [sys.executable, "-c", "raise SystemExit('no room')"])
    assert not run.call("slow", [sys.executable, "-c", "import time; time.sleep(60)"], limit=1)
    run.together(lambda: 1 / 0, lambda: run.say("went on"))
    log = (tmp_path / "log.txt").read_text()
    for word in ("no room", "over its time", "ZeroDivisionError", "went on"):
        assert word in log


@pytest.mark.parametrize(
    ("backbone", "init", "kind", "stage"),
    [
        ("wan", "bundle", "films", "video"),
        ("wan", "", "films", "base"),
        ("wan", "", "labels", "motion"),
        ("animatediff", "", "films", "base"),
    ],
)
def test_what_is_drawn_and_encoded_is_as_a_stage_reads_it(tool, tmp_path, backbone, init, kind, stage):
    setting = {"init": init, "words": "there", "backbone": backbone, "every": {}}
    (tmp_path / "setting.json").write_text(json.dumps(setting))
    config = tool.config_of(tmp_path, kind, "toybox:1..2")
    assert (config.stage, config.backbone, config.data) == (stage, backbone, "toybox:1..2")
    assert config.cache == str(tmp_path / f"cache-{kind}")
    if stage == "base":
        assert (config.base, config.words) == ("", "there"), "there is no base yet"
    elif init:
        assert config.init == f"bundle/{stage}"
    else:
        assert config.base == str(tmp_path / "base/model")
