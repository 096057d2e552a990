"""Named presets: functions that return a whole, frozen config; a key on the command line replaces one field."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import InvalidValueError
from ..toybox.recipes import TRAINING_BYSTANDERS, TRAINING_TWINS
from .config import StageConfig, VAEConfig, WordsConfig

Config = TypeVar("Config")

TWINS = TRAINING_TWINS.start  # scenes with two toys alike, told apart by place
BYSTANDERS = TRAINING_BYSTANDERS.start  # with toys that nobody speaks of: without them a model makes such toys vanish


def toybox_vae() -> VAEConfig:
    """The bundled VAE: base width 40, 4 M parameters, of Toybox's pixels and painted labels alike. For one GPU."""
    return VAEConfig(
        clips="toybox:0..2999",
        steps=200_000,  # time ends it
        minutes=12.0,
        lr=1e-3,
        kl=2e-7,
        snap=0.03,
        balance=0.05,
        dtype="bfloat16",
        channels_last=True,
        compile=True,
        workers=8,
    )


def toybox_words() -> WordsConfig:
    """The bundled text encoder and segmenter, learnt together: what a phrase looks like, and what a text says. For one
    GPU."""
    clips = f"toybox:0..2399,{TWINS}..{TWINS + 599}"
    return WordsConfig(clips=clips, steps=200_000, batch=64, texts=128, absent=0.25, dtype="bfloat16", workers=8)


def toybox_base() -> StageConfig:
    """The bundled text-to-video base, which both stages start from: 7 M parameters, so that both stages, the VAE and
    the word networks are 44 MB together in half precision."""
    return StageConfig(
        stage="base",
        base="",
        data=f"toybox:0..5999,{BYSTANDERS}..{BYSTANDERS + 3999},{TWINS}..{TWINS + 999}",
        out="out/toybox-base",
        cache="out/toybox-latents",
        width=256,
        layers=7,
        heads=4,
        ffn=768,
        variants=2,
        flips=True,
        phrasings=4,
        batch=128,
        lr=1e-3,
        warmup=300,
        decay=0.3,
        compile=True,
    )


def toybox_motion() -> StageConfig:
    """The bundled stage 1. It learns by heart what it sees too often, so it has three times as many scenes as stage 2,
    without their films; its Recipe is `bound`, with one masked block: who does what is told by local prompts."""
    return replace(
        toybox_base(),
        stage="motion",
        recipe="bound",
        blocks=1,
        data=f"toybox:0..17999,{BYSTANDERS}..{BYSTANDERS + 3999},{TWINS}..{TWINS + 1999}",
        films=False,
        variants=1,
        out="out/toybox-motion",
        cache="out/toybox-motion-latents",
        base="out/toybox-base/model",
    )


def toybox_video() -> StageConfig:
    """The bundled stage 2; two of its seven blocks are masked (the paper: a quarter). It reads the base's cache."""
    return replace(toybox_base(), stage="video", out="out/toybox-video", base="out/toybox-base/model", blocks=2)


def toybox_unet_base() -> StageConfig:
    """As `toybox_base`, a U-Net: on the same VAE and text encoder, for as many steps, 7.1 M parameters."""
    return replace(
        toybox_base(),
        backbone="animatediff",
        out="out/toybox-unet-base",
        cache="out/toybox-unet-latents",  # its tokens are smaller
        width=48,
        layers=2,
        ffn=0,
    )


def toybox_unet_motion() -> StageConfig:
    """Stage 1 on that base, of the paper's Recipe."""
    return replace(toybox_unet_base(), stage="motion", out="out/toybox-unet-motion", base="out/toybox-unet-base/model")


def toybox_unet_video() -> StageConfig:
    """Stage 2 on that base, with the paper's six masked blocks."""
    return replace(toybox_unet_motion(), stage="video", out="out/toybox-unet-video", blocks=6)


def paper_dit() -> StageConfig:
    """The paper's DiT (Sec. 10): 4 B parameters, 256×256, 128 frames at 24 fps (129 here: a causal VAE takes 4k + 1),
    K = 10, batch 32, learning rate 2e-5 constant after 2,000 steps of warm-up, 50,000 steps, for either stage.

    Its base is private: `--stage base` trains one of that shape, or `--base` names another. The paper does not say:
    the optimiser, weight decay, averaging, and the width, which follows from 4 B parameters in 40 blocks.
    """
    return StageConfig(
        stage="motion",
        base="out/paper-dit-base/model",
        data="data",
        out="out/paper-dit",
        cache="out/paper-dit-latents",
        width=2560,
        layers=40,
        heads=20,
        ffn=10240,
        blocks=10,
        size=(256, 256),
        frames=129,
        fps="24",
        variants=3,
        batch=32,
        lr=2e-5,
        warmup=2000,
        steps=50_000,
        parallel="fsdp",
        checkpointing=True,
        compile=True,
        held_out="data-held-out",
    )


