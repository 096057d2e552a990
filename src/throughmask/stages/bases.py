"""Base text-to-video models by name: found in a folder, the cache or on the hub, before torch is loaded."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..backbones import BASES, LAYOUTS
from ..errors import InvalidValueError, SampleError
from ..hub import Say, download

WEIGHTS = ("*.json", "*.safetensors", "*.model", "*.txt")
CONFIGURATIONS = ["*.json", "*/*.json"]
PATTERNS = [*WEIGHTS, *(f"*/{pattern}" for pattern in WEIGHTS)]


class Base(NamedTuple):
    """The backbone's name; the folder, None for a tiny model of random weights; the denoiser's configuration; and the
    folder of what comes beside it (see backbones.Layout)."""

    backbone: str
    folder: Path | None
    denoiser: dict[str, Any]
    beside: Path | None = None


def find_base(base: str, *, frames: int | None = None, say: Say = lambda text: None) -> Base:
    """Find a base model, downloading it if need be; `say` hears how much before it comes.

    base: a hub id, a folder of a diffusers text-to-video pipeline or of a motion adapter, or a name of backbones.BASES.
    frames: of the clips that it is wanted for. What it is, and whether it takes them, is known from its configuration
    alone: gigabytes come only after that.

    Raises InvalidValueError for a name that cannot be one and for frames that it cannot take, SampleError for what is
    no such model, or cannot be had.
    """
    if base.startswith("tiny-") and base in BASES:
        return Base(BASES[base], None, {})
    folder = Path(base)
    here = folder.is_dir()
    if not here:
        if base not in BASES and (base.count("/") != 1 or base.startswith((".", "/", "~"))):
            fix = f"known names: {', '.join(BASES)}; or a hub id, or a folder of a diffusers pipeline"
            raise InvalidValueError("there is no such base model", seen=base, fix=fix)
        folder = download(base, CONFIGURATIONS, lambda _: None)
    part = not (folder / "model_index.json").is_file() and (folder / "config.json").is_file()
    own = _read_json(folder / ("config.json" if part else "model_index.json"), base)
    kind = own.get("_class_name", "")
    layout = next((layout for layout in LAYOUTS.values() if kind in layout.base_pipelines), None)
    if layout is None:
        known = ", ".join(name for layout in LAYOUTS.values() for name in layout.base_pipelines)
        raise SampleError(f"{base} is not a text-to-video pipeline that we know", seen=kind, fix=f"known: {known}")
    repo, files = layout.beside.get(kind, ("", ()))
    beside = download(repo, [name for name in files if name.endswith(".json")], lambda _: None) if repo else None
    holder, whose = (folder, base) if beside is None else (beside, repo)
    denoiser = _read_json(holder / ("unet" if (holder / "unet").is_dir() else "transformer") / "config.json", whose)
    if beside is not None:
        denoiser = {**own, **denoiser}  # what it says of motion modules
    if frames is not None:
        vae = _read_json(holder / "vae" / "config.json", whose)
        with suppress(KeyError):  # what a configuration leaves out is known when the model is there
            layout.grid(frames, layout.strides(vae, denoiser))
    if not here:
        download(base, PATTERNS, say)
    if repo:
        download(repo, files, say)
    return Base(layout.name, folder, denoiser, beside)


def _read_json(path: Path, base: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        name = f"{path.parent.name}/{path.name}" if path.parent.name in ("transformer", "unet", "vae") else path.name
        reason = f"it has no {name}" if isinstance(error, FileNotFoundError) else f"its {name} cannot be read"
        raise SampleError(f"{base} is not a diffusers pipeline: {reason}", fix="name a whole pipeline") from None
    if not isinstance(data, dict):
        raise SampleError(f"{base} is not a diffusers pipeline: {path.name} is no JSON object", seen=data)
    return data
