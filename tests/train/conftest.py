"""Tiny runs of training: four synthetic Samples, a tiny base, and a command that starts one in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def in_processes() -> Callable[..., subprocess.Popen[str]]:
    """Start `throughmask train overfit` with these settings in other processes, by torchrun if there are several."""

    def start(settings: dict[str, Any], processes: int = 1) -> subprocess.Popen[str]:
        words = ["-m", "throughmask", "train", "overfit"]
        for key, value in settings.items():
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{key.replace('_', '-')}", text]
        if processes > 1:
            words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *words]
        return subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that a test can kill all of them at once
        )

    return start
