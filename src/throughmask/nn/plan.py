"""The sort plan: tokens ordered by label, so that masked self-attention (Eq. 3) is plain attention within each run.

Made once for a trajectory and passed to every layer and step. It travels as an argument, never as ambient state: with
activation checkpointing an ambient mask gives wrong gradients without an error.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MAX_RUNS = 257  # a sample's labels are -1..255; the tables below always have this size, so shapes never change


class SortPlan(NamedTuple):
    """Order and run lengths of a batch of labels B N.

    order, inverse: int64 (B·N,), into the batch flattened to B·N tokens; a sample's tokens stay together, the tokens
    that take no part (label -1) last. starts: int64 (B·257 + 1,), the first token of each run, on the labels' device.
    lengths: int32 (B·257,), run lengths there, 0 for tokens that take no part. runs: int32 (B·257,) on the CPU, run
    lengths with tokens that take no part counted negatively. num_runs: int64 () on the CPU; beyond it is padding.
    """

    order: Tensor
    inverse: Tensor
    starts: Tensor
    lengths: Tensor
    runs: Tensor
    num_runs: Tensor

    @classmethod
    def of(cls, label_BN: Tensor) -> SortPlan:
        """The plan of integer labels B N, each -1..255. Waits for the device once: the CPU needs run lengths."""
        return cls(*torch.ops.throughmask.sort_plan(label_BN))

    def sort(self, x: Tensor) -> Tensor:
        """Tokens into sorted order: B N ... -> B N ..."""
        return _permute(x, self.order, self.inverse)

    def unsort(self, x: Tensor) -> Tensor:
        """Sorted tokens back to their places: B N ... -> B N ..."""
        return _permute(x, self.inverse, self.order)

    def with_runs_on_cpu(self) -> SortPlan:
        """The same plan; offloading and data parallelism move every tensor to the device, run lengths too."""
        if self.runs.device.type == "cpu" and self.num_runs.device.type == "cpu":
            return self
        return self._replace(runs=self.runs.cpu(), num_runs=self.num_runs.cpu())

    def list_runs(self) -> list[int]:
        """Run lengths in order, those of tokens that take no part negative."""
        lengths: list[int] = self.runs[: int(self.num_runs)].tolist()
        return lengths


@torch.library.custom_op("throughmask::sort_plan", mutates_args=())
def _sort_plan(label_BN: Tensor) -> list[Tensor]:
    B, N = label_BN.shape
    device = label_BN.device
    if label_BN.numel() and bool(((label_BN < -1) | (label_BN > 255)).any()):
        raise ValueError("a token's label must be -1..255")  # our own arithmetic; users' ids are checked in types
    key_BN = torch.where(label_BN < 0, MAX_RUNS - 1, label_BN).long()
    first_B1 = torch.arange(B, device=device)[:, None]
    order = (key_BN.argsort(dim=1, stable=True) + first_B1 * N).flatten()
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(B * N, device=device)
    counts = torch.bincount((key_BN + first_B1 * MAX_RUNS).flatten(), minlength=B * MAX_RUNS).cpu().view(B, MAX_RUNS)
    counts[:, -1] *= -1
    present = counts[counts != 0]
    runs = torch.zeros(B * MAX_RUNS, dtype=torch.int32)
    runs[: len(present)] = present
    starts = torch.cat([torch.zeros(1, dtype=torch.long), runs.abs().cumsum(0)])
    lengths = runs.clamp(min=0).to(device, copy=True)
    return [order, inverse, starts.to(device), lengths, runs, torch.tensor(len(present))]


@_sort_plan.register_fake
def _(label_BN: Tensor) -> list[Tensor]:
    B, N = label_BN.shape
    order = label_BN.new_empty(B * N, dtype=torch.long)
    starts = label_BN.new_empty(B * MAX_RUNS + 1, dtype=torch.long)
    lengths = label_BN.new_empty(B * MAX_RUNS, dtype=torch.int32)
    runs = torch.empty(B * MAX_RUNS, dtype=torch.int32, device="cpu")
    num_runs = torch.empty((), dtype=torch.long, device="cpu")
    return [order, torch.empty_like(order), starts, lengths, runs, num_runs]


class _Permute(torch.autograd.Function):
    """A gather whose backward is a gather too (index_select's own backward adds atomically: slow and inexact)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        index, inverse = ctx.saved_tensors  # type: ignore[attr-defined]
        return _permute_flat(grad.contiguous(), inverse, index), None, None


def _permute(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    return _permute_flat(x.flatten(0, 1), index, inverse).view(x.shape)


def _permute_flat(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    moved: Tensor = _Permute.apply(x, index, inverse)  # type: ignore[no-untyped-call]
    return moved
