"""The values that flow through everything: Video, Scene, MaskTrajectory, and the Sample that joins them.

All are frozen and check themselves. Arrays are held as read-only views: take a copy to change one.
A mask is always one integer label map: 0 is background, 1..255 are object ids, exclusive by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from fractions import Fraction
from numbers import Rational

import numpy as np
import numpy.typing as npt

from .errors import InvalidValueError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]

MAX_OBJECTS = 255  # a label is one byte and 0 is background


@dataclass(frozen=True, eq=False)
class Video:
    """RGB frames: uint8, T H W 3, at an exact frame rate (`fps`, frames per second, an int or a Fraction)."""

    frames: Pixels
    fps: Fraction

    def __post_init__(self) -> None:
        _set(self, frames=_array(self.frames, "a video's frames", 4, channels=3), fps=exact_fps(self.fps))

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.frames.shape[1]), int(self.frames.shape[2])

    @property
    def seconds(self) -> float:
        return float(len(self) / self.fps)


@dataclass(frozen=True)
class SceneObject:
    """One object: its id (1..255, also its label and palette index), the detector's phrase, and its local prompt."""

    id: int
    name: str
    prompt: str

    def __post_init__(self) -> None:
        if isinstance(self.id, bool) or not isinstance(self.id, int | np.integer) or not 1 <= self.id <= MAX_OBJECTS:
            raise InvalidValueError("an object's id must be a whole number from 1 to 255", seen=self.id)
        for word in ("name", "prompt"):
            if not isinstance(getattr(self, word), str) or not getattr(self, word).strip():
                raise InvalidValueError(
                    f"object {self.id} has an empty {word}", seen=getattr(self, word), fix="describe it"
                )
        _set(self, id=int(self.id))


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, the label map of its objects, and the prompts.

    image: uint8 H W 3. labels: uint8 H W, 0 or the id of one of `objects`. An object may be absent from the labels: it
    is hidden, or enters later. Objects are kept in id order.
    """

    image: Pixels
    labels: Labels
    prompt: str = ""
    motion_prompt: str = ""
    objects: tuple[SceneObject, ...] = ()

    def __post_init__(self) -> None:
        image = _array(self.image, "a scene's image", 3, channels=3)
        labels = _array(self.labels, "a scene's labels", 2)
        if image.shape[:2] != labels.shape:
            raise InvalidValueError("a scene's image and labels differ in size", seen=f"{_hw(image)} and {_hw(labels)}")
        objects = tuple(sorted(self.objects, key=lambda thing: thing.id))
        ids = [thing.id for thing in objects]
        if len(set(ids)) != len(ids):
            raise InvalidValueError("two objects share an id", seen=ids)
        _check_known(labels, ids, "a scene's labels")
        _set(self, image=image, labels=labels, objects=objects)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.image.shape[0]), int(self.image.shape[1])

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(thing.id for thing in self.objects)


@dataclass(frozen=True, eq=False)
class MaskTrajectory:
    """The segmentation of every frame: uint8 labels, T H W, at an exact frame rate."""

    labels: Labels
    fps: Fraction

    def __post_init__(self) -> None:
        _set(self, labels=_array(self.labels, "a trajectory's labels", 3), fps=exact_fps(self.fps))

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.labels.shape[1]), int(self.labels.shape[2])

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids that appear in at least one frame, in order."""
        return present_ids(self.labels)


@dataclass(frozen=True)
class Origin:
    """Where a Sample comes from and under which licence; empty where unknown."""

    source: str = ""
    licence: str = ""


