"""All scenes together: for each mode, row and measure a mean with its interval; as JSON and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .judge import MODES, ROWS
from .tally import Mean, Tally, mean_of_scenes

GROUPS = ("single", "multi", "all")


@dataclass(frozen=True)
class Measure:
    """A column of the benchmark. note: one line for people. decibel: whether it is no share from 0 to 1."""

    name: str
    title: str
    note: str
    decibel: bool = False


MEASURES = (
    Measure("motion", "motion accuracy", "of the toys that move, the share that ends where it should"),
    Measure("staying", "staying toys kept", "of the toys that stay, the share that ends within 2 % of the width"),
    Measure("jump", "jumps", "the share whose highest point is within 40 %"),
    Measure("spin", "spins", "the share whose angle is within 40 %, of those that masks show"),
    Measure("tip", "tipping over", "the share whose angle is within 40 %, of those that masks show"),
    Measure("iou", "mask IoU", "with the simulation, toys of 100 pixels or more at 256×256"),
    Measure("iou_small", "mask IoU, small toys", "the same, smaller toys"),
    Measure("followed", "adherence IoU", "of the masks asked for with those tracked in the video"),
    Measure("likeness", "likeness", "share of the pixels in the masks asked for that have their toy's colours"),
    Measure("likeness_new", "likeness, new places", "the same, where the toy was not in frame 0"),
    Measure("psnr", "PSNR", "dB, all pixels", decibel=True),
    Measure("psnr_changing", "PSNR, changing pixels", "dB, where the true video differs from frame 0", decibel=True),
    Measure("psnr_resting", "PSNR, resting pixels", "dB, where it does not: the room, and unnamed toys", decibel=True),
)
# By what scenes and takes are ranked: the first of these that was measured.
RANKS = (
    ("motion", "iou"),
    ("whole", "iou"),
    ("whole", "likeness_new"),
    ("video", "likeness_new"),
    ("whole", "psnr"),
    ("video", "psnr"),
)
TITLES = {
    "motion": "Stage 1 alone: its masks against the simulation",
    "video": "Stage 2 alone: videos of the true masks",
    "whole": "End to end: videos of the model's own masks, against the simulation",
}


@dataclass(frozen=True)
class SceneScore:
    """What came out for one scene, as plain values: a line of results.jsonl.

    toys: for each its id, name, verb, and in the take that is shown its IoU and whether it went right. by_take: mode ->
    the Tally of each take. unseen: toys left out because masks do not show what they do. shown: the take with clips.
    """

    scene: int
    prompt: str
    toys: list[dict[str, Any]]
    tallies: dict[str, dict[str, Tally]]
    by_take: dict[str, list[Tally]]
    unseen: dict[str, int]
    shown: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def group(self) -> str:
        return "single" if len(self.toys) == 1 else "multi"

    def value(self, mode: str, measure: str, take: int | None = None) -> float | None:
        """The model's mean in this scene, of all takes or of one; None where there is none."""
        takes = self.by_take.get(mode, [])
        tally = self.tallies.get(mode, {}).get("model", {}) if take is None else takes[take] if takes else {}
        value, count = tally.get(measure, (0.0, 0))
        return value / count if count else None

    def rank(self, take: int | None = None) -> float:
        """How good the scene, or one take of it, came out: for sorting, the worst first."""
        for mode, measure in RANKS:
            value = self.value(mode, measure, take)
            if value is not None:
                return value
        return float("inf")


