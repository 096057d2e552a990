"""compare: several evaluations beside each other, by the scenes that all have."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from throughmask.cli import main
from throughmask.errors import InvalidValueError, SampleError
from throughmask.evaluate.compare import compare_runs, named
from throughmask.evaluate.journal import Journal
from throughmask.evaluate.scores import SceneScore
from throughmask.evaluate.tally import difference_of_scenes, mean_of_scenes

MADE = {"motion": "a", "perception": "p", "size": [64, 64], "frames": 13, "fps": "12", "seeds": [0], "measures": 3}


def write(folder: Path, scenes: dict[int, float], **made_with: object) -> Path:
    """Results of `evaluate` in which every scene has two toys, and the share of them that end where they should."""
    journal = Journal(folder, MADE | made_with)
    for scene, share in scenes.items():
        tallies = {"motion": {"model": {"motion": (2 * share, 2)}, "again": {"motion": (2.0, 2)}}}
        toys = [{"id": k, "name": "ball", "verb": "roll"} for k in range(1, 2 + scene % 2)]
        journal.add(scene, asdict(SceneScore(scene, "", toys, tallies, {}, {})))
    return folder


def test_differences_are_over_the_scenes_that_all_have(tmp_path):
    a = write(tmp_path / "a", {1: 0.0, 2: 0.5, 3: 1.0, 4: 0.0})
    b = write(tmp_path / "b", {2: 1.0, 3: 1.0, 4: 0.5, 9: 0.0}, motion="b")
    found = compare_runs({"a": a, "b": b})
    assert found.left_out == {"a": 1, "b": 1}
    assert [scene.scene for scene in found.first.scenes] == [2, 3, 4]
    difference = found.difference("b", "motion", "motion")
    assert difference.value == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert difference.scenes == 3
    assert found.difference("b", "motion", "motion", "multi").value == pytest.approx(0)
    assert found.difference("b", "motion", "iou") is None
    data = found.as_json()
    assert data["modes"]["motion"]["motion"]["means"]["again"]["all"]["value"] == 1
    assert data["modes"]["motion"]["motion"]["differences"]["b"]["all"]["value"] == pytest.approx(1 / 3)


def test_what_is_hard_for_both_does_not_widen_a_difference():
    rng = np.random.default_rng(0)
    hard = rng.random(40)
    before = [(float(h), 1) for h in hard]
    after = [(float(h) + 0.1, 1) for h in hard]
    apart, paired = mean_of_scenes(after), difference_of_scenes(before, after)
    assert paired.value == pytest.approx(0.1)
    assert paired.high - paired.low < 1e-9
    assert apart.high - apart.low > 0.1
    assert difference_of_scenes([(1.0, 1), (0.0, 0)], [(0.0, 0), (1.0, 1)]) is None


def test_a_mean_is_what_it_was_before_differences():
    parts = [(1.0, 2), (0.0, 0), (2.0, 3), (0.0, 1)]
    array = np.array([part for part in parts if part[1]], float)
    drawn = array[np.random.default_rng(0).integers(0, 3, (2000, 3))].sum(1)
    mean = mean_of_scenes(parts)
    assert (mean.value, mean.count, mean.scenes) == (0.5, 6, 3)
    assert (mean.low, mean.high) == pytest.approx(tuple(np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])))


def test_the_newest_results_of_a_folder_count(tmp_path):
    a = write(tmp_path / "a", {1: 0.0, 2: 0.0})
    write(a, {1: 1.0, 2: 1.0}, motion="newer")
    b = write(tmp_path / "b", {1: 0.5, 2: 0.5})
    assert compare_runs({"b": b, "a": a}).difference("a", "motion", "motion").value == pytest.approx(0.5)


def test_the_table_says_who_judged_and_what_is_left_out(tmp_path, capsys):
    a, b = write(tmp_path / "a", {1: 0.0, 2: 1.0}), write(tmp_path / "b", {2: 0.5, 4: 0.5}, perception="other")
    assert main(["compare", str(a), str(b), "--names", "wide U-Net,DiT"]) == 0
    out = capsys.readouterr().out
    assert "1 scene that all have" in out
    assert "DiT: 1 more scenes" in out
    assert "2 different segmenters" in out
    rows = [line.split() for line in out.splitlines() if line.startswith((" ", "motion acc"))]
    assert rows[1][-3:] == ["1.00", "–", "1.00"]
    assert [row[0] for row in rows[2:4]] == ["DiT", "above"]
    assert rows[3][-1] == "-0.50"
    assert max(map(len, out.splitlines())) <= 100
    assert main(["compare", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["judges"] == 2


def test_what_cannot_be_compared_is_refused(tmp_path):
    a = write(tmp_path / "a", {1: 0.0})
    with pytest.raises(SampleError, match="no results"):
        compare_runs({"a": a, "b": tmp_path})
    with pytest.raises(InvalidValueError, match="differ in frames"):
        compare_runs({"a": a, "b": write(tmp_path / "b", {1: 0.0}, frames=25)})
    with pytest.raises(InvalidValueError, match="no scene in common"):
        compare_runs({"a": a, "c": write(tmp_path / "c", {2: 0.0})})
    with pytest.raises(InvalidValueError, match="two runs"):
        compare_runs({"a": a})


def test_runs_are_called_as_their_folders(tmp_path):
    folders = [tmp_path / "x" / "scores", tmp_path / "y" / "scores"]
    assert list(named(folders)) == ["x/scores", "y/scores"]
    assert list(named([tmp_path / "p", tmp_path / "q"])) == ["p", "q"]
    for names in (["a"], ["a", "a"]):
        with pytest.raises(InvalidValueError, match="a name of its own"):
            named(folders, names)
