"""When each frame of a video is shown: exact counts and rates from its packets, before anything is decoded."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from ..errors import MediaError
from ..files import must_be_file

# No playlists or image sequences: they open other files, even over the network.
VIDEO_FORMATS = "mov,mp4,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,ogg,flv,asf,h264,hevc,yuv4mpegpipe"
ALWAYS_FRESH = ("mjpeg", "prores", "vp8", "vp9")
# Codec: the kind of a NAL unit by its first byte, kinds that are IDR pictures, and where an mp4's codec data says how
# many bytes a unit's length has (ISO 14496-15).
FRESH_UNITS: dict[str, tuple[Callable[[int], int], tuple[int, ...], int]] = {
    "h264": (lambda byte: byte & 31, (5,), 4),
    "hevc": (lambda byte: (byte >> 1) & 63, (19, 20), 21),
}
STANDARD_RATES = [Fraction(n) for n in (24, 25, 30, 48, 50, 60, 120)] + [
    Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)
]


@dataclass(frozen=True)
class Timing:
    """When each frame is shown: ticks of `tick` seconds, ascending, from 0; `length` is the whole in ticks.

    origin: of the first frame, as the file counts ticks. starts: frames, ascending, from which decoding can begin and
    gives what it gives from the first on: neither they nor any later ones depend on those before.
    """

    ticks: npt.NDArray[np.int64]
    length: int
    tick: Fraction
    fps: Fraction
    variable: bool
    origin: int = 0
    starts: tuple[int, ...] = (0,)

    def start_before(self, frame: int) -> int:
        """The last of `starts` that is not after `frame`."""
        return self.starts[bisect_right(self.starts, frame) - 1]

    @property
    def seconds(self) -> Fraction:
        return self.length * self.tick if self.variable else len(self.ticks) / self.fps

    def count(self, rate: Fraction) -> int:
        """How many frames there are at `rate`."""
        return max(1, round(self.seconds * rate))

    def resampled(self, rate: Fraction) -> npt.NDArray[np.int64]:
        """For each frame at `rate`, the index of the frame that is on display then."""
        count, last = self.count(rate), len(self.ticks) - 1
        if not self.variable:
            return np.array([min(int(k * self.fps / rate), last) for k in range(count)])
        step = 1 / (rate * self.tick)
        times = [int(k * step + Fraction(1, 2)) for k in range(count)]  # containers round times to the nearest tick
        return np.searchsorted(self.ticks, times, side="right") - 1


@contextmanager
def video_stream(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream; everything that FFmpeg says about a bad file becomes a MediaError."""
    must_be_file(path)
    options = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "file"}
    try:
        # An absolute path cannot be taken for a protocol such as "concat:".
        with av.open(str(Path(path).absolute()), options=options, metadata_errors="replace") as container:
            cover = av.stream.Disposition.attached_pic
            streams = [s for s in container.streams.video if not s.disposition & cover]
            if not streams:
                raise MediaError("the file has no video track", seen=str(path), fix="name a video file")
            streams[0].thread_type = "AUTO"
            yield container, streams[0]
    except FFmpegError as error:
        fix = "check that it plays, or convert it with: ffmpeg -i IN -pix_fmt yuv420p OUT.mp4"
        seen = f"{path}: {error.strerror}"
        raise MediaError("the file is not a video, or is cut off or damaged", seen=seen, fix=fix) from error


