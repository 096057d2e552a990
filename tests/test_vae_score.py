"""The score of a VAE: statistics of latents, the loop over clips, the bars."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from throughmask.backbones import backbone
from throughmask.evaluate.vae import BARS, Bar, deal_ids, score_vae
from throughmask.nn.statistics import LatentStatistics
from throughmask.palette import OURS
from throughmask.synthetic import make_sample

STAGES = {"dim_mult": [1, 1, 1, 1], "temperal_downsample": [False, True, True]}


def test_statistics_of_latents_do_not_depend_on_how_they_come():
    latents = torch.randn(6, 3, 2, 4, 5) * torch.tensor([1, 2, 3.0]).view(3, 1, 1, 1) + 1
    whole = LatentStatistics.of(latents)
    parts = LatentStatistics.of(latents[:1]) + LatentStatistics.of(latents[1:])
    flat = latents.double().transpose(0, 1).flatten(1)
    for seen in (whole, parts):
        torch.testing.assert_close(seen.mean(), flat.mean(1))
        torch.testing.assert_close(seen.std(), flat.std(1, correction=0))
    std = flat.std(1, correction=0)
    assert whole.summary() == pytest.approx((float(flat.mean(1).abs().max()), float(std.min()), float(std.max())))
    constant = LatentStatistics.of(torch.full((1, 2, 1, 1, 3), 0.1))
    assert constant.std().tolist() == pytest.approx([0, 0], abs=1e-6)


@pytest.fixture(scope="module")
def clips():
    samples = [make_sample(seed, size=(32, 32), frames=5) for seed in range(3)]
    return [(sample.video.frames, sample.trajectory.labels) for sample in samples]


@pytest.mark.slow
def test_the_score_is_that_of_the_vae_on_every_clip(clips):
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=3, z_dim=16, num_res_blocks=1, **STAGES).eval()
    seen = {}
    score = score_vae(vae, clips, OURS, batch=2, show=lambda index, *back: seen.update({index: back}))
    report = score.report()
    assert report["clips"] == len(seen) == 3
    wan = backbone("wan")
    with torch.no_grad():
        latents = torch.cat([wan.encode(vae, torch.tensor(pixels)[None]) for pixels, _ in clips])
        decoded = wan.decode(vae, latents).numpy()
    for index, (pixels, labels) in enumerate(clips):
        dealt, mine, colours = seen[index]
        assert np.array_equal(dealt, deal_ids(labels, OURS, index))
        assert np.abs(mine.astype(int) - decoded[index]).max() <= 1
        assert score.psnr[index] == pytest.approx(10 * np.log10(255**2 / np.square(1.0 * pixels - mine).mean()))
        assert colours.shape == pixels.shape
    mean, least, most = LatentStatistics.of(latents).summary()
    reported = [report[f"pixels_{name}"] for name in ("mean", "least_std", "most_std")]
    assert reported == pytest.approx([mean, least, most], rel=1e-3)
    assert report["colours_mean"] != report["pixels_mean"]


def test_bars_pass_what_reaches_them_and_fail_what_was_not_measured():
    assert Bar("psnr", 32).holds({"psnr": 32.0})
    assert not Bar("psnr", 32).holds({"psnr": 31.9})
    assert not Bar("std", 0.8, 1.2).holds({"std": 1.3})
    assert not Bar("iou", 0.95).holds({"iou": None})
    assert {bar.value for bar in BARS} > {"psnr", "iou", "worst_iou", "pixels_mean", "colours_most_std"}
