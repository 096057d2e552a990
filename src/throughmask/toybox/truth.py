"""What is known of a scene beyond its Sample: poses, contacts, visibility, optical flow, and what each toy did."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files import new_file
from ..types import Labels
from .camera import Array, Camera
from .render import Depth
from .world import States, matrix

TRUTH, FLOW = "truth.json", "flow.npz"


@dataclass(frozen=True)
class Deed:
    """What one object did, as the words say it. Other objects are given by id; bumped_by is 0 where nobody did.

    displacement: x and y in shares of the width, between the first and the last frame that show the object.
    """

    verb: str
    way: str
    pace: str
    enters: str
    leaves: str
    bumps: tuple[int, ...]
    bumped_by: int
    after: str
    passes: tuple[tuple[str, int], ...]
    displacement: tuple[float, float]


@dataclass(frozen=True)
class Thing:
    """What one object is: its shape, colour, size in room units, and whether it shines."""

    shape: str
    colour: str
    size: float
    shiny: bool


@dataclass(frozen=True, eq=False)
class Truth:
    """Everything else about a Sample; axis N is the objects in id order (object k is at k - 1).

    positions: T N 3 and rotations: T N 4 (wxyz), in a room whose x is right in the picture, y away, z up.
    places: T N 2, each middle in the picture in shares of its width. visible: T N, the share of each object that can be
    seen. hidden_by: T N N, the share of one (second axis) that another (third) hides. contacts: (frame, id, id) of each
    first touch. flow: T-1 H W 2 float16, pixels right and down from each frame to the next, or None.
    """

    seed: int
    attempt: int
    again: int
    objects: tuple[Thing, ...]
    deeds: tuple[Deed, ...]
    camera: Camera
    positions: Array
    rotations: Array
    places: Array
    visible: Array
    hidden_by: Array
    contacts: tuple[tuple[float, int, int], ...]
    stripped: str
    flow: npt.NDArray[np.float16] | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything but the flow, as JSON has it."""
        plain: dict[str, Any] = {"format": "throughmask-toybox-truth", "version": 1}
        plain |= {"seed": self.seed, "attempt": self.attempt, "again": self.again}
        plain["stripped_motion_prompt"] = self.stripped
        plain["objects"] = [
            {"id": k, **asdict(thing), "deed": asdict(deed)}
            for k, (thing, deed) in enumerate(zip(self.objects, self.deeds, strict=True), 1)
        ]
        plain["camera"] = asdict(self.camera)
        plain["contacts"] = [list(contact) for contact in self.contacts]
        for name in ("positions", "rotations", "places", "visible", "hidden_by"):
            plain[name] = np.round(getattr(self, name), 5).tolist()
        return plain


def write_truth(folder: str | Path, truth: Truth) -> None:
    """Write truth.json, and flow.npz if there is a flow, beside what the folder holds already."""
    with new_file(Path(folder) / TRUTH, force=True) as temporary:
        temporary.write_text(json.dumps(truth.as_json()) + "\n", encoding="utf-8")
    if truth.flow is not None:
        with new_file(Path(folder) / FLOW, force=True) as temporary:
            np.savez_compressed(temporary, flow=truth.flow)


def forward_flow(camera: Camera, states: States, labels: Labels, depth: Depth) -> npt.NDArray[np.float16]:
    """Where each pixel's piece of the room is in the next frame: T-1 H W 2, pixels to the right and down.

    labels: the plan's toy + 1. The camera and the room stand still, so the background's flow is zero.
    """
    frames, height, width = labels.shape
    flow = np.zeros((frames - 1, height, width, 2), np.float16)
    y, x = np.mgrid[:height, :width] + 0.5
    places = np.stack([x, y], -1) / width
    turns = matrix(states.rotations)
    for t in range(frames - 1):
        for n in range(states.positions.shape[1]):
            mine = labels[t] == n + 1
            if not mine.any():
                continue
            points = camera.unproject(places[mine], depth[t][mine].astype(float))
            local = (points - states.positions[t, n]) @ turns[t, n]
            after, _ = camera.project(local @ turns[t + 1, n].T + states.positions[t + 1, n])
            flow[t][mine] = (after - places[mine]) * width
    return flow
