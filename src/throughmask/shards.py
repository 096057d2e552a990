"""Samples in tar shards, WebDataset's layout: the files of a Sample folder, each name led by the Sample's key.

    KEY.scene.json   KEY.image.png   KEY.mask.00000.png ...   KEY.video.mp4

`storage` writes and reads the folders themselves; here they are only packed and unpacked, one at a time.
"""

from __future__ import annotations

import itertools
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import InvalidValueError, SampleError, ThroughMaskError
from .files import new_file, new_folder
from .storage import HEADER, IMAGE, MASKS, VIDEO, load_sample, save_sample
from .types import Sample

PER_SHARD = 256
# No dot, at which WebDataset ends a key; short enough for every name to fit tar's plain header.
KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
MASK = re.compile(r"mask\.(\d{5,6}\.png)")
KEY_FIX = "a key has 1 to 80 letters, digits, _ and -"


@dataclass(frozen=True)
class _Member:
    """A file of a shard: its key, what it is in the Sample's folder ("" for a file that no Sample has), its header."""

    key: str
    name: str
    header: tarfile.TarInfo


def write_shards(
    samples: Iterable[tuple[str, Sample | Path]], folder: str | Path, *, per_shard: int = PER_SHARD, force: bool = False
) -> list[Path]:
    """(key, Sample) pairs as 00000.tar, 00001.tar ... of a new folder, all of them or none; returns their paths.

    A Sample may be given as its folder: its files are packed as they are, and no video is encoded again.
    Raises InvalidValueError for a bad key, one that comes twice, or no Samples; OutputError as `files.new_folder`.
    """
    if per_shard < 1:
        raise InvalidValueError("a shard holds at least 1 Sample", seen=per_shard)
    rest, keys = iter(samples), set[str]()
    names: list[str] = []
    with new_folder(folder, force=force) as temporary:
        for first in rest:
            part = itertools.chain([first], itertools.islice(rest, per_shard - 1))
            names.append(f"{len(names):05d}.tar")
            write_shard(_new_keys(part, keys), temporary / names[-1])
        if not names:
            raise InvalidValueError("there are no Samples to write")
    return [Path(folder) / name for name in names]


def write_shard(samples: Iterable[tuple[str, Sample | Path]], path: str | Path, *, force: bool = False) -> None:
    """One tar, whole or not at all; the same Samples give the same bytes. Raises as `write_shards`."""
    with new_file(path, force=force) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, sample in _new_keys(samples, set()):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / key
                if isinstance(sample, Sample):
                    save_sample(sample, folder)
                else:
                    folder = sample
                    load_sample(folder)
                _pack(tar, key, folder)


def read_shard(path: str | Path) -> Iterator[tuple[str, Sample]]:
    """(key, Sample) pairs in the order of the tar, one in memory at a time.

    Raises SampleError, which names the shard and the key, for a tar that is cut off or damaged, a Sample that is not
    whole, a key whose files are not together, and a name that leads out of its folder.
    """
    path = Path(path)
    with _opened(path) as tar:
        for key, members in itertools.groupby(_members(tar, path), key=lambda member: member.key):
            yield key, _unpacked(tar, path, key, members)


def list_keys(path: str | Path) -> dict[str, int]:
    """The keys of a shard in order, each with the byte where its files begin; only headers are read.

    Raises SampleError as `read_shard`, but for what is inside the files.
    """
    path = Path(path)
    with _opened(path) as tar:
        groups = itertools.groupby(_members(tar, path), key=lambda member: member.key)
        return {key: next(members).header.offset for key, members in groups}


def open_sample(path: str | Path, key: str, start: int = 0) -> Sample:
    """The Sample of one key; `start` is where its files begin (`list_keys`), which saves looking for them.

    Raises SampleError if the shard has no such key, and as `read_shard`.
    """
    path = Path(path)
    with _opened(path, start) as tar:
        for found, members in itertools.groupby(_members(tar, path), key=lambda member: member.key):
            if found == key:
                return _unpacked(tar, path, key, members)
            if start:
                break
    raise _error(path, key, "there is no such Sample", fix="list_keys tells which there are")


def _new_keys(samples: Iterable[tuple[str, Sample | Path]], seen: set[str]) -> Iterator[tuple[str, Sample | Path]]:
    """The pairs, each key checked and then added to `seen`."""
    for key, sample in samples:
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise InvalidValueError("this is no key of a Sample", seen=key, fix=KEY_FIX)
        if key in seen:
            raise InvalidValueError("two Samples have the same key", seen=key, fix="a key stands for one Sample")
        seen.add(key)
        yield key, sample