@dataclass(frozen=True)
class Scores:
    """The scores of a split. seeds: of noise. facts: what judged what, for the JSON and the page."""

    split: str
    seeds: tuple[int, ...]
    scenes: tuple[SceneScore, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def modes(self) -> list[str]:
        return [mode for mode in MODES if any(mode in scene.tallies for scene in self.scenes)]

    def mean(self, mode: str, row: str, measure: str, group: str = "all") -> Mean | None:
        """None where nothing was measured."""
        return mean_of_scenes(self.parts(mode, row, measure, group))

    def parts(self, mode: str, row: str, measure: str, group: str = "all") -> list[tuple[float, int]]:
        """Sum and count of each scene of a group, (0, 0) where nothing was measured."""
        chosen = [scene for scene in self.scenes if group in ("all", scene.group)]
        return [scene.tallies.get(mode, {}).get(row, {}).get(measure, (0.0, 0)) for scene in chosen]

    def entries(self, mode: str) -> Iterator[tuple[Measure, str, dict[str, Mean | None]]]:
        """Measure, row and the mean of each group, where there is any."""
        for measure in MEASURES:
            for row in ROWS:
                means = {group: self.mean(mode, row, measure.name, group) for group in GROUPS}
                if any(means.values()):
                    yield measure, row, means

    @property
    def unseen(self) -> dict[str, int]:
        """How many toys that jump, spin or tip over are left out, because masks do not show it."""
        return {verb: sum(scene.unseen.get(verb, 0) for scene in self.scenes) for verb in ("jump", "spin", "tip")}

    @property
    def left_out(self) -> str:
        """`unseen` in a sentence; "" if there are none, or if no masks were judged."""
        judged = any("spin" in rows["model"] for scene in self.scenes for rows in scene.tallies.values())
        left = [f"{count} {verb}s" for verb, count in self.unseen.items() if count and judged]
        return f"Left out, because masks do not show them: {', '.join(left)}." if left else ""

    @property
    def seconds(self) -> dict[str, float]:
        """How long the model took for a scene with all its seeds, on average: to move, to render."""
        names = {name for scene in self.scenes for name in scene.seconds}
        return {name: round(float(np.mean([s.seconds[name] for s in self.scenes])), 3) for name in sorted(names)}

    def as_json(self) -> dict[str, Any]:
        """Everything but the scenes, as JSON has it."""
        modes: dict[str, Any] = {mode: {} for mode in self.modes}
        for mode, rows in modes.items():
            for measure, row, means in self.entries(mode):
                plain = {group: mean and asdict(mean) for group, mean in means.items()}
                rows.setdefault(row, {})[measure.name] = plain
        groups = {group: sum(group in ("all", scene.group) for scene in self.scenes) for group in GROUPS}
        return {
            "format": "throughmask-scores",
            "version": 1,
            "split": self.split,
            "scenes": groups,
            "seeds": list(self.seeds),
            **self.facts,
            "left_out": self.unseen,
            "seconds": self.seconds,
            "modes": modes,
        }

    def table(self) -> str:
        """For a terminal: at most 100 columns wide."""
        seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) != 1)} of noise each"
        lines = [f"{self.split}: {len(self.scenes)} scenes, {seeds}; means with 95 % intervals over scenes"]
        for mode in self.modes:
            lines += ["", TITLES[mode], line("", "", GROUPS)]
            last = None
            for measure, row, means in self.entries(mode):
                title = measure.title if measure is not last else ""
                lines.append(line(title, row, [cell(means[group], measure) for group in GROUPS]))
                last = measure
        return "\n".join([*lines, "", self.left_out] if self.left_out else lines)


def cell(mean: Mean | None, measure: Measure, *, signed: bool = False) -> str:
    """A mean as text, such as "0.71 [0.60, 0.81]"; a difference as "+0.05 [-0.02, 0.11]"."""
    if mean is None:
        return "–"
    digits = 1 if measure.decibel else 2
    edges = "" if mean.low is None else f" [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"
    return f"{mean.value:{'+' if signed else ''}.{digits}f}{edges}"


def line(title: str, row: str, cells: Sequence[str], name: int = 6) -> str:
    """A row of a table; name: columns of the row's name."""
    return f"{title:<22} {row[:name]:<{name}}{''.join(f'{text:>22}' for text in cells)}".rstrip()
