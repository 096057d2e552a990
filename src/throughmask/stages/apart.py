"""Objects that have nothing to do with each other moved apart, and laid together again: none is then dealt another's
motion.

Ours, not the paper's, whose stage 1 reads one motion prompt for all objects (Sec. 3.2); decision 0004 has the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..connected import Mask, as_labels
from ..types import Labels, Scene


def groups(scene: Scene) -> list[tuple[int, ...]]:
    """The ids of a scene, those together whose local prompts name one another ("hits the blue block"), directly or by
    way of others. In order of their first ids."""
    named = {thing.id: re.compile(rf"\b{re.escape(thing.name)}\b", re.IGNORECASE) for thing in scene.objects}
    found: list[set[int]] = []
    for thing in scene.objects:
        near = {thing.id} | {id for id, name in named.items() if name.search(thing.prompt)}
        for other in [group for group in found if group & near]:
            near |= other
            found.remove(other)
        found.append(near)
    return sorted(tuple(sorted(group)) for group in found)


def rounds(scene: Scene, apart: bool) -> int:
    """How often all steps are taken for a scene: once, or, apart, once for each group of its objects."""
    return max(1, len(groups(scene))) if apart else 1


def part(scene: Scene, ids: Sequence[int]) -> Scene:
    """The scene as if nobody spoke of any object but these: they are ids 1, 2, ..., and nothing is said but their local
    prompts."""
    things = [thing for thing in scene.objects if thing.id in ids]
    labels = np.zeros_like(scene.labels)
    for k, thing in enumerate(things, 1):
        labels[scene.labels == thing.id] = k
    told = ". ".join(thing.prompt.strip(". ") for thing in things)
    objects = tuple(replace(thing, id=k) for k, thing in enumerate(things, 1))
    return Scene(scene.image, labels, prompt=told, motion_prompt=told, objects=objects)


def laid(masks: Mapping[int, Mask]) -> Labels:
    """Masks T H W of several ids as one label map. Where they overlap the smaller of that frame is on top."""
    length, *size = next(iter(masks.values())).shape
    return np.stack([as_labels({id: mask[t] for id, mask in masks.items()}, (size[0], size[1])) for t in range(length)])
