"""Named presets: functions that return a whole, frozen config; a key on the command line replaces one field."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..errors import InvalidValueError
from .vae import VAEConfig

Config = TypeVar("Config")


def toybox_vae() -> VAEConfig:
    """The bundled VAE: base width 16, 2.6 M parameters, of Toybox's pixels and painted labels alike."""
    return VAEConfig()


PRESETS: dict[str, Callable[[], Any]] = {"toybox-vae": toybox_vae}


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
