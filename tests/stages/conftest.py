"""Tiny random stages on every backbone, made once. A test that changes one takes a deep copy first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_stages import ALL, FRAMES, SIZE, condition_of

from throughmask.backbones import BASES, Backbone
from throughmask.nn.guidance import Condition
from throughmask.stages.init import load_base, make_stage, save_stage
from throughmask.stages.pipeline import StagePipeline
from throughmask.synthetic import make_sample
from throughmask.types import Sample


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from threads, and lose much when other tests run beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


TINY, *OTHERS = [name for name in BASES if name.startswith("tiny-")]


# In the fast lane one architecture stands for all; what only another has, has tests of its own there.
@pytest.fixture(scope="session", params=[TINY, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def base_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def base(base_name: str) -> tuple[Backbone, dict[str, Any]]:
    """The backbone and the components of its tiny text-to-video model."""
    return load_base(base_name)


@pytest.fixture(scope="session")
def sample() -> Sample:
    return make_sample(0, num_objects=2, size=SIZE, frames=FRAMES)


@pytest.fixture(scope="session")
def pipelines(base_name: str) -> dict[str, StagePipeline]:
    made = {"motion": make_stage(base_name, "motion", frames=FRAMES)}
    for name in ALL[1:]:
        made[name] = make_stage(base_name, "video", recipe_name=name, frames=FRAMES)
    for pipeline in made.values():
        pipeline.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session")
def conditions(pipelines: dict[str, StagePipeline], sample: Sample) -> dict[str, Condition]:
    """What each stage's network is told about the same Sample."""
    return {name: condition_of(pipeline, sample) for name, pipeline in pipelines.items()}


@pytest.fixture(scope="session")
def folders(pipelines: dict[str, StagePipeline], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of both stages. A test that changes one copies it first."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name in ("motion", "paper"):
        save_stage(pipelines[name], root / name)
    return {name: root / name for name in ("motion", "paper")}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
