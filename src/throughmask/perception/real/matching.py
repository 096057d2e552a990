"""Which box is whose: phrases that claim one box, and phrases with a place, such as "left ball"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Corners = tuple[float, float, float, float]  # left, top, right, bottom in pixels, as edges
Place = tuple[int, float]  # axis (0 is x, 1 is y), and where along it: 0 first, 1 last

SAME = 0.7  # boxes that overlap so much (intersection over union) are of one object
LIKELY = 0.5  # of a noun's best fit: what fits less is no rival for "the left one"

_PLACES: dict[str, Place] = {
    **dict.fromkeys(("left", "leftmost", "left-most", "left-hand", "far-left"), (0, 0.0)),
    **dict.fromkeys(("right", "rightmost", "right-most", "right-hand", "far-right"), (0, 1.0)),
    **dict.fromkeys(("middle", "center", "centre", "central"), (0, 0.5)),
    **dict.fromkeys(("top", "topmost", "upper", "uppermost"), (1, 0.0)),
    **dict.fromkeys(("bottom", "bottommost", "lower", "lowermost"), (1, 1.0)),
}
_WORDS = "|".join(sorted(_PLACES, key=len, reverse=True))
_BEFORE = re.compile(rf"^(?:the )?({_WORDS}) (?=\S)")
_AFTER = re.compile(rf" (?:on|at|in|to) the (?:far |very )?({_WORDS})(?: side| edge)?$")


class Candidate(NamedTuple):
    """A box that a noun may mean. score: of the word that is seen best; fit: the mean over all of its words. 0 to 1."""

    box: Corners
    score: float
    fit: float


def split_place(phrase: str) -> tuple[str, Place | None]:
    """ "left red ball" or "red ball on the left" -> "red ball" and where; any other phrase in lower case and None."""
    text = " ".join(phrase.lower().split())
    for pattern in (_BEFORE, _AFTER):
        if found := pattern.search(text):
            return text[: found.start()] + text[found.end() :], _PLACES[found[1]]
    return text, None


def allot(
    phrases: Mapping[int, str], candidates: Mapping[str, Sequence[Candidate]], size: tuple[int, int]
) -> dict[int, Candidate]:
    """The box of each id; ids that get none are left out, and no two ids get the same.

    candidates: of each noun (see split_place). size: height and width of the picture. Boxes are dealt so that the sum
    of their fits is largest; among the boxes that are a noun's own, the place decides.
    """
    asked = {id: split_place(phrase) for id, phrase in phrases.items()}
    boxes = _distinct(candidates)
    ids = list(asked)
    worth = np.zeros((len(ids), max((k + 1 for of in boxes.values() for k in of), default=0)))
    for row, id in enumerate(ids):
        for column, candidate in boxes[asked[id][0]].items():
            worth[row, column] = candidate.fit
    owned = {id: column for id, column in zip(ids, best_assignment(worth), strict=True) if column >= 0}
    for noun in dict.fromkeys(noun for noun, place in asked.values() if place):
        group = {id: place for id, (other, place) in asked.items() if other == noun}
        free = {k: box for k, box in boxes[noun].items() if k not in {owned[id] for id in owned if id not in group}}
        owned = {id: column for id, column in owned.items() if id not in group} | _by_place(group, free, size)
    return {id: boxes[asked[id][0]][owned[id]] for id in ids if id in owned}


def best_assignment(worth: npt.NDArray[np.float64]) -> list[int]:
    """For each row a column of its own, or -1, so that the sum of `worth` (rows columns, 0 is no match) is largest."""
    rows, columns = worth.shape
    cost = np.hstack([-worth, np.zeros((rows, rows))])  # a row may stay without
    # The Hungarian method: rows enter one by one, each along the cheapest path of reassignments. Column 0 is virtual.
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + rows + 1)
    owner = np.zeros(columns + rows + 1, int)
    for row in range(1, rows + 1):
        owner[0], column = row, 0
        least, before = np.full(len(owner), np.inf), np.zeros(len(owner), int)
        seen = np.zeros(len(owner), bool)
        while column == 0 or owner[column]:
            seen[column] = True
            slack = np.append(np.inf, cost[owner[column] - 1] - row_price[owner[column]] - column_price[1:])
            better = ~seen & (slack < least)
            least[better], before[better] = slack[better], column
            column = int(np.where(seen, np.inf, least).argmin())
            step = least[column]
            row_price[owner[seen]] += step
            column_price[seen] -= step
            least[~seen] -= step
        while column:
            owner[column], column = owner[before[column]], int(before[column])
    found = {int(row) - 1: column for column, row in enumerate(owner[1 : columns + 1]) if row}
    return [found[row] if row in found and worth[row, found[row]] > 0 else -1 for row in range(rows)]


def _overlaps(boxes: npt.NDArray[np.float64], box: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intersection over union of each box (boxes 4) with one (4)."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    both = sides.clip(0).prod(1)
    either = _areas(boxes) + _areas(box) - both
    return np.divide(both, either, out=np.zeros_like(both), where=both > 0)


def _areas(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    area: npt.NDArray[np.float64] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return area


def _distinct(candidates: Mapping[str, Sequence[Candidate]]) -> dict[str, dict[int, Candidate]]:
    """Each noun's candidates by the number of their box; nearly equal boxes share one, a noun's best stays."""
    known, count = np.zeros((sum(map(len, candidates.values())), 4)), 0
    numbered: dict[str, dict[int, Candidate]] = {}
    for noun, group in candidates.items():
        own = numbered.setdefault(noun, {})
        for candidate in sorted(group, key=lambda candidate: -candidate.fit):
            box = np.array(candidate.box)
            shared = _overlaps(known[:count], box)
            number = int(shared.argmax()) if count else -1
            if number < 0 or shared[number] < SAME:
                number, count = count, count + 1
                known[number] = box
            own.setdefault(number, candidate)
    return numbered


def _by_place(
    group: Mapping[int, Place | None], boxes: Mapping[int, Candidate], size: tuple[int, int]
) -> dict[int, int]:
    """Boxes of one noun for ids with places; ids without one take what fits best of the rest."""
    placed = {id: place for id, place in group.items() if place}
    ranked = sorted(boxes, key=lambda k: -boxes[k].fit)
    pool = [n for i, n in enumerate(ranked) if i < len(group) or boxes[n].fit >= LIKELY * boxes[ranked[0]].fit]
    upright = all(axis == 1 or where == 0.5 for axis, where in placed.values()) and len(placed) > 1
    worth = np.zeros((len(placed), len(pool)))
    for row, (axis, where) in enumerate(placed.values()):
        axis = 1 if upright else axis  # the middle of top and bottom
        centres = np.array([(boxes[k].box[axis] + boxes[k].box[axis + 2]) / 2 for k in pool])
        # Places are told among the boxes; where there are too few of them, in the picture.
        low, high = (0, size[1 - axis]) if len(pool) < max(2, len(group)) else (centres.min(), centres.max())
        worth[row] = 2 - np.abs((centres - low) / max(high - low, 1e-6) - where)
    chosen = {id: pool[k] for id, k in zip(placed, best_assignment(worth), strict=True) if k >= 0}
    rest = (k for k in ranked if k not in chosen.values())
    return chosen | dict(zip((id for id in group if id not in placed), rest, strict=False))
