"""Model FLOPs of one training step, counted from the weights: what MFU (model FLOPs utilisation) is a share of.

A weight of P numbers that acts on n tokens costs 2·P·n forward and twice that backward: 6·P·n. Attention of n queries
over m keys costs 4·n·m·d forward and twice that backward: 12·n·m·d, masked ones over the keys that a query may be with:
runs of one label, and all local prompts. Recomputation (checkpointing) is work, but not the model's: it is not counted.
"""

from __future__ import annotations

import functools
import json
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .. import backbones
from ..backbones import Backbone
from ..errors import InvalidValueError
from ..nn.guidance import Condition

# What an attention layer's keys and values are made of: the clip's tokens, the global prompt's, or the local prompts'.
KEYS = {"attn1": "tokens", "masked_self": "tokens", "attn2": "text", "masked_cross": "local"}
# Every other weight of a Wan, by a part of its name; "once" is a vector for the whole clip, the time.
ACTS_ON = {
    "patch_embedding": "tokens",
    "ffn": "tokens",
    "proj_out": "tokens",
    "text_embedder": "prompts",
    "time_embedder": "once",
    "time_proj": "once",
    "scale_shift_table": "nothing",
}
# bfloat16, dense, without sparsity. Full names: a laptop's or a partitioned GPU of the same family is another one.
PEAKS = {
    "NVIDIA H200": 790e12,
    "NVIDIA H100 80GB HBM3": 790e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA GeForce RTX 4090": 165e12,
    "NVIDIA GeForce RTX 3090": 71e12,
}


class StepFlops(NamedTuple):
    """Of one sample."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        return self.forward + self.backward


def clip_flops(
    backbone: Backbone, denoiser: Any, clean: Tensor, condition: Condition, squared_runs: float | None = None
) -> float:
    """Model FLOPs of one sample in one training step, of any backbone's denoiser. clean: latents B C F Y X; of these
    and of the condition only sizes count. squared_runs: of the finest tokens, see `step_flops`.

    Where weights do not say what they act on, as in a U-Net, torch counts a forward without memory; adapters are left
    out, and coarser tokens are taken to fall into runs as the finest do.
    """
    patch = denoiser.config.get("patch_size")
    if patch is not None:
        local = condition.local
        return train_flops(
            denoiser,
            tokens=clean[0, 0].numel() // math.prod(patch),
            text=condition.text.shape[1],
            local=None if local is None else local.shape[1] * local.shape[2],
            squared_runs=squared_runs,
        )
    config = json.dumps({key: value for key, value in denoiser.config.items() if key[0] != "_"})
    parts = [None if part is None else (tuple(part.shape[1:]), part.dtype) for part in condition]
    kind: type = type(denoiser)
    forward = _counted(backbone.name, kind, config, tuple(clean.shape[1:]), tuple(parts))
    for name, weight in denoiser.named_parameters():
        if name.endswith("masked_self.to_q.weight"):  # its attention is an operation that torch cannot count
            level = int(name.split(".")[1]) if name.startswith("down_blocks.") else 0
            every = (clean[0, 0].numel() / 4**level) ** 2
            forward += 4.0 * weight.shape[0] * (every if squared_runs is None else squared_runs / 16**level)
    frozen = not all(weight.requires_grad for weight in denoiser.parameters())
    return forward * (2 if frozen else 3)


@functools.cache
def _counted(name: str, kind: type, config: str, size: tuple[int, ...], parts: tuple[Any, ...]) -> float:
    """What torch counts of one sample's forward."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        twin: Any = kind.from_config(json.loads(config))  # type: ignore[attr-defined]
        told = [None if part is None else torch.zeros(1, *part[0], dtype=part[1]) for part in parts]
        condition = Condition._make(told)._replace(label=None)
        backbones.backbone(name).denoise(twin, torch.zeros(1, *size), torch.zeros(1), condition, None)
    return float(counter.get_total_flops())


def train_flops(
    denoiser: Any, *, tokens: int, text: int, local: int | None = None, squared_runs: float | None = None
) -> float:
    """Model FLOPs of one sample in one training step: `step_flops`, forward and backward."""
    return step_flops(denoiser, tokens=tokens, text=text, local=local, squared_runs=squared_runs).total


def step_flops(
    denoiser: Any, *, tokens: int, text: int, local: int | None = None, squared_runs: float | None = None
) -> StepFlops:
    """Model FLOPs of one sample, forward and backward, of a Wan with or without masked blocks and adapters.

    tokens: N of the clip. text: S of the global prompt, padding included. local: L·S of the local prompts, padding
    included; None if masked cross-attention reads the global prompt. squared_runs: the sum of squared run lengths, of
    one sample; None if masked self-attention joins all tokens. A frozen weight has no gradient of its own, which saves
    a third: 4·P·n. Backward to the first layer's input is counted, as is usual, though nobody computes it.

    Raises InvalidValueError for a weight that is no part of such a model.
    """
    count = {"tokens": tokens, "text": text, "local": text if local is None else local, "once": 1, "nothing": 0}
    count["prompts"] = text + (local or 0)  # local prompts pass the same embedder
    pairs = {name: float(tokens * count[keys]) for name, keys in KEYS.items()}
    if squared_runs is not None:
        pairs["masked_self"] = squared_runs
    forward = backward = 0.0
    for name, weight in denoiser.named_parameters():
        parts = name.split(".")
        if weight.ndim < 2 or "original_module" in parts:  # the copy that an adapter replaces
            continue
        work = 2.0 * weight.numel() * count[_acts_on(name, parts)]
        forward, backward = forward + work, backward + work * (2 if weight.requires_grad else 1)
        if "to_q" in parts and not {"lora_A", "lora_B"} & set(parts):
            attention = 4.0 * weight.shape[0] * pairs[_first(parts, KEYS)]
            forward, backward = forward + attention, backward + 2 * attention
    trained = any(weight.requires_grad for weight in denoiser.parameters())
    return StepFlops(forward, backward if trained else 0.0)


def peak_flops(device: str | torch.device) -> float | None:
    """FLOP/s that bfloat16 matrix products can reach on a device, dense; None on the CPU and on a GPU not listed.

    H200 (and H100 SXM, the same chip): 790e12, what large matrix products reached when measured on an H200; the data
    sheet's 989e12 is out of reach at the power that the card may draw. The others are their data sheets'.
    """
    device = torch.device(device)
    return PEAKS.get(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def _acts_on(name: str, parts: list[str]) -> str:
    """What a weight acts on: a key of `count` above."""
    layer, projection = _first(parts, KEYS), _first(parts, ("to_q", "to_k", "to_v", "to_out"))
    if layer and projection:
        return KEYS[layer] if projection in ("to_k", "to_v") else "tokens"
    known = "" if layer else _first(parts, ACTS_ON)
    if not known:
        raise InvalidValueError("cannot count the FLOPs of a weight that Wan does not have", seen=name)
    return ACTS_ON[known]


def _first(parts: list[str], known: Any) -> str:
    return next((part for part in parts if part in known), "")
