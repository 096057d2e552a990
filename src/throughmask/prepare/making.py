"""A clip becomes a Sample, or is rejected with the step, the reason and the value: the whole story of `prepare`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import ThroughMaskError
from ..perception.instruct.connection import ServerError
from ..perception.language import Language, Reading
from ..perception.parse import UNNAMED, Perception, track_video
from ..types import Labels, MaskTrajectory, Origin, Pixels, Sample, Scene, SceneObject, Video, present_ids
from .config import Config
from .cutting import Clip
from .filters import Filters, Reject, check, check_first, check_found, measure
from .frames import Reader
from .given import GivenMasks, open_masks
from .inputs import Input

MOST_UNEXPECTED = 5  # errors in a row: then it is not the clips
STEPS = ("cut", "decode", "language", "masks", "detect", "track", "filter", "write")


class Made(NamedTuple):
    """What became of a clip. facts: of a Sample, for the report (JSON). seconds: by step. error: one not foreseen."""

    result: Sample | Reject
    facts: dict[str, Any]
    seconds: dict[str, float]
    error: Exception | None = None


class Decoded(NamedTuple):
    """A clip's frames, and its labels (T H W) and their names if masks are given; or what became of it already."""

    video: Video | None = None
    labels: Labels | None = None
    names: Mapping[int, str] = {}
    seconds: Mapping[str, float] = {}
    made: Made | None = None


class Found(NamedTuple):
    """A clip whose caption is read: its Scene, and its masks once they are known; or what became of it already."""

    video: Video | None = None
    scene: Scene | None = None
    trajectory: MaskTrajectory | None = None
    seconds: Mapping[str, float] = {}
    made: Made | None = None


@dataclass(eq=False)
class Tools:
    """What works on clips. tell: frames (T H W 3) to a caption, for a video that has none. perception: it looks at one
    clip's first frame in a thread while it follows other clips' objects in others. at_once: how many clips it follows
    at a time: with two a GPU has work while the masks of one are laid out on the host.
    """

    language: Language
    perception: Perception | None = None
    tell: Callable[[Pixels], str] | None = None
    reader: Reader = field(default_factory=Reader)
    at_once: int = 1
    _masks: tuple[Input, GivenMasks] | None = None

    def masks_of(self, item: Input) -> GivenMasks:
        """The given masks of an input; those of the last one are kept."""
        if self._masks is None or self._masks[0] != item:
            self._masks = None
            self._masks = item, open_masks(item)
        return self._masks[1]


def prepare_clip(clip: Clip, config: Config, tools: Tools) -> Made:
    """One clip to its Sample or Reject; the same clip and configuration always give the same.

    Raises ServerError, which is no fault of the clip; whatever else goes wrong rejects it.
    """
    found = find(clip, decode_clip(clip, config, tools), config, tools)
    return make_sample(clip, track(found, tools), config)


def decode_clip(clip: Clip, config: Config, tools: Tools) -> Decoded:
    """The first part, which needs no models."""
    steps = _Steps()
    try:
        return _decoded(clip, config, tools, steps)
    except Exception as error:
        return Decoded(made=_rejected(error, steps))


def find(clip: Clip, decoded: Decoded, config: Config, tools: Tools) -> Found:
    """The second part: what the caption says, and who of that is in the first frame. Raises ServerError."""
    if decoded.made is not None:
        return Found(made=decoded.made)
    steps = _Steps(decoded.seconds)
    try:
        return _found(clip, decoded, config, tools, steps)
    except ServerError:
        raise
    except Exception as error:
        return Found(made=_rejected(error, steps))


def track(found: Found, tools: Tools) -> Found:
    """The third part: where everyone goes, unless masks are given. Raises ServerError."""
    if found.made is not None or found.trajectory is not None:
        return found
    steps = _Steps(found.seconds)
    try:
        assert found.video is not None
        assert found.scene is not None
        assert tools.perception is not None
        with steps("track"):
            trajectory = track_video(found.video, found.scene, tools.perception)
        return found._replace(trajectory=trajectory, seconds=steps.seconds)
    except ServerError:
        raise
    except Exception as error:
        return Found(made=_rejected(error, steps))


def make_sample(clip: Clip, found: Found, config: Config) -> Made:
    """The last part, which needs no models: whether it is worth training on."""
    if found.made is not None:
        return found.made
    steps = _Steps(found.seconds)
    try:
        sample, facts = _story(clip, found, config, steps)
        return Made(sample, facts, steps.seconds)
    except Exception as error:
        return _rejected(error, steps)


def _rejected(error: Exception, steps: _Steps) -> Made:
    """What went wrong, as a reason."""
    if isinstance(error, _RejectedError):
        return Made(error.reject, {}, steps.seconds)
    if isinstance(error, ThroughMaskError):
        value = None if error.seen is None else str(error.seen)
        return Made(Reject(steps.now, error.problem, value), {}, steps.seconds)
    reject = Reject(steps.now, "unexpected error", f"{type(error).__name__}: {error}"[:500])
    return Made(reject, {}, steps.seconds, error)


