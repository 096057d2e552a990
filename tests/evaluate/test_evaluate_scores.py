"""From scenes to numbers: an evaluation goes on where it stopped, says what is stale, and prints a table that fits."""

import json
from dataclasses import replace

import numpy as np
import pytest
from oracles import ONE, TWO, Finder, Mover, Oracle, Renderer

from throughmask.errors import InvalidValueError, OutputError
from throughmask.evaluate.benchmark import evaluate_scenes, evaluate_split
from throughmask.evaluate.journal import RESULTS, Journal
from throughmask.evaluate.scenes import Clip, chosen_seeds
from throughmask.evaluate.scores import MEASURES, Scores
from throughmask.files import fingerprint, key_of

CASES = {7: ONE, 8: TWO}
ORACLE = Oracle(*CASES.values())


def run(folder, subject=ORACLE, made_with=None, **options):
    """Both scenes; also which of them had to be made, and what was said."""
    made, said = [], []

    def make(missing):
        for seed in missing:
            made.append(seed)
            yield CASES[seed]

    journal = Journal(folder, made_with or {"model": "a"}) if folder is not None else None
    scenes = evaluate_scenes(tuple(CASES), make, subject, seeds=(0, 1), journal=journal, say=said.append, **options)
    return scenes, made, said


@pytest.fixture(scope="module")
def scores():
    scenes, _, _ = run(None, tracker=Finder(*CASES.values()))
    return Scores("toybox-128", (0, 1), scenes)


class Interrupted(Oracle):
    def moves(self, scene, seeds):
        if scene == TWO.sample.scene:
            raise KeyboardInterrupt
        return super().moves(scene, seeds)


def test_an_interrupted_evaluation_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Interrupted(*CASES.values()))
    resumed, made, said = run(tmp_path)
    assert made == [8]
    assert [text.split(",")[0] for text in said] == ["2 of 2 scenes"]
    whole, made, _ = run(None)
    assert made == [7, 8]
    for one, other in zip(resumed, whole, strict=True):
        assert json.loads(json.dumps(one.tallies)) == json.loads(json.dumps(other.tallies))
    assert run(tmp_path)[1] == []


def test_half_a_line_of_a_killed_process_is_done_again(tmp_path):
    run(tmp_path)
    path = tmp_path / RESULTS
    path.write_bytes(path.read_bytes()[:-100])
    assert run(tmp_path)[1] == [8]
    assert run(tmp_path)[1] == []
    assert [scene.scene for scene in run(tmp_path)[0]] == [7, 8]


def test_a_changed_model_says_which_results_are_stale(tmp_path):
    run(tmp_path, made_with={"model": "abc", "steps": 30})
    _, made, said = run(tmp_path, made_with={"model": "def", "steps": 30})
    assert made == [7, 8]
    assert said[0] == f"2 results in {tmp_path / RESULTS} are stale: model was abc and is def."
    _, made, said = run(tmp_path, made_with={"model": "abc", "steps": 30})  # the first model's are still there
    assert (made, said) == ([], [])


def test_results_of_another_model_keep_their_own_clips(tmp_path):
    run(tmp_path, made_with={"model": "abc"})
    clips = {path: path.read_bytes() for path in tmp_path.glob("clips/*/*/*")}
    assert {path.name for path in clips} == {
        f"{name}.{kind}" for name in ("truth", "masks", "moved", "guided", "whole") for kind in ("mp4", "webp")
    }
    run(tmp_path, Mover(*CASES.values()), made_with={"model": "def"})
    assert {path: path.read_bytes() for path in clips} == clips
    assert len(list(tmp_path.glob("clips/*"))) == 2


def test_a_key_depends_on_values_not_on_their_order():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})


def test_a_fingerprint_is_of_the_content_and_names_alone(tmp_path):
    for name, text in (("one", "x"), ("same", "x"), ("other", "y")):
        (tmp_path / name / "vae" / "inner").mkdir(parents=True)
        (tmp_path / name / "vae" / "inner" / "weights.safetensors").write_text(text)
        (tmp_path / name / "index.json").write_text("{}")
    one, same, other = (
        fingerprint(tmp_path / name / "index.json", tmp_path / name / "vae") for name in ("one", "same", "other")
    )
    assert one == same != other
    (tmp_path / "same" / "vae" / "inner" / "weights.safetensors").rename(tmp_path / "same" / "vae" / "other")
    assert fingerprint(tmp_path / "same" / "index.json", tmp_path / "same" / "vae") != one


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / RESULTS).mkdir()
    with pytest.raises(OutputError, match="cannot be read"):
        run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be"):
        run(tmp_path / "file")


def test_the_worst_take_is_shown():
    """It is elsewhere all the time, and goes as far as it should."""

    class Once(Mover):
        def move(self, scene, seed):
            moved = super().move(scene, seed)
            return moved if seed != 1 else type(moved)(np.roll(moved.labels, 20, 1), moved.fps)

    scenes, _, _ = run(None, Once(*CASES.values()))
    assert [scene.shown for scene in scenes] == [1, 1]
    assert scenes[0].value("motion", "iou", 0) == 1
    assert scenes[0].value("motion", "iou", 1) < scenes[0].value("motion", "iou") < 1
    assert scenes[0].toys == [{"id": 1, "name": "red block", "verb": "slide", "iou": 0.0, "right": True}]


