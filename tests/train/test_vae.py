"""Training a tiny VAE: it learns, writes what diffusers loads, and normalises its own latents; bad configs say why."""

import json

import numpy as np
import pytest
import torch

from throughmask.errors import InvalidValueError, SampleError
from throughmask.evaluate.vae import VAEScore, deal_ids
from throughmask.palette import OURS
from throughmask.storage import save_sample
from throughmask.synthetic import make_sample
from throughmask.train.clips import make_clips
from throughmask.train.config import VAEConfig
from throughmask.train.presets import override, preset
from throughmask.train.vae import train_vae

TINY = {
    "frames": 5,
    "crop": 16,
    "batch": 2,
    "base_dim": 8,
    "z_dim": 8,
    "warmup": 20,
    "minutes": 5.0,
    "statistics": 4,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    for seed in range(2):
        save_sample(make_sample(seed, size=(32, 32), frames=5), folder / f"seed-{seed}")
    return folder


def test_clips_are_the_samples_and_are_made_once(samples, tmp_path):
    clips = make_clips(str(samples), tmp_path / "clips")
    assert clips.pixels.shape == (2, 5, 32, 32, 3)
    assert np.array_equal(clips.labels[1], make_sample(1, size=(32, 32), frames=5).trajectory.labels)
    again = make_clips(str(samples), tmp_path / "clips")
    assert np.array_equal(clips.pixels, again.pixels)
    with pytest.raises(SampleError, match="another source"):
        make_clips("toybox:0..1", tmp_path / "clips")
    (tmp_path / "clips" / "source.json").write_text('{"source": "toybox:0..1"}')
    with pytest.raises(SampleError, match=r"another source.*toybox:0\.\.1 of an earlier version"):
        make_clips("toybox:0..1", tmp_path / "clips")


def test_clips_from_nowhere(tmp_path):
    with pytest.raises(InvalidValueError, match=r"toybox:A\.\.B"):
        make_clips("toybox:5..1", tmp_path / "clips")
    with pytest.raises(SampleError, match="no Samples"):
        make_clips(str(tmp_path), tmp_path / "clips")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(SampleError, match="does not hold clips"):
        make_clips("toybox:0..1", tmp_path / "other")
    assert not (tmp_path / "clips").exists()


def test_clips_of_different_sizes_are_refused_and_leave_nothing(tmp_path):
    for seed, size in enumerate([(32, 32), (32, 48)]):
        save_sample(make_sample(seed, size=size, frames=5), tmp_path / "samples" / f"seed-{seed}")
    with pytest.raises(SampleError, match="differ in size"):
        make_clips(str(tmp_path / "samples"), tmp_path / "clips")
    assert not (tmp_path / "clips").exists()


@pytest.mark.slow
def test_a_tiny_vae_learns_goes_on_and_is_saved_with_its_own_statistics(samples, tmp_path):
    from diffusers import AutoencoderKLWan

    sample = make_sample(0, size=(32, 32), frames=5)
    x = torch.tensor(sample.video.frames)[None].permute(0, 4, 1, 2, 3).contiguous().float() / 127.5 - 1

    def train(name, steps, **more):
        common = {**TINY, "clips": str(samples), "cache": str(tmp_path / "clips"), "out": str(tmp_path / name)}
        train_vae(VAEConfig(**common, steps=steps, ema=0.8, **more), say=lambda text: None)
        vae = AutoencoderKLWan.from_pretrained(tmp_path / name).float().eval()
        with torch.no_grad():
            latents = vae.encode(x).latent_dist.mode()
            return vae, latents, float((vae.decode(latents).sample - x).abs().mean())

    _, _, at_first = train("first", 1, lr=1e-5)
    # It stays at a grey picture for up to 100 steps before it learns; how long depends on the machine's rounding.
    vae, latents, learnt = train("vae", 200, lr=3e-3)
    assert learnt < 0.8 * at_first
    _, _, later = train("later", 1, lr=1e-5, init=str(tmp_path / "vae"))
    assert later == pytest.approx(learnt, rel=0.1)  # it went on from there
    record = json.loads((tmp_path / "vae" / "train.json").read_text())
    assert record["config"]["steps"] == 200
    weights = next((tmp_path / "vae").glob("*.safetensors"))
    assert weights.stat().st_size < 3 * sum(p.numel() for p in vae.parameters())  # half precision
    mean, std = (torch.tensor(values) for values in (vae.config.latents_mean, vae.config.latents_std))
    assert ((latents.mean((0, 2, 3, 4)) - mean).abs() < 4 * std).all()
    assert (std > 0).all()


def test_presets_and_overrides():
    config = preset("toybox-vae")
    changed = override(config, {"lr": "0.1", "base-dim": "8", "init": "none", "dtype": "bfloat16"})
    assert (changed.lr, changed.base_dim, changed.init, changed.dtype) == (0.1, 8, None, "bfloat16")
    for values, words in (
        ({"stepz": "3"}, "did you mean steps"),
        ({"steps": "many"}, "read as int"),
        ({"batch": "3"}, "even"),
        ({"frames": "8"}, r"1 \+ 4k"),
        ({"crop": "12"}, "multiple of 8"),
        ({"dtype": "float8"}, "float32 or bfloat16"),
        ({"dim-mult": "1,2"}, "3 or 4 levels"),
        ({"steps": "0"}, "at least 1"),
    ):
        with pytest.raises(InvalidValueError, match=words):
            override(config, values)
    with pytest.raises(InvalidValueError, match="did you mean toybox-vae"):
        preset("toybox-vea")


def test_the_score_of_a_vae():
    labels = np.zeros((2, 40, 40), np.uint8)
    labels[:, :20, :20], labels[:, 30:32, 30:32] = 1, 2
    score = VAEScore(OURS)
    painted = OURS.paint(labels)
    score.add_colours(labels, painted)
    spoilt = painted.copy()
    spoilt[:, :10, :20] = 0  # half of object 1 is lost
    score.add_colours(labels, spoilt)
    score.add_pixels(painted, painted)
    score.add_pixels(np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8))
    report = score.report()
    assert report["iou_by_id"] == {1: pytest.approx(0.75)}
    assert report["worst_iou"] == pytest.approx(0.75)
    assert (report["toys"], report["small_toys"], report["iou_small"]) == (2, 2, 1.0)
    assert score.psnr[1] == pytest.approx(0)
    every = {int(i) for turn in range(OURS.num_objects) for i in np.unique(deal_ids(labels, OURS, turn)) if i}
    assert every == set(range(1, OURS.num_objects + 1))
