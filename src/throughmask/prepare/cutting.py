"""Inputs to clips, by numbers alone: where shots change, then pieces of at most so many frames."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, MissingPackageError, ThroughMaskError, ThroughMaskWarning
from .config import Config, Cutting
from .filters import Reject
from .frames import Frames, open_frames
from .given import GivenMasks, open_masks
from .inputs import Input, on_disk


@dataclass(frozen=True)
class Cut:
    """An input in pieces. frames: how many, of every so many, at `fps`; pieces: first frame and end (excluded)."""

    frames: int
    fps: Fraction
    every: int
    pieces: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Clip:
    """The unit of account: frames `start` to `end` (excluded) of an input. failed: it could not even be cut."""

    input: Input
    start: int = 0
    end: int = 0
    every: int = 1
    failed: Reject | None = None

    @property
    def id(self) -> str:
        """`<input>-<start>-<end>`, or the input's own id where that could not be cut."""
        return self.input.id if self.failed else f"{self.input.id}-{self.start:05d}-{self.end:05d}"


def check_cutting(cutting: Cutting) -> None:
    """Raises MissingPackageError if shots are to be found and PySceneDetect is not there."""
    if cutting.shots:
        try:
            import scenedetect  # noqa: F401
        except ImportError:
            raise MissingPackageError("finding shots (--no-shots does without)", "prepare") from None


def cut(item: Input, config: Config) -> Cut | Reject:
    """Where an input is to be cut. An input that cannot be read is rejected, with the step in which it failed."""
    step = "masks"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ThroughMaskWarning)  # the log has them when the clips are made
            masks = open_masks(item) if config.masks == "given" else None
            step = "cut"
            if isinstance(item.media, Path) and not item.media.exists():
                raise FormatError("the video is not there", seen=str(item.media))
            with on_disk(item.media) as path:
                frames = _frames(item, path, config, masks)
                starts = shot_starts(frames, config.cutting.threshold) if config.cutting.shots else [0]
        step = "masks"
        if masks is not None and masks.frames != len(frames):
            seen = f"{masks.frames} masks, {len(frames)} frames"
            raise FormatError("masks and video differ in frame count", seen=seen)
    except ThroughMaskError as error:
        return Reject(step, error.problem, None if error.seen is None else str(error.seen))
    except Exception as error:  # one odd file must not end a run over a million
        return Reject(step, "unexpected error", f"{type(error).__name__}: {error}"[:500])
    every = 1 if masks is None else masks.every
    return Cut(len(frames), frames.fps, every, tuple(_pieces(starts, len(frames), config.cutting.frames)))


def shot_starts(frames: Frames, threshold: float) -> list[int]:
    """The first frame of each shot, by PySceneDetect on small frames.

    Its adaptive detector compares each change with those around it; the plain one takes a shaking camera for cuts.
    """
    from scenedetect import AdaptiveDetector, FrameTimecode

    # Of any length: a short shot is rejected as such, while a clip that spans two shots would teach jumps.
    detector: Any = AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=1)
    rate, starts = float(frames.fps), [0]
    for number, pixels in enumerate(frames.stream(small=True)):
        found = detector.process_frame(FrameTimecode(number, rate), np.ascontiguousarray(pixels[..., ::-1]))
        starts += [time.frame_num for time in found]
    starts += [time.frame_num for time in detector.post_process(FrameTimecode(len(frames) - 1, rate))]
    return sorted({start for start in starts if start < len(frames)})


def _pieces(starts: list[int], frames: int, longest: int) -> Iterator[tuple[int, int]]:
    for start, end in zip(starts, [*starts[1:], frames], strict=True):
        yield from ((at, min(at + longest, end)) for at in range(start, end, longest))


def _frames(item: Input, path: Path, config: Config, masks: GivenMasks | None) -> Frames:
    if masks is None:
        return open_frames(item, path, fps=config.cutting.fps)
    return open_frames(item, path, every=masks.every, names=masks.stems)
