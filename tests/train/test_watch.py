"""A run's own account of itself: each step once in the log, one line for people, boards that never stop it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from throughmask.draw import overlay
from throughmask.errors import InvalidValueError
from throughmask.media import read_image
from throughmask.palette import OURS
from throughmask.synthetic import make_sample
from throughmask.train.sheets import WIDTH, motion_sheet, video_sheet
from throughmask.train.watch import Progress, git_state, write_run_record
from throughmask.types import MaskTrajectory, Sample, Scene, Video

PICTURE = np.full((4, 6, 3), 200, np.uint8)


@pytest.fixture(autouse=True)
def _no_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)


def lines(out: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_line_for_people_and_one_for_programs(tmp_path: Path) -> None:
    said: list[str] = []
    with Progress(tmp_path / "run", {"lr": 2e-5}, 50_000, said.append, peak=100e12) as progress:
        # 1,200 steps in 10 minutes: the other 48,800 take 6 h 47 min.
        progress.log(1200, 0.1234, samples=307_200, seconds=600, flops=54e12 * 600, lr=2e-5, norm=1.5)
        progress.log(50_000, float("nan"), samples=10, seconds=20, flops=1e12)
        progress.measure(50_000, {"single": 0.5, "all": math.nan})
    assert said[0] == ("step 1,200/50,000  loss 0.1234  512 samples/s  MFU 54 %  lr 2.0e-05  ETA 6 h 47 min")
    assert said[1] == "step 50,000/50,000  loss nan  0.5 samples/s  MFU 0 %  ETA 0 s"
    assert said[2] == "step 50,000/50,000  held-out  single 0.500"
    first, second, third = lines(tmp_path / "run")
    assert (first["step"], first["loss"], first["norm"], first["lr"]) == (1200, 0.1234, 1.5, 2e-5)
    assert (first["samples_per_second"], first["tflops"], first["mfu"]) == (512, 54, pytest.approx(0.54))
    assert second["loss"] is None
    assert (third["held-out/single"], third["held-out/all"]) == (0.5, None)


def test_without_a_known_peak_it_says_flops_and_without_flops_neither(tmp_path: Path) -> None:
    said: list[str] = []
    progress = Progress(tmp_path, {}, 10, said.append)
    progress.log(1, 1.0, samples=4, seconds=2, flops=3e12)
    progress.log(2, 1.0, samples=4, seconds=2)
    progress.log(3, 1.0, samples=4, seconds=2, flops=3e9)
    assert said == [
        "step 1/10  loss 1.0000  2 samples/s  1.5 TFLOP/s  ETA 18 s",
        "step 2/10  loss 1.0000  2 samples/s  ETA 16 s",
        "step 3/10  loss 1.0000  2 samples/s  1.5 GFLOP/s  ETA 14 s",
    ]
    assert "mfu" not in lines(tmp_path)[0]


def test_the_time_left_is_that_of_late_and_ends_with_the_minutes(tmp_path: Path) -> None:
    said: list[str] = []
    progress = Progress(tmp_path, {}, 1000, said.append, first_step=100)
    for step in range(110, 310, 10):
        progress.log(step, 1.0, samples=1, seconds=100 if step == 110 else 20)  # compiling came first
    assert said[-1].endswith("ETA 23 min")  # 700 steps of 2 seconds
    progress = Progress(tmp_path, {}, 1000, said.append, minutes=5)
    progress.log(10, 1.0, samples=1, seconds=100)
    assert said[-1].endswith("ETA 5 min")


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    def run(first: int, last: int) -> None:
        with Progress(tmp_path, {}, 9, lambda text: None, first_step=first) as progress:
            for step in range(first + 1, last + 1):
                progress.log(step, float(first), samples=1, seconds=1)

    run(0, 5)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while it wrote
    run(3, 6)
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [
        (1, 0),
        (2, 0),
        (3, 0),
        (4, 3),
        (5, 3),
        (6, 3),
    ]
    run(0, 2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_only_process_0_writes_and_speaks(tmp_path: Path) -> None:
    said: list[str] = []
    with Progress(tmp_path / "run", {}, 9, said.append, rank=1) as progress:
        progress.log(1, 1.0, samples=1, seconds=1)
        progress.measure(1, {"iou": 1.0})
        progress.picture(1, "motion", PICTURE)
    assert said == []
    assert not (tmp_path / "run").exists()


def test_pictures_are_named_by_their_step_and_may_be_made_again(tmp_path: Path) -> None:
    with Progress(tmp_path, {}, 9, lambda text: None) as progress:
        for _ in range(2):
            progress.picture(1200, "motion", PICTURE)
    assert np.array_equal(read_image(tmp_path / "sheets" / "motion-00001200.png"), PICTURE)


# A stand-in for the package wandb, which the tests cannot expect to be there.
WANDB = """
class Settings:
    def __init__(self, **settings): pass
