"""The camera of a scene: where a point of the room lies in the picture, and what part of the room the picture shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """Looks along +y at `target` (on the floor's middle line) from `distance`, `pitch` degrees downwards.

    The room is built around the camera: x is right in the picture, y away from the viewer, z up.
    """

    distance: float
    pitch: float
    fovy: float
    target: tuple[float, float, float]
    aspect: float  # width / height

    @cached_property
    def position(self) -> Array:
        return np.array(self.target) - self.distance * self.axes[2]

    @cached_property
    def axes(self) -> Array:
        """Unit vectors to the right, up in the picture, and forward (3 3, one a row)."""
        down = math.radians(self.pitch)
        forward = np.array([0.0, math.cos(down), -math.sin(down)])
        return np.stack([np.array([1.0, 0.0, 0.0]), np.array([0.0, math.sin(down), math.cos(down)]), forward])

    @cached_property
    def focal(self) -> float:
        """In units of the picture's width."""
        return 0.5 / (math.tan(math.radians(self.fovy) / 2) * self.aspect)

    def project(self, points: Array) -> tuple[Array, Array]:
        """Points (... 3) to places in the picture (... 2: x from 0 to 1, y down in the same unit) and depth (...)."""
        local = (points - self.position) @ self.axes.T
        depth = local[..., 2]
        safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
        x = 0.5 + self.focal * local[..., 0] / safe
        y = 0.5 / self.aspect - self.focal * local[..., 1] / safe
        return np.stack([x, y], -1), depth

    def unproject(self, places: Array, depth: Array) -> Array:
        """The inverse of `project`."""
        across = (places[..., 0] - 0.5) / self.focal * depth
        up = (0.5 / self.aspect - places[..., 1]) / self.focal * depth
        return self.position + np.stack([across, up, depth], -1) @ self.axes

    def inside(self, places: Array, margin: float = 0.0) -> npt.NDArray[np.bool_]:
        """Whether places are in the picture, `margin` (of the width) away from its edges."""
        x, y = places[..., 0], places[..., 1]
        return (x >= margin) & (x <= 1 - margin) & (y >= margin) & (y <= 1 / self.aspect - margin)

    def half_width(self, y: float, z: float = 0.0) -> float:
        """How far to either side the picture shows points at depth `y` and height `z`."""
        depth = float((np.array([0.0, y, z]) - self.position) @ self.axes[2])
        return 0.5 * depth / self.focal
