"""Training a stage: it sees what sampling sees, resumes exactly, spreads over processes, and says what is wrong."""

import json
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import FRAMES, SIZE, losses_of

from throughmask.backbones import backbone
from throughmask.errors import InvalidValueError, OutputError, SampleError
from throughmask.nn.objective import FlowMatching
from throughmask.nn.plan import SortPlan
from throughmask.palette import OURS
from throughmask.stages.conditioning import motion_condition, video_condition
from throughmask.stages.image_to_motion import ImageToMotionPipeline
from throughmask.stages.init import make_stage
from throughmask.stages.motion_to_video import MotionToVideoPipeline
from throughmask.stages.recipes import RECIPES, recipe
from throughmask.storage import load_sample, save_sample
from throughmask.train.batches import Batches, draw
from throughmask.train.config import StageConfig
from throughmask.train.devices import Processes
from throughmask.train.latents import PER_SHARD, CacheConfig, Encoder, make_latents
from throughmask.train.presets import override, preset
from throughmask.train.preview import as_in_training
from throughmask.train.samples import seeds_of
from throughmask.train.stage import learning_rate, train_stage
from throughmask.train.subject import Subject
from throughmask.types import Video

CPU = Processes(0, 1, torch.device("cpu"))


def quiet(text):
    """Progress that nobody reads."""


def run(settings, **more):
    return train_stage(StageConfig(**{**settings, **more}), quiet)


def encoder_of(pipeline):
    info = pipeline.info
    return Encoder(
        info.backbone, pipeline.encoders, info.palette, info.num_ids, info.grid(FRAMES), "latents", CPU.device
    )


def cache_of(folder, **more):
    return CacheConfig(**{"data": str(folder), "size": SIZE, "frames": FRAMES, "fps": "12", **more})


def batches_of(items, pipeline, **more):
    common = {"batch": 4, "accumulate": 1, "variants": 1, "drop": 0.0, "seed": 0, "rank": 0, "world": 1, **more}
    info = pipeline.info
    objective = info.backbone.objective(pipeline.scheduler)
    return Batches(items, info.stage, info.recipe, info.backbone, pipeline.tokenizer, objective, **common)


@pytest.fixture(scope="module")
def samples(four_samples):
    return [load_sample(folder) for folder in sorted(four_samples.iterdir())]


@pytest.mark.parametrize("name", ["motion", "motion bound", *(name for name in RECIPES if name != "flow")])
@torch.no_grad()
def test_training_sees_what_sampling_sees(name, four_samples, samples, tmp_path):
    stage = "motion" if name.startswith("motion") else "video"
    name = {"motion": "paper", "motion bound": "bound"}.get(name, name)
    pipeline = make_stage("tiny-wan", stage, recipe_name=name, frames=FRAMES)
    items = make_latents(cache_of(four_samples), encoder_of(pipeline), tmp_path / "cache", CPU, say=quiet)
    batches = batches_of(items, pipeline)
    (batch,) = batches.parts(0)
    order = draw(0, 0, 4, 4, 1, FlowMatching(), 0.0).items
    assert sorted(order) == [0, 1, 2, 3]
    for row, item in enumerate(order):
        sample = samples[item]
        if stage == "motion":
            expected = motion_condition(pipeline.info, pipeline.encoders, sample.scene, FRAMES, "latents")
            clean = OURS.paint(sample.trajectory.labels)
        else:
            motion = sample.trajectory if recipe(name).motion == "labels" else None
            expected = video_condition(pipeline.info, pipeline.encoders, sample.scene, motion, FRAMES, "latents")
            clean = sample.video.frames
        if expected.local is not None:  # what the encoder puts out on padding is never seen
            expected = expected._replace(local=expected.local * expected.key_mask[..., None])
        for field, (mine, theirs) in enumerate(zip(batch.condition, expected, strict=True)):
            assert (mine is None) == (theirs is None), expected._fields[field]
            if mine is None:
                continue
            mine = mine[row]
            if field >= 3:  # columns of ids and of padding that only other samples of the batch need
                for axis, size in enumerate(theirs[0].shape):
                    assert not mine.narrow(axis, size, mine.shape[axis] - size).any()
                    mine = mine.narrow(axis, 0, size)
            # Stored in half precision.
            torch.testing.assert_close(mine.to(theirs.dtype), theirs[0], atol=4e-3, rtol=2e-3)
        latents = pipeline.info.backbone.encode(pipeline.vae, torch.tensor(clean)[None])[0]
        torch.testing.assert_close(batch.clean[row].float(), latents, atol=4e-3, rtol=2e-3)
    if batch.condition.label is not None:
        assert all(map(torch.equal, batch.plan, SortPlan.of(batch.condition.label)))


