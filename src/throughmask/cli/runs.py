"""One run of a stage's model: where it computes, how long each part took, and the `run.json` that says so.

run.json holds one entry for each verb whose result is in its folder: {"move": {...}, "render": {...}}.
"""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import __version__
from ..errors import DeviceError, InvalidValueError
from .shell import as_json_now, note

if TYPE_CHECKING:
    from ..nn.scales import Scales
    from ..stages.checkpoint import StageInfo
    from ..stages.pipeline import StagePipeline

RUN = "run.json"
DTYPES = ("auto", "float32", "bfloat16", "float16")
FULL = re.compile(r"out of memory|can't allocate memory|not enough memory|invalid buffer size", re.I)

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

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", self.device):
            raise InvalidValueError("there is no such device", seen=self.device, fix="known: auto, cpu, cuda, mps")
        if self.dtype not in DTYPES:
            raise InvalidValueError("there is no such dtype", seen=self.dtype, fix=f"known: {', '.join(DTYPES)}")


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
        self.dtype = self.options.dtype
        if self.dtype == "auto":
            self.dtype = "bfloat16" if self.device.startswith("cuda") else "float32"
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


def choose_device(name: str) -> str:
    """A device that is there. Raises DeviceError."""
    import torch

    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return next(kind for kind, count in there.items() if count)
    kind, _, index = name.partition(":")
    if int(index or 0) >= there[kind]:
        fix = "use --device auto; throughmask doctor lists what is there"
        raise DeviceError("this machine has no such device", seen=name, fix=fix)
    return name


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn what each kind of device says when its memory is full into a DeviceError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's OutOfMemoryError is a RuntimeError
        if not isinstance(error, MemoryError) and not FULL.search(str(error)):
            raise
        fix = "try --offload, --dtype bfloat16, a smaller --size, fewer --frames or fewer --seeds"
        raise DeviceError("the device ran out of memory", seen=str(error).split("\n")[0][:120], fix=fix) from error
