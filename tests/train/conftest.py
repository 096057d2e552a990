"""Tiny runs of training: four synthetic Samples, a tiny base, and a command that starts one in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tiny_runs import FRAMES, SIZE

from throughmask.storage import save_sample
from throughmask.synthetic import make_sample


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def four_samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four-samples")
    for seed in range(4):
        save_sample(make_sample(seed, num_objects=2, size=SIZE, frames=FRAMES), folder / f"seed-{seed}")
    return folder


@pytest.fixture
def settings(four_samples: Path, tmp_path: Path) -> dict[str, Any]:
    """Of a run that takes a second."""
    return {
        "stage": "video",
        "data": str(four_samples),
        "held_out": str(four_samples),
        "base": "tiny-wan",
        "out": str(tmp_path / "run"),
        "cache": str(tmp_path / "cache"),
        "size": SIZE,
        "frames": FRAMES,
        "batch": 4,
        "steps": 6,
        "lr": 3e-3,
        "warmup": 2,
        "dtype": "float32",
        "log_every": 1,
        "save_every": 2,
        "sheet_every": 0,
        "workers": 0,
        "device": "cpu",
    }


class Command:
    """A command that runs in processes of its own: with torchrun's workers, each of which begins its own session."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
            self.main = psutil.Popen([sys.executable, *words], env=env, stdout=file, stderr=file)

    def finish(self, seconds: float = 400) -> None:
        """Wait for its good end. One that hangs is ended, and the failure says where each process was."""
        try:
            status: object = self.main.wait(seconds)
        except psutil.TimeoutExpired:
            status = f"hangs after {seconds} s"
            self._end(signal.SIGABRT, each=2)  # one after the other, or their stacks are written through each other
        assert status == 0, f"{status}: {self.log.read_text()}"

    def running(self) -> bool:
        return self.main.poll() is None

    def kill(self) -> None:
        """All of its processes at once, as a machine that is switched off does."""
        self._end(signal.SIGKILL)

    def _end(self, number: int, each: float = 0) -> None:
        processes = [self.main, *self.main.children(recursive=True)] if self.running() else []
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
                psutil.wait_procs([process], timeout=each)
        for process in psutil.wait_procs(processes, timeout=10)[1]:
            process.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start Python with these words in other processes, by torchrun if there are several."""
    commands: list[Command] = []

    def start(words: list[str], processes: int = 1) -> Command:
        if processes > 1:
            words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *words]
        commands.append(Command(words, tmp_path / f"command-{len(commands)}.log"))
        return commands[-1]

    yield start
    for command in commands:
        command.kill()


@pytest.fixture
def in_processes(start: Callable[..., Command]) -> Callable[..., Command]:
    """Start `throughmask train overfit` with these settings in other processes."""

    def train(settings: dict[str, Any], processes: int = 1) -> Command:
        words = ["-m", "throughmask", "train", "overfit"]
        for key, value in settings.items():
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{key.replace('_', '-')}", text]
        return start(words, processes)

    return train
