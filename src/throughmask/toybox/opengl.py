"""How MuJoCo reaches OpenGL without a screen: EGL (a GPU, or Mesa in software), else OSMesa.

It decides while it is imported, so the choice is made just before. A user's own MUJOCO_GL is left alone.
"""

from __future__ import annotations

import ctypes.util
import os
import sys
from typing import Any

from ..errors import MissingPackageError, ThroughMaskError

INSTALL = "apt-get install libegl1 (or libosmesa6); on a machine with an NVIDIA GPU its driver's EGL will do"


class NoOpenGLError(ThroughMaskError):
    """There is nothing to render with."""


def import_mujoco() -> Any:
    """The package, ready to render where that is possible. Raises MissingPackageError if it is not installed."""
    if "mujoco" not in sys.modules and "MUJOCO_GL" not in os.environ and sys.platform == "linux":
        for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
            if ctypes.util.find_library(library):
                os.environ["MUJOCO_GL"] = name
                break
    try:
        import mujoco
    except ImportError as error:
        raise MissingPackageError("Toybox", "toybox") from error
    return mujoco


def prepare_opengl(gl_device: int | None = None) -> Any:
    """MuJoCo, after a check that it can render. gl_device: which of EGL's devices; None leaves the choice to MuJoCo.

    Raises NoOpenGLError, with what to install, where there is neither EGL nor OSMesa.
    """
    if gl_device is not None:
        os.environ["MUJOCO_EGL_DEVICE_ID"] = str(gl_device)
    mujoco = import_mujoco()
    if sys.platform == "linux" and os.environ.get("MUJOCO_GL") is None:
        raise NoOpenGLError("rendering needs OpenGL, and neither EGL nor OSMesa is installed", fix=INSTALL)
    return mujoco


def new_context(size: tuple[int, int], gl_device: int | None = None) -> Any:
    """An OpenGL context for pictures of `size` (height, width). Raises NoOpenGLError if none can be had."""
    prepare_opengl(gl_device)
    try:
        from mujoco.gl_context import GLContext

        if not hasattr(GLContext, "_context"):
            GLContext._context = None  # else one that could not be made complains a second time when it is deleted
        context = GLContext(size[1], size[0])
        context.make_current()
    except Exception as error:  # MuJoCo and PyOpenGL raise whatever the driver made them think of
        seen = " ".join(str(error).split()) or type(error).__name__
        raise NoOpenGLError("rendering needs OpenGL, which did not start", seen=seen, fix=INSTALL) from error
    return context
