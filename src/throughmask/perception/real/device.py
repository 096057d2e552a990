"""Tensors of the host on a device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def on_device(values: Tensor, device: Any) -> Tensor:
    """A tensor of the host on a device. A GPU's unfinished work is not waited for."""
    if torch.device(device).type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
