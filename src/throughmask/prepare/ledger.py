"""What has become of every clip: Samples as folders or shards, rejects.jsonl, clips.jsonl. The outputs are the record.

Each appears whole or not at all, and says with which configuration and of which content it was made, so a run that was
killed at any moment goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import OutputError
from ..files import PREFIX, key_of, new_file, remove
from ..shards import write_shard
from ..storage import HEADER, new_sample_folder, save_sample
from ..types import Sample
from .config import differences
from .cutting import Cut
from .filters import Reject

if TYPE_CHECKING:
    from .making import Made

SAMPLES, SHARDS, STAGED = "samples", "shards", "staged"
REJECTS, CLIPS, RECORD, LOCK, RUN = "rejects.jsonl", "clips.jsonl", "prepare.json", ".lock", "run.json"


class Entry(NamedTuple):
    """What a clip became: key of its configuration, mark of its input, facts of a Sample or the Reject; where it is."""

    clip: str
    key: str
    mark: str
    place: Path
    facts: dict[str, Any]
    reject: Reject | None = None


class Ledger:
    """The folder of a preparation. per_shard: Samples of a shard, 0 for folders.

    Raises OutputError if another process is at work in it, if it holds something else, or Samples in the other form.
    """

    def __init__(self, folder: str | Path, made_with: Mapping[str, Any], *, per_shard: int = 0) -> None:
        self.folder, self.per_shard = Path(folder), per_shard
        self.made_with = json.loads(json.dumps(made_with))
        self.key, self.cut_key = key_of(self.made_with), key_of(_cut_with(self.made_with))
        _check_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder / LOCK)
        self.configurations = self._record()
        self.tidy()
        self.entries = {entry.clip: entry for entry in read_entries(self.folder)}
        self.cuts = self._cuts()
        self._staged = sorted(path.name for path in _samples(self.folder / STAGED))
        self._check_form()

    def close(self) -> None:
        """Let others work in the folder."""
        self._lock.close()

    def stale(self, marks: Mapping[str, str]) -> list[Entry]:
        """Results of another configuration, or of other content; marks: of the clips that are wanted now."""
        return [
            entry
            for entry in self.entries.values()
            if entry.key != self.key or entry.mark != marks.get(entry.clip, entry.mark)
        ]

    def explain(self, stale: list[Entry]) -> str:
        """What has changed since they were made, in words."""
        changes = {
            change
            for key in {entry.key for entry in stale} - {self.key}
            for change in differences(self.configurations.get(key, {}), self.made_with)
        }
        if any(entry.key == self.key for entry in stale):
            changes.add("files or captions of the source changed")
        return "; ".join(sorted(changes)) or "the configuration changed"

    def discard(self, stale: list[Entry]) -> None:
        """Take results away, so that they are made anew; a shard goes as a whole."""
        gone = {entry.clip for entry in stale}
        for shard in {entry.place for entry in stale if entry.place.suffix == ".tar"}:
            gone |= {entry.clip for entry in self.entries.values() if entry.place == shard}
            shard.unlink(missing_ok=True)
            shard.with_suffix(".jsonl").unlink(missing_ok=True)
        for entry in stale:
            if entry.reject is None and entry.place.suffix != ".tar":
                remove(entry.place)
        if any(self.entries[clip].reject for clip in gone):
            kept = [line for line in _lines(self.folder / REJECTS) if line["clip"] not in gone]
            with new_file(self.folder / REJECTS, force=True) as temporary:
                temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
        self.entries = {clip: entry for clip, entry in self.entries.items() if clip not in gone}
        self._staged = [clip for clip in self._staged if clip not in gone]

    def add_cut(self, id: str, mark: str, cut: Cut | Reject) -> None:
        """Write down where an input is cut."""
        line: dict[str, Any] = {"input": id, "mark": mark, "key": self.cut_key}
        if isinstance(cut, Reject):
            line["reject"] = list(cut)
        else:
            line |= {"frames": cut.frames, "fps": str(cut.fps), "every": cut.every, "pieces": cut.pieces}
        _append(self.folder / CLIPS, line)
        self.cuts[id, mark] = cut

    def note(self, clip: str, mark: str, written: Written) -> None:
        """Write down what a clip became; a Sample stands at its place. Raises OutputError if it cannot be."""
        reject = written.reject
        if reject is None:
            self.entries[clip] = Entry(clip, self.key, mark, self.place(clip), written.facts)
            if self.per_shard:
                self._staged.append(clip)
                self.pack(only_full=True)
            return
        line = {"clip": clip, "step": reject.step, "reason": reject.reason, "value": reject.value}
        _append(self.folder / REJECTS, {**line, "key": self.key, "mark": mark})
        self.entries[clip] = Entry(clip, self.key, mark, self.folder / REJECTS, {}, reject)

    def place(self, clip: str) -> Path:
        """Where a clip's Sample is written."""
        return self.folder / (STAGED if self.per_shard else SAMPLES) / clip

    def pack(self, *, only_full: bool = False) -> None:
        """Put the Samples that wait into the next shard: first its index, then the tar, which is what counts.

        only_full: not before there are enough of them.
        """
        if not self._staged or (only_full and len(self._staged) < self.per_shard):
            return
        self._staged.sort()
        taken = [int(path.stem) for path in (self.folder / SHARDS).glob("*.tar") if path.stem.isdecimal()]
        path = self.folder / SHARDS / f"{max(taken, default=-1) + 1:05d}.tar"
        entries = [self.entries[clip] for clip in self._staged]
        with new_file(path.with_suffix(".jsonl"), force=True) as temporary:
            lines = [{"clip": e.clip, "key": e.key, "mark": e.mark, "facts": e.facts} for e in entries]
            temporary.write_text("".join(map(_line, lines)), encoding="utf-8")
        write_shard([(entry.clip, entry.place) for entry in entries], path)
        for entry in entries:
            remove(entry.place)
            self.entries[entry.clip] = entry._replace(place=path)
        self._staged = []

    def _record(self) -> dict[str, Any]:
        """All configurations that were ever used here, by key; written before the first result is."""
        path = self.folder / RECORD
        with suppress(OSError, ValueError):
            known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["configurations"]
            if self.key in known:
                return known
            return self._write_record({**known, self.key: self.made_with})
        return self._write_record({self.key: self.made_with})

    def _write_record(self, known: dict[str, Any]) -> dict[str, Any]:
        with new_file(self.folder / RECORD, force=True) as temporary:
            temporary.write_text(json.dumps({"configurations": known}, indent=2) + "\n", encoding="utf-8")
        return known

    def tidy(self) -> None:
        """Remove what a killed process left: temporary files, half a line, what is packed already."""
        for folder in (self.folder, *(self.folder / name for name in (SAMPLES, SHARDS, STAGED))):
            for path in folder.glob(f"{PREFIX}*"):
                remove(path)  # actors of a killed run (Ray's) may go on writing there for a moment
        for name in (REJECTS, CLIPS):
            _cut_half_line(self.folder / name)
        packed = {entry.clip for entry in _shard_entries(self.folder)}
        for clip in packed & {path.name for path in (self.folder / STAGED).glob("*")}:
            remove(self.folder / STAGED / clip)

    def _cuts(self) -> dict[tuple[str, str], Cut | Reject]:
        found: dict[tuple[str, str], Cut | Reject] = {}
        for line in _lines(self.folder / CLIPS):
            if line["key"] == self.cut_key:
                pieces = tuple((start, end) for start, end in line.get("pieces", ()))
                reject = Reject(*line["reject"]) if "reject" in line else None
                cut = reject or Cut(line["frames"], Fraction(line["fps"]), line["every"], pieces)
                found[line["input"], line["mark"]] = cut
        return found

    def _check_form(self) -> None:
        has = {entry.place.parent.name for entry in self.entries.values() if entry.reject is None}
        other = {SAMPLES} if self.per_shard else {SHARDS, STAGED}
        if has & other:
            form = "folders" if self.per_shard else "shards"
            fix = "give the same --per-shard, or another --out"
            raise OutputError(f"the folder holds Samples as {form}", seen=str(self.folder), fix=fix)


