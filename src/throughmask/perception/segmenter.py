"""A small segmenter by phrase: (picture, "the red ball") -> mask; frame by frame it follows an object through a video.

For Toybox it stands where Grounding DINO and SAM 2 stand for real video (paper Sec. 4.1). The picture is encoded once
and decoded for each phrase; an earlier mask of the same object, where there is one, tells apart toys that look alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidValueError
from ..types import MAX_OBJECTS, Labels, Pixels

STRIDE = 16
GROUPS = 8
# Of what was seen before: the mean of its highest logits, as many as this share of its last mask (and of no fewer
# pixels), says whether it is there (above GONE) and how high its logits are; those up to SLOPE lower are its own.
# Chosen on 9 generated videos with 17 toys (IoU 0.74 -> 0.82; in the true ones 0.960 -> 0.957); on 6 others with 16
# toys 0.80 -> 0.82 and 0.934 -> 0.948.
SHARE, PART, GONE, SLOPE = 0.8, 30, -4.0, 2.0
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PhraseEncoder:
    """A tokenizer and the text encoder it belongs to."""

    tokenizer: Any
    encoder: Any

    def __call__(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States B S D, and B S, False on padding."""
        inputs = self.tokenizer(list(phrases), padding="longest", truncation=True, return_tensors="pt")
        ids, mask = (inputs[name].to(self.encoder.device) for name in ("input_ids", "attention_mask"))
        return self.encoder(ids, mask).last_hidden_state, mask.bool()


