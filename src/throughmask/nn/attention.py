"""Masked attention (paper Sec. 3.3): one door for each kind, its dense definition first, fast backends behind it.

Callers pass object labels, never an N × N mask. A query with nothing to see yields exactly 0 (the paper's log 0 would
be NaN; Fig. 3 shows that only the residual passes there).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InvalidValueError
from . import attention_cudnn, attention_flex, attention_runs, attention_varlen
from .plan import SortPlan


def dense_self_attention(q_BANE: Tensor, k_BANE: Tensor, v_BANE: Tensor, label_BN: Tensor) -> Tensor:
    """Eq. 3: softmax(q kᵀ/√E + log M_self) v; M_self is 1 where two tokens share a label; label -1 takes no part."""
    same_BNN = (label_BN[:, :, None] == label_BN[:, None, :]) & (label_BN >= 0)[:, :, None]
    return _dense(q_BANE, k_BANE, v_BANE, same_BNN[:, None])


def dense_cross_attention(
    q_BANE: Tensor, k_BALSE: Tensor, v_BALSE: Tensor, sees_BNL: Tensor, key_mask_BLS: Tensor | None = None
) -> Tensor:
    """Eq. 1-2: the keys of all prompts in one sequence; softmax(q kᵀ/√E + log M_cross) v; M_cross is 1 where seen."""
    mask = _cross_mask(sees_BNL, key_mask_BLS, k_BALSE.shape[3])
    return _dense(q_BANE, k_BALSE.flatten(2, 3), v_BALSE.flatten(2, 3), mask)


def _dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    sees_something = mask.any(-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(~(mask | ~sees_something), -math.inf), -1)
    return torch.where(sees_something, weights, 0) @ v


class CrossMask(NamedTuple):
    """Which keys each token sees, as SDPA takes it; it travels as an argument, as a SortPlan does.

    attn_mask: B 1 N L·S, booleans or what is added to scores; rows of tokens that see no key let them see everything:
    kernels disagree about empty rows (0, NaN, an average). seen: bool B 1 N 1, False for those tokens, whose result is
    then erased. Their gradient is zero from there on, so nothing leaks into keys and values.
    """

    attn_mask: Tensor
    seen: Tensor

    @classmethod
    def of(
        cls, sees_BNL: Tensor, key_mask_BLS: Tensor | None, num_words: int, dtype: torch.dtype | None = None
    ) -> CrossMask:
        """num_words: S. dtype: of the queries, for a mask that is added: several layers share it, where each would
        make one of its own from booleans."""
        mask = _cross_mask(sees_BNL, key_mask_BLS, num_words)
        seen = mask.any(-1, keepdim=True)
        if dtype is None:
            return cls(mask | ~seen, seen)
        K = mask.shape[-1]
        # Kernels read rows that begin at multiples of 8 numbers; SDPA would copy others into such in every layer.
        rows = mask.new_zeros(*mask.shape[:-1], K + -K % 8, dtype=dtype)
        return cls(rows[..., :K].masked_fill_(seen & ~mask, -math.inf), seen)


SELF_BACKENDS = ("cudnn", "varlen", "runs", "flex", "dense")
CROSS_BACKENDS = ("sdpa", "dense")


def region_self_attention(
    q_BANE: Tensor,
    k_BANE: Tensor,
    v_BANE: Tensor,
    label_BN: Tensor,
    *,
    plan: SortPlan | None = None,
    presorted: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Masked self-attention (Eq. 3): B A N E, each token attends to the tokens of its own label; -1 yields exactly 0.

    label_BN: integers -1..255. plan: `SortPlan.of(label_BN)`, made here when not given; make it once and pass it to
    every layer and step. presorted: q, k, v are in `plan.sort` order already, and so is the result (label_BN stays
    unsorted).
    backend: one of SELF_BACKENDS; by default chosen from device, dtype and shape.

    Raises InvalidValueError for shapes that do not fit, and for a backend that cannot run these tensors.
    """
    B, A, N, E = q_BANE.shape
    if k_BANE.shape != q_BANE.shape or v_BANE.shape != q_BANE.shape or label_BN.shape != (B, N):
        shapes = [tuple(x.shape) for x in (q_BANE, k_BANE, v_BANE, label_BN)]
        raise InvalidValueError("masked self-attention takes q, k, v of B A N E and a label of B N", seen=shapes)
    if presorted and plan is None:
        raise InvalidValueError("presorted tokens need the plan that sorted them", fix="pass plan=")
    backend = backend or choose_self_backend(q_BANE)
    _check_backend(backend, q_BANE)
    if backend == "dense" and not presorted:
        return dense_self_attention(q_BANE, k_BANE, v_BANE, label_BN)
    plan = plan or SortPlan.of(label_BN)
    q_BNAE, k_BNAE, v_BNAE = (x.transpose(1, 2) for x in (q_BANE, k_BANE, v_BANE))
    if not presorted:
        q_BNAE, k_BNAE, v_BNAE = plan.sort(q_BNAE), plan.sort(k_BNAE), plan.sort(v_BNAE)
    if backend in ("dense", "flex"):
        q, k, v = (x.transpose(1, 2) for x in (q_BNAE, k_BNAE, v_BNAE))
        attend = dense_self_attention if backend == "dense" else attention_flex.sorted_self_attention
        out_BNAE = attend(q, k, v, plan.sort(label_BN)).transpose(1, 2)
    else:
        tokens = (x.reshape(B * N, A, E) for x in (q_BNAE, k_BNAE, v_BNAE))
        tables = (plan.starts, plan.lengths, plan.runs, plan.num_runs)
        out_BNAE = torch.ops.throughmask.run_attention(*tokens, *tables, N, backend)[0].unflatten(0, (B, N))
    return (out_BNAE if presorted else plan.unsort(out_BNAE)).transpose(1, 2)


