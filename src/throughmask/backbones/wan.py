"""Wan (a DiT; flow matching, causal video VAE, UMT5 text): the paper's second architecture on open weights.

The first K blocks gain masked self-attention and masked cross-attention as added layers (paper Sec. 3.3, Fig. 3), and
the patch embedding gains input channels (Sec. 3.2); both are zero at birth, so the model starts as its base.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    ModelMixin,  # noqa: F401 (diffusers looks this name up in the module of a component)
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor, WanTransformerBlock
from diffusers.utils.torch_utils import get_module_execution_device
from torch import Tensor

from ..errors import InvalidValueError, SampleError, ThroughMaskWarning
from ..nn.guidance import Condition
from ..nn.layers import RegionCrossAttention, RegionSelfAttention, Rotary, add, sort_rotary
from ..nn.objective import FlowMatching, Objective
from ..nn.plan import SortPlan
from . import wan_vae
from .growing import grow
from .layouts import WanLayout

# Wan pads every global prompt to 512 tokens with zeros, and attends to the padding; a tokenizer may say fewer.
MAX_TEXT = 512


class QuickRotary(WanAttnProcessor):
    """WanAttnProcessor with another rotary embedding: the same numbers, in a form for the compiler. Training uses it.

    diffusers writes the halves of each pair into slices of a new tensor: compiled, and fused with the norm before, that
    pass took thirty times what its memory traffic takes on an H200, a quarter of a training step. Here each number is
    turned with its neighbour's help, in one expression for both of a pair.
    """

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Rotary | None = None,
    ) -> Tensor:
        if rotary_emb is None or encoder_hidden_states is not None:
            rest = (encoder_hidden_states, attention_mask, rotary_emb)
            attended: Tensor = super().__call__(attn, hidden_states, *rest)
            return attended
        if attn.fused_projections:
            q, k, v = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        rotary = rotary_emb[0][..., 0::2], rotary_emb[1][..., 1::2]
        q_BNAE, k_BNAE, v_BNAE = (x.unflatten(2, (attn.heads, -1)) for x in (attn.norm_q(q), attn.norm_k(k), v))
        out_BNAE = dispatch_attention_fn(
            self._turned(q_BNAE, *rotary),
            self._turned(k_BNAE, *rotary),
            v_BNAE,
            attn_mask=attention_mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        out_BND: Tensor = attn.to_out[1](attn.to_out[0](out_BNAE.flatten(2).type_as(q)))
        return out_BND

    @staticmethod
    def _turned(x_BNAE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        pairs = x_BNAE.unflatten(-1, (-1, 2))
        turned = torch.addcmul(pairs * cos[..., None], pairs.flip(-1), torch.stack([-sin, sin], -1))
        return turned.flatten(-2).type_as(x_BNAE)


class MaskedWanBlock(WanTransformerBlock):
    """self → masked self → cross (global prompt) → masked cross (local prompts) → feed-forward (paper Fig. 3)."""

    def __init__(self, dim: int, ffn_dim: int, num_heads: int, qk_norm: str, cross_attn_norm: bool, eps: float) -> None:
        super().__init__(dim, ffn_dim, num_heads, qk_norm, cross_attn_norm, eps, None)
        self.masked_self = RegionSelfAttention(dim, num_heads, eps=eps)
        self.masked_cross = RegionCrossAttention(dim, num_heads, eps=eps)

    def forward(
        self,
        h_BND: Tensor,
        text_BSD: Tensor,
        time_B6D: Tensor,
        rotary: tuple[Tensor, Tensor],
        label_BN: Tensor,
        plan: SortPlan,
        rotary_sorted: Rotary,
        local_BLSD: Tensor,
        sees_BNL: Tensor,
        key_mask_BLS: Tensor,
    ) -> Tensor:
        shift1, scale1, gate1, shift3, scale3, gate3 = (self.scale_shift_table + time_B6D.float()).chunk(6, dim=1)
        x = (self.norm1(h_BND.float()) * (1 + scale1) + shift1).type_as(h_BND)
        h_BND = (h_BND.float() + self.attn1(x, None, None, rotary) * gate1).type_as(h_BND)
        h_BND = h_BND + self.masked_self(h_BND, label_BN, plan, rotary_sorted)
        x = self.norm2(h_BND.float()).type_as(h_BND)
        h_BND = h_BND + self.attn2(x, text_BSD, None, None)
        h_BND = add(h_BND, self.masked_cross(h_BND, local_BLSD, sees_BNL, key_mask_BLS))  # one tensor, not its summands
        x = (self.norm3(h_BND.float()) * (1 + scale3) + shift3).type_as(h_BND)
        return (h_BND.float() + self.ffn(x).float() * gate3).type_as(h_BND)


class MaskedWanTransformer3DModel(WanTransformer3DModel):
    """WanTransformer3DModel whose first `num_masked_blocks` blocks are masked attention blocks.

    in_channels counts the latents and the condition's channels; pretrained Wan weights load through `from_base`.
    """

    _no_split_modules = ["WanTransformerBlock", "MaskedWanBlock"]  # noqa: RUF012 (diffusers' own convention)
    _repeated_blocks = ["WanTransformerBlock", "MaskedWanBlock"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 48,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str = "rms_norm_across_heads",
        eps: float = 1e-6,
        rope_max_seq_len: int = 1024,
        num_masked_blocks: int = 10,
    ) -> None:
        # Not the decorated one, which would write the parent's other arguments into our configuration.
        WanTransformer3DModel.__init__.__wrapped__(
            self,
            patch_size=patch_size,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            rope_max_seq_len=rope_max_seq_len,
        )
        if not 0 <= num_masked_blocks <= num_layers:
            raise InvalidValueError(f"masked blocks are 0 to {num_layers}, the model's blocks", seen=num_masked_blocks)
        dim = num_attention_heads * attention_head_dim
        for index in range(num_masked_blocks):
            self.blocks[index] = MaskedWanBlock(dim, ffn_dim, num_attention_heads, qk_norm, cross_attn_norm, eps)

    @classmethod
    def from_base(
        cls, base: WanTransformer3DModel, *, cond_channels: int, num_masked_blocks: int
    ) -> MaskedWanTransformer3DModel:
        """A stage's denoiser from Wan's, whose weights it takes over (see growing.py)."""
        if base.config.image_dim is not None or base.config.added_kv_proj_dim is not None:
            raise InvalidValueError("the base must be a text-to-video model; this one takes image embeddings")
        known = set(cls.__init__.__wrapped__.__annotations__)
        config = {key: value for key, value in base.config.items() if key in known}
        channels = base.config.in_channels + cond_channels
        config |= {"in_channels": channels, "num_masked_blocks": num_masked_blocks}
        model: MaskedWanTransformer3DModel = grow(cls, config, base, "patch_embedding.weight")
        return model

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        label: Tensor | None = None,
        plan: SortPlan | None = None,
        local: Tensor | None = None,
        sees: Tensor | None = None,
        key_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict the velocity of latents B C F Y X; C counts latents and condition. timestep: B, 0..1000.

        encoder_hidden_states: B S D, the global prompt. For the masked blocks: label B N and its plan, local B L S D
        with
        key_mask B L S, sees B N L (see nn.regions). Without a label the added self-attention joins all tokens; without
        local prompts the added cross-attention reads the global prompt (the Recipes without masks).
        """
        B, _, F, Y, X = hidden_states.shape
        pt, py, px = self.config.patch_size
        rotary = self.rope(hidden_states)
        h_BND = self.patch_embedding(hidden_states).flatten(2).transpose(1, 2).contiguous()
        temb_BD, time, text_BSD, _ = self.condition_embedder(timestep, encoder_hidden_states)
        time_B6D = time.unflatten(1, (6, -1))
        masked: tuple[Any, ...] = ()
        if self.config.num_masked_blocks:
            masked = self._masked_inputs(h_BND, text_BSD, rotary, label, plan, local, sees, key_mask)
        checkpointing = torch.is_grad_enabled() and self.gradient_checkpointing
        for block in self.blocks:
            inputs = (h_BND, text_BSD, time_B6D, rotary, *(masked if isinstance(block, MaskedWanBlock) else ()))
            h_BND = self._gradient_checkpointing_func(block, *inputs) if checkpointing else block(*inputs)
        shift, scale = (self.scale_shift_table.to(temb_BD.device) + temb_BD.unsqueeze(1)).chunk(2, dim=1)
        shift, scale = shift.to(h_BND.device), scale.to(h_BND.device)
        h_BND = self.proj_out((self.norm_out(h_BND.float()) * (1 + scale) + shift).type_as(h_BND))
        # B (F Y X) (pt py px C) -> B C (F pt) (Y py) (X px)
        out = h_BND.reshape(B, F // pt, Y // py, X // px, pt, py, px, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        out = out.flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return Transformer2DModelOutput(sample=out) if return_dict else (out,)

    def _masked_inputs(
        self,
        h_BND: Tensor,
        text_BSD: Tensor,
        rotary: tuple[Tensor, Tensor],
        label_BN: Tensor | None,
        plan: SortPlan | None,
        local_BLSD: Tensor | None,
        sees_BNL: Tensor | None,
        key_mask_BLS: Tensor | None,
    ) -> tuple[Any, ...]:
        """What every masked block gets beside the base's inputs, made once."""
        B, N, _ = h_BND.shape
        if label_BN is None:
            label_BN, plan = torch.zeros(B, N, dtype=torch.long, device=h_BND.device), None
        plan = SortPlan.of(label_BN) if plan is None else plan.with_runs_on_cpu()
        cos, sin = rotary
        rotary_sorted = sort_rotary((cos[0, :, 0, 0::2], sin[0, :, 0, 1::2]), plan)
        if local_BLSD is None:
            local_BLSD, sees_BNL, key_mask_BLS = text_BSD[:, None], h_BND.new_ones(B, N, 1, dtype=torch.bool), None
        else:
            local_BLSD = self.condition_embedder.text_embedder(local_BLSD)
        return label_BN, plan, rotary_sorted, local_BLSD, sees_BNL, key_mask_BLS


class WanBackbone(WanLayout):
    """See backbones.Backbone."""

    def load(self, folders: Sequence[Path], dtypes: dict[str, torch.dtype]) -> dict[str, Any]:
        (folder,) = folders
        pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, dtype=dtypes)
        if getattr(pipeline, "transformer_2", None) is not None:
            fix = "use a base with one denoiser, such as Wan 2.1 or Wan2.2-TI2V-5B"
            problem = "the base has two denoisers, one for high and one for low noise"
            raise SampleError(problem, seen=str(folder), fix=fix)
        return {key: getattr(pipeline, key) for key in self.components}

    def base_pipeline(self, components: dict[str, Any]) -> WanPipeline:
        return WanPipeline(**components)

    def build(
        self, base: Any, *, cond_latents: int, num_masked_blocks: int, per_frame: bool = False
    ) -> MaskedWanTransformer3DModel:
        if per_frame:
            problem = "Wan's latent frames cover several frames; its masked self-attention joins all of them"
            raise InvalidValueError(problem, fix="leave --per-frame out")
        cond_channels = cond_latents * base.config.in_channels
        return MaskedWanTransformer3DModel.from_base(
            base, cond_channels=cond_channels, num_masked_blocks=num_masked_blocks
        )

    def compile(self, denoiser: Any) -> None:
        denoiser.set_attn_processor(QuickRotary())
        denoiser.compile_repeated_blocks(fullgraph=True)

    def repeated(self, denoiser: Any) -> list[torch.nn.Module]:
        return list(denoiser.blocks)

    def num_added(self, denoiser: Any) -> int:
        layers = sum(value.numel() for name, value in denoiser.named_parameters() if ".masked_" in name)
        return layers + int(denoiser.patch_embedding.weight[:, denoiser.config.out_channels :].numel())

    def tiny(self, seed: int = 0) -> dict[str, Any]:
        from transformers import UMT5Config, UMT5EncoderModel

        generator_state = torch.get_rng_state()
        torch.manual_seed(seed)
        try:
            tokenizer = byte_tokenizer()
            width = 32
            text = UMT5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
            stages = {"dim_mult": [1, 1, 1, 1], "temperal_downsample": [False, True, True]}
            return {
                "tokenizer": tokenizer,
                "text_encoder": UMT5EncoderModel(text).eval(),
                "vae": AutoencoderKLWan(base_dim=3, z_dim=16, num_res_blocks=1, **stages).eval(),
                "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
                "transformer": WanTransformer3DModel(
                    num_attention_heads=2,
                    attention_head_dim=12,
                    text_dim=width,
                    ffn_dim=32,
                    num_layers=3,
                    rope_max_seq_len=64,
                ).eval(),
            }
        finally:
            torch.set_rng_state(generator_state)

    def untrained(self, vae: Path, words: Path, *, width: int, layers: int, heads: int, ffn: int) -> dict[str, Any]:
        parts = trained_parts(vae, words)
        channels = parts["vae"].config.z_dim
        denoiser = WanTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            in_channels=channels,
            out_channels=channels,
            text_dim=parts["text_encoder"].config.d_model,
            ffn_dim=ffn or 4 * width,
            num_layers=layers,
        )
        return {**parts, "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0), "transformer": denoiser}

    def latent_shape(self, vae: Any, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        time, space = vae.config.scale_factor_temporal, vae.config.scale_factor_spatial
        return vae.config.z_dim, 1 + (num_frames - 1) // time, height // space, width // space

    def encode(self, vae: Any, pixels: Tensor) -> Tensor:
        x_BCTHW = pixels.permute(0, 4, 1, 2, 3).to(vae.dtype) / 127.5 - 1
        posterior = wan_vae.encode(vae, x_BCTHW) if wan_vae.fits(vae, x_BCTHW) else vae.encode(x_BCTHW).latent_dist
        latents = posterior.mode().float()
        mean, std = _statistics(vae, latents)
        return (latents - mean) / std

    def decode(self, vae: Any, latents: Tensor) -> Tensor:
        mean, std = _statistics(vae, latents)
        x_BCTHW = vae.decode((latents.float() * std + mean).to(vae.dtype), return_dict=False)[0]
        return ((x_BCTHW.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1)

    def encode_text(self, tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return _encode_text(tokenizer, text_encoder, prompts)

    def encode_global(self, tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return _encode_text(tokenizer, text_encoder, prompts)

    def global_text(self, tokenizer: Any, states: Tensor, mask: Tensor) -> Tensor:
        padded = states.new_zeros(len(states), _max_text(tokenizer), states.shape[2])
        padded[:, : states.shape[1]] = states * mask[..., None]
        return padded

    def objective(self, scheduler: Any) -> Objective:
        return FlowMatching(shift=float(scheduler.config.get("shift") or scheduler.config.get("flow_shift") or 1.0))

    def plan(self, label: Tensor, size: tuple[int, int, int]) -> SortPlan:
        return SortPlan.of(label)

    def denoise(
        self, denoiser: Any, latents: Tensor, time: Tensor, condition: Condition, plan: SortPlan | None
    ) -> Tensor:
        dtype = denoiser.dtype
        hidden = torch.cat([latents.to(dtype), condition.visual.to(dtype)], dim=1)
        masked = {
            "label": condition.label,
            "plan": plan,
            "local": None if condition.local is None else condition.local.to(dtype),
            "sees": condition.sees,
            "key_mask": condition.key_mask,
        }
        prediction: Tensor = denoiser(
            hidden_states=hidden,
            timestep=time,
            encoder_hidden_states=condition.text.to(dtype),
            **{name: part for name, part in masked.items() if part is not None},  # a base knows none of them
            return_dict=False,
        )[0]
        return prediction


def trained_parts(vae: Path, words: Path) -> dict[str, Any]:
    """Tokenizer, text encoder and VAE from the folders that a new base is made around."""
    from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

    return {
        "tokenizer": PreTrainedTokenizerFast.from_pretrained(words / "tokenizer"),
        "text_encoder": UMT5EncoderModel.from_pretrained(words / "text_encoder", use_safetensors=True).eval(),
        "vae": AutoencoderKLWan.from_pretrained(vae, use_safetensors=True).eval(),
    }


def byte_tokenizer() -> Any:
    """A tokenizer of bytes, which needs no vocabulary file: 256 bytes, padding, end and unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=MAX_TEXT
    )


def _encode_text(tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Encoded prompts, as long as the longest: B S D, and B S, False on padding. A prompt that is too long is cut."""
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    cleaned = [prompt_clean(prompt) for prompt in prompts]
    longest = _max_text(tokenizer)
    inputs = tokenizer(cleaned, padding="longest", truncation=True, max_length=longest, return_tensors="pt")
    if inputs.input_ids.shape[1] == longest:
        for prompt in cleaned:
            warn_if_cut(tokenizer, prompt)
    device = get_module_execution_device(text_encoder)
    mask = inputs.attention_mask.to(device)
    states = text_encoder(inputs.input_ids.to(device), mask).last_hidden_state
    return states, mask.bool().to(states.device)  # with offloading the encoder rests on another device than it runs on


def _max_text(tokenizer: Any) -> int:
    return min(MAX_TEXT, tokenizer.model_max_length)


def warn_if_cut(tokenizer: Any, prompt: str) -> None:
    """Say where a prompt ends that the text encoder does not take whole."""
    whole, longest = tokenizer(prompt, truncation=False, verbose=False).input_ids, _max_text(tokenizer)
    if len(whole) > longest:
        kept = tokenizer.decode(whole[: longest - 1], skip_special_tokens=True)
        message = f"A prompt of {len(whole)} tokens was cut to {longest}; it now ends: ...{kept[-60:]!r}"
        warnings.warn(message, ThroughMaskWarning, stacklevel=4)


def _statistics(vae: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """The VAE's own mean and standard deviation of its latents, as 1 C 1 1 1 (design: latents are normalised)."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=latents.device).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std


BACKBONE = WanBackbone()
