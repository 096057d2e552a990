"""The frames of an input, one after another, so that a long video never fills the memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from ..errors import InvalidValueError, MediaError
from ..interop.davis import numbered
from ..media import MAX_VIDEO_PIXELS, read_image, resize
from ..media.timing import Timing, read_timing, video_stream
from ..media.videos import SCALING, cropped, upright
from ..types import Pixels, Video
from .inputs import Input, on_disk

log = logging.getLogger(__name__)

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
NEAR = 100  # frames: decoding what lies between two clips is faster than beginning anew at a key frame
SMALL = 256  # pixels along the longer side: enough to tell shots


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """The frames of a video file. source: for each of them, in order, which frame of the file it is."""

    path: Path
    fps: Fraction
    source: Sequence[int]
    timing: Timing

    def __len__(self) -> int:
        return len(self.source)

    def stream(self, start: int = 0, *, small: bool = False) -> Iterator[Pixels]:
        """Pixels H W 3 of frame `start` and all that follow; small: shrunk to SMALL. Raises MediaError for damage.

        What comes long before `start` is not decoded, so damage there does not matter.
        """
        reformatter, at, first = VideoReformatter(), start, None
        begin = decoded = self.timing.start_before(self.source[start]) if start < len(self.source) else 0
        began = self.timing.origin + int(self.timing.ticks[begin])
        with video_stream(self.path) as (container, stream):
            there = not begin or _sought(container, stream, began)
            for frame in container.decode(stream) if there else ():
                if begin and first is None and frame.pts != began:
                    if frame.pts is not None and frame.pts < began:
                        continue  # the file's index knows an earlier key frame only
                    break
                size = (frame.height, frame.width)
                first = first or size
                if size != first:
                    raise MediaError("the video changes its size", seen=f"{self.path}: {first}, then {size}")
                if frame.is_corrupt:
                    raise MediaError("the video is damaged", seen=f"{self.path}: frame {decoded}")
                pixels = None
                while at < len(self.source) and self.source[at] == decoded:
                    if pixels is None:
                        pixels = self._pixels(frame, container, reformatter, small)
                    yield pixels
                    at += 1
                decoded += 1
        if begin and first is None:  # the index leads past it (a transport stream has none)
            whole = replace(self, timing=replace(self.timing, starts=(0,)))
            yield from whole.stream(start, small=small)
            return
        stored = len(self.timing.ticks)
        if decoded != stored:
            seen = f"{self.path}: {decoded} of {stored} frames can be decoded"
            raise MediaError("the video is damaged", seen=seen, fix="convert it with: ffmpeg -i IN OUT.mp4")

    @staticmethod
    def _pixels(frame: Any, container: Any, reformatter: VideoReformatter, small: bool) -> Pixels:
        if small:
            share = min(1.0, SMALL / max(frame.height, frame.width))
            height, width = (max(2, round(side * share)) for side in (frame.height, frame.width))
            shrunk = reformatter.reformat(frame, width=width, height=height, format="rgb24")
            return np.asarray(shrunk.to_ndarray(), np.uint8)
        pixels = reformatter.reformat(frame, format="rgb24", interpolation=SCALING).to_ndarray()
        return np.ascontiguousarray(upright(cropped(pixels, container), frame), np.uint8)


def _sought(container: Any, stream: Any, tick: int) -> bool:
    """Whether the file could be wound to there, or to before."""
    try:
        container.seek(tick, stream=stream)
    except FFmpegError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class PictureFrames:
    """Frames that are pictures in a folder."""

    paths: Sequence[Path]
    fps: Fraction

    def __len__(self) -> int:
        return len(self.paths)

    def stream(self, start: int = 0, *, small: bool = False) -> Iterator[Pixels]:
        """As `VideoFrames.stream`."""
        first = None
        for path in self.paths[start:]:
            pixels = read_image(path)
            first = first or pixels.shape
            if pixels.shape != first:
                raise MediaError("the pictures differ in size", seen=f"{path}: {pixels.shape[:2]}, first {first[:2]}")
            share = min(1.0, SMALL / max(pixels.shape[:2]))
            yield resize(pixels, _shrunk(pixels, share)) if small and share < 1 else pixels


Frames = VideoFrames | PictureFrames


def open_frames(
    item: Input, path: Path, *, fps: Fraction | None = None, every: int = 1, names: Sequence[str] | None = None
) -> Frames:
    """The frames of an input whose media lies at `path`.

    fps: to resample to; every: only every so many frames. names: of the pictures that are wanted, without suffix; for
    a video it stands for frames that masks belong to, which are never resampled. Raises MediaError or FormatError.
    """
    if path.is_dir():
        return _pictures(item, path, fps, names)
    timing = read_timing(path)
    if names is not None or (fps is None and not timing.variable):
        source = list(range(len(timing.ticks)))
        rate = timing.fps
    else:
        rate = fps or timing.fps
        source = timing.resampled(rate).tolist()
    if timing.variable:
        log.info("%s: its frame rate varies; it was taken to be %s frames a second", item.name, rate)
    return VideoFrames(path, rate / every, source[::every], timing)


class Reader:
    """Cuts clips out of inputs. Clips of one input, asked for in order, are decoded in one pass."""

    def __init__(self, fps: Fraction | None = None) -> None:
        self.fps = fps
        self._input: Input | None = None
        self._open = ExitStack()
        self._frames: Frames | None = None
        self._stream: Iterator[Pixels] = iter(())
        self._at = 0

    def read(self, item: Input, start: int, end: int, *, every: int, names: Sequence[str] | None = None) -> Video:
        """Frames `start` to `end` (excluded). Raises MediaError for what cannot be decoded, or is too large."""
        try:
            if item != self._input or self._frames is None:
                self.close()
                path = self._open.enter_context(on_disk(item.media))
                self._frames = open_frames(item, path, fps=self.fps, every=every, names=names)
                self._input = item
            elif self._at <= start <= self._at + NEAR:
                try:
                    return Video(self._taken(item, start, end), self._frames.fps)
                except MediaError:
                    if self._at > start:
                        raise
                    # Else damage lies between two clips: whether it matters is the same for all who read this one.
            self._stream, self._at = self._frames.stream(start), start
            return Video(self._taken(item, start, end), self._frames.fps)
        except BaseException:
            self.close()
            raise

    def _taken(self, item: Input, start: int, end: int) -> Pixels:
        pixels: Pixels | None = None
        for at in range(self._at, end):
            frame = next(self._stream, None)
            self._at = at + 1
            if frame is None:
                raise MediaError("the video ends before its clip does", seen=f"{item.name}: {at} frames")
            if at < start:
                continue
            if pixels is None:
                if (end - start) * frame.shape[0] * frame.shape[1] > MAX_VIDEO_PIXELS:
                    seen = f"{end - start} frames of {frame.shape[0]}×{frame.shape[1]}"
                    raise MediaError("the clip is too large for memory", seen=seen, fix="cut shorter clips")
                pixels = np.empty((end - start, *frame.shape), np.uint8)
            pixels[at - start] = frame
        if pixels is None:
            raise InvalidValueError("a clip has at least one frame", seen=f"{start} to {end}")
        return pixels

    def close(self) -> None:
        """Let go of the input that is open."""
        self._stream = iter(())
        self._open.close()
        self._open, self._input, self._frames = ExitStack(), None, None


def _pictures(item: Input, path: Path, fps: Fraction | None, names: Sequence[str] | None) -> PictureFrames:
    if item.fps is None:
        raise InvalidValueError("a folder of pictures has no frame rate of its own", seen=item.name)
    rate = item.fps
    if fps is not None and fps != rate:
        raise InvalidValueError("pictures are not resampled", seen=f"{item.name}: {rate} fps", fix="leave out --fps")
    paths, step = numbered(path, PICTURES)
    if not names:
        return PictureFrames(paths, rate / step)
    known = {picture.stem: picture for picture in paths}
    missing = [name for name in names if name not in known]
    if missing:
        raise MediaError("masks have no pictures", seen=f"{item.name}: {len(missing)}, such as {missing[0]}")
    places = {picture.stem: place for place, picture in enumerate(paths)}
    gap = places[names[1]] - places[names[0]] if len(names) > 1 else 1
    return PictureFrames([known[name] for name in names], rate / (gap * step))


def _shrunk(pixels: Pixels, share: float) -> tuple[int, int]:
    return max(2, round(pixels.shape[0] * share)), max(2, round(pixels.shape[1] * share))
