"""Through-The-Mask: animate a picture from a sentence, through mask trajectories that one can see, edit and measure."""

from typing import TYPE_CHECKING

from .errors import ThroughMaskError, ThroughMaskWarning

if TYPE_CHECKING:
    from .animation import Animation, Animator, animate
    from .types import MaskTrajectory, Origin, Sample, Scene, SceneObject, Video

__version__ = "0.1.0"

__all__ = [
    "Animation",
    "Animator",
    "MaskTrajectory",
    "Origin",
    "Sample",
    "Scene",
    "SceneObject",
    "ThroughMaskError",
    "ThroughMaskWarning",
    "Video",
    "__version__",
    "animate",
]


def __getattr__(name: str) -> object:  # numpy takes 0.1 s to import, which `throughmask --help` need not wait for
    if name in ("Animation", "Animator", "animate"):
        from . import animation

        return getattr(animation, name)
    if name in __all__:
        from . import types

        return getattr(types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
