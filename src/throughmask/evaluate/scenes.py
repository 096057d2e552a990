"""Scenes to be judged on: Toybox's, made by other processes while the models are at work."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..errors import InvalidValueError
from ..toybox import Truth, make_sample_with_truth, split_seeds
from ..toybox.world import matrix
from ..types import MaskTrajectory, Sample, Video
from .deeds import Toy

AHEAD = 2  # scenes for each process that wait for the models


@dataclass(frozen=True, eq=False)
class Case:
    """A scene to be judged on. again: the same scene and words played once more, None where that came out otherwise."""

    seed: int
    sample: Sample
    toys: tuple[Toy, ...]
    again: Sample | None = None

    def __post_init__(self) -> None:
        if self.sample.trajectory is None or self.sample.video is None:
            raise InvalidValueError("a Sample without masks or video judges nothing", seen=self.sample.scene.prompt)
        if tuple(toy.id for toy in self.toys) != self.sample.scene.ids:
            seen = f"{[toy.id for toy in self.toys]} and {list(self.sample.scene.ids)}"
            raise InvalidValueError("the toys are not the scene's objects", seen=seen)

    @property
    def trajectory(self) -> MaskTrajectory:
        assert self.sample.trajectory is not None
        return self.sample.trajectory

    @property
    def video(self) -> Video:
        assert self.sample.video is not None
        return self.sample.video


@dataclass(frozen=True)
class Clip:
    """How scenes are filmed. size: height and width. gl_device: which of EGL's devices renders.

    Toybox would refuse other sizes and lengths too, but only when the models have been loaded.
    """

    size: tuple[int, int] = (256, 256)
    frames: int = 25
    fps: Fraction = Fraction(12)
    gl_device: int | None = None

    def __post_init__(self) -> None:
        if any(side % 2 or not 32 <= side <= 2048 for side in self.size):
            seen = f"{self.size[0]}x{self.size[1]}"
            raise InvalidValueError("scenes are of an even height and width from 32 to 2048", seen=seen)
        if not 1 <= (self.frames - 1) / self.fps <= 10 or self.frames < 9:
            seen = f"{self.frames} frames at {self.fps} fps"
            fix = "25 frames at 12 fps are two seconds; set --frames and --fps"
            raise InvalidValueError("scenes last from 1 to 10 seconds and have 9 frames or more", seen=seen, fix=fix)


def chosen_seeds(split: str, limit: int | None = None, part: tuple[int, int] = (0, 1)) -> tuple[int, ...]:
    """The seeds of a held-out split, or `limit` of them, evenly spaced, so that each of its parts has its share.

    part: k, n for every n-th of those, from the k-th on. Raises InvalidValueError for an unknown split or a limit that
    is not positive.
    """
    seeds = split_seeds(split)
    if limit is not None and limit < 1:
        raise InvalidValueError("the limit counts scenes, at least one", seen=limit)
    if limit is not None and limit < len(seeds):
        seeds = tuple(seeds[k * len(seeds) // limit] for k in range(limit))
    return seeds[part[0] :: part[1]]


def make_case(seed: int, clip: Clip) -> Case:
    """The scene of a seed. Raises what make_sample_with_truth raises."""
    options = {"size": clip.size, "frames": clip.frames, "fps": clip.fps, "gl_device": clip.gl_device, "flow": False}
    sample, truth = make_sample_with_truth(seed, **options)  # type: ignore[arg-type]
    try:
        again = make_sample_with_truth(seed, again=1, **options)[0]  # type: ignore[arg-type]
    except InvalidValueError:
        again = None
    return Case(seed, sample, toys_of(truth), again)


def toys_of(truth: Truth) -> tuple[Toy, ...]:
    """What is judged of a scene's toys, in id order."""
    steps = matrix(truth.rotations[1:]) @ matrix(truth.rotations[:-1]).swapaxes(-1, -2)  # T-1 N 3 3
    about_vertical = np.arctan2(steps[..., 1, 0] - steps[..., 0, 1], steps[..., 0, 0] + steps[..., 1, 1])
    pairs = zip(truth.objects, truth.deeds, about_vertical.sum(0), strict=True)
    return tuple(Toy(id, deed.verb, thing.colour, float(turn)) for id, (thing, deed, turn) in enumerate(pairs, 1))


def make_cases(seeds: Sequence[int], clip: Clip, workers: int = 1) -> Iterator[Case]:
    """The scenes of some seeds in order, made ahead by `workers` processes; with 0, each when it is asked for.

    Raises what `make_case` raises, and InvalidValueError for less than no workers.
    """
    if workers < 0:
        raise InvalidValueError("there cannot be less than no worker processes", seen=workers)
    if not workers:
        yield from (make_case(seed, clip) for seed in seeds)
        return
    # Spawned: a forked child would share the threads and the GPU of the models.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(seeds) or 1), mp_context=context, initializer=_leave_interrupts)
    try:
        yield from _in_order(pool, seeds, clip, AHEAD * workers)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for the scenes answers them


def _in_order(pool: Executor, seeds: Sequence[int], clip: Clip, ahead: int) -> Iterator[Case]:
    waiting: deque[Future[Case]] = deque()
    rest = iter(seeds)
    for seed in rest:
        waiting.append(pool.submit(make_case, seed, clip))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
