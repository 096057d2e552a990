"""Objects moved one at a time, and laid together again: no object can then be dealt another one's motion.

Ours, not the paper's, whose stage 1 reads one motion prompt for all objects (Sec. 3.2); decision 0004 has the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..types import Labels, Scene

Masks = npt.NDArray[np.bool_]


def alone(scene: Scene, id: int) -> Scene:
    """The scene as if nobody spoke of any object but this one: it is id 1, and its local prompt is all that is said."""
    thing = next(thing for thing in scene.objects if thing.id == id)
    return Scene(
        scene.image,
        (scene.labels == id).astype(np.uint8),
        prompt=thing.prompt,
        motion_prompt=thing.prompt,
        objects=(replace(thing, id=1),),
    )


def laid(masks: Mapping[int, Masks]) -> Labels:
    """Masks T H W of several ids as one label map. Where they overlap the smaller of that frame is on top."""
    areas = {id: mask.sum((1, 2)) for id, mask in masks.items()}
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for frame, label in enumerate(labels):
        for id in sorted(masks, key=lambda id: (-int(areas[id][frame]), id)):
            label[masks[id][frame]] = id
    return labels