def test_draws_are_the_same_for_any_number_of_processes(four_samples, tmp_path):
    pipeline = make_stage("tiny-wan", "video", frames=FRAMES)
    config = cache_of(four_samples, variants=3, flips=True)
    items = make_latents(config, encoder_of(pipeline), tmp_path / "cache", CPU, say=quiet)
    assert len(items) == 8
    more = {"variants": 3, "drop": 0.2, "batch": 8}
    (whole,) = batches_of(items, pipeline, **more).parts(3)
    shares = [
        part
        for rank in range(2)
        for part in batches_of(items, pipeline, **more, accumulate=2, rank=rank, world=2).parts(3)
    ]
    assert len(shares) == 4
    assert torch.equal(torch.cat([part.clean for part in shares]), whole.clean)
    assert torch.equal(torch.cat([part.time for part in shares]), whole.time)
    assert torch.equal(torch.cat([part.condition.label for part in shares]), whole.condition.label)
    assert (whole.condition.label == -1).all(1).any()  # a null image
    noisy, clean = (items.rows("motion", range(8), [variant] * 8) for variant in (1, 0))
    assert not torch.equal(noisy, clean)
    assert torch.equal(noisy[:, :, 0], clean[:, :, 0])  # frame 0 is given
    seen = [item for step in range(4) for item in draw(1, step, 6, 8, 1, FlowMatching(), 0).items]
    assert all(sorted(seen[k : k + 8]) == list(range(8)) for k in (0, 8, 16))
    assert seen[:8] != seen[8:16]


def test_latents_may_be_made_in_bfloat16(four_samples, tmp_path):
    encoder = encoder_of(make_stage("tiny-wan", "video", frames=FRAMES))
    exact, rough = (
        make_latents(cache_of(four_samples), replace(encoder, dtype=dtype), tmp_path / str(dtype), CPU, say=quiet)
        for dtype in (torch.float32, torch.bfloat16)
    )
    for name in ("video", "image", "first"):
        one, other = (items.rows(name, range(4)).float() for items in (exact, rough))
        assert 0 < (one - other).square().mean().sqrt() < 0.02 * one.std()
    with pytest.raises(SampleError, match=r"dtype was torch\.float32, is torch\.bfloat16"):
        make_latents(
            cache_of(four_samples), replace(encoder, dtype=torch.bfloat16), tmp_path / "torch.float32", CPU, say=quiet
        )


def test_a_cache_without_films_holds_all_else(four_samples, tmp_path):
    encoder = encoder_of(make_stage("tiny-wan", "motion", frames=FRAMES))
    for films in (True, False):
        config = cache_of(four_samples, variants=2, flips=True, films=films)
        make_latents(config, encoder, tmp_path / str(films), CPU, say=quiet)
        with pytest.raises(SampleError, match=f"other settings.*films was {films}, is {not films}"):
            make_latents(replace(config, films=not films), encoder, tmp_path / str(films), CPU, say=quiet)
    whole, lean = (load_file(tmp_path / str(films) / "00000.safetensors") for films in (True, False))
    assert len(whole.pop("video")) == 8
    assert set(whole) == set(lean) == {"motion", "image", "first", "tokens", "begins", "sees"}
    # The VAE took other batches, which rounds otherwise.
    torch.testing.assert_close(lean.pop("motion"), whole.pop("motion"), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(lean[name], value) for name, value in whole.items())
    assert (tmp_path / "True" / "00000.json").read_text() == (tmp_path / "False" / "00000.json").read_text()


def test_sheets_compile_nothing():
    compiled = []

    def note(graph, inputs):
        compiled.append(graph)
        return graph.forward

    network = torch.nn.Linear(2, 2)
    block = torch.compile(lambda x: x + 1, backend=note)
    with as_in_training(network, torch.bfloat16):
        assert block(network(torch.zeros(1, 2))).shape == (1, 2)
        assert network(torch.zeros(1, 2)).dtype == torch.bfloat16
    assert not compiled
    block(torch.zeros(1, 2))
    assert compiled  # as it was before
    assert network(torch.zeros(1, 2)).dtype == torch.float32


def test_a_flipped_item_is_the_mirrored_one(four_samples, tmp_path):
    pipeline = make_stage("tiny-wan", "video", frames=FRAMES)
    items = make_latents(cache_of(four_samples, flips=True), encoder_of(pipeline), tmp_path / "c", CPU, say=quiet)
    plain, mirrored = (items.rows("tokens", [item], [0])[0].view(2, 2, 2) for item in (2, 3))
    assert torch.equal(plain.flip(2) > 0, mirrored > 0)
    assert not torch.equal(plain, mirrored)


