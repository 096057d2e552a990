"""A scene before anything moves: its toys, where they are, and what each is set to do. Physics decides what happens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from .camera import Array, Camera
from .kinds import COLOURS, DARK_MARK, DARK_ON, HELD_OUT, LIGHT_MARK, SHAPES, SIZES
from .recipes import Recipe

GRAVITY = 7.0
VERBS = {  # what a toy can be set to do, and how often (of the toys with a choice)
    "stay": 0.05,
    "roll": 0.22,
    "slide": 0.17,
    "hop": 0.08,
    "jump": 0.06,
    "spin": 0.06,
    "tip": 0.07,
    "drop": 0.09,
    "bump": 0.32,
    "pass": 0.14,
}
ROLLERS = ("ball", "egg", "pill", "barbell", "can")
SLIDERS = ("block", "can", "top", "cross", "cone", "ring", "pin")
TIPPERS = ("can", "pin", "cross")
# Speeds (room units a second) that "slowly", no word and "quickly" stand for; wide gaps keep the words decisive.
PACES = {
    "roll": {"slowly": 0.30, "": 0.60, "quickly": 1.15},
    "slide": {"slowly": 0.46, "": 0.80, "quickly": 1.40},
    "spin": {"slowly": 2.7, "": 5.0, "quickly": 9.0},
}
WAYS = {"right": (1.0, 0.0), "left": (-1.0, 0.0), "away": (0.0, 1.0), "toward": (0.0, -1.0)}
TRAVELS = ("roll", "slide", "hop")
TRIES = 60


@dataclass(frozen=True)
class Act:
    """What a toy is set to do. way: in the picture. other: the toy it is aimed at or passes. edge: enter, leave.
    silent: it stays, and nobody speaks of it."""

    verb: str
    way: str = ""
    pace: str = ""
    other: int = -1
    edge: str = ""
    silent: bool = False


@dataclass(frozen=True)
class Toy:
    """size: room units of one unit of its shape. at: where its frame starts. lying: a can on its side."""

    shape: str
    colour: str
    size_word: str
    size: float
    shiny: bool
    mark: tuple[float, float, float]
    act: Act
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    lying: bool = False

    @property
    def rest(self) -> float:
        return self.size * (0.66 if self.lying else SHAPES[self.shape].rest)

    @property
    def reach(self) -> float:
        return self.size * (1.2 if self.lying else SHAPES[self.shape].reach)

    @property
    def rolls(self) -> bool:
        return self.lying or SHAPES[self.shape].rolls


@dataclass(frozen=True)
class Room:
    """Two walls that meet in a corner. yaw: how far the back one is turned, radians; distance: where it meets x = 0."""

    yaw: float
    distance: float

    @property
    def corner(self) -> float:
        """How far along the back wall the corner is: never so near that the side wall stands in a toy's way."""
        clear = (2.5 - (self.distance - 1.15) * math.tan(abs(self.yaw))) * math.cos(self.yaw)
        return max(0.8, clear)


@dataclass(frozen=True)
class Plan:
    toys: tuple[Toy, ...]
    camera: Camera
    room: Room


@dataclass(frozen=True)
class Kick:
    """A sudden velocity (room units a second, in the room's axes) and spin (radians a second) of a toy at a time."""

    toy: int
    time: float
    velocity: tuple[float, float, float]
    spin: tuple[float, float, float] = (0.0, 0.0, 0.0)


def draw_plan(
    recipe: Recipe, acts: list[Act], chance: np.random.Generator, aspect: float, seconds: float
) -> Plan | None:
    """A scene by lot in which each toy has its act; None if the toys found no place."""
    camera, number = _camera(chance, aspect), len(acts)
    room = Room(float(chance.uniform(-0.65, 0.65)), float(chance.uniform(2.5, 3.1)))
    toys = _distinct(recipe, chance, [_toy(chance, act) for act in acts])
    if toys is None:
        return None
    placed: dict[int, Toy] = {}
    # Whom others are aimed at must stand before they can be.
    for index in sorted(range(number), key=lambda k: acts[k].other >= 0):
        toy = _place(chance, toys[index], placed, camera, seconds)
        if toy is None:
            return None
        placed[index] = toy
    return Plan(tuple(placed[k] for k in range(number)), camera, room)


