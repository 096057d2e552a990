"""Masks in a picture: SAM 2 through transformers' own class, prompted by boxes, points or masks.

transformers' processor of SAM 2 needs torchvision, so its arithmetic is written out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...connected import Mask, as_labels
from ...errors import InvalidValueError
from ...types import Labels, Pixels
from .device import on_device
from .graphs import Graphs
from .matching import Corners
from .weights import SAM2 as SAM2
from .weights import enough_memory

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours
BOX_CORNERS = (2, 3)  # how SAM 2 labels the points that are a box's corners; 1 is on the object, 0 is not

Dot = tuple[float, float, bool]  # x, y in pixels; whether it is on the object


@dataclass(frozen=True, eq=False)
class Prompt:
    """How an object is shown: by a box (left, top, right, bottom), by points, by both, or by a mask (bool H W)."""

    box: Corners | None = None
    points: tuple[Dot, ...] = ()
    mask: Mask | None = None

    def check(self, size: tuple[int, int]) -> None:
        """Raises InvalidValueError for a prompt that shows nothing, or not in a picture of this height and width."""
        height, width = size
        if (self.mask is not None) == bool(self.box or self.points):
            raise InvalidValueError("an object is shown by a box and points, or by a mask")
        if self.mask is not None and (self.mask.shape != size or not self.mask.any()):
            seen = f"{self.mask.shape}, {int(self.mask.sum())} pixels"
            raise InvalidValueError(f"a mask has its picture's size, {height}×{width}, and is not empty", seen=seen)
        if self.box and not (0 <= self.box[0] < self.box[2] <= width and 0 <= self.box[1] < self.box[3] <= height):
            seen = f"{self.box} in {width} wide, {height} high"
            raise InvalidValueError("a box is left,top,right,bottom, inside the picture", seen=seen)
        for x, y, _ in self.points:
            if not (0 <= x < width and 0 <= y < height):
                seen = f"{x},{y} in {width} wide, {height} high"
                raise InvalidValueError("a point is x,y, inside the picture", seen=seen)

    def sparse(self, size: tuple[int, int], side: int) -> tuple[Tensor, Tensor]:
        """Box corners, then points: coordinates float32 P 2 in a picture of side × side, and labels int32 P."""
        corners = [(*self.box[:2], BOX_CORNERS[0]), (*self.box[2:], BOX_CORNERS[1])] if self.box else []
        rows = torch.tensor([*corners, *self.points], dtype=torch.float32).reshape(-1, 3)
        return scaled(rows[:, :2], size, side), rows[:, 2].to(torch.int32)


def pixel_values(pixels: Pixels, side: int, device: Any = "cpu") -> Tensor:
    """What SAM 2 looks at, of pictures ... H W 3: ... 3 side side float32, resized without regard to the aspect,
    normalised; made on the device, for a CPU takes as long as a fast GPU does for all that follows.
    """
    seen = on_device(torch.from_numpy(np.require(pixels, requirements=("C", "W"))), device)
    values = seen.reshape(-1, *pixels.shape[-3:]).permute(0, 3, 1, 2).float()
    for size in ((pixels.shape[-3], side), (side, side)):  # as PIL has it: across, then down, in bytes both times
        values = F.interpolate(values, size, mode="bilinear", antialias=True).round()
    mean, deviation = (on_device(torch.tensor(row), device)[:, None, None] for row in (MEAN, DEVIATION))
    return ((values / 255 - mean) / deviation).reshape(*pixels.shape[:-3], 3, side, side)


def scaled(coordinates: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Pixel coordinates (... 2, x before y) of a picture of `size`, in one of side × side."""
    return coordinates * torch.tensor([side / size[1], side / size[0]])


def mask_values(mask: Mask, side: int) -> Tensor:
    """A mask as SAM 2 takes it: 1 1 side side, 0 or 1."""
    values = torch.from_numpy(np.ascontiguousarray(mask))[None, None].float()
    if mask.shape == (side, side):
        return values
    return (F.interpolate(values, (side, side), mode="bilinear", antialias=True) >= 0.5).float()


