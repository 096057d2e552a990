"""Pictures of a scene: pixels, labels and depth. One OpenGL context for each process and picture size."""

from __future__ import annotations

import atexit
import logging
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import Labels, Pixels
from .looks import Looks
from .mjcf import build
from .opengl import import_mujoco, new_context
from .plan import Plan
from .world import States

log = logging.getLogger(__name__)

Depth = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Pictures:
    """pixels: T H W 3, of frame 0 alone where no film was wanted; labels: T H W (index of the toy + 1); depth along the
    camera's axis: T H W, or None."""

    pixels: Pixels
    labels: Labels
    depth: Depth | None


class Drawers(NamedTuple):
    """MuJoCo's drawing contexts. numbers: of one sample a pixel; where several are averaged, as they are for pictures,
    some drivers average the numbers of two geoms at an edge to that of a third, and a toy that is elsewhere has pixels.
    """

    pictures: Any
    numbers: Any


def render(
    plan: Plan,
    looks: Looks,
    states: States,
    size: tuple[int, int],
    *,
    film: bool = True,
    depth: bool = False,
    gl_device: int | None = None,
) -> Pictures:
    """Draw every frame of a scene at `size` (height, width); without `film` the labels of every frame and the pixels of
    the first.

    Raises NoOpenGLError with what to install if there is no OpenGL.
    """
    screen = _screen(size, gl_device)
    mujoco = import_mujoco()
    model = build(plan, 0.004, looks, size)
    drawn = len(states.positions) if film else 1
    return _draw(mujoco, model, mujoco.MjData(model), screen.show(mujoco, model), states, size, drawn, depth)


def _draw(
    mujoco: Any, model: Any, data: Any, drawers: Drawers, states: States, size: tuple[int, int], drawn: int, depth: bool
) -> Pictures:
    """drawn: so many frames have pixels."""
    offscreen = mujoco.mjtFramebuffer.mjFB_OFFSCREEN
    frames, (height, width) = len(states.positions), size
    scene, option = mujoco.MjvScene(model, maxgeom=model.ngeom + 8), mujoco.MjvOption()
    camera, nothing = mujoco.MjvCamera(), mujoco.MjvPerturb()
    camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    view = mujoco.MjrRect(0, 0, width, height)
    pixels = np.empty((drawn, height, width, 3), np.uint8)
    labels = np.empty((frames, height, width), np.uint8)
    depths = np.empty((frames, height, width), np.float32) if depth else None
    colours = np.empty((height, width, 3), np.uint8)
    owner = np.concatenate([[0], model.geom_bodyid]).astype(np.uint8)  # a geom's number + 1 to its toy's + 1
    for frame in range(frames):
        state = data.qpos.reshape(-1, 7)
        state[:, :3], state[:, 3:] = states.positions[frame], states.rotations[frame]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        mujoco.mjv_updateScene(model, data, option, nothing, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
        if frame < drawn:
            _segment(mujoco, scene, False)
            mujoco.mjr_setBuffer(offscreen, drawers.pictures)
            mujoco.mjr_render(view, scene, drawers.pictures)
            mujoco.mjr_readPixels(pixels[frame], None, view, drawers.pictures)
        # Segmentation gives each of the scene's geoms a number of its own, which is not the model's.
        _segment(mujoco, scene, True)
        mujoco.mjr_setBuffer(offscreen, drawers.numbers)
        mujoco.mjr_render(view, scene, drawers.numbers)
        zbuffer = np.empty((height, width), np.float32) if depths is not None else None
        mujoco.mjr_readPixels(colours, zbuffer, view, drawers.numbers)
        number = colours[..., 0] | colours[..., 1].astype(np.uint16) << 8  # a room has far fewer than 65,536 geoms
        label = np.zeros(scene.ngeom + 1, np.uint8)
        for geom in scene.geoms[: scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.segid >= 0:
                label[geom.segid + 1] = owner[geom.objid + 1]
        label.take(number, out=labels[frame])
        if depths is not None and zbuffer is not None:
            near, far = model.vis.map.znear * model.stat.extent, model.vis.map.zfar * model.stat.extent
            depths[frame] = near / (1 - zbuffer * (1 - near / far))
    # OpenGL counts rows from below.
    flipped = depths[:, ::-1].copy() if depths is not None else None
    return Pictures(pixels[:, ::-1].copy(), labels[:, ::-1].copy(), flipped)


def _segment(mujoco: Any, scene: Any, on: bool) -> None:
    """Numbers instead of pictures; shadows and reflections would be drawn for nothing."""
    kinds = mujoco.mjtRndFlag
    for flag in (kinds.mjRND_SEGMENT, kinds.mjRND_IDCOLOR):
        scene.flags[flag] = on
    for flag in (kinds.mjRND_SHADOW, kinds.mjRND_REFLECTION):
        scene.flags[flag] = not on


class _Screen:
    """An OpenGL context and, in its memory, what scenes are drawn with."""

    def __init__(self, size: tuple[int, int], gl_device: int | None) -> None:
        self.context = new_context(size, gl_device)
        self.drawers: dict[tuple[int, int, int], Any] = {}

    def show(self, mujoco: Any, model: Any) -> Drawers:
        """Both with the textures and meshes of `model` in them."""
        self.context.make_current()
        smooth = model.vis.quality.offsamples
        return Drawers(self._drawer(mujoco, model, smooth), self._drawer(mujoco, model, 0))

    def _drawer(self, mujoco: Any, model: Any, samples: int) -> Any:
        """To make one takes as long as to draw a scene, so it is kept for every model with as many meshes and
        materials: rooms differ in nothing else that it holds.
        """
        key = model.nmesh, model.nmat, samples
        drawer = self.drawers.get(key)
        if drawer is None:
            model.vis.quality.offsamples = samples
            drawer = self.drawers[key] = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        else:
            for texture in range(model.ntex):
                mujoco.mjr_uploadTexture(model, drawer, texture)
            for mesh in range(model.nmesh):
                mujoco.mjr_uploadMesh(model, drawer, mesh)
        return drawer

    def free(self) -> None:
        self.context.make_current()
        for drawer in self.drawers.values():
            drawer.free()
        self.context.free()


_screens: dict[tuple[int, int, int], _Screen] = {}


def _screen(size: tuple[int, int], gl_device: int | None) -> _Screen:
    """The screen of this process for pictures of `size`; a forked process makes its own."""
    key = (os.getpid(), *size)
    if key not in _screens:
        screen = _Screen(size, gl_device)
        if not _screens:
            atexit.register(_free)  # after MuJoCo's own farewell to EGL, so that it runs before
        _screens[key] = screen
        log.debug("OpenGL through %s", os.environ.get("MUJOCO_GL", "the system"))
    return _screens[key]


def _free() -> None:
    for (process, *_), screen in _screens.items():
        if process == os.getpid():
            screen.free()
    _screens.clear()
