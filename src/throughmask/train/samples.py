"""Sources of Samples for training: seeds, Sample folders, tar shards; each Sample fitted to one size and length.

A source holds numbers and paths only: it is cheap to make and can be handed to other processes.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import media
from ..errors import InvalidValueError, SampleError
from ..shards import list_keys, open_sample
from ..storage import load_sample
from ..synthetic import make_sample
from ..types import Labels, MaskTrajectory, Pixels, Sample, Scene, Video, exact_fps
from .augment import swap_sides
from .flows import estimated_flow, wheel

if TYPE_CHECKING:
    from ..toybox import Story

TOYBOX, SYNTHETIC = "toybox:", "synthetic:"
# Tries for each other phrasing: of five toys one in thirty names them in the same order.
TRIES = 64


class Texts(NamedTuple):
    """The words of a scene. objects: name and local prompt of ids 1, 2, ...; empty texts where there is no such id."""

    prompt: str
    motion_prompt: str
    objects: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, scene: Scene) -> Texts:
        known = {thing.id: (thing.name, thing.prompt) for thing in scene.objects}
        objects = tuple(known.get(id, ("", "")) for id in range(1, max(known, default=0) + 1))
        return cls(scene.prompt, scene.motion_prompt, objects)

    def put(self, scene: Scene) -> Scene:
        """The scene in these words."""
        told = [(thing, *self.objects[thing.id - 1]) for thing in scene.objects]
        objects = tuple(replace(thing, name=name, prompt=prompt) for thing, name, prompt in told)
        return replace(scene, prompt=self.prompt, motion_prompt=self.motion_prompt, objects=objects)

    def flipped(self) -> Texts:
        """As `augment.flip` puts it."""
        objects = tuple((swap_sides(name), swap_sides(prompt)) for name, prompt in self.objects)
        return Texts(swap_sides(self.prompt), swap_sides(self.motion_prompt), objects)


@dataclass(frozen=True)
class Samples(ABC):
    """Samples by number, of one `size` (height, width), number of `frames` and `fps`; what is None stays as it is.

    phrasings: how many texts of a scene are wanted. gl_device: which of EGL's devices renders. films: whether videos
    are wanted; a Sample without one, which is all that stage 1 needs, is drawn in half the time.
    """

    size: tuple[int, int] | None
    frames: int | None
    fps: Fraction | None
    phrasings: int
    gl_device: int | None
    films: bool

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """What a Sample is called in messages."""

    @abstractmethod
    def item(self, index: int) -> Sample:
        """A Sample with masks and, with `films`, its video. Raises SampleError, with its name, for one that lacks them
        or is too short."""

    @abstractmethod
    def texts(self, index: int) -> list[Texts]:
        """The Sample's words and, as far as the source has them, others that say the same: at most `phrasings`."""

    @abstractmethod
    def flow(self, index: int) -> Pixels:
        """Its optical flow as colours of the wheel: T H W 3, the last one standing twice."""

    def describe(self) -> dict[str, Any]:
        """What decides the items, as JSON has it, without paths: equal for equal items, in any run."""
        return {
            **self._origin(),
            "size": None if self.size is None else list(self.size),
            "frames": self.frames,
            "fps": None if self.fps is None else str(self.fps),
            "phrasings": self.phrasings,
        }

    @abstractmethod
    def _origin(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class ToyboxSamples(Samples):
    """Toybox seeds, drawn when they are asked for, at the size and length that are wanted."""

    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seeds)

    def name(self, index: int) -> str:
        return f"Toybox seed {self.seeds[index]}"

    def item(self, index: int) -> Sample:
        from ..toybox import draw

        return draw(self._story(index), gl_device=self.gl_device, film=self.films)[0]

    def texts(self, index: int) -> list[Texts]:
        """Phrasings that name the objects in another order are passed over: ids follow the order of the first one."""
        from ..toybox.source import retell

        story = self._story(index)
        found: dict[Texts, None] = {}
        for phrasing in range(TRIES * self.phrasings):
            text = retell(story.seed, phrasing, story.plan, story.sight, story.claims)
            if text.order == story.text.order:
                objects = tuple(zip(text.names, text.prompts, strict=True))
                found[Texts(text.caption, text.motion, objects)] = None
            if len(found) == self.phrasings:
                break
        return list(found)

    def flow(self, index: int) -> Pixels:
        """Exact, from depth and poses."""
        from ..toybox import draw

        flow = draw(self._story(index), gl_device=self.gl_device, flow=True)[1].flow
        assert flow is not None
        return wheel(flow)

    def _story(self, index: int) -> Story:
        options = {"size": self.size, "frames": self.frames, "fps": self.fps}
        given = tuple((name, value) for name, value in options.items() if value is not None)
        return _story(self.seeds[index], given)

    def _origin(self) -> dict[str, Any]:
        from ..toybox.recipes import SCENES

        return {"source": "toybox", "scenes": SCENES, "seeds": runs(self.seeds)}


