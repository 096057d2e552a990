"""Training a U-Net stage: the same loop, which sees what sampling sees and goes on where it stopped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from throughmask.backbones import animatediff
from throughmask.backbones.animatediff import Level
from throughmask.nn import attention
from throughmask.nn.guidance import Condition
from throughmask.palette import OURS
from throughmask.stages.conditioning import motion_condition, video_condition
from throughmask.stages.init import PIPELINES, make_stage
from throughmask.storage import load_sample, save_sample
from throughmask.synthetic import make_sample
from throughmask.train.batches import Batches, draw
from throughmask.train.config import StageConfig
from throughmask.train.devices import Processes
from throughmask.train.flops import clip_flops
from throughmask.train.latents import CacheConfig, Encoder, make_latents
from throughmask.train.stage import train_stage

SIZE, FRAMES = (32, 32), 3
CPU = Processes(0, 1, torch.device("cpu"))


def quiet(text):
    """Progress that nobody reads."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    for seed in range(2):
        save_sample(make_sample(seed, num_objects=2, size=SIZE, frames=FRAMES), folder / f"seed-{seed}")
    return folder, [load_sample(path) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("stage", ["motion", "video"])
@torch.no_grad()
def test_training_sees_what_sampling_sees(stage, samples, tmp_path):
    folder, made = samples
    pipeline = make_stage("tiny-animatediff", stage, frames=FRAMES)
    info, unet = pipeline.info, pipeline.info.backbone
    grid = info.grid(FRAMES)
    encoder = Encoder(unet, pipeline.encoders, info.palette, info.num_ids, grid, "latents", CPU.device)
    cache = CacheConfig(str(folder), SIZE, FRAMES, "12")
    items = make_latents(cache, encoder, tmp_path / "cache", CPU, say=quiet)
    objective = unet.objective(pipeline.scheduler)
    how = {"batch": 2, "accumulate": 1, "variants": 1, "drop": 0.0, "seed": 0, "rank": 0, "world": 1}
    batches = Batches(items, stage, info.recipe, unet, pipeline.tokenizer, objective, **how)
    (batch,) = batches.parts(0)
    for row, item in enumerate(draw(0, 0, 2, 2, 1, objective, 0.0).items):
        sample = made[item]
        if stage == "motion":
            expected = motion_condition(info, pipeline.encoders, sample.scene, FRAMES, "latents")
            clean = OURS.paint(sample.trajectory.labels)
        else:
            expected = video_condition(info, pipeline.encoders, sample.scene, sample.trajectory, FRAMES, "latents")
            clean = sample.video.frames
        # The global prompt with CLIP's states of its padding, the picture and its motion; stored in half precision.
        torch.testing.assert_close(batch.condition.text[row].float(), expected.text[0], atol=4e-3, rtol=2e-3)
        torch.testing.assert_close(batch.condition.visual[row].float(), expected.visual[0], atol=4e-3, rtol=2e-3)
        latents = unet.encode(pipeline.vae, torch.tensor(clean)[None])[0]
        torch.testing.assert_close(batch.clean[row], latents, atol=4e-3, rtol=2e-3)
        if stage == "video":
            longest = expected.local.shape[2]
            assert torch.equal(batch.condition.label[row], expected.label[0])
            assert torch.equal(batch.condition.key_mask[row, :, :longest], expected.key_mask[0])
            local = batch.condition.local[row, :, :longest].float()
            kept = expected.local[0] * expected.key_mask[0, ..., None]
            torch.testing.assert_close(local, kept, atol=4e-3, rtol=2e-3)
    if stage == "video":
        size = tuple(batch.clean.shape[2:])
        for mine, theirs in zip(batch.plan, unet.plan(batch.condition.label, size), strict=True):
            assert torch.equal(mine.label, theirs.label)
            assert all(map(torch.equal, mine.plan, theirs.plan))
        finest = batch.plan[0].plan.runs.clamp(min=0).double().square().sum()
        assert batch.squared_runs == pytest.approx(float(finest) / 2)


@pytest.fixture
def config(samples, tmp_path):
    folder = str(samples[0])
    return StageConfig(
        stage="video",
        data=folder,
        held_out=folder,
        base="tiny-animatediff",
        out=str(tmp_path / "run"),
        cache=str(tmp_path / "cache"),
        size=SIZE,
        frames=FRAMES,
        batch=2,
        steps=4,
        lr=3e-3,
        warmup=2,
        dtype="float32",
        log_every=1,
        save_every=2,
        sheet_every=0,
        sample_steps=2,
        checkpointing=True,
        workers=0,
        device="cpu",
    )


def losses(config):
    lines = [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_a_run_resumes_exactly_and_what_it_leaves_renders(config, samples, tmp_path):
    train_stage(replace(config, save_every=0), quiet)
    whole = losses(config)
    parted = replace(config, out=str(tmp_path / "parted"))
    train_stage(replace(parted, steps=2), quiet)
    train_stage(parted, quiet)
    assert losses(parted) == whole
    assert len(whole) == 4
    pipeline = PIPELINES["video"].from_pretrained(Path(config.out) / "model")
    pipeline.set_progress_bar_config(disable=True)
    sample = samples[1][0]
    assert pipeline.render(sample.scene, sample.trajectory, steps=1).frames.shape == (FRAMES, *SIZE, 3)


@pytest.mark.slow
def test_a_base_is_trained_and_adapters_are_trained_on_it(config, tmp_path):
    base = replace(config, stage="base", out=str(tmp_path / "base"), steps=1, sheet_every=1)
    train_stage(base, quiet)
    stage = replace(config, base=str(tmp_path / "base" / "model"), lora=2, steps=1, stage="motion")
    train_stage(stage, quiet)
    loaded = PIPELINES["motion"].from_pretrained(Path(stage.out) / "model")
    assert not [name for name, _ in loaded.transformer.named_parameters() if "lora" in name]  # folded in
    assert loaded.scheduler.config.rescale_betas_zero_snr


@pytest.mark.slow
def test_flops_are_those_that_torch_counts(monkeypatch):
    pipeline = make_stage("tiny-animatediff", "video", frames=FRAMES)
    model = pipeline.transformer
    F, Y, X, text, local = FRAMES, 4, 4, 7, 5
    tokens = F * Y * X
    labels = torch.ones(1, tokens, dtype=torch.long), torch.ones(1, tokens // 4, dtype=torch.long)
    inputs = {
        "sample": torch.randn(1, 12, F, Y, X, requires_grad=True),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(F, text, 32, requires_grad=True),
        "levels": [Level.of(label, F) for label in labels],
        "local": torch.randn(1, 1, local, 32, requires_grad=True),
        "sees": torch.ones(1, tokens, 1, dtype=torch.bool),
    }
    clean, still = torch.empty(1, 4, F, Y, X), torch.empty(1, 8, F, Y, X)
    told = Condition(still, inputs["encoder_hidden_states"][:1], sees=inputs["sees"], local=inputs["local"])
    unet = pipeline.info.backbone
    counted = clip_flops(unet, model, clean, told, float(tokens**2))
    assert clip_flops(unet, model, clean, told) == counted
    fewer = clip_flops(unet, model, clean, told, 0.0)
    # Two blocks of 8 channels on all tokens, two of 16 on a quarter of them.
    assert counted - fewer == pytest.approx(3 * 4 * tokens**2 * 2 * (8 + 16 / 16))
    monkeypatch.setattr(attention, "choose_self_backend", lambda q: "dense")  # no fused kernel may hide them
    monkeypatch.setattr(animatediff, "TILE", 1)  # places that share a tile multiply zeros as well
    found = []
    for backward in (False, True):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            out = model(**inputs, return_dict=False)[0]
            if backward:
                out.sum().backward()
        found.append(counter.get_total_flops())
    assert counted == 3 * found[0] == pytest.approx(found[1], rel=0.04)  # nobody wants time's own gradient


@pytest.mark.slow
def test_a_compiled_step_learns_what_an_eager_one_does(samples, tmp_path, monkeypatch):
    """Parts are traced whole, without a break; a compiler of kernels would only change the rounding."""
    config = StageConfig(
        stage="video",
        base="tiny-animatediff",
        data=str(samples[0]),
        cache=str(tmp_path / "cache"),
        size=SIZE,
        frames=FRAMES,
        batch=2,
        steps=2,
        dtype="float32",
        held_out=str(samples[0]),
        workers=0,
        device="cpu",
    )
    traced, own = set(), torch.nn.Module.compile

    def watched(self, *args, **kwargs):
        traced.add(type(self).__name__)
        return own(self, *args, backend="aot_eager", **kwargs)

    monkeypatch.setattr(torch.nn.Module, "compile", watched)
    losses = {}
    for kind in (False, True):
        losses[kind] = train_stage(replace(config, compile=kind, out=str(tmp_path / str(kind))), quiet)["loss"]
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert traced == {"ResnetBlock2D", "Transformer2DModel", "AnimateDiffTransformer3D"}
