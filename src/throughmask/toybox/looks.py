"""What a room looks like: floor and wall patterns, light; chosen by lot, painted with numpy."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Colour = tuple[float, float, float]

# Soft, greyish colours: the toys are the vivid things in a picture.
WOODS = ((0.72, 0.54, 0.36), (0.60, 0.44, 0.30), (0.80, 0.66, 0.48), (0.50, 0.37, 0.28))
SOFT = (
    (0.70, 0.72, 0.70),
    (0.62, 0.68, 0.72),
    (0.74, 0.68, 0.60),
    (0.60, 0.66, 0.60),
    (0.70, 0.64, 0.68),
    (0.55, 0.57, 0.60),
)
WALLS = (
    (0.86, 0.84, 0.78),
    (0.74, 0.82, 0.86),
    (0.80, 0.86, 0.78),
    (0.90, 0.82, 0.74),
    (0.80, 0.76, 0.84),
    (0.66, 0.72, 0.76),
    (0.88, 0.78, 0.76),
)
FLOORS = ("planks", "tiles", "carpet", "checks", "plain", "parquet")
WALL_PATTERNS = ("plain", "stripes", "panels", "dots")
TEXTURE = 256


@dataclass(frozen=True)
class Looks:
    """Patterns, colours and light; light is where it comes from (x, y; z is 1)."""

    floor: str
    floor_colour: Colour
    wall: str
    wall_colour: Colour
    light: tuple[float, float]
    brightness: float
    warmth: float
    seed: int


def draw_looks(chance: np.random.Generator, yaw: float) -> Looks:
    """A room's looks by lot; `yaw` is how far its back wall is turned, in radians."""
    floor = str(chance.choice(FLOORS))
    colours = WOODS if floor in ("planks", "parquet") else SOFT
    # From the front and from the open side, so that no wall stands in the light.
    side = -1 if yaw >= 0 else 1
    light = (side * float(chance.uniform(-0.05, 1.0)), float(chance.uniform(-0.9, -0.35)))
    return Looks(
        floor,
        colours[int(chance.integers(len(colours)))],
        str(chance.choice(WALL_PATTERNS, p=[0.35, 0.25, 0.25, 0.15])),
        WALLS[int(chance.integers(len(WALLS)))],
        light,
        float(chance.uniform(0.9, 1.08)),
        float(chance.uniform(-0.05, 0.08)),
        int(chance.integers(2**31)),
    )


def floor_pixels(looks: Looks) -> npt.NDArray[np.uint8]:
    """One tile of the floor, which repeats seamlessly: uint8, H W 3."""
    chance = np.random.Generator(np.random.PCG64(looks.seed))
    v, u = np.mgrid[:TEXTURE, :TEXTURE] / TEXTURE
    shade = np.ones((TEXTURE, TEXTURE))
    grain = _smooth(chance, TEXTURE, 2)
    if looks.floor == "planks":
        row = (v * 6).astype(int)
        shift = chance.random(6)[row]
        board = (np.floor((u + shift) * 2) % 2).astype(int)
        shade *= 0.86 + 0.24 * chance.random((6, 2))[row, board]
        streaks = _stretched(chance, 24)
        shade *= 0.95 + 0.1 * streaks
        gap = (np.abs((v * 6) % 1) < 0.035) | (np.abs(((u + shift) * 2) % 1) < 0.012)
        shade[gap] *= 0.72
    elif looks.floor == "parquet":
        cell = ((np.floor(u * 4) + np.floor(v * 4)) % 2).astype(bool)
        along = np.where(cell, v, u) * 16
        strip = along.astype(int) % 16
        shade *= 0.88 + 0.2 * chance.random((2, 16))[cell.astype(int), strip]
        shade[(along % 1) < 0.07] *= 0.84
        shade[((u * 4) % 1 < 0.02) | ((v * 4) % 1 < 0.02)] *= 0.8
    elif looks.floor == "tiles":
        cells = chance.random((4, 4))[(v * 4).astype(int), (u * 4).astype(int)]
        shade *= 0.97 + 0.08 * cells
        shade[((u * 4) % 1 < 0.035) | ((v * 4) % 1 < 0.035)] *= 0.78
    elif looks.floor == "checks":
        shade *= np.where((np.floor(u * 4) + np.floor(v * 4)) % 2, 1.08, 0.90)
    elif looks.floor == "carpet":
        shade *= 0.88 + 0.24 * chance.random((TEXTURE, TEXTURE))
    shade *= 0.975 + 0.05 * grain
    return _paint(looks.floor_colour, shade)


def wall_pixels(looks: Looks) -> npt.NDArray[np.uint8]:
    """One tile of the wall: uint8, H W 3."""
    chance = np.random.Generator(np.random.PCG64(looks.seed + 1))
    v, u = np.mgrid[:TEXTURE, :TEXTURE] / TEXTURE
    shade = np.ones((TEXTURE, TEXTURE))
    if looks.wall == "stripes":
        shade = np.where((u * 6) % 1 < 0.5, 1.0, 0.93)
    elif looks.wall == "panels":
        edge = (u * 3) % 1
        shade = 1 - 0.10 * ((edge < 0.02) | (edge > 0.98)) - 0.05 * ((edge > 0.02) & (edge < 0.04))
    elif looks.wall == "dots":
        a, b = (u * 6) % 1 - 0.5, (v * 6) % 1 - 0.5
        shade = np.where(np.hypot(a, b) < 0.16, 0.92, 1.0)
    shade = shade * (0.98 + 0.04 * _smooth(chance, TEXTURE, 4))
    return _paint(looks.wall_colour, shade)


def texture_file(pixels: npt.NDArray[np.uint8]) -> bytes:
    """MuJoCo's own texture format: width and height, then RGB bytes."""
    return struct.pack("ii", pixels.shape[1], pixels.shape[0]) + np.ascontiguousarray(pixels).tobytes()


def _paint(colour: Colour, shade: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.rint(255 * (np.array(colour) * shade[..., None]).clip(0, 1)).astype(np.uint8)


def _smooth(chance: np.random.Generator, size: int, passes: int) -> npt.NDArray[np.float64]:
    """Noise from 0 to 1 whose neighbours are alike, seamless."""
    noise = chance.random((size // 8, size // 8)).repeat(8, 0).repeat(8, 1)
    for _ in range(passes):
        for axis in (0, 1):
            noise = (noise + np.roll(noise, 4, axis) + np.roll(noise, -4, axis)) / 3
    return noise


def _stretched(chance: np.random.Generator, rows: int) -> npt.NDArray[np.float64]:
    """Grain along u: noise from 0 to 1 that changes fast across the boards and slowly along them."""
    noise = chance.random((TEXTURE, 8)).repeat(TEXTURE // 8, 1)
    for shift in (8, 16):
        noise = (noise + np.roll(noise, shift, 1) + np.roll(noise, -shift, 1)) / 3
    return noise
