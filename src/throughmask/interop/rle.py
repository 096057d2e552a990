"""COCO run-length masks: pycocotools' codec in numpy, for one mask at a time (the JSON file around them: sav.py).

An RLE holds the lengths of alternating runs of 0 and 1, column by column, starting with 0; "compressed" counts are the
same numbers as text, six bits a character (five of the number, one that says that more follow), as in pycocotools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import FormatError, InvalidValueError
from ..media import MAX_PIXELS

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Rle = Mapping[str, Any]

MAX_GROUPS = 7  # characters of one number: 35 bits, more than any count here


def encode(mask: npt.ArrayLike, *, compressed: bool = True) -> dict[str, Any]:
    """An H W mask (anything but zero is set) as {"size": [H, W], "counts": text, or a list unless `compressed`}."""
    array = np.asarray(mask) != 0
    if array.ndim != 2 or 0 in array.shape:
        raise InvalidValueError("a mask must be H W, not empty", seen=array.shape)
    flat = array.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).astype(np.int64)
    if flat[0]:  # the first run is always of zeros
        counts = np.concatenate([[0], counts])
    return {"size": list(array.shape), "counts": compress(counts) if compressed else counts.tolist()}


def decode(rle: Rle) -> Mask:
    """The H W mask of an RLE. Raises FormatError if it is not one."""
    height, width = size_of(rle)
    counts = counts_of(rle)
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def area(rle: Rle) -> int:
    """Number of pixels that are set, without decoding. Raises FormatError if it is not an RLE."""
    return int(counts_of(rle)[1::2].sum())


def box(rle: Rle) -> tuple[int, int, int, int]:
    """Bounding box (left, top, width, height) without decoding, zeros if nothing is set. Raises FormatError."""
    height, _ = size_of(rle)
    counts = counts_of(rle)
    ends = np.cumsum(counts)
    runs = np.flatnonzero(counts[1::2]) * 2 + 1
    if not len(runs):
        return 0, 0, 0, 0
    first, last = ends[runs - 1], ends[runs] - 1
    left, right = int(first[0] // height), int(last[-1] // height)
    # A run that goes on into the next column holds the last row of one and the first row of the other.
    across = (first // height != last // height).any()
    top, bottom = (0, height - 1) if across else (int((first % height).min()), int((last % height).max()))
    return left, top, right - left + 1, bottom - top + 1


def size_of(rle: Rle) -> tuple[int, int]:
    """Height and width. Raises FormatError if the value is not an RLE, or its size is absurd."""
    if not isinstance(rle, Mapping) or "size" not in rle or "counts" not in rle:
        raise FormatError('an RLE must be an object with "size" and "counts"', seen=rle)
    size = rle["size"]
    whole = isinstance(size, list | tuple) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)
    if not whole or size[0] * size[1] > MAX_PIXELS:
        raise FormatError(f"an RLE's size must be [height, width], at most {MAX_PIXELS} pixels", seen=size)
    return size[0], size[1]


def counts_of(rle: Rle) -> Counts:
    """The run lengths: int64, checked to be whole, not negative, and to fill the frame. Raises FormatError."""
    height, width = size_of(rle)
    raw, limit = rle["counts"], height * width
    if isinstance(raw, str | bytes):
        counts = decompress(raw, limit)
    elif isinstance(raw, list):
        # `type(...) is int` keeps out booleans, floats and NaN; the range is checked before numpy could overflow.
        bad = next((n for n in raw if type(n) is not int or not 0 <= n <= limit), None)
        if bad is not None:
            raise FormatError(f"an RLE's counts must be whole numbers from 0 to {limit}", seen=bad)
        counts = np.array(raw, np.int64)
    else:
        raise FormatError("an RLE's counts must be text or a list", seen=raw)
    # Counts are at most `limit`, itself at most MAX_PIXELS, and a file has fewer than 2**36 of them: the sum is exact.
    if int(counts.sum()) != limit:
        raise FormatError("an RLE's counts do not fill its frame", seen=f"{int(counts.sum())} of {limit} pixels")
    return counts


def compress(counts: Counts) -> str:
    """Run lengths (int64) as text: from the fourth on as differences to the one before the last."""
    numbers = counts.astype(np.int64)
    numbers[3:] -= counts[1:-2]
    text = np.zeros((len(numbers), MAX_GROUPS), np.uint8)
    length = np.zeros(len(numbers), np.int64)
    going = np.ones(len(numbers), bool)
    for k in range(MAX_GROUPS):
        bits = numbers & 31
        numbers >>= 5
        # The last group's high bit is the sign: a number ends where nothing but copies of that bit is left.
        more = going & np.where(bits & 16, numbers != -1, numbers != 0)
        text[going, k] = (bits + 32 * more + 48)[going]
        length += going
        going = more
    return text[np.arange(MAX_GROUPS) < length[:, None]].tobytes().decode("ascii")


def decompress(text: str | bytes, limit: int) -> Counts:
    """The inverse of `compress`; `limit` is the largest count that makes sense. Raises FormatError."""
    problem = "an RLE's compressed counts are damaged"
    try:
        codes = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise FormatError(problem, seen=text) from None
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise FormatError(problem, seen=text)
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    if int((last - first).max()) >= MAX_GROUPS:
        raise FormatError(problem, seen=text)
    place = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((codes & 31) << (5 * place), first)
    numbers -= np.where(codes[last] & 16, 1 << (5 * (place[last] + 1)), 0)  # two's complement of that many bits
    counts = numbers.copy()
    # Beyond the third each count is a difference to the one two places before, which is a running sum of every other.
    counts[1::2] = np.cumsum(numbers[1::2])
    counts[2::2] = np.cumsum(numbers[2::2])
    if int(counts.min()) < 0 or int(counts.max()) > limit:
        raise FormatError(problem, seen=text, fix=f"counts must be from 0 to {limit}")
    return counts
