"""The command `doctor`: what this machine has, and what is missing."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer

from .. import __version__
from .shell import Answer, command

PACKAGES = ("numpy", "pillow", "av", "torch", "diffusers", "transformers")  # what the project cannot do without
OPTIONAL = ("mujoco", "scenedetect", "ray", "tensorboard", "scipy", "fastapi")
CODECS = ("libx264", "libx264rgb")


def add_to(app: typer.Typer) -> None:
    command(app, "doctor")(doctor)


def doctor() -> Answer:
    """Report what this machine has and what is missing (status 1)."""
    packages = {name: _version(name) for name in PACKAGES}
    devices, device_problem = _devices() if packages["torch"] else ([], "torch is not installed")
    codecs = _codecs() if packages["av"] else dict.fromkeys(CODECS, False)
    graphics = {name: ctypes.util.find_library(name) is not None for name in ("EGL", "OSMesa")}
    cache = _cache()
    problems = [f"{name} is not installed: pip install {name}" for name, found in packages.items() if not found]
    problems += [
        f"PyAV lacks the codec {name}: reinstall av from its wheels" for name, has in codecs.items() if not has
    ]
    if device_problem and packages["torch"]:
        problems.append(device_problem)
    if not cache["writable"]:
        problems.append(f"the cache folder {cache['path']} cannot be written to: set HF_HOME to one that can")
    data = {
        "throughmask": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "optional_packages": {name: _version(name) for name in OPTIONAL},
        "devices": devices,
        "graphics": graphics,
        "codecs": codecs,
        "cache": cache,
        "problems": problems,
    }
    return Answer(data, _lines(data), status=1 if problems else 0)


def _lines(data: dict[str, Any]) -> list[str]:
    def listed(items: dict[str, Any]) -> str:
        words = {True: "yes", False: "no", None: "not installed"}
        return ", ".join(f"{name} {words.get(found, found)}" for name, found in items.items())

    cache = data["cache"]
    state = "writable" if cache["writable"] else "NOT writable"
    lines = [
        f"throughmask  {data['throughmask']} on Python {data['python']}, {data['platform']}",
        f"packages     {listed(data['packages'])}",
        f"optional     {listed(data['optional_packages'])}",
        f"devices      {', '.join(data['devices']) or 'none'}",
        f"OpenGL       {listed(data['graphics'])} (one of them renders without a screen)",
        f"codecs       {listed(data['codecs'])}",
        f"cache        {cache['path']}, {state}, {cache['free_gb']} GB free",
    ]
    return lines + [f"problem: {text}" for text in data["problems"]] + ["all is well"] * (not data["problems"])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> tuple[list[str], str]:
    """Names of what torch can compute on, and what is wrong with torch, if anything."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of a broken installation
        return [], f"torch cannot be imported: {error}"
    found = [f"cpu ({os.cpu_count()} cores)"]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} ({card.name}, {card.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found, ""


def _codecs() -> dict[str, bool]:
    import av

    return {name: name in av.codecs_available and _encodes(name) for name in CODECS}


def _encodes(name: str) -> bool:
    import av

    try:
        av.Codec(name, "w")
    except ValueError:  # known by name, but for reading only
        return False
    return True


def _cache() -> dict[str, Any]:
    """Where weights are kept (Hugging Face's cache), looked at without making it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    path = Path(home).expanduser().absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return {"path": str(path), "writable": writable, "free_gb": round(shutil.disk_usage(there).free / 1e9, 1)}
