"""The scene as a MuJoCo model: its MJCF document, made of a plan and, to be rendered, of looks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .kinds import COLOURS, SHAPES, Part
from .looks import Looks, floor_pixels, texture_file, wall_pixels
from .opengl import import_mujoco
from .plan import GRAVITY, Plan, Room, Toy, friction_of
from .recipes import MAX_TOYS

if TYPE_CHECKING:
    import mujoco

FLOOR, WALLS = "floor", ("wall0", "wall1")


def build(plan: Plan, step: float, looks: Looks | None = None, size: tuple[int, int] = (64, 64)) -> mujoco.MjModel:
    """The model of a scene; without `looks` it is good for physics and sight only, and made much faster."""
    mujoco = import_mujoco()
    assets = {}
    if looks is not None:
        assets = {"floor.tex": texture_file(floor_pixels(looks)), "wall.tex": texture_file(wall_pixels(looks))}
    return mujoco.MjModel.from_xml_string(_document(plan, step, looks, size), assets)


def _document(plan: Plan, step: float, looks: Looks | None, size: tuple[int, int]) -> str:
    camera = plan.camera
    x, y, z = camera.position
    up, right = camera.axes[1], camera.axes[0]
    meshes: list[str] = []
    toys = []
    for index, toy in enumerate(plan.toys):
        toys.append(_toy(index, toy, meshes, looks is not None))
    warmth = looks.warmth if looks else 0.0
    ambient = _n(*(0.44 * c for c in (1 - warmth, 1.0, 1 + warmth)))
    view = f'<camera name="eye" pos="{_n(x, y, z)}" xyaxes="{_n(*right, *up)}" fovy="{_n(camera.fovy)}"/>'
    return f"""<mujoco>
<compiler angle="radian" balanceinertia="true"/>
<option timestep="{step:.9g}" gravity="0 0 {-GRAVITY}" integrator="implicitfast" cone="elliptic"/>
<statistic center="0 0.3 0.3" extent="2.0"/>
<visual><global offwidth="{size[1]}" offheight="{size[0]}"/><quality shadowsize="2048" offsamples="4" numslices="36"
 numstacks="24" numquads="6"/>
