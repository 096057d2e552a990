"""What decides which Samples come out of a source; equal values, equal Samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from ..errors import InvalidValueError
from .filters import Filters


@dataclass(frozen=True)
class Cutting:
    """frames: of a clip, at most. shots: whether videos are cut where the shot changes: where frames differ `threshold`
    times as much as those around them. fps: to resample to, None to keep.
    """

    frames: int = 81
    shots: bool = True
    threshold: float = 3.0
    fps: Fraction | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 10_000:
            raise InvalidValueError("a clip has 1 to 10000 frames", seen=self.frames)


@dataclass(frozen=True)
class Config:
    """masks: "find" them by caption, or take those "given". perception, language: what they are, for the record; JSON.

    caption: said of every video that has none.
    """

    masks: str = "find"
    cutting: Cutting = field(default_factory=Cutting)
    filters: Filters = field(default_factory=Filters)
    caption: str = ""
    language: Any = "rules"
    perception: Any = None

    def __post_init__(self) -> None:
        if self.masks not in ("find", "given"):
            raise InvalidValueError("masks are found or given", seen=self.masks, fix="--masks find or --masks given")
        if self.masks == "given" and self.cutting.fps is not None:
            fix = "leave out --fps; train resamples masks and video together"
            raise InvalidValueError("a video with given masks is not resampled", seen=str(self.cutting.fps), fix=fix)

    def made_with(self) -> dict[str, Any]:
        """The configuration as JSON holds it."""
        fps, filters = self.cutting.fps, asdict(self.filters)
        if not self.filters.min_found:  # a later one: results from before it are not stale
            del filters["min_found"]
        cutting = {**asdict(self.cutting), "fps": None if fps is None else str(fps)}
        return {**asdict(self), "cutting": cutting, "filters": filters}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed between two configurations, "filters.min_motion was 0.005 and is 0.01"."""
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {_plain(before)} and is {_plain(after)}")
    return found


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
