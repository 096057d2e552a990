"""A stage's denoiser from its base's: the same weights, with layers and channels that do nothing until they learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..nn.layers import RegionCrossAttention, RegionSelfAttention


def grow(kind: Any, config: Mapping[str, Any], base: Any, entrance: str) -> Any:
    """The model that `kind.from_config` makes of `config`, equal to `base`: its added layers put out zero, and channels
    that the weight named `entrance` takes beyond the base's weigh 0.

    The weights are the base's own, not copies, so that a model of 14B parameters is in memory once (in a base's
    precision; made as usual it would be there three times, twice as float32): the base is not to be used any more.
    """
    with torch.device("meta"):  # shapes without memory, and no random values that are overwritten at once
        model = kind.from_config(dict(config))
    state = dict(base.state_dict())
    weight = state[entrance]
    wide = weight.new_zeros(weight.shape[0], model.get_parameter(entrance).shape[1], *weight.shape[2:])
    wide[:, : weight.shape[1]] = weight
    missing, unexpected = model.load_state_dict({**state, entrance: wide}, strict=False, assign=True)
    assert not unexpected, unexpected
    assert all(".masked_" in key for key in missing), missing
    for name, buffer in base.named_buffers():  # not all of them are in a state dict
        owner, _, own = name.rpartition(".")
        setattr(model.get_submodule(owner), own, buffer)
    for module in model.modules():
        if isinstance(module, RegionSelfAttention | RegionCrossAttention):
            module.to_empty(device=base.device)
            module.reset_parameters()
            module.to(base.dtype)
    return model
