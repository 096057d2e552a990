"""Kernel: FlexAttention on sorted tokens. Slower than the others where those run; compiles its kernel at first use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128


def why_not(q: Tensor) -> str | None:
    """Why this kernel cannot run these tensors, or None."""
    if q.device.type == "cpu" and torch.is_grad_enabled() and q.requires_grad:
        return "FlexAttention has no backward on the CPU"
    if q.device.type not in ("cpu", "cuda"):
        return f"it needs a CPU or CUDA device, not {q.device.type}"
    return None


def sorted_self_attention(q_BANE: Tensor, k_BANE: Tensor, v_BANE: Tensor, label_BN: Tensor) -> Tensor:
    """Tokens sorted by label, -1 last; see attention.dense_self_attention for what is computed."""
    attend: Any = flex_attention if torch.compiler.is_compiling() else _compiled()
    q, k, v = q_BANE.contiguous(), k_BANE.contiguous(), v_BANE.contiguous()
    out: Tensor = attend(q, k, v, block_mask=_block_mask(label_BN))
    return torch.where((label_BN >= 0)[:, None, :, None], out, 0)


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


def _block_mask(label_BN: Tensor) -> BlockMask:
    """Blocks of 128 × 128 tokens that share a label, straight from each block's first and last label."""
    N = label_BN.shape[1]
    # In sorted order -1 comes last; as 256 it is also the largest, so a block's labels are the interval [first, last].
    key_BN = torch.where(label_BN < 0, 256, label_BN)
    blocks = F.pad(key_BN, (0, -N % BLOCK), value=256).unflatten(1, (-1, BLOCK))
    first, last = blocks[..., 0], blocks[..., -1]
    meet = (first[:, :, None] <= last[:, None, :]) & (first[:, None, :] <= last[:, :, None])
    whole = (first == last)[:, :, None] & (first == last)[:, None, :] & (first[:, :, None] == first[:, None, :])
    if N % BLOCK:  # the padded block is never whole
        whole[:, -1] = False
        whole[:, :, -1] = False
    some = meet & ~whole

    def same(b: Tensor, _head: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return key_BN[b, q] == key_BN[b, kv]

    (num_some, some), (num_whole, whole) = _listed(some), _listed(whole)
    return BlockMask.from_kv_blocks(
        num_some, some, num_whole, whole, BLOCK_SIZE=BLOCK, mask_mod=same, seq_lengths=(N, N)
    )


def _listed(mask: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of blocks, how many are set, and their columns first."""
    columns = torch.argsort(mask.int(), dim=-1, descending=True, stable=True)
    return mask.sum(-1, dtype=torch.int32)[:, None], columns.int()[:, None]