class PhraseSegmenter(ModelMixin, ConfigMixin):
    """A U-Net at strides 2 to 16; at 16 transformer blocks read the text, and on the way up the text steers each level.

    widths: channels at strides 2, 4, 8 and 16; the last divides by `num_heads`.
    """

    @register_to_config
    def __init__(
        self,
        text_dim: int = 192,
        widths: tuple[int, ...] = (24, 40, 80, 128),
        num_blocks: int = 3,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        top = widths[-1]
        self.stem = nn.Conv2d(3, widths[0], 5, stride=2, padding=2)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.encode = nn.ModuleList(
            nn.Sequential(*(ResBlock(width) for _ in range(1 if n in (0, 3) else 2))) for n, width in enumerate(widths)
        )
        self.prior = nn.ModuleList(nn.Conv2d(2, width, 3, padding=1) for width in widths)
        self.weigh_text = nn.Linear(text_dim, 1)
        self.embed_text = nn.Linear(text_dim, top)
        self.blocks = nn.ModuleList(Block(top, text_dim, num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(top)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.decode_level = nn.ModuleList(ResBlock(width, top) for width in widths[:-1])
        self.norm_out = nn.GroupNorm(GROUPS, widths[0])
        self.conv_out = nn.Conv2d(widths[0], 4, 3, padding=1)
        self.conv_out.bias.data.fill_(-2.0)  # type: ignore[union-attr]  # most of a picture is not the object

    def forward(self, pixels: Tensor, text: Tensor, text_mask: Tensor, prior: Tensor | None = None) -> Tensor:
        """Mask logits B 1 H W. pixels: B 3 H W in -1..1. text: B S D with text_mask B S, False on padding.

        prior: B 1 H W, the object's mask in another frame, 0 to 1; an empty one says nothing.
        Raises InvalidValueError for sizes that do not divide by 16.
        """
        return self.decode(self.encode_picture(pixels), text, text_mask, prior)

    def encode_picture(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """What every phrase shares: features at strides 2, 4, 8 and 16."""
        check_size(pixels.shape[-2], pixels.shape[-1])
        h = self.encode[0](self.stem(pixels))
        features = [h]
        for down, encode in zip(self.down, self.encode[1:], strict=True):
            h = encode(down(h))
            features.append(h)
        return tuple(features)

    def decode(
        self, features: Sequence[Tensor], text: Tensor, text_mask: Tensor, prior: Tensor | None = None
    ) -> Tensor:
        """Mask logits of each text: B 1 H W. features: of the same B pictures, or of one picture for all texts."""
        B = len(text)
        hints = self._hints(features, B, prior)
        h = features[-1] + hints[-1]
        Y, X = h.shape[-2:]
        # One more token gathers what the phrase's object looks like here, and steers the levels below.
        weight = self.weigh_text(text).masked_fill(~text_mask[..., None], float("-inf")).softmax(1)
        steer = self.embed_text((weight * text).sum(1, keepdim=True))
        place = positions(Y, X, h.shape[1], h.device, h.dtype)
        tokens = torch.cat([steer, (h.flatten(2).transpose(1, 2) + place)], 1)
        for block in self.blocks:
            tokens = block(tokens, text, text_mask)
        tokens = self.norm(tokens)
        steer, h = tokens[:, 0], tokens[:, 1:].transpose(1, 2).unflatten(2, (Y, X))
        for level in reversed(range(len(self.up))):
            h = F.interpolate(self.up[level](h), scale_factor=2, mode="bilinear", align_corners=False)
            h = self.decode_level[level](h + features[level] + hints[level], steer)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), 2)

    def _hints(self, features: Sequence[Tensor], B: int, prior: Tensor | None) -> list[Tensor]:
        """The prior and whether there is one, at every level."""
        if prior is None:
            prior = features[0].new_zeros(B, 1, *(2 * side for side in features[0].shape[-2:]))
        known = (prior.amax((1, 2, 3), keepdim=True) > 0).to(prior.dtype)
        x, hints = torch.cat([prior, known.expand_as(prior)], 1), []
        for layer in self.prior:
            x = F.avg_pool2d(x, 2)
            hints.append(layer(x))
        return hints


class ResBlock(nn.Module):
    """Two convolutions; `steer_dim` adds a scale and a shift of the second one's input (FiLM)."""

    def __init__(self, width: int, steer_dim: int = 0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.steer = nn.Linear(steer_dim, 2 * width) if steer_dim else None

    def forward(self, x: Tensor, steer: Tensor | None = None) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.steer is not None and steer is not None:
            scale, shift = self.steer(steer)[:, :, None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
        return x + self.conv2(F.silu(h))


class Block(nn.Module):
    """Self-attention among the picture's tokens, cross-attention to the text, and a feed-forward layer."""

    def __init__(self, dim: int, text_dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.attend = Attention(dim, dim, num_heads)
        self.read = Attention(dim, text_dim, num_heads)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attend(y, y)
        x = x + self.read(self.norm2(x), text, text_mask[:, None, None])
        return x + self.feed(self.norm3(x))


class Attention(nn.Module):
    def __init__(self, dim: int, context_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q, self.to_out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.to_kv = nn.Linear(context_dim, 2 * dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), *self.to_kv(context).chunk(2, -1))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


def positions(Y: int, X: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Where each token is, as waves over the whole picture, whatever its size: Y*X dim."""
    waves = torch.arange(dim // 4, device=device, dtype=torch.float32).div(dim // 4).mul(5).exp2() * torch.pi
    down, right = ((torch.arange(n, device=device) + 0.5) / n for n in (Y, X))
    y, x = (part[:, None] * waves for part in (down, right))
    y, x = (torch.cat([part.sin(), part.cos()], -1) for part in (y, x))
    grid = torch.cat([y[:, None].expand(-1, X, -1), x[None].expand(Y, -1, -1)], -1)
    return F.pad(grid, (0, dim - grid.shape[-1])).flatten(0, 1).to(dtype)


@torch.no_grad()
def segment(
    model: PhraseSegmenter,
    text: PhraseEncoder,
    pixels: Pixels,
    phrases: Mapping[int, str],
    prior_labels: Labels | None = None,
) -> Labels:
    """Which pixel is whose: uint8 H W, 0 where no phrase fits. pixels: uint8 H W 3. phrases: of each object id.

    prior_labels: uint8 H W, the labels of another frame; an id that it does not show is found by its phrase alone.
    Raises InvalidValueError for sizes that do not divide by 16 and for ids outside 1..255.
    """
    before = {} if prior_labels is None else {k: prior_labels == k for k in phrases}
    return _segment(model, *_encoded(text, phrases), pixels, list(phrases), before)


@torch.no_grad()
def track(
    model: PhraseSegmenter,
    text: PhraseEncoder,
    frames: Pixels,
    phrases: Mapping[int, str],
    first: Labels | None = None,
) -> Labels:
    """The labels of every frame: uint8 T H W. frames: uint8 T H W 3. phrases: of each object id.

    Each object is looked for with its phrase and the last mask that was found of it. first: the labels of frame 0,
    where they are known; else they too are found. Raises InvalidValueError as `segment` does.
    """
    encoded = _encoded(text, phrases)
    found: list[Labels] = []
    last: dict[int, Mask] = {}
    for pixels in frames:
        known = first is not None and not found
        found.append(first if known else _segment(model, *encoded, pixels, list(phrases), last))  # type: ignore[arg-type]
        last |= {k: found[-1] == k for k in phrases if (found[-1] == k).any()}
    return np.stack(found)


def check_size(height: int, width: int) -> None:
    """Raises InvalidValueError for sizes that do not divide by 16."""
    if height % STRIDE or width % STRIDE or not height * width:
        near = "×".join(str(max(STRIDE, round(side / STRIDE) * STRIDE)) for side in (height, width))
        raise InvalidValueError(
            f"height and width must be multiples of {STRIDE}", seen=f"{height}×{width}", fix=f"such as {near}"
        )


def _encoded(text: PhraseEncoder, phrases: Mapping[int, str]) -> tuple[Tensor, Tensor]:
    wrong = [k for k in phrases if not 1 <= k <= MAX_OBJECTS]
    if wrong:
        raise InvalidValueError("an object's id must be a whole number from 1 to 255", seen=wrong)
    return text(list(phrases.values())) if phrases else (torch.empty(0), torch.empty(0))


def _segment(
    model: PhraseSegmenter,
    states: Tensor,
    mask: Tensor,
    pixels: Pixels,
    ids: Sequence[int],
    before: Mapping[int, Mask],
) -> Labels:
    """Labels by the highest logit above 0. before: masks of ids in an earlier frame; one that is empty says nothing."""
    check_size(*pixels.shape[:2])
    if not ids:
        return np.zeros(pixels.shape[:2], np.uint8)
    device, dtype = model.device, model.dtype
    x = torch.tensor(pixels, device=device).permute(2, 0, 1)[None].to(dtype).contiguous() / 127.5 - 1
    nothing = np.zeros(pixels.shape[:2], np.bool_)
    prior = torch.tensor(np.stack([before.get(k, nothing) for k in ids]), device=device)[:, None].to(dtype)
    logits = model.decode(model.encode_picture(x), states.to(device, dtype), mask.to(device), prior)[:, 0]
    best, winner = (logits - _doubt(logits, prior[:, 0])).max(0)
    table = torch.tensor(ids, dtype=torch.uint8, device=device)
    return torch.where(best > 0, table[winner], 0).to(torch.uint8).cpu().numpy()


def _doubt(logits: Tensor, prior: Tensor) -> Tensor:
    """How far below 0 a logit may be, N 1 1, as a number to subtract: 0 but where an object that was seen before (prior
    N H W) is surely there, and nowhere surely.

    Generated videos bend toys until they no longer look like what they are called. Their logits (N H W) sink below 0
    then, but stay far above those of everything else, and of a picture without the toy.
    """
    limits = logits.new_zeros(len(logits), 1, 1)
    for k, (own, before) in enumerate(zip(logits, prior, strict=True)):
        area = int(before.sum())
        if area:
            level = float(own.flatten().topk(min(max(PART, round(SHARE * area)), own.numel())).values.mean())
            limits[k] = min(0.0, level - SLOPE) if level > GONE else 0.0
    return limits


def load_text(folder: str | Path) -> PhraseEncoder:
    """Tokenizer and text encoder of what `train toybox-words` wrote, in float32, ready to use."""
    from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

    folder = Path(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", use_safetensors=True).float().eval()
    return PhraseEncoder(tokenizer, encoder)


def load_words(folder: str | Path) -> tuple[PhraseEncoder, PhraseSegmenter]:
    """What `train toybox-words` wrote: tokenizer, text encoder and segmenter, in float32, ready to use."""
    segmenter = PhraseSegmenter.from_pretrained(Path(folder) / "segmenter", use_safetensors=True).float().eval()
    return load_text(folder), segmenter