def draw_kicks(plan: Plan, chance: np.random.Generator) -> tuple[Kick, ...]:
    """The hidden parameters: exact moments, speeds and headings, within what the words leave open."""
    kicks = []
    for index, toy in enumerate(plan.toys):
        begin = float(chance.uniform(0.0, 0.12))
        vary, turn, one = float(chance.uniform(0.92, 1.08)), math.radians(chance.uniform(-4, 4)), chance.random()
        kicks += _kicks(plan, index, toy, begin, vary, turn, one)
    return tuple(kicks)


def _kicks(plan: Plan, index: int, toy: Toy, begin: float, vary: float, turn: float, one: float) -> list[Kick]:
    act, name = toy.act, SHAPES[toy.shape]
    if act.verb in ("stay", "drop"):
        return []
    if act.verb == "jump":
        rise = vary * 2.6
        return [Kick(index, begin, (0, 0, rise))]
    if act.verb == "spin":
        way = 1 if math.sin(57 * toy.yaw) > 0 else -1
        return [Kick(index, begin, (0, 0, 0), (0, 0, way * vary * PACES["spin"][act.pace]))]
    heading = _heading(plan.camera, toy, act.way)
    if act.other < 0:
        heading = _turned(heading, turn)
    else:  # what is aimed must hit: its speed alone is left to chance
        aim = np.array(plan.toys[act.other].at[:2]) - np.array(toy.at[:2])
        if act.verb == "bump":
            x, y = aim / np.linalg.norm(aim)
            heading = (float(x), float(y))
        heading = _turned(heading, turn * 0.25)
    x, y = heading
    if act.verb == "tip":
        height, base = toy.size * name.rest, toy.size * name.base
        need = math.sqrt(2 * GRAVITY * (math.hypot(height, base) - height) / (1.4 * height**2))
        rate = need * (1.25 + 0.15 * vary) + 0.4
        # It turns about the edge of its base, so its middle moves with it.
        return [Kick(index, begin, (x * rate * height, y * rate * height, rate * base), (-y * rate, x * rate, 0))]
    if act.verb == "hop":
        return [Kick(index, begin, (0.62 * vary * x, 0.62 * vary * y, 2.2))]
    speed = vary * PACES["roll" if toy.rolls else "slide"][act.pace]
    if act.edge == "enter":
        begin = 0.0
    if not toy.rolls:
        return [Kick(index, begin, (x * speed, y * speed, 0))]
    wheel = toy.size * (0.66 if toy.lying else name.wheel)
    return [Kick(index, begin, (x * speed, y * speed, 0), (-y * speed / wheel, x * speed / wheel, 0))]


def _camera(chance: np.random.Generator, aspect: float) -> Camera:
    pitch = float(chance.uniform(22, 38))
    fovy = float(chance.uniform(34, 44))
    # However strong the perspective, the middle of the floor shows the same 2.5 units of a square picture's width.
    distance = 1.25 / math.tan(math.radians(fovy) / 2)
    return Camera(distance, pitch, fovy, (0.0, float(chance.uniform(0.05, 0.2)), 0.25), aspect)


def draw_acts(recipe: Recipe, number: int, chance: np.random.Generator) -> list[Act]:
    """One act for each of `number` toys; a toy that is aimed at or passed is left standing."""
    if recipe.bystanders and number > 1:
        few = int(chance.integers(1, number))
        named = draw_acts(replace(recipe, bystanders=False), number - few, chance)
        return named + [Act("stay", silent=True)] * few
    allowed = recipe.verbs or tuple(VERBS)
    acts: list[Act] = []
    if recipe.entering:
        acts.append(_travel(chance, "roll" if chance.random() < 0.6 else "slide", edge="enter"))
    while len(acts) < number:
        choice = [v for v in allowed if number - len(acts) >= 2 or v not in ("bump", "pass")] or ["stay"]
        weights = np.array([VERBS[v] for v in choice])
        verb = str(chance.choice(choice, p=weights / weights.sum()))
        if verb in ("bump", "pass"):
            act = _travel(chance, verb)
            acts += [replace(act, other=len(acts) + 1), Act("stay")]
        elif verb in ("roll", "slide"):
            edge = str(chance.choice(["", "enter", "leave"], p=[0.60, 0.25, 0.15])) if not recipe.verbs else ""
            acts.append(_travel(chance, verb, "" if recipe.twins and edge == "enter" else edge))
        elif verb in ("hop", "tip"):
            ways = ["left", "right", "toward", "away"]
            acts.append(Act(verb, str(chance.choice(ways, p=[0.35, 0.35, 0.15, 0.15]))))
        else:
            pace = str(chance.choice(list(PACES["spin"]))) if verb == "spin" else ""
            acts.append(Act(verb, pace=pace))
    return acts