def _pack(tar: tarfile.TarFile, key: str, folder: Path) -> None:
    """Add a Sample's files, the header first. Who made them and when is left out: the same Sample, the same bytes."""
    masks = sorted((folder / MASKS).glob("*.png"))
    for path in (folder / HEADER, folder / IMAGE, *masks, folder / VIDEO):
        if path == folder / VIDEO and not path.exists():
            continue
        with path.open("rb") as file:
            header = tarfile.TarInfo(f"{key}.mask.{path.name}" if path.parent.name == MASKS else f"{key}.{path.name}")
            header.size = path.stat().st_size
            tar.addfile(header, file)


@contextmanager
def _opened(path: Path, start: int = 0) -> Iterator[tarfile.TarFile]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            file.seek(start)
            tar = stack.enter_context(tarfile.open(fileobj=file, mode="r:"))
        except OSError as error:
            seen = f"{path}: {error.strerror}"
            raise SampleError("the shard cannot be read", seen=seen, fix="name a tar file") from error
        except (tarfile.TarError, EOFError) as error:
            fix = "write it again; a compressed tar must be unpacked first"
            raise SampleError("the shard is not a tar, or is damaged", seen=f"{path}: {error}", fix=fix) from error
        yield tar


def _members(tar: tarfile.TarFile, path: Path) -> Iterator[_Member]:
    """The files of a shard in order, each name checked before anything is done with it."""
    seen, last = set[str](), ""
    while (header := _next(tar, path, last)) is not None:
        if header.isdir():
            continue
        member = _member(header, path, last)
        if member.key != last and member.key in seen:
            raise _error(path, member.key, "its files do not stand together", fix="write the shard again")
        last = member.key
        seen.add(last)
        yield member


def _next(tar: tarfile.TarFile, path: Path, key: str) -> tarfile.TarInfo | None:
    """The next header, or None at a true end: tarfile takes a cut between two files for one."""
    tar.members = []  # type: ignore[attr-defined]  # it keeps every header that it has read
    try:
        if (header := tar.next()) is not None:
            return header
    except (tarfile.TarError, EOFError) as error:
        raise _error(path, key, "the shard is cut off or damaged after this key", str(error)) from error
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise _error(path, key, "the shard is cut off or damaged after this key", f"byte {tar.offset}")
    return None


def _member(header: tarfile.TarInfo, path: Path, last: str) -> _Member:
    key, dot, name = header.name.removeprefix("./").partition(".")
    if "/" in name or "\\" in name or not dot or not KEY.fullmatch(key):
        raise _error(path, last, "a file after this key has a bad name", header.name, f"KEY.image.png ...; {KEY_FIX}")
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or header.issparse():
        raise _error(path, key, "a shard holds plain files, no links or devices", header.name)
    mask = MASK.fullmatch(name)
    if mask:
        return _Member(key, f"{MASKS}/{mask[1]}", header)
    return _Member(key, name if name in (HEADER, IMAGE, VIDEO) else "", header)


def _unpacked(tar: tarfile.TarFile, path: Path, key: str, members: Iterable[_Member]) -> Sample:
    """The Sample of one key's files, by way of a temporary folder; files that no Sample has are passed over."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / key
        (folder / MASKS).mkdir(parents=True)
        for member in members:
            if not member.name:
                continue
            try:
                with tar.extractfile(member.header) as file, (folder / member.name).open("xb") as out:  # type: ignore[union-attr]
                    shutil.copyfileobj(file, out)
            except FileExistsError:
                raise _error(path, key, "a file is there twice", member.header.name) from None
            except (tarfile.TarError, EOFError) as error:
                raise _error(path, key, "the shard is cut off or damaged", member.header.name) from error
        try:
            return load_sample(folder)
        except ThroughMaskError as error:
            # The temporary folder is gone when the message is read.
            seen = error.seen if error.seen is None else str(error.seen).replace(str(folder), key)
            raise _error(
                path, key, error.problem.replace(str(folder), key), seen, error.fix.replace(str(folder), key)
            ) from error


def _error(path: Path, key: str, problem: str, seen: object = None, fix: str = "") -> SampleError:
    return SampleError(f"{path.name}, key {key or '(none yet)'}: {problem}", seen=seen, fix=fix)
