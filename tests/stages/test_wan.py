"""Wan alone: its own pipeline's latents, its VAE's statistics, its text, its true sizes."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tiny_stages import FRAMES, SIZE, last_latents

from throughmask.backbones import backbone
from throughmask.backbones.wan import MAX_TEXT, MaskedWanTransformer3DModel, byte_tokenizer
from throughmask.errors import InvalidValueError, ThroughMaskWarning
from throughmask.stages.init import make_stage
from throughmask.stages.sampling import seeded_noise

WAN = backbone("wan")


def encode_prompt(tokenizer, encoder, prompts):
    return WAN.global_text(tokenizer, *WAN.encode_text(tokenizer, encoder, prompts))


@pytest.fixture(scope="module")
def tiny():
    return WAN.tiny()


SCHEDULERS = {
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "unipc": lambda: UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("stage", ["motion", "video"])
def test_without_image_guidance_our_sampling_is_wans(tiny, sample, scheduler, stage):
    parts = {**tiny, "scheduler": SCHEDULERS[scheduler]()}
    wan = WanPipeline(**parts)
    wan.set_progress_bar_config(disable=True)
    noise = seeded_noise(WAN.latent_shape(tiny["vae"], FRAMES, *SIZE), [torch.Generator().manual_seed(7)])
    prompt = sample.scene.motion_prompt if stage == "motion" else sample.scene.prompt
    expected = wan(
        prompt, "", *SIZE, FRAMES, num_inference_steps=6, guidance_scale=4.0, latents=noise, output_type="latent"
    ).frames
    ours = make_stage("tiny-wan", stage)
    ours.register_modules(scheduler=SCHEDULERS[scheduler]())
    ours.set_progress_bar_config(disable=True)
    got = last_latents(ours, sample, seed=7, steps=6, guidance=(1, 4.0))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    assert (got - noise).abs().max() > 0.5
    assert (got - last_latents(ours, sample, seed=7, steps=6, guidance=(1, 3.0))).abs().max() > 1e-3


def test_the_linear_quadratic_schedule_runs_on_wans_own_scheduler(sample):
    ours = make_stage("tiny-wan", "video", schedule="linear-quadratic")
    ours.register_modules(scheduler=SCHEDULERS["unipc"]())
    ours.set_progress_bar_config(disable=True)
    assert last_latents(ours, sample, steps=4).isfinite().all()
    assert ours.scheduler.sigmas[:4].tolist() == pytest.approx([1, 0.996, 0.992, 0.742], abs=1e-5)


@torch.no_grad()
def test_latents_are_normalised_by_the_vaes_statistics(tiny, sample):
    vae, pixels = tiny["vae"], torch.tensor(sample.video.frames)[None]
    latents = WAN.encode(vae, pixels)
    assert latents.shape == (1, *WAN.latent_shape(vae, FRAMES, *SIZE)) == (1, 16, 2, 6, 8)
    raw = vae.encode(pixels.permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist.mode()
    for channel, (mean, std) in enumerate(zip(vae.config.latents_mean, vae.config.latents_std, strict=True)):
        torch.testing.assert_close(latents[:, channel] * std + mean, raw[:, channel])
    decoded = WAN.decode(vae, latents)
    assert decoded.shape == pixels.shape
    assert decoded.dtype == torch.uint8
    expected = ((vae.decode(raw).sample + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 4, 1)
    assert (decoded - expected).abs().max() <= 0.51
    still = WAN.encode(vae, pixels[:, :1])
    torch.testing.assert_close(still, latents[:, :, :1])  # causal: the first latent frame knows the first frame only


def test_bytes_round_trip_through_the_tokenizer():
    tokenizer = byte_tokenizer()
    for text in ("a red ball", "naïve café", "Größe 漢字 🎈", "tabs\tand\nlines", ""):
        ids = tokenizer(text).input_ids
        assert len(ids) == len(text.encode()) + 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


@torch.no_grad()
def test_global_prompts_are_padded_with_zeros_and_local_ones_cut_to_the_longest(tiny):
    tokenizer, encoder = tiny["tokenizer"], tiny["text_encoder"]
    texts = encode_prompt(tokenizer, encoder, ["a red ball", "a ball"])
    assert texts.shape == (2, MAX_TEXT, 32)
    assert texts[0, :11].abs().amax(-1).all()
    assert not texts[0, 11:].any()
    assert not texts[1, 7:].any()
    local, mask = WAN.encode_text(tokenizer, encoder, ["a red ball", "a ball"])
    assert local.shape == (2, 11, 32)
    assert mask.sum(1).tolist() == [11, 7]
    # Padding beside a longer prompt changes nothing.
    torch.testing.assert_close(local[1, :7], WAN.encode_text(tokenizer, encoder, ["a ball"])[0][0])
    torch.testing.assert_close(texts[1, :7], local[1, :7])


@torch.no_grad()
def test_a_prompt_that_is_too_long_is_cut_with_a_warning_that_shows_where(tiny):
    tokenizer, encoder = tiny["tokenizer"], tiny["text_encoder"]
    fits, beyond = "b" * (MAX_TEXT - 10) + " fits here", " and that is lost"
    with pytest.warns(
        ThroughMaskWarning, match=r"prompt of 530 tokens was cut to 512; it now ends: .*b fits her'"
    ) as w:
        cut = encode_prompt(tokenizer, encoder, ["short", fits + beyond])
    assert len(w) == 1
    with pytest.warns(ThroughMaskWarning):
        again = encode_prompt(tokenizer, encoder, [fits[:-1] + "!" + beyond])
    assert torch.equal(cut[1], again[0])
    encode_prompt(tokenizer, encoder, [fits[:-1]])  # 512 tokens with the end mark: no warning


@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_the_form_that_is_compiled_computes_the_same(fused, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part, **how: None)  # the form alone
    denoiser = WAN.tiny()["transformer"].eval()
    if fused:
        denoiser.fuse_qkv_projections()
    config = denoiser.config
    inputs = torch.randn(2, config.in_channels, 3, 4, 6), torch.tensor([3.0, 700.0]), torch.randn(2, 5, config.text_dim)
    expected = denoiser(*inputs).sample
    before = denoiser.blocks[0].attn1.processor
    WAN.compile(denoiser)
    assert type(denoiser.blocks[0].attn1.processor) is not type(before)
    torch.testing.assert_close(denoiser(*inputs).sample, expected, atol=1e-5, rtol=1e-5)
    denoiser.rope.freqs_cos.mul_(-1)
    assert (denoiser(*inputs).sample - expected).abs().max() > 1e-4  # positions count


def test_an_image_conditioned_base_is_refused():
    base = WanTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=12,
        text_dim=8,
        ffn_dim=8,
        num_layers=1,
        image_dim=4,
        added_kv_proj_dim=12,
    )
    with pytest.raises(InvalidValueError, match="must be a text-to-video model"):
        WAN.build(base, cond_latents=2, num_masked_blocks=0)


def test_the_layout_of_wans_latents():
    vae, denoiser = {"scale_factor_temporal": 4, "scale_factor_spatial": 8}, {"patch_size": (1, 2, 2)}
    strides = WAN.strides(vae, denoiser)
    assert strides == (4, 16)
    assert WAN.grid(81, strides).tokens(480, 832) == (21, 30, 52)
    assert WAN.strides(vae | {"scale_factor_spatial": 16}, denoiser) == (4, 32)  # Wan 2.2 5B


TRUE_SIZES = {  # layers, heads, ffn, latent channels, and parameters: base, and with the paper's 10 masked blocks
    "1.3B": ((30, 12, 8960, 16), 1_418_996_800),
    "5B": ((30, 24, 14336, 48), None),
    "14B": ((40, 40, 13824, 16), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUE_SIZES)
def test_true_sizes_without_their_memory(name):
    (layers, heads, ffn, channels), expected = TRUE_SIZES[name]
    with torch.device("meta"):
        base = WanTransformer3DModel(
            num_attention_heads=heads, ffn_dim=ffn, num_layers=layers, in_channels=channels, out_channels=channels
        )
    stage = WAN.build(base, cond_latents=2, num_masked_blocks=10)
    assert stage.device.type == "meta"
    assert isinstance(stage, MaskedWanTransformer3DModel)
    print(name, base.num_parameters(), stage.num_parameters())
    assert expected is None or base.num_parameters() == expected
    dim = heads * 128
    # Per masked block, twice: a norm, q, k and v with biases, two norms of q and k, an output without bias.
    masked = 2 * (2 * dim + 3 * (dim * dim + dim) + 2 * dim + dim * dim)
    channels_in = 2 * channels * 4 * dim
    assert stage.num_parameters() - base.num_parameters() == 10 * masked + channels_in
    motion = WAN.build(base, cond_latents=2, num_masked_blocks=0)
    assert motion.num_parameters() - base.num_parameters() == channels_in
