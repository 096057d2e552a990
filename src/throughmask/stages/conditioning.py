"""Scene (+ motion) -> what the network sees: the one builder, for sampling and training (paper Sec. 3.2, Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from diffusers.utils.torch_utils import get_module_execution_device
from torch import Tensor

from ..backbones import Backbone
from ..nn.guidance import Condition
from ..nn.regions import token_regions
from ..palette import Palette
from ..types import Labels, MaskTrajectory, Pixels, Scene, Video
from .checkpoint import StageInfo
from .recipes import Recipe

Repeat = Literal["latents", "pixels"]
REPEATS = ("latents", "pixels")


@dataclass(frozen=True)
class Encoders:
    """The frozen networks that turn a Scene into tensors."""

    tokenizer: Any
    text_encoder: Any
    vae: Any


def motion_condition(info: StageInfo, encoders: Encoders, scene: Scene, frames: int, repeat: Repeat) -> Condition:
    """Stage 1: [E(s⁰); E(x⁰)] at every frame, and the motion prompt. Batch of one."""
    first = info.palette.paint(scene.labels)
    visual = torch.cat(
        [still_latents(info.backbone, encoders.vae, picture, frames, repeat) for picture in (first, scene.image)], dim=1
    )
    prompt = scene.motion_prompt or scene.prompt
    return Condition(visual, info.backbone.encode_prompt(encoders.tokenizer, encoders.text_encoder, [prompt]))


def video_condition(
    info: StageInfo,
    encoders: Encoders,
    scene: Scene,
    motion: MaskTrajectory | Video | None,
    frames: int,
    repeat: Repeat,
) -> Condition:
    """Stage 2: [E(x⁰); E(ŝ)], the prompt, and for masked attention labels, boxes and local prompts. Batch of one."""
    backbone, recipe = info.backbone, info.recipe
    image = still_latents(backbone, encoders.vae, scene.image, frames, repeat)
    if motion is None or recipe.motion == "none":
        visual = torch.cat([image, torch.zeros_like(image)], dim=1)
    else:
        pixels = motion.frames if isinstance(motion, Video) else info.palette.paint(motion.labels)
        visual = torch.cat([image, encode(backbone, encoders.vae, pixels)], dim=1)
    text = backbone.encode_prompt(encoders.tokenizer, encoders.text_encoder, [scene.prompt])
    condition = Condition(visual, text)
    if not isinstance(motion, MaskTrajectory):
        return condition
    label, sees = regions(info, motion.labels, scene.ids)
    return add_regions(condition, recipe, backbone, encoders, scene, label.to(visual.device), sees.to(visual.device))


def add_regions(
    condition: Condition,
    recipe: Recipe,
    backbone: Backbone,
    encoders: Encoders,
    scene: Scene,
    label_BN: Tensor,
    sees_BNL: Tensor,
) -> Condition:
    """What masked attention needs, as far as the Recipe masks."""
    if recipe.mask_self:
        condition = condition._replace(label=label_BN)
    if recipe.mask_cross:
        local, key_mask = local_prompts(backbone, encoders, scene, sees_BNL.shape[2])
        condition = condition._replace(sees=sees_BNL, local=local, key_mask=key_mask)
    return condition


def regions(info: StageInfo, labels_THW: Labels, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Labels on the pixel grid -> label_BN and sees_BNL on the token grid, B = 1 (nn.regions has the rule)."""
    return token_regions(torch.tensor(labels_THW)[None], info.grid(len(labels_THW)), max(ids, default=0))


def local_prompts(backbone: Backbone, encoders: Encoders, scene: Scene, columns: int) -> tuple[Tensor, Tensor]:
    """Local prompts, B L S D, and their key mask, B L S; B = 1. Column l is id l+1; an absent id is masked."""
    prompts = {thing.id: thing.prompt for thing in scene.objects}
    texts = [prompts.get(index + 1, "") for index in range(columns)]
    # With no object one empty prompt is encoded for its width, then dropped.
    states, mask = backbone.encode_local(encoders.tokenizer, encoders.text_encoder, texts or [""])
    present = torch.tensor([index + 1 in prompts for index in range(columns)], dtype=torch.bool, device=mask.device)
    return states[None, :columns], (mask[:columns] & present[:, None])[None]


def still_latents(backbone: Backbone, vae: Any, picture: Pixels, frames: int, repeat: Repeat) -> Tensor:
    """E of a picture that stands at every frame: B C F Y X, B = 1.

    Paper Fig. 2 repeats it in time and does not say where. By default its latent is repeated, encoded once as a
    one-frame video (0.4 s instead of 3 s on 2 cores); "pixels" encodes the still video.
    """
    if repeat == "pixels":
        return encode(backbone, vae, np.repeat(picture[None], frames, axis=0))
    _, F, _, _ = backbone.latent_shape(vae, frames, *picture.shape[:2])
    return encode(backbone, vae, picture[None]).expand(-1, -1, F, -1, -1)


@torch.no_grad()
def encode(backbone: Backbone, vae: Any, pixels_THW3: Pixels) -> Tensor:
    """Pixels or colours -> normalised latents, B = 1, on the VAE's device."""
    return backbone.encode(vae, torch.tensor(pixels_THW3, device=get_module_execution_device(vae))[None])


@torch.no_grad()
def decode(backbone: Backbone, vae: Any, latents: Tensor) -> list[Pixels]:
    """Normalised latents B C F Y X -> pixels or colours, one T H W 3 for each sample (one at a time: memory)."""
    device = get_module_execution_device(vae)
    return [backbone.decode(vae, sample[None].to(device))[0].cpu().numpy() for sample in latents]


def palette_of(info: StageInfo, scene: Scene) -> Palette:
    """The colours of a scene's own objects: a blend of two then never becomes a third that is not there."""
    rows = [0, *scene.ids]
    return Palette(info.palette.name, info.palette.colours[rows])
