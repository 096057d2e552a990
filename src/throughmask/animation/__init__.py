"""animate, the main job: a picture and a sentence become moving masks and a video."""

from .animator import Animator, animate
from .fitting import resized_scene
from .result import OVERLAY, SHEET, Animation, write_pictures

__all__ = ["OVERLAY", "SHEET", "Animation", "Animator", "animate", "resized_scene", "write_pictures"]
