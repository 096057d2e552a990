"""Masks that come with a video: the labels of a clip, read as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import interop
from ..errors import FormatError, ThroughMaskError
from ..interop.davis import numbered, void_to_background
from ..interop.sav import EVERY
from ..media import read_labels
from ..types import Labels
from .inputs import Input, on_disk


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """The masks of an input. every: they belong to every so many frames of the video. stems: names of PNG files.

    A folder of PNG is read a clip at a time; other formats are read whole, which bounds how long their videos can be.
    """

    frames: int
    every: int = 1
    stems: tuple[str, ...] = ()
    paths: Sequence[Path] = ()
    labels: Labels | None = None
    names: Mapping[int, str] = field(default_factory=dict)

    def read(self, start: int, end: int, size: tuple[int, int]) -> Labels:
        """Labels T H W of frames `start` to `end` (excluded). Raises FormatError if they are of another size."""
        if self.labels is not None:
            found = self.labels[start:end]
            if found.shape[1:] != size:
                raise _other_size(found.shape[1:], size)
            return found
        found = np.empty((end - start, *size), np.uint8)
        for frame, path in enumerate(self.paths[start:end]):
            one = read_labels(path)
            if one.shape != size:
                raise _other_size(one.shape, size, path.name)
            found[frame] = one
        void_to_background(found, list(self.paths[start:end]))
        return found


def open_masks(item: Input) -> GivenMasks:
    """The masks of an input. Raises FormatError if it has none, or they are not in a format that is known."""
    if item.masks is None:
        fix = "put NAME.json or a folder NAME of PNG beside NAME.mp4, or name them in the column masks"
        raise FormatError("there are no masks for this video", seen=item.name, fix=fix)
    if isinstance(item.masks, Path) and not item.masks.exists():
        raise FormatError("the masks are not there", seen=str(item.masks))
    with on_disk(item.masks) as path:
        kind = interop.sniff(path)
        if kind == "davis":
            paths, _ = numbered(path, (".png",))
            return GivenMasks(len(paths), 1, tuple(place.stem for place in paths), paths, names=dict(item.names))
        found = interop.read(path, format=kind)
        every = json.loads(path.read_bytes()).get("annotation_every", EVERY) if kind == "rle" else 1
    labels = found.trajectory.labels
    return GivenMasks(len(labels), every, labels=labels, names={**found.names, **dict(item.names)})


def _other_size(seen: tuple[int, ...], size: tuple[int, int], name: str = "") -> ThroughMaskError:
    where = f"{name + ': ' if name else ''}masks {seen[0]}×{seen[1]}, video {size[0]}×{size[1]}"
    return FormatError("masks and video differ in size", seen=where)