@pytest.mark.slow
def test_a_cache_goes_on_where_it_stopped_and_says_why_it_is_stale(four_samples, tmp_path, monkeypatch):
    for module in ("latents", "prompts"):
        monkeypatch.setattr(f"throughmask.train.{module}.PER_SHARD", 2)
    pipeline, folder = make_stage("tiny-wan", "video", frames=FRAMES), tmp_path / "cache"
    config, encoder = cache_of(four_samples), encoder_of(pipeline)
    items = make_latents(config, encoder, folder, CPU, say=quiet)
    before = items.rows("video", range(4))
    shards = sorted(folder.glob("0*.safetensors"))
    kept = shards[0].stat().st_mtime_ns
    shards[1].unlink()
    again = make_latents(config, encoder, folder, CPU, workers=1, say=quiet)
    assert torch.equal(again.rows("video", range(4)), before)
    assert shards[0].stat().st_mtime_ns == kept
    index = json.loads((folder / "cache.json").read_text())
    del index["config"]["films"]  # as a cache from before there was this setting
    (folder / "cache.json").write_text(json.dumps(index))
    texts = folder / "00001.json"
    told = texts.read_text()
    texts.unlink()
    make_latents(config, encoder, folder, CPU, say=quiet)  # latents without their texts are made anew
    assert texts.read_text() == told
    with pytest.raises(SampleError, match=r"other settings.*variants was 1, is 2"):
        make_latents(replace(config, variants=2), encoder, folder, CPU, say=quiet)
    encoded, (texts,) = again.prompts, again.prompts.texts([3], [0], 0)[0]
    with torch.no_grad():
        pipeline.text_encoder.encoder.final_layer_norm.weight *= 2
    said = []
    other = make_latents(config, encoder, folder, CPU, say=said.append)
    assert ["encoding texts" in text for text in said] == [True]  # and no latents
    assert shards[0].stat().st_mtime_ns == kept
    torch.testing.assert_close(other.prompts.texts([3], [0], 0)[0][0], 2 * texts)
    torch.testing.assert_close(encoded.texts([3], [0], 0)[0][0], texts)  # what was there stays
    with torch.no_grad():
        pipeline.vae.quant_conv.bias += 1
    with pytest.raises(SampleError, match="vae was"):
        make_latents(config, encoder, folder, CPU, say=quiet)
    shards[1].write_bytes(shards[1].read_bytes()[:-100])
    with pytest.raises(SampleError, match=r"00001\.safetensors of the cache cannot be read.*delete that file"):
        again.__class__(folder, 4, again.prompts).rows("video", [3])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(SampleError, match="is not a cache"):
        make_latents(config, encoder, tmp_path / "other", CPU, say=quiet)
    assert PER_SHARD == 64


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["base", "motion", "video", "motion bound"])
def test_each_stage_trains_and_leaves_a_model_that_is_used(stage, settings, samples, tmp_path):
    stage, *recipes = stage.split()
    settings = {**settings, **({"recipe": recipes[0]} if recipes else {})}
    result = run(settings, stage=stage, sheet_every=3, sample_steps=1, steps=4)
    assert result["steps"] == 4
    out = Path(settings["out"])
    assert len(losses_of(out)) == 4
    assert sorted(path.name for path in (out / "sheets").iterdir()) == [
        f"{stage}-00000003.png",
        f"{stage}-00000004.png",
    ]
    model = out / "model"
    assert json.loads((model / "train.json").read_text())["step"] == 4
    if stage == "base":
        run(settings, stage="motion", base=str(model), out=str(tmp_path / "on-it"), steps=1)
        return
    options = {"frames": FRAMES, "steps": 1}
    if stage == "motion":
        pipeline = ImageToMotionPipeline.from_pretrained(model)
        made = pipeline.move(samples[0].scene, **options)[0]
        assert (pipeline.transformer.config.get("num_masked_blocks", 0) > 0) == bool(recipes)
    else:
        pipeline = MotionToVideoPipeline.from_pretrained(model)
        made = pipeline.render(samples[0].scene, samples[0].trajectory, **options)
        assert isinstance(made, Video)
    assert len(made) == FRAMES
    run(settings, stage=stage, init=str(model), out=str(tmp_path / "later"), steps=1)
    assert losses_of(tmp_path / "later")[0] < losses_of(out)[0]
    if stage == "motion" and not recipes:  # it gains masked blocks, and knows what it knew
        run(settings, stage=stage, init=str(model), out=str(tmp_path / "bound"), steps=1, recipe="bound")
        assert losses_of(tmp_path / "bound") == pytest.approx(losses_of(tmp_path / "later"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["paper", "bound"])
def test_stage_1_learns_the_same_without_films(recipe, settings, samples, tmp_path):
    """From Samples that have none, the held-out ones of its sheet too."""
    for number, sample in enumerate(samples):
        save_sample(replace(sample, video=None), tmp_path / "mute" / f"seed-{number}")
    settings |= {"stage": "motion", "recipe": recipe, "steps": 2}
    run(settings)
    lean = {**settings, "data": str(tmp_path / "mute"), "cache": str(tmp_path / "lean"), "out": str(tmp_path / "out")}
    run(lean, films=False, held_out=lean["data"], sheet_every=2, sample_steps=1)
    assert len(losses_of(lean["out"])) == 2
    assert losses_of(lean["out"]) == pytest.approx(losses_of(settings["out"]), rel=1e-5)
    assert (tmp_path / "out" / "sheets" / "motion-00000002.png").is_file()


@pytest.mark.slow
def test_the_model_may_be_written_while_the_run_goes_on(settings, monkeypatch):
    written, save = [], Subject.save

    def spy(self, weights, folder, record, dtype):
        save(self, weights, folder, record, dtype)
        written.append(json.loads((folder / "train.json").read_text())["step"])

    monkeypatch.setattr(Subject, "save", spy)
    run(settings, steps=5, export_every=2)
    assert written == [2, 4, 5]


@pytest.mark.slow
def test_adapters_train_beside_the_new_layers_and_become_part_of_the_model(settings):
    run(settings, lora=2, steps=2)
    trained = MotionToVideoPipeline.from_pretrained(Path(settings["out"]) / "model").transformer.state_dict()
    before = make_stage("tiny-wan", "video", frames=FRAMES).transformer.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(trained[name], value)}
    assert set(trained) == set(before)
    assert "blocks.1.attn1.to_q.weight" in changed
    assert "blocks.0.masked_self.to_out.weight" in changed
    assert "patch_embedding.weight" in changed
    assert not any("ffn" in name or ("norm" in name and "masked" not in name) for name in changed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("processes", "kills"), [(1, (4, 17)), (2, (8,))])
