"""One run of a stage's model: where it computes, how long each part took, and the `run.json` that says so.

run.json holds one entry for each verb whose result is in its folder: {"move": {...}, "render": {...}}.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import __version__
from ..stages.devices import check_names, choose_dtype
from ..stages.devices import choose_device as choose_device  # what a command needs to run a model is all here
from ..stages.devices import enough_memory as enough_memory
from .shell import as_json_now, note

if TYPE_CHECKING:
    from ..nn.scales import Scales
    from ..stages.checkpoint import StageInfo
    from ..stages.pipeline import StagePipeline

RUN = "run.json"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Options:
    """What `move` and `render` have in common; None is the checkpoint's own, or the motion's."""

    model: Path
    steps: int
    guidance: Scales
    frames: int | None
    fps: Fraction | None
    size: tuple[int, int] | None
    negative_prompt: str
    device: str
    dtype: str
    offload: bool
    apart: bool = False

    def __post_init__(self) -> None:
        check_names(self.device, self.dtype)


@dataclass
class Run:
    """A model at work. Times are in seconds; `total` counts from the start of the command."""

    verb: str
    info: StageInfo
    options: Options
    started: float
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = ""
    dtype: str = ""

    def load(self) -> StagePipeline:
        """The pipeline, on its device. Raises DeviceError before anything loads if there is no such device."""
        begun = time.perf_counter()
        import torch

        self.device = choose_device(self.options.device)
        self.dtype = choose_dtype(self.options.dtype, self.device)
        from ..stages.init import PIPELINES
        from ..stages.pipeline import hide_loading_bars

        hide_loading_bars()
        with enough_memory():
            kind = PIPELINES[self.info.stage]
            pipeline: StagePipeline = kind.from_pretrained(self.options.model, dtype=getattr(torch, self.dtype))
            if self.options.offload and self.device != "cpu":
                pipeline.enable_model_cpu_offload(device=self.device)
            else:
                pipeline.to(self.device)
        if self.options.offload and self.device == "cpu":
            note("--offload has no effect on the CPU.")
        pipeline.set_progress_bar_config(disable=as_json_now.get(), desc=self.verb)
        self.seconds["load"] = time.perf_counter() - begun
        return pipeline

    def sample(self, work: Callable[[], Result]) -> Result:
        begun = time.perf_counter()
        with enough_memory():
            result = work()
        self.seconds["sample"] = time.perf_counter() - begun
        return result

    def record(self, seed: int, **facts: Any) -> dict[str, Any]:
        """What run.json says about a result."""
        self.seconds["total"] = time.perf_counter() - self.started
        options = self.options
        rate = None if options.fps is None else str(options.fps)
        return {
            "seed": seed,
            **facts,
            "options": {
                "steps": options.steps,
                "guidance": {"image": options.guidance.image, "text": options.guidance.text},
                "frames": options.frames,
                "fps": rate,
                "size": None if options.size is None else list(options.size),
                "negative_prompt": options.negative_prompt,
                "device": options.device,
                "dtype": options.dtype,
                "offload": options.offload,
                **({"apart": options.apart} if self.info.stage == "motion" else {}),
            },
            "model": model_facts(options.model, self.info),
            "device": self.device,
            "dtype": self.dtype,
            "versions": versions(),
            "seconds": {key: round(value, 3) for key, value in self.seconds.items()},
        }


def model_facts(folder: Path, info: StageInfo) -> dict[str, Any]:
    from ..stages.checkpoint import STAGES

    return {
        "path": str(folder.absolute()),
        "class": STAGES[info.stage],
        "denoiser": info.layout.denoiser_class,
        "recipe": info.recipe.name,
        "palette": info.palette.name,
    }


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return {"throughmask": __version__, **packages, "python": platform.python_version()}


def read_runs(folder: Path) -> dict[str, Any]:
    """The entries of a folder's run.json; none where there is no such file, or none that can be read."""
    try:
        runs = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return runs if isinstance(runs, dict) else {}


def write_runs(path: Path, runs: dict[str, Any]) -> None:
    path.write_text(json.dumps(runs, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