class Run:
    def log(self, values, step):
        if step > 1: raise OSError("the network\\nis gone")
        print("logged", sorted(values), step)
    def finish(self): print("finished")
def login(prompt): assert not prompt; return {logged_in}
def init(**settings): print("opened", settings["name"], settings["config"]); return Run()
"""


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))

    def install(source: str) -> None:
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / "wandb.py").write_text(source)

    yield install
    sys.modules.pop("wandb", None)


@pytest.mark.parametrize("mode", [None, "disabled"])
def test_wandb_hears_nothing_unless_it_is_asked_for(
    mode: str | None, tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb(WANDB.format(logged_in=True))
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    with Progress(tmp_path / "run", {}, 9, print) as progress:
        progress.log(1, 1.0, samples=1, seconds=1)
    assert "opened" not in capsys.readouterr().out


def test_a_board_that_fails_is_given_up_once_and_the_run_goes_on(
    tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb(WANDB.format(logged_in=True))
    monkeypatch.setenv("WANDB_MODE", "online")
    with Progress(tmp_path / "run", {"lr": 1}, 9, print) as progress:
        for step in (1, 2, 3):
            progress.log(step, 1.0, samples=1, seconds=1)
    said = capsys.readouterr().out
    assert "opened run {'lr': 1}" in said
    assert "logged ['loss', 'samples_per_second'] 1" in said
    assert said.count("Weights & Biases is given up for this run: the network is gone") == 1
    assert "finished" not in said
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("source", "reason"), [(WANDB.format(logged_in=False), "wandb login"), ("import nothing_of_the_kind", "nothing_of")]
)
def test_a_board_that_cannot_be_opened_is_reported(
    source: str,
    reason: str,
    tmp_path: Path,
    wandb: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wandb(source)
    monkeypatch.setenv("WANDB_MODE", "online")
    with Progress(tmp_path / "run", {}, 9, print) as progress:
        progress.log(1, 1.0, samples=1, seconds=1)
    said = capsys.readouterr().out
    assert "is given up for this run" in said
    assert reason in said
    assert len(lines(tmp_path / "run")) == 1


def test_tensorboard_has_the_curves_and_the_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra train")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last in ((0, 4), (2, 3)):
        with Progress(tmp_path, {}, 9, lambda text: None, first_step=first) as progress:
            for step in range(first + 1, last + 1):
                progress.log(step, step + first / 10, samples=1, seconds=1, lr=0.1)
            progress.picture(last, "motion", PICTURE)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [(event.step, round(event.value, 3)) for event in events.Scalars("loss")]
    assert losses == [(1, 1), (2, 2), (3, 3.2)]  # what the first start wrote beyond step 2 is taken back
    assert "motion" in events.Tags()["images"]


def test_the_record_keeps_every_start_and_other_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.json").write_text('{"move": {"seed": 3}}')
    write_run_record(tmp_path, {"lr": 1}, {"step": 0})
    write_run_record(tmp_path, {"lr": 2, "out": tmp_path}, {"step": 500})
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["move"] == {"seed": 3}
    assert record["train"]["config"] == {"lr": 2, "out": str(tmp_path)}
    assert [start["step"] for start in record["train"]["starts"]] == [0, 500]
    [start, _] = record["train"]["starts"]
    assert start["versions"]["torch"] == torch.__version__
    assert start["device"].startswith("cpu")
    assert start["git"] is None
    (tmp_path / "run.json").write_text('{"train": 3}')
    write_run_record(tmp_path, {})
    assert len(json.loads((tmp_path / "run.json").read_text())["train"]["starts"]) == 1


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("b")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) is None


SAMPLE = make_sample(1, num_objects=2, size=(64, 64), frames=5)


def holds(sheet: np.ndarray, pixels: np.ndarray) -> bool:
    """Whether the sheet shows the last of the frames (T H W 3) somewhere, as large as it is."""
    height, width = pixels.shape[1:3]
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (height, width, 3))[:, :, 0]
    corner = (sheet[: len(windows), : windows.shape[1]] == pixels[-1, 0, 0]).all(-1)
    return any(np.array_equal(windows[y, x], pixels[-1]) for y, x in np.argwhere(corner))


@pytest.fixture(scope="module")
def cell() -> Sample:
    """A Sample just as large as a sheet shows its frames, so that they are found unchanged."""
    first = motion_sheet([(SAMPLE, SAMPLE.trajectory)])
    columns = np.flatnonzero((first[200] != 255).any(-1))
    width = int(np.flatnonzero(np.diff(columns) > 1)[0]) + 1
    return make_sample(1, num_objects=2, size=(width, width), frames=5)


def test_a_motion_sheet_shows_truth_and_prediction(cell: Sample) -> None:
    prediction = MaskTrajectory(cell.trajectory.labels[::-1], 12)
    sheet = motion_sheet([(cell, prediction)])
    assert sheet.shape[1] == WIDTH
    assert holds(sheet, cell.video.frames)
    assert holds(sheet, overlay(cell.video.frames, cell.trajectory.labels, opacity=0.6))
    assert holds(sheet, overlay(cell.video.frames, prediction.labels, opacity=0.6))
    assert not holds(sheet, cell.video.frames[:1] // 2)
    unseen = Sample(cell.scene)  # nothing but a picture is known
    assert holds(motion_sheet([(unseen, prediction)]), OURS.paint(prediction.labels))


def test_a_video_sheet_shows_what_was_made_and_the_masks_over_it(cell: Sample) -> None:
    made = Video(255 - cell.video.frames, 12)
    sheet = video_sheet([(cell, made)])
    assert holds(sheet, cell.video.frames)
    assert holds(sheet, made.frames)
    assert holds(sheet, overlay(made.frames, cell.trajectory.labels, opacity=0.15))
    with pytest.raises(InvalidValueError):
        video_sheet([(cell, Video(made.frames[:2], 12))])
    with pytest.raises(InvalidValueError, match="a row"):
        video_sheet([])


def test_a_long_sentence_takes_more_lines_and_stays_on_the_sheet() -> None:
    def sheet(words: str) -> np.ndarray:
        scene = Scene(SAMPLE.scene.image, SAMPLE.scene.labels, words, words, SAMPLE.scene.objects)
        return motion_sheet([(Sample(scene), SAMPLE.trajectory)])

    short, long = sheet("The ball rolls."), sheet("The ball rolls ever faster to the é. " * 12)
    assert short.shape[0] < long.shape[0] < short.shape[0] + 300
    ink = (long < 100).all(-1).any(0)
    assert ink[: WIDTH // 100].sum() == ink[-WIDTH // 100 :].sum() == 0
    assert ink[WIDTH * 3 // 4 :].any()
    assert len(motion_sheet([(SAMPLE, SAMPLE.trajectory)] * 2)) == 2 * len(motion_sheet([(SAMPLE, SAMPLE.trajectory)]))