def test_a_killed_run_resumes_exactly(processes, kills, settings, in_processes, tmp_path):
    """Killed wherever it happens to be, also while it writes a checkpoint, the next losses are those of a quiet run."""
    settings |= {"steps": 30, "save_every": 3, "parallel": "fsdp" if processes > 1 else "ddp", "drop": 0.1}
    whole = {**settings, "out": str(tmp_path / "whole")}
    in_processes(whole, processes).finish()
    out = Path(settings["out"])
    for least in kills:
        disturbed = in_processes(settings, processes)
        while len(losses_of(out)) < least and disturbed.running():
            time.sleep(0.005)
        disturbed.kill()
    assert len(losses_of(out)) < 30
    assert not (out / "model").exists()
    in_processes(settings, processes).finish()
    assert losses_of(out) == losses_of(whole["out"])
    assert sorted(path.name for path in (out / "state").iterdir()) == ["step-00000027", "step-00000030"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("base", "stage"), [("tiny-wan", "video"), ("tiny-animatediff", "base")])
def test_ddp_and_fsdp_learn_alike(base, stage, settings, in_processes, tmp_path):
    settings |= {"steps": 20, "save_every": 0, "cache": str(tmp_path / "cache"), "base": base, "stage": stage}
    found = {}
    for how in ("ddp", "fsdp"):
        out = str(tmp_path / how)
        in_processes({**settings, "parallel": how, "out": out}, 2).finish()
        found[how] = losses_of(out)
    assert found["fsdp"] == pytest.approx(found["ddp"], rel=1e-5)
    assert found["ddp"][-1] < 0.9 * found["ddp"][0]


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_is_refused(settings):
    run(settings, steps=1)
    with pytest.raises(SampleError, match=r"other settings \(.*lr was 0\.003, is 0\.1"):
        run(settings, steps=2, lr=0.1)
    record = next((Path(settings["out"]) / "state").glob("step-*")) / "run.json"
    told = json.loads(record.read_text())
    del told["config"]["films"]  # as a run that began before there was this setting
    record.write_text(json.dumps(told))
    assert run(settings, steps=2, log_every=2)["steps"] == 2


