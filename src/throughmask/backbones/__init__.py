"""Base models, one file each: what a stage needs to know about one, behind one protocol.

To add a base model: one file here, its layout in `LAYOUTS`, and its name in the parametrised tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InvalidValueError
from .layouts import AnimateDiffLayout, Beside, WanLayout

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from ..nn.grid import TokenGrid
    from ..nn.guidance import Condition
    from ..nn.objective import Objective

    Components = dict[str, Any]  # tokenizer, text_encoder, vae, scheduler, transformer

# What can be said of each backbone without loading it; the rest is `BACKBONE` in the file of that name.
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (WanLayout(), AnimateDiffLayout())}
# names that `throughmask init --base` knows: the backbone, and the hub id or the name of a tiny random model
BASES = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": "wan",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": "wan",
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": "wan",
    "tiny-wan": "wan",
    "guoyww/animatediff-motion-adapter-v1-5-3": "animatediff",  # on Stable Diffusion 1.5
    "tiny-animatediff": "animatediff",
}


class Layout(Protocol):
    """What decides whether a request fits a model, known before its backbone is loaded.

    base_pipelines: the classes of folders whose weights a stage can start from. beside: of such a class, the repository
    that it is half a base without. schedules: those of stages.sampling that fit. clip: the frames and frames a second
    that these bases were trained on.
    """

    name: str
    components: tuple[str, ...]
    denoiser_class: str
    base_pipelines: tuple[str, ...]
    beside: Mapping[str, Beside]
    schedules: tuple[str, ...]
    clip: tuple[int, str]

    def strides(self, vae_config: dict[str, Any], denoiser_config: dict[str, Any]) -> tuple[int, ...]:
        """Frames that a later latent frame covers, pixels along a (finest) token's side, and what else `grid` needs."""
        ...

    def grid(self, num_frames: int, strides: tuple[int, ...]) -> TokenGrid:
        """Raises InvalidValueError for a number of frames that the model cannot take."""
        ...

    def num_blocks(self, denoiser_config: Mapping[str, Any]) -> int:
        """How many blocks of a base's denoiser can be masked ones."""
        ...

    def default_masked(self, denoiser_config: Mapping[str, Any]) -> int:
        """How many of them are if nobody says (paper Sec. 10)."""
        ...


class Backbone(Layout, Protocol):
    """What differs between base models. Pixels are uint8 B T H W 3; latents B C F Y X float32, normalised by the VAE's
    own statistics."""

    def load(self, folders: Sequence[Path], dtypes: dict[str, torch.dtype]) -> Components:
        """A base's components from its folder and what comes beside it; dtypes: of components that say it."""
        ...

    def base_pipeline(self, components: Components) -> Any:
        """A base as a diffusers pipeline that saves what `load` loads, its denoiser as `transformer`."""
        ...

    def build(self, base: Any, *, cond_latents: int, num_masked_blocks: int, per_frame: bool = False) -> Any:
        """The denoiser of a stage from a base text-to-video denoiser, equal to it until trained. It takes over the
        base's tensors where it can: the base is not used any more. per_frame: masked self-attention joins the tokens of
        one frame only; InvalidValueError where that is not possible."""
        ...

    def tiny(self, seed: int = 0) -> Components:
        """A text-to-video model of random weights, small enough for tests."""
        ...

    def untrained(self, vae: Path, words: Path, *, width: int, layers: int, heads: int, ffn: int) -> Components:
        """A new text-to-video model around a VAE's folder and that of a text encoder with its tokenizer. ffn: how wide
        feed-forwards are, 0 for four times the width."""
        ...

    def latent_shape(self, vae: Any, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """C, F, Y, X."""
        ...

    def encode(self, vae: Any, pixels: Tensor) -> Tensor: ...

    def decode(self, vae: Any, latents: Tensor) -> Tensor: ...

    def encode_text(self, tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Prompts, cut to the longest of them: B S D, and B S, False on padding. Local prompts are taken like this."""
        ...

    def encode_global(self, tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The same for `global_text`: B S D, and B S, True on the states that it needs."""
        ...

    def global_text(self, tokenizer: Any, states: Tensor, mask: Tensor) -> Tensor:
        """Prompts of `encode_global` as the base's own pipeline hands a global prompt to its denoiser: B S D."""
        ...

    def compile(self, denoiser: Any) -> None:
        """Have the parts of a denoiser compiled that repeat in it, for training: the same numbers in less time."""
        ...

    def repeated(self, denoiser: Any) -> Sequence[nn.Module]:
        """The parts of a base's or a stage's denoiser that repeat in it: FSDP shares each on its own."""
        ...

    def num_added(self, denoiser: Any) -> int:
        """Parameters of a stage's denoiser that its base does not have: layers, and weights of added channels."""
        ...

    def objective(self, scheduler: Any) -> Objective: ...

    def plan(self, label: Tensor, size: tuple[int, int, int]) -> Any:
        """What masked self-attention needs of labels B N, tokens of latents of F, Y, X: made once for a trajectory."""
        ...

    def denoise(self, denoiser: Any, latents: Tensor, time: Tensor, condition: Condition, plan: Any) -> Tensor:
        """The denoiser's prediction. latents: noisy, without the condition's visual part; time: B. plan: of the
        condition's label, None if it has none."""
        ...


def backbone(name: str) -> Backbone:
    """A backbone by name, loaded. Raises InvalidValueError for an unknown one."""
    if name not in LAYOUTS:
        raise InvalidValueError("there is no backbone of that name", seen=name, fix=f"known: {', '.join(LAYOUTS)}")
    found: Backbone = importlib.import_module(f".{name}", __name__).BACKBONE
    return found


def layout_of_class(denoiser_class: str) -> Layout:
    """The layout whose denoiser has that class name. Raises InvalidValueError if there is none."""
    for layout in LAYOUTS.values():
        if layout.denoiser_class == denoiser_class:
            return layout
    raise InvalidValueError("no backbone has such a denoiser", seen=denoiser_class)


def autocast_dtype(dtype: torch.dtype) -> torch.dtype:
    """What VAE and text encoder run in: float32 instead of float16, whose range both leave."""
    import torch

    return torch.float32 if dtype == torch.float16 else dtype
