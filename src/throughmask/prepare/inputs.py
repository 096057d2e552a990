"""An input: one video (or folder of pictures) of a source, with what its source says of it."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import MediaError
from ..types import Origin

LONGEST_ID = 56  # characters; "-00000-00081" makes a clip's id of it, and a key of a shard has at most 80
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Packed:
    """A file inside a tar: where its bytes are."""

    tar: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}: {self.name}"


Place = Path | Packed


@dataclass(frozen=True)
class Input:
    """name: as the source calls it; unique. media: a video, or a folder of pictures (then `fps` is set).

    masks: a folder of PNG, or a file of one of interop's formats. names: of the objects in the masks, by id.
    """

    name: str
    media: Place
    caption: str = ""
    masks: Place | None = None
    names: tuple[tuple[int, str], ...] = ()
    origin: Origin = field(default_factory=Origin)
    fps: Fraction | None = None
    id: str = ""

    def mark(self) -> str:
        """A short name for this content: sizes and times of the files, and the words. "" stands for what is missing."""
        places = [_stamp(place) for place in (self.media, self.masks) if place is not None]
        said = [self.caption, self.names, self.origin.source, self.origin.licence, str(self.fps)]
        return hashlib.sha256(json.dumps([places, said]).encode()).hexdigest()[:12]


def with_ids(inputs: Sequence[Input]) -> list[Input]:
    """The inputs with their ids: the name's letters, digits, _ and -, and a short hash where that is ambiguous."""
    plain = [_NOT_IN_ID.sub("-", Path(item.name).with_suffix("").as_posix()).strip("-_") for item in inputs]
    times = Counter(plain)
    found = []
    for item, id in zip(inputs, plain, strict=True):
        if not id or len(id) > LONGEST_ID or times[id] > 1:
            tail = hashlib.sha256(item.name.encode()).hexdigest()[:8]
            id = f"{id[: LONGEST_ID - 9]}-{tail}".lstrip("-")
        found.append(replace(item, id=id))
    return found


@contextmanager
def on_disk(place: Place) -> Iterator[Path]:
    """A path to what is at `place`; what is packed lies in a temporary file meanwhile. Raises MediaError."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / place.name.rpartition("/")[2]
        try:
            with place.tar.open("rb") as file, path.open("wb") as out:
                file.seek(place.offset)
                left = place.size
                while left and (piece := file.read(min(left, 1 << 20))):
                    out.write(piece)
                    left -= len(piece)
        except OSError as error:
            raise MediaError("the shard cannot be read", seen=f"{place.tar}: {error.strerror}") from error
        if left:
            raise MediaError("the shard is cut off", seen=str(place), fix="copy it again from its source")
        yield path


def _stamp(place: Place) -> list[Any]:
    if isinstance(place, Packed):
        return [place.tar.stat().st_mtime_ns, place.offset, place.size]
    try:
        if place.is_dir():
            times = [path.stat().st_mtime_ns for path in place.iterdir()]
            return [len(times), max(times, default=0)]
        stat = place.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]
