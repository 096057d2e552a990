"""The command `train`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from ..errors import InvalidValueError
from .shell import Answer, as_json_now, command


def add_to(app: typer.Typer) -> None:
    extra = {"allow_extra_args": True, "ignore_unknown_options": True}  # the preset's own keys
    command(app, "train", context_settings=extra)(train)


def train(
    context: typer.Context, preset: Annotated[str, typer.Argument(help="Such as toybox-vae; see docs/train.md.")]
) -> Answer:
    """Train a preset; --KEY VALUE replaces a field of its config. Start it with torchrun to use several GPUs."""
    from ..train import presets

    config = presets.override(presets.preset(preset), _pairs(context.args))
    say = (lambda text: None) if as_json_now.get() else (lambda text: typer.echo(text, err=True))
    result = _trainers()[type(config)](config, say)
    if int(os.environ.get("RANK", 0)):  # torchrun's: of several processes the first one answers
        raise typer.Exit
    reached = "nothing was left to do" if result["loss"] is None else f"loss {result['loss']:.4f}"
    return Answer(
        {"out": config.out, "config": dataclasses.asdict(config), **result},
        [f"{config.out}: {result['steps']} steps, {result['minutes']:.1f} minutes, {reached}"],
    )


def _trainers() -> dict[type, Callable[..., dict[str, Any]]]:
    """What trains each type of config."""
    from ..evaluate.quick import quick_motion_accuracy
    from ..train.config import StageConfig, VAEConfig, WordsConfig
    from ..train.stage import train_stage
    from ..train.vae import train_vae
    from ..train.words import train_words

    return {
        VAEConfig: train_vae,
        WordsConfig: train_words,
        StageConfig: partial(train_stage, judge=quick_motion_accuracy),
    }


def _pairs(words: list[str]) -> dict[str, str]:
    """--key value, or --key=value."""
    pairs: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            raise InvalidValueError("training takes --KEY VALUE pairs", seen=word)
        key, equals, value = word[2:].partition("=")
        if not equals:
            found = next(rest, None)
            if found is None:
                raise InvalidValueError(f"--{key} needs a value", fix=f"--{key} VALUE")
            value = found
        pairs[key] = value
    return pairs
