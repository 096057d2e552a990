"""Null conditions and two-scale guidance (paper Sec. 9, InstructPix2Pix form; null encodings are our decision).

One function, `drop`, makes the null conditions of guidance and of training dropout.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .scales import Scales


class Condition(NamedTuple):
    """What the network is told, for a batch. All of it has B first, so parts of batches can be joined and split.

    visual: B C F Y X, normalised latents that are concatenated to the noise. text: B S D, the global prompt. For masked
    attention, None in a stage without it: label B N, sees B N L, local B L S D (encoded local prompts), key_mask B L S.
    """

    visual: Tensor
    text: Tensor
    label: Tensor | None = None
    sees: Tensor | None = None
    local: Tensor | None = None
    key_mask: Tensor | None = None


def drop(condition: Condition, empty_text: Tensor, *, image: Tensor, text: Tensor) -> Condition:
    """The condition with its image part, text part or both made null, sample by sample.

    image, text: boolean (B,). empty_text: S D, the encoded empty prompt. A null image is zero latents (after
    normalisation), label -1 everywhere and no local prompt seen; a null text is the empty prompt and no local prompt
    seen, labels kept.
    """
    visual = torch.where(_like(image, condition.visual), 0, condition.visual)
    words = torch.where(_like(text, condition.text), empty_text.to(condition.text), condition.text)
    label, sees = condition.label, condition.sees
    if label is not None:
        label = torch.where(_like(image, label), -1, label)
    if sees is not None:
        sees = sees & ~_like(image | text, sees)
    return condition._replace(visual=visual, text=words, label=label, sees=sees)


def draw_drops(num: int, probability: float = 0.05, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Which samples of a batch lose image and text: text alone, image alone, and both, each with `probability`."""
    u = torch.rand(num, generator=generator)
    text, image = u < 2 * probability, (u >= probability) & (u < 3 * probability)
    return image, text


class Guidance(Scales):
    """Two-scale guidance over predictions; `Scales` has the formula."""

    __slots__ = ()

    def branches(self, condition: Condition, empty_text: Tensor) -> Condition:
        """The conditions of the branches that count, joined into one batch (branch by branch)."""
        every = condition.visual.new_ones(len(condition.visual), dtype=torch.bool)
        parts = [
            drop(condition, empty_text, image=every, text=every),
            drop(condition, empty_text, image=~every, text=every),
            condition,
        ]
        kept = [part for part, weight in zip(parts, self.weights(), strict=True) if weight]
        columns = zip(*kept, strict=True)
        return Condition._make(None if column[0] is None else torch.cat(column) for column in columns)

    def num_branches(self) -> int:
        return sum(weight != 0 for weight in self.weights())

    def combine(self, predictions: Tensor) -> Tensor:
        """The guided prediction, B ..., from the predictions of `branches`, joined along the batch."""
        weights = [weight for weight in self.weights() if weight]
        parts = predictions.chunk(len(weights))
        return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum(0)


def _like(value_B: Tensor, tensor: Tensor) -> Tensor:
    return value_B.view(-1, *(1,) * (tensor.ndim - 1))
