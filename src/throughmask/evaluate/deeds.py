"""Whether toys do what they truly do, told from masks alone: go where they go, stay, jump, spin and tip over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, pi

import numpy as np
import numpy.typing as npt

from ..types import Labels, MaskTrajectory
from .motion import WITHIN, ObjectMotion, object_motions
from .segmentation import region_similarity
from .tally import Tally, counted

LARGE = 100 / 256**2  # of the frame, on average over the clip: smaller toys are listed apart
STAYS = 0.02  # of the frame's width between the first and the last frame
TIPPED = pi / 4  # a smaller turn of a mask is one toward or away from the camera, which a mask does not show
ELONGATED = 0.9  # width over length of a mask that has a direction
POSE_AGREES = 0.25  # how far a mask's turn may be off the true turn of the toy, relative to it
LEAST = 16  # pixels of a mask that has a direction

Path = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Toy:
    """What is true of a toy beyond its masks. turn: radians about the vertical, from first to last frame."""

    id: int
    verb: str
    colour: str
    turn: float


def deed_tally(toys: Sequence[Toy], truth: MaskTrajectory, found: MaskTrajectory) -> Tally:
    """How many toys of each kind do in `found` what they do in `truth`, and how well the masks agree.

    Raises InvalidValueError if the two differ in size or length.
    """
    motions = object_motions(truth, found)
    verbs = {toy.id: toy.verb for toy in toys}
    moving = [motion.agrees for motion in motions.values() if motion.counts]
    staying = [stays(m.predicted) for id, m in motions.items() if verbs.get(id) == "stay" and stays(m.true)]
    tally = {"motion": counted(moving), "staying": counted(staying)}
    for verb, ruler in (("jump", rise), ("spin", spin), ("tip", turn)):
        seen = [toy for toy in toys if toy.verb == verb and is_seen(toy, truth)]
        pairs = [(ruler(truth.labels, toy.id), ruler(found.labels, toy.id)) for toy in seen]
        tally[verb] = counted(_near(*pair) for pair in pairs)
    return {**tally, **iou_tally(truth, found)}


def iou_tally(truth: MaskTrajectory, found: MaskTrajectory) -> Tally:
    """Mean J over frames 1 to T-1 of each toy of the truth: `iou`; below 100 pixels (at 256×256) `iou_small`."""
    scores: dict[str, list[float]] = {"iou": [], "iou_small": []}
    for id in truth.ids:
        mine = truth.labels == id
        agreement = region_similarity(mine, found.labels == id)[1:]
        if len(agreement):
            scores["iou" if mine.mean() >= LARGE else "iou_small"].append(float(agreement.mean()))
    return {name: counted(values) for name, values in scores.items()}


def is_seen(toy: Toy, truth: MaskTrajectory) -> bool:
    """Whether the true masks show what the toy does: a spin of a round toy, or a fall toward the camera, is not."""
    if toy.verb == "jump":
        return rise(truth.labels, toy.id) is not None
    shown = turn(truth.labels, toy.id)
    if shown is None or toy.verb not in ("spin", "tip"):
        return False
    if toy.verb == "tip":
        return abs(shown) >= TIPPED
    _, widths = directions(truth.labels, toy.id)
    elongated = float(np.nanmedian(widths)) <= ELONGATED
    return elongated and abs(abs(shown) - abs(toy.turn)) <= POSE_AGREES * abs(toy.turn)


def unseen(toys: Sequence[Toy], truth: MaskTrajectory) -> dict[str, int]:
    """How many toys that jump, spin or tip over are left out, because masks do not show it."""
    return {verb: sum(not is_seen(toy, truth) for toy in toys if toy.verb == verb) for verb in ("jump", "spin", "tip")}


def stays(way: tuple[float, float] | None) -> bool:
    """Whether a displacement, in shares of the width, is none to speak of."""
    return way is not None and hypot(*way) < STAYS


def goes_right(motion: ObjectMotion) -> bool | None:
    """Whether a toy that moves goes where it should, or one that stays is kept; None for those in between."""
    if motion.counts:
        return motion.agrees
    return stays(motion.predicted) if stays(motion.true) else None


def rise(labels: Labels, id: int) -> float | None:
    """How far an object's centroid rises above its first place, in shares of the width; None if it is not there."""
    rows = np.arange(labels.shape[1])
    mine = labels == id
    sizes = mine.sum((1, 2))
    if not sizes[0]:
        return None
    heights = mine[sizes > 0].sum(2) @ rows / sizes[sizes > 0]
    return float((heights[0] - heights.min()) / labels.shape[2])


def spin(labels: Labels, id: int) -> float | None:
    """As `turn`, whichever way round: words do not say it, and the picture does not show it."""
    turned = turn(labels, id)
    return None if turned is None else abs(turned)


def turn(labels: Labels, id: int) -> float | None:
    """Radians that an object's long axis turns in the picture; None if it is not in the first and the last frame.

    From frame to frame it is taken to turn the shorter way, by less than 90 degrees.
    """
    angles, _ = directions(labels, id)
    if np.isnan(angles[[0, -1]]).any():
        return None
    steps = np.diff(angles[~np.isnan(angles)])
    return float(((steps + pi / 2) % pi - pi / 2).sum())


def directions(labels: Labels, id: int) -> tuple[Path, Path]:
    """The direction of an object's long axis in every frame, radians modulo pi, and its width over its length.

    Both T, from the mask's second moments; NaN where the object has fewer than 16 pixels.
    """
    angles, widths = np.full(len(labels), np.nan), np.full(len(labels), np.nan)
    for frame, mask in enumerate(labels == id):
        y, x = np.nonzero(mask)
        if len(y) < LEAST:
            continue
        (xx, xy), (_, yy) = np.cov(x, -y)
        angles[frame] = np.arctan2(2 * xy, xx - yy) / 2
        small, large = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
        widths[frame] = np.sqrt(max(small, 0) / large)
    return angles, widths


def _near(true: float | None, found: float | None) -> bool:
    if true is None or found is None:
        return False
    return abs(found - true) <= WITHIN * abs(true)