def read_timing(path: str | Path) -> Timing:
    """Walk the packets of a video without decoding. Raises MediaError where it is cut off or empty."""
    with video_stream(path) as (container, stream):
        times, fresh, end, damaged = [], [], 0, False
        for packet in container.demux(stream):
            if packet.dts is None and packet.pts is None and not packet.size:
                continue  # the flush packet
            damaged |= packet.is_corrupt
            if not packet.is_discard:
                times.append(packet.pts)
                if packet.is_keyframe and _is_fresh(stream.codec_context, packet):
                    fresh.append(packet.pts)
                end = max(end, (packet.pts or 0) + (packet.duration or 0))
        if not times:
            raise MediaError("the video has no frames", seen=str(path), fix="check that it plays")
        if damaged or len(times) < _promised(container, stream) or _ends_early(stream, end):
            fix = "copy it again from its source"
            raise MediaError("the video is cut off or damaged", seen=f"{path}: {len(times)} frames found", fix=fix)
        header = [Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
        if any(time is None for time in times):  # a raw stream knows its rate only
            times, tick = list(range(len(times))), 1 / (header or [Fraction(25)])[0]
            return Timing(np.array(times), len(times), tick, 1 / tick, False)
        shown = np.sort(np.array(times, np.int64))
        found = _rated(shown, end, Fraction(stream.time_base), header)
        if (np.diff(shown) <= 0).any():  # a frame is then not known by its time
            return found
        starts = sorted({0, *(int(place) for place in np.searchsorted(shown, fresh))})
        return replace(found, origin=int(shown[0]), starts=tuple(starts))


def _is_fresh(codec: Any, packet: Any) -> bool:
    """Whether nothing depends, from this key frame on, on what came before. Others are marked as key frames, too:
    pictures from which a decoder recovers by and by, and those that later ones are shown before.
    """
    if codec.name in ALWAYS_FRESH:
        return True
    if codec.name not in FRESH_UNITS:
        return False
    extra, content = bytes(codec.extradata or b""), bytes(packet)
    kind, fresh, length_at = FRESH_UNITS[codec.name]
    if not extra.startswith(b"\x01") or len(extra) <= length_at:  # units begin with a mark, not with their length
        return any(kind(unit[0]) in fresh for unit in re.split(rb"\x00\x00\x01", content)[1:] if unit)
    size, at = (extra[length_at] & 3) + 1, 0
    while at + size < len(content):
        if kind(content[at + size]) in fresh:
            return True
        at += size + int.from_bytes(content[at : at + size], "big")
    return False


def _promised(container: Any, stream: Any) -> int:
    """How many frames the file's index lists; 0 for a format that keeps none."""
    if container.format.name.startswith("mov"):
        return sum(not entry.is_discard for entry in stream.index_entries)
    return int(stream.frames) if container.format.name == "avi" else 0


def _ends_early(stream: Any, end: int) -> bool:
    """Whether a Matroska or WebM track states a duration that its frames, which end at tick `end`, do not fill."""
    stated = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if not stated:
        return False
    seconds = 3600 * int(stated[1]) + 60 * int(stated[2]) + float(stated[3])
    return seconds - float(end * stream.time_base) > 0.25


def _rated(times: npt.NDArray[np.int64], end: int, tick: Fraction, header: list[Fraction]) -> Timing:
    """Find the exact frame rate that explains the times, or else the sensible rate nearest to their average.

    Containers round times to ticks (1 ms in WebM), so a rate explains times that it meets within one tick.
    """
    ticks = times - times[0]
    gaps = np.diff(ticks)
    length = max(int(end - times[0]), int(ticks[-1]) + 1)
    if not len(gaps):
        rate = (header or [1 / (length * tick)])[0]
        return Timing(ticks, length, tick, rate, False)
    mean = len(gaps) / (int(ticks[-1]) * tick) if ticks[-1] else Fraction(25)
    exact = [1 / (int(gaps[0]) * tick)] if gaps[0] > 0 and (gaps == gaps[0]).all() else []
    fine = exact if tick < Fraction(1, 5000) else []
    close = sorted(STANDARD_RATES, key=lambda rate: abs(rate - mean))
    steps = np.arange(len(ticks))
    for rate in [*fine, *header, *close, *exact]:
        expected = steps * float(1 / (rate * tick))
        if np.abs(ticks - expected).max() <= 1.01 and (gaps > 0).all():
            return Timing(ticks, length, tick, rate, False)
    rate = close[0] if abs(close[0] - mean) < mean / 200 else Fraction(max(1, round(mean)))
    return Timing(ticks, length, tick, rate, True)
