"""The quickest proof that data, VAE, training and sampling fit together: stages that learn four clips by heart."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import losses_of
from tiny_words import save_tiny_words

from throughmask.evaluate.segmentation import region_similarity
from throughmask.stages.image_to_motion import ImageToMotionPipeline
from throughmask.stages.motion_to_video import MotionToVideoPipeline
from throughmask.synthetic import make_sample
from throughmask.train.presets import overfit
from throughmask.train.stage import train_stage

SIZE, FRAMES, SEEDS = (128, 128), 9, range(4)
# Nothing was dropped in training, so that there is no branch to guide with.
SAMPLING = {"steps": 5, "guidance": (1, 1)}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overfit")
    return replace(
        overfit(),
        data=f"synthetic:{SEEDS[0]}..{SEEDS[-1]}",
        base="",
        words=str(save_tiny_words(folder / "words")),
        cache=str(folder / "cache"),
        width=128,
        layers=4,
        heads=2,
        ffn=384,
        size=SIZE,
        frames=FRAMES,
        steps=450,
        log_every=1,
        sheet_every=0,
    )


@pytest.fixture(scope="module")
def samples():
    return [make_sample(seed, size=SIZE, frames=FRAMES) for seed in SEEDS]


def learnt(config, folder):
    """Trains; the share of the first loss that is left."""
    train_stage(replace(config, out=str(folder)), say=lambda text: None)
    losses = losses_of(folder)
    return np.mean(losses[-50:]) / losses[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stage_1_learns_four_clips_by_heart(config, samples, tmp_path):
    left = learnt(replace(config, stage="motion"), tmp_path / "run")
    pipeline = ImageToMotionPipeline.from_pretrained(tmp_path / "run" / "model")
    pipeline.set_progress_bar_config(disable=True)
    found = []
    for sample in samples:
        (made,) = pipeline.move(sample.scene, frames=FRAMES, **SAMPLING)
        truth, labels = sample.trajectory.labels[1:], made.labels[1:]  # the first frame was given
        found += [region_similarity(truth == id, labels == id).mean() for id in sample.scene.ids]
    print(f"loss {left:.2%}, IoU {np.round(found, 3)}")
    assert left <= 0.05
    assert np.mean(found) >= 0.9  # the VAE itself reaches 0.949 on these
    weights = next((tmp_path / "run" / "model" / "vae").glob("*.safetensors"))
    assert weights.stat().st_size < 8e6  # it came in half precision, and stays so


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stage_2_learns_four_clips_by_heart(config, samples, tmp_path):
    left = learnt(replace(config, stage="video"), tmp_path / "run")
    pipeline = MotionToVideoPipeline.from_pretrained(tmp_path / "run" / "model")
    pipeline.set_progress_bar_config(disable=True)
    found = []
    for sample in samples:
        made = pipeline.render(sample.scene, sample.trajectory, **SAMPLING)
        error = (made.frames.astype(float) - sample.video.frames) / 255
        found.append(-10 * np.log10(np.square(error).mean()))
    print(f"loss {left:.2%}, PSNR {np.round(found, 2)}")
    assert left <= 0.05
    assert np.mean(found) >= 25  # the VAE itself reaches 27.2 on these
