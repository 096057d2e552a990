"""The state of a training run: the averaged weights, and checkpoints that appear whole and resume exactly."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ..errors import OutputError, SampleError
from ..files import PREFIX
from .devices import Processes, local, whole

OPTIONS = StateDictOptions(ignore_frozen_params=True)


class Average:
    """The exponential moving average of the weights that are trained, in float32; sampling uses it."""

    def __init__(self, model: nn.Module) -> None:
        self.every = dict(model.named_parameters())
        self.model = {name: value for name, value in self.every.items() if value.requires_grad}
        self.values = {name: value.detach().clone().float() for name, value in self.model.items()}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        averages = [local(value) for value in self.values.values()]
        torch._foreach_lerp_(averages, [local(value.detach()).float() for value in self.model.values()], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights for a while."""
        trained = {name: local(value.detach()).clone() for name, value in self.model.items()}
        self._write({name: local(value) for name, value in self.values.items()})
        try:
            yield
        finally:
            self._write(trained)

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        for name, value in self.model.items():
            local(value.detach()).copy_(values[name])

    def gathered(self) -> dict[str, Tensor]:
        """All weights, averaged where they are trained: whole tensors on the CPU, on every process (all must ask)."""
        return {name: whole(self.values.get(name, value.detach())).cpu() for name, value in self.every.items()}


class Checkpoints:
    """The run's own checkpoints, `state/step-…`: weights, optimiser, average and step. The newest few are kept.

    One is written beside its final name and renamed when all processes have written their part, so what is there is
    whole, whatever kills the run.
    """

    def __init__(
        self, out: Path, config: dict[str, Any], processes: Processes, *, keep: int = 2, defaults: dict[str, Any]
    ) -> None:
        """defaults: of the config, for settings that a run is older than."""
        self.folder, self.config, self.processes, self.keep = out / "state", config, processes, keep
        self.defaults = defaults

    def steps(self) -> list[int]:
        """The steps that can be resumed from, in order."""
        found = [re.fullmatch(r"step-(\d+)", path.name) for path in self.folder.glob("step-*")]
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, denoiser: nn.Module, optimiser: torch.optim.Optimizer, average: Average) -> None:
        """Raises OutputError if it cannot be written; what was saved before stays."""
        path, temporary = self._path(step), self.folder / f"{PREFIX}step-{step}"
        reason = ""
        try:
            if self.processes.rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)
                self.folder.mkdir(parents=True, exist_ok=True)
            self.processes.wait()
            state = self._state(denoiser, optimiser, average)
            with _alone(self.processes):
                save(state, checkpoint_id=str(temporary), no_dist=self.processes.world == 1)
            if self.processes.rank == 0:
                record = json.dumps({"step": step, "processes": self.processes.world, "config": self.config})
                (temporary / "run.json").write_text(record, encoding="utf-8")
        except Exception as error:  # torch wraps what went wrong on any process in its own error
            reason = str(error).strip().splitlines()[-1] or type(error).__name__
        if self.processes.any(bool(reason)):
            if self.processes.rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)
            before = self.steps()
            kept = f"that of step {before[-1]} is whole" if before else "there is none before it"
            fix = "make room, then run the same command again"
            raise OutputError(f"the checkpoint of step {step} could not be written; {kept}", seen=reason, fix=fix)
        if self.processes.rank == 0:
            shutil.rmtree(path, ignore_errors=True)
            temporary.rename(path)
            for old in self.steps()[: -self.keep]:
                shutil.rmtree(self._path(old), ignore_errors=True)
        self.processes.wait()

    def load(self, denoiser: nn.Module, optimiser: torch.optim.Optimizer, average: Average) -> int:
        """Resume from the newest checkpoint, if there is one; returns the step to go on with.

        Raises SampleError if it was made with other settings or another number of processes, or cannot be read.
        """
        steps = self.steps()
        if not steps:
            return 0
        path = self._path(steps[-1])
        try:
            record = json.loads((path / "run.json").read_text(encoding="utf-8"))
            self._check(path, record)
            state = self._state(denoiser, optimiser, average)
            with _alone(self.processes):
                load(state, checkpoint_id=str(path), no_dist=self.processes.world == 1)
        except (OSError, ValueError, CheckpointException) as error:
            if isinstance(error, SampleError):
                raise
            fix = f"delete {path.name} to go on from the one before it"
            reason = str(error).strip().splitlines()[-1]
            raise SampleError(f"the checkpoint {path} cannot be read", seen=reason, fix=fix) from error
        set_state_dict(
            denoiser, optimiser, model_state_dict=state["model"], optim_state_dict=state["optimiser"], options=OPTIONS
        )
        for name, value in state["average"].items():
            local(average.values[name]).copy_(local(value))
        return steps[-1]

    def _check(self, path: Path, record: dict[str, Any]) -> None:
        if record["processes"] != self.processes.world:
            seen = f"{self.processes.world}, not {record['processes']}"
            fix = "resume with as many, or start another run with --init"
            raise SampleError(f"{path} was made by another number of processes", seen=seen, fix=fix)
        wanted, defaults = (json.loads(json.dumps(some)) for some in (self.config, self.defaults))
        known = {**defaults, **record["config"]}
        changed = sorted(key for key in wanted.keys() | known.keys() if wanted.get(key) != known.get(key))
        if changed:
            seen = "; ".join(f"{key} was {known.get(key)}, is {wanted.get(key)}" for key in changed)
            fix = "use the same settings, or another --out, with --init to go on from these weights"
            raise SampleError(f"{path.parent.parent} holds a run with other settings", seen=seen, fix=fix)

    def _state(self, denoiser: nn.Module, optimiser: torch.optim.Optimizer, average: Average) -> dict[str, Any]:
        weights, moments = get_state_dict(denoiser, optimiser, options=OPTIONS)
        return {"model": weights, "optimiser": moments, "average": dict(average.values)}

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


@contextmanager
def _alone(processes: Processes) -> Iterator[None]:
    """One process is what was asked for, and no reason for a warning."""
    with warnings.catch_warnings():
        if processes.world == 1:
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
