"""parse and track: a picture and a prompt become a Scene, a video becomes its mask trajectory (paper Sec. 3.1).

What reads, finds and follows is behind two protocols: `language.Language` and `Perception`. Binding (who is id 1) is
decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from ..errors import InvalidValueError
from ..types import MAX_OBJECTS, Labels, MaskTrajectory, Pixels, Scene, SceneObject, Video, present_ids
from .language import Language, Reading

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two excluded
Point = tuple[int, int]  # x, y in pixels
DISC = 1 / 24  # of a picture's shorter side: the radius of the disc that a point stands for
UNNAMED = SceneObject(1, "object", "an object that moves with the scene")  # its id is replaced


class Perception(Protocol):
    """Finds objects by phrase, and follows them. Labels are uint8, of the pixels' size; ids are the phrases' keys."""

    def segment(self, image: Pixels, phrases: Mapping[int, str], hints: Labels | None = None) -> Labels:
        """hints: roughly where objects are, such as painted boxes; an id without any is looked for by phrase alone."""
        ...

    def track(self, frames: Pixels, phrases: Mapping[int, str], first: Labels | None = None) -> Labels:
        """first: the labels of frame 0, where they are known."""
        ...


@dataclass(frozen=True)
class Hints:
    """Boxes and points that a person gave, each with the id of its object. See painted_boxes, painted_points."""

    boxes: tuple[tuple[int, Box], ...] = ()
    points: tuple[tuple[int, Point], ...] = ()

    def painted(self, size: tuple[int, int]) -> Labels:
        """As labels H W, points on top. Raises InvalidValueError for what is not in a picture of that size."""
        labels, dots = painted_boxes(size, self.boxes), painted_points(size, self.points)
        return np.where(dots > 0, dots, labels)


@runtime_checkable
class TakesHints(Protocol):
    """A Perception that takes boxes and points as they were given, where others are shown them painted."""

    def segment_hinted(self, image: Pixels, phrases: Mapping[int, str], hints: Hints) -> Labels:
        """As Perception.segment."""
        ...


class Parsed(NamedTuple):
    """A Scene, and what a person should know of it: spans of the prompt that were not used, guesses, and the names of
    objects that are not in the picture because they are said to enter it."""

    scene: Scene
    unused: tuple[str, ...]
    notes: tuple[str, ...]
    entering: tuple[str, ...]


def parse_scene(
    image: Pixels,
    prompt: str,
    language: Language,
    perception: Perception | None = None,
    *,
    masks: Labels | None = None,
    hints: Labels | Hints | None = None,
) -> Parsed:
    """The Scene of a picture and a prompt. Id k is the k-th object that the prompt names.

    masks: given labels H W, which replace segmentation. hints: boxes and points, or labels as Perception takes them.
    Ids of either beyond those named become unnamed objects. Raises InvalidValueError if the prompt names nothing, masks
    are of another size, or an object is not found that is not said to enter the frame.
    """
    reading = language.read(prompt)
    if masks is None:
        must_name_something(reading)
        assert perception is not None
        masks = _segmented(perception, image, _phrases(reading), hints)
    elif masks.shape != image.shape[:2]:
        seen = f"{masks.shape[0]}×{masks.shape[1]}, not {image.shape[0]}×{image.shape[1]}"
        raise InvalidValueError("the masks have another size than the picture", seen=seen)
    absent = [k for k in _phrases(reading) if k not in present_ids(masks)]
    lost = [reading.objects[k - 1].name for k in absent if not reading.objects[k - 1].enters]
    if lost:
        fix = "name it as the picture shows it, say that it enters, or give its mask, a box or a point"
        raise InvalidValueError("the picture does not show what the prompt names", seen=", ".join(lost), fix=fix)
    named = [SceneObject(k, thing.name, thing.prompt) for k, thing in enumerate(reading.objects, 1)]
    others = [k for k in present_ids(masks) if k > len(named)]
    objects = (*named, *(SceneObject(k, UNNAMED.name, UNNAMED.prompt) for k in others))
    scene = Scene(image, masks, prompt, reading.motion_prompt, objects)
    return Parsed(scene, reading.unused, reading.notes, tuple(reading.objects[k - 1].name for k in absent))


def track_video(video: Video, scene: Scene, perception: Perception, *, from_scene: bool = True) -> MaskTrajectory:
    """The masks of a Scene's objects through a video. from_scene: frame 0 has the Scene's own labels.

    Raises InvalidValueError if the Scene's picture and the video differ in size.
    """
    if from_scene and video.size != scene.size:
        raise InvalidValueError("picture and video differ in size", seen=f"{scene.size} and {video.size}")
    phrases = {thing.id: thing.name for thing in scene.objects}
    first = scene.labels if from_scene else None
    return MaskTrajectory(perception.track(video.frames, phrases, first), video.fps)


def must_name_something(reading: Reading) -> None:
    """Raises InvalidValueError for a prompt without objects to look for."""
    if not reading.objects:
        fix = 'name what shall move, such as "the red ball rolls to the left"'
        raise InvalidValueError("the prompt names no object", seen=reading.prompt, fix=fix)


def painted_boxes(size: tuple[int, int], boxes: Sequence[tuple[int, Box]]) -> Labels:
    """Boxes (id; left, top, right, bottom in pixels, the last two excluded) as labels, smaller ones on top.

    Raises InvalidValueError for a box that is empty or leaves the picture.
    """
    height, width = size
    labels = np.zeros(size, np.uint8)
    for id, box in sorted(boxes, key=lambda pair: -_area(pair[1])):
        left, top, right, bottom = box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            seen = f"{','.join(map(str, box))} in a picture {width} wide and {height} high"
            raise InvalidValueError("a box is left,top,right,bottom, inside the picture", seen=seen)
        labels[top:bottom, left:right] = id
    return labels


def painted_points(size: tuple[int, int], points: Sequence[tuple[int, Point]]) -> Labels:
    """Points (id; x, y in pixels) as labels: a small disc about each, cut off at the border; later ones on top.

    Raises InvalidValueError for a point outside the picture.
    """
    height, width = size
    labels = np.zeros(size, np.uint8)
    rows, columns = np.ogrid[:height, :width]
    radius = max(1.0, DISC * min(size))
    for id, (x, y) in points:
        if not (0 <= x < width and 0 <= y < height):
            raise InvalidValueError(
                "a point is x,y, inside the picture", seen=f"{x},{y} in {width} wide, {height} high"
            )
        labels[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = id
    return labels


def named_hints(
    size: tuple[int, int],
    names: Sequence[str],
    boxes: Sequence[tuple[str | int, Box]] = (),
    points: Sequence[tuple[str | int, Point]] = (),
) -> Hints | None:
    """Boxes and points, each with the name of an object or its number; None where there are neither.

    Numbers count the names from 1; higher ones are of objects without a name. Raises InvalidValueError for a name that
    the prompt does not have, or what is not in a picture of that size.
    """
    if not boxes and not points:
        return None
    hints = Hints(
        tuple((_number(name, names), box) for name, box in boxes),
        tuple((_number(name, names), point) for name, point in points),
    )
    hints.painted(size)
    return hints


def _number(name: str | int, names: Sequence[str]) -> int:
    text = str(name).strip().lower()
    if text in names:
        return list(names).index(text) + 1
    if text.isdecimal() and 1 <= int(text) <= MAX_OBJECTS:
        return int(text)
    raise InvalidValueError("the prompt names no such object", seen=text, fix=f"named: {', '.join(names)}")


def _segmented(
    perception: Perception, image: Pixels, phrases: Mapping[int, str], hints: Labels | Hints | None
) -> Labels:
    if not isinstance(hints, Hints):
        return perception.segment(image, phrases, hints)
    unnamed = {id for id, _ in (*hints.boxes, *hints.points)} - set(phrases)
    phrases = {**phrases, **dict.fromkeys(sorted(unnamed), UNNAMED.name)}
    if isinstance(perception, TakesHints):
        return perception.segment_hinted(image, phrases, hints)
    return perception.segment(image, phrases, hints.painted((image.shape[0], image.shape[1])))


def _phrases(reading: Reading) -> dict[int, str]:
    return {k: thing.name for k, thing in enumerate(reading.objects, 1)}


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