@dataclass(frozen=True)
class SyntheticSamples(Samples):
    """Seeds of moving shapes, drawn when they are asked for: nothing but numpy is needed."""

    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seeds)

    def name(self, index: int) -> str:
        return f"synthetic seed {self.seeds[index]}"

    def item(self, index: int) -> Sample:
        options = {"size": self.size, "frames": self.frames, "fps": self.fps}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        sample = make_sample(self.seeds[index], **given)
        return sample if self.films else replace(sample, video=None)

    def texts(self, index: int) -> list[Texts]:
        return [Texts.of(self.item(index).scene)]

    def flow(self, index: int) -> Pixels:
        """Estimated. Raises MissingPackageError without OpenCV."""
        video = self.item(index).video
        assert video is not None
        return wheel(estimated_flow(video.frames))

    def _origin(self) -> dict[str, Any]:
        return {"source": "synthetic", "seeds": runs(self.seeds)}


class Place(NamedTuple):
    """Where a stored Sample is: a folder, or a shard with the key and where its files begin."""

    path: Path
    key: str = ""
    start: int = 0


@dataclass(frozen=True)
class StoredSamples(Samples):
    """Sample folders, or Samples in tar shards."""

    places: tuple[Place, ...]

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        return _name(self.places[index])

    def item(self, index: int) -> Sample:
        place = self.places[index]
        file = place.path if place.key else place.path / "scene.json"
        changed = file.stat().st_mtime_ns if file.is_file() else 0
        return _stored(place, changed, self.size, self.frames, self.fps, self.films)

    def texts(self, index: int) -> list[Texts]:
        return [Texts.of(self.item(index).scene)]

    def flow(self, index: int) -> Pixels:
        """Estimated. Raises MissingPackageError without OpenCV."""
        video = self.item(index).video
        assert video is not None
        return wheel(estimated_flow(video.frames))

    def _origin(self) -> dict[str, Any]:
        """Names and sizes of all files; their content is not read."""
        mark = hashlib.sha256()
        for path in dict.fromkeys(place.path for place in self.places):
            files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
            for file in files:
                mark.update(f"{file.relative_to(path.parent).as_posix()}\0{file.stat().st_size}\0".encode())
        kind = "shards" if self.places[0].key else "folders"
        return {"source": kind, "samples": len(self), "files": mark.hexdigest()}


def open_samples(
    source: str,
    *,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    fps: object = None,
    phrasings: int = 1,
    gl_device: int | None = None,
    films: bool = True,
) -> Samples:
    """The Samples of `source`: "toybox:A..B" or "toybox:A..B,C..D" for Toybox seeds (the last ones included),
    "synthetic:A..B" for moving shapes, a folder of Sample folders or of *.tar shards, or one .tar. Options: as Samples.

    Raises InvalidValueError for seeds that are not written so, SampleError for a place that holds no Samples.
    """
    if phrasings < 1:
        raise InvalidValueError("there is at least 1 phrasing", seen=phrasings)
    size, frames, rate = _form(size, frames, fps)
    common = (size, frames, rate, phrasings, gl_device, films)
    if source.startswith(TOYBOX):
        return ToyboxSamples(*common, seeds=seeds_of(source, TOYBOX))
    if source.startswith(SYNTHETIC):
        return SyntheticSamples(*common, seeds=seeds_of(source, SYNTHETIC))
    return StoredSamples(*common, places=tuple(_places(Path(source))))


def seeds_of(source: str, kind: str = TOYBOX) -> tuple[int, ...]:
    """The seeds of "toybox:A..B,C..D", in this order. Raises InvalidValueError if they are not written so."""
    parts = [part.partition("..") for part in source.removeprefix(kind).split(",")]
    right = (dots and first.isdecimal() and last.isdecimal() and int(first) <= int(last) for first, dots, last in parts)
    if not source.startswith(kind) or not all(right):
        fix = f"such as {kind}0..999"
        raise InvalidValueError(f"seeds are written {kind}A..B or {kind}A..B,C..D", seen=source, fix=fix)
    return tuple(seed for first, _, last in parts for seed in range(int(first), int(last) + 1))


def runs(seeds: Sequence[int]) -> list[list[int]]:
    """The first and the last of each run of seeds that follow one another."""
    found: list[list[int]] = []
    for seed in seeds:
        if found and seed == found[-1][1] + 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return found


