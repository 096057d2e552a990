"""Pictures of any kind and size as a model can take them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import media
from ..errors import InvalidValueError
from ..types import Pixels, Scene

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = str | Path | Pixels | Image  # an array is uint8 H W 3

MOST_PROPORTION = 4  # of a picture's sides, where the model learnt pictures of one size


def read_pixels(image: Picture) -> Pixels:
    """A picture from a file, an array or Pillow's Image as uint8 H W 3. Raises MediaError or InvalidValueError."""
    if isinstance(image, str | Path):
        return media.read_image(image)
    pixels = np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGB"))
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise InvalidValueError("a picture must be uint8 H W 3, not empty", seen=f"{pixels.dtype} {pixels.shape}")
    return pixels


def fitting_size(size: tuple[int, int], patch: int, learnt: tuple[int, int] | None) -> tuple[int, int]:
    """The height and width at which a picture is shown to a model: near its own proportions, sides divide by `patch`.

    learnt: the size of the pictures that the model learnt from; it is shown as many pixels. None: the picture's own.
    Raises InvalidValueError for a picture that is much longer than it is wide.
    """
    scale = 1.0
    if learnt is not None:
        if max(size) > MOST_PROPORTION * min(size):
            fix = "crop it, or give a size (--size) to stretch it to"
            problem = f"one side of the picture is more than {MOST_PROPORTION} times the other"
            raise InvalidValueError(problem, seen=f"{size[0]}×{size[1]}", fix=fix)
        scale = (learnt[0] * learnt[1] / (size[0] * size[1])) ** 0.5
    height, width = (max(1, round(side * scale / patch)) * patch for side in size)
    return height, width


def resized_scene(scene: Scene, size: tuple[int, int]) -> tuple[Scene, list[str]]:
    """A Scene at another height and width, and what a person should know of it."""
    if size == scene.size:
        return scene, []
    labels = media.resize_labels(scene.labels, size)
    new = replace(scene, image=media.resize(scene.image, size), labels=labels)
    (height, width), text = scene.size, f"{size[0]}×{size[1]}"
    notes = [f"The picture was resized from {height}×{width} to {text} (Lanczos), its masks with it (nearest pixel)."]
    if abs(size[0] * width / (size[1] * height) - 1) > 0.02:
        notes.append(f"{text} has other proportions than {height}×{width}: the picture was stretched.")
    lost = [thing.id for thing in scene.objects if (scene.labels == thing.id).any() and not (labels == thing.id).any()]
    if lost:
        notes.append(f"Objects {lost} are too small to be seen at {text}.")
    return new, notes