def test_groups_are_by_the_number_of_toys(scores):
    assert [scene.group for scene in scores.scenes] == ["single", "multi"]
    counts = {group: scores.mean("motion", "model", "iou", group).count for group in ("single", "multi", "all")}
    assert counts == {"single": 2, "multi": 4, "all": 6}


def test_the_table_has_every_row_and_fits_a_terminal(scores):
    lines = scores.table().splitlines()
    assert lines[0].startswith("toybox-128: 2 scenes, 2 seeds of noise each")
    assert max(map(len, lines)) <= 100
    heads = [line for line in lines if line.split() == ["single", "multi", "all"]]
    assert len(heads) == len(scores.modes) == 3
    at = [heads[0].index(group) + len(group) for group in ("single", "multi", "all")]
    rows = [line for line in lines if line[23:29].strip() in ("model", "again", "still", "vae", "truth")]
    assert len(rows) == sum(1 for mode in scores.modes for _ in scores.entries(mode))
    for line in rows:
        assert len(line) == at[2]
        assert [line[place - 1] != " " and line[place : place + 1] in ("", " ") for place in at] == [True] * 3
    for mode in scores.modes:
        named = {row for measure, row, _ in scores.entries(mode)}
        assert {"model", "again", "still"} <= named


def test_json_has_every_number_and_can_be_read(scores):
    data = json.loads(json.dumps(scores.as_json()))
    assert data["scenes"] == {"single": 1, "multi": 1, "all": 2}
    assert data["modes"]["motion"]["model"]["motion"]["all"] == {
        "value": 1.0,
        "low": 1.0,
        "high": 1.0,
        "count": 4,
        "scenes": 2,
    }
    assert data["modes"]["motion"]["still"]["motion"]["single"]["value"] == 0
    assert {name for rows in data["modes"].values() for row in rows.values() for name in row} <= {
        measure.name for measure in MEASURES
    }
    assert set(data["seconds"]) == {"move", "render"}


def test_what_masks_do_not_show_is_said_only_where_masks_are_judged(scores):
    assert scores.left_out == ""
    odd = [type(scene)(**{**vars(scene), "unseen": {"spin": 2, "tip": 1}}) for scene in scores.scenes]
    assert Scores("x", (0,), tuple(odd)).left_out == "Left out, because masks do not show them: 4 spins, 2 tips."
    rendered = run(None, Renderer(*CASES.values()))[0]
    odd = [type(scene)(**{**vars(scene), "unseen": {"spin": 2}}) for scene in rendered]
    assert Scores("x", (0,), tuple(odd)).left_out == ""


def test_a_limit_takes_scenes_from_all_of_a_split():
    seeds = chosen_seeds("toybox-128")
    assert len(seeds) == 128
    assert chosen_seeds("toybox-128", 4) == (seeds[0], seeds[32], seeds[64], seeds[96])
    assert chosen_seeds("toybox-128", 1000) == seeds
    assert set(chosen_seeds("toybox-128", 8)) > set(chosen_seeds("toybox-128", 4))
    with pytest.raises(InvalidValueError, match="at least one"):
        chosen_seeds("toybox-128", 0)
    with pytest.raises(InvalidValueError, match="no such split"):
        chosen_seeds("toybox")


def test_parts_of_a_split_share_a_folder_and_make_it_whole(tmp_path, monkeypatch):
    made = []

    def make(seeds, clip, workers):
        made.append(list(seeds))
        return [replace(CASES[7], seed=seed) for seed in seeds]

    monkeypatch.setattr("throughmask.evaluate.benchmark.make_cases", make)
    options = {"seeds": (0,), "limit": 4, "out": tmp_path, "made_with": {"model": "a"}}
    for part in ((0, 2), (1, 2), (0, 1)):
        scores = evaluate_split("toybox-128", ORACLE, part=part, **options)
    seeds = chosen_seeds("toybox-128", 4)
    assert made == [[seeds[0], seeds[2]], [seeds[1], seeds[3]], []]
    assert [scene.scene for scene in scores.scenes] == list(seeds)


def test_bad_requests_are_refused_before_a_scene_is_made(tmp_path):
    with pytest.raises(InvalidValueError, match="what made them"):
        evaluate_split("toybox-single", ORACLE, out=tmp_path)
    with pytest.raises(InvalidValueError, match="at least one"):
        evaluate_split("toybox-single", ORACLE, seeds=())
    with pytest.raises(InvalidValueError, match="less than no worker"):
        evaluate_split("toybox-single", ORACLE, workers=-1)
    for wrong in ({"size": (33, 64)}, {"size": (16, 64)}, {"frames": 5}, {"frames": 200}):
        with pytest.raises(InvalidValueError, match="scenes"):
            Clip(**wrong)
