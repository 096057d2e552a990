"""Kernel: PyTorch's own variable-length flash attention, all runs in one launch. CUDA, half precision."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def compute_capability(device: int) -> int:  # pragma: no cover
    """90 for Hopper. A constant for torch.compile, which must not trace the question."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def why_not(q: Tensor) -> str | None:
    """Why this kernel cannot run these tensors, or None."""
    if q.device.type != "cuda":
        return f"it needs a CUDA device, not {q.device.type}"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"it needs float16 or bfloat16, not {q.dtype}"
    if compute_capability(q.device.index or 0) < 80:
        return "it needs compute capability 8.0"
    return None if q.shape[-1] <= 256 and q.shape[-1] % 8 == 0 else f"head width {q.shape[-1]} is not a multiple of 8"


def forward(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, run_list: list[int]
) -> tuple[Tensor, Tensor]:  # pragma: no cover
    """q, k, v: B·N A E. Runs that take no part are computed like the others; the caller erases them."""
    cuts, longest = _cuts(starts, run_list)
    result = torch.ops.aten._flash_attention_forward(q, k, v, cuts, cuts, longest, longest, 0.0, False, False)
    return result[0], result[1].flatten()


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, stats: Tensor, starts: Tensor, run_list: list[int]
) -> tuple[Tensor, Tensor, Tensor]:  # pragma: no cover
    cuts, longest = _cuts(starts, run_list)
    lse = stats.view(q.shape[1], q.shape[0])
    no_dropout = torch.zeros(2, dtype=torch.uint64, device=q.device)
    unused = torch.empty(0, device=q.device)
    dq, dk, dv = torch.ops.aten._flash_attention_backward(
        grad, q, k, v, out, lse, cuts, cuts, longest, longest, 0.0, False, no_dropout, unused
    )
    return dq, dk, dv


def _cuts(starts: Tensor, run_list: list[int]) -> tuple[Tensor, int]:  # pragma: no cover
    return starts[: len(run_list) + 1].to(torch.int32), max(map(abs, run_list))
