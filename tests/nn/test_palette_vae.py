"""Our colours survive a real VAE, on real masks: benchmarks/palette_vae.py in small."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from throughmask import media
from throughmask.palette import DAVIS, OURS, PAPER

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "palette_vae.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("palette_vae", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def vae(benchmark, assets):
    return benchmark.TinyVAE.load(assets / "weights/taef2")


@pytest.mark.slow
def test_the_vae_gives_the_reference_latents_and_picture(vae, assets):
    pixels = media.read_image(assets / "oracles/taef2_in_horsejump-high.png")
    reference = np.load(assets / "oracles/taef2_ref_horsejump-high.npz")
    latents = vae.encode(pixels)
    torch.testing.assert_close(latents[0], torch.from_numpy(reference["z"]), atol=1e-3, rtol=1e-3)
    decoded = vae.decode(latents)
    assert np.abs(decoded.astype(int) - reference["rec_u8"]).max() <= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_palette_carries_masks_better_than_ours(benchmark, vae, assets):
    pictures = benchmark.label_maps(assets, 2)
    rows = [row for palette in (OURS, PAPER, DAVIS) for row in benchmark.measure(vae, palette, pictures, 256)]
    ours, *others = rows
    assert ours["palette"] == "ours"
    for other in others:
        assert ours["iou"].keys() == other["iou"].keys()
        assert ours["mean"] > other["mean"], other
        assert ours["worst"] > other["worst"], other
    assert ours["mean"] > 0.9


@pytest.mark.slow
def test_ids_rotate_through_all_colours_and_scores_count_pixels(benchmark, assets):
    pictures = benchmark.label_maps(assets, 7)
    assert {int(k) for labels in pictures for k in np.unique(labels)} >= {1, 2, 3, *range(5, 14)}
    labels = benchmark.resize(pictures[1], 256)
    assert labels.shape == (256, 256)
    confusion = np.zeros((256, 256), np.int64)
    confusion[[0, 0, 3, 3, 4], [0, 3, 3, 4, 4]] = [90, 2, 6, 2, 8]
    assert benchmark.scores(confusion) == {
        "mean": pytest.approx((6 / 10 + 8 / 10) / 2),
        "worst": pytest.approx(6 / 10),
        "worst_id": 3,
        "iou": {0: pytest.approx(90 / 92), 3: pytest.approx(6 / 10), 4: pytest.approx(8 / 10)},
    }
