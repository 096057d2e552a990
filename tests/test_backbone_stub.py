"""A third backbone: docs/adding-a-backbone.md, followed word by word with a stub."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from throughmask import backbones
from throughmask.backbones import Backbone, Layout, backbone, layouts
from throughmask.nn.plan import SortPlan
from throughmask.stages.conditioning import video_condition
from throughmask.stages.init import PIPELINES, make_stage, save_stage
from throughmask.storage import save_sample
from throughmask.synthetic import make_sample
from throughmask.train.config import StageConfig
from throughmask.train.stage import train_stage

PAGE = (Path(__file__).parents[1] / "docs" / "adding-a-backbone.md").read_text(encoding="utf-8")
SIZE, FRAMES = (32, 48), 5


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's code where the page puts it."""
    layout, *file = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.setitem(layouts.__dict__, "StubLayout", None)  # gone again afterwards
    exec(layout, layouts.__dict__)
    name = "throughmask.backbones.stub"
    module = types.ModuleType(name)
    module.__package__ = "throughmask.backbones"
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile("\n".join(file), "docs/adding-a-backbone.md", "exec"), module.__dict__)
    monkeypatch.setitem(backbones.LAYOUTS, "stub", layouts.StubLayout())  # type: ignore[attr-defined]
    monkeypatch.setitem(backbones.BASES, "tiny-stub", "stub")
    torch.set_num_threads(1)
    return backbone("stub")


def test_the_page_names_every_member_of_the_protocols() -> None:
    told = {name for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    members = {*Layout.__annotations__, *Backbone.__annotations__}
    members |= {name for kind in (Layout, Backbone) for name, value in vars(kind).items() if callable(value)}
    assert told == {name for name in members if not name.startswith("_")}


def test_both_stages_run_on_it(stub: Any, tmp_path: Path) -> None:
    sample = make_sample(0, num_objects=2, size=SIZE, frames=FRAMES)
    base = stub.tiny()["transformer"]
    for stage in ("motion", "video"):
        pipeline = make_stage("tiny-stub", stage, frames=FRAMES)
        assert stub.num_added(pipeline.transformer) == pipeline.transformer.num_parameters() - base.num_parameters()
        save_stage(pipeline, tmp_path / stage)
        loaded = PIPELINES[stage].from_pretrained(tmp_path / stage)
        loaded.set_progress_bar_config(disable=True)
        assert loaded.info == pipeline.info
        assert loaded.info.patch == 8
        if stage == "motion":
            (motion,) = loaded.move(sample.scene, steps=1)
            assert motion.labels.shape == (FRAMES, *SIZE)
        else:
            assert loaded.render(sample.scene, sample.trajectory, steps=1).frames.shape == (FRAMES, *SIZE, 3)


@torch.no_grad()
def test_it_is_born_as_its_base_and_its_masks_bind(stub: Any) -> None:
    sample = make_sample(0, num_objects=2, size=SIZE, frames=FRAMES)
    pipeline = make_stage("tiny-stub", "video", frames=FRAMES)
    condition = video_condition(pipeline.info, pipeline.encoders, sample.scene, sample.trajectory, FRAMES, "latents")
    assert condition.label is not None
    latents, time = torch.randn(1, 16, 2, 4, 6), torch.tensor([700.0])
    plan = stub.plan(condition.label, (2, 4, 6))
    assert isinstance(plan, SortPlan)
    expected = stub.tiny()["transformer"](latents, time, condition.text)
    born = stub.denoise(pipeline.transformer, latents, time, condition, plan)
    torch.testing.assert_close(born, expected, atol=1e-5, rtol=0)
    torch.nn.init.normal_(pipeline.transformer.blocks[0].masked_self.to_out.weight)
    masked = stub.denoise(pipeline.transformer, latents, time, condition, plan)
    joined = stub.denoise(pipeline.transformer, latents, time, condition._replace(label=None), None)
    assert (masked - expected).abs().max() > 1e-3 < (masked - joined).abs().max()


@pytest.mark.slow
def test_it_learns(stub: Any, tmp_path: Path) -> None:
    save_sample(make_sample(0, num_objects=2, size=SIZE, frames=FRAMES), tmp_path / "data" / "one")
    config = StageConfig(
        stage="video",
        data=str(tmp_path / "data"),
        held_out=str(tmp_path / "data"),
        base="tiny-stub",
        out=str(tmp_path / "run"),
        cache=str(tmp_path / "cache"),
        size=SIZE,
        frames=FRAMES,
        batch=1,
        steps=3,
        warmup=1,
        dtype="float32",
        sheet_every=0,
        save_every=0,
        log_every=0,
        workers=0,
        device="cpu",
    )
    train_stage(config, say=lambda text: None)
    loaded = PIPELINES["video"].from_pretrained(tmp_path / "run" / "model")
    assert loaded.transformer.blocks[0].masked_self.to_out.weight.any()
