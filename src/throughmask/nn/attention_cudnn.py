"""Kernel: cuDNN's packed ("ragged") attention through NVIDIA's cudnn-frontend, all runs in one launch.

As fast as PyTorch's cuDNN backend run by run, but one graph serves every label map: run lengths are device data.
(PyTorch builds a plan of 50-180 ms for each new run length, and its own ragged path gave wrong gradients in 2.11.)
Coverage leaves out what only a GPU can run; the tests marked `gpu` run it.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from typing import Any

import torch
from torch import Tensor

from .attention_varlen import compute_capability

INSTALLED = importlib.util.find_spec("cudnn") is not None


def why_not(q: Tensor) -> str | None:
    """Why this kernel cannot run these tensors, or None."""
    if q.device.type != "cuda":
        return f"it needs a CUDA device, not {q.device.type}"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"it needs float16 or bfloat16, not {q.dtype}"
    if not INSTALLED:
        return "the package nvidia-cudnn-frontend is not installed (pip install 'through-the-mask[cuda]')"
    if compute_capability(q.device.index or 0) < 90:
        return "packed attention needs compute capability 9.0"
    return None if q.shape[-1] <= 128 and q.shape[-1] % 8 == 0 else f"head width {q.shape[-1]} is not 8, 16, ... 128"


def forward(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, lengths: Tensor, run_list: list[int], num_tokens: int
) -> tuple[Tensor, Tensor]:  # pragma: no cover
    """q, k, v: B·N A E, contiguous. Rows of runs that take no part are left unwritten; the caller erases them."""
    tokens, A, E = q.shape
    R, longest = _graph_size(run_list, num_tokens)
    out, stats = torch.empty_like(q), torch.empty(tokens * A, dtype=torch.float32, device=q.device)
    tables = _tables(starts, lengths, R, A, E)
    _run(_forward_graph(q.device.index, q.dtype, R, A, longest, E), (q, k, v, *tables, out, stats), q.device)
    return out, stats


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    stats: Tensor,
    starts: Tensor,
    lengths: Tensor,
    run_list: list[int],
    num_tokens: int,
) -> tuple[Tensor, Tensor, Tensor]:  # pragma: no cover
    tokens, A, E = q.shape
    R, longest = _graph_size(run_list, num_tokens)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    tables = _tables(starts, lengths, R, A, E)
    graph = _backward_graph(q.device.index, q.dtype, R, A, longest, E, tokens)
    _run(graph, (q, k, v, out, grad, stats, *tables, dq, dk, dv), q.device)
    return dq, dk, dv


def _graph_size(run_list: list[int], num_tokens: int) -> tuple[int, int]:  # pragma: no cover
    """Number of runs and longest run, rounded up so that few graphs are built (0.05 s each) and few blocks idle."""
    step = 1 if len(run_list) <= 16 else 16
    part = math.ceil(num_tokens / 8)
    return math.ceil(len(run_list) / step) * step, math.ceil(max(1, *run_list) / part) * part


def _tables(starts: Tensor, lengths: Tensor, R: int, A: int, E: int) -> tuple[Tensor, ...]:  # pragma: no cover
    """Run lengths of queries and keys, and where each run starts in tokens × heads × width and in the statistics."""
    first = starts[: R + 1]
    return lengths[:R], lengths[:R], first * (A * E), first * A


_Graph = tuple[Any, tuple[int, ...], int]  # the plan, the ids of its tensors in order, bytes of workspace


@functools.cache
def _handle(device: int) -> Any:  # pragma: no cover
    import cudnn

    with torch.cuda.device(device):
        return cudnn.create_handle()


def _run(graph: _Graph, tensors: tuple[Tensor, ...], device: torch.device) -> None:  # pragma: no cover
    import cudnn

    plan, uids, workspace_bytes = graph
    handle = _handle(device.index)
    with torch.cuda.device(device):
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream(device).cuda_stream)
        workspace = torch.empty(workspace_bytes, dtype=torch.uint8, device=device)
        pointers = {uid: tensor.data_ptr() for uid, tensor in zip(uids, tensors, strict=True)}
        plan.execute(pointers, workspace.data_ptr(), handle=handle)


def _begin(device: int, dtype: torch.dtype) -> tuple[Any, Any, Any]:  # pragma: no cover
    import cudnn

    io = cudnn.data_type.BFLOAT16 if dtype == torch.bfloat16 else cudnn.data_type.HALF
    single = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=io, intermediate_data_type=single, compute_data_type=single, handle=_handle(device)
    )
    return cudnn, graph, io


def _inputs(cudnn: Any, graph: Any, R: int) -> tuple[Any, Any, Any, Any]:  # pragma: no cover
    column = {"stride": [1, 1, 1, 1]}
    int32, int64 = cudnn.data_type.INT32, cudnn.data_type.INT64
    return (
        graph.tensor(name="length_q", dim=[R, 1, 1, 1], data_type=int32, **column),
        graph.tensor(name="length_kv", dim=[R, 1, 1, 1], data_type=int32, **column),
        graph.tensor(name="start", dim=[R + 1, 1, 1, 1], data_type=int64, **column),
        graph.tensor(name="start_stats", dim=[R + 1, 1, 1, 1], data_type=int64, **column),
    )


def _finish(cudnn: Any, graph: Any, tensors: tuple[Any, ...]) -> _Graph:  # pragma: no cover
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    graph.check_support()
    graph.build_plans()
    return graph, tuple(tensor.get_uid() for tensor in tensors), max(1, graph.get_workspace_size())


@functools.lru_cache(maxsize=256)
def _forward_graph(device: int, dtype: torch.dtype, R: int, A: int, S: int, E: int) -> _Graph:  # pragma: no cover
    """The graph for up to R runs of up to S tokens, A heads of width E."""
    cudnn, graph, io = _begin(device, dtype)
    dim, stride = [R, A, S, E], [S * A * E, E, A * E, 1]
    length_q, length_kv, start, start_stats = _inputs(cudnn, graph, R)
    q, k, v = (graph.tensor(name=name, dim=dim, stride=stride, data_type=io) for name in "qkv")
    for tensor in (q, k, v):
        tensor.set_ragged_offset(start)
    out, stats = graph.sdpa(
        name="attention",
        q=q,
        k=k,
        v=v,
        generate_stats=True,
        attn_scale=E**-0.5,
        use_padding_mask=True,
        seq_len_q=length_q,
        seq_len_kv=length_kv,
    )
    out.set_output(True).set_dim(dim).set_stride(stride)
    out.set_ragged_offset(start)
    stats.set_output(True).set_data_type(cudnn.data_type.FLOAT).set_dim([R, A, S, 1]).set_stride([S * A, 1, A, 1])
    stats.set_ragged_offset(start_stats)
    return _finish(cudnn, graph, (q, k, v, length_q, length_kv, start, start_stats, out, stats))


@functools.lru_cache(maxsize=256)
def _backward_graph(
    device: int, dtype: torch.dtype, R: int, A: int, S: int, E: int, tokens: int
) -> _Graph:  # pragma: no cover
    cudnn, graph, io = _begin(device, dtype)
    dim, stride = [R, A, S, E], [S * A * E, E, A * E, 1]
    length_q, length_kv, start, start_stats = _inputs(cudnn, graph, R)
    q, k, v, out, grad = (
        graph.tensor(name=name, dim=dim, stride=stride, data_type=io) for name in ("q", "k", "v", "out", "grad")
    )
    for tensor in (q, k, v, out, grad):
        tensor.set_ragged_offset(start)
    single = cudnn.data_type.FLOAT
    stats = graph.tensor(name="stats", dim=[R, A, S, 1], stride=[S * A, 1, A, 1], data_type=single)
    stats.set_ragged_offset(start_stats)
    grads = graph.sdpa_backward(
        name="attention_backward",
        q=q,
        k=k,
        v=v,
        o=out,
        dO=grad,
        stats=stats,
        attn_scale=E**-0.5,
        use_padding_mask=True,
        seq_len_q=length_q,
        seq_len_kv=length_kv,
        max_total_seq_len_q=tokens,
        max_total_seq_len_kv=tokens,
    )
    for tensor in grads:
        tensor.set_output(True).set_dim(dim).set_stride(stride)
        tensor.set_ragged_offset(start)
    return _finish(cudnn, graph, (q, k, v, out, grad, stats, length_q, length_kv, start, start_stats, *grads))
