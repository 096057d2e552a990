"""NPZ: a trajectory as compressed numpy arrays, for scripts: labels, fps, ids, names, prompt. Never a pickle."""

from __future__ import annotations

import struct
import zipfile
import zlib
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..errors import FormatError, ThroughMaskError
from ..files import new_file
from ..media import read_video
from ..types import MAX_OBJECTS, MaskTrajectory, Sample, exact_fps
from .imported import MAX_TEXT, Imported, check_extent, trajectory_of

# What zipfile and numpy raise for damaged, encrypted and foreign archives.
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, SyntaxError)


def read_npz(path: str | Path, *, video: str | Path | None = None, resize: str | None = None) -> Imported:
    """Read labels (uint8 T H W) and fps (text, "24/1"), and where present ids (N), names (N) and prompt (text).

    video: the clip that the masks belong to; resize="nearest" brings the masks to its size.

    Raises FormatError for anything else; no array is made before its stated size has been checked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = set(archive.namelist())
            missing = {"labels.npy", "fps.npy"} - found
            if missing:
                fix = 'np.savez_compressed(path, labels=uint8_T_H_W, fps="24/1")'
                raise FormatError("the file lacks arrays", seen=", ".join(sorted(missing)), fix=fix)
            labels, fps = _member(archive, "labels"), _member(archive, "fps")
            prompt = str(_member(archive, "prompt")) if "prompt.npy" in found else ""
            ids = _member(archive, "ids").tolist() if "ids.npy" in found else []
            names = _member(archive, "names").tolist() if "names.npy" in found else []
    except ThroughMaskError:
        raise
    except BROKEN as error:
        raise FormatError("the file is not a readable NPZ", seen=f"{path}: {error}") from None
    if len(ids) != len(names) or len(set(ids)) != len(ids) or not all(1 <= k <= MAX_OBJECTS for k in ids):
        raise FormatError("ids must be different, from 1 to 255, with a name each", seen=f"ids {ids}, names {names}")
    if not all(name.strip() for name in names):
        raise FormatError("a name is empty", seen=names)
    trajectory = MaskTrajectory(labels, exact_fps(str(fps)))
    imported = Imported(trajectory, prompt=prompt, names=dict(zip(ids, names, strict=True)))
    return imported if video is None else imported.with_video(read_video(video), resize=resize)


def write_npz(value: Sample | MaskTrajectory, path: str | Path, *, force: bool = False) -> None:
    """Write what `read_npz` reads. Kept: labels, rate, ids, names, prompt. Lost: pictures, other prompts.

    Raises InvalidValueError if there is no trajectory, OutputError if the file exists and `force` is not set.
    """
    trajectory = trajectory_of(value)
    arrays: dict[str, Any] = {"labels": trajectory.labels, "fps": _text(trajectory.fps)}
    if isinstance(value, Sample):
        arrays["prompt"] = np.array(value.scene.prompt)
        arrays["ids"] = np.array(value.scene.ids, np.uint8)
        arrays["names"] = np.array([thing.name for thing in value.scene.objects], np.str_)
    with new_file(path, force=force) as temporary, temporary.open("wb") as file:  # a name would get ".npz" appended
        np.savez_compressed(file, **arrays)


def _text(fps: Fraction) -> npt.NDArray[np.str_]:
    return np.array(f"{fps.numerator}/{fps.denominator}")


def _member(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """One array, after its header has been found to promise the right kind and a bearable size."""
    kind, ndim = {"labels": ("u1", 3), "fps": ("U", 0), "prompt": ("U", 0), "ids": ("u1", 1), "names": ("U", 1)}[name]
    with archive.open(f"{name}.npy") as file:
        shape, dtype = _header(file)
    plain = dtype.str[1:] == kind if kind == "u1" else dtype.kind == kind
    if not plain or len(shape) != ndim or any(n < 0 for n in shape):
        seen = f"{name}: {dtype} {shape}"
        raise FormatError("an array has the wrong kind", seen=seen, fix="labels: uint8 T H W; fps: text such as 24/1")
    if name == "labels":
        check_extent(shape[0], shape[1], shape[2], name)
    elif prod(shape) > MAX_OBJECTS or prod(shape) * dtype.itemsize > 4 * MAX_TEXT:
        raise FormatError("an array is too large", seen=f"{name}: {dtype} {shape}")
    with archive.open(f"{name}.npy") as file:
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return np.ascontiguousarray(array).reshape(shape)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise FormatError("the arrays are of a numpy format that is not known", seen=version)
    shape, _, dtype = read(file)
    return shape, dtype
