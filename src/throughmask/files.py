"""Outputs that appear whole or not at all: a temporary neighbour is written, then renamed. Names kept inside.

A temporary name starts with ".tmp-", so what a killed process leaves behind is easy to recognise and safe to delete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import FormatError, MediaError, OutputError

# What a full, protected or impossible place answers; any other OSError is a bug and keeps its traceback.
REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be too large",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EBUSY: "it is in use",
    errno.EIO: "the device reports an error",
}
FULL = (errno.ENOSPC, errno.EDQUOT)
PREFIX = ".tmp-"
OURS = re.compile(re.escape(PREFIX) + "[0-9a-f]{12}")


@contextmanager
def new_file(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary path (same folder, same suffix) to write to; it becomes `path` on success and vanishes on failure.

    Missing parent folders are made. A link at `path` is replaced, never followed.

    Raises OutputError if `path` exists and `force` is not set, is not a regular file, or cannot be written.
    """
    path = Path(os.path.abspath(path))
    with _reasons(path):
        _check_file(path, force)
        made = _make_parents(path)
        temporary = _temporary(path)
        try:
            temporary.touch(exist_ok=False)  # a protected or full place is found before the work, not after it
            yield temporary
            _flush(temporary)
            _check_file(path, force)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            _remove_empty(made)
            raise


@contextmanager
def new_folder(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `path` on success and vanishes on failure.

    An existing empty folder is fine. With `force` a filled one is replaced: its old content is deleted, but only after
    the new content has taken its place. A link to a folder is followed.

    Raises OutputError if `path` is a file, is filled and `force` is not set, holds the working or home folder, or
    cannot be written.
    """
    path = Path(os.path.realpath(path))
    with _reasons(path):
        _check_folder(path, force)
        made = _make_parents(path)
        temporary = _temporary(path)
        try:
            temporary.mkdir()
            yield temporary
            _check_folder(path, force)
            _replace_folder(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            _remove_empty(made)
            raise


@contextmanager
def new_files(folder: str | Path) -> Iterator[Path]:
    """A temporary folder to fill; on success each of its files takes its place in `folder`, one after the other.

    For a folder that must never be missing, not even for the moment that `new_folder` needs. What fails before the
    first file is moved changes nothing. Raises OutputError if `folder` cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    with _reasons(folder / "*"):
        temporary = _temporary(folder / "files")
        try:
            _make_parents(temporary)
            temporary.mkdir()
            yield temporary
            for path in sorted(temporary.iterdir()):
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a file or folder so that no moment leaves half of it under its name. Whoever still writes there fails, and
    cannot finish what is half deleted: a killed process may have helpers that live a moment longer.
    """
    away = _temporary(path)  # a name that nobody else knows
    with suppress(FileNotFoundError):
        os.rename(path, away)
    if away.is_dir():
        shutil.rmtree(away, ignore_errors=True)
    else:
        away.unlink(missing_ok=True)


def inside(root: str | Path, name: str) -> Path:
    """`root / name`, for a name that was read from a file. Raises FormatError if it would leave `root`."""
    root = Path(root)
    # Backslashes, drive letters and NUL are refused everywhere, so that a file means the same on every system.
    plain = isinstance(name, str) and name.strip() and not any(c in name for c in "\\:\0") and not name.startswith("/")
    if plain and ".." not in name.split("/"):
        path, limit = root / name, root.resolve()
        with suppress(OSError, RuntimeError):  # RuntimeError: links in a circle
            if path.resolve().is_relative_to(limit) and path.resolve() != limit:
                return path
    raise FormatError(
        "a name leads out of its folder", seen=name, fix="names must be relative, without '..' or links out"
    )


def must_be_file(path: str | Path) -> None:
    """Raises MediaError if `path` is not a file that can be read and holds something."""
    try:
        if Path(path).is_dir():
            raise MediaError("a file is needed, this is a folder", seen=str(path), fix="name one file in it")
        with Path(path).open("rb") as file:
            empty = not file.read(1)
    except (OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else "the file cannot be read"
        raise MediaError(reason, seen=f"{path}: {getattr(error, 'strerror', error)}") from error
    if empty:
        raise MediaError("the file is empty", seen=str(path))


@contextmanager
def _reasons(path: Path) -> Iterator[None]:
    """Turn what the system answers about `path` into an OutputError; errors about other files pass through."""
    try:
        yield
    except OSError as error:
        if error.errno not in REASONS or not _concerns(path, error.filename):
            raise
        fix = "free some space, or choose another place" if error.errno in FULL else "choose another place"
        raise OutputError(f"cannot write the output: {REASONS[error.errno]}", seen=str(path), fix=fix) from error


def _concerns(path: Path, culprit: object) -> bool:
    """Whether an OSError's file is the output, its temporary neighbour, or a folder above; a full device names none."""
    if not culprit or not isinstance(culprit, str):
        return True
    place = Path(os.path.abspath(culprit))
    below = place.relative_to(path.parent).parts if place.is_relative_to(path.parent) else ()
    return path.is_relative_to(place) or (bool(below) and (below[0] == path.name or below[0].startswith(PREFIX)))


def _check_file(path: Path, force: bool) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OutputError("a file is to be written where a folder stands", seen=str(path), fix="name a file")
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise OutputError("the output is a device, not a file", seen=str(path), fix="name a regular file")
    if not force:
        raise OutputError("the output exists already", seen=str(path), fix="choose another name, or pass --force")


def _check_folder(path: Path, force: bool) -> None:
    try:
        path.lstat()
    except FileNotFoundError:
        return
    if not path.is_dir():
        raise OutputError("a folder is to be written where a file stands", seen=str(path), fix="name a folder")
    if not any(path.iterdir()):
        return
    if not force:
        fix = "choose another name, or pass --force to replace all that is in it"
        raise OutputError("the output folder exists and is not empty", seen=str(path), fix=fix)
    if any(Path(os.path.realpath(place)).is_relative_to(path) for place in (os.getcwd(), Path.home())):
        fix = "name a folder of its own"
        raise OutputError("replacing this folder would delete the working or home folder", seen=str(path), fix=fix)


def _make_parents(path: Path) -> list[Path]:
    """Make the missing folders above `path`; returns them, innermost first."""
    missing = []
    for parent in path.parents:
        if os.path.lexists(parent):
            break
        if OURS.match(parent.name):  # made anew it would lack what was in it
            raise _tidied(parent)
        missing.append(parent)
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
    return missing


def _tidied(path: Path) -> OutputError:
    problem = "what was written so far has been removed by another process"
    return OutputError(problem, seen=str(path), fix="run it again")


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _temporary(path: Path) -> Path:
    return path.with_name(f"{PREFIX}{secrets.token_hex(6)}{path.suffix[:16]}")


def _flush(path: Path) -> None:
    """Bring the content to the disk before the name points to it, so that a power cut leaves no empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _replace_folder(new: Path, path: Path) -> None:
    if not path.exists():
        try:
            os.rename(new, path)
        except FileNotFoundError:
            raise _tidied(new) from None
        return
    old = _temporary(path)
    os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def key_of(made_with: Mapping[str, Any]) -> str:
    """A short name for a way of making results."""
    return hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:12]


def fingerprint(*paths: Path) -> str:
    """A short name for what files and folders hold: all bytes, and names below each path's own place."""
    whole = hashlib.sha256()
    for root in paths:
        inner = root.rglob("*") if root.is_dir() else [root]
        for path in sorted(path for path in inner if path.is_file() and not path.name.startswith(".")):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.relative_to(root.parent).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()[:12]
