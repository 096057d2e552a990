"""Clips for training, made once: pixels and labels of many Samples in two memory-mapped arrays on disk."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidValueError, SampleError
from ..files import new_folder
from ..storage import load_sample

if TYPE_CHECKING:
    from ..types import Sample

Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Clips:
    """pixels: uint8 N T H W 3; labels: uint8 N T H W; both memory-mapped, read-only."""

    pixels: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.pixels)

    @classmethod
    def load(cls, folder: Path) -> Clips:
        """What `make_clips` wrote."""
        pixels, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("pixels", "labels"))
        return cls(pixels, labels)


def make_clips(source: str, folder: Path, *, workers: int = 1, gl_devices: Sequence[int] = ()) -> Clips:
    """The clips of `source`, from `folder` if it holds them already, else written there, whole or not at all.

    source: "toybox:A..B" for the Toybox seeds A to B (both included), rendered by `workers` processes, the OpenGL
    devices in turn; or a folder of Sample folders of one size and length that have masks and video.

    Raises InvalidValueError or SampleError for a source that is neither, or whose Samples differ in size or length.
    """
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "source.json").is_file():
            raise SampleError(f"{folder} does not hold clips", fix="name another folder for them")
        made_of = json.loads((folder / "source.json").read_text(encoding="utf-8"))["source"]
        if made_of != source:
            raise SampleError(
                f"{folder} holds clips of another source", seen=made_of, fix="name another folder for them"
            )
        return Clips.load(folder)
    items = _items(source)
    first = _sample(items[0], None)
    assert first.trajectory is not None
    shape = (len(items), *first.trajectory.labels.shape)
    with new_folder(folder) as temporary:
        for name, full in (("pixels", (*shape, 3)), ("labels", shape)):
            np.lib.format.open_memmap(temporary / f"{name}.npy", mode="w+", dtype=np.uint8, shape=full).flush()
        jobs = [(temporary, list(enumerate(items))[k::workers], _device(k, gl_devices)) for k in range(workers)]
        if workers == 1:
            _fill(*jobs[0])
        else:
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
                for done in as_completed([pool.submit(_fill, *job) for job in jobs]):
                    done.result()
        (temporary / "source.json").write_text(json.dumps({"source": source}), encoding="utf-8")
    return Clips.load(folder)


def _device(worker: int, gl_devices: Sequence[int]) -> int | None:
    return gl_devices[worker % len(gl_devices)] if gl_devices else None


def _items(source: str) -> list[int | Path]:
    if source.startswith("toybox:"):
        first, dots, last = source.removeprefix("toybox:").partition("..")
        if not (dots and first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise InvalidValueError("Toybox clips are written toybox:A..B", seen=source, fix="such as toybox:0..999")
        return list(range(int(first), int(last) + 1))
    folder = Path(source)
    found: list[int | Path] = sorted(path.parent for path in folder.glob("*/scene.json"))
    if not found:
        fix = "make some with throughmask synthetic --seeds or throughmask toybox --seeds"
        raise SampleError(f"{folder} holds no Samples", fix=fix)
    return found


def _sample(item: int | Path, gl_device: int | None) -> Sample:
    if isinstance(item, int):
        from ..toybox import make_sample

        return make_sample(item, gl_device=gl_device)
    sample = load_sample(item)
    if sample.trajectory is None or sample.video is None:
        raise SampleError(f"{item} has no masks or no video", fix="training needs both")
    return sample


def _fill(folder: Path, jobs: Iterable[tuple[int, Any]], gl_device: int | None) -> None:
    pixels, labels = (np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("pixels", "labels"))
    for index, item in jobs:
        sample = _sample(item, gl_device)
        assert sample.video is not None
        assert sample.trajectory is not None
        if sample.trajectory.labels.shape != labels.shape[1:]:
            seen = f"{item}: {sample.trajectory.labels.shape}, not {labels.shape[1:]}"
            raise SampleError("the Samples differ in size or length", seen=seen, fix="make them alike")
        pixels[index], labels[index] = sample.video.frames, sample.trajectory.labels
