"""A small text-to-video model as if somebody else had written it: what docs/adding-a-backbone.md starts from."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class StubBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn1, self.attn2 = (nn.MultiheadAttention(dim, heads, batch_first=True) for _ in range(2))
        self.ffn = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def attend(self, h: Tensor) -> Tensor:
        x = self.norm(h)
        return self.attn1(x, x, x, need_weights=False)[0]

    def read(self, h: Tensor, text: Tensor) -> Tensor:
        return self.attn2(self.norm(h), text, text, need_weights=False)[0]

    def feed(self, h: Tensor) -> Tensor:
        return self.ffn(self.norm(h))

    def forward(self, h: Tensor, text: Tensor) -> Tensor:
        h = h + self.attend(h)
        h = h + self.read(h, text)
        return h + self.feed(h)


class StubTransformer(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(
        self,
        in_channels: int = 16,
        out_channels: int = 16,
        dim: int = 24,
        heads: int = 2,
        num_layers: int = 2,
        text_dim: int = 32,
    ) -> None:
        super().__init__()
        self.embed, self.time = nn.Linear(in_channels, dim), nn.Linear(1, dim)
        self.text, self.out = nn.Linear(text_dim, dim), nn.Linear(dim, out_channels)
        self.blocks = nn.ModuleList(StubBlock(dim, heads) for _ in range(num_layers))

    def tokens(self, latents: Tensor, time: Tensor) -> Tensor:
        return self.embed(latents.flatten(2).mT) + self.time(time.to(latents)[:, None, None] / 1000)

    def embed_text(self, text: Tensor) -> Tensor:
        return self.text(text)

    def latents(self, h: Tensor, shape: torch.Size) -> Tensor:
        return self.out(h).mT.unflatten(2, shape[2:])

    def forward(self, latents: Tensor, time: Tensor, text: Tensor) -> Tensor:
        h, text = self.tokens(latents, time), self.embed_text(text)
        for block in self.blocks:
            h = block(h, text)
        return self.latents(h, latents.shape)


class StubPipeline(DiffusionPipeline):
    def __init__(self, tokenizer: Any, text_encoder: Any, vae: Any, scheduler: Any, transformer: Any) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, scheduler=scheduler, transformer=transformer
        )
