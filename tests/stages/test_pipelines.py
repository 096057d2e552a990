"""Both stages as diffusers pipelines: seeds, callbacks, saving, dtypes, offloading, LoRA."""

import io

import numpy as np
import pytest
import torch
from tiny_stages import FRAMES, condition_of, copy_of, last_latents, predict, run, wide_weight

from throughmask.errors import SampleError
from throughmask.stages.image_to_motion import ImageToMotionPipeline
from throughmask.stages.init import save_stage
from throughmask.stages.motion_to_video import MotionToVideoPipeline

STAGES = {"motion": ImageToMotionPipeline, "paper": MotionToVideoPipeline}
both = pytest.mark.parametrize("name", STAGES)


def _generator(seed):
    return torch.Generator().manual_seed(seed)


@both
def test_saved_then_loaded_gives_the_same_to_the_bit(pipelines, sample, tmp_path, name):
    pipeline = copy_of(pipelines[name], fps="30000/1001", num_ids=5, schedule=pipelines[name].info.layout.schedules[-1])
    save_stage(pipeline, tmp_path / "stage")
    assert not list(tmp_path.rglob("*.bin"))
    loaded = STAGES[name].from_pretrained(tmp_path / "stage")
    loaded.set_progress_bar_config(disable=True)
    assert loaded.info == pipeline.info
    assert loaded.config.schedule == pipeline.config.schedule
    assert torch.equal(last_latents(loaded, sample), last_latents(pipeline, sample))
    again = run(loaded, sample)
    assert again == run(pipeline, sample)
    fps = sample.trajectory.fps if name == "paper" else pipeline.default_fps()
    assert (again.fps, again.size, len(again)) == (fps, sample.scene.size, FRAMES)


