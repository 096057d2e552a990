"""AutoencoderKLWan over a whole clip at once: what it computes chunk by chunk, in a third of the launches at 9 frames.

Its own encode and decode go through a clip in chunks of one latent frame and keep features between them, which bounds
memory; a small clip needs no bound, and training keeps every activation anyway. Causal convolutions over the whole clip
are the same numbers; only the temporal resampling treats the first frame apart.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify, unpatchify
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from ..errors import InvalidValueError

MOST = 1 << 28  # numbers in an activation at full size: 1 GiB in float32, of which a pass holds a few


def check_kind(vae: Any) -> None:
    """Raises InvalidValueError for a VAE of Wan 2.2's kind, whose passes are others."""
    if vae.config.is_residual:
        raise InvalidValueError("this VAE is of Wan 2.2's kind", fix="training knows the kind of Wan 2.1")


def fits(vae: Any, x_BCTHW: Tensor) -> bool:
    """Whether a whole pass is possible and small enough."""
    if vae.config.is_residual or vae.use_tiling or vae.use_slicing:
        return False
    patch = vae.config.patch_size or 1
    return x_BCTHW[:, 0].numel() // patch**2 * int(vae.config.base_dim) <= MOST


@apply_forward_hook  # a VAE that is offloaded comes to the device first
def encode(vae: Any, x_BCTHW: Tensor) -> DiagonalGaussianDistribution:
    """As `vae.encode(x).latent_dist`."""
    encoder = vae.encoder
    h = encoder.conv_in(patchify(x_BCTHW, vae.config.patch_size or 1))
    for layer in encoder.down_blocks:
        h = _down(layer, h) if isinstance(layer, WanResample) else layer(h)
    h = encoder.mid_block(h)
    h = encoder.conv_out(encoder.nonlinearity(encoder.norm_out(h)))
    return DiagonalGaussianDistribution(vae.quant_conv(h))


def decode(vae: Any, z_BCFYX: Tensor) -> Tensor:
    """As `vae.decode(z).sample` before it is cut to -1..1: where it is cut, there is nothing to learn from."""
    decoder = vae.decoder
    h = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(z_BCFYX)))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            h = resnet(h)
        for layer in block.upsamplers or ():
            h = _up(layer, h)
    x: Tensor = unpatchify(decoder.conv_out(decoder.nonlinearity(decoder.norm_out(h))), vae.config.patch_size or 1)
    return x


def _down(layer: Any, h: Tensor) -> Tensor:
    """Half the size; then, where the layer says so, every two later frames become one."""
    h = layer(h)
    if layer.mode == "downsample3d" and h.shape[2] > 1:
        h = torch.cat([h[:, :, :1], layer.time_conv(h)], 2)
    return h


def _up(layer: Any, h: Tensor) -> Tensor:
    """Where the layer says so, every later frame becomes two; then twice the size."""
    if layer.mode == "upsample3d" and h.shape[2] > 1:
        pairs = layer.time_conv(h[:, :, 1:]).unflatten(1, (2, -1))  # B 2 C F Y X
        h = torch.cat([h[:, :, :1], pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], 2)
    doubled: Tensor = layer(h)
    return doubled
