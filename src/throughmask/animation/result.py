"""What animating a picture gives: a Sample, how it came about, and how it is looked at."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import draw, media, palette
from ..errors import InvalidValueError
from ..storage import new_sample_folder, save_sample
from ..types import MaskTrajectory, Sample, Video

if TYPE_CHECKING:
    from ..stages.image_to_motion import Proposal

OVERLAY, SHEET = "overlay.mp4", "sheet.png"
LONGEST_SHOWN = 320  # pixels of a video's longer side in a notebook


@dataclass(frozen=True, eq=False)
class Animation:
    """What `animate` made: a Sample with its video, and how.

    candidates: the motions it chose from, each with its seed and confidence. seed: of the motion that was rendered.
    seconds: spent on "parse", "load", "move", "render" and, where results were kept, "write". notes: what a person
    should know.
    """

    sample: Sample
    candidates: tuple[Proposal, ...] = ()
    seed: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Write the Sample's folder, with overlay.mp4 and sheet.png beside its own files.

        Raises OutputError as `storage.save_sample`.
        """
        with new_sample_folder(folder, force=force) as place:
            save_sample(self.sample, place)
            write_pictures(self.sample, place)

    def _repr_html_(self) -> str:
        """Video and masks side by side, for a notebook: one small mp4 inside of the page."""
        video, trajectory = _shown(self.sample)
        size = _at_most(LONGEST_SHOWN, video.size)
        frames = video.frames if size == video.size else np.stack([media.resize(each, size) for each in video.frames])
        painted = _colours(trajectory).paint(media.resize_labels(trajectory.labels, size))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "both.mp4"
            media.write_video(path, Video(np.concatenate([frames, painted], 2), video.fps))
            content = base64.b64encode(path.read_bytes()).decode()
        caption = html.escape(self.sample.scene.prompt)
        return (
            f'<figure><video autoplay loop muted playsinline controls src="data:video/mp4;base64,{content}"></video>'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def write_pictures(sample: Sample, folder: Path) -> None:
    """overlay.mp4 and sheet.png of a Sample with masks and video, replacing those that are there."""
    video, trajectory = _shown(sample)
    colours = _colours(trajectory)
    overlaid = draw.overlay(video.frames, trajectory.labels, colours)
    rows = [
        (sample.scene.prompt, video.frames),
        ("masks", colours.paint(trajectory.labels)),
        ("both", overlaid),
    ]
    media.write_video(folder / OVERLAY, Video(overlaid, video.fps), force=True)
    media.write_image(folder / SHEET, draw.contact_sheet(rows), force=True)


def _shown(sample: Sample) -> tuple[Video, MaskTrajectory]:
    if sample.video is None or sample.trajectory is None:
        raise InvalidValueError("there is no video with masks to show yet", fix="finish the animation first")
    return sample.video, sample.trajectory


def _colours(trajectory: MaskTrajectory) -> palette.Palette:
    return palette.OURS if max(trajectory.ids, default=0) <= palette.OURS.num_objects else palette.DAVIS


def _at_most(longest: int, size: tuple[int, int]) -> tuple[int, int]:
    share = min(1.0, longest / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))
