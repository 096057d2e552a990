"""Where the curves of a run can be looked at: TensorBoard, and Weights & Biases. Both are optional packages."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..types import Pixels

MODES = ("online", "offline", "shared")  # of WANDB_MODE


class Board(Protocol):
    """One place for curves and pictures. Any call may fail: disks, processes and networks of its own are behind it."""

    name: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, pixels: Pixels) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `tensorboard/`. A resumed run takes back what an earlier start wrote after `first_step`."""

    name = "TensorBoard"

    def __init__(self, out: Path, config: Mapping[str, Any], first_step: int) -> None:
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self.writer = writer(str(out / "tensorboard"), purge_step=first_step + 1 if first_step else None)
        self.writer.add_text("config", f"```\n{json.dumps(dict(config), indent=1, default=str)}\n```", first_step)

    @staticmethod
    def wanted() -> bool:
        return find_spec("tensorboard") is not None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def picture(self, step: int, name: str, pixels: Pixels) -> None:
        self.writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of its own for every start, grouped by the output folder's name; kept in `wandb/` too."""

    name = "Weights & Biases"

    def __init__(self, out: Path, config: Mapping[str, Any], first_step: int) -> None:
        self.wandb = import_module("wandb")
        # Asked first, because init would stop a run that was started at a terminal to ask for a key.
        if os.environ["WANDB_MODE"] != "offline" and not self.wandb.login(prompt=False):
            raise RuntimeError("nobody is logged in; run `wandb login`, or set WANDB_MODE=offline")
        (out / "wandb").mkdir(exist_ok=True)  # without it files go to the working folder's
        settings = self.wandb.Settings(silent=True, console="off", init_timeout=30)
        name = f"{out.name}-{first_step}" if first_step else out.name
        self.run = self.wandb.init(dir=out, config=dict(config), name=name, group=out.name, settings=settings)

    @staticmethod
    def wanted() -> bool:
        """Only where the user says so: being logged in is no wish to send this run anywhere."""
        return os.environ.get("WANDB_MODE") in MODES and find_spec("wandb") is not None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, pixels: Pixels) -> None:
        self.run.log({name: self.wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        self.run.finish()


def open_boards(out: Path, config: Mapping[str, Any], first_step: int, say: Callable[[str], None]) -> list[Board]:
    """Those that are installed and wanted; one that cannot be opened is reported and left out."""
    boards: list[Board] = []
    for kind in (TensorBoard, WeightsAndBiases):
        if kind.wanted():
            try:
                boards.append(kind(out, config, first_step))
            except Exception as error:
                say(given_up(kind.name, error))
    return boards


def given_up(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{name} is given up for this run: {reason[:200]}"
