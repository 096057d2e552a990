"""The bundled Toybox VAE reaches its bars on a few held-out scenes; `benchmarks/toybox_vae.py` scores all of them."""

from pathlib import Path

import pytest
import torch

import throughmask
from throughmask.backbones import backbone
from throughmask.evaluate.vae import BARS, score_vae
from throughmask.nn.statistics import LatentStatistics
from throughmask.palette import OURS

WEIGHTS = Path(throughmask.__file__).parent / "models" / "toybox" / "vae"
SCENES = (0, 21, 70, 90)  # of Toybox-128: two of one toy, two of more
FRAMES = slice(8, 13)  # in the middle; to decode whole clips would take minutes on a CPU


@pytest.mark.slow
def test_the_bundled_vae_reaches_its_bars():
    from diffusers import AutoencoderKLWan

    from throughmask.toybox import make_sample, split_seeds

    vae = AutoencoderKLWan.from_pretrained(WEIGHTS, use_safetensors=True).float().eval()
    assert sum(parameter.numel() for parameter in vae.parameters()) < 4e6
    samples = [make_sample(split_seeds("toybox-128")[k]) for k in SCENES]
    clips = [(sample.video.frames[FRAMES], sample.trajectory.labels[FRAMES]) for sample in samples]
    report = score_vae(vae, clips, OURS).report()
    print(report)
    assert [bar.value for bar in BARS if "_" not in bar.value and not bar.holds(report)] == []
    # Four scenes say little of a whole split: one toy of an unlucky colour, or one floor, weighs much.
    assert report["worst_iou"] >= 0.85
    # Latents are normalised over whole clips: a clip's first latent frame is unlike the later ones.
    for kind, most in (("pixels", 0.3), ("colours", 0.1)):
        whole = (s.video.frames if kind == "pixels" else OURS.paint(s.trajectory.labels) for s in samples)
        with torch.no_grad():
            latents = [backbone("wan").encode(vae, torch.tensor(clip)[None]) for clip in whole]
        found = sum(map(LatentStatistics.of, latents[1:]), LatentStatistics.of(latents[0]))
        print(kind, found.mean().abs().max(), found.std().min(), found.std().max())
        assert found.mean().abs().max() < most  # 0.1 over 128 scenes: models/toybox/vae/README.md
        assert found.std().min() >= 0.8
        assert found.std().max() <= 1.2