def _travel(chance: np.random.Generator, verb: str, edge: str = "") -> Act:
    sideways = verb == "pass" or edge != ""
    ways = [0.5, 0.5, 0, 0] if sideways else [0.32, 0.32, 0.18, 0.18]
    way = str(chance.choice(["left", "right", "toward", "away"], p=ways))
    paces = [0.3, 0.45, 0.25]
    if verb == "bump":
        paces = [0.0, 0.55, 0.45]
    elif edge or verb == "pass":
        paces = [0.0, 0.6, 0.4]
    elif way in ("toward", "away"):
        paces = [0.3, 0.7, 0.0]
    return Act(verb, way, str(chance.choice(["slowly", "", "quickly"], p=paces)), edge=edge)


def _toy(chance: np.random.Generator, act: Act) -> Toy:
    shapes = {"roll": ROLLERS, "slide": SLIDERS, "tip": TIPPERS}.get(act.verb)
    if shapes is None and act.verb in ("bump", "pass"):
        shapes = ROLLERS if chance.random() < 0.6 else SLIDERS
    shapes = shapes or tuple(SHAPES)
    shape = str(chance.choice(list(shapes)))
    colour = str(chance.choice(list(COLOURS)))
    word = str(chance.choice(list(SIZES), p=[0.28, 0.44, 0.28]))
    both = shape == "can" and act.verb in ("bump", "pass", "stay", "drop", "jump")
    lying = shape == "can" and (act.verb == "roll" or (both and chance.random() < 0.4))
    size = SIZES[word] * float(chance.uniform(0.96, 1.04))
    shiny = bool(chance.random() < 0.5)
    mark = DARK_MARK if colour in DARK_ON and chance.random() < 0.75 else LIGHT_MARK
    mark = DARK_MARK if colour in ("white", "yellow") else mark
    return Toy(shape, colour, word, size, shiny, mark, act, lying=lying)


def _distinct(recipe: Recipe, chance: np.random.Generator, toys: list[Toy]) -> list[Toy] | None:
    """The toys with colours such that no two share colour and shape, except twins, and held-out pairs stay held out."""
    toys = list(toys)
    if recipe.held_out:
        colours = {shape: colour for colour, shape in HELD_OUT}
        fitting = [k for k, toy in enumerate(toys) if toy.shape in colours]
        if not fitting:
            return None
        special = fitting[int(chance.integers(len(fitting)))]
        toys[special] = replace(toys[special], colour=colours[toys[special].shape])
    if recipe.twins:
        pairs = [(a, b) for a in range(len(toys)) for b in range(len(toys)) if a != b and _could_be(toys[b], toys[a])]
        if not pairs:
            return None
        first, second = pairs[int(chance.integers(len(pairs)))]
        same = {name: getattr(toys[first], name) for name in ("shape", "lying", "colour")}
        toys[second] = replace(toys[second], **same)
    kinds = [(toy.colour, toy.shape) for toy in toys]
    twice = len(kinds) - len(set(kinds))
    if twice != (1 if recipe.twins else 0):
        return None
    if not recipe.held_out and any(kind in HELD_OUT for kind in kinds):
        return None
    return toys


def _could_be(toy: Toy, model: Toy) -> bool:
    """Whether a toy could do its act with the shape of another."""
    shapes = {"roll": ROLLERS, "slide": SLIDERS, "tip": TIPPERS}.get(toy.act.verb, tuple(SHAPES))
    return model.shape in shapes and (toy.lying == model.lying or model.shape != "can")


def _place(chance: np.random.Generator, toy: Toy, placed: dict[int, Toy], camera: Camera, seconds: float) -> Toy | None:
    """The toy at a free place from which its motion can be seen; None if none was found."""
    for _ in range(TRIES):
        y = float(chance.uniform(-0.75, 1.15))
        x = float(chance.uniform(-1, 1)) * camera.half_width(y)
        if toy.act.other >= 0:
            x, y = _near(chance, toy, placed[toy.act.other])
        elif toy.act.edge == "enter":
            side = -1 if toy.act.way == "right" else 1
            x = side * (camera.half_width(y, toy.rest) + toy.reach * 1.12 + 0.04)
        z = toy.rest + (float(chance.uniform(0.7, 1.15)) if toy.act.verb == "drop" else 0.0)
        candidate = replace(toy, at=(x, y, z), yaw=float(chance.uniform(-math.pi, math.pi)))
        if toy.rolls and toy.act.way:
            hx, hy = _heading(camera, candidate, toy.act.way)
            if toy.act.verb == "bump":
                hx, hy = np.array(placed[toy.act.other].at[:2]) - np.array((x, y))
            # The axle lies across the way: the x axis of the body, turned by yaw.
            candidate = replace(candidate, yaw=math.atan2(hy, hx) + math.pi / 2)
        elif toy.shape in ("cross",) and toy.act.verb == "tip":
            hx, hy = _heading(camera, candidate, toy.act.way)
            candidate = replace(candidate, yaw=math.atan2(hy, hx) + math.pi / 2)
        if _free(candidate, placed.values()) and _in_view(candidate, camera, seconds):
            return candidate
    return None