def region_cross_attention(
    q_BANE: Tensor,
    k_BALSE: Tensor,
    v_BALSE: Tensor,
    sees_BNL: Tensor,
    *,
    key_mask: Tensor | None = None,
    mask: CrossMask | None = None,
    backend: str | None = None,
) -> Tensor:
    """Masked cross-attention (Eq. 1-2): q of B A N E sees the S tokens of each local prompt l where sees_BNL is True.

    k, v: B A L S E. key_mask: boolean B L S, False on padding. mask: `CrossMask.of(sees_BNL, key_mask, S, dtype)`, made
    here when not given; layers can share one. A token that sees no key yields exactly 0.

    Raises InvalidValueError for shapes that do not fit.
    """
    B, A, N, E = q_BANE.shape
    L, S = k_BALSE.shape[2:4]
    fits = k_BALSE.shape == (B, A, L, S, E) == v_BALSE.shape and sees_BNL.shape == (B, N, L)
    if not fits or (key_mask is not None and key_mask.shape != (B, L, S)):
        shapes = [tuple(x.shape) for x in (q_BANE, k_BALSE, v_BALSE, sees_BNL)]
        raise InvalidValueError(
            "masked cross-attention takes q B A N E, k and v B A L S E, sees B N L, key_mask B L S", seen=shapes
        )
    if backend not in (None, *CROSS_BACKENDS):
        raise InvalidValueError(
            "there is no such cross-attention backend", seen=backend, fix=f"known: {CROSS_BACKENDS}"
        )
    if L == 0 or S == 0:
        return torch.zeros_like(q_BANE)
    if backend == "dense":
        return dense_cross_attention(q_BANE, k_BALSE, v_BALSE, sees_BNL, key_mask)
    attn_mask, seen = mask or CrossMask.of(sees_BNL, key_mask, S)
    out = F.scaled_dot_product_attention(q_BANE, k_BALSE.flatten(2, 3), v_BALSE.flatten(2, 3), attn_mask=attn_mask)
    return torch.where(seen, out, 0)


def choose_self_backend(q_BANE: Tensor) -> str:
    """The fastest backend that can run these tensors (docs/decisions/0003-attention-backends.md has the numbers)."""
    if attention_cudnn.why_not(q_BANE) is None:
        return "cudnn"
    if attention_varlen.why_not(q_BANE) is None:
        # Without the packed cuDNN kernel: a few long runs are fastest with one SDPA call each, but only forward.
        training = torch.is_grad_enabled() and q_BANE.requires_grad
        hopper = attention_varlen.compute_capability(q_BANE.device.index or 0) >= 90
        return "runs" if hopper and not training and q_BANE.shape[2] >= 8192 else "varlen"
    return "runs"


def _check_backend(backend: str, q_BANE: Tensor) -> None:
    if backend not in SELF_BACKENDS:
        raise InvalidValueError("there is no such self-attention backend", seen=backend, fix=f"known: {SELF_BACKENDS}")
    reasons = {"cudnn": attention_cudnn.why_not, "varlen": attention_varlen.why_not, "flex": attention_flex.why_not}
    reason = reasons[backend](q_BANE) if backend in reasons else None
    if reason:
        raise InvalidValueError(
            f"the attention backend {backend!r} cannot run here: {reason}", fix="leave the choice to us"
        )


def _cross_mask(sees_BNL: Tensor, key_mask_BLS: Tensor | None, S: int) -> Tensor:
    """Which of the L·S keys each token sees: boolean B 1 N L·S."""
    mask_BNLS = sees_BNL[..., None].expand(*sees_BNL.shape, S)
    if key_mask_BLS is not None:
        mask_BNLS = mask_BNLS & key_mask_BLS[:, None]
    return mask_BNLS.flatten(2, 3)[:, None]


__all__ = [
    "CROSS_BACKENDS",
    "SELF_BACKENDS",
    "CrossMask",
    "attention_runs",
    "choose_self_backend",
    "dense_cross_attention",
    "dense_self_attention",
    "region_cross_attention",
    "region_self_attention",
]
