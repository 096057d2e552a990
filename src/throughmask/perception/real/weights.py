"""Public models by name: found in a folder, the cache or on the hub, and said to be large before they come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InvalidValueError, SampleError
from ...hub import Say, download

PATTERNS = ["*.json", "*.safetensors", "*.txt"]  # no pickles: the same weights lie beside them once more


def silent(text: str) -> None:
    """A Say for those who do not listen."""


def find_model(name: str, kinds: Sequence[str], *, say: Say = silent) -> Path:
    """The folder of a transformers model, downloaded if need be; `say` hears how much before it comes.

    name: a hub id, or a folder. kinds: the model types of config.json that will do. HF_HUB_OFFLINE is respected.

    Raises InvalidValueError for a name that cannot be one, SampleError for another kind of model, or one not to be had.
    """
    folder = Path(name)
    if not folder.is_dir():
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            fix = "give a hub id such as facebook/sam2.1-hiera-large, or a folder that holds the model"
            raise InvalidValueError("there is no such model", seen=name, fix=fix)
        folder = download(name, PATTERNS, say)
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SampleError(f"{name} is no transformers model: config.json does not say of which type it is") from None
    if kind not in kinds:
        raise SampleError(f"{name} is another kind of model", seen=kind, fix=f"it must be {' or '.join(kinds)}")
    return folder


def load_whole(cls: Any, folder: Path, **options: Any) -> Any:
    """cls.from_pretrained, from safetensors only. Raises SampleError if weights are damaged, missing or misshapen."""
    from safetensors import SafetensorError

    try:
        model, info = cls.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **options)
    except (OSError, RuntimeError, SafetensorError) as error:
        fix = "copy the whole folder again, or download it again"
        raise SampleError(f"{folder} cannot be loaded", seen=str(error).strip().split("\n")[0], fix=fix) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise SampleError(f"{folder} lacks weights of {cls.__name__}", seen=f"{len(missing)}, such as {missing[0]}")
    return model.eval()
