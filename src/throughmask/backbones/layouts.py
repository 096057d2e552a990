"""What the sizes of a base model follow from. Without torch, so that a request is checked before anything loads."""

from __future__ import annotations

from typing import Any

from ..nn.grid import TokenGrid


class WanLayout:
    """Wan: a causal video VAE (1 + 4 + 4 ... frames) and a DiT over patches of its latents."""

    name = "wan"
    components: tuple[str, ...] = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    denoiser_class = "MaskedWanTransformer3DModel"
    base_pipelines: tuple[str, ...] = ("WanPipeline",)
    clip: tuple[int, str] = (81, "16")

    def strides(self, vae_config: dict[str, Any], denoiser_config: dict[str, Any]) -> tuple[int, int]:
        """Frames that a later latent frame covers, and pixels along a token's side."""
        patch = denoiser_config["patch_size"]
        return int(vae_config["scale_factor_temporal"]), int(vae_config["scale_factor_spatial"]) * int(patch[1])

    def grid(self, num_frames: int, strides: tuple[int, int]) -> TokenGrid:
        """Raises InvalidValueError for a number of frames that the VAE cannot take."""
        return TokenGrid.causal(num_frames, (strides[1], strides[1]), strides[0])
