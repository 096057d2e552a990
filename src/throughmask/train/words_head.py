"""What the text encoder must know of a text: of each object, in the order of mention, what it is and what it does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from .words_texts import FIELDS, Story, Toy, said

SLOTS = 5  # as many toys as a scene has at most
IGNORE = -1


class ToyHead(ModelMixin, ConfigMixin):
    """Learnt slots, one for each object, read the text: is there a k-th object, and its FIELDS."""

    @register_to_config
    def __init__(self, text_dim: int = 192, num_layers: int = 2, num_heads: int = 4) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(SLOTS, text_dim) * 0.5)
        layer = nn.TransformerDecoderLayer(
            text_dim, num_heads, 2 * text_dim, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, num_layers, nn.LayerNorm(text_dim))
        self.present = nn.Linear(text_dim, 2)
        self.fields = nn.ModuleDict({name: nn.Linear(text_dim, len(values)) for name, values in FIELDS.items()})

    def forward(self, text: Tensor, text_mask: Tensor) -> dict[str, Tensor]:
        """Logits B SLOTS C of "present" and of each field. text: B S D with text_mask B S, False on padding."""
        slots = self.slots.expand(len(text), -1, -1)
        slots = self.layers(slots, text + places(text), memory_key_padding_mask=~text_mask)
        return {"present": self.present(slots), **{name: layer(slots) for name, layer in self.fields.items()}}


def places(text: Tensor) -> Tensor:
    """Waves that tell where in the text each state stands, S D: without them "the second" is very hard to learn."""
    S, D = text.shape[1:]
    rate = torch.arange(D // 2, device=text.device, dtype=torch.float32).div(D // 2).mul(-5.3).exp()
    angle = torch.arange(S, device=text.device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], -1).to(text.dtype)


def targets_of(text: str, toys: Sequence[Toy], *, alone: bool) -> dict[str, list[int]]:
    """What the head should say of a text that tells of these toys in this order; IGNORE where the text leaves it open.

    alone: a local prompt, which tells of its one toy and may mention others; only slot 0 counts.
    """
    open_slots = [IGNORE] * (SLOTS - len(toys))
    told = [said(text, toy, alone) for toy in toys]
    targets = {"present": [1] * len(toys) + (open_slots if alone else [0] * len(open_slots))}
    for name, values in FIELDS.items():
        targets[name] = [values.index(what[name]) if name in what else IGNORE for what in told] + open_slots
    return targets


def name_targets(name: str, toy: Toy) -> dict[str, list[int]]:
    """The same for a mere name: what it is, not what it does."""
    targets = targets_of(name, [toy], alone=True)
    return {key: value if key in ("present", "colour", "shape") else [IGNORE] * SLOTS for key, value in targets.items()}


def toys_of(story: Story, ids: Sequence[int]) -> list[Toy]:
    return [story.toys[k - 1] for k in ids]


def head_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """Cross-entropy, the mean over what is told of each field, summed over fields. targets: B SLOTS, long."""
    total = torch.zeros((), device=targets["present"].device)
    for name, target in targets.items():
        loss = F.cross_entropy(
            logits[name].float().flatten(0, 1), target.flatten(), ignore_index=IGNORE, reduction="sum"
        )
        total = total + loss / (target != IGNORE).sum().clamp(min=1)
    return total
