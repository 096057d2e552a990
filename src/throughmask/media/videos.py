"""Videos as pixels at an exact frame rate, and back as H.264."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from ..errors import MediaError, ThroughMaskWarning
from ..files import new_file
from ..types import Pixels, Video, exact_fps
from .timing import read_timing, video_stream

log = logging.getLogger(__name__)

MAX_VIDEO_PIXELS = 1 << 32  # of all frames together: 12.9 GB in memory; 10,000 frames at 480p
MAX_FRAMES = 10_000
MAX_RATE_TERM = 1_000_000  # numerator and denominator of a frame rate that every container here keeps exactly
# Measured: 0.9 dB better than swscale's default on a round trip of real frames, and flat colours come back within 1.
SCALING = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
SCALING |= Interpolation.ACCURATE_RND | Interpolation.BITEXACT
HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
SIZE_NOTE = re.compile(r"throughmask size (\d{1,6})x(\d{1,6})")  # height x width before padding


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds. `size` is height and width as `read_video` gives them; `fps` is what it would use."""

    frames: int
    fps: Fraction
    size: tuple[int, int]
    seconds: float
    codec: str
    variable: bool


def probe_video(path: str | Path) -> VideoInfo:
    """Count the frames of a video and decode its first, without keeping pixels. Raises MediaError as `read_video`."""
    timing = read_timing(path)
    with video_stream(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise MediaError("the video has no frame that can be decoded", seen=str(path))
        size = upright(cropped(np.empty((first.height, first.width)), container), first).shape
        codec = stream.codec_context.name
    return VideoInfo(len(timing.ticks), timing.fps, (size[0], size[1]), float(timing.seconds), codec, timing.variable)


def read_video(
    path: str | Path,
    *,
    fps: Fraction | int | str | None = None,
    max_frames: int = MAX_FRAMES,
    max_pixels: int = MAX_VIDEO_PIXELS,
) -> Video:
    """All frames of a video, upright, at its exact frame rate, or resampled to `fps`.

    A video of variable frame rate is resampled to `fps`, or to the rate nearest its average, with a notice: each output
    frame is the one that a player would show at that time. `max_pixels` counts all frames together.

    Raises MediaError if the file is missing, damaged, cut off, without a frame or a picture track, or over a limit.
    """
    timing = read_timing(path)
    rate = timing.fps if fps is None else exact_fps(fps)
    count = timing.count(rate)
    if count > max_frames:
        fix = f"cut the video, or raise max_frames (now {max_frames})"
        raise MediaError("the video has too many frames", seen=f"{path}: {count}", fix=fix)
    if timing.variable:
        became = f"{len(timing.ticks)} frames became {count}"
        warnings.warn(
            f"{path}: its frame rate varies, so it was resampled to {rate} frames a second ({became})",
            ThroughMaskWarning,
            stacklevel=2,
        )
    elif rate != timing.fps:
        log.info("%s: resampled from %s to %s frames a second", path, timing.fps, rate)
    with video_stream(path) as (container, stream):
        return Video(_decode(path, container, stream, len(timing.ticks), timing.resampled(rate), max_pixels), rate)


def write_video(path: str | Path, video: Video, *, lossless: bool = False, force: bool = False) -> None:
    """Write an mp4: H.264 4:2:0 that browsers play, or with `lossless` RGB H.264, bit for bit, which few players show.

    An odd height or width is padded by repeating the last row or column; the true size goes into the file's metadata
    and `read_video` crops to it.

    Raises MediaError for another suffix or a frame rate that mp4 cannot keep, OutputError if it cannot be written.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise MediaError("videos are written as mp4", seen=str(path), fix="end the name in .mp4")
    if max(video.fps.numerator, video.fps.denominator) > MAX_RATE_TERM:
        raise MediaError("the frame rate is too fine for mp4", seen=str(video.fps), fix="use a simpler fraction")
    options = {"movflags": "+faststart"}  # the index comes first, so that a browser can start before it has the rest
    with (
        new_file(path, force=force) as temporary,
        av.open(str(temporary), "w", format="mp4", options=options) as container,
    ):
        height, width = video.size
        if not lossless and (height % 2 or width % 2):
            container.metadata["comment"] = f"throughmask size {height}x{width}"
        stream = _encoder(container, video, lossless)
        for packet in _encoded(stream, video, lossless):
            container.mux(packet)


def _decode(
    path: str | Path, container: Any, stream: Any, count: int, wanted: npt.NDArray[np.int64], max_pixels: int
) -> Pixels:
    """Decode straight into one array (T H W 3); `wanted` holds, in order, the source frame of each output frame."""
    out: Pixels | None = None
    reformatter, index = VideoReformatter(), -1
    for index, frame in enumerate(container.decode(stream)):
        if out is None:
            first = (frame.height, frame.width)
            if len(wanted) * frame.height * frame.width > max_pixels:
                seen = f"{path}: {len(wanted)} frames of {first[0]}×{first[1]}"
                fix = f"cut or shrink it, or raise max_pixels (now {max_pixels})"
                raise MediaError("the video is too large for memory", seen=seen, fix=fix)
            shape = upright(cropped(np.empty(first), container), frame).shape
            out = np.empty((len(wanted), shape[0], shape[1], 3), np.uint8)
            _explain(path, frame, stream)
        if (frame.height, frame.width) != first:
            seen = f"{path}: {first[0]}×{first[1]}, then {frame.height}×{frame.width}"
            raise MediaError("the video changes its size", seen=seen, fix="convert it to one size")
        low, high = np.searchsorted(wanted, [index, index + 1])
        if low < high:
            pixels = reformatter.reformat(frame, format="rgb24", interpolation=SCALING).to_ndarray()
            out[low:high] = upright(cropped(pixels, container), frame)
    if out is None or index + 1 != count:
        seen = f"{path}: {index + 1} of {count} frames can be decoded"
        raise MediaError("the video is damaged", seen=seen, fix="convert it with: ffmpeg -i IN OUT.mp4")
    return out


def _explain(path: str | Path, frame: Any, stream: Any) -> None:
    aspect = stream.sample_aspect_ratio or 1
    if abs(aspect - 1) > 0.01:
        warnings.warn(
            f"{path}: its pixels are {float(aspect):.3f} times as wide as high; they are read as square",
            ThroughMaskWarning,
            stacklevel=2,
        )
    if frame.color_trc in HDR:
        warnings.warn(
            f"{path}: high dynamic range is read without tone mapping; colours will look pale",
            ThroughMaskWarning,
            stacklevel=2,
        )


def cropped(pixels: npt.NDArray[Any], container: Any) -> npt.NDArray[Any]:
    """Undo the padding of `write_video`; a note that asks for more than one row or column is not ours."""
    note = SIZE_NOTE.fullmatch(container.metadata.get("comment", ""))
    height, width = (int(note[1]), int(note[2])) if note else pixels.shape[:2]
    if note and (pixels.shape[0] - height, pixels.shape[1] - width) not in ((0, 1), (1, 0), (1, 1)):
        return pixels
    return pixels[:height, :width]


def upright(pixels: npt.NDArray[Any], frame: Any) -> npt.NDArray[Any]:
    """Turn and mirror a frame as the container's display matrix says (x' = a x + c y, y' = b x + d y)."""
    matrix = next((side for side in frame.side_data if side.type == SideDataType.DISPLAYMATRIX), None)
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(matrix), "<i4")[:5]
    if abs(int(b)) + abs(int(c)) > abs(int(a)) + abs(int(d)):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _encoder(container: Any, video: Video, lossless: bool) -> Any:
    stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=video.fps)
    height, width = video.size
    if lossless:
        stream.height, stream.width, stream.pix_fmt = height, width, "rgb24"
        stream.options = {"qp": "0", "preset": "veryfast"}
        return stream
    stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
    # A key frame every 24 frames: an editor can jump to any frame without decoding the whole clip.
    # Without macroblock trees: on some processors with AVX-512 they make other bytes of the same frames, now and then.
    stream.options = {"crf": "15", "preset": "fast", "g": "24", "mbtree": "0"}
    context = stream.codec_context
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def _encoded(stream: Any, video: Video, lossless: bool) -> Iterator[Any]:
    reformatter = VideoReformatter()
    height, width = video.size
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    for number, pixels in enumerate(video.frames):
        if not lossless and (height % 2 or width % 2):
            pixels = np.pad(pixels, padding, mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        if not lossless:
            frame = reformatter.reformat(
                frame,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=SCALING,
            )
        frame.pts, frame.time_base = number, 1 / video.fps
        yield from stream.encode(frame)
    yield from stream.encode()
