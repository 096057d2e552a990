"""Regions of masks: what is connected, specks, which are too small to be anything, and overlaps, which labels lack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from .types import MAX_OBJECTS, Labels, present_ids

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


def remove_specks(labels: Labels, smallest: int) -> Labels:
    """Labels T H W without specks: connected regions of under `smallest` pixels in a frame, holes included.

    A speck takes the label that surrounds most of it. An object's largest region of a frame stays, whatever its size,
    so that a small object never vanishes.
    """
    cleaned = labels.copy()
    for frame in cleaned:
        before = frame.copy()
        for label in (0, *present_ids(before)):
            regions = connected_regions((before == label)[None])[0]
            sizes = np.bincount(regions.ravel())
            sizes[0] = 0
            keep = int(sizes.argmax())
            for region in np.flatnonzero((sizes > 0) & (sizes < smallest)):
                if region != keep:
                    frame[regions == region] = _around(before, regions == region)
    return cleaned


def lay(labels: Labels, areas: npt.NDArray[np.int64], id: int, mask: Mask) -> None:
    """Lay a mask (H W) on labels, in place: smaller on top, of equal ones the higher id, in whichever order they come.

    areas: of every id's whole mask in this frame, by id (256); the new one's is written there.
    """
    areas[id] = area = np.count_nonzero(mask)
    above = (areas > 0) & ((areas < area) | ((areas == area) & (np.arange(len(areas)) > id)))
    free = mask
    for other in np.flatnonzero(above):
        free = free & (labels != other)
    # Without branches: ten times as fast as assigning to labels[free] where masks are ragged.
    bits = np.negative(free.view(np.uint8))  # 0 or 255
    labels &= ~bits
    labels |= bits & np.uint8(id)


def as_labels(masks: Mapping[int, Mask], size: tuple[int, int]) -> Labels:
    """Masks that may overlap as one label map, smaller on top."""
    labels, areas = np.zeros(size, np.uint8), np.zeros(MAX_OBJECTS + 1, np.int64)
    for id, mask in masks.items():
        lay(labels, areas, id, mask)
    return labels


def _around(frame: Labels, region: Mask) -> int:
    """The most common label among the 4-neighbours of a region, not counting the region itself."""
    padded = np.pad(region, 1)
    ring = (padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]) & ~region
    return int(np.bincount(frame[ring]).argmax())


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
