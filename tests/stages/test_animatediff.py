"""The U-Net alone: its own pipeline's latents, its VAE, text and levels, its halves on the hub, its true sizes."""

from dataclasses import replace

import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    AutoencoderKLWan,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from tiny_stages import (
    FRAMES,
    SIZE,
    condition_of,
    first_masked,
    last_latents,
    motion_for,
    noise_like,
    predict,
    with_random_layers,
)

from throughmask.backbones import LAYOUTS, animatediff, backbone
from throughmask.backbones.animatediff import MaskedSpatialBlock, MaskedUNetMotionModel, OverTime
from throughmask.errors import InvalidValueError, ThroughMaskWarning
from throughmask.nn.plan import SortPlan
from throughmask.nn.regions import TokenGrid, token_regions
from throughmask.stages import bases
from throughmask.stages.conditioning import regions
from throughmask.stages.init import load_base, make_stage, save_stage
from throughmask.stages.motion_to_video import MotionToVideoPipeline
from throughmask.stages.sampling import seeded_noise

UNET = backbone("animatediff")


@pytest.fixture(scope="module")
def tiny():
    return UNET.tiny()


@pytest.fixture(scope="module")
def joint():
    pipeline = make_stage("tiny-animatediff", "video", frames=FRAMES)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


SCHEDULERS = {
    "ours": lambda: UNET.tiny()["scheduler"],
    "animatediff's": lambda: DDIMScheduler(
        beta_schedule="linear", clip_sample=False, steps_offset=1, prediction_type="v_prediction"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("stage", ["motion", "video"])
def test_without_image_guidance_our_sampling_is_animatediffs(tiny, sample, scheduler, stage):
    parts = {"unet" if name == "transformer" else name: part for name, part in tiny.items()}
    theirs = AnimateDiffPipeline(**{**parts, "scheduler": SCHEDULERS[scheduler]()}, motion_adapter=None)
    theirs.set_progress_bar_config(disable=True)
    noise = seeded_noise(UNET.latent_shape(tiny["vae"], FRAMES, *SIZE), [torch.Generator().manual_seed(7)])
    prompt = sample.scene.motion_prompt if stage == "motion" else sample.scene.prompt
    expected = theirs(
        prompt, FRAMES, *SIZE, num_inference_steps=6, guidance_scale=4.0, latents=noise, output_type="latent"
    ).frames
    ours = make_stage("tiny-animatediff", stage)
    ours.register_modules(scheduler=SCHEDULERS[scheduler]())
    ours.set_progress_bar_config(disable=True)
    got = last_latents(ours, sample, seed=7, steps=6, guidance=(1, 4.0))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    assert (got - noise).abs().max() > 0.5
    assert (got - last_latents(ours, sample, seed=7, steps=6, guidance=(1, 3.0))).abs().max() > 1e-3


def test_a_stage_samples_from_pure_noise_and_learns_v(tiny):
    scheduler = tiny["scheduler"]
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]  # trailing: the last step, of no signal, is taken
    assert scheduler.alphas_cumprod[-1] == 0
    objective = UNET.objective(scheduler)
    torch.testing.assert_close(objective.alphas_cumprod().float(), scheduler.alphas_cumprod, atol=1e-6, rtol=1e-4)
    clean, noise = torch.randn(2, 2, 4, 3, 6, 8)
    time = torch.tensor([999, 30])
    torch.testing.assert_close(objective.mix(clean, noise, time)[0], noise[0])
    torch.testing.assert_close(
        objective.mix(clean, noise, time), scheduler.add_noise(clean, noise, time), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        objective.target(clean, noise, time), scheduler.get_velocity(clean, noise, time), atol=1e-5, rtol=1e-4
    )
    leaky = DDIMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction")
    torch.testing.assert_close(
        UNET.objective(leaky).alphas_cumprod().float(), leaky.alphas_cumprod, atol=1e-6, rtol=1e-4
    )
    with pytest.raises(InvalidValueError, match=r"predict v.*epsilon"):
        UNET.objective(DDIMScheduler())


@torch.no_grad()
def test_the_vae_takes_frame_by_frame(tiny, sample):
    vae, pixels = tiny["vae"], torch.tensor(sample.video.frames)[None].repeat(2, 1, 1, 1, 1)
    pixels[1] = pixels[1].flip(0)
    latents = UNET.encode(vae, pixels)
    assert latents.shape == (2, *UNET.latent_shape(vae, FRAMES, *SIZE)) == (2, 4, FRAMES, 6, 8)
    torch.testing.assert_close(latents[1], latents[0].flip(1))
    picture = pixels[0, 2].permute(2, 0, 1)[None] / 127.5 - 1
    raw = vae.encode(picture).latent_dist.mode()
    torch.testing.assert_close(latents[:1, :, 2], raw * vae.config.scaling_factor)
    decoded = UNET.decode(vae, latents)
    assert decoded.shape == pixels.shape
    assert decoded.dtype == torch.uint8
    expected = ((vae.decode(raw).sample + 1) * 127.5).clamp(0, 255)[0].permute(1, 2, 0)
    assert (decoded[0, 2] - expected).abs().max() <= 0.51


@torch.no_grad()
def test_global_prompts_come_with_their_padding_and_local_ones_without(tiny):
    tokenizer, encoder = tiny["tokenizer"], tiny["text_encoder"]
    longest = tokenizer.model_max_length
    prompts = ["a red ball", "a ball"]
    states, mask = UNET.encode_global(tokenizer, encoder, prompts)
    texts = UNET.global_text(tokenizer, states, mask)
    assert texts.shape == (2, longest, 32)
    theirs = AnimateDiffPipeline(
        **{"unet" if name == "transformer" else name: part for name, part in tiny.items()}, motion_adapter=None
    )
    torch.testing.assert_close(texts, theirs.encode_prompt(prompts, "cpu", 1, False)[0])
    local, mask = UNET.encode_text(tokenizer, encoder, prompts)
    assert local.shape == (2, 11, 32)
    assert mask.sum(1).tolist() == [11, 7]
    torch.testing.assert_close(local[0], texts[0, :11])
    with pytest.warns(ThroughMaskWarning, match="was cut to 512"):
        UNET.encode_text(tokenizer, encoder, ["b" * 600, "short"])


def test_labels_of_coarser_levels_follow_the_same_rule(joint, sample):
    condition, info = condition_of(joint, sample), joint.info
    F, Y, X = info.grid(FRAMES).tokens(*SIZE)
    levels = UNET.plan(condition.label, (F, Y, X))
    assert [level.label.shape[1] for level in levels] == [F * Y * X, F * Y * X // 4]  # 3×4 cannot be halved
    for side, level in zip((1, 2), levels, strict=True):
        assert all(map(torch.equal, level.plan, SortPlan.of(level.label)))
        assert set(level.label[0].tolist()) == {0, 1, 2}  # nobody vanishes
        pixels = torch.tensor(sample.trajectory.labels)[None]
        direct, sees = token_regions(pixels, TokenGrid.one_to_one(F, (8 * side, 8 * side)), 2)
        assert (direct == level.label).float().mean() > 0.9  # pooled twice, or once from pixels
    masked = joint.transformer._masked_inputs(
        1, (F, Y // 2, X // 2), condition.text.repeat_interleave(F, 0), levels, condition.local, condition.sees, None
    )
    assert torch.equal(masked.sees, sees)  # boxes are exact at every level
    nobody = torch.full_like(condition.label, -1)
    assert all((level.label == -1).all() for level in UNET.plan(nobody, (F, Y, X)))


@torch.no_grad()
def test_per_frame_is_joint_attention_within_each_frame(joint, sample, tmp_path):
    single = make_stage("tiny-animatediff", "video", frames=FRAMES, per_frame=True)
    single.set_progress_bar_config(disable=True)
    condition = condition_of(joint, sample)
    # One label a frame and object: joint attention over these joins within a frame only.
    frame = torch.arange(FRAMES).repeat_interleave(condition.label.shape[1] // FRAMES)
    apart = condition._replace(label=condition.label + 3 * frame)
    one, two = with_random_layers(joint), with_random_layers(single)
    size = tuple(condition.visual.shape[2:])
    seen = []
    for denoiser, given in ((one, apart), (two, condition)):
        kept = []
        first_masked(denoiser, "masked_self").register_forward_hook(lambda m, i, output, kept=kept: kept.append(output))
        latents, time = noise_like(condition)
        UNET.denoise(denoiser, latents, time, given, UNET.plan(given.label, size))
        seen.append(kept[0].reshape(-1, kept[0].shape[-1]))
    torch.testing.assert_close(*seen)
    assert (predict(joint, condition, denoiser=one) - predict(single, condition, denoiser=two)).abs().max() > 1e-4
    save_stage(single, tmp_path / "stage")
    loaded = MotionToVideoPipeline.from_pretrained(tmp_path / "stage")
    assert loaded.transformer.config.per_frame
    with pytest.raises(InvalidValueError, match="joins all of them"):
        make_stage("tiny-wan", "video", per_frame=True)


def test_a_motion_adapter_is_put_on_stable_diffusion(tmp_path, monkeypatch):
    parts = UNET.tiny()
    levels = {"block_out_channels": (8, 16), "layers_per_block": 2, "norm_num_groups": 2}
    image = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        **levels,
    )
    adapter = MotionAdapter((8, 16), motion_norm_num_groups=2, motion_num_attention_heads=2, use_motion_mid_block=False)
    sd, motion = tmp_path / "sd", tmp_path / "adapter"
    image.save_pretrained(sd / "unet")
    for name in ("text_encoder", "vae"):
        parts[name].save_pretrained(sd / name)
    adapter.save_pretrained(motion)
    asked = []

    def download(repo, patterns, say):
        asked.append(repo)
        return motion if "motion-adapter" in repo else sd

    monkeypatch.setattr(bases, "download", download)
    name = "guoyww/animatediff-motion-adapter-v1-5-3"
    found = bases.find_base(name)
    assert asked == [name, "stable-diffusion-v1-5/stable-diffusion-v1-5"] * 2  # configurations, then all
    with pytest.raises(InvalidValueError, match=r"motion modules know no such long clip.*33"):
        bases.find_base(name, frames=33)
    assert len(asked) == 6  # configurations alone
    assert LAYOUTS[found.backbone].num_blocks(found.denoiser) == 2
    assert bases.find_base(str(motion)) == found  # a folder serves too
    with pytest.raises(InvalidValueError, match="masked blocks are 0 to 2"):
        make_stage(found, "video", num_masked_blocks=3)
    # The tokenizer is CLIP's own, whose files we do not have.
    monkeypatch.setattr("transformers.CLIPTokenizer.from_pretrained", lambda folder: parts["tokenizer"])
    _, loaded = load_base(found)
    expected = UNetMotionModel.from_unet2d(image, adapter).state_dict()
    got = loaded["transformer"].state_dict()
    assert all(torch.equal(got[key], value) for key, value in expected.items())
    stage = make_stage(found, "video", frames=16, fps="6")
    assert (stage.info.strides, stage.transformer.config.num_masked_blocks) == ((1, 8, 16, 32), 2)
    assert stage.scheduler.config.prediction_type == "v_prediction"


def test_a_base_that_predicts_noise_learns_v_from_pure_noise(tiny, tmp_path):
    parts = {"unet" if name == "transformer" else name: part for name, part in tiny.items()}
    noisy = DDIMScheduler(beta_start=0.001, beta_end=0.02, beta_schedule="linear")
    AnimateDiffPipeline(**{**parts, "scheduler": noisy}, motion_adapter=None).save_pretrained(tmp_path / "base")
    _, loaded = load_base(tmp_path / "base")
    config = loaded["scheduler"].config
    assert (config.prediction_type, config.rescale_betas_zero_snr, config.timestep_spacing, config.beta_end) == (
        "v_prediction",
        True,
        "trailing",
        0.02,
    )
    leaky = DDIMScheduler(prediction_type="v_prediction")  # one that predicts v keeps what it has
    AnimateDiffPipeline(**{**parts, "scheduler": leaky}, motion_adapter=None).save_pretrained(tmp_path / "leaky")
    with pytest.warns(
        ThroughMaskWarning,
        match=r"leaky has .*should have rescale_betas_zero_snr True, timestep_spacing trailing, clip_sample False$",
    ):
        _, loaded = load_base(tmp_path / "leaky")
    assert not UNET.objective(loaded["scheduler"]).zero_terminal_snr


def test_a_u_net_that_is_told_more_than_a_text_is_refused(tiny):
    config = dict(tiny["transformer"].config) | {"in_channels": 9}
    with pytest.raises(InvalidValueError, match="must be a text-to-video model"):
        UNET.build(UNetMotionModel.from_config(config), cond_latents=2, num_masked_blocks=0)


def test_a_video_vae_and_another_text_encoder_serve_as_well(sample, tmp_path):
    """A new base stands on what Toybox's stages stand on."""
    wan = backbone("wan").tiny()
    wan["vae"].save_pretrained(tmp_path / "vae")
    for name in ("text_encoder", "tokenizer"):
        wan[name].save_pretrained(tmp_path / "words" / name)
    parts = UNET.untrained(tmp_path / "vae", tmp_path / "words", width=32, layers=1, heads=2, ffn=0)
    assert isinstance(parts["vae"], AutoencoderKLWan)
    UNET.base_pipeline(parts).save_pretrained(tmp_path / "base")
    stage = make_stage(tmp_path / "base", "video", frames=FRAMES)
    stage.set_progress_bar_config(disable=True)
    assert stage.info.strides == (4, 8, 32, 32)
    assert stage.transformer.config.num_masked_blocks == 3
    with pytest.raises(InvalidValueError, match=r"multiples of 32 and 32"):
        stage.render(sample.scene, sample.trajectory)
    label, sees = regions(stage.info, sample.trajectory.labels[:, :32], sample.scene.ids)
    assert label.shape == (1, 2 * 4 * 8)
    assert sees.any()
    scene = replace(sample.scene, image=sample.scene.image[:32], labels=sample.scene.labels[:32])
    motion = type(sample.trajectory)(motion_for(stage, sample).labels[:, :32], sample.trajectory.fps)
    assert stage.render(scene, motion, steps=2).frames.shape == (FRAMES, 32, 64, 3)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("learning", "most", "tile", "places"),
    [
        (False, 65_535, 64, None),
        (False, 2, 64, 16),
        (True, 65_535, 64, 16),
        (True, 65_535, 4, 1),
        (True, 65_535, 20, 4),
    ],
)
def test_attention_over_time_is_the_same_for_several_places_at_once(tiny, monkeypatch, learning, most, tile, places):
    base = tiny["transformer"]
    plain = UNetMotionModel.from_config(base.config).eval()
    plain.load_state_dict(base.state_dict())
    assert not any(isinstance(kind, OverTime) for kind in plain.attn_processors.values())
    stage = backbone("animatediff").build(base, cond_latents=0, num_masked_blocks=0)
    inputs = torch.randn(2, 4, 3, 8, 8), torch.tensor([3, 700]), torch.randn(6, 5, base.config.cross_attention_dim)
    expected, seen = plain(*inputs).sample, []
    together, own = animatediff.scaled_dot_product_attention, animatediff.AttnProcessor.__call__

    def at_once(q, *args, **kwargs):
        seen.append(q.shape[2] // 3)
        return together(q, *args, **kwargs)

    def written_out(self, attn, hidden_states, *args, **kwargs):
        assert hidden_states.shape[1] == 3, "over the three frames only"
        seen.append(1)
        return own(self, attn, hidden_states, *args, **kwargs)

    monkeypatch.setattr(animatediff, "scaled_dot_product_attention", at_once)
    monkeypatch.setattr(animatediff.AttnProcessor, "__call__", written_out)
    monkeypatch.setattr(animatediff, "MOST_SEQUENCES", most)
    monkeypatch.setattr(animatediff, "TILE", tile)
    with torch.set_grad_enabled(learning):
        made = stage.train(not learning)(*inputs, return_dict=False)[0]  # as a new stage is sampled with
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    assert set(seen) == ({places} if places else set())


def test_all_heads_of_a_new_u_net_are_as_wide():
    unet = animatediff.new_unet((32, 64, 128), 16, layers=1, heads=4, groups=8, text_dim=12)
    assert unet.config.num_attention_heads == unet.config.motion_num_attention_heads == (1, 2, 4)
    assert {kind.heads for kind in unet.modules() if isinstance(kind, animatediff.Attention)} == {1, 2, 4}


def test_the_parts_of_a_base_are_compiled(tiny, monkeypatch):
    base, compiled = UNetMotionModel.from_config(tiny["transformer"].config), []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part, **how: compiled.append((part, how["dynamic"])))
    UNET.compile(base)
    parts = [module for module in base.modules() if isinstance(module, animatediff.PARTS)]
    assert compiled == [(part, False) for part in parts], "sizes are known to every graph"
    assert {type(part) for part in parts} == set(animatediff.PARTS)
    assert any(isinstance(kind, OverTime) for kind in base.attn_processors.values())


def test_true_sizes_without_their_memory():
    """Stable Diffusion 1.5 with the motion modules of version 3, and with the paper's six masked blocks."""
    with torch.device("meta"):
        base = UNetMotionModel(cross_attention_dim=768, use_motion_mid_block=False)
        clip = 123_060_480  # CLIP ViT-L/14's text encoder
    assert round(base.num_parameters() / 1e6) == 1277  # 859.5 M of SD 1.5, 417 M of motion modules
    stage = UNET.build(base, cond_latents=2, num_masked_blocks=6)
    assert stage.device.type == "meta"
    assert isinstance(stage, MaskedUNetMotionModel)
    blocks = [module for module in stage.modules() if isinstance(module, MaskedSpatialBlock)]
    assert [block.dim for block in blocks] == [320, 320, 640, 640, 1280, 1280]
    assert [block.masked_self.num_heads for block in blocks] == [5, 5, 10, 10, 20, 20]
    # Twice a norm, q (k and v from the text: 768 wide) with biases, two norms of q and k, an output without bias.
    expected = sum(4 * d * d + 3 * d + 4 * d + 2 * d * d + 2 * 768 * d + 3 * d + 4 * d for d in (320, 640, 1280)) * 2
    channels_in = 8 * 9 * 320
    assert stage.num_parameters() - base.num_parameters() == expected + channels_in == UNET.num_added(stage)
    assert round(expected / 1e6) == 33  # as the paper's sizes imply
    assert 1.40e9 < stage.num_parameters() + clip < 1.45e9  # the paper's 1.4 B
    with torch.device("meta"):
        sd = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    strides = UNET.strides(sd.config, stage.config)
    assert strides == (1, 8, 64, 32)
    assert UNET.grid(16, strides).tokens(512, 512) == (16, 64, 64)  # 65,536 tokens
    with pytest.raises(InvalidValueError, match=r"multiples of 64 and 64.*nearest is 448×512"):
        UNET.grid(16, strides).tokens(456, 512)
