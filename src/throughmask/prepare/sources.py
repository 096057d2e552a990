"""Where inputs come from: a folder of videos, a manifest, WebDataset shards, DAVIS, SA-V. Nothing is decoded here."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import FormatError, InvalidValueError
from ..interop.davis import FPS as DAVIS_FPS
from ..storage import HEADER, MASKS, VIDEO
from ..types import Origin
from .frames import PICTURES
from .inputs import Input, Packed, with_ids
from .manifest import MANIFESTS, read_manifest

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
SAV = ("_manual.json", "_auto.json")
KINDS = {
    "folder": "a folder of videos",
    "manifest": "a CSV, TSV, JSONL or Parquet file with a line for each video",
    "shards": "WebDataset's tar files: KEY.mp4, and KEY.txt or KEY.json with its caption",
    "davis": "a folder with JPEGImages and Annotations",
    "sav": "a folder of NAME.mp4 with NAME_manual.json or NAME_auto.json",
}


def open_source(path: str | Path, kind: str = "") -> list[Input]:
    """All inputs of a source, in order of their names. kind: one of KINDS; by content if not given.

    Raises FormatError for a place that is none of them or has no video, InvalidValueError for an unknown kind.
    """
    path = Path(path)
    if kind and kind not in KINDS:
        raise InvalidValueError("there is no source of that kind", seen=kind, fix=f"known: {', '.join(KINDS)}")
    kind = kind or sniff(path)
    readers: dict[str, Callable[[Path], list[Input]]] = {
        "folder": _folder,
        "manifest": read_manifest,
        "shards": _shards,
        "davis": _davis,
        "sav": _sav,
    }
    inputs = readers[kind](path)
    if not inputs:
        raise FormatError("the source holds no videos", seen=f"{path}, read as {KINDS[kind]}")
    return with_ids(inputs)


def sniff(path: Path) -> str:
    """The kind of a source, by its content. Raises FormatError if it is none."""
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        if "JPEGImages" in names:
            return "davis"
        if any(name.endswith(SAV) for name in names):
            return "sav"
        return "shards" if any(name.endswith(".tar") for name in names) else "folder"
    suffix = path.suffix.lower()
    if path.is_file() and suffix in MANIFESTS:
        return "manifest"
    if path.is_file() and suffix == ".tar":
        return "shards"
    problem = "this is no source of videos" if path.exists() else "there is no such file or folder"
    raise FormatError(problem, seen=str(path), fix=f"known: {'; '.join(KINDS.values())}")


def masks_beside(video: Path) -> Path | None:
    """The masks that lie beside a video: a folder of PNG of its name, NAME.json, NAME_manual.json, NAME.npz ..."""
    stem = video.with_suffix("")
    folders = [stem, Path(f"{stem}.masks"), Path(f"{stem}_masks")]
    files = [Path(f"{stem}{tail}") for tail in (".json", *SAV, ".npz", ".masks.mp4", "_masks.mp4")]
    found = [folder for folder in folders if folder.is_dir()] + [file for file in files if file.is_file()]
    return found[0] if found else None


def _folder(path: Path) -> list[Input]:
    videos = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in VIDEOS and not _hidden(file, path)]
    masks = {video: masks_beside(video) for video in videos}
    taken = {place for place in masks.values() if place is not None}
    return [
        _of_sample(video, path) or Input(video.relative_to(path).as_posix(), video, _text_beside(video), masks[video])
        for video in videos
        if video not in taken
    ]


def _of_sample(video: Path, root: Path) -> Input | None:
    """The video of a Sample, with its words and masks; it is called as its folder."""
    folder = video.parent
    if video.name != VIDEO or not (folder / HEADER).is_file():
        return None
    said = _object((folder / HEADER).read_text(encoding="utf-8", errors="replace"))
    try:
        names = tuple((int(thing["id"]), str(thing["name"])) for thing in said.get("objects", ()))
        origin = Origin(**said.get("origin", {}))
    except (KeyError, TypeError, ValueError):
        return None  # a scene.json of someone else's
    name = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name
    return Input(name, video, said.get("prompt", ""), folder / MASKS, names, origin)


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _text_beside(video: Path) -> str:
    path = video.with_suffix(".txt")
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def _davis(path: Path) -> list[Input]:
    pictures = path / "JPEGImages"
    below = sorted(entry for entry in pictures.iterdir() if entry.is_dir())
    flat = [folder for folder in below if _has_pictures(folder)]
    resolution = ""
    if not flat:  # the usual layout: JPEGImages/480p/<sequence>
        names = [folder.name for folder in below]
        if len(names) > 1 and "480p" not in names:
            fix = "leave one of them"
            raise FormatError("JPEGImages has several resolutions", seen=", ".join(names), fix=fix)
        resolution = "480p" if "480p" in names else names[0] if names else ""
        flat = sorted(entry for entry in (pictures / resolution).iterdir() if _has_pictures(entry))
    masks = path / "Annotations" / resolution
    return [
        Input(
            folder.name,
            folder,
            masks=masks / folder.name if (masks / folder.name).is_dir() else None,
            origin=Origin(f"{path.name}, {folder.name}"),
            fps=DAVIS_FPS,
        )
        for folder in flat
    ]


def _has_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(entry.suffix.lower() in PICTURES for entry in folder.iterdir())


def _sav(path: Path) -> list[Input]:
    found = []
    for video in sorted(path.glob("*.mp4")):
        masks = [place for tail in SAV if (place := video.with_name(video.stem + tail)).is_file()]
        origin = Origin(f"SA-V {video.stem}")
        found.append(Input(video.name, video, _text_beside(video), masks[0] if masks else None, origin=origin))
    if not found:
        fix = "put NAME.mp4 beside NAME_manual.json"
        raise FormatError("the annotations have no videos", seen=str(path), fix=fix)
    return found


def _shards(path: Path) -> list[Input]:
    tars = [path] if path.is_file() else sorted(tar for tar in path.glob("*.tar") if not tar.name.startswith("."))
    return [item for tar in tars for item in _shard(tar)]


def _shard(path: Path) -> Iterator[Input]:
    for key, members in groupby(_members(path), key=lambda member: member[0]):
        parts = {suffix: packed for _, suffix, packed in members}
        video = next((packed for suffix, packed in parts.items() if f".{suffix}" in VIDEOS), None)
        if video is None:
            continue
        said = _object(_content(parts["json"])) if "json" in parts else {}
        caption = _content(parts["txt"]).strip() if "txt" in parts else str(said.get("caption", said.get("text", "")))
        masks = next((parts[suffix] for suffix in ("masks.json", "npz") if suffix in parts), None)
        yield Input(f"{path.stem}/{key}", video, caption, masks)


def _members(path: Path) -> Iterator[tuple[str, str, Packed]]:
    """Key, suffix and place of every file of a tar."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, slash, name = member.name.rpartition("/")
                key, dot, suffix = name.partition(".")
                if member.isfile() and dot and not member.issparse():
                    yield folder + slash + key, suffix.lower(), Packed(path, name, member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError) as error:
        fix = "copy it again; a compressed tar must be unpacked first"
        raise FormatError("the shard is not a tar, or is damaged", seen=f"{path}: {error}", fix=fix) from error


def _content(place: Packed) -> str:
    with place.tar.open("rb") as file:
        file.seek(place.offset)
        return file.read(min(place.size, 1 << 20)).decode("utf-8", "replace")


def _object(text: str) -> dict[str, Any]:
    """A JSON object; empty if it is none."""
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
