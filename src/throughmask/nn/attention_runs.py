"""Attention within runs of sorted tokens: one custom op, with a kernel for each backend.

The op is opaque to torch.compile, so run lengths, which are data, cause neither graph breaks nor recompilations. This
file holds the op and the plainest kernel, one SDPA call for each run, which runs everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import attention_cudnn, attention_varlen

CHUNK = 1024  # queries at a time in the written-out backward


@torch.library.custom_op("throughmask::run_attention", mutates_args=())
def run_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor,
    lengths: Tensor,
    runs: Tensor,
    num_runs: Tensor,
    num_tokens: int,
    kernel: str,
) -> tuple[Tensor, Tensor]:
    """Softmax attention of q, k, v (B·N A E, sorted) within each run; the tables are SortPlan's, num_tokens is N.

    Returns the result and what the kernel keeps for its backward (float32). Runs that take no part yield exactly 0.
    """
    run_list = runs[: int(num_runs)].tolist()
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    if kernel == "cudnn":
        out, stats = attention_cudnn.forward(q, k, v, starts, lengths, run_list, num_tokens)
    elif kernel == "varlen":
        out, stats = attention_varlen.forward(q, k, v, starts, run_list)
    else:
        out, stats = torch.empty_like(q), q.new_empty(0, dtype=torch.float32)
        for part in _parts(run_list):
            out[part] = _sdpa(q[part], k[part], v[part])
    _erase(run_list, out)
    return out, stats


@run_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor,
    lengths: Tensor,
    runs: Tensor,
    num_runs: Tensor,
    num_tokens: int,
    kernel: str,
) -> tuple[Tensor, Tensor]:
    size = 0 if kernel == "runs" else q.shape[0] * q.shape[1]
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(size, dtype=torch.float32)


@torch.library.custom_op("throughmask::run_attention_backward", mutates_args=())
def run_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    stats: Tensor,
    starts: Tensor,
    lengths: Tensor,
    runs: Tensor,
    num_runs: Tensor,
    num_tokens: int,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor]:
    run_list = runs[: int(num_runs)].tolist()
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    # A clone where rows are erased: the incoming gradient belongs to autograd.
    grad = grad.clone(memory_format=torch.contiguous_format) if min(run_list) < 0 else grad.contiguous()
    _erase(run_list, grad)
    if kernel == "cudnn":
        grads = attention_cudnn.backward(grad, q, k, v, out, stats, starts, lengths, run_list, num_tokens)
    elif kernel == "varlen":
        grads = attention_varlen.backward(grad, q, k, v, out, stats, starts, run_list)
    elif attention_varlen.why_not(q) is None:  # SDPA kept nothing: recompute with a kernel whose backward can be called
        out, stats = attention_varlen.forward(q, k, v, starts, run_list)
        grads = attention_varlen.backward(grad, q, k, v, out, stats, starts, run_list)
    else:
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for part in _parts(run_list):
            pieces = _sdpa_backward(grad[part], q[part], k[part], v[part], out[part])
            for whole, piece in zip(grads, pieces, strict=True):
                whole[part] = piece
    _erase(run_list, *grads)
    return grads


@run_attention_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    stats: Tensor,
    starts: Tensor,
    lengths: Tensor,
    runs: Tensor,
    num_runs: Tensor,
    num_tokens: int,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return dq, dk, dv


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, starts, lengths, runs, num_runs, num_tokens, kernel = inputs
    out, stats = output
    ctx.save_for_backward(q, k, v, out, stats, starts, lengths, runs, num_runs)
    ctx.num_tokens, ctx.kernel = num_tokens, kernel


def _backward(ctx, grad, _grad_stats):  # type: ignore[no-untyped-def]
    grads = run_attention_backward(grad, *ctx.saved_tensors, ctx.num_tokens, ctx.kernel)
    return (*grads, None, None, None, None, None, None)


run_attention.register_autograd(_backward, setup_context=_setup_context)


def _sdpa(q_nAE: Tensor, k_nAE: Tensor, v_nAE: Tensor) -> Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q_nAE, k_nAE, v_nAE))
    return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)


def _sdpa_backward(
    grad_nAE: Tensor, q_nAE: Tensor, k_nAE: Tensor, v_nAE: Tensor, out_nAE: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `_sdpa`. Autograd does not record inside an op: the CPU's fused backward is called by name."""
    if q_nAE.device.type != "cpu":
        return _written_out_backward(grad_nAE, q_nAE, k_nAE, v_nAE, out_nAE)
    grad, q, k, v = (x.transpose(0, 1)[None] for x in (grad_nAE, q_nAE, k_nAE, v_nAE))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(grad, q, k, v, out, lse, 0.0, False)
    dq, dk, dv = (x[0].transpose(0, 1) for x in grads)
    return dq, dk, dv


def _written_out_backward(
    grad_nAE: Tensor, q_nAE: Tensor, k_nAE: Tensor, v_nAE: Tensor, out_nAE: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of softmax attention, for any device and dtype.

    Queries go in chunks, so memory stays linear in the run's length; sums are kept in at least float32.
    """
    dtype = torch.promote_types(q_nAE.dtype, torch.float32)
    q, k, v, out, grad = (x.transpose(0, 1).to(dtype) for x in (q_nAE, k_nAE, v_nAE, out_nAE, grad_nAE))
    scale = q.shape[-1] ** -0.5
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for start in range(0, q.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        weights = torch.softmax(q[:, part] @ k.mT * scale, -1)
        dv += weights.mT @ grad[:, part]
        inner = (grad[:, part] * out[:, part]).sum(-1, keepdim=True)
        dscores = weights * (grad[:, part] @ v.mT - inner) * scale
        dq[:, part] = dscores @ k
        dk += dscores.mT @ q[:, part]
    dq, dk, dv = (x.transpose(0, 1).to(q_nAE.dtype) for x in (dq, dk, dv))
    return dq, dk, dv


def _parts(run_list: list[int]) -> list[slice]:
    """The slices of runs that take part."""
    parts, start = [], 0
    for length in run_list:
        if length > 0:
            parts.append(slice(start, start + length))
        start += abs(length)
    return parts


def _erase(run_list: list[int], *tensors: Tensor) -> None:
    """Zero the tokens that take no part, in place."""
    start = 0
    for length in run_list:
        if length < 0:
            for tensor in tensors:
                tensor[start : start - length].zero_()
        start += abs(length)
