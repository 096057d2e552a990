"""The added layers (paper Sec. 3.3, Fig. 3): masked self-attention and masked cross-attention; the block adds them up.

Both start as nothing (zero-initialised output), so a model that gains them equals its base. Their output has no bias: a
token that takes no part, or sees no local prompt, must get exactly 0, trained or not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import CrossMask, region_cross_attention, region_self_attention
from .plan import SortPlan

Rotary = tuple[Tensor, Tensor]


class RegionSelfAttention(nn.Module):
    """Each object attends only to itself, over space and time (Eq. 3).

    One layer serves a DiT block (with rotary embedding) and a U-Net's spatial block (joint over frames: give it the
    tokens of all frames, `h.unflatten(0, (B, F)).flatten(1, 2)`, and no rotary embedding).
    """

    def __init__(
        self, dim: int, num_heads: int, head_dim: int | None = None, *, qk_norm: bool = True, eps: float = 1e-6
    ) -> None:
        super().__init__()
        inner = num_heads * (head_dim or dim // num_heads)
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim, eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, inner) for _ in range(3))
        self.norm_q: nn.Module = nn.RMSNorm(inner, eps) if qk_norm else nn.Identity()
        self.norm_k: nn.Module = nn.RMSNorm(inner, eps) if qk_norm else nn.Identity()
        self.to_out = nn.Linear(inner, dim, bias=False)
        nn.init.zeros_(self.to_out.weight)

    def reset_parameters(self) -> None:
        """As at birth: what it puts out is zero, its insides are random."""
        _reset(self)

    def forward(
        self,
        h_BND: Tensor,
        label_BN: Tensor,
        plan: SortPlan,
        rotary_sorted: Rotary | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """What the layer adds to h. plan: of label_BN. rotary_sorted: `sort_rotary(...)`, made once for all layers.

        Autocast gives norms float32 on a GPU; the fast kernels take half precision only, and our op is not one that
        autocast knows. So q and k are brought to v's precision here.
        """
        x_BND = self.norm(plan.sort(h_BND))  # one gather here and one below, instead of q, k and v each
        v_BND = self.to_v(x_BND)
        q_BNAE = self.norm_q(self.to_q(x_BND)).type_as(v_BND).unflatten(2, (self.num_heads, -1))
        k_BNAE = self.norm_k(self.to_k(x_BND)).type_as(v_BND).unflatten(2, (self.num_heads, -1))
        v_BNAE = v_BND.unflatten(2, (self.num_heads, -1))
        if rotary_sorted is not None:
            q_BNAE, k_BNAE = rotate(q_BNAE, rotary_sorted), rotate(k_BNAE, rotary_sorted)
        out_BANE = region_self_attention(
            q_BNAE.transpose(1, 2),
            k_BNAE.transpose(1, 2),
            v_BNAE.transpose(1, 2),
            label_BN,
            plan=plan,
            presorted=True,
            backend=backend,
        )
        out_BND: Tensor = plan.unsort(self.to_out(out_BANE.transpose(1, 2).flatten(2)))
        return out_BND


class RegionCrossAttention(nn.Module):
    """Each token sees the local prompts of the objects whose boxes it meets (Eq. 1-2), and no others."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        *,
        context_dim: int | None = None,
        qk_norm: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        inner = num_heads * (head_dim or dim // num_heads)
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim, eps)
        self.to_q = nn.Linear(dim, inner)
        self.to_k, self.to_v = (nn.Linear(context_dim or dim, inner) for _ in range(2))
        self.norm_q: nn.Module = nn.RMSNorm(inner, eps) if qk_norm else nn.Identity()
        self.norm_k: nn.Module = nn.RMSNorm(inner, eps) if qk_norm else nn.Identity()
        self.to_out = nn.Linear(inner, dim, bias=False)
        nn.init.zeros_(self.to_out.weight)

    def reset_parameters(self) -> None:
        """As at birth: what it puts out is zero, its insides are random."""
        _reset(self)

    def forward(
        self,
        h_BND: Tensor,
        text_BLSD: Tensor,
        sees_BNL: Tensor,
        key_mask_BLS: Tensor | None = None,
        mask: CrossMask | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """What the layer adds to h. text_BLSD: the encoded local prompts; key_mask_BLS: False on their padding. mask:
        of sees_BNL and key_mask_BLS, if made once for all layers."""
        q_BNAE = self.norm_q(self.to_q(self.norm(h_BND))).unflatten(2, (self.num_heads, -1))
        k_BLSAE = self.norm_k(self.to_k(text_BLSD)).unflatten(3, (self.num_heads, -1))
        v_BLSAE = self.to_v(text_BLSD).unflatten(3, (self.num_heads, -1))
        out_BANE = region_cross_attention(
            q_BNAE.transpose(1, 2),
            k_BLSAE.permute(0, 3, 1, 2, 4),
            v_BLSAE.permute(0, 3, 1, 2, 4),
            sees_BNL,
            key_mask=key_mask_BLS,
            mask=mask,
            backend=backend,
        )
        out_BND: Tensor = self.to_out(out_BANE.transpose(1, 2).flatten(2))
        return out_BND


def _reset(layer: RegionSelfAttention | RegionCrossAttention) -> None:
    for child in layer.children():
        if isinstance(child, nn.Linear | nn.LayerNorm | nn.RMSNorm):
            child.reset_parameters()
    nn.init.zeros_(layer.to_out.weight)


def sort_rotary(rotary: Rotary, plan: SortPlan) -> Rotary:
    """Cosines and sines (N E/2, the same for every sample) in the plan's order: B N 1 E/2."""
    samples = plan.order.shape[0] // rotary[0].shape[0]
    cos, sin = (plan.sort(part[None].expand(samples, -1, -1))[:, :, None] for part in rotary)
    return cos, sin


def rotate(x_BNAE: Tensor, rotary: Rotary) -> Tensor:
    """Rotary embedding of neighbouring pairs (as Wan's): cosines and sines broadcast against B N A E/2."""
    cos, sin = rotary
    even, odd = x_BNAE.unflatten(-1, (-1, 2)).unbind(-1)
    # Fused products, and each half back in x's precision before they are joined: float32 passes over all tokens cost
    # time and memory where nothing is compiled.
    turned = [
        torch.addcmul(even * cos, odd, sin, value=-1).type_as(x_BNAE),
        torch.addcmul(even * sin, odd, cos).type_as(x_BNAE),
    ]
    return torch.stack(turned, -1).flatten(-2)


@torch.library.custom_op("throughmask::add", mutates_args=())
def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y of one shape, as a tensor of its own under torch.compile too.

    The compiler adds up where a sum is read and keeps the summands until then: with four added to the residual stream
    in a block, that is two N × D tensors more at the feed-forward, where memory peaks. It cannot look into this op.
    """
    return x + y


@add.register_fake
def _(x: Tensor, y: Tensor) -> Tensor:
    return x + y


add.register_autograd(lambda _ctx, grad: (grad, grad))
