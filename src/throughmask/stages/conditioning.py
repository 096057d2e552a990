"""Scene (+ motion) -> what the network sees: the one builder, for sampling and training (paper Sec. 3.2, Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from diffusers.utils.torch_utils import get_module_execution_device
from torch import Tensor

from ..backbones import Backbone
from ..nn.guidance import Condition
from ..nn.regions import first_regions, token_regions
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


class Seen(NamedTuple):
    """What masked layers are told, as Condition has it: label B N, sees B N L, local B L S D, key_mask B L S."""

    label: Tensor | None = None
    sees: Tensor | None = None
    local: Tensor | None = None
    key_mask: Tensor | None = None


NOTHING = Seen()


def motion_condition(info: StageInfo, encoders: Encoders, scene: Scene, frames: int, repeat: Repeat) -> Condition:
    """Stage 1's condition for a Scene. Batch of one."""
    first, image = (
        still_latents(info.backbone, encoders.vae, picture, frames, repeat)
        for picture in (info.palette.paint(scene.labels), scene.image)
    )
    _, F, _, _ = info.backbone.latent_shape(encoders.vae, frames, *scene.size)
    text = global_prompt(info.backbone, encoders, scene.motion_prompt or scene.prompt)
    if not info.recipe.bind:
        return join_motion(info.recipe, first, image, text, F)
    found = first_regions(torch.tensor(scene.labels)[None], info.grid(frames), max(scene.ids, default=0))
    return join_motion(info.recipe, first, image, text, F, _seen(info, encoders, scene, found, image.device))


def video_condition(
    info: StageInfo,
    encoders: Encoders,
    scene: Scene,
    motion: MaskTrajectory | Video | None,
    frames: int,
    repeat: Repeat,
) -> Condition:
    """Stage 2's condition for a Scene and what the Recipe renders. Batch of one."""
    backbone = info.backbone
    image = still_latents(backbone, encoders.vae, scene.image, frames, repeat)
    latents = None
    if motion is not None and info.recipe.motion != "none":
        pixels = motion.frames if isinstance(motion, Video) else info.palette.paint(motion.labels)
        latents = encode(backbone, encoders.vae, pixels)
    text = global_prompt(backbone, encoders, scene.prompt)
    _, F, _, _ = backbone.latent_shape(encoders.vae, frames, *scene.size)
    if not isinstance(motion, MaskTrajectory):
        return join_video(info.recipe, image, latents, text, F)
    found = regions(info, motion.labels, scene.ids)
    return join_video(info.recipe, image, latents, text, F, _seen(info, encoders, scene, found, image.device))


def join_motion(
    recipe: Recipe,
    first: Tensor,
    image: Tensor,
    text_BSD: Tensor,
    num_latent_frames: int,
    seen: Seen = NOTHING,
) -> Condition:
    """Stage 1: [E(s⁰); E(x⁰)] at every frame (paper Fig. 2), and the motion prompt; in a Recipe that binds, frame 0's
    labels, boxes and local prompts.

    first, image: B C F Y X, or with F = 1 to be repeated in time. The one builder, for sampling and training.
    """
    visual = torch.cat([_in_time(first, num_latent_frames), _in_time(image, num_latent_frames)], dim=1)
    condition = Condition(visual, text_BSD)
    return _masked(recipe, condition, seen) if recipe.bind else condition


def join_video(
    recipe: Recipe,
    image: Tensor,
    motion: Tensor | None,
    text_BSD: Tensor,
    num_latent_frames: int,
    seen: Seen = NOTHING,
) -> Condition:
    """Stage 2: [E(x⁰); E(ŝ)], the prompt, and as far as the Recipe masks: labels, boxes and local prompts.

    image: B C F Y X, or with F = 1 to be repeated in time; motion: B C F Y X, None for zeros. The one builder, for
    sampling and training.
    """
    image = _in_time(image, num_latent_frames)
    condition = Condition(torch.cat([image, torch.zeros_like(image) if motion is None else motion], dim=1), text_BSD)
    return _masked(recipe, condition, seen)


def _masked(recipe: Recipe, condition: Condition, seen: Seen) -> Condition:
    """The condition with what the Recipe's masked layers need."""
    if recipe.mask_self:
        condition = condition._replace(label=seen.label)
    if recipe.mask_cross:
        condition = condition._replace(sees=seen.sees, local=seen.local, key_mask=seen.key_mask)
    return condition


def _seen(
    info: StageInfo, encoders: Encoders, scene: Scene, found: tuple[Tensor, Tensor], device: torch.device
) -> Seen:
    """Labels and boxes on the token grid, and local prompts with their key mask where the Recipe reads them."""
    label, sees = (part.to(device) for part in found)
    if not info.recipe.mask_cross:
        return Seen(label, sees)
    return Seen(label, sees, *local_prompts(info.backbone, encoders, scene, sees.shape[2]))


def global_prompt(backbone: Backbone, encoders: Encoders, prompt: str) -> Tensor:
    """A global prompt as the denoiser takes it: B S D, B = 1."""
    states = backbone.encode_global(encoders.tokenizer, encoders.text_encoder, [prompt])
    return backbone.global_text(encoders.tokenizer, *states)


def regions(info: StageInfo, labels_THW: Labels, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Labels on the pixel grid -> label_BN and sees_BNL on the token grid, B = 1 (nn.regions has the rule)."""
    return token_regions(torch.tensor(labels_THW)[None], info.grid(len(labels_THW)), max(ids, default=0))


def local_prompts(backbone: Backbone, encoders: Encoders, scene: Scene, columns: int) -> tuple[Tensor, Tensor]:
    """Local prompts, B L S D, and their key mask, B L S; B = 1. Column l is id l+1; an absent id is masked."""
    prompts = {thing.id: thing.prompt for thing in scene.objects}
    texts = [prompts.get(index + 1, "") for index in range(columns)]
    # With no object one empty prompt is encoded for its width, then dropped.
    states, mask = backbone.encode_text(encoders.tokenizer, encoders.text_encoder, texts or [""])
    present = torch.tensor([index + 1 in prompts for index in range(columns)], dtype=torch.bool, device=mask.device)
    return states[None, :columns], (mask[:columns] & present[:, None])[None]


def still_latents(backbone: Backbone, vae: Any, picture: Pixels, frames: int, repeat: Repeat) -> Tensor:
    """E of a picture that stands at every frame: B C 1 Y X to be repeated in time, or B C F Y X; B = 1.

    Paper Fig. 2 repeats it in time and does not say where. By default its latent is repeated, encoded once as a
    one-frame video (0.4 s instead of 3 s on 2 cores); "pixels" encodes the still video.
    """
    pictures = torch.tensor(picture, device=get_module_execution_device(vae))[None]
    return encode_stills(backbone, vae, pictures, frames, repeat)


@torch.no_grad()
def encode_stills(backbone: Backbone, vae: Any, pictures_BHW3: Tensor, frames: int, repeat: Repeat) -> Tensor:
    """As `still_latents`, of several pictures (uint8, on the VAE's device)."""
    count = frames if repeat == "pixels" else 1
    return backbone.encode(vae, pictures_BHW3[:, None].expand(-1, count, -1, -1, -1))


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


def _in_time(still: Tensor, num_latent_frames: int) -> Tensor:
    return still.expand(-1, -1, num_latent_frames, -1, -1)
