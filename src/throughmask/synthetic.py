"""Samples of moving shapes with exact masks and true captions, for tests and documentation; nothing is downloaded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InvalidValueError
from .types import Labels, MaskTrajectory, Origin, Pixels, Sample, Scene, SceneObject, Video, exact_fps

Grid = npt.NDArray[np.float64]

MAX_OBJECTS = 12
COLOURS = {
    "red": (214, 48, 49),
    "blue": (45, 104, 196),
    "yellow": (241, 196, 15),
    "green": (46, 160, 84),
    "purple": (136, 78, 190),
    "orange": (235, 127, 32),
    "pink": (240, 120, 170),
    "white": (238, 240, 242),
}
SHAPES = ("ball", "block", "triangle", "ring", "star", "diamond", "hexagon", "cross")
ROUND = ("ball", "ring")  # these roll
SKIES = ((176, 206, 230), (206, 224, 206), (230, 214, 196), (200, 198, 226))
FLOORS = ((150, 158, 170), (176, 160, 140), (140, 164, 158), (168, 150, 166))
DIRECTIONS = {"to the right": (0, 1), "to the left": (0, -1), "up": (-1, 0), "down": (1, 0)}


@dataclass(frozen=True)
class _Thing:
    """A shape, its colour, its radius in pixels, where its centre is in every frame (T 2: y, x), and what it does."""

    colour: str
    shape: str
    radius: float
    path: Grid
    does: str  # "rolls to the right"
    doing: str  # "rolling to the right"

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


def make_sample(
    seed: int,
    *,
    num_objects: int = 2,
    size: tuple[int, int] = (128, 128),
    frames: int = 25,
    fps: object = 12,
    entering: bool = False,
) -> Sample:
    """A Sample of `num_objects` moving shapes, the same one for the same arguments; `size` is height and width.

    Ids follow the order in which the prompt names the objects; who is in front is drawn by lot. No two objects share
    both colour and shape. With `entering`, one object is not in frame 0 and comes in from a side.
    Raises InvalidValueError for arguments out of range, and for a size too small for that many objects.
    """
    _check(seed, num_objects, size, frames, entering)
    random = np.random.default_rng(seed)
    things = _things(random, num_objects, size, frames, entering)
    depth = [int(id) for id in random.permutation(np.arange(1, num_objects + 1))]
    background = _background(random, size)
    drawn = [_draw(background, things, depth, frame) for frame in range(frames)]
    pixels, labels = np.stack([frame for frame, _ in drawn]), np.stack([masks for _, masks in drawn])
    shapes = Counter(thing.shape for thing in things)
    # A name keeps its attribute exactly when two objects would otherwise share it.
    short = [thing.shape if shapes[thing.shape] == 1 else thing.name for thing in things]
    scene = Scene(
        pixels[0],
        labels[0],
        _sentence([f"{_a(thing.name)} {thing.does}" for thing in things], "an empty floor"),
        _sentence([f"the {name} {thing.does}" for name, thing in zip(short, things, strict=True)], "nothing moves"),
        tuple(SceneObject(id, t.name, f"{_a(t.name)} {t.doing}") for id, t in enumerate(things, 1)),
    )
    rate = exact_fps(fps)
    origin = Origin(f"throughmask.synthetic, seed {seed}", "CC0-1.0")
    return Sample(scene, MaskTrajectory(labels, rate), Video(pixels, rate), origin)


def _check(seed: int, num_objects: int, size: tuple[int, int], frames: int, entering: bool) -> None:
    for what, value, least, most in (
        ("a seed", seed, 0, 2**63),
        ("the number of objects", num_objects, 0, MAX_OBJECTS),
        ("the number of frames", frames, 1, 10_000),
        ("the height", size[0], 16, 4096),
        ("the width", size[1], 16, 4096),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
            raise InvalidValueError(f"{what} must be a whole number from {least} to {most}", seen=value)
    if _radius(num_objects, size) < 2.5:
        raise InvalidValueError(f"{num_objects} objects need a larger picture", seen=f"{size[0]}×{size[1]}")
    if entering and (num_objects < 1 or frames < 2):
        seen = f"{num_objects} objects, {frames} frames"
        raise InvalidValueError("an entering object needs at least one object and two frames", seen=seen)


def _things(
    random: np.random.Generator, num_objects: int, size: tuple[int, int], frames: int, entering: bool
) -> list[_Thing]:
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    picks = [kinds[k] for k in random.permutation(len(kinds))[:num_objects]]
    radius = _radius(num_objects, size)
    rows, cols = _grid(num_objects, size)
    cells = random.permutation(rows * cols)[:num_objects]
    who_enters = int(random.integers(num_objects)) if entering else -1
    things = []
    for k, (colour, shape) in enumerate(picks):
        cell = np.array([cells[k] // cols + 0.5, cells[k] % cols + 0.5])
        start = cell * np.array(size) / np.array([rows, cols])
        start = np.clip(start, radius + 1, np.array(size) - radius - 2)
        plan = _entry if k == who_enters else _motion
        path, does, doing = plan(random, shape, start, radius, size, frames)
        things.append(_Thing(colour, shape, radius, path, does, doing))
    return things


def _grid(num_objects: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of starting places, nearly square cells, at least one for each object."""
    wide = max(num_objects, 1) * size[1] / size[0]
    cols = min(max(num_objects, 1), max(1, round(wide**0.5)))
    return -(-max(num_objects, 1) // cols), cols


def _radius(num_objects: int, size: tuple[int, int]) -> float:
    rows, cols = _grid(num_objects, size)
    return min(0.17 * min(size), 0.42 * size[0] / rows, 0.42 * size[1] / cols)


def _motion(
    random: np.random.Generator, shape: str, start: Grid, radius: float, size: tuple[int, int], frames: int
) -> tuple[Grid, str, str]:
    """A path that stays inside the frame (T 2), and what it is called: third person, then participle."""
    time = np.linspace(0, 1, frames)[:, None]
    low, high = np.full(2, radius + 1), np.array(size) - radius - 2
    room = {
        name: float(((high - start) if sum(step) > 0 else (start - low)) @ np.abs(step))
        for name, step in DIRECTIONS.items()
    }
    ways = [name for name in room if room[name] >= max(3.0, 0.12 * min(size))]
    kind = str(random.choice(["straight", "straight", "accelerating", "rebounding", "hopping", "still"]))
    if frames < 2 or not ways or kind == "still":
        return np.repeat(start[None], frames, 0), "rests", "resting"
    way = ways[int(random.integers(len(ways)))]
    step = np.array(DIRECTIONS[way], float)
    does, doing = _verb(shape, way)
    if kind == "hopping" and frames >= 12 and room["up"] >= radius:
        height = min(room["up"], 2.0 * radius)
        hops = np.abs(np.sin(2 * np.pi * time)) * height
        return start - hops * np.array([1.0, 0.0]), "hops up and down", "hopping up and down"
    if kind == "rebounding" and frames >= 9:
        there = room[way]
        back = min(there, float(random.uniform(0.5, 0.9)) * there)
        along = (there + back) * time
        along = np.where(along > there, 2 * there - along, along)
        return start + along * step, f"{does} {way} and bounces back", f"{doing} {way} and bouncing back"
    travel = room[way] * float(random.uniform(0.7, 1.0))
    if kind == "accelerating" and frames >= 5:
        return start + travel * time**2 * step, f"{does} ever faster {way}", f"{doing} ever faster {way}"
    return start + travel * time * step, f"{does} {way}", f"{doing} {way}"


def _entry(
    random: np.random.Generator, shape: str, start: Grid, radius: float, size: tuple[int, int], frames: int
) -> tuple[Grid, str, str]:
    """A path from outside the frame, left or right, to the place `start`."""
    from_left = bool(random.integers(2))
    outside = np.array([start[0], -radius - 2 if from_left else size[1] + radius + 1])
    does, doing = _verb(shape, "to the right")
    side = "in from the left" if from_left else "in from the right"
    path = outside + np.linspace(0, 1, frames)[:, None] * (start - outside)
    return path, f"{does} {side}", f"{doing} {side}"


def _verb(shape: str, way: str) -> tuple[str, str]:
    if way == "up":
        return "floats", "floating"
    if way == "down":
        return "drops", "dropping"
    return ("rolls", "rolling") if shape in ROUND else ("slides", "sliding")


def _background(random: np.random.Generator, size: tuple[int, int]) -> Grid:
    """A soft wall above a tiled floor that fades into the distance (H W 3, 0..255)."""
    wall, floor = (np.array(c[int(random.integers(len(c)))], float) for c in (SKIES, FLOORS))
    height, width = size
    y, x = np.mgrid[:height, :width].astype(float)
    horizon = 0.58 * height
    near = ((y - horizon) / (height - horizon)).clip(0, 1)
    far = 1 / (near + 0.12)
    tiles = np.sign(np.sin(far * 9) * np.sin((x - width / 2) / width * far * 14))
    below = floor * (0.86 + 0.14 * near + 0.07 * tiles * near)[..., None]
    above = wall * (1.06 - 0.16 * (y / height))[..., None]
    blend = ((y - horizon) / 2 + 0.5).clip(0, 1)[..., None]
    light = 1.05 - 0.18 * np.hypot(y / height - 0.35, x / width - 0.4)
    picture: Grid = (above * (1 - blend) + below * blend) * light[..., None]
    return picture


def _draw(background: Grid, things: list[_Thing], depth: list[int], frame: int) -> tuple[Pixels, Labels]:
    """Pixels (H W 3) and labels (H W) of one frame; `depth` lists the ids from the farthest to the nearest."""
    picture = background.copy()
    labels = np.zeros(picture.shape[:2], np.uint8)
    for thing in things:  # shadows first: they fall on the background only
        window, u, v = _around(thing, frame, 3.0, labels.shape)
        shadow = np.exp(-2.2 * ((u - 0.15) ** 2 + 9 * (v - 1) ** 2))
        picture[window] *= 1 - 0.32 * shadow[..., None]
    for id in depth:
        thing = things[id - 1]
        window, u, v = _around(thing, frame, 1.1, labels.shape)
        rolled = (thing.path[frame, 1] - thing.path[0, 1]) / thing.radius if thing.shape in ROUND else 0.0
        edge = _outline(thing.shape, u, v)
        mask = edge <= 1
        labels[window][mask] = id
        picture[window][mask] = _shade(thing, u, v, edge, rolled)[mask]
    return np.rint(picture.clip(0, 255)).astype(np.uint8), labels


def _around(thing: _Thing, frame: int, reach: float, size: tuple[int, ...]) -> tuple[tuple[slice, slice], Grid, Grid]:
    """The part of the picture within `reach` radii of a thing, and its coordinates u (right) and v (down) in radii."""
    y, x = (float(value) for value in thing.path[frame])
    far = reach * thing.radius + 1
    rows, cols = (
        slice(max(0, int(c - far)), max(0, min(n, int(c + far) + 1))) for c, n in zip((y, x), size, strict=True)
    )
    v, u = np.mgrid[rows, cols].astype(float)
    return (rows, cols), (u - x) / thing.radius, (v - y) / thing.radius


def _outline(shape: str, u: Grid, v: Grid) -> Grid:
    """How far each point is towards the shape's outline: 1 on it, less inside; u to the right, v down, radius 1."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    if shape == "ball":
        return radius
    if shape == "block":
        return np.maximum(np.abs(u), np.abs(v)) / 0.84
    if shape == "triangle":
        return np.maximum(v / 0.7, (np.abs(u) * 1.72 - v) / 0.9)
    if shape == "ring":
        return np.abs(radius - 0.7) / 0.3
    if shape == "diamond":
        return np.abs(u) / 0.78 + np.abs(v)
    if shape == "hexagon":
        return np.maximum(np.abs(v), np.abs(u) * 0.866 + np.abs(v) * 0.5) / 0.86
    if shape == "cross":
        return np.minimum(
            np.maximum(np.abs(u) / 0.36, np.abs(v) / 0.95), np.maximum(np.abs(u) / 0.95, np.abs(v) / 0.36)
        )
    fifth = 2 * np.pi / 5  # a star: straight lines from a tip at radius 1 to a notch at 0.45
    turn = np.abs((angle + np.pi / 2 + fifth / 2) % fifth - fifth / 2)
    notch = np.array([0.45 * np.cos(fifth / 2), 0.45 * np.sin(fifth / 2)])
    along, across = radius * np.cos(turn), radius * np.sin(turn)
    star: Grid = (along * notch[1] + across * (1 - notch[0])) / notch[1]
    return star


def _shade(thing: _Thing, u: Grid, v: Grid, edge: Grid, rolled: float) -> Grid:
    """Lit from the upper left, darker towards the outline, with a highlight; round things carry a mark that turns."""
    light = 1.02 - 0.22 * (u + v) - 0.28 * edge.clip(0, 1) ** 4
    colour = np.array(COLOURS[thing.colour], float) * light[..., None]
    if thing.shape in ROUND:
        across = v * np.cos(rolled) - u * np.sin(rolled)
        colour += 46 * (1 / (1 + np.exp((np.abs(across) - 0.16) * 40)))[..., None]
    colour += 70 * np.exp(-14 * ((u + 0.36) ** 2 + (v + 0.4) ** 2))[..., None]
    return colour


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _sentence(parts: list[str], nothing: str) -> str:
    """ "one, two, and three." with a capital."""
    text = nothing if not parts else parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f", and {parts[-1]}"
    return text[0].upper() + text[1:] + "."