def _decoded(clip: Clip, config: Config, tools: Tools, steps: _Steps) -> Decoded:
    with steps("cut"):
        _stop(clip.failed)
        if clip.end - clip.start < config.filters.min_frames:
            _stop(Reject("cut", "too short", clip.end - clip.start))
    with steps("masks"):
        masks = tools.masks_of(clip.input) if config.masks == "given" else None
    with steps("decode"):
        names = None if masks is None else masks.stems
        video = tools.reader.read(clip.input, clip.start, clip.end, every=clip.every, names=names)
    if masks is None:
        return Decoded(video, seconds=steps.seconds)
    with steps("masks"):
        labels = masks.read(clip.start, clip.end, video.size)
    return Decoded(video, labels, masks.names, steps.seconds)


def _found(clip: Clip, decoded: Decoded, config: Config, tools: Tools, steps: _Steps) -> Found:
    item, video, labels = clip.input, decoded.video, decoded.labels
    assert video is not None
    with steps("language"):
        caption = item.caption or config.caption
        if not caption and tools.tell is not None:
            caption = tools.tell(video.frames)
        if not caption and labels is None:
            _stop(Reject("language", "no caption"))
        reading = tools.language.read(caption) if caption else Reading("", "", ())
        if labels is None and not reading.objects:
            _stop(Reject("language", "the caption names no object", caption))
    if labels is None:
        scene = _detected(video, reading, config.filters, tools, steps)
        return Found(video, scene, seconds=steps.seconds)
    trajectory = MaskTrajectory(labels, video.fps)
    objects = _given_objects(trajectory.ids, decoded.names, reading)
    scene = Scene(video.frames[0], labels[0], caption, reading.motion_prompt or caption, objects)
    return Found(video, scene, trajectory, steps.seconds)


def _detected(video: Video, reading: Reading, filters: Filters, tools: Tools, steps: _Steps) -> Scene:
    """Detect and segment in the first frame. Id k is the k-th object that the caption names."""
    assert tools.perception is not None
    things = tuple(SceneObject(k, thing.name, thing.prompt) for k, thing in enumerate(reading.objects, 1))
    with steps("detect"):
        first = tools.perception.segment(video.frames[0], {thing.id: thing.name for thing in things})
        if not present_ids(first) and not any(thing.enters for thing in reading.objects):
            _stop(Reject("detect", "no object found", [thing.name for thing in things]))
        _stop(check_first(first, filters))
    return Scene(video.frames[0], first, reading.prompt, reading.motion_prompt, things)


def _story(clip: Clip, found: Found, config: Config, steps: _Steps) -> tuple[Sample, dict[str, Any]]:
    item, video, scene, trajectory = clip.input, found.video, found.scene, found.trajectory
    assert video is not None
    assert scene is not None
    assert trajectory is not None
    with steps("filter"):
        measures = measure(trajectory)
        _stop(check(measures, config.filters))
        lost = [thing.name for thing in scene.objects if thing.id not in measures.areas]
        _stop(check_found(len(scene.objects), lost, config.filters))
    kept = tuple(thing for thing in scene.objects if thing.id in measures.areas)
    scene = Scene(scene.image, trajectory.labels[0], scene.prompt, scene.motion_prompt, kept)
    facts = {**measures.facts(), "frames": len(video), "fps": str(video.fps), "size": list(video.size)}
    if lost:
        facts["not found"] = lost
    source = item.origin.source or item.name
    return Sample(scene, trajectory, video, Origin(source, item.origin.licence)), facts


def _given_objects(ids: tuple[int, ...], names: Mapping[int, str], reading: Reading) -> tuple[SceneObject, ...]:
    """Objects of given masks. What the caption says of one is found by its name, or where there is only one."""
    objects = []
    for id in ids:
        name = names.get(id, "")
        said = [thing for thing in reading.objects if name and _same(name, thing.name)]
        if not name and len(ids) == len(reading.objects) == 1:
            said = list(reading.objects)
        if len(said) == 1:
            objects.append(SceneObject(id, name or said[0].name, said[0].prompt))
        else:
            objects.append(SceneObject(id, name or f"object {id}", name or UNNAMED.prompt))
    return tuple(objects)


def _same(given: str, read: str) -> bool:
    """Whether "swan" or "black swan" is meant by "black swan"."""
    given, read = given.lower(), read.lower()
    return given == read or read.endswith(f" {given}") or given.endswith(f" {read}")


class _RejectedError(Exception):
    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.reason)
        self.reject = reject


def _stop(reject: Reject | None) -> None:
    if reject is not None:
        raise _RejectedError(reject)


class _Steps:
    """Which step is at work, and the seconds of each."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.now, self.seconds = STEPS[0], dict(seconds or {})

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.now, begun = name, time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun
