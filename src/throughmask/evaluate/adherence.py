"""How well a video obeyed its masks: those that were asked for, against those that were found in it again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot, isnan
from typing import Any

import numpy as np

from ..errors import InvalidValueError
from ..types import MaskTrajectory, Scene, SceneObject, Video
from .motion import displacement, motion_accuracy, object_motions
from .segmentation import region_similarity

Way = tuple[float, float]


@dataclass(frozen=True)
class ObjectAdherence:
    """One object. Frame 0 is given to whoever renders and tracks, so it does not count, but for displacements.

    frames_iou: J in each of the T frames, None where the object is neither asked for nor found.
    span: the first and the last frame in which it is both asked for and found, None if there are not two of these.
    asked_way, found_way: how far its centroid moves from the first to the last of these (x, y), in shares of the width.
    num_asked: the frames from 1 to T-1 in which it should be visible (one pixel or more); num_found: of these, in how
    many it is found. num_absent: the others; num_unasked: of these, in how many it is found.
    """

    id: int
    name: str
    frames_iou: tuple[float | None, ...]
    span: tuple[int, int] | None
    asked_way: Way | None
    found_way: Way | None
    num_asked: int
    num_found: int
    num_absent: int
    num_unasked: int

    @property
    def iou(self) -> float | None:
        """Mean J over the frames from 1 to T-1 in which the object is asked for or found; None if there are none."""
        return _mean(self.frames_iou[1:])

    @property
    def error(self) -> float | None:
        """How far the displacement found is off the one asked for, in shares of the width."""
        if self.asked_way is None or self.found_way is None:
            return None
        return hypot(self.found_way[0] - self.asked_way[0], self.found_way[1] - self.asked_way[1])

    @property
    def presence(self) -> float | None:
        """Of the frames in which it should be visible, the share in which it is found; None if there are none."""
        return self.num_found / self.num_asked if self.num_asked else None

    @property
    def intrusion(self) -> float | None:
        """Of the frames in which it should not be visible, the share in which it is found; None if there are none."""
        return self.num_unasked / self.num_absent if self.num_absent else None


@dataclass(frozen=True)
class Adherence:
    """A clip of `frames` frames, `width` pixels wide. Means are over the objects that have the number, None if none.

    motion_accuracy: as `motion.motion_accuracy`: of the objects asked to move over 6 % of the width from the first
    frame to the last, the share whose displacement is off by at most 40 %; one that is not found in both is wrong.
    """

    objects: tuple[ObjectAdherence, ...]
    motion_accuracy: float | None
    frames: int
    width: int

    @property
    def iou(self) -> float | None:
        return _mean([thing.iou for thing in self.objects])

    @property
    def error(self) -> float | None:
        return _mean([thing.error for thing in self.objects])

    @property
    def presence(self) -> float | None:
        return _mean([thing.presence for thing in self.objects])

    @property
    def intrusion(self) -> float | None:
        return _mean([thing.intrusion for thing in self.objects])

    def as_json(self, *, each_frame: bool = True) -> dict[str, Any]:
        """each_frame: with the IoU of every frame, not the means alone."""
        return {
            "frames": self.frames,
            "iou": self.iou,
            "error": self.error,
            "error_pixels": self._pixels(self.error),
            "presence": self.presence,
            "intrusion": self.intrusion,
            "motion_accuracy": self.motion_accuracy,
            "objects": [self._object_json(thing, each_frame) for thing in self.objects],
        }

    def _object_json(self, thing: ObjectAdherence, each_frame: bool) -> dict[str, Any]:
        ways = {"asked": thing.asked_way, "found": thing.found_way}
        moved = {name: None if way is None else list(way) for name, way in ways.items()}
        pixels = {
            f"{name}_pixels": None if way is None else [self.width * part for part in way] for name, way in ways.items()
        }
        return {
            "id": thing.id,
            "name": thing.name,
            "iou": thing.iou,
            **({"frames_iou": list(thing.frames_iou)} if each_frame else {}),
            "displacement": {
                "span": None if thing.span is None else list(thing.span),
                **moved,
                **pixels,
                "error": thing.error,
                "error_pixels": self._pixels(thing.error),
            },
            "presence": thing.presence,
            "asked_frames": thing.num_asked,
            "found_frames": thing.num_found,
            "intrusion": thing.intrusion,
            "absent_frames": thing.num_absent,
            "unasked_frames": thing.num_unasked,
        }

    def _pixels(self, share: float | None) -> float | None:
        return None if share is None else share * self.width


def measure(requested: MaskTrajectory, found: MaskTrajectory, scene: Scene) -> Adherence:
    """How far the masks found in a video are those that were asked for, for each object of the Scene.

    An object that enters, leaves or is hidden counts for IoU only while it is asked for or found, and its displacement
    is taken between frames that have it in both. One that is never asked for has no presence; if it is found
    nonetheless, its IoU is 0. Labels that belong to no object of the Scene are ignored.

    Raises InvalidValueError as `must_match` does.
    """
    must_match(requested, found)
    objects = tuple(_measured(requested, found, thing) for thing in scene.objects)
    motions = [motion for id, motion in object_motions(requested, found).items() if id in scene.ids]
    accuracy = motion_accuracy(motions)
    return Adherence(objects, None if isnan(accuracy) else accuracy, len(requested), requested.size[1])


def must_match(requested: MaskTrajectory, other: MaskTrajectory | Video) -> None:
    """Raises InvalidValueError if masks and what they are compared with differ in size or length, or have one frame."""
    (height, width), (other_height, other_width) = requested.size, other.size
    what = "the video" if isinstance(other, Video) else "the masks found"
    if requested.size != other.size:
        seen = f"{height}×{width} and {other_height}×{other_width}"
        raise InvalidValueError(f"the masks asked for and {what} differ in size", seen=seen)
    if len(requested) != len(other):
        seen = f"{len(requested)} and {len(other)} frames"
        raise InvalidValueError(f"the masks asked for and {what} differ in length", seen=seen)
    if len(requested) == 1:
        raise InvalidValueError("frame 0 is given, so a clip of one frame has nothing to measure", seen="1 frame")


def _measured(requested: MaskTrajectory, found: MaskTrajectory, thing: SceneObject) -> ObjectAdherence:
    a, b = requested.labels == thing.id, found.labels == thing.id
    asked, seen = a.any((1, 2)), b.any((1, 2))
    iou = tuple(
        float(value) if there else None for value, there in zip(region_similarity(a, b), asked | seen, strict=True)
    )
    both = np.flatnonzero(asked & seen)
    span = (int(both[0]), int(both[-1])) if len(both) > 1 else None
    later, there = asked[1:], seen[1:]
    return ObjectAdherence(
        thing.id,
        thing.name,
        iou,
        span,
        asked_way=displacement(requested.labels[list(span)], thing.id) if span else None,
        found_way=displacement(found.labels[list(span)], thing.id) if span else None,
        num_asked=int(later.sum()),
        num_found=int((later & there).sum()),
        num_absent=int((~later).sum()),
        num_unasked=int((~later & there).sum()),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else None
