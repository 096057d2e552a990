"""Whether a video shows each toy where its mask is, told by colour alone: no network judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InvalidValueError
from ..types import Labels, MaskTrajectory, Pixels, Sample, Video
from .deeds import Toy
from .segmentation import Masks
from .tally import Tally, counted

LEAST = 16  # pixels of a mask that is judged in a frame
SPREAD = 8.0  # levels that every colour varies by at least: noise, and what a VAE does


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A distribution of colours. mean: 3. inverse: 3 3, of the covariance. volume: its log determinant."""

    mean: npt.NDArray[np.float64]
    inverse: npt.NDArray[np.float64]
    volume: float

    @classmethod
    def of(cls, pixels: Pixels) -> Gaussian:
        """Of some pixels, N 3."""
        off = pixels - pixels.mean(0)
        covariance = off.T @ off / max(1, len(off)) + np.eye(3) * SPREAD**2
        inverse, volume = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
        return cls(pixels.mean(0), inverse.astype(np.float64), float(volume))

    def distance(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """N: Mahalanobis distance, squared, plus the log determinant, so that the smaller one is the likelier."""
        off = pixels - self.mean
        squared: npt.NDArray[np.float64] = (off @ self.inverse * off).sum(1)
        return squared + self.volume


class Appearance:
    """What the toys and the room of a Sample look like: one Gaussian each, from its first pictures."""

    def __init__(self, sample: Sample, toys: Sequence[Toy]) -> None:
        if sample.trajectory is None or sample.video is None:
            raise InvalidValueError("a Sample without masks or video shows no toys", seen=sample.scene.prompt)
        self.toys, self.labels = toys, sample.trajectory.labels
        frames = sample.video.frames
        self.room = Gaussian.of(frames[0][self.labels[0] == 0])
        self.looks = {toy.id: Gaussian.of(first_pixels(frames, self.labels, toy.id)) for toy in toys}

    def tally(self, video: Video, asked: MaskTrajectory) -> Tally:
        """For each toy the share of the pixels inside its mask that look like it, over frames 1 to T-1.

        Masks lose one pixel all round. `likeness`: of the whole mask; `likeness_new`: of what the toy covers there and
        did not cover in frame 0, which frame 0 repeated does not show. Raises InvalidValueError if the sizes differ.
        """
        if video.frames.shape[:3] != asked.labels.shape:
            seen = f"{video.frames.shape[:3]} and {asked.labels.shape}"
            raise InvalidValueError("the video and the masks asked of it differ in size or length", seen=seen)
        shares: dict[str, list[float]] = {"likeness": [], "likeness_new": []}
        for toy in self.toys:
            mask = eroded(asked.labels == toy.id)
            mask[0] = False
            right = np.zeros_like(mask)
            right[mask] = self._looks_like(toy, video.frames[mask])
            new = mask & ~grown(self.labels[:1] == toy.id)
            for name, part in (("likeness", mask), ("likeness_new", new)):
                shares[name] += _mean_share(right, part)
        return {name: counted(values) for name, values in shares.items()}

    def _looks_like(self, toy: Toy, pixels: Pixels) -> Masks:
        # Toys of one colour cannot be told apart by it, so they do not compete.
        rivals = [self.looks[other.id] for other in self.toys if other.colour != toy.colour]
        others = [thing.distance(pixels) for thing in (self.room, *rivals)]
        nearer: Masks = self.looks[toy.id].distance(pixels) < np.min(others, axis=0)
        return nearer


def first_pixels(frames: Pixels, labels: Labels, id: int) -> Pixels:
    """An object's pixels (N 3) in the first frame that shows at least half of its largest mask, without its edge."""
    masks = labels == id
    sizes = masks.sum((1, 2))
    if not sizes.any():
        raise InvalidValueError("a toy is in no frame", seen=id)
    frame = int(np.argmax(sizes >= sizes.max() / 2))
    inner = eroded(masks[frame][None])[0]
    pixels: Pixels = frames[frame][inner if inner.sum() >= LEAST else masks[frame]]
    return pixels


def eroded(masks: Masks) -> Masks:
    """T H W masks without their outermost pixels: those with a neighbour, of eight, outside; the border is no edge."""
    height, width = masks.shape[1:]
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)), mode="edge")
    inner = masks.copy()
    for y in range(3):
        for x in range(3):
            inner &= padded[:, y : y + height, x : x + width]
    return inner


def grown(masks: Masks) -> Masks:
    """T H W masks and their neighbours."""
    return ~eroded(~masks)


def _mean_share(right: Masks, mask: Masks) -> list[float]:
    """The mean over frames of the share that is right; nothing where no frame has enough pixels."""
    sizes = mask.sum((1, 2))
    enough = sizes >= LEAST
    if not enough.any():
        return []
    return [float(np.mean((right & mask).sum((1, 2))[enough] / sizes[enough]))]
