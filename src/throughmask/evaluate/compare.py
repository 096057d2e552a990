"""Evaluations of several models beside each other, over the scenes that all of them have, with paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidValueError
from .journal import Journal
from .judge import MODES
from .scores import GROUPS, MEASURES, TITLES, Measure, SceneScore, Scores, cell, line
from .tally import Mean, difference_of_scenes

FILMED = ("size", "frames", "fps", "measures")  # what numbers must share to be compared
NAME = 11  # columns of a run's name
BESIDE = ("again", "still", "vae", "truth")  # rows that no model makes; as the first run has them


@dataclass(frozen=True)
class Comparison:
    """runs: by name, of the same scenes in the same order. left_out: how many scenes of each the others lack."""

    runs: dict[str, Scores]
    left_out: dict[str, int]

    @property
    def first(self) -> Scores:
        return next(iter(self.runs.values()))

    @property
    def judges(self) -> int:
        """How many segmenters found the objects in videos again: numbers of different ones say less."""
        return len({run.facts["made_with"].get("perception") for run in self.runs.values()} - {None})

    def difference(self, name: str, mode: str, measure: str, group: str = "all") -> Mean | None:
        """How much a run is above the first, over scenes in which both were measured."""
        both = (run.parts(mode, "model", measure, group) for run in (self.first, self.runs[name]))
        return difference_of_scenes(*both)

    def rows(self, mode: str) -> Iterator[tuple[Measure, str, bool, dict[str, Mean | None]]]:
        """Measure; a run's name, or that of a row which no model makes; whether it is the difference from the first
        run; and the mean of each group."""
        for measure in MEASURES:
            found = []
            for name, run in self.runs.items():
                found.append((name, False, {group: run.mean(mode, "model", measure.name, group) for group in GROUPS}))
                if run is not self.first:
                    means = {group: self.difference(name, mode, measure.name, group) for group in GROUPS}
                    found.append((name, True, means))
            if not any(mean for _, _, means in found for mean in means.values()):
                continue
            for row in BESIDE:
                found.append((row, False, {g: self.first.mean(mode, row, measure.name, g) for g in GROUPS}))
            for name, above, means in found:
                if any(means.values()):
                    yield measure, name, above, means

    def as_json(self) -> dict[str, Any]:
        modes: dict[str, Any] = {}
        for mode in self._modes():
            for measure, name, above, means in self.rows(mode):
                plain = {group: mean and asdict(mean) for group, mean in means.items()}
                kind = "differences" if above else "means"
                modes.setdefault(mode, {}).setdefault(measure.name, {}).setdefault(kind, {})[name] = plain
        return {
            "format": "throughmask-comparison",
            "version": 1,
            "runs": {name: {"seeds": list(run.seeds), **run.facts} for name, run in self.runs.items()},
            "scenes": len(self.first.scenes),
            "left_out": self.left_out,
            "judges": self.judges,
            "modes": modes,
        }

    def table(self) -> str:
        """For a terminal: at most 100 columns wide."""
        number = len(self.first.scenes)
        lines = [f"{number} scene{'s' * (number != 1)} that all have; means with 95 % intervals over scenes"]
        lines += [f"{name}: {number} more scenes are left out" for name, number in self.left_out.items() if number]
        if self.judges > 1:
            lines += [f"their videos were judged by {self.judges} different segmenters: compare with the rows truth"]
        lines += [f"above: how much better or worse than {next(iter(self.runs))}, scene by scene"]
        for mode in self._modes():
            lines += ["", TITLES[mode], line("", "", GROUPS, NAME)]
            last = None
            for measure, name, above, means in self.rows(mode):
                title = measure.title if measure is not last else ""
                cells = [cell(means[group], measure, signed=above) for group in GROUPS]
                lines.append(line(title, "above" if above else name, cells, NAME))
                last = measure
        return "\n".join(lines)

    def _modes(self) -> list[str]:
        return [mode for mode in MODES if any(mode in run.modes for run in self.runs.values())]


def compare_runs(folders: Mapping[str, Path]) -> Comparison:
    """What `evaluate` left in several folders, by the name that each is to have; of each its newest results.

    Raises SampleError for a folder without results; InvalidValueError for fewer than two, for scenes that were filmed
    or measured in different ways, and if they have no scene in common.
    """
    if len(folders) < 2:
        raise InvalidValueError("two runs or more are compared", seen=len(folders))
    journals = {name: Journal.latest(folder) for name, folder in folders.items()}
    first, *others = journals
    for name in others:
        for key in FILMED:
            one, other = (journals[each].made_with.get(key) for each in (first, name))
            if one != other:
                raise InvalidValueError(f"{first} and {name} differ in {key}", seen=f"{one}, {other}")
    common = sorted(set.intersection(*(set(journal.done) for journal in journals.values())))
    if not common:
        raise InvalidValueError("these runs have no scene in common", seen=", ".join(journals))
    runs = {}
    for name, journal in journals.items():
        scenes = tuple(SceneScore(**journal.done[scene]) for scene in common)
        seeds = tuple(journal.made_with.get("seeds", ()))
        runs[name] = Scores("", seeds, scenes, {"made_with": journal.made_with, "key": journal.key})
    return Comparison(runs, {name: len(journal.done) - len(common) for name, journal in journals.items()})


def named(folders: Sequence[Path], names: Sequence[str] = ()) -> dict[str, Path]:
    """Folders by name: by default their own, with the folder above where two are called alike.

    Raises InvalidValueError for another number of names than of folders, and for two names alike.
    """
    if not names:
        own = [folder.resolve() for folder in folders]
        names = [folder.name for folder in own]
        if len(set(names)) < len(names):
            names = [f"{folder.parent.name}/{folder.name}" for folder in own]
    if len(names) != len(folders) or len(set(names)) < len(names):
        raise InvalidValueError("each run has a name of its own", seen=", ".join(names), fix="give --names A,B")
    return dict(zip(names, folders, strict=True))