def fit(
    sample: Sample,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    fps: object = None,
    *,
    films: bool = True,
    name: str = "this Sample",
) -> Sample:
    """A Sample at another rate, cut to its first frames, then resized to cover `size` and cut about its middle.

    Frame 0 stays frame 0, and becomes the scene's image and labels. An object that is cut away is still known to the
    scene. Without `films` the video is left out, and need not be there. Raises SampleError, with `name`, for a Sample
    without masks or a video that is wanted, or with too few frames.
    """
    size, frames, rate = _form(size, frames, fps)
    if sample.trajectory is None or (films and sample.video is None):
        fix = "training needs both" if films else "training needs masks"
        raise SampleError(f"{name} has no masks or no video" if films else f"{name} has no masks", fix=fix)
    old = sample.trajectory
    if not films:
        sample = replace(sample, video=None)
    rate = rate or old.fps
    chosen = _nearest_frames(len(old), old.fps, rate)
    if frames is not None and len(chosen) < frames:
        seen = f"{len(chosen)} frames at {rate} fps, {float(len(old) / old.fps):.2f} s"
        raise SampleError(f"{name} is too short for {frames} frames", seen=seen, fix="leave it out, or ask for fewer")
    chosen = chosen[:frames]
    same = size in (None, old.size) and rate == old.fps and len(chosen) == len(old)
    if same:
        return sample
    pixels = sample.scene.image[None] if sample.video is None else sample.video.frames[chosen]
    labels = old.labels[chosen]
    if size not in (None, old.size):
        pixels, labels = _covering(pixels, labels, size)
    scene = replace(sample.scene, image=pixels[0], labels=labels[0])
    video = None if sample.video is None else Video(pixels, rate)
    return Sample(scene, MaskTrajectory(labels, rate), video, sample.origin)


def _form(
    size: tuple[int, int] | None, frames: int | None, fps: object
) -> tuple[tuple[int, int] | None, int | None, Fraction | None]:
    """The three, checked."""
    if size is not None:
        size = (int(size[0]), int(size[1]))
        if min(size) < 1:
            raise InvalidValueError("height and width must be at least 1", seen=size)
    if frames is not None and frames < 1:
        raise InvalidValueError("frames must be at least 1", seen=frames)
    return size, frames, None if fps is None else exact_fps(fps)


def _nearest_frames(count: int, old: Fraction, new: Fraction) -> list[int]:
    """The source of each frame at the new rate, as `edit.resample` has it."""
    half = Fraction(1, 2)
    return [
        min(count - 1, math.floor(k * old / new + half)) for k in range(max(1, math.floor(count * new / old + half)))
    ]


def _covering(pixels: Pixels, labels: Labels, size: tuple[int, int]) -> tuple[Pixels, Labels]:
    """Pixels T H W 3 and labels T H W (each its own T), resized to cover `size` and cut to it about the middle."""
    old = labels.shape[1:]
    scale = max(Fraction(new, length) for new, length in zip(size, old, strict=True))
    covering = tuple(max(new, round(length * scale)) for new, length in zip(size, old, strict=True))
    top, left = ((large - new) // 2 for large, new in zip(covering, size, strict=True))
    window = (slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
    resized = np.stack([media.resize(frame, (covering[0], covering[1])) for frame in pixels])
    return resized[window], media.resize_labels(labels, (covering[0], covering[1]))[window]


def _places(path: Path) -> Iterator[Place]:
    """The Samples at a path, in order of their names; what a killed process left behind (.tmp-...) is passed over."""
    fix = "make some with throughmask synthetic --seeds or throughmask toybox --seeds"
    if path.suffix == ".tar" and not path.is_dir():
        shards, folders = [path], []
    else:
        shards = sorted(shard for shard in path.glob("*.tar") if not shard.name.startswith("."))
        folders = sorted(
            header.parent for header in path.glob("*/scene.json") if not header.parent.name.startswith(".")
        )
    if shards and folders:
        raise SampleError(f"{path} holds Sample folders and shards", fix="keep them in folders of their own")
    yield from map(Place, folders)
    keys = [(shard, key, start) for shard in shards for key, start in list_keys(shard).items()]
    yield from (Place(*each) for each in keys)
    if not folders and not keys:
        raise SampleError(f"{path} holds no Samples", fix=fix)


def _name(place: Place) -> str:
    return f"{place.path}, key {place.key}" if place.key else str(place.path)


# An item, its texts and its flow are asked for one after another: the last story and Sample are kept.


@lru_cache(maxsize=1)
def _story(seed: int, options: tuple[tuple[str, Any], ...]) -> Story:
    from ..toybox import make_story

    return make_story(seed, **dict(options))


@lru_cache(maxsize=1)
def _stored(
    place: Place, changed: int, size: tuple[int, int] | None, frames: int | None, fps: Fraction | None, films: bool
) -> Sample:
    """changed: when it was written, so that a Sample that was written again is read again."""
    sample = open_sample(*place) if place.key else load_sample(place.path)
    return fit(sample, size, frames, fps, films=films, name=_name(place))