class Written(NamedTuple):
    """What became of a clip, a Sample being whole on the disk. facts, seconds, error: as Made has them."""

    reject: Reject | None
    facts: dict[str, Any]
    seconds: dict[str, float]
    error: Exception | None


def write(place: Path, made: Made, clip: str, key: str, mark: str) -> Written:
    """Put a Sample at its place, if it is one. Raises OutputError."""
    if isinstance(made.result, Reject):
        return Written(made.result, made.facts, made.seconds, made.error)
    begun = time.perf_counter()
    if not (place / HEADER).exists():  # an actor that died may have written it
        write_sample(place, made.result, clip, key, mark, made.facts)
    return Written(None, made.facts, {**made.seconds, "write": time.perf_counter() - begun}, made.error)


def write_sample(place: Path, sample: Sample, clip: str, key: str, mark: str, facts: Mapping[str, Any]) -> None:
    """A Sample under its clip's name, whole or not at all, with what it was made with. Raises OutputError."""
    run = {"prepare": {"clip": clip, "key": key, "mark": mark, "facts": dict(facts)}}
    try:
        with new_sample_folder(place) as temporary:
            save_sample(sample, temporary)
            (temporary / RUN).write_text(json.dumps(run, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OutputError:
        if not (place / HEADER).is_file():  # else an actor of a killed run had not died yet, and was faster
            raise


def read_entries(folder: Path) -> Iterator[Entry]:
    """Everything that a preparation's folder holds, each clip once; Samples first."""
    seen = set[str]()
    for entry in (*_shard_entries(folder), *_folder_entries(folder), *_rejects(folder)):
        if entry.clip not in seen:
            seen.add(entry.clip)
            yield entry


def _shard_entries(folder: Path) -> Iterator[Entry]:
    for tar in sorted((folder / SHARDS).glob("*.tar")):
        for line in _lines(tar.with_suffix(".jsonl")):
            yield Entry(line["clip"], line["key"], line["mark"], tar, line["facts"])


def _folder_entries(folder: Path) -> Iterator[Entry]:
    for place in (*_samples(folder / SAMPLES), *_samples(folder / STAGED)):
        run: dict[str, Any] = {}
        with suppress(OSError, ValueError, KeyError):
            run = json.loads((place / RUN).read_text(encoding="utf-8"))["prepare"]
        yield Entry(place.name, run.get("key", ""), run.get("mark", ""), place, run.get("facts", {}))


def _rejects(folder: Path) -> Iterator[Entry]:
    path = folder / REJECTS
    for line in _lines(path):
        reject = Reject(line["step"], line["reason"], line["value"])
        yield Entry(line["clip"], line["key"], line["mark"], path, {}, reject)


def _samples(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{HEADER}") if not path.parent.name.startswith("."))


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file of ours. Raises OutputError for one that is not."""
    if not path.exists():
        return []
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            found.append(json.loads(text))
        except ValueError:
            fix = "delete that line, and its clip is made again"
            raise OutputError(f"line {number} cannot be read", seen=str(path), fix=fix) from None
    return found


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _append(path: Path, content: Mapping[str, Any]) -> None:
    try:
        with path.open("ab") as file:
            file.write(_line(content).encode())
    except OSError as error:
        seen = f"{path}: {error.strerror}"
        raise OutputError("a result cannot be written", seen=seen, fix="choose another place") from error


def _cut_half_line(path: Path) -> None:
    """A killed process may have left half a line at the end; that clip is made again."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _cut_with(made_with: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides where inputs are cut."""
    return {name: made_with.get(name) for name in ("masks", "cutting")}


def _check_folder(folder: Path) -> None:
    ours = {SAMPLES, SHARDS, STAGED, REJECTS, CLIPS, RECORD, LOCK, "report.html"}
    if folder.exists() and not folder.is_dir():
        raise OutputError("a folder is to be written where a file stands", seen=str(folder), fix="name a folder")
    others = {path.name for path in folder.glob("*") if not path.name.startswith(PREFIX)} - ours
    if others and not (folder / RECORD).is_file():
        raise OutputError("the folder is filled and is not from prepare", seen=str(folder), fix="choose another name")


def _locked(path: Path) -> Any:
    """An open file that only one process can hold; the system lets go of it when the process ends, however it does."""
    file = path.open("wb")
    try:
        import fcntl
    except ImportError:  # not on Windows
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        fix = "wait for it, or choose another --out"
        raise OutputError("another prepare is at work in this folder", seen=str(path.parent), fix=fix) from None
    return file
