"""What the physics makes of a scene: where every toy is in every frame, and what it touched."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .camera import Array
from .mjcf import FLOOR, WALLS
from .opengl import import_mujoco
from .plan import Kick, Plan

if TYPE_CHECKING:
    import mujoco

log = logging.getLogger(__name__)

STEPS_PER_SECOND = 180
FAILURES = (4, 5, 6)  # mjWARN_BADQPOS, BADQVEL, BADQACC: MuJoCo starts over after them


@dataclass(frozen=True)
class Contact:
    """The first touch of two toys. speeds: how fast each was just before. frame: counted in frames, not whole."""

    frame: float
    first: int
    second: int
    speeds: tuple[float, float]


@dataclass(frozen=True, eq=False)
class States:
    """What happened; with `failed`, the physics broke down.

    positions: T N 3, rotations: T N 4 (wxyz), grounded: T N (touches the floor). walled: N, the frame of a toy's first
    touch of a wall, T where there was none.
    """

    positions: Array
    rotations: Array
    grounded: npt.NDArray[np.bool_]
    contacts: tuple[Contact, ...]
    walled: npt.NDArray[np.int64]
    failed: bool = False


@contextmanager
def _quiet(mujoco: Any) -> Iterator[None]:
    """MuJoCo's warnings go to our log, not to a file in the working folder; `simulate` looks for failures itself."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: log.debug("MuJoCo: %s", text))
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def simulate(model: mujoco.MjModel, plan: Plan, kicks: tuple[Kick, ...], frames: int, fps: Fraction) -> States:
    """Run the physics; frame 0 is the start."""
    mujoco = import_mujoco()
    with _quiet(mujoco):
        return _simulate(mujoco, model, plan, kicks, frames, fps)


def _simulate(
    mujoco: Any, model: mujoco.MjModel, plan: Plan, kicks: tuple[Kick, ...], frames: int, fps: Fraction
) -> States:
    data = mujoco.MjData(model)
    number, per_frame = len(plan.toys), steps_per_frame(fps)
    positions, rotations = np.empty((frames, number, 3)), np.empty((frames, number, 4))
    grounded = np.zeros((frames, number), bool)
    walled = np.full(number, frames)
    contacts: dict[tuple[int, int], Contact] = {}
    owner = np.maximum(model.geom_bodyid - 1, -1)  # toys are bodies 1, 2, ...; the room is body 0
    floor, *walls = (model.geom(name).id for name in (FLOOR, *WALLS))
    pending = sorted(kicks, key=lambda kick: kick.time)
    mujoco.mj_forward(model, data)
    grounded[0] = [abs(toy.at[2] - toy.rest) < 1e-6 for toy in plan.toys]
    for frame in range(frames):
        state = data.qpos.reshape(number, 7)
        positions[frame], rotations[frame] = state[:, :3], state[:, 3:]
        if frame == frames - 1:
            break
        for step in range(per_frame):
            now = frame + step / per_frame
            while pending and pending[0].time * float(fps) <= now:
                _kick(data, pending.pop(0))
            before = data.qvel.copy()
            mujoco.mj_step(model, data)
            if number == 1 or not data.ncon:
                continue
            pairs = owner[data.contact.geom]
            nearer = np.minimum(pairs[:, 0], pairs[:, 1])  # -1 where one of the two is the room
            if nearer.max() < 0:
                continue
            for a, b in np.sort(pairs[nearer >= 0], axis=1).tolist():
                if (a, b) not in contacts:
                    contacts[a, b] = Contact(now, a, b, (_speed(before, a), _speed(before, b)))
        geoms = data.contact.geom
        pairs = owner[geoms]
        for toy, geom in zip(pairs.max(1, initial=-1), geoms.min(1, initial=0), strict=True):
            if geom in walls:
                walled[toy] = min(walled[toy], frame)
            elif geom == floor:
                grounded[frame + 1, toy] = True
    failed = any(data.warning[kind].number for kind in FAILURES)
    return States(positions, rotations, grounded, tuple(contacts.values()), walled, failed)


def steps_per_frame(fps: Fraction) -> int:
    return math.ceil(STEPS_PER_SECOND / fps)


def _speed(velocities: Array, toy: int) -> float:
    return float(np.linalg.norm(velocities[6 * toy : 6 * toy + 3]))


def _kick(data: Any, kick: Kick) -> None:
    speed = data.qvel[6 * kick.toy : 6 * kick.toy + 6]
    speed[:3] += kick.velocity
    # A free body's spin is kept in its own axes.
    speed[3:] += matrix(data.qpos[7 * kick.toy + 3 : 7 * kick.toy + 7]).T @ np.array(kick.spin)


def matrix(rotation: Array) -> Array:
    """Rotations as quaternions (... 4, wxyz) to matrices (... 3 3)."""
    w, x, y, z = np.moveaxis(np.asarray(rotation, float), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)