@pytest.mark.slow
def test_a_full_disk_loses_no_checkpoint(settings, monkeypatch):
    from throughmask.train import state

    run(settings, steps=2)
    real = state.save

    def full(values, **options):
        real(values, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "save", full)
    with pytest.raises(OutputError, match=r"of step 4 could not be written; that of step 2 is whole.*No space left"):
        run(settings)
    assert [path.name for path in (Path(settings["out"]) / "state").iterdir()] == ["step-00000002"]
    monkeypatch.setattr(state, "save", real)
    assert run(settings)["steps"] == 6


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_read_is_named(settings):
    run(settings, steps=2)
    shard = next((Path(settings["out"]) / "state" / "step-00000002").glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(SampleError, match=r"step-00000002 cannot be read.*delete step-00000002"):
        run(settings)


def test_the_learning_rate():
    config = StageConfig(lr=1.0, warmup=4, decay=0.5)
    rates = [learning_rate(config, step, progress) for step, progress in ((0, 0), (3, 0), (9, 0.4), (9, 0.75), (9, 1))]
    assert rates == pytest.approx([0.25, 1, 1, 0.5, 0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stage": "vidoe"}, "base, motion, video"),
        ({"batch": 5}, "divide"),
        ({"drop": 0.5}, "0 to 0.333"),
        ({"lora": 4, "stage": "base"}, "trained whole"),
        ({"films": False}, "only a stage 1 of masks.*stage video"),
        ({"films": False, "stage": "base"}, "only a stage 1 of masks.*stage base"),
        ({"films": False, "stage": "motion", "recipe": "flow"}, "only a stage 1 of masks.*recipe flow"),
        ({"size": (32,)}, "height,width"),
        ({"recipe": "papper"}, "no recipe"),
        ({"frames": 0}, "at least 1"),
        ({"size": (40, 32)}, "multiples of 16"),
        ({"frames": 6}, r"1 \+ 4k"),
        ({"data": "nowhere"}, "no Samples"),
        ({"size": (32, 32), "frames": 9}, "too short"),
    ],
)
def test_bad_settings(change, words, settings):
    with pytest.raises((InvalidValueError, SampleError), match=words):
        run({**settings, "accumulate": 2}, **change)
    assert not Path(settings["out"], "model").exists()


@pytest.mark.slow
def test_the_papers_numbers():
    config = preset("paper-dit")
    assert (config.batch, config.lr, config.warmup, config.steps, config.decay) == (32, 2e-5, 2000, 50_000, 0.0)
    assert (config.blocks, config.layers, config.width, config.size, config.frames) == (10, 40, 2560, (256, 256), 129)
    assert learning_rate(config, 1999, 0.04) == learning_rate(config, 49_999, 1.0) == 2e-5
    assert learning_rate(config, 999, 0.02) == pytest.approx(1e-5)
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        base = WanTransformer3DModel(
            num_attention_heads=config.heads,
            attention_head_dim=config.width // config.heads,
            ffn_dim=config.ffn,
            num_layers=config.layers,
        )
    wan = backbone("wan")
    stage = wan.build(base, cond_latents=2, num_masked_blocks=config.blocks)
    assert 4.0e9 < base.num_parameters() < 4.5e9  # the paper's 4 B
    assert sum(type(block).__name__ == "MaskedWanBlock" for block in stage.blocks) == 10


def test_every_preset_builds_and_takes_keys():
    from throughmask.train.presets import PRESETS

    for name in PRESETS:
        assert override(preset(name), {"seed": "3"}).seed == 3
    assert override(preset("overfit"), {"size": "48,64"}).size == (48, 64)
    with pytest.raises(InvalidValueError, match="did you mean warmup"):
        override(preset("overfit"), {"warm-up": "3"})


def test_presets_that_share_a_cache_want_the_same_of_it():
    from throughmask.train.presets import PRESETS

    names = {field.name for field in fields(CacheConfig)} - {"motion"} | {"backbone", "vae", "palette", "dtype"}
    seen = {}
    for config in map(preset, PRESETS):
        if isinstance(config, StageConfig):
            wanted = {name: getattr(config, name) for name in names}
            assert seen.setdefault(config.cache, wanted) == wanted, config.out
    base, motion, video = (preset(f"toybox-{stage}") for stage in ("base", "motion", "video"))
    assert base.cache == video.cache != motion.cache
    assert (motion.films, motion.recipe, motion.blocks, motion.base) == (False, "bound", 1, video.base)
    assert set(seeds_of(base.data)) < set(seeds_of(motion.data))