<headlight ambient="{ambient}" diffuse="0 0 0" specular="0 0 0"/>
<map znear="0.05" zfar="12" shadowclip="1.3"/></visual>
<asset>{"".join(meshes)}{_materials(plan, looks)}</asset>
<worldbody>{view}{_room(plan.room, looks)}{"".join(toys)}</worldbody>
</mujoco>"""


def _materials(plan: Plan, looks: Looks | None) -> str:
    if looks is None:
        return ""
    skirting = [0.96 if sum(looks.wall_colour) < 2.35 else 0.62 * c for c in looks.wall_colour]
    text = (
        '<texture name="floor" type="2d" file="floor.tex" content_type="image/vnd.mujoco.texture"/>'
        '<texture name="wall" type="2d" file="wall.tex" content_type="image/vnd.mujoco.texture"/>'
        '<material name="floor" texture="floor" texrepeat="0.5 0.5" texuniform="true" specular="0.15" shininess="0.3"'
        f' reflectance="{0.1 if looks.floor == "tiles" else 0}"/>'
        '<material name="wall" texture="wall" texrepeat="0.6 0.6" texuniform="true" specular="0" shininess="0"'
        ' rgba="1 1 1 0.98"/>'
        f'<material name="skirting" rgba="{_n(*skirting)} 1" specular="0.1"/>'
    )
    for index, toy in enumerate(plan.toys):
        gloss = 'specular="0.9" shininess="0.75"' if toy.shiny else 'specular="0.08" shininess="0.1"'
        text += f'<material name="body{index}" rgba="{_n(*COLOURS[toy.colour])} 1" {gloss}/>'
        text += f'<material name="mark{index}" rgba="{_n(*toy.mark)} 1" {gloss}/>'
    # As many for few toys as for many: what draws one scene can then draw the next (render.py).
    return text + "".join(f'<material name="spare{k}"/>' for k in range(2 * (MAX_TOYS - len(plan.toys))))


def _room(room: Room, looks: Looks | None) -> str:
    yaw, distance = room.yaw, room.distance
    paint: Callable[[str], str] = (lambda name: f' material="{name}"') if looks else (lambda name: "")
    side = 1 if yaw >= 0 else -1
    along, into = np.array([math.cos(yaw), math.sin(yaw)]), np.array([math.sin(yaw), -math.cos(yaw)])
    corner = np.array([0.0, distance]) + side * room.corner * along
    text = f'<geom name="{FLOOR}" type="plane" size="9 9 0.1"{paint("floor")}/>'
    # Each wall is a plane that faces the room; its x axis runs along the wall, its y axis up.
    for name, normal in zip(WALLS, (into, -side * along), strict=True):
        x = np.array([-normal[1], normal[0]])
        pose = f'xyaxes="{_n(*x, 0)} 0 0 1"'
        text += f'<geom name="{name}" type="plane" size="9 4 0.1" pos="{_n(*corner, 0)}" {pose} group="4"/>'
        if looks:
            # What is seen is a box, a trace transparent: such things cast no shadow, on themselves least of all.
            at = corner - 0.1 * normal
            seen = f'contype="0" conaffinity="0"{paint("wall")}'
            text += f'<geom type="box" size="9 4 0.1" pos="{_n(*at, 0)}" {pose} {seen}/>'
            at = corner + 0.012 * normal
            text += (
                f'<geom type="box" size="9 0.012 0.09" pos="{_n(*at, 0.09)}" xyaxes="{_n(*x, 0)} {_n(*normal, 0)}"'
                f' contype="0" conaffinity="0"{paint("skirting")}/>'
            )
    if looks:
        text += _lights(looks)
    return text


def _lights(looks: Looks) -> str:
    x, y = looks.light
    warm, cold = 1 + looks.warmth, 1 - looks.warmth
    key = [0.64 * looks.brightness * c for c in (warm, 1.0, cold)]
    fill = [0.20 * c for c in (cold, 1.0, warm)]
    return (
        f'<light directional="true" castshadow="true" pos="{_n(3 * x, 3 * y + 0.3, 3.3)}" dir="{_n(-x, -y, -1)}"'
        f' diffuse="{_n(*key)}" specular="0.5 0.5 0.5"/>'
        f'<light directional="true" castshadow="false" pos="0 -3 2" dir="{_n(0.7 * x, 1, -0.45)}"'
        f' diffuse="{_n(*fill)}" specular="0.05 0.05 0.05"/>'
    )


def _toy(index: int, toy: Toy, meshes: list[str], painted: bool) -> str:
    shape = SHAPES[toy.shape]
    turn = (math.cos(toy.yaw / 2), 0.0, 0.0, math.sin(toy.yaw / 2))
    if toy.lying:  # its axis, once up, points along x before it is turned
        half = math.sqrt(0.5)
        turn = (turn[0] * half, -turn[3] * half, turn[0] * half, turn[3] * half)
    # Half as heavy as volume would have it, so that small toys can move big ones.
    mass = (toy.size / 0.2) ** 1.5
    solid = sum(part.solid for part in shape.parts)
    geoms = [_geom(index, toy, k, part, mass / solid, meshes, painted) for k, part in enumerate(shape.parts)]
    return f'<body name="toy{index}" pos="{_n(*toy.at)}" quat="{_n(*turn)}"><freejoint/>{"".join(geoms)}</body>'


def _geom(index: int, toy: Toy, number: int, part: Part, mass: float, meshes: list[str], painted: bool) -> str:
    text = f'<geom type="{part.type}" pos="{_n(*(toy.size * c for c in part.at))}"'
    if part.points:
        name = f"mesh{index}-{number}"
        corners = " ".join(_n(*(toy.size * c for c in corner)) for corner in part.points)
        meshes.append(f'<mesh name="{name}" vertex="{corners}"/>')
        text += f' mesh="{name}"'
    else:
        text += f' size="{_n(*(toy.size * c for c in part.size))}"'
    if part.axis != (0.0, 0.0, 1.0):
        text += f' zaxis="{_n(*part.axis)}"'
    if painted:
        text += f' material="{"mark" if part.mark else "body"}{index}"'
    if not part.solid:
        return text + ' contype="0" conaffinity="0" mass="0"/>'
    bouncy = "0.015 0.45" if toy.shape == "ball" else "0.012 0.8"
    rolling = 0.0002 if toy.act.way and toy.rolls else 0.0012
    twist = 0.0005 if toy.act.verb == "spin" else 0.004
    grip = _n(friction_of(toy), twist, rolling)
    contact = 6 if toy.rolls or toy.shape in ("can", "pin", "cone") else 4  # the others never roll
    return text + f' mass="{mass:.6g}" condim="{contact}" friction="{grip}" solref="{bouncy}" priority="1"/>'


def _n(*values: float) -> str:
    return " ".join(f"{value:.9g}" for value in values)
