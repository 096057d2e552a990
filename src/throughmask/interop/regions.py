"""Connected regions of a mask video, in space and time: what touches at no moment is another region."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def connected_regions(mask: Mask) -> npt.NDArray[np.int32]:
    """Region numbers of a T H W mask (int32, same shape): 0 outside, then 1, 2, ... by first frame, row and column.

    Pixels are connected to their 4 neighbours and to the same pixel of the frames before and after.
    """
    _, height, width = mask.shape
    rows = mask.reshape(-1, width)
    padded = np.zeros((len(rows), width + 2), np.int8)
    padded[:, 1:-1] = rows
    change = np.diff(padded, axis=1)
    row, start = np.nonzero(change == 1)
    _, end = np.nonzero(change == -1)  # one past the last; the runs of a row come in the same order
    owner = list(range(len(row)))  # union-find over runs; a root is its region's first run
    by_row: list[list[tuple[int, int, int]]] = [[] for _ in rows]
    for k, (r, a, b) in enumerate(zip(row.tolist(), start.tolist(), end.tolist(), strict=True)):
        by_row[r].append((k, a, b))
    for r, runs in enumerate(by_row):
        above = by_row[r - 1] if r % height else []
        before = by_row[r - height] if r >= height else []
        for k, other in (*_touching(runs, above), *_touching(runs, before)):
            first, second = sorted((_root(owner, k), _root(owner, other)))
            owner[second] = first
    roots = np.array([_root(owner, k) for k in range(len(owner))], np.int64)
    _, number = np.unique(roots, return_inverse=True)
    painted = np.zeros(rows.shape, np.int32)
    painted[rows] = np.repeat(number + 1, end - start)
    return painted.reshape(mask.shape)


def _touching(runs: list[tuple[int, int, int]], others: list[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Pairs of runs (number, start, end) that share a column."""
    for k, a, b in runs:
        for other, c, d in others:
            if a < d and c < b:
                yield k, other


def _root(owner: list[int], k: int) -> int:
    while owner[k] != k:
        owner[k] = owner[owner[k]]
        k = owner[k]
    return k
