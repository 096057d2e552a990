"""What toys are made of: eight named colours and eleven shapes, each a few solids with marks that show how it turns.

Lengths are in units of the toy's size. A body's frame has its z axis up when the toy stands, and the floor at -`rest`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InvalidValueError

COLOURS = {
    "red": (0.80, 0.07, 0.09),
    "orange": (0.96, 0.42, 0.03),
    "yellow": (0.97, 0.80, 0.10),
    "green": (0.10, 0.58, 0.22),
    "blue": (0.10, 0.30, 0.84),
    "purple": (0.45, 0.16, 0.66),
    "pink": (0.97, 0.47, 0.66),
    "white": (0.93, 0.93, 0.91),
}
# What a mark may be painted with: it must stand out from the toy without giving it a second named colour.
LIGHT_MARK, DARK_MARK = (0.97, 0.96, 0.93), (0.10, 0.10, 0.12)
DARK_ON = ("yellow", "white", "pink", "orange")


@dataclass(frozen=True)
class Part:
    """One solid of a toy: MuJoCo's type and size; `axis` is where its z axis points; `points` are a mesh's corners."""

    type: str
    size: tuple[float, ...] = ()
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    mark: bool = False
    solid: bool = True  # takes part in the physics; marks never do
    points: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Shape:
    """A kind of toy. `rest`: height of its frame above the floor. `reach`: its largest radius seen from above.

    axle: where its axis of rolling points while it rests (None: any way, a ball); without `rolls` it slides instead.
    base: radius of what it stands on, for the toys that can tip over. round: symmetric about the vertical axis.
    """

    parts: tuple[Part, ...]
    rest: float
    reach: float
    top: float
    rolls: bool = False
    axle: tuple[float, float, float] | None = None
    wheel: float = 1.0  # radius of rolling
    base: float = 0.0


def _mark(type: str, *size: float, at: tuple[float, float, float] = (0, 0, 0), axis: str = "z") -> Part:
    way = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}[axis]
    return Part(type, size, at, way, mark=True, solid=False)


def _circle(radius: float, height: float, corners: int = 28) -> tuple[tuple[float, float, float], ...]:
    turn = 2 * math.pi / corners
    return tuple((radius * math.cos(k * turn), radius * math.sin(k * turn), height) for k in range(corners))


def _ring() -> Shape:
    corners, radius, thick = 14, 0.78, 0.27
    turn = 2 * math.pi / corners
    long = radius * math.tan(turn / 2)
    parts = []
    for k in range(corners):
        at = (radius * math.cos(k * turn), radius * math.sin(k * turn), 0.0)
        axis = (-math.sin(k * turn), math.cos(k * turn), 0.0)
        parts.append(Part("capsule", (thick, long), at, axis))
        if k in (0, 5, 9):
            parts.append(Part("cylinder", (thick * 1.03, long * 0.8), at, axis, mark=True, solid=False))
    return Shape(tuple(parts), thick, 1.05, thick)


SHAPES = {
    "ball": Shape(
        (
            Part("sphere", (1.0,)),
            _mark("cylinder", 1.006, 0.15),
            _mark("sphere", 0.4, at=(0, 0, 0.635)),
            _mark("sphere", 0.4, at=(0, 0, -0.635)),
        ),
        rest=1.0,
        reach=1.0,
        top=1.0,
        rolls=True,
    ),
    "block": Shape(
        (
            Part("box", (0.8, 0.8, 0.8)),
            _mark("box", 0.81, 0.2, 0.81),
            _mark("cylinder", 0.4, 0.81, axis="y"),
        ),
        rest=0.8,
        reach=1.13,
        top=0.8,
    ),
    "can": Shape(
        (
            Part("cylinder", (0.66, 1.0)),
            _mark("cylinder", 0.675, 0.3),
            _mark("box", 0.5, 0.12, 1.01),
            _mark("box", 0.1, 0.685, 0.75),
        ),
        rest=1.0,
        reach=0.68,
        top=1.0,
        base=0.66,
    ),
    "pin": Shape(
        (
            Part("cylinder", (0.42, 0.12), (0, 0, -1.08)),
            Part("ellipsoid", (0.56, 0.56, 0.85), (0, 0, -0.4)),
            Part("capsule", (0.24, 0.35), (0, 0, 0.5)),
            Part("sphere", (0.36,), (0, 0, 0.92)),
            _mark("cylinder", 0.28, 0.14, at=(0, 0, 0.48)),
            _mark("ellipsoid", 0.14, 0.575, 0.7, at=(0, 0, -0.4)),
        ),
        rest=1.2,
        reach=0.57,
        top=1.28,
        base=0.42,
    ),
    "egg": Shape(
        (
            Part("ellipsoid", (1.12, 0.8, 0.8)),
            _mark("cylinder", 0.79, 0.13, at=(0.3, 0, 0), axis="x"),
            _mark("ellipsoid", 1.13, 0.12, 0.81),
        ),
        rest=0.8,
        reach=1.12,
        top=0.8,
        rolls=True,
        axle=(1.0, 0.0, 0.0),
        wheel=0.8,
    ),
    "pill": Shape(
        (
            Part("capsule", (0.6, 0.62), axis=(1.0, 0.0, 0.0)),
            _mark("cylinder", 0.61, 0.17, axis="x"),
            _mark("box", 0.62, 0.1, 0.608),
        ),
        rest=0.6,
        reach=1.22,
        top=0.6,
        rolls=True,
        axle=(1.0, 0.0, 0.0),
        wheel=0.6,
    ),
    "barbell": Shape(
        (
            Part("sphere", (0.58,), (0.82, 0, 0)),
            Part("sphere", (0.58,), (-0.82, 0, 0)),
            Part("cylinder", (0.2, 0.6), axis=(1.0, 0.0, 0.0)),
            _mark("cylinder", 0.587, 0.12, at=(0.82, 0, 0), axis="y"),
            _mark("cylinder", 0.587, 0.12, at=(-0.82, 0, 0), axis="y"),
            _mark("cylinder", 0.21, 0.1, axis="x"),
        ),
        rest=0.58,
        reach=1.4,
        top=0.58,
        rolls=True,
        axle=(1.0, 0.0, 0.0),
        wheel=0.58,
    ),
    "top": Shape(
        (
            Part("ellipsoid", (0.95, 0.95, 0.5)),
            Part("capsule", (0.14, 0.35), (0, 0, 0.6)),
            Part("sphere", (0.22,), (0, 0, 1.0)),
            _mark("ellipsoid", 0.955, 0.24, 0.507),
            _mark("sphere", 0.23, at=(0, 0, 1.0)),
        ),
        rest=0.5,
        reach=0.95,
        top=1.22,
    ),
    "cross": Shape(
        (
            Part("box", (0.32, 0.32, 1.0)),
            Part("box", (1.0, 0.32, 0.32)),
            _mark("box", 0.33, 0.335, 0.33),
            _mark("box", 0.12, 0.335, 1.005),
        ),
        rest=1.0,
        reach=1.05,
        top=1.0,
        base=0.32,
    ),
    "cone": Shape(
        (
            Part("mesh", points=(*_circle(0.9, -0.75), *_circle(0.08, 0.95, 12))),
            Part("mesh", points=(*_circle(0.665, -0.25), *_circle(0.505, 0.1)), mark=True, solid=False),
            _mark("box", 0.93, 0.1, 0.06, at=(0, 0, -0.69)),
            _mark("box", 0.1, 0.93, 0.06, at=(0, 0, -0.69)),
        ),
        rest=0.75,
        reach=0.95,
        top=0.95,
    ),
    "ring": _ring(),
}

SIZES = {"small": 0.165, "": 0.205, "big": 0.255}

# Never seen in training (`recipes.py`): every colour and every shape of these pairs is seen, with others.
HELD_OUT = tuple(zip(COLOURS, ("ring", "cone", "pill", "ball", "cross", "block", "can", "top"), strict=True))


def named_shape(name: str) -> Shape:
    """Raises InvalidValueError for a shape that is not known."""
    if name not in SHAPES:
        raise InvalidValueError("there is no toy of that shape", seen=name, fix=f"known: {', '.join(SHAPES)}")
    return SHAPES[name]
