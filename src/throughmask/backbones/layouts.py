"""What the sizes of a base model follow from. Without torch, so that a request is checked before anything loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidValueError
from ..nn.grid import TokenGrid

STAGE_PARTS = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
Beside = tuple[str, tuple[str, ...]]  # a hub id, and which of its files


class WanLayout:
    """Wan: a causal video VAE (1 + 4 + 4 ... frames) and a DiT over patches of its latents."""

    name = "wan"
    components: tuple[str, ...] = STAGE_PARTS
    denoiser_class = "MaskedWanTransformer3DModel"
    base_pipelines: tuple[str, ...] = ("WanPipeline",)
    beside: Mapping[str, Beside] = {}
    schedules: tuple[str, ...] = ("scheduler", "linear-quadratic")
    clip: tuple[int, str] = (81, "16")

    def strides(self, vae_config: dict[str, Any], denoiser_config: dict[str, Any]) -> tuple[int, ...]:
        """Frames that a later latent frame covers, and pixels along a token's side."""
        # Wan 2.1's own configuration leaves out both factors: they are diffusers' defaults.
        frames, side = vae_config.get("scale_factor_temporal", 4), vae_config.get("scale_factor_spatial", 8)
        return int(frames), int(side) * int(denoiser_config["patch_size"][1])

    def grid(self, num_frames: int, strides: tuple[int, ...]) -> TokenGrid:
        """Raises InvalidValueError for a number of frames that the VAE cannot take."""
        return TokenGrid.causal(num_frames, (strides[1], strides[1]), strides[0])

    def num_blocks(self, denoiser_config: Mapping[str, Any]) -> int:
        """Blocks that can be masked ones."""
        return int(denoiser_config["num_layers"])

    def default_masked(self, denoiser_config: Mapping[str, Any]) -> int:
        """K where nothing is said: the paper's 10 of 40."""
        return max(1, self.num_blocks(denoiser_config) // 4)


@dataclass(frozen=True)
class UNetGrid(TokenGrid):
    """The finest tokens of a U-Net, which halves sides until `multiple` pixels are one."""

    multiple: int = 8

    def tokens(self, height: int, width: int) -> tuple[int, int, int]:
        """As TokenGrid's; raises InvalidValueError if a side cannot be halved as often as the U-Net does it."""
        TokenGrid((self.multiple, self.multiple), self.frames).tokens(height, width)
        return super().tokens(height, width)


class AnimateDiffLayout:
    """AnimateDiff: an image VAE, frame by frame, and a U-Net over its latents, each of which is a token."""

    name = "animatediff"
    components: tuple[str, ...] = STAGE_PARTS
    denoiser_class = "MaskedUNetMotionModel"
    base_pipelines: tuple[str, ...] = ("AnimateDiffPipeline", "UNetTextToVideoPipeline", "MotionAdapter")
    # A motion adapter is half a base: the image model that it was made for comes beside it.
    beside: Mapping[str, Beside] = {
        "MotionAdapter": (
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            (
                "model_index.json",
                "tokenizer/*",
                "text_encoder/config.json",
                "text_encoder/model.safetensors",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/config.json",
                "vae/diffusion_pytorch_model.safetensors",
            ),
        )
    }
    schedules: tuple[str, ...] = ("scheduler",)
    clip: tuple[int, str] = (16, "6")

    def vae_strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Frames and pixels of a latent. A causal video VAE, as Toybox's, says so; an image VAE halves between its
        levels."""
        if "scale_factor_temporal" in vae_config:
            return int(vae_config["scale_factor_temporal"]), int(vae_config["scale_factor_spatial"])
        return 1, 2 ** (len(vae_config["block_out_channels"]) - 1)

    def strides(self, vae_config: dict[str, Any], denoiser_config: dict[str, Any]) -> tuple[int, ...]:
        """Frames that a later latent frame covers, pixels along a token's side, pixels that are one at the U-Net's
        coarsest, and the most latent frames that its motion modules know."""
        frames, side = self.vae_strides(vae_config)
        coarsest = side * 2 ** (len(denoiser_config["block_out_channels"]) - 1)
        return frames, side, coarsest, int(denoiser_config["motion_max_seq_length"])

    def grid(self, num_frames: int, strides: tuple[int, ...]) -> TokenGrid:
        """Raises InvalidValueError for a number of frames that VAE or motion modules cannot take."""
        stride, side, coarsest, most = strides
        if num_frames < 1:
            raise InvalidValueError("a clip has at least one frame", seen=num_frames)
        found = TokenGrid.causal(num_frames, (side, side), stride)
        if len(found.frames) > most:
            longest = 1 + (most - 1) * stride
            raise InvalidValueError(
                "the motion modules know no such long clip", seen=num_frames, fix=f"at most {longest}"
            )
        return UNetGrid(found.patch, found.frames, coarsest)

    def num_blocks(self, denoiser_config: Mapping[str, Any]) -> int:
        """Spatial transformers of the encoder."""
        kinds, layers = denoiser_config["down_block_types"], denoiser_config.get("layers_per_block", 2)
        each = [layers] * len(kinds) if isinstance(layers, int) else layers
        return sum(count for kind, count in zip(kinds, each, strict=True) if kind.startswith("CrossAttn"))

    def default_masked(self, denoiser_config: Mapping[str, Any]) -> int:
        """K where nothing is said: all of them, as the paper's 6."""
        return self.num_blocks(denoiser_config)
