"""What every reader gives back: a trajectory, what else the file holds, and plain sentences about what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .. import media
from ..errors import FormatError, InvalidValueError
from ..types import Labels, MaskTrajectory, Origin, Pixels, Sample, Scene, SceneObject, Video

MAX_CELLS = 1 << 30  # one byte for each pixel of each frame: 500 frames of 1080p
MAX_TEXT = 1 << 20  # bytes of a prompt


@dataclass(frozen=True, eq=False)
class Imported:
    """A trajectory read from a neighbour's format; `notes` says with counts what was not taken as it was."""

    trajectory: MaskTrajectory
    video: Video | None = None
    image: Pixels | None = None
    prompt: str = ""
    names: Mapping[int, str] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)
    notes: tuple[str, ...] = ()

    def to_sample(
        self,
        video: Video | None = None,
        image: Pixels | None = None,
        names: Mapping[int, str] | None = None,
        prompt: str | None = None,
    ) -> Sample:
        """The Sample that these masks belong to; arguments replace what was read. Unnamed objects are "object 3".

        The picture is `image`, or else the first frame of the video. Raises InvalidValueError if there is neither, or
        if the picture, the video and the masks disagree in size, frame count or frame rate.
        """
        video = self.video if video is None else video
        image = self.image if image is None else image
        if image is None and video is None:
            fix = "give the video or the picture that the masks belong to"
            raise InvalidValueError("a Sample needs a picture, and this format holds masks only", fix=fix)
        if image is None:
            assert video is not None
            image = video.frames[0]
        names = {**self.names, **(names or {})}
        ids = sorted({*self.trajectory.ids, *names})
        objects = tuple(SceneObject(k, *[names.get(k, f"object {k}")] * 2) for k in ids)
        prompt = self.prompt if prompt is None else prompt
        scene = Scene(image, self.trajectory.labels[0], prompt=prompt, objects=objects)
        return Sample(scene, self.trajectory, video, self.origin)

    def with_video(self, video: Video, *, every: int = 1, resize: str | None = None) -> Imported:
        """The same with the clip that the masks belong to: its first frame and every `every`-th after it.

        resize="nearest" brings the masks to the video's size. Raises FormatError if size, frame count or frame rate
        differ, InvalidValueError for another `resize`.
        """
        if resize not in (None, "nearest"):
            raise InvalidValueError("masks can only be resized by nearest neighbours", seen=resize, fix='use "nearest"')
        masks, notes = self.trajectory, self.notes
        video = video if every == 1 else Video(video.frames[::every], video.fps / every)
        if masks.size != video.size and resize == "nearest":
            notes += (f"Masks were resized from {_text(masks.size)} to {_text(video.size)} by nearest neighbours.",)
            masks = MaskTrajectory(resize_nearest(masks.labels, video.size), masks.fps)
        for what, ours, theirs, fix in (
            ("size", _text(masks.size), _text(video.size), "pass --resize-masks nearest"),
            ("frame count", len(masks), len(video), "cut one of them"),
            ("frame rate", str(masks.fps), str(video.fps), "state the rate of the masks"),
        ):
            if ours != theirs:
                raise FormatError(f"masks and video differ in {what}", seen=f"masks {ours}, video {theirs}", fix=fix)
        return replace(self, trajectory=masks, video=video, notes=notes)


def trajectory_of(value: Sample | MaskTrajectory) -> MaskTrajectory:
    """What there is to write. Raises InvalidValueError for a Sample without a trajectory."""
    trajectory = value.trajectory if isinstance(value, Sample) else value
    if trajectory is None:
        raise InvalidValueError("the sample has no trajectory to write", fix="make one first: move or track")
    return trajectory


def check_extent(frames: int, height: int, width: int, seen: object) -> None:
    """Raise FormatError if label maps of this extent would fill the memory; called before they are made."""
    # The product is of Python integers, so a made-up size cannot overflow into a small one.
    too_large = height * width > media.MAX_PIXELS or frames * height * width > MAX_CELLS or frames > media.MAX_FRAMES
    if too_large:
        limits = f"at most {media.MAX_FRAMES} frames, {media.MAX_PIXELS} pixels a frame and {MAX_CELLS} in all"
        seen = f"{frames} × {height} × {width} in {seen}"
        raise FormatError("the masks are too large", seen=seen, fix=f"{limits}: cut the clip or shrink it")


def read_text(path: Path, *, max_bytes: int = MAX_TEXT) -> str:
    """The UTF-8 text of a file. Raises FormatError if it is too long, not UTF-8, or not readable."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise FormatError("the file cannot be read", seen=f"{path}: {error.strerror}") from None
    if len(data) > max_bytes:
        raise FormatError(f"the file is larger than {max_bytes >> 20} MiB", seen=str(path), fix="split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError("the file is not UTF-8 text", seen=f"{path}, byte {error.start}") from None


def resize_nearest(labels: Labels, size: tuple[int, int]) -> Labels:
    """Labels T H W at another height and width: each new pixel takes the label that lies at its centre."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, labels.shape[1:], strict=True)
    )
    return labels[:, rows[:, None], columns]


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
