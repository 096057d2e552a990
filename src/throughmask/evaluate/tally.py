"""Sums and counts of measures, and what follows from those of many scenes: means with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
# Measure -> the sum over what was measured (toys, or videos), and how many these were.
Tally = dict[str, tuple[float, int]]

RESAMPLES = 2000


@dataclass(frozen=True)
class Mean:
    """A mean over toys or videos. low, high: its 95 % interval over scenes, None for fewer than two scenes."""

    value: float
    low: float | None
    high: float | None
    count: int
    scenes: int


def counted(values: Iterable[float | bool]) -> tuple[float, int]:
    """Sum and number of values."""
    found = [float(value) for value in values]
    assert all(isfinite(value) for value in found)
    return sum(found), len(found)


def total(tallies: Iterable[Mapping[str, tuple[float, int]]]) -> Tally:
    """All of them together."""
    joined: Tally = {}
    for tally in tallies:
        for name, (value, count) in tally.items():
            before = joined.get(name, (0.0, 0))
            joined[name] = before[0] + value, before[1] + count
    return joined


def mean_of_scenes(parts: Sequence[tuple[float, int]]) -> Mean | None:
    """The mean over all that was counted, and its interval by drawing scenes anew (bootstrap, a fixed seed).

    parts: sum and count of each scene, in a fixed order. None if nothing was counted.
    """
    return _mean([[part] for part in parts if part[1]])


def difference_of_scenes(before: Sequence[tuple[float, int]], after: Sequence[tuple[float, int]]) -> Mean | None:
    """How much the mean of `after` is above that of `before`, of the same scenes in the same order; its interval draws
    scenes with both of their parts, as what is hard for one is hard for the other. None if nothing was counted in both.
    """
    return _mean([[a, b] for a, b in zip(before, after, strict=True) if a[1] and b[1]])


def _mean(parts: Sequence[Sequence[tuple[float, int]]]) -> Mean | None:
    """Of the last column's mean, less the first one's where there are two: scenes, columns, sum and count."""
    if not parts:
        return None
    array = np.array(parts, np.float64)

    def value(sums: Floats) -> Floats:
        means = sums[..., 0] / sums[..., 1]
        return np.asarray(means[..., -1] - (means[..., 0] if means.shape[-1] > 1 else 0))

    low = high = None
    if len(array) > 1:
        # A scene counts with all of its toys and seeds, which are alike: to draw toys alone would promise too much.
        chosen = np.random.default_rng(0).integers(0, len(array), (RESAMPLES, len(array)))
        low, high = (float(edge) for edge in np.quantile(value(array[chosen].sum(1)), [0.025, 0.975]))
    sums = array.sum(0)
    return Mean(float(value(sums)), low, high, int(sums[-1, 1]), len(array))