@pytest.mark.slow
@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_loads_runs_and_stays_finite(folders, sample, name, dtype):
    pipeline = STAGES[name].from_pretrained(folders[name], dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    beside = torch.float32 if dtype == torch.float16 else dtype  # VAE and text encoder leave float16's range
    assert (pipeline.transformer.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype) == (dtype, beside, beside)
    latents = last_latents(pipeline, sample)
    assert latents.dtype == torch.float32
    assert latents.isfinite().all()
    exact = last_latents(STAGES[name].from_pretrained(folders[name]), sample)
    assert 0 < (latents - exact).abs().max() < 0.2


@pytest.mark.slow
def test_a_seed_gives_the_same_alone_and_among_others(pipelines, sample):
    pipeline, kept = pipelines["motion"], []
    many = pipeline.propose(
        sample.scene, range(8), steps=2, callback_on_step_end=lambda *arguments: kept.append(arguments[3]["latents"])
    )
    assert [proposal.seed for proposal in many] == list(range(8))
    alone = last_latents(pipeline, sample, seed=3)
    torch.testing.assert_close(kept[-1][3:4], alone, atol=1e-4, rtol=0)
    assert (kept[-1][2:3] - alone).abs().max() > 0.1
    one = pipeline.propose(sample.scene, [3], steps=2)[0]
    assert np.mean(one.motion.labels != many[3].motion.labels) < 0.001  # a pixel on the edge between two colours
    assert one.confidence == pytest.approx(many[3].confidence, abs=1e-3)


@pytest.mark.slow
def test_generators_serve_as_seeds(pipelines, sample):
    motion, video = pipelines["motion"], pipelines["paper"]
    seeded = motion.propose(sample.scene, [5, 6], steps=1)
    generated = motion.propose(sample.scene, generators=[_generator(5), _generator(6)], steps=1)
    assert [proposal.seed for proposal in generated] == [5, 6]
    for one, two in zip(seeded, generated, strict=True):
        assert one.motion == two.motion
    one = video.render(sample.scene, sample.trajectory, seed=5, steps=1)
    assert one == video.render(sample.scene, sample.trajectory, generator=_generator(5), steps=1)
    assert one != video.render(sample.scene, sample.trajectory, seed=6, steps=1)
    assert one == video(sample.scene, sample.trajectory, seed=5, steps=1)


@both
def test_a_callback_sees_every_step_and_can_change_the_latents(pipelines, sample, name):
    pipeline, seen = pipelines[name], []

    def erase(caller, step, time, values):
        seen.append((caller, step, float(time)))
        return {"latents": torch.zeros_like(values["latents"])} if step == 2 else None

    erased = run(pipeline, sample, steps=3, callback_on_step_end=erase)
    assert [step for _, step, _ in seen] == [0, 1, 2]
    assert all(caller is pipeline for caller, _, _ in seen)
    times = [time for *_, time in seen]
    assert times == sorted(times, reverse=True)
    assert erased == run(pipeline, sample, seed=9, steps=3, callback_on_step_end=erase)  # the seed no longer matters


def test_the_progress_bar_counts_steps(pipelines, sample):
    pipeline, out = copy_of(pipelines["motion"]), io.StringIO()
    pipeline.set_progress_bar_config(disable=False, file=out)
    run(pipeline, sample, steps=3)
    assert "3/3" in out.getvalue()


@pytest.mark.slow
def test_guidance_and_negative_prompt_change_the_result(pipelines, sample):
    pipeline = pipelines["paper"]
    plain = last_latents(pipeline, sample, guidance=(1, 1))
    assert (last_latents(pipeline, sample, guidance=(1, 5)) - plain).abs().max() > 1e-3
    assert (
        last_latents(pipeline, sample, guidance=(1, 5), negative_prompt="blurry")
        - last_latents(pipeline, sample, guidance=(1, 5))
    ).abs().max() > 1e-3
    # Without guidance the null branches have no weight, so the negative prompt has no say.
    assert torch.equal(last_latents(pipeline, sample, guidance=(1, 1), negative_prompt="blurry"), plain)


def test_a_still_picture_repeats_as_latents_or_as_pixels(pipelines, sample):
    for name in STAGES:
        latents, pixels = pipelines[name], copy_of(pipelines[name], repeat="pixels")
        one, two = (condition_of(p, sample, p.repeat).visual for p in (latents, pixels))
        assert one.shape == two.shape
        torch.testing.assert_close(one[:, :, 0], two[:, :, 0])
        if pipelines[name].info.strides[0] == 1:  # frame by frame, a still video is its picture
            torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
            continue
        assert (one - two).abs().max() > 1e-3
        torch.nn.init.normal_(
            pixels.transformer.get_parameter(wide_weight(pixels.transformer)), std=0.1
        )  # as trained: the picture counts
        expected = last_latents(pixels, sample)
        pixels.register_to_config(repeat="latents")
        assert (last_latents(pixels, sample) - expected).abs().max() > 1e-3


@pytest.mark.slow
@both
def test_offloading_models_changes_nothing(pipelines, sample, name):
    pipeline = copy_of(pipelines[name])
    expected = last_latents(pipeline, sample)
    pipeline.enable_model_cpu_offload(device="cpu")  # the whole machinery of hooks, without a GPU
    assert torch.equal(last_latents(pipeline, sample), expected)
    assert torch.equal(last_latents(pipeline, sample), expected)  # the hooks survive a run
    assert [hook.model for hook in pipeline._all_hooks] == [pipeline.text_encoder, pipeline.vae, pipeline.transformer]


@pytest.mark.gpu
@both
@pytest.mark.parametrize("offload", [None, "enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_a_gpu_gives_what_the_cpu_gives(pipelines, sample, name, offload):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    pipeline = copy_of(pipelines[name])
    expected = last_latents(pipeline, sample)
    getattr(pipeline, offload)() if offload else pipeline.to("cuda")
    got = last_latents(pipeline, sample)
    assert got.device.type == "cuda"
    torch.testing.assert_close(got.cpu(), expected, atol=1e-4, rtol=0)
    assert run(pipeline, sample).size == sample.scene.size
    if offload == "enable_model_cpu_offload":
        assert {part.device.type for part in (pipeline.text_encoder, pipeline.vae, pipeline.transformer)} == {"cpu"}


def _lora(seed):
    from peft import LoraConfig

    torch.manual_seed(seed)
    return LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False)


def test_lora_reaches_the_added_layers_and_comes_and_goes(pipelines, conditions, tmp_path):
    pipeline, condition = copy_of(pipelines["paper"]), conditions["paper"]
    near = 0 if pipeline.info.layout.name == "wan" else 1e-5  # a U-Net's convolutions round by where memory lies
    with torch.no_grad():
        plain = predict(pipeline, condition)
        pipeline.transformer.add_adapter(_lora(0))
        adapted = predict(pipeline, condition)
    assert (adapted - plain).abs().max() > 1e-3
    for layer in ("masked_self", "masked_cross", "attn1"):
        assert any(f".{layer}.to_q.lora_A" in key for key, _ in pipeline.transformer.named_parameters())
    pipeline.transformer.save_lora_adapter(tmp_path / "lora")
    with pytest.raises(SampleError, match="LoRA adapter attached"):
        save_stage(pipeline, tmp_path / "stage")
    assert not (tmp_path / "stage").exists()
    pipeline.transformer.unload_lora()
    with torch.no_grad():
        torch.testing.assert_close(predict(pipeline, condition), plain, atol=near, rtol=0)
        save_stage(pipeline, tmp_path / "stage")
        pipeline.transformer.load_lora_adapter(
            tmp_path / "lora", prefix=None, weight_name="pytorch_lora_weights.safetensors"
        )
        torch.testing.assert_close(predict(pipeline, condition), adapted, atol=near, rtol=0)


@pytest.mark.slow
def test_lora_through_the_pipeline(pipelines, sample, tmp_path):
    from peft.utils import get_peft_model_state_dict

    pipeline = copy_of(pipelines["motion"])
    plain = last_latents(pipeline, sample)
    pipeline.transformer.add_adapter(_lora(1))
    adapted = last_latents(pipeline, sample)
    pipeline.save_lora_weights(tmp_path, transformer_lora_layers=get_peft_model_state_dict(pipeline.transformer))
    pipeline.unload_lora_weights()
    assert torch.equal(last_latents(pipeline, sample), plain)
    pipeline.load_lora_weights(tmp_path)
    torch.testing.assert_close(last_latents(pipeline, sample), adapted)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    torch.testing.assert_close(last_latents(pipeline, sample), adapted, atol=1e-4, rtol=0)
    save_stage(pipeline, tmp_path / "fused")
    loaded = ImageToMotionPipeline.from_pretrained(tmp_path / "fused")
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(last_latents(loaded, sample), last_latents(pipeline, sample))