def _near(chance: np.random.Generator, toy: Toy, other: Toy) -> tuple[float, float]:
    """Where a toy starts that is to bump into another, or to pass behind or in front of it."""
    step = np.array(WAYS[toy.act.way])
    across = np.array([-step[1], step[0]])
    at, touch = np.array(other.at[:2]), toy.reach + other.reach
    if toy.act.verb == "bump":
        x, y = at - step * (touch + float(chance.uniform(0.15, 0.6))) + across * float(chance.uniform(-0.12, 0.12))
        return float(x), float(y)
    behind = 1 if chance.random() < 0.6 else -1
    x = at[0] - step[0] * float(chance.uniform(0.45, 0.95))
    return float(x), float(at[1] + behind * (0.86 * touch + float(chance.uniform(0.02, 0.12))))


def _free(toy: Toy, others: Iterable[Toy]) -> bool:
    return all(math.dist(toy.at[:2], other.at[:2]) >= toy.reach + other.reach + 0.03 for other in others)


def _in_view(toy: Toy, camera: Camera, seconds: float) -> bool:
    """Whether the toy starts in the picture and, by a rough forecast, ends where its act says."""
    start, end = np.array(toy.at), _forecast(toy, camera, seconds)
    places, depths = camera.project(np.stack([start, end]))
    margin, last = max(toy.reach, toy.rest) * camera.focal / depths
    wide = bool(camera.inside(places[0], margin + 0.01))
    if toy.act.edge == "enter":
        return bool(camera.inside(places[1], last)) and bool(abs(places[1][0] - 0.5) < 0.42)
    if toy.act.edge == "leave":
        return wide and bool(abs(places[1][0] - 0.5) > 0.5 + 1.4 * last)
    return wide and bool(camera.inside(places[1], last * 0.9))


def _forecast(toy: Toy, camera: Camera, seconds: float) -> Array:
    start = np.array(toy.at)
    verb = toy.act.verb
    if verb == "drop":
        return np.array([*start[:2], toy.rest])
    if not toy.act.way or verb in ("tip", "bump"):
        return start
    x, y = _heading(camera, toy, toy.act.way)
    if verb == "hop":
        far = 0.55
    else:
        speed = PACES["roll" if toy.rolls else "slide"][toy.act.pace]
        slowing = 0.0 if toy.rolls else SLIDE * GRAVITY
        time = min(seconds - 0.06, speed / slowing if slowing else math.inf)
        far = speed * time - 0.5 * slowing * time**2
    return start + far * np.array([x, y, 0.0])


def _heading(camera: Camera, toy: Toy, way: str) -> tuple[float, float]:
    """The direction on the floor that is `way` in the picture: toward and away follow the line to the camera's foot."""
    x, y = WAYS[way]
    if x:
        return x, y
    aim = np.array(toy.at[:2]) - camera.position[:2]
    aim = aim / np.linalg.norm(aim)
    return (float(aim[0]), float(aim[1])) if way == "away" else (-float(aim[0]), -float(aim[1]))


def _turned(heading: tuple[float, float], angle: float) -> tuple[float, float]:
    x, y = heading
    c, s = math.cos(angle), math.sin(angle)
    return c * x - s * y, s * x + c * y


SLIDE = 0.03  # friction of a toy that slides; a floor for toys is well waxed


def friction_of(toy: Toy) -> float:
    """Sliding friction: high where a toy must roll, tip or hop, low where it slides or may be pushed."""
    if toy.act.verb == "spin":
        return 0.02
    if toy.rolls:
        return 0.8
    if toy.act.verb in ("tip", "hop", "drop", "jump"):
        return 0.7
    return 0.045 if toy.act.verb == "stay" else SLIDE
