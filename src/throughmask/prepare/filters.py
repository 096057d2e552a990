"""Which clips are worth training on: limits with stated reasons, and the measures that they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ..errors import InvalidValueError
from ..types import MAX_OBJECTS, Labels, MaskTrajectory, present_ids

FREE_EVENTS = 2  # an object may enter and leave once
JUMP = 2.0  # times as large or small in the next frame


class Reject(NamedTuple):
    """Why a clip became no Sample: in which step, the reason in words, and the value that decided (JSON)."""

    step: str
    reason: str
    value: Any = None


@dataclass(frozen=True)
class Filters:
    """min_frames: of a clip. max_objects: of a clip. min_area, max_area: of an object, as a share of the picture, mean
    over the frames in which it is seen. max_flicker: share of frames in which an object appears, vanishes or changes
    its area twofold, beyond two such events. min_motion, max_motion: of the fastest object, mean speed of its mask's
    centroid in diagonals of the picture per second. min_found: of the objects that the caption names, the share that is
    seen in some frame.
    """

    min_frames: int = 17
    max_objects: int = 8
    min_area: float = 0.001
    max_area: float = 0.9
    max_flicker: float = 0.2
    min_motion: float = 0.005
    max_motion: float = 2.0
    min_found: float = 0.0

    def __post_init__(self) -> None:
        if self.min_frames < 1 or self.max_objects < 1:
            seen = f"min_frames {self.min_frames}, max_objects {self.max_objects}"
            raise InvalidValueError("min_frames and max_objects are at least 1", seen=seen)
        if self.min_area > self.max_area or self.min_motion > self.max_motion:
            seen = f"area {self.min_area} to {self.max_area}, motion {self.min_motion} to {self.max_motion}"
            raise InvalidValueError("a lower limit is above the upper one", seen=seen)
        if not 0 <= self.min_found <= 1:
            raise InvalidValueError("min_found is a share of the named objects, 0 to 1", seen=self.min_found)


class Measures(NamedTuple):
    """Of a trajectory. areas, flickers, motions: by object id; units as in Filters."""

    areas: dict[int, float]
    flickers: dict[int, float]
    motions: dict[int, float]

    def facts(self) -> dict[str, Any]:
        """As JSON, for the report."""
        return {
            "objects": len(self.areas),
            "area": [round(value, 5) for value in self.areas.values()],
            "flicker": round(max(self.flickers.values(), default=0.0), 4),
            "motion": round(max(self.motions.values(), default=0.0), 5),
        }


def measure(trajectory: MaskTrajectory) -> Measures:
    """Areas, flicker and motion of every object that is seen in a trajectory."""
    areas, flickers, motions = {}, {}, {}
    for id, (sizes, centres) in _moments(trajectory.labels).items():
        seen = sizes > 0
        areas[id] = float(sizes[seen].mean() / np.prod(trajectory.size))
        flickers[id] = _flicker(sizes)
        motions[id] = _speed(centres, seen, trajectory.fps, trajectory.size)
    return Measures(areas, flickers, motions)


def check_first(labels: Labels, filters: Filters) -> Reject | None:
    """What the masks of the first frame decide already (H W)."""
    ids = present_ids(labels)
    if len(ids) > filters.max_objects:
        return Reject("detect", "too many objects", len(ids))
    return None


def check(measures: Measures, filters: Filters) -> Reject | None:
    """The first limit that a trajectory breaks, if it breaks one."""
    if not measures.areas:
        return Reject("filter", "no object found")
    if len(measures.areas) > filters.max_objects:
        return Reject("filter", "too many objects", len(measures.areas))
    smallest, largest = min(measures.areas.values()), max(measures.areas.values())
    flicker, motion = max(measures.flickers.values()), max(measures.motions.values())
    for broken, reason, value in (
        (smallest < filters.min_area, "an object is tiny", smallest),
        (largest > filters.max_area, "an object fills the frame", largest),
        (flicker > filters.max_flicker, "the masks flicker", flicker),
        (motion < filters.min_motion, "too little motion", motion),
        (motion > filters.max_motion, "too much motion", motion),
    ):
        if broken:
            return Reject("filter", reason, round(value, 5))
    return None


def check_found(named: int, lost: Sequence[str], filters: Filters) -> Reject | None:
    """Whether enough of the objects that the caption names were seen. lost: the names of those that were not."""
    if named and (named - len(lost)) / named < filters.min_found:
        return Reject("filter", "objects that the caption names are not found", list(lost))
    return None


def _moments(labels: Labels) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Area (T) and centroid (T 2: y, x; meaningless where the area is 0) in pixels of every object, in order of ids.

    Frame by frame: counting the ids of all frames at once would take eight times their memory.
    """
    T, height, width = labels.shape
    sizes, centres = np.zeros((T, MAX_OBJECTS + 1)), np.zeros((T, MAX_OBJECTS + 1, 2))
    weights = np.stack([np.ones(width), np.arange(width)], 1).astype(np.float32)
    for frame, label in enumerate(labels):
        for id in range(1, int(label.max()) + 1):
            mask = label == id
            sizes[frame, id] = area = np.count_nonzero(mask)
            if area:
                rows = (mask.astype(np.float32) @ weights).astype(np.float64)  # exact: whole numbers under 2^24
                centres[frame, id] = rows[:, 0] @ np.arange(height) / area, rows[:, 1].sum() / area
    return {int(id): (sizes[:, id], centres[:, id]) for id in np.flatnonzero(sizes.any(0))}


def _flicker(sizes: np.ndarray) -> float:
    if len(sizes) < 2:
        return 0.0
    before, after = sizes[:-1], sizes[1:]
    events = (np.maximum(before, after) > JUMP * np.minimum(before, after)).sum()
    return max(0, int(events) - FREE_EVENTS) / (len(sizes) - 1)


def _speed(centres: np.ndarray, seen: np.ndarray, fps: Fraction, size: tuple[int, int]) -> float:
    """Mean speed over the pairs of frames in which the object is seen."""
    both = seen[:-1] & seen[1:]
    if not both.any():
        return 0.0
    steps = np.hypot(*(centres[1:] - centres[:-1])[both].T)
    return float(steps.mean() * float(fps) / np.hypot(*size))