def whole(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask logits L 1 Y X as masks (bool L H W) of the original picture, on the same device."""
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)[:, 0] > 0


def at_size(logits: Tensor, size: tuple[int, int]) -> Mask:
    """The same, on the host."""
    return whole(logits, size).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Sam2:
    """SAM 2 for pictures. model: a Sam2Model, which looks at a picture once and then answers for each object. graphs:
    whether its look is replayed on a GPU of NVIDIA's (see graphs.py), where it must be called from one stream only.
    """

    model: Any
    graphs: bool = False

    def segment(self, image: Pixels, prompts: Mapping[int, Prompt]) -> Labels:
        """Labels uint8 H W: the object of each prompt under its id; overlaps go to the smaller one.

        Raises InvalidValueError for a prompt that is not in the picture, DeviceError if memory does not suffice.
        """
        return as_labels(self.masks(image, prompts), (image.shape[0], image.shape[1]))

    @torch.inference_mode()
    def masks(self, image: Pixels, prompts: Mapping[int, Prompt]) -> dict[int, Mask]:
        """Each object's whole mask, bool H W. Raises as `segment` does."""
        size = (image.shape[0], image.shape[1])
        for prompt in prompts.values():
            prompt.check(size)
        if not prompts:
            return {}
        with enough_memory("SAM 2", self.model.device):
            seen = pixel_values(image, self.side, self.model.device)[None].to(self.model.dtype)
            embeddings = self._graphs(look, seen)
            logits = torch.cat([self._logits(embeddings, prompt, size) for prompt in prompts.values()])
            return dict(zip(prompts, at_size(logits, size), strict=True))

    @cached_property
    def _graphs(self) -> Graphs:
        return Graphs.on(self.model, self.graphs)

    @property
    def side(self) -> int:
        return int(self.model.config.prompt_encoder_config.image_size)

    def _logits(self, embeddings: list[Tensor], prompt: Prompt, size: tuple[int, int]) -> Tensor:
        """Of one object: 1 1 Y X."""
        inputs = self.inputs(prompt, size)
        # One point may mean a part or the whole: of three answers the one that SAM 2 trusts most.
        several = len(prompt.points) == 1 and prompt.box is None
        output = self.model(image_embeddings=embeddings, multimask_output=several, **inputs)
        logits: Tensor = output.pred_masks[0].index_select(1, output.iou_scores[0, 0].argmax(0, keepdim=True))
        return logits

    def inputs(self, prompt: Prompt, size: tuple[int, int]) -> dict[str, Tensor]:
        """The tensors that Sam2Model takes for one object of a picture of `size`."""
        device = self.model.device
        inputs = {}
        if prompt.mask is not None:
            # SAM 2 takes a mask as logits, of the values that it gives to one itself in a video.
            values = mask_values(prompt.mask, self.side) * 20 - 10
            inputs["input_masks"] = values.to(device, self.model.dtype)
        box = prompt.box if prompt.mask is None else bounds(prompt.mask)
        if box is not None:
            corners = torch.tensor(box, dtype=torch.float32).reshape(1, 1, 2, 2)
            inputs["input_boxes"] = scaled(corners, size, self.side).reshape(1, 1, 4).to(device)
        if prompt.points:
            points, labels = Prompt(points=prompt.points).sparse(size, self.side)
            inputs["input_points"] = points[None, None].to(device)
            inputs["input_labels"] = labels[None, None].to(device)
        return inputs


def look(model: Any, pixels: Tensor) -> list[Tensor]:
    """What SAM 2 sees in a picture 1 3 S S. A pure function of tensors: it may be recorded and replayed."""
    return list(model.get_image_embeddings(pixels))


def bounds(mask: Mask) -> Corners:
    """The box of a mask that is not empty, as edges."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