@dataclass(frozen=True, eq=False)
class Sample:
    """A Scene with, where they have been made, its MaskTrajectory and its Video."""

    scene: Scene
    trajectory: MaskTrajectory | None = None
    video: Video | None = None
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        trajectory, video = self.trajectory, self.video
        if trajectory is not None:
            _check_same("the scene and its trajectory differ in size", self.scene.size, trajectory.size)
            _check_known(trajectory.labels, self.scene.ids, "the trajectory")
            if not np.array_equal(trajectory.labels[0], self.scene.labels):
                differ = int(np.count_nonzero(trajectory.labels[0] != self.scene.labels))
                raise InvalidValueError(
                    "the trajectory's first label map must be the scene's", seen=f"{differ} pixels differ"
                )
        if video is not None:
            _check_same("the scene and its video differ in size", self.scene.size, video.size)
        if trajectory is not None and video is not None:
            _check_same("masks and video differ in frame count", len(trajectory), len(video))
            _check_same("masks and video differ in frame rate", str(trajectory.fps), str(video.fps))

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)


LONGEST_RATE = 40  # characters of a frame rate as text


def exact_fps(value: object) -> Fraction:
    """A frame rate as a Fraction; takes a Fraction, an int, a whole float, or text such as "24" and "30000/1001".

    Raises InvalidValueError for anything else: 29.97 is not a frame rate that exists, 30000/1001 is.
    """
    fix = 'write an exact rate such as 24, "30000/1001" or Fraction(30000, 1001)'
    try:
        if isinstance(value, bool) or not isinstance(value, Rational | float | str | np.integer | np.floating):
            raise ValueError
        if isinstance(value, float | np.floating) and not float(value).is_integer():
            raise ValueError
        if isinstance(value, str) and (len(value) > LONGEST_RATE or "e" in value.lower()):
            raise ValueError  # "1e999999999" is a number that would take hours to write down
        rate = Fraction(value) if isinstance(value, Rational | str) else Fraction(int(value))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise InvalidValueError("a frame rate must be exact", seen=value, fix=fix) from None
    if rate <= 0:
        raise InvalidValueError("a frame rate must be positive", seen=str(rate), fix=fix)
    if len(str(rate)) > LONGEST_RATE:  # it is written down as text, and read again
        raise InvalidValueError("a frame rate must be a fraction of numbers that one can read", seen=str(rate), fix=fix)
    return rate


COUNTED = 1 << 20  # labels that are counted at once: counting takes eight bytes for each


def present_ids(labels: Labels) -> tuple[int, ...]:
    """Object ids that occur in a label map of any shape, background left out, in order."""
    flat = labels.reshape(-1)
    pieces = (flat[k : k + COUNTED] for k in range(0, len(flat), COUNTED))
    counts = sum((np.bincount(piece, minlength=MAX_OBJECTS + 1) for piece in pieces), np.zeros(1, int))
    return tuple(int(i) for i in np.flatnonzero(counts) if i)


def _array(value: object, what: str, ndim: int, channels: int | None = None) -> npt.NDArray[np.uint8]:
    array = np.asarray(value)
    axes = {4: "T H W 3", 3: "H W 3" if channels else "T H W", 2: "H W"}[ndim]
    if array.dtype != np.uint8 or array.ndim != ndim or (channels and array.shape[-1] != channels) or 0 in array.shape:
        fix = "convert it, or read it with throughmask.media"
        raise InvalidValueError(f"{what} must be uint8 {axes}, not empty", seen=f"{array.dtype} {array.shape}", fix=fix)
    view = array.view()
    view.flags.writeable = False
    return view


def _check_known(labels: Labels, ids: tuple[int, ...] | list[int], what: str) -> None:
    unknown = [i for i in present_ids(labels) if i not in ids]
    if unknown:
        raise InvalidValueError(
            f"{what} use ids that no object of the scene has", seen=unknown, fix=f"known ids: {list(ids)}"
        )


def _check_same(problem: str, left: object, right: object) -> None:
    if left != right:
        raise InvalidValueError(problem, seen=f"{left} and {right}")


def _equal(left: object, right: object) -> bool:
    if type(left) is not type(right):
        return False
    for item in fields(left):  # type: ignore[arg-type]
        a, b = getattr(left, item.name), getattr(right, item.name)
        if not (np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b):
            return False
    return True


def _set(value: object, **items: object) -> None:
    for name, item in items.items():
        object.__setattr__(value, name, item)


def _hw(array: npt.NDArray[np.uint8]) -> str:
    return f"{array.shape[0]}×{array.shape[1]}"
