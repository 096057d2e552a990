"""The benchmark of the bundled models: a held-out split of Toybox, some seeds of noise for each scene, all measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import InvalidValueError
from ..types import MaskTrajectory, Video
from .clips import write_clips
from .deeds import goes_right, unseen
from .journal import Journal
from .judge import Judgement, Tracker, judge
from .motion import object_motions
from .scenes import Case, Clip, chosen_seeds, make_cases
from .scores import SceneScore, Scores
from .segmentation import region_similarity
from .subjects import Subject

VERSION = 4  # of the measures: results of another one are stale
CLIPS = "clips"

Say = Callable[[str], None]


def evaluate_split(
    split: str,
    subject: Subject,
    tracker: Tracker | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    limit: int | None = None,
    part: tuple[int, int] = (0, 1),
    clip: Clip | None = None,
    workers: int = 1,
    out: Path | None = None,
    made_with: Mapping[str, Any] | None = None,
    say: Say = lambda text: None,
) -> Scores:
    """Judge a subject on the scenes of a held-out split, or on `limit` of them, evenly spaced.

    seeds: of noise. part: k, n for every n-th scene from the k-th on; processes that do a part each may share `out`,
    and one that does all then finds their results there. workers: processes that make scenes, 0 for none. out: a folder
    that keeps results and clips as they come; what it holds already, made with the same, is not done again. made_with:
    what decides the results, such as fingerprints of the models and their options, as plain values; needed with `out`.

    Raises InvalidValueError for an unknown split, and for a subject that makes nothing, or things of the wrong size.
    """
    clip = clip or Clip()
    wanted = chosen_seeds(split, limit, part)
    if out is None:
        journal = None
    elif made_with:
        filmed = {"size": list(clip.size), "frames": clip.frames, "fps": str(clip.fps)}
        journal = Journal(out, {**made_with, **filmed, "seeds": list(seeds), "measures": VERSION})
    else:
        raise InvalidValueError("results that are kept must say what made them", fix="give made_with")
    scenes = evaluate_scenes(
        wanted,
        lambda missing: make_cases(missing, clip, workers),
        subject,
        tracker,
        seeds=seeds,
        journal=journal,
        say=say,
    )
    facts = {} if journal is None else {"made_with": journal.made_with, "key": journal.key}
    return Scores(split, tuple(seeds), scenes, facts)


def evaluate_scenes(
    wanted: Sequence[int],
    make: Callable[[Sequence[int]], Iterable[Case]],
    subject: Subject,
    tracker: Tracker | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    journal: Journal | None = None,
    say: Say = lambda text: None,
) -> tuple[SceneScore, ...]:
    """Judge a subject on scenes; those in the journal are taken from there. make: the scenes that are missing."""
    if not seeds:
        raise InvalidValueError("seeds of noise are needed, at least one", seen=list(seeds))
    scenes = {}
    if journal is not None:
        scenes = {scene: SceneScore(**journal.done[scene]) for scene in wanted if scene in journal.done}
        if journal.stale:
            say(journal.explain_stale())
    kept, started = len(scenes), time.perf_counter()
    for case in make([scene for scene in wanted if scene not in scenes]):
        scenes[case.seed] = _evaluate(case, subject, tracker, seeds, journal)
        each = (time.perf_counter() - started) / (len(scenes) - kept)
        left = each * (len(wanted) - len(scenes)) / 60
        say(f"{len(scenes)} of {len(wanted)} scenes, {each:.1f} s each, about {left:.0f} min left")
    return tuple(scenes[scene] for scene in wanted)


def _evaluate(
    case: Case, subject: Subject, tracker: Tracker | None, seeds: Sequence[int], journal: Journal | None
) -> SceneScore:
    """Judge one scene. With a journal, its clips are written and then its result, before the next scene."""
    judgement = judge(case, subject, tracker, seeds)
    score = score_of(case, judgement)
    if journal is not None:
        take = judgement.takes[score.shown]
        clips: dict[str, Video | MaskTrajectory | None] = {"truth": case.video, "masks": case.trajectory}
        clips |= {"moved": take.moved, "guided": take.guided, "whole": take.whole}
        write_clips(journal.path.parent / CLIPS / journal.key / str(case.seed), clips)
        journal.add(case.seed, asdict(score))
    return score


def score_of(case: Case, judgement: Judgement) -> SceneScore:
    """A judgement as plain values."""
    score = SceneScore(
        scene=case.seed,
        prompt=case.sample.scene.prompt,
        toys=[],
        tallies=judgement.tallies,
        by_take=judgement.by_take,
        unseen=unseen(case.toys, case.trajectory),
        seconds={name: round(value, 3) for name, value in judgement.seconds.items()},
    )
    ranks = [score.rank(take) for take in range(len(judgement.takes))]
    shown = ranks.index(min(ranks))
    take = judgement.takes[shown]
    return replace(score, shown=shown, toys=_toys(case, take.moved if take.moved is not None else take.found))


def _toys(case: Case, found: MaskTrajectory | None) -> list[dict[str, Any]]:
    """Each toy's name, its verb and, where there are masks to judge, its IoU and whether it went right."""
    names = {thing.id: thing.name for thing in case.sample.scene.objects}
    toys: list[dict[str, Any]] = [{"id": toy.id, "name": names[toy.id], "verb": toy.verb} for toy in case.toys]
    if found is None:
        return toys
    motions = object_motions(case.trajectory, found)
    for toy in toys:
        agreement = region_similarity(case.trajectory.labels == toy["id"], found.labels == toy["id"])[1:]
        toy["iou"] = round(float(agreement.mean()), 4)
        toy["right"] = goes_right(motions[toy["id"]]) if toy["id"] in motions else None
    return toys
