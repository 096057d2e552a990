"""A manifest: a table with a line for each video; only the column video must be there."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import FormatError, MissingPackageError
from ..types import MAX_OBJECTS, Origin, exact_fps
from .inputs import Input

MANIFESTS = (".csv", ".tsv", ".jsonl", ".parquet")
# What columns are called elsewhere.
ALIASES = {
    "video": ("video", "path", "file", "video_path", "file_name"),
    "caption": ("caption", "prompt", "text"),
    "id": ("id", "name", "video_id"),
    "masks": ("masks", "mask", "masks_path"),
    "names": ("names", "objects"),
    "source": ("source", "url"),
    "licence": ("licence", "license"),
    "fps": ("fps",),
}


def read_manifest(path: Path) -> list[Input]:
    """The inputs of a manifest; relative paths are taken from its own folder.

    names: {"1": "dog"} in JSON, "1=dog,2=cat" in CSV. fps: of folders of pictures. Raises FormatError for a table that
    cannot be read, lacks the column video, or names an input twice; MissingPackageError for Parquet without pyarrow.
    """
    inputs, seen = [], set[str]()
    for number, row in enumerate(_rows(path), 1):
        item = _input(row, path, number)
        if item.name in seen:
            fix = "give each line an id of its own"
            raise FormatError("two lines of the manifest have the same name", seen=item.name, fix=fix)
        seen.add(item.name)
        inputs.append(item)
    return inputs


def _input(row: Mapping[str, Any], path: Path, number: int) -> Input:
    said = {key: next((row[name] for name in names if row.get(name)), "") for key, names in ALIASES.items()}
    video = str(said["video"]).strip()
    if not video:
        known = ", ".join(sorted(str(key) for key in row))
        fix = f"name the column video; there are: {known}"
        raise FormatError(f"line {number} of the manifest names no video", seen=str(path), fix=fix)
    place = path.parent / video
    fps = exact_fps(said["fps"]) if said["fps"] else None
    if place.is_dir() and fps is None:
        raise FormatError(f"line {number}: a folder of pictures needs fps", seen=video, fix="add a column fps")
    return Input(
        str(said["id"]).strip() or video,
        place,
        str(said["caption"]).strip(),
        path.parent / str(said["masks"]).strip() if said["masks"] else None,
        _names(said["names"], number),
        Origin(str(said["source"]), str(said["licence"])),
        fps,
    )


def _names(said: Any, number: int) -> tuple[tuple[int, str], ...]:
    if isinstance(said, str):
        parts = [part.partition("=") for part in said.split(",") if part.strip()]
        said = {id: name if equals else "" for id, equals, name in parts}
    try:
        names = tuple(sorted((int(id), str(name).strip()) for id, name in dict(said).items()))
    except (TypeError, ValueError):
        names = ((0, ""),)
    if not all(0 < id <= MAX_OBJECTS and name for id, name in names):
        raise FormatError(f"line {number}: names are written 1=dog,2=cat", seen=said)
    return names


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix.lower() == ".parquet":
        yield from _parquet(path)
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".jsonl":
                yield from (_object(line, path, n) for n, line in enumerate(file, 1) if line.strip())
            else:
                yield from csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    except OSError as error:
        raise FormatError("the manifest cannot be read", seen=f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError("the manifest is not UTF-8 text", seen=f"{path}: {error}") from error


def _object(line: str, path: Path, number: int) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise FormatError(f"line {number} of the manifest is not JSON", seen=f"{path}: {error}") from error
    if not isinstance(row, dict):
        raise FormatError(f"line {number} of the manifest is no object", seen=line.strip())
    return row


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingPackageError("reading Parquet", "ray") from None
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise FormatError("the Parquet file cannot be read", seen=f"{path}: {error}") from error
