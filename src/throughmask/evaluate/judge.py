"""One scene judged: what a subject makes of it, beside the truth, the same scene played again, and a still picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..errors import InvalidValueError
from ..types import MaskTrajectory, Scene, Video
from .deeds import deed_tally, iou_tally
from .likeness import Appearance
from .psnr import psnr_tally
from .scenes import Case
from .subjects import Still, Subject
from .tally import Tally, total

# What is judged: masks against the simulation; videos of true masks; videos of the subject's own masks, or of none.
MODES = ("motion", "video", "whole")
# Beside the subject: the scene played again, frame 0 repeated, the VAE's round trip of the truth, and the truth.
ROWS = ("model", "again", "still", "vae", "truth")


class Tracker(Protocol):
    """Finds the objects of a scene again in a video of it."""

    def __call__(self, video: Video, scene: Scene) -> MaskTrajectory: ...


@dataclass(frozen=True)
class Take:
    """What a subject made from one seed of noise. guided: the video of the true masks; whole: the one of its own."""

    seed: int
    moved: MaskTrajectory | None = None
    guided: Video | None = None
    whole: Video | None = None
    found: MaskTrajectory | None = None  # tracked in `whole`


@dataclass(frozen=True)
class Judgement:
    """tallies: mode -> row -> Tally. by_take: mode -> the Tally of each take. seconds: to move, to render."""

    takes: tuple[Take, ...]
    tallies: dict[str, dict[str, Tally]]
    by_take: dict[str, list[Tally]]
    seconds: dict[str, float] = field(default_factory=dict)


def judge(case: Case, subject: Subject, tracker: Tracker | None, seeds: Sequence[int]) -> Judgement:
    """Let a subject make a scene from each seed of noise, and measure it.

    Raises InvalidValueError for a subject that makes nothing, or something of another size or length than the scene.
    """
    seconds: dict[str, float] = {}
    takes = [_tracked(take, case, tracker) for take in _takes(case, subject, seeds, seconds)]
    bench = _Bench(case, tracker)
    by_take = {
        "motion": [bench.motion(take.moved) for take in takes if take.moved is not None],
        "video": [bench.video(take.guided) for take in takes if take.guided is not None],
        "whole": [bench.whole(take) for take in takes if take.whole is not None],
    }
    by_take = {mode: tallies for mode, tallies in by_take.items() if tallies}
    if not by_take:
        raise InvalidValueError("the subject makes neither masks nor videos", seen=type(subject).__name__)
    tallies = {mode: {"model": total(each)} for mode, each in by_take.items()}
    for row, rows in bench.references(subject if "video" in by_take else None, set(by_take)).items():
        for mode, tally in rows.items():
            tallies[mode][row] = tally
    return Judgement(tuple(takes), tallies, by_take, seconds)


def _takes(case: Case, subject: Subject, seeds: Sequence[int], seconds: dict[str, float]) -> list[Take]:
    scene = case.sample.scene
    started = time.perf_counter()
    moved: Sequence[MaskTrajectory | None] = subject.moves(scene, seeds) or [None] * len(seeds)
    seconds["move"] = time.perf_counter() - started
    started, takes = time.perf_counter(), []
    for seed, motion in zip(seeds, moved, strict=True):
        guided = subject.render(scene, case.trajectory, seed) if subject.follows_masks else None
        alone = not subject.follows_masks
        whole = subject.render(scene, motion, seed) if motion is not None or alone else None
        takes.append(Take(seed, motion, guided, whole))
    seconds["render"] = time.perf_counter() - started
    return takes


def _tracked(take: Take, case: Case, tracker: Tracker | None) -> Take:
    found = tracker(take.whole, case.sample.scene) if tracker is not None and take.whole is not None else None
    return replace(take, found=found)


class _Bench:
    """The measures of one scene, for whatever is laid on it."""

    def __init__(self, case: Case, tracker: Tracker | None) -> None:
        self.case, self.tracker = case, tracker
        self.appearance = Appearance(case.sample, case.toys)

    def motion(self, moved: MaskTrajectory) -> Tally:
        return deed_tally(self.case.toys, self.case.trajectory, moved)

    def video(self, video: Video) -> Tally:
        """Of a video that should follow the true masks."""
        return self._guided(video, self.track(video)) | psnr_tally(self.case.video, video)

    def whole(self, take: Take) -> Tally:
        """Of a video from the subject's own masks, or from none."""
        assert take.whole is not None
        tally = psnr_tally(self.case.video, take.whole)
        if take.found is not None:
            tally |= self.motion(take.found)
        if take.moved is not None:
            tally |= self.adherence(take.whole, take.moved, take.found)
        return tally

    def adherence(self, video: Video, asked: MaskTrajectory, found: MaskTrajectory | None = None) -> Tally:
        """How far a video obeys the masks that were asked of it."""
        tally = self.appearance.tally(video, asked)
        found = self.track(video) if found is None else found
        if found is not None:
            tally["followed"] = iou_tally(asked, found)["iou"]
        return tally

    def _guided(self, video: Video, found: MaskTrajectory | None) -> Tally:
        """What the toys of a video do, and how far it obeys the true masks; `followed` is their IoU."""
        deeds = self.motion(found) if found is not None else {}
        deeds = {measure: tally for measure, tally in deeds.items() if measure not in ("iou", "iou_small")}
        return deeds | self.adherence(video, self.case.trajectory, found)

    def track(self, video: Video) -> MaskTrajectory | None:
        return self.tracker(video, self.case.sample.scene) if self.tracker is not None else None

    def references(self, subject: Subject | None, modes: set[str]) -> dict[str, dict[str, Tally]]:
        """Row -> mode -> Tally. subject: whose VAE makes the round trip, if any."""
        case, scene = self.case, self.case.sample.scene
        still = Still(len(case.trajectory), case.trajectory.fps)
        motions: dict[str, MaskTrajectory | None] = {"still": still.move(scene, 0)}
        videos: dict[str, Video | None] = {"still": still.render(scene, None, 0), "truth": case.video}
        if case.again is not None:
            motions["again"], videos["again"] = case.again.trajectory, case.again.video
        if subject is not None:
            videos["vae"] = subject.round_trip(case.video)
        rows: dict[str, dict[str, Tally]] = {row: {} for row in ROWS[1:]}
        if "motion" in modes:
            for row, motion in motions.items():
                rows[row]["motion"] = self.motion(motion)  # type: ignore[arg-type]
        for row, video in videos.items():
            if video is not None and modes & {"video", "whole"}:
                rows[row] |= self._reference(row, video, modes)
        return rows

    def _reference(self, row: str, video: Video, modes: set[str]) -> dict[str, Tally]:
        found, made = self.track(video), {}
        nearness = psnr_tally(self.case.video, video) if row != "truth" else {}
        if "video" in modes:
            made["video"] = self._guided(video, found) | nearness
        if "whole" in modes and row != "vae":
            made["whole"] = {**(self.motion(found) if found is not None else {}), **nearness}
        return made
