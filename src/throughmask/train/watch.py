"""What a training run says of itself: progress, the log that curves are drawn from, and the record of how it began."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..files import new_file
from ..media import write_image
from ..types import MaskTrajectory, Pixels, Sample
from .boards import Board, given_up, open_boards
from .sheets import motion_sheet, video_sheet

__all__ = ["Judge", "Progress", "git_state", "motion_sheet", "versions", "video_sheet", "write_run_record"]

Say = Callable[[str], None]
# How predicted motions score against held-out Samples, one for each; given by a floor that may measure. It takes all of
# them at once because objects are pooled: a scene in which nothing moves has no score of its own.
Judge = Callable[[Sequence[Sample], Sequence[MaskTrajectory]], Mapping[str, float]]

LOG, RUN = "log.jsonl", "run.json"


class Progress:
    """Progress of a run: one line for people, `log.jsonl`, and the curves of TensorBoard and Weights & Biases.

    Process 0 writes, the others do nothing. steps: of the whole run. first_step: where a resumed run goes on; what the
    log holds beyond it is dropped, so that each step is there once. peak: FLOP/s of all devices together. minutes: the
    run's limit from now on, 0 for none. A board that fails is given up with one line, and training goes on.
    """

    def __init__(
        self,
        out: str | Path,
        config: Mapping[str, Any],
        steps: int,
        say: Say = print,
        rank: int = 0,
        *,
        first_step: int = 0,
        peak: float | None = None,
        minutes: float = 0.0,
    ) -> None:
        self.out, self.config, self.steps, self.say, self.rank = Path(out), config, steps, say, rank
        self.first_step, self.peak = first_step, peak
        self._until = time.monotonic() + minutes * 60 if minutes else math.inf
        self._last, self._pace = first_step, math.inf  # the step last heard of; seconds a step, of late
        self._boards: list[Board] | None = None
        if rank == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            _keep_until(self.out / LOG, first_step)

    def log(
        self,
        step: int,
        loss: float,
        samples: float,
        seconds: float,
        flops: float | None = None,
        lr: float | None = None,
        **more: float,
    ) -> None:
        """What was reached at a step. samples, seconds, flops: since the last one, all devices. more: not printed."""
        if self.rank:
            return
        seconds = max(seconds, 1e-9)
        values = {"loss": loss, "samples_per_second": samples / seconds, **more}
        words = [f"loss {loss:.4f}", f"{_short(samples / seconds)} samples/s"]
        if flops is not None:
            values["tflops"] = flops / seconds / 1e12
            if self.peak:
                values["mfu"] = flops / seconds / self.peak
            words.append(f"MFU {100 * values['mfu']:.0f} %" if self.peak else _speed(flops / seconds))
        if lr is not None:
            values["lr"] = lr
            words.append(f"lr {lr:.1e}")
        if step > self._last:
            pace = seconds / (step - self._last)
            self._pace = pace if math.isinf(self._pace) else 0.7 * self._pace + 0.3 * pace
            self._last = step
        left = min((self.steps - step) * self._pace if step < self.steps else 0.0, self._until - time.monotonic())
        if math.isfinite(left):
            words.append(f"ETA {_duration(max(0.0, left))}")
        self._write(step, values)
        self._tell(step, words)

    def measure(self, step: int, scores: Mapping[str, float], name: str = "held-out") -> None:
        """What the model scores at a step; NaN where there was nothing to measure. A line of its own in the log."""
        if self.rank:
            return
        self._write(step, {f"{name}/{key}": value for key, value in scores.items()})
        self._tell(step, [name, *(f"{key} {value:.3f}" for key, value in scores.items() if math.isfinite(value))])

    def picture(self, step: int, name: str, pixels: Pixels) -> None:
        """A picture (H W 3) as `sheets/<name>-<step>.png`."""
        if self.rank:
            return
        write_image(self.out / "sheets" / f"{name}-{step:08d}.png", pixels, force=True)
        self._each_board(lambda board: board.picture(step, name, pixels))

    def close(self) -> None:
        if self._boards:
            self._each_board(lambda board: board.close())
        self._boards = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _tell(self, step: int, words: list[str]) -> None:
        self.say("  ".join([f"step {step:,}/{self.steps:,}", *words]))

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        # JSON has no NaN: for one of them a strict reader would refuse the line.
        plain = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **plain}) + "\n")
        self._each_board(lambda board: board.scalars(step, values))

    def _each_board(self, work: Callable[[Board], None]) -> None:
        if self._boards is None:
            self._boards = open_boards(self.out, self.config, self.first_step, self.say)
        for board in list(self._boards):
            try:
                work(board)
            except Exception as error:  # see Board: a curve is not worth a run
                self._boards.remove(board)
                self.say(given_up(board.name, error))


def write_run_record(
    out: str | Path, config: Mapping[str, Any], extra: Mapping[str, Any] | None = None, *, device: str = "cpu"
) -> None:
    """Write to `run.json`, as its entry "train", the config and one more start: when, on what, with which code.

    extra: more facts of this start, such as the step that it resumes from. Entries of other verbs stay. Raises
    OutputError if it cannot be written.
    """
    path = Path(out) / RUN
    record = _read_record(path)
    start = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": device_name(device),
        "versions": versions(),
        "git": git_state(Path.cwd()),
        **(extra or {}),
    }
    before = record.get("train", {}).get("starts", [])
    record["train"] = {"config": dict(config), "starts": [*before, start]}
    with new_file(path, force=True) as temporary:
        temporary.write_text(json.dumps(record, ensure_ascii=False, indent=2, default=str) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Of this package, of those that decide what a model does, and of Python."""
    packages = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return {"throughmask": __version__, **packages, "python": platform.python_version()}


def device_name(device: str) -> str:
    """What the device is called by its maker, as far as it says."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device}: {platform.processor() or platform.machine()}"


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit that a folder is at, and whether tracked files differ from it; None outside of a repository."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit yet, or too slow
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True)
    return done.stdout.strip()


def _keep_until(path: Path, step: int) -> None:
    """Drop the lines of a log that lie beyond a step, and one that a killed run left unfinished."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, TypeError, KeyError):
            continue
    with new_file(path, force=True) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _read_record(path: Path) -> dict[str, Any]:
    """What run.json holds; nothing where it is absent or cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if isinstance(record["train"]["starts"] if "train" in record else [], list) else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _short(number: float) -> str:
    """A rate in as few digits as say something: 1,234, 56.7, 0.89."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _speed(flops: float) -> str:
    return f"{_short(flops / 1e12)} TFLOP/s" if flops >= 1e12 else f"{_short(flops / 1e9)} GFLOP/s"


def _duration(seconds: float) -> str:
    """The two largest units: 45 s, 23 min, 1 h 23 min, 2 d 3 h."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
