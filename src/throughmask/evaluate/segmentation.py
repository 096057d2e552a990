"""How well two segmentations agree: J (regions) and F (boundaries) as the DAVIS challenge defines them.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016; details (the
boundary map, the tolerance, the empty cases) follow the challenge's own evaluation code, so numbers can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, hypot, isqrt

import numpy as np
import numpy.typing as npt

from ..errors import InvalidValueError
from ..types import MAX_OBJECTS, MaskTrajectory, present_ids

Masks = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]

TOLERANCE = 0.008  # of the frame's diagonal: how far apart two boundaries may be and still match


@dataclass(frozen=True, eq=False)
class ObjectScore:
    """J and F of one object in every frame: float64, T, from 0 to 1."""

    region: Scores
    boundary: Scores

    @property
    def mean(self) -> float:
        """The challenge's J&F: the average of the two means."""
        return float(self.region.mean() + self.boundary.mean()) / 2


def region_similarity(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> Scores:
    """J: intersection over union of two masks in every frame, 1 where both are empty.

    truth, prediction: T H W or H W, anything but zero is the object. Returns float64, T (a single one for H W).
    Raises InvalidValueError if the shapes differ.
    """
    a, b = _pair(truth, prediction)
    common, union = (a & b).sum((1, 2)), (a | b).sum((1, 2))
    return np.where(union == 0, 1.0, common / np.maximum(union, 1))


def boundary_accuracy(truth: npt.ArrayLike, prediction: npt.ArrayLike, *, tolerance: float = TOLERANCE) -> Scores:
    """F: harmonic mean of the precision and recall of the mask's boundary in every frame.

    truth, prediction: as for `region_similarity`. tolerance: a share of the frame's diagonal, or pixels if 1 or more; a
    boundary pixel counts as found when the other boundary comes within that distance. Both empty scores 1, one empty 0.
    Raises InvalidValueError if the shapes differ or the tolerance is not positive.
    """
    a, b = _pair(truth, prediction)
    if not 0 < tolerance < float("inf"):
        raise InvalidValueError("the boundary tolerance must be a positive number", seen=tolerance)
    radius = int(tolerance) if tolerance >= 1 else ceil(tolerance * hypot(*a.shape[1:]))
    return np.array([_boundary_frame(x, y, radius) for x, y in zip(a, b, strict=True)])


def score_objects(
    truth: MaskTrajectory, prediction: MaskTrajectory, ids: tuple[int, ...] = ()
) -> dict[int, ObjectScore]:
    """J and F of every object of the truth (or of `ids`), found in the prediction under the same id.

    Raises InvalidValueError if the two differ in size or frame count, or an id is not from 1 to 255.
    """
    ids = ids or present_ids(truth.labels)
    wrong = [k for k in ids if not 1 <= k <= MAX_OBJECTS]
    if wrong:
        raise InvalidValueError("an object's id must be a whole number from 1 to 255", seen=wrong)
    pairs = {k: (truth.labels == k, prediction.labels == k) for k in ids}
    return {k: ObjectScore(region_similarity(*pair), boundary_accuracy(*pair)) for k, pair in pairs.items()}


def boundary(mask: Masks) -> Masks:
    """The boundary map of an H W mask: pixels that differ from the one to the right, below, or below to the right."""
    right, below, diagonal = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    diagonal[:-1, :-1] = mask[1:, 1:]
    edge = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    # The frame's own edge is no boundary: its last row looks only to the right, its last column only below.
    edge[-1] = mask[-1] ^ right[-1]
    edge[:, -1] = mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge


def dilate(mask: Masks, radius: int) -> Masks:
    """An H W mask grown by a disk: pixels within `radius` (Euclidean, inclusive) of one that is set."""
    height, width = mask.shape
    padded = np.pad(mask, radius)
    wide, grown, reach = padded.copy(), np.zeros_like(mask), 0
    # A disk is a stack of horizontal spans; from its rim to its middle they only widen, so each is built from the last.
    for rise in range(radius, -1, -1):
        while reach < isqrt(radius**2 - rise**2):
            reach += 1
            wide[:, reach:] |= padded[:, :-reach]
            wide[:, :-reach] |= padded[:, reach:]
        for top in (radius - rise, radius + rise):
            grown |= wide[top : top + height, radius : radius + width]
    return grown


def _boundary_frame(truth: Masks, prediction: Masks, radius: int) -> float:
    a, b = boundary(truth), boundary(prediction)
    num_a, num_b = int(a.sum()), int(b.sum())
    if num_a == 0 or num_b == 0:
        return float(num_a == num_b)
    precision, recall = (b & dilate(a, radius)).sum() / num_b, (a & dilate(b, radius)).sum() / num_a
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


def _pair(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> tuple[Masks, Masks]:
    a, b = np.asarray(truth) != 0, np.asarray(prediction) != 0
    if a.shape != b.shape:
        fix = "resize one to the other with nearest neighbours"
        raise InvalidValueError(
            "two segmentations differ in size or frame count", seen=f"{a.shape} and {b.shape}", fix=fix
        )
    if a.ndim not in (2, 3) or 0 in a.shape:
        raise InvalidValueError("masks must be T H W or H W, not empty", seen=a.shape)
    return (a[None], b[None]) if a.ndim == 2 else (a, b)
