"""Small scenes with known truth, and subjects that know it: what a perfect model, a copy or a mistake would make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from throughmask.evaluate.deeds import Toy
from throughmask.evaluate.scenes import Case
from throughmask.evaluate.subjects import Still, Subject
from throughmask.types import MaskTrajectory, Sample, Scene, SceneObject, Video

SIZE, FRAMES, FPS = (64, 100), 5, Fraction(12)
STILL = Still(FRAMES, FPS)


@dataclass(frozen=True)
class Actor:
    """A rectangle. start, end: (x, y) of its corner; it goes in a straight line. It is there in frames `seen`."""

    start: tuple[int, int]
    end: tuple[int, int]
    colour: tuple[int, int, int] = (200, 20, 20)
    size: tuple[int, int] = (12, 12)
    verb: str = "slide"
    name: str = "red block"
    seen: range = range(FRAMES)


def film(actors: Sequence[Actor]) -> Sample:
    """A grey room with a little noise, and the actors in it."""
    labels = np.zeros((FRAMES, *SIZE), np.uint8)
    room = np.random.default_rng(0).normal(110, 6, (*SIZE, 3))
    pixels = np.repeat(room[None], FRAMES, 0)
    for id, actor in enumerate(actors, 1):
        for frame in actor.seen:
            x, y = (a + round((b - a) * frame / (FRAMES - 1)) for a, b in zip(actor.start, actor.end, strict=True))
            place = (frame, slice(max(0, y), max(0, y + actor.size[0])), slice(max(0, x), max(0, x + actor.size[1])))
            labels[place] = id
            pixels[place] = actor.colour
    pixels += np.random.default_rng(1).normal(0, 2, pixels.shape)
    frames = pixels.clip(0, 255).astype(np.uint8)
    objects = tuple(SceneObject(id, actor.name, actor.name) for id, actor in enumerate(actors, 1))
    prompt = "; ".join(f"a {actor.name} does {actor.verb}" for actor in actors)
    scene = Scene(frames[0], labels[0], prompt, prompt, objects)
    return Sample(scene, MaskTrajectory(labels, FPS), Video(frames, FPS))


def case_of(seed: int, *actors: Actor, again: Sequence[Actor] = ()) -> Case:
    toys = tuple(Toy(id, actor.verb, str(actor.colour), 0.0) for id, actor in enumerate(actors, 1))
    return Case(seed, film(actors), toys, film(again or actors))


ONE = case_of(7, Actor((10, 20), (60, 20)), again=[Actor((10, 20), (63, 20))])
TWO = case_of(
    8,
    Actor((10, 10), (50, 10), (20, 40, 220), name="blue block"),
    Actor((70, 40), (70, 40), (20, 200, 30), verb="stay", name="green block"),
)


class Oracle(Subject):
    """Knows the truth of some cases by their pictures, and what to make of it."""

    def __init__(self, *cases: Case) -> None:
        self.cases = cases

    def case(self, scene: Scene) -> Case:
        return next(case for case in self.cases if case.sample.scene == scene)

    def move(self, scene: Scene, seed: int) -> MaskTrajectory | None:
        return self.case(scene).trajectory

    def render(self, scene: Scene, trajectory: MaskTrajectory | None, seed: int) -> Video | None:
        return self.case(scene).video

    def round_trip(self, video: Video) -> Video | None:
        return Video(video.frames ^ 1, video.fps)  # off by one everywhere


class Mover(Oracle):
    """Moves and renders nothing."""

    def render(self, scene: Scene, trajectory: MaskTrajectory | None, seed: int) -> None:
        return None


class Renderer(Oracle):
    """Renders and moves nothing."""

    def move(self, scene: Scene, seed: int) -> None:
        return None


class Teller(Renderer):
    """Renders from words alone, as `ti2v` does."""

    follows_masks = False

    def render(self, scene: Scene, trajectory: MaskTrajectory | None, seed: int) -> Video | None:
        assert trajectory is None
        return self.case(scene).video


class Frozen(Subject):
    """Nothing ever moves."""

    def move(self, scene: Scene, seed: int) -> MaskTrajectory:
        return STILL.move(scene, seed)

    def render(self, scene: Scene, trajectory: MaskTrajectory | None, seed: int) -> Video:
        return STILL.render(scene, trajectory, seed)


class Finder:
    """A tracker that knows every video of its cases: the true one, the one played again and the still picture."""

    def __init__(self, *cases: Case) -> None:
        self.cases, self.calls = cases, 0

    def __call__(self, video: Video, scene: Scene) -> MaskTrajectory:
        self.calls += 1
        case = next(case for case in self.cases if case.sample.scene == scene)
        known = [(case.video, case.trajectory), (STILL.render(scene, None, 0), STILL.move(scene, 0))]
        if case.again is not None:
            known.append((case.again.video, case.again.trajectory))
        return min(known, key=lambda pair: np.abs(pair[0].frames.astype(int) - video.frames).mean())[1]
