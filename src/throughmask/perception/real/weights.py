"""Public models by name: found in a folder, the cache or on the hub, and said to be large before they come.

What goes wrong with them ends in one sentence: they are missing, damaged, of another kind, or do not fit the device.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import DeviceError, InvalidValueError, SampleError, ThroughMaskError
from ...hub import Say, download

GROUNDING_DINO = "IDEA-Research/grounding-dino-base"
SAM2 = "facebook/sam2.1-hiera-large"
THRESHOLD = 0.25  # of both scores of Grounding DINO; see detect.py
# no pickles: the same weights lie beside them once more
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
# In GB, of the files above, by the parameters in float32; asked when a hub cannot be.
LARGE = {
    SAM2: 0.9,
    "facebook/sam2.1-hiera-tiny": 0.16,
    GROUNDING_DINO: 0.93,
    "IDEA-Research/grounding-dino-tiny": 0.7,
}
FULL = re.compile(r"out of memory|can't allocate memory|not enough memory|invalid buffer size", re.I)


def silent(text: str) -> None:
    """A Say for those who do not listen."""


def find_model(name: str, kinds: Sequence[str] = (), *, say: Say = silent) -> Path:
    """The folder of a transformers model, downloaded if need be; `say` hears how much before it comes.

    name: a hub id, or a folder. kinds: the model types of config.json that will do; none: any. HF_HUB_OFFLINE is
    respected.

    Raises InvalidValueError for a name that cannot be one, SampleError for another kind of model, or one not to be had.
    """
    folder = Path(name)
    if not folder.is_dir():
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            fix = "give a hub id, OWNER/NAME, or a folder that holds the model"
            raise InvalidValueError("there is no such model", seen=name, fix=fix)
        try:
            folder = download(name, PATTERNS, say)
        except SampleError as error:
            if name not in LARGE:
                raise
            fix = f"{error.fix}; it is {LARGE[name]:g} GB: hf download {name} --local-dir FOLDER, where there is a hub"
            raise SampleError(error.problem, seen=error.seen, fix=fix) from None
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SampleError(f"{name} is no transformers model: config.json does not say of which type it is") from None
    if kinds and kind not in kinds:
        raise SampleError(f"{name} is another kind of model", seen=kind, fix=f"it must be {' or '.join(kinds)}")
    return folder


@contextmanager
def enough_memory(what: str, device: object) -> Iterator[None]:
    """Turn what each kind of device says when its memory is full into a DeviceError about `what`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's OutOfMemoryError is a RuntimeError
        if not isinstance(error, MemoryError) and not FULL.search(str(error)):
            raise
        fix = "take a smaller model, or the CPU (--device cpu)"
        raise DeviceError(f"{what} does not fit the device's memory", seen=str(device), fix=fix) from error


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Turn whatever transformers says of files that it cannot use into a SampleError."""
    from safetensors import SafetensorError

    damaged = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, SafetensorError)
    try:
        with enough_memory(str(folder), "while it was loaded"):
            yield
    except ThroughMaskError:
        raise
    except Exception as error:
        # What a configuration with impossible values raises is of the hub's client, which only hub.py imports.
        if not isinstance(error, damaged) and type(error).__module__ != "huggingface_hub.errors":
            raise
        fix = "copy the whole folder again, or download it again"
        raise SampleError(f"{folder} cannot be loaded", seen=str(error).strip().split("\n")[0], fix=fix) from error


def load_whole(cls: Any, folder: Path, device: str = "cpu", **options: Any) -> Any:
    """cls.from_pretrained on its device, from safetensors only.

    Raises SampleError if weights are damaged, missing or misshapen, DeviceError if they do not fit.
    """
    with loading(folder):
        model, info = cls.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **options)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise SampleError(f"{folder} lacks weights of {cls.__name__}", seen=f"{len(missing)}, such as {missing[0]}")
    with enough_memory(cls.__name__, device):
        return model.to(device).eval()
