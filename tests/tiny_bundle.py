"""A model of both stages with a segmenter, tiny and of random weights; and a picture with its masks."""

from pathlib import Path

import numpy as np
import torch

from throughmask.perception.segmenter import PhraseSegmenter
from throughmask.stages.bundle import Habits, make_bundle
from throughmask.stages.init import make_stage, save_stage

FRAMES, STEPS = 5, 2
PROMPT = "the red ball rolls to the left while the blue block stays still"
ONE = "the red ball rolls to the left"


def make_tiny_bundle(folder: Path) -> Path:
    """folder/model. Its segmenter finds the first object of a prompt everywhere."""
    save_stage(make_stage("tiny-wan", "motion", frames=FRAMES), folder / "motion")
    save_stage(make_stage("tiny-wan", "video", frames=FRAMES, num_masked_blocks=1), folder / "video")
    torch.manual_seed(0)
    segmenter = PhraseSegmenter(text_dim=32, widths=(8, 8, 16, 16), num_blocks=1, num_heads=2)
    torch.nn.init.zeros_(segmenter.conv_out.weight)
    torch.nn.init.ones_(segmenter.conv_out.bias)
    segmenter.save_pretrained(folder / "words" / "segmenter")
    habits = Habits(steps=STEPS)
    make_bundle(folder / "model", folder / "motion", folder / "video", words=folder / "words", habits=habits)
    return folder / "model"


def hollow(model: Path) -> None:
    """Take the content out of a model's weights: whoever loads them fails."""
    for path in model.rglob("*.safetensors"):
        path.write_bytes(b"nothing")


def picture() -> tuple[np.ndarray, np.ndarray]:
    """Pixels 32 48 3 and labels 32 48 of a ball and a block."""
    pixels, labels = np.full((32, 48, 3), 200, np.uint8), np.zeros((32, 48), np.uint8)
    labels[4:14, 30:42], labels[10:24, 4:16] = 1, 2
    pixels[labels == 1], pixels[labels == 2] = (200, 30, 30), (30, 40, 200)
    return pixels, labels
