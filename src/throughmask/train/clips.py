"""Clips for training, made once: pixels and labels of many Samples in two memory-mapped arrays on disk."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import SampleError
from ..files import new_folder
from .samples import TOYBOX, Samples, open_samples

Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Clips:
    """pixels: uint8 N T H W 3; labels: uint8 N T H W; both memory-mapped. What is written to them stays in memory."""

    pixels: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.pixels)

    @classmethod
    def load(cls, folder: Path) -> Clips:
        """What `make_clips` wrote."""
        pixels, labels = (np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("pixels", "labels"))
        return cls(pixels, labels)


def make_clips(source: str, folder: Path, *, workers: int = 1, gl_devices: Sequence[int] = ()) -> Clips:
    """The clips of `source`, from `folder` if it holds them already, else written there, whole or not at all.

    source: as `samples.open_samples` has it; its Samples are of one size and length. They are read or rendered by
    `workers` processes, the OpenGL devices in turn.

    Raises InvalidValueError or SampleError for no such source, or one whose Samples differ in size or length.
    """
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "source.json").is_file():
            raise SampleError(f"{folder} does not hold clips", fix="name another folder for them")
        made_of = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        if made_of != origin_of(source):
            seen = made_of["source"] if made_of["source"] != source else f"{source} of an earlier version"
            raise SampleError(f"{folder} holds clips of another source", seen=seen, fix="name another folder for them")
        return Clips.load(folder)
    samples = open_samples(source)
    first = samples.item(0)
    assert first.trajectory is not None
    shape = (len(samples), *first.trajectory.labels.shape)
    with new_folder(folder) as temporary:
        for name, full in (("pixels", (*shape, 3)), ("labels", shape)):
            np.lib.format.open_memmap(temporary / f"{name}.npy", mode="w+", dtype=np.uint8, shape=full).flush()
        devices = gl_devices or (None,)
        jobs = [
            (temporary, replace(samples, gl_device=devices[k % len(devices)]), range(k, len(samples), workers))
            for k in range(workers)
        ]
        if workers == 1:
            _fill(*jobs[0])
        else:
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
                for done in as_completed([pool.submit(_fill, *job) for job in jobs]):
                    done.result()
        (temporary / "source.json").write_text(json.dumps(origin_of(source)), encoding="utf-8")
    return Clips.load(folder)


def origin_of(source: str) -> dict[str, object]:
    """What a folder's source.json says of its clips."""
    from ..toybox.recipes import SCENES

    return {"source": source} | ({"scenes": SCENES} if source.startswith(TOYBOX) else {})


def _fill(folder: Path, samples: Samples, indices: Iterable[int]) -> None:
    pixels, labels = (np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("pixels", "labels"))
    for index in indices:
        sample = samples.item(index)
        assert sample.video is not None
        assert sample.trajectory is not None
        if sample.trajectory.labels.shape != labels.shape[1:]:
            seen = f"{samples.name(index)}: {sample.trajectory.labels.shape}, not {labels.shape[1:]}"
            raise SampleError("the Samples differ in size or length", seen=seen, fix="make them alike")
        pixels[index], labels[index] = sample.video.frames, sample.trajectory.labels
