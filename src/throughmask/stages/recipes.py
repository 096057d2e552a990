"""Recipes: what a render model sees and which of its added layers are masked (paper Tab. 3 and 4). Stored in
checkpoints.

Every Recipe has the same added layers and input channels, so all have equally many parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import InvalidValueError


@dataclass(frozen=True)
class Recipe:
    """motion: what stands between the stages and is concatenated to stage 2's noise: label colours, optical flow
    painted
    as a colour wheel, or nothing. mask_self, mask_cross: whether each token attends only to its own object, and sees
    only its own object's prompt; unmasked, the layers join all tokens, and read the global prompt.

    bind: whether stage 1 has masked blocks too (ours, not the paper's). Its regions are those of frame 0, at every
    frame: what lies where an object begins sees that object's prompt, which ties each clause to a mask.
    """

    name: str
    motion: Literal["labels", "flow", "none"] = "labels"
    mask_self: bool = True
    mask_cross: bool = True
    bind: bool = False


# Latents concatenated to the noise: the image's, and the mask's (stage 1) or the motion's (stage 2); where a Recipe has
# no motion these are zero, so that `ti2v` has exactly as many parameters as `paper`.
COND_LATENTS = 2

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("paper"),
        Recipe("no-mask-attention", mask_self=False, mask_cross=False),
        Recipe("cross-only", mask_self=False),
        Recipe("self-only", mask_cross=False),
        Recipe("ti2v", motion="none", mask_self=False, mask_cross=False),
        Recipe("flow", motion="flow", mask_self=False, mask_cross=False),
        Recipe("bound", bind=True),
    )
}


def recipe(name: str) -> Recipe:
    """A Recipe by name. Raises InvalidValueError for an unknown one."""
    if name not in RECIPES:
        raise InvalidValueError("there is no recipe of that name", seen=name, fix=f"known: {', '.join(RECIPES)}")
    return RECIPES[name]
