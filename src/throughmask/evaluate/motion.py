"""Motion accuracy: of the objects that truly move, the share that goes where it should."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

import numpy as np

from ..errors import InvalidValueError
from ..types import Labels, MaskTrajectory

MOVES = 0.06  # of the frame's width between the first and the last frame
WITHIN = 0.4  # of the true displacement's length


@dataclass(frozen=True)
class ObjectMotion:
    """From first to last frame, in shares of the width (x, y); None where the object is not seen in one of the two."""

    true: tuple[float, float] | None
    predicted: tuple[float, float] | None

    @property
    def counts(self) -> bool:
        """Whether the object is seen in both frames of the truth and moves between them."""
        return self.true is not None and hypot(*self.true) > MOVES

    @property
    def agrees(self) -> bool:
        """Whether the predicted displacement is within 40 % of the true one's length of it."""
        if self.true is None or self.predicted is None:
            return False
        off = hypot(self.predicted[0] - self.true[0], self.predicted[1] - self.true[1])
        return off <= WITHIN * hypot(*self.true)


def object_motions(truth: MaskTrajectory, prediction: MaskTrajectory) -> dict[int, ObjectMotion]:
    """How every object of the truth moves in both. Raises InvalidValueError if their sizes differ."""
    if truth.size != prediction.size:
        raise InvalidValueError("truth and prediction differ in size", seen=f"{truth.size} and {prediction.size}")
    return {id: ObjectMotion(displacement(truth.labels, id), displacement(prediction.labels, id)) for id in truth.ids}


def motion_accuracy(motions: list[ObjectMotion]) -> float:
    """The share of the objects that count whose motion agrees; NaN where none counts."""
    counted = [motion.agrees for motion in motions if motion.counts]
    return float(np.mean(counted)) if counted else float("nan")


def displacement(labels: Labels, id: int) -> tuple[float, float] | None:
    """How far an object's centroid moves from the first frame to the last (T H W), in shares of the width."""
    first, last = (np.argwhere(labels[frame] == id) for frame in (0, -1))
    if not len(first) or not len(last):
        return None
    dy, dx = (last.mean(0) - first.mean(0)) / labels.shape[2]
    return float(dx), float(dy)
