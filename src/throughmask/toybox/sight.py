"""What the camera sees of each toy, without drawing: rays from the camera to points inside the toys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from .camera import Array
from .kinds import SHAPES, Part
from .opengl import import_mujoco
from .plan import Plan
from .world import States, matrix

if TYPE_CHECKING:
    import mujoco

POINTS = 56


@dataclass(frozen=True, eq=False)
class Sight:
    """places: T N 2, the toy's middle in the picture (x from 0 to 1, y down in the same unit), also out of the frame.

    seen: T N, the share of the toy that is in the frame and hidden by nothing. inside: T N, the share in the frame.
    hidden: T N N, the share of toy n (second axis) that toy m (third axis) hides. extent: T N, its half diagonal.
    seen_places: T N 2, the middle of what is seen (the middle itself where nothing is).
    """

    places: Array
    seen_places: Array
    seen: Array
    inside: Array
    hidden: Array
    extent: Array


def look(model: mujoco.MjModel, plan: Plan, states: States) -> Sight:
    """The picture of every frame, in shares."""
    mujoco = import_mujoco()
    data = mujoco.MjData(model)
    frames, number = states.positions.shape[:2]
    local = np.stack([toy.size * points_of(toy.shape) for toy in plan.toys])  # N P 3
    turned = np.einsum("tnij,npj->tnpi", matrix(states.rotations), local)
    points = states.positions[:, :, None] + turned  # T N P 3
    places, depth = plan.camera.project(points)
    inside = plan.camera.inside(places) & (depth > 0)
    eye = plan.camera.position
    owner = np.concatenate([model.geom_bodyid - 1, [-1]])
    rays = number * POINTS
    first = np.empty((frames, rays), np.int64)
    for frame in range(frames):
        state = data.qpos.reshape(number, 7)
        state[:, :3], state[:, 3:] = states.positions[frame], states.rotations[frame]
        mujoco.mj_kinematics(model, data)
        geoms, distance = np.full(rays, -1, np.int32), np.empty(rays)
        away = (points[frame] - eye).reshape(-1)
        mujoco.mj_multiRay(model, data, eye, away, None, 0, -1, geoms, distance, rays, 1e9)
        first[frame] = owner[geoms]
    hit = first.reshape(frames, number, POINTS, 1) == np.arange(number)
    hidden = (hit & inside[..., None]).mean(2)
    own = np.arange(number)
    seen_points = hit[:, own, :, own].transpose(1, 0, 2) & inside
    seen = seen_points.mean(-1)
    hidden[:, own, own] = 0
    middle = places.mean(2)
    weight = seen_points[..., None]
    seen_places = np.where(seen[..., None] > 0, (places * weight).sum(2) / np.maximum(weight.sum(2), 1), middle)
    extent = np.hypot(*np.moveaxis(np.ptp(places, axis=2), -1, 0)) / 2
    return Sight(middle, seen_places, seen, inside.mean(-1), hidden, extent)


@cache
def points_of(shape: str) -> Array:
    """Points spread through the solids of a shape, P 3, in units of its size."""
    parts = [part for part in SHAPES[shape].parts if part.solid]
    chance = np.random.Generator(np.random.PCG64(7))
    weights = np.array([_spread(part) for part in parts])
    # What a part adds to the silhouette, not to the volume, decides how many points it gets.
    counts = np.floor(POINTS * weights / weights.sum()).astype(int)
    counts[: POINTS - counts.sum()] += 1
    return np.concatenate([_inside(part, count, chance) for part, count in zip(parts, counts, strict=True)])


def _spread(part: Part) -> float:
    if part.points:
        return float(np.ptp([corner[0] for corner in part.points]) * np.ptp([c[2] for c in part.points])) / 2
    sizes = {"sphere": 3, "cylinder": 2, "capsule": 2}
    size = part.size if len(part.size) == 3 else (*part.size[:1] * 2, part.size[-1])
    assert part.type in sizes or len(part.size) == 3
    return float(2 * (size[0] * size[1] + size[1] * size[2] + size[0] * size[2]))


def _inside(part: Part, count: int, chance: np.random.Generator) -> Array:
    cube = chance.uniform(-1, 1, (40 * count + 40, 3))
    radius = np.hypot(cube[:, 0], cube[:, 1])
    if part.points:
        corners = np.array(part.points)
        low, high = corners[:, 2].min(), corners[:, 2].max()
        wide, narrow = (np.hypot(*corners[corners[:, 2] == z][0, :2]) for z in (low, high))
        share = (cube[:, 2] + 1) / 2
        across = wide + (narrow - wide) * share
        cube = np.c_[cube[:, :2] * wide, low + (high - low) * share]
        keep = np.hypot(cube[:, 0], cube[:, 1]) <= across * 0.98
        return cube[keep][:count] + np.array(part.at)
    if part.type == "box":
        keep, local = np.ones(len(cube), bool), cube * part.size
    elif part.type == "cylinder":
        keep, local = radius <= 1, cube * (part.size[0], part.size[0], part.size[1])
    elif part.type == "capsule":
        r, half = part.size
        local = cube * (r, r, half + r)
        over = np.maximum(np.abs(local[:, 2]) - half, 0)
        keep = np.hypot(np.hypot(local[:, 0], local[:, 1]), over) <= r
    else:
        keep = np.linalg.norm(cube, axis=1) <= 1
        local = cube * (part.size if len(part.size) == 3 else part.size * 3)
    return 0.98 * local[keep][:count] @ _turn(part.axis).T + np.array(part.at)


def _turn(axis: tuple[float, float, float]) -> Array:
    """A rotation that brings z to `axis`."""
    z = np.array(axis)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)