def paper_unet() -> StageConfig:
    """The paper's U-Net (Sec. 10): AnimateDiff's design, 1.4 B parameters with the text encoder, 512×512, 16 frames at
    about 6 fps, K = 6, v-prediction with zero terminal SNR; batch, learning rate, warm-up and steps as its DiT's.

    Its base is private: ours is Stable Diffusion 1.5 with the motion modules of AnimateDiff v3.
    """
    return replace(
        paper_dit(),
        base="guoyww/animatediff-motion-adapter-v1-5-3",
        backbone="animatediff",
        out="out/paper-unet",
        cache="out/paper-unet-latents",
        blocks=6,
        size=(512, 512),
        frames=16,
        fps="6",
        parallel="ddp",  # it fits on one GPU
        compile=False,  # four resolutions would be compiled apart
    )


def wan_lora() -> StageConfig:
    """Either stage on Wan 2.1 1.3B: adapters on its attention, the new layers and channels in full."""
    return StageConfig(
        stage="motion",
        base="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        data="data",
        out="out/wan-1.3b",
        cache="out/wan-1.3b-latents",
        size=(480, 832),
        frames=81,
        fps="16",
        variants=3,
        steps=5000,
        batch=8,
        accumulate=8,
        lr=1e-4,
        warmup=100,
        lora=32,
        checkpointing=True,
        compile=True,
        save_every=250,
        sheet_every=500,
        log_every=10,
        held_out="data-held-out",
    )


def overfit() -> StageConfig:
    """A few Samples learnt by heart on a CPU: the quickest check that a change still learns."""
    return StageConfig(
        data="synthetic:0..3",
        base="tiny-wan",
        out="out/overfit",
        cache="out/overfit-latents",
        size=(64, 64),
        frames=9,
        batch=4,
        steps=1000,
        lr=3e-3,
        warmup=50,
        decay=0.5,
        drop=0.0,
        dtype="float32",
        ema=0.99,
        save_every=500,
        sheet_every=500,
        held_out="synthetic:0..3",
        workers=0,
    )


PRESETS: dict[str, Callable[[], Any]] = {
    "toybox-vae": toybox_vae,
    "toybox-words": toybox_words,
    "toybox-base": toybox_base,
    "toybox-motion": toybox_motion,
    "toybox-video": toybox_video,
    "toybox-unet-base": toybox_unet_base,
    "toybox-unet-motion": toybox_unet_motion,
    "toybox-unet-video": toybox_unet_video,
    "paper-dit": paper_dit,
    "paper-unet": paper_unet,
    "wan-1.3b-lora": wan_lora,
    "overfit": overfit,
}


def preset(name: str) -> Any:
    """The config of a preset. Raises InvalidValueError for an unknown name, with the nearest one."""
    if name not in PRESETS:
        raise InvalidValueError("there is no such preset", seen=name, fix=_nearest(name, PRESETS))
    return PRESETS[name]()


def override(config: Config, values: Mapping[str, str]) -> Config:
    """A config with fields replaced from text, each read as its field's type.

    Raises InvalidValueError for a key that the config does not have, with the nearest one, and for a value that does
    not read as the field's type.
    """
    hints = typing.get_type_hints(type(config))
    fields = {item.name for item in dataclasses.fields(config)}  # type: ignore[arg-type]
    changes = {}
    for key, text in values.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise InvalidValueError("this preset has no such key", seen=key, fix=_nearest(name, fields))
        changes[name] = _read(text, hints[name], key)
    replaced: Config = dataclasses.replace(config, **changes)  # type: ignore[type-var]
    return replaced


def _read(text: str, kind: Any, key: str) -> Any:
    if isinstance(kind, types.UnionType):  # X | None
        if text.lower() == "none":
            return None
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is tuple:
        return tuple(_read(part, typing.get_args(kind)[0], key) for part in text.split(",") if part)
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise InvalidValueError(f"{key} is true or false", seen=text)
    try:
        return kind(text)
    except ValueError:
        raise InvalidValueError(f"{key} does not read as {kind.__name__}", seen=text) from None


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
