"""Where a model computes, in which precision, and what to say when a device is full."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DeviceError, InvalidValueError

DTYPES = ("auto", "float32", "bfloat16", "float16")
FULL = re.compile(r"out of memory|can't allocate memory|not enough memory|invalid buffer size", re.I)


def check_names(device: str, dtype: str) -> None:
    """Raises InvalidValueError for names that no machine knows, before torch is loaded."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", device):
        raise InvalidValueError("there is no such device", seen=device, fix="known: auto, cpu, cuda, mps")
    if dtype not in DTYPES:
        raise InvalidValueError("there is no such dtype", seen=dtype, fix=f"known: {', '.join(DTYPES)}")


def choose_device(name: str) -> str:
    """A device that is there. Raises DeviceError."""
    import torch

    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return next(kind for kind, count in there.items() if count)
    kind, _, index = name.partition(":")
    if int(index or 0) >= there[kind]:
        fix = "use --device auto; throughmask doctor lists what is there"
        raise DeviceError("this machine has no such device", seen=name, fix=fix)
    return name


def choose_dtype(name: str, device: str) -> str:
    """auto: bfloat16 on cuda, else float32."""
    return name if name != "auto" else "bfloat16" if device.startswith("cuda") else "float32"


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn what each kind of device says when its memory is full into a DeviceError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's OutOfMemoryError is a RuntimeError
        if not isinstance(error, MemoryError) and not FULL.search(str(error)):
            raise
        fix = "try --offload, --dtype bfloat16, a smaller --size, fewer --frames or fewer --seeds"
        raise DeviceError("the device ran out of memory", seen=str(error).split("\n")[0][:120], fix=fix) from error
