"""Results kept as they come, one line of JSON for each scene, so that an interrupted evaluation goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError, SampleError
from ..files import key_of

RESULTS = "results.jsonl"


class Journal:
    """The results of a folder. made_with: what they depend on (plain JSON values); others count as stale.

    Raises OutputError if there are results that cannot be read.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any]) -> None:
        self.path, self.made_with = folder / RESULTS, json.loads(json.dumps(made_with))
        self.key = key_of(self.made_with)
        self.done: dict[int, Any] = {}
        self.others: dict[int, dict[str, Any]] = {}
        for line in _lines(self.path):
            if line["key"] == self.key:
                self.done[line["scene"]] = line["result"]
            else:
                self.others[line["scene"]] = line["made_with"]

    @classmethod
    def latest(cls, folder: Path) -> Journal:
        """With what the newest result was made with. Raises SampleError for a folder without results."""
        lines = _lines(folder / RESULTS)
        if not lines:
            raise SampleError("here are no results of evaluate", seen=str(folder), fix="name what was its --out")
        return cls(folder, lines[-1]["made_with"])

    @property
    def stale(self) -> dict[int, dict[str, Any]]:
        """Scenes that were judged in another way only, and what with."""
        return {scene: made_with for scene, made_with in self.others.items() if scene not in self.done}

    def explain_stale(self) -> str:
        """In one sentence how many results are stale, and what has changed; "" for none."""
        if not self.stale:
            return ""
        changes = {
            f"{name} was {_short(old.get(name))} and is {_short(self.made_with.get(name))}"
            for old in self.stale.values()
            for name in sorted({*old, *self.made_with})
            if old.get(name) != self.made_with.get(name)
        }
        return f"{len(self.stale)} results in {self.path} are stale: {'; '.join(sorted(changes))}."

    def add(self, scene: int, result: Any) -> None:
        """Write a result down. Raises OutputError if it cannot be."""
        line = {"scene": scene, "key": self.key, "made_with": self.made_with, "result": result}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell() and not self._ends_whole():
                    file.write(b"\n")  # what was cut off becomes a line of its own, which no one can read
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise OutputError("a result cannot be written", seen=str(self.path), fix="choose another place") from error
        self.done[scene] = json.loads(json.dumps(result))

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole; a process that was killed may have left half of one."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        fix = "choose another place"
        raise OutputError("earlier results cannot be read", seen=str(path), fix=fix) from error
    lines = []
    for text in texts:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and {"scene", "key", "made_with", "result"} <= set(line):
            lines.append(line)
    return lines


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
