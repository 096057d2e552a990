"""Small videos of a scene for the page: mp4 files, each with a picture of its last frame."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import new_file
from ..media import write_video
from ..palette import OURS
from ..types import MaskTrajectory, Pixels, Video

LONGEST = (256, 192, 128)  # pixels along the longer side: the first at which a clip is small enough
MOST_BYTES = 60_000  # of a clip: five of them for each of 128 scenes make a page of 51 MB


def write_clips(folder: Path, clips: Mapping[str, Video | MaskTrajectory | None]) -> None:
    """NAME.mp4 and NAME.webp of each clip that is there; masks are painted. Raises OutputError."""
    for name, clip in clips.items():
        if clip is None:
            continue
        frames = OURS.paint(clip.labels) if isinstance(clip, MaskTrajectory) else clip.frames
        smooth = not isinstance(clip, MaskTrajectory)
        for longest in LONGEST:
            small = np.stack([_shrunk(frame, longest, smooth) for frame in frames])
            write_video(folder / f"{name}.mp4", Video(small, clip.fps), force=True)
            if (folder / f"{name}.mp4").stat().st_size <= MOST_BYTES:
                break
        with new_file(folder / f"{name}.webp", force=True) as temporary:
            Image.fromarray(small[-1]).save(temporary, "WEBP", quality=80)


def data_uri(path: Path) -> str:
    """A file's content as a data URI; "" where there is none."""
    kinds = {".mp4": "video/mp4", ".webp": "image/webp"}
    if not path.is_file():
        return ""
    return f"data:{kinds[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _shrunk(frame: Pixels, longest: int, smooth: bool) -> Pixels:
    height, width = frame.shape[:2]
    share = min(1.0, longest / max(height, width))
    if share == 1:
        return frame
    filter_ = Image.Resampling.HAMMING if smooth else Image.Resampling.NEAREST
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.array(Image.fromarray(np.ascontiguousarray(frame)).resize(size, filter_))
