"""The processes of one training run, as torchrun starts them, and how a model is spread over them: DDP or FSDP2."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

# Groups that were left, kept alive. A model under DDP is freed after its group was left, and where nothing else holds
# the group, it frees that as well: then it waits for gloo's threads without letting go of the interpreter, which one of
# them may need to be rid of its last piece of work, and the process hangs.
_LEFT: list[object] = []


@dataclass(frozen=True)
class Processes:
    """This process among all: its rank, how many there are, and its device. began: whether `join` made the group,
    which is then to be left at the end.
    """

    rank: int
    world: int
    device: torch.device
    began: bool = False

    @classmethod
    def join(cls, device: str = "auto") -> Processes:
        """Who we are, by torchrun's variables; without torchrun, alone. device: auto, cpu or cuda."""
        world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
        kind = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
        if place.type == "cuda":
            torch.cuda.set_device(place)
        else:
            torch.set_flush_denormal(True)  # on the CPU, gradients of almost nothing made steps five times slower
        alone = world == 1 or dist.is_initialized()
        if not alone:
            dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
        return cls(int(os.environ.get("RANK", 0)), world, place, not alone)

    def leave(self) -> None:
        """At the end of all work, together."""
        self.wait()
        if self.began:
            _LEFT.append(dist.group.WORLD)
            dist.destroy_process_group()

    def wait(self) -> None:
        """Until all have come here."""
        if self.world > 1:
            dist.barrier()

    def any(self, wish: bool) -> bool:
        """Whether one of them wishes it. Clocks and disks differ: all stop at the same step, when one has to."""
        if self.world == 1:
            return wish
        flag = torch.tensor(float(wish), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def mean(self, value: Tensor) -> float:
        """The mean over processes of one number."""
        value = value.detach().double().clone()
        if self.world > 1:
            dist.all_reduce(value)
        return float(value) / self.world


def spread(
    model: nn.Module,
    denoiser: nn.Module,
    repeated: Sequence[nn.Module],
    processes: Processes,
    *,
    how: str,
    dtype: torch.dtype,
) -> nn.Module:
    """The model, ready to train on all processes. model: what is called, around `denoiser`, of which parts repeat.

    how: "ddp" keeps a copy on each, "fsdp" shares parameters, gradients and optimiser state between them (FSDP2).
    """
    if how == "fsdp":
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        mesh = dist.device_mesh.init_device_mesh(processes.device.type, (processes.world,))
        for part in repeated:
            fully_shard(part, mesh=mesh, mp_policy=policy)
        fully_shard(denoiser, mesh=mesh, mp_policy=policy)
        return model
    # Not told its device, DDP leaves inputs where they are: a sort plan's run lengths belong on the CPU.
    return DistributedDataParallel(model) if processes.world > 1 else model


def local(tensor: Tensor) -> Tensor:
    """This process's part of a shared tensor, or the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A shared tensor, gathered from all processes, or the tensor."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def to_channels_last(model: nn.Module) -> None:
    """Weights of convolutions in the layout that cuDNN is fast in: the Toybox VAE trains five times as fast."""
    for parameter in model.parameters():
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(parameter.ndim)
        if layout is not None:
            parameter.data = parameter.data.contiguous(memory_format=layout)
