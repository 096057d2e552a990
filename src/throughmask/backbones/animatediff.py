"""AnimateDiff (a U-Net; v-prediction with zero terminal SNR, SD's VAE frame by frame, CLIP text): the paper's first
architecture, Stable Diffusion 1.5 with motion modules.

The encoder's spatial transformer blocks gain masked self-attention, joint over all frames as Eq. 3 says or frame by
frame, and masked cross-attention (paper Sec. 3.3; Sec. 10: K = 6, all of them); conv_in gains input channels. All are
zero at birth, so the model starts as its base. A VAE and a text encoder of Wan's kind, as Toybox's, serve as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    DDIMScheduler,
    DiffusionPipeline,
    ModelMixin,  # noqa: F401 (diffusers looks this name up in the module of a component)
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D, UNetMotionOutput
from diffusers.utils.torch_utils import get_module_execution_device
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import CLIPTextModel

from ..errors import InvalidValueError, ThroughMaskWarning
from ..nn.attention import CrossMask
from ..nn.grid import TokenGrid
from ..nn.guidance import Condition
from ..nn.layers import RegionCrossAttention, RegionSelfAttention
from ..nn.objective import Objective, VPrediction
from ..nn.plan import SortPlan
from ..nn.regions import token_regions
from .growing import grow
from .layouts import AnimateDiffLayout
from .wan import BACKBONE as WAN
from .wan import byte_tokenizer, trained_parts, warn_if_cut

MOST_SEQUENCES = 65_535  # the largest batch of CUDA's fused attention
TILE = 64  # tokens that its kernels take at once
PARTS = (ResnetBlock2D, Transformer2DModel, AnimateDiffTransformer3D)
MOST_FORMS = 64  # of one kind of part, in channels and pixels; a small U-Net's resnets have 13
LEVELS = 3  # resolutions at which an encoder attends: SD's U-Nets have no more
PICTURES = 8  # that the VAE takes at once
# Of the added layers' heads: the base's widths 40, 80 and 160, or 8, are slow or unknown to packed attention.
HEAD = 64
# AnimateDiff's own noise schedule, as the paper changes it (Sec. 10).
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}
ZERO_SNR = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


class Level(NamedTuple):
    """Labels B N of one resolution, their plan, and the plan of each frame on its own (B·F n)."""

    label: Tensor
    plan: SortPlan
    frames: SortPlan

    @classmethod
    def of(cls, label_BN: Tensor, num_frames: int) -> Level:
        return cls(label_BN, SortPlan.of(label_BN), SortPlan.of(_by_frame(label_BN, num_frames)))


class Masked(NamedTuple):
    """What the masked blocks of one resolution get beside the base's inputs, made once for them; local B L S D, sees
    B N L. label: B N or, frame by frame, B·F n."""

    label: Tensor
    plan: SortPlan
    local: Tensor
    sees: Tensor
    key_mask: Tensor | None
    mask: CrossMask


class MaskedSpatialBlock(BasicTransformerBlock):
    """self → masked self → cross (global prompt) → masked cross (local prompts) → feed-forward (paper Fig. 3)."""

    def __init__(self, dim: int, num_heads: int, cross_attention_dim: int) -> None:
        super().__init__(dim, num_heads, dim // num_heads, cross_attention_dim=cross_attention_dim)
        heads = 1 if dim < HEAD else num_heads if dim % HEAD else dim // HEAD
        self.masked_self = RegionSelfAttention(dim, heads)
        self.masked_cross = RegionCrossAttention(dim, heads, context_dim=cross_attention_dim)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """hidden_states: M n D, every frame a picture, M = B·F. cross_attention_kwargs: `masked`, in an argument, for
        with checkpointing an ambient mask gives wrong gradients."""
        assert cross_attention_kwargs is not None
        label, plan, local_BLSD, sees_BNL, key_mask, mask = cross_attention_kwargs["masked"]
        # Transformer2DModel hands over a view whose channels are far apart, and sums keep its layout: without this copy
        # each norm, sum and reshape below would move all tokens across memory anew.
        h_MnD = hidden_states.contiguous()
        h_MnD = h_MnD + self.attn1(self.norm1(h_MnD))
        h_MnD = h_MnD + self.masked_self(h_MnD.reshape(*label.shape, -1), label, plan).reshape(h_MnD.shape)
        h_MnD = h_MnD + self.attn2(self.norm2(h_MnD), encoder_hidden_states)
        h_BND = h_MnD.reshape(*sees_BNL.shape[:2], -1)
        h_MnD = h_MnD + self.masked_cross(h_BND, local_BLSD, sees_BNL, key_mask, mask).reshape(h_MnD.shape)
        return h_MnD + self.ff(self.norm3(h_MnD))


class OverTime(AttnProcessor2_0):
    """Attention of the motion modules: every place of every clip is a sequence of its own, of a few frames.

    CUDA's fused kernels take less than 65,536 sequences, and start a block of threads for each, which has little to do.
    Beyond that number, and in training, where backward does five times as much, as many places as fill a kernel's tile
    are one sequence, with a mask between them.
    """

    def __call__(self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        sequences, frames, _ = hidden_states.shape
        if not torch.is_grad_enabled() and sequences <= MOST_SEQUENCES:
            fused: Tensor = super().__call__(attn, hidden_states, *args, **kwargs)
            return fused
        most = max(1, TILE // frames)
        places = next(number for number in range(most, 0, -1) if sequences % number == 0)
        if places == 1 or any(value is not None for value in (*args, *kwargs.values())):  # theirs is no plain attention
            written_out: Tensor = AttnProcessor()(attn, hidden_states, *args, **kwargs)
            return written_out
        shape = sequences // places, places * frames, attn.heads, -1
        layers = attn.to_q, attn.to_k, attn.to_v
        q, k, v = (layer(hidden_states).view(shape).transpose(1, 2) for layer in layers)
        place = torch.arange(places * frames, device=hidden_states.device) // frames
        joined = scaled_dot_product_attention(q, k, v, attn_mask=place[:, None] == place, scale=attn.scale)
        out: Tensor = attn.to_out[0](joined.transpose(1, 2).reshape(sequences, frames, -1))
        return attn.to_out[1](out)


def attend_over_time(denoiser: UNetMotionModel) -> None:
    """Give its motion modules `OverTime`."""
    for module in denoiser.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            for part in module.modules():
                if isinstance(part, Attention):
                    part.set_processor(OverTime())


class MaskedUNetMotionModel(UNetMotionModel):
    """UNetMotionModel whose encoder's first `num_masked_blocks` spatial transformers are masked attention blocks.

    in_channels counts the latents and the condition's channels; pretrained weights load through `from_base`. per_frame:
    masked self-attention joins the tokens of one frame only.
    """

    _no_split_modules = ["BasicTransformerBlock", "MaskedSpatialBlock"]  # noqa: RUF012 (diffusers' own convention)
    _repeated_blocks = [part.__name__ for part in PARTS]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 12,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (*("CrossAttnDownBlockMotion",) * 3, "DownBlockMotion"),
        up_block_types: tuple[str, ...] = ("UpBlockMotion", *("CrossAttnUpBlockMotion",) * 3),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int | tuple[int, ...] = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 768,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        temporal_transformer_layers_per_block: int | tuple[int, ...] = 1,
        temporal_transformer_layers_per_mid_block: int | None = 1,
        use_linear_projection: bool = False,
        num_attention_heads: int | tuple[int, ...] = 8,
        motion_max_seq_length: int = 32,
        motion_num_attention_heads: int | tuple[int, ...] = 8,
        use_motion_mid_block: bool = True,
        num_masked_blocks: int = 6,
        per_frame: bool = False,
    ) -> None:
        # Not the decorated one, which would write the parent's other arguments into our configuration.
        UNetMotionModel.__init__.__wrapped__(
            self,
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            downsample_padding=downsample_padding,
            mid_block_scale_factor=mid_block_scale_factor,
            act_fn=act_fn,
            norm_num_groups=norm_num_groups,
            norm_eps=norm_eps,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            temporal_transformer_layers_per_block=temporal_transformer_layers_per_block,
            temporal_transformer_layers_per_mid_block=temporal_transformer_layers_per_mid_block,
            use_linear_projection=use_linear_projection,
            num_attention_heads=num_attention_heads,
            motion_max_seq_length=motion_max_seq_length,
            motion_num_attention_heads=motion_num_attention_heads,
            use_motion_mid_block=use_motion_mid_block,
        )
        self.gradient_checkpointing = False
        attend_over_time(self)
        attending = [
            (level, spatial)
            for level, block in enumerate(self.down_blocks)
            for spatial in getattr(block, "attentions", ())
        ]
        if not 0 <= num_masked_blocks <= len(attending):
            problem = f"masked blocks are 0 to {len(attending)}, the spatial transformers of the encoder"
            raise InvalidValueError(problem, seen=num_masked_blocks)
        for level, spatial in attending[:num_masked_blocks]:
            assert level < LEVELS
            for index, block in enumerate(spatial.transformer_blocks):
                changed = MaskedSpatialBlock(block.dim, block.num_attention_heads, cross_attention_dim)
                spatial.transformer_blocks[index] = changed

    @classmethod
    def from_base(
        cls, base: UNetMotionModel, *, cond_channels: int, num_masked_blocks: int, per_frame: bool = False
    ) -> MaskedUNetMotionModel:
        """A stage's denoiser from a text-to-video U-Net, whose weights it takes over (see growing.py).

        Raises InvalidValueError for a U-Net that is told more than a text.
        """
        told = [key for key in ("encoder_hid_dim", "addition_embed_type", "time_cond_proj_dim") if base.config.get(key)]
        if told or base.config.in_channels != base.config.out_channels:
            raise InvalidValueError("the base must be a text-to-video model; this one is told more", seen=told or None)
        known = set(cls.__init__.__wrapped__.__annotations__)
        config = {key: value for key, value in base.config.items() if key in known}
        channels = base.config.in_channels + cond_channels
        config |= {"in_channels": channels, "num_masked_blocks": num_masked_blocks, "per_frame": per_frame}
        model: MaskedUNetMotionModel = grow(cls, config, base, "conv_in.weight")
        dtype = base.dtype  # diffusers walks through the whole model for it
        for tensor in (*model.parameters(), *model.buffers()):  # an image model and its motion modules may differ
            tensor.data = tensor.data.to(dtype)
        return model

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        levels: Sequence[Level] | None = None,
        local: Tensor | None = None,
        sees: Tensor | None = None,
        key_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNetMotionOutput | tuple[Tensor]:
        """Predict v of latents B C F Y X; C counts latents and condition. timestep: B.

        encoder_hidden_states: M S D, the global prompt for every frame (M = B·F, as the base takes it). For the masked
        blocks: `levels` of the labels, local B L S D with key_mask B L S, sees B N L of the finest tokens. Without
        levels the added self-attention joins all tokens; without local prompts the added cross-attention reads the
        global prompt (the Recipes without masks).
        """
        B, _, F, _, _ = sample.shape
        text_MSD = encoder_hidden_states
        time_BD = self.time_embedding(self.time_proj(timestep).to(sample.dtype))
        time_MD = time_BD.repeat_interleave(F, dim=0, output_size=B * F)
        h_MCYX = self.conv_in(sample.transpose(1, 2).flatten(0, 1))
        skips = [h_MCYX]
        for level, block in enumerate(self.down_blocks):
            spatial = getattr(block, "attentions", [None] * len(block.resnets))
            inputs: dict[str, Masked] | None = None
            for resnet, attention, motion in zip(block.resnets, spatial, block.motion_modules, strict=True):
                h_MCYX = self._checkpointed(resnet, h_MCYX, time_MD)
                if attention is not None:
                    masks = isinstance(attention.transformer_blocks[0], MaskedSpatialBlock)
                    if masks and inputs is None:
                        size = (F, *h_MCYX.shape[2:])
                        inputs = {"masked": self._masked_inputs(level, size, text_MSD, levels, local, sees, key_mask)}
                    told = inputs if masks else None
                    h_MCYX = attention(h_MCYX, text_MSD, cross_attention_kwargs=told, return_dict=False)[0]
                h_MCYX = self._checkpointed(motion, h_MCYX, None, None, None, F)
                skips.append(h_MCYX)
            for downsampler in block.downsamplers or ():
                h_MCYX = downsampler(h_MCYX)
                skips.append(h_MCYX)
        frames = {"num_frames": F} if hasattr(self.mid_block, "motion_modules") else {}
        h_MCYX = self.mid_block(h_MCYX, time_MD, encoder_hidden_states=text_MSD, **frames)
        for block in self.up_blocks:
            taken = tuple(skips[-len(block.resnets) :])
            del skips[-len(block.resnets) :]
            text = {"encoder_hidden_states": text_MSD} if hasattr(block, "attentions") else {}
            h_MCYX = block(hidden_states=h_MCYX, temb=time_MD, res_hidden_states_tuple=taken, num_frames=F, **text)
        h_MCYX = self.conv_out(self.conv_act(self.conv_norm_out(h_MCYX)))
        out = h_MCYX.unflatten(0, (B, F)).transpose(1, 2)
        return UNetMotionOutput(sample=out) if return_dict else (out,)

    def _checkpointed(self, module: torch.nn.Module, *inputs: Any) -> Tensor:
        checkpointing = torch.is_grad_enabled() and self.gradient_checkpointing
        out: Tensor = self._gradient_checkpointing_func(module, *inputs) if checkpointing else module(*inputs)
        return out

    def _masked_inputs(
        self,
        level: int,
        size: tuple[int, int, int],
        text_MSD: Tensor,
        levels: Sequence[Level] | None,
        local_BLSD: Tensor | None,
        sees_BNL: Tensor | None,
        key_mask_BLS: Tensor | None,
    ) -> Masked:
        """What the masked blocks of a resolution of F, Y, X tokens get, made once for them."""
        F, Y, X = size
        B, N = len(text_MSD) // F, F * Y * X
        if levels is None:
            label, plan, frames = torch.zeros(B, N, dtype=torch.long, device=text_MSD.device), None, None
        else:
            label, plan, frames = levels[level]
        if self.config.per_frame:
            label, plan = _by_frame(label, F), frames
        plan = SortPlan.of(label) if plan is None else plan.with_runs_on_cpu()
        if local_BLSD is None or sees_BNL is None:
            local, key_mask = text_MSD[::F, None], None
            sees = torch.ones(B, N, 1, dtype=torch.bool, device=text_MSD.device)
        else:
            # A coarse token's patch meets a box where one of its fine tokens' does.
            side = 2**level
            fine = sees_BNL.view(B, F, Y, side, X, side, -1)
            local, key_mask, sees = local_BLSD, key_mask_BLS, fine.any((3, 5)).flatten(1, 3)
        mask = CrossMask.of(sees, key_mask, local.shape[2], local.dtype)
        return Masked(label, plan, local, sees, key_mask, mask)


class UNetTextToVideoPipeline(DiffusionPipeline):
    """The components of a text-to-video U-Net under the names that stages give them: what training a base writes."""

    def __init__(self, tokenizer: Any, text_encoder: Any, vae: Any, scheduler: Any, transformer: Any) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, scheduler=scheduler, transformer=transformer
        )


class AnimateDiffBackbone(AnimateDiffLayout):
    """See backbones.Backbone."""

    def load(self, folders: Sequence[Path], dtypes: dict[str, torch.dtype]) -> dict[str, Any]:
        first, *beside = folders
        if beside:  # a motion adapter, and the image model that it was made for
            whole = {"use_safetensors": True}
            (image,) = beside
            adapter = MotionAdapter.from_pretrained(first, **whole)
            unet = UNet2DConditionModel.from_pretrained(image / "unet", **whole)
            from transformers import CLIPTokenizer

            found = {
                "tokenizer": CLIPTokenizer.from_pretrained(image / "tokenizer"),
                "text_encoder": CLIPTextModel.from_pretrained(image / "text_encoder", **whole),
                "vae": AutoencoderKL.from_pretrained(image / "vae", **whole),
                "scheduler": DDIMScheduler(**SCHEDULE, **ZERO_SNR),
                "transformer": UNetMotionModel.from_unet2d(unet, adapter),
            }
        elif (first / "unet").is_dir():
            pipeline = DiffusionPipeline.from_pretrained(first, use_safetensors=True, dtype=dtypes)
            found = {key: getattr(pipeline, key) for key in self.components if key != "transformer"}
            found["transformer"] = pipeline.unet
        else:
            pipeline = UNetTextToVideoPipeline.from_pretrained(first, use_safetensors=True, dtype=dtypes)
            found = {key: getattr(pipeline, key) for key in self.components}
        config = found["scheduler"].config
        if config.get("prediction_type") != "v_prediction":  # stages learn v, whatever the base did
            kept = {key: config.get(key, value) for key, value in SCHEDULE.items()}
            found["scheduler"] = DDIMScheduler(**kept, **ZERO_SNR)
        elif lacking := [f"{key} {value}" for key, value in ZERO_SNR.items() if config.get(key) != value]:
            why = "without zero terminal SNR, from the last time step on, masks drift to an object's colour"
            message = f"{first} has another noise schedule than the paper's (Sec. 10): {why}"
            message += f"; its scheduler_config.json should have {', '.join(lacking)}"
            warnings.warn(message, ThroughMaskWarning, stacklevel=2)
        return found

    def base_pipeline(self, components: dict[str, Any]) -> UNetTextToVideoPipeline:
        return UNetTextToVideoPipeline(**components)

    def build(
        self, base: Any, *, cond_latents: int, num_masked_blocks: int, per_frame: bool = False
    ) -> MaskedUNetMotionModel:
        return MaskedUNetMotionModel.from_base(
            base,
            cond_channels=cond_latents * base.config.in_channels,
            num_masked_blocks=num_masked_blocks,
            per_frame=per_frame,
        )

    def compile(self, denoiser: Any) -> None:
        """Parts of every width and size apart: one graph for all of them knows no number that a kernel is made for."""
        attend_over_time(denoiser)
        dynamo = torch._dynamo.config
        dynamo.recompile_limit = max(dynamo.recompile_limit, MOST_FORMS)
        for part in self.repeated(denoiser):
            part.compile(fullgraph=True, dynamic=False)

    def repeated(self, denoiser: Any) -> list[torch.nn.Module]:
        return [module for module in denoiser.modules() if isinstance(module, PARTS)]

    def num_added(self, denoiser: Any) -> int:
        layers = sum(value.numel() for name, value in denoiser.named_parameters() if ".masked_" in name)
        return layers + int(denoiser.conv_in.weight[:, denoiser.config.out_channels :].numel())

    def tiny(self, seed: int = 0) -> dict[str, Any]:
        from transformers import CLIPTextConfig

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tokenizer, width = byte_tokenizer(), 32
            text = CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=37,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=tokenizer.model_max_length,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=1,
            )
            levels = 4
            return {
                "tokenizer": tokenizer,
                "text_encoder": CLIPTextModel(text).eval(),
                "vae": AutoencoderKL(
                    block_out_channels=(4,) * levels,
                    down_block_types=("DownEncoderBlock2D",) * levels,
                    up_block_types=("UpDecoderBlock2D",) * levels,
                    norm_num_groups=2,
                ).eval(),
                "scheduler": DDIMScheduler(**SCHEDULE, **ZERO_SNR),
                "transformer": new_unet((8, 16), 4, layers=2, heads=2, groups=2, text_dim=width).eval(),
            }

    def untrained(self, vae: Path, words: Path, *, width: int, layers: int, heads: int, ffn: int) -> dict[str, Any]:
        """A `small_unet`. Raises as it does, and for an ffn but 0."""
        if ffn:
            problem = "a U-Net's feed-forwards are four times as wide as their level"
            raise InvalidValueError(problem, seen=f"ffn {ffn}", fix="leave --ffn out")
        parts = trained_parts(vae, words)
        channels, text_dim = parts["vae"].config.z_dim, parts["text_encoder"].config.d_model
        denoiser = small_unet(width, channels, layers=layers, heads=heads, text_dim=text_dim)
        return {**parts, "scheduler": DDIMScheduler(**SCHEDULE, **ZERO_SNR), "transformer": denoiser}

    def latent_shape(self, vae: Any, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        if isinstance(vae, AutoencoderKLWan):
            return WAN.latent_shape(vae, num_frames, height, width)
        _, side = self.vae_strides(vae.config)
        return vae.config.latent_channels, num_frames, height // side, width // side

    def encode(self, vae: Any, pixels: Tensor) -> Tensor:
        if isinstance(vae, AutoencoderKLWan):
            return WAN.encode(vae, pixels)
        x_MCHW = pixels.flatten(0, 1).permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1
        parts = [vae.encode(part).latent_dist.mode().float() for part in x_MCHW.split(PICTURES)]
        latents = torch.cat(parts).unflatten(0, pixels.shape[:2]).transpose(1, 2)
        return latents * vae.config.scaling_factor  # SD's own normalisation

    def decode(self, vae: Any, latents: Tensor) -> Tensor:
        if isinstance(vae, AutoencoderKLWan):
            return WAN.decode(vae, latents)
        z_MCYX = (latents.float() / vae.config.scaling_factor).to(vae.dtype).transpose(1, 2).flatten(0, 1)
        x_MCHW = torch.cat([vae.decode(part, return_dict=False)[0] for part in z_MCYX.split(PICTURES)])
        pixels = ((x_MCHW.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels.unflatten(0, (len(latents), -1)).permute(0, 1, 3, 4, 2)

    def encode_text(self, tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not isinstance(text_encoder, CLIPTextModel):
            return WAN.encode_text(tokenizer, text_encoder, prompts)
        states, mask = _clip_states(tokenizer, text_encoder, prompts)
        longest = int(mask.sum(1).max())
        return states[:, :longest], mask[:, :longest]

    def encode_global(self, tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not isinstance(text_encoder, CLIPTextModel):
            return WAN.encode_global(tokenizer, text_encoder, prompts)
        # The base's cross-attention reads the states of padding too, and these follow from the prompt.
        states, mask = _clip_states(tokenizer, text_encoder, prompts)
        return states, torch.ones_like(mask)

    def global_text(self, tokenizer: Any, states: Tensor, mask: Tensor) -> Tensor:
        return WAN.global_text(tokenizer, states, mask)  # pads UMT5's; CLIP's come whole

    def objective(self, scheduler: Any) -> Objective:
        config = scheduler.config
        if config.prediction_type != "v_prediction":
            raise InvalidValueError("a U-Net's stages predict v", seen=config.prediction_type)
        return VPrediction(
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            num_steps=config.num_train_timesteps,
            zero_terminal_snr=config.rescale_betas_zero_snr,
            schedule=config.beta_schedule,
        )

    def plan(self, label: Tensor, size: tuple[int, int, int]) -> tuple[Level, ...]:
        """The labels of every resolution, pooled from the finest by the rule that made them, and their plans. Both
        kinds of plan: a denoiser that made its own would wait for the device in every step."""
        F, Y, X = size
        fine = label.unflatten(1, (F, Y, X))
        levels = [Level.of(label, F)]
        for side in (2**level for level in range(1, LEVELS)):
            if Y % side or X % side:
                break
            grid = TokenGrid.one_to_one(F, (side, side))
            coarse, _ = token_regions(fine.clamp(min=0), grid, int(label.max().clamp(min=0)))
            nobody = (fine < 0).unflatten(3, (-1, side)).unflatten(2, (-1, side)).all(5).all(3).flatten(1)
            coarse = torch.where(nobody, -1, coarse)
            levels.append(Level.of(coarse, F))
        return tuple(levels)

    def denoise(self, denoiser: Any, latents: Tensor, time: Tensor, condition: Condition, plan: Any) -> Tensor:
        dtype, (_, _, F, Y, X) = denoiser.dtype, latents.shape
        if plan is None and condition.label is not None:
            plan = self.plan(condition.label, (F, Y, X))
        masked = {
            "levels": plan,
            "local": None if condition.local is None else condition.local.to(dtype),
            "sees": condition.sees,
            "key_mask": condition.key_mask,
        }
        prediction: Tensor = denoiser(
            torch.cat([latents.to(dtype), condition.visual.to(dtype)], dim=1),
            time,
            condition.text.to(dtype).repeat_interleave(F, dim=0),
            **{name: part for name, part in masked.items() if part is not None},  # a base knows none of them
            return_dict=False,
        )[0]
        return prediction


def _by_frame(label_BN: Tensor, num_frames: int) -> Tensor:
    """Every frame a sample of its own: B·F n."""
    return label_BN.unflatten(1, (num_frames, -1)).flatten(0, 1)


def new_unet(
    channels: tuple[int, ...], latents: int, *, layers: int, heads: int, groups: int, text_dim: int
) -> UNetMotionModel:
    """A new U-Net that attends at every resolution. heads: at the coarsest, and as wide at all of them: narrower ones
    cost as much each."""
    every = tuple(max(1, heads * width // channels[-1]) for width in channels)
    unet = UNetMotionModel(
        in_channels=latents,
        out_channels=latents,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlockMotion",) * len(channels),
        up_block_types=("CrossAttnUpBlockMotion",) * len(channels),
        layers_per_block=layers,
        cross_attention_dim=text_dim,
        num_attention_heads=every,
        motion_num_attention_heads=every,
        norm_num_groups=groups,
        use_motion_mid_block=False,  # as in version 3
    )
    attend_over_time(unet)
    return unet


def small_unet(width: int, latents: int, *, layers: int, heads: int, text_dim: int) -> UNetMotionModel:
    """A new one of three resolutions, width, 1.5·width and 2·width wide, `layers` blocks each. Raises InvalidValueError
    for a width that groups and heads do not divide.

    Latents have 16 channels and stages three times as many: a finest level as narrow as in Stable Diffusion, a quarter
    of the coarsest, would not hold them in a network this small.
    """
    widths, groups = (width, 3 * width // 2, 2 * width), max(1, min(32, width // 4))
    if width < 4 or width % 2 or any(size % groups for size in widths) or widths[-1] % heads:
        raise InvalidValueError(f"a U-Net's width divides by {heads} heads and its groups", seen=width)
    return new_unet(widths, latents, layers=layers, heads=heads, groups=groups, text_dim=text_dim)


def _clip_states(tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Prompts padded to the length that CLIP knows, encoded: B S D, and B S, False on padding."""
    longest = tokenizer.model_max_length
    inputs = tokenizer(list(prompts), padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
    mask = inputs.attention_mask.bool()
    for prompt, full in zip(prompts, mask.all(1).tolist(), strict=True):
        if full:
            warn_if_cut(tokenizer, prompt)
    states = text_encoder(inputs.input_ids.to(get_module_execution_device(text_encoder))).last_hidden_state
    return states, mask.to(states.device)


BACKBONE = AnimateDiffBackbone()
