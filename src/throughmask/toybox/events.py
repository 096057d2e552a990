"""From what happened to what can truly be said of it: one `Claim` for each toy, or a reason why words would fail.

Everything is measured on the states and on the picture, nothing is taken from what the toys were set to do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .camera import Array
from .kinds import SHAPES
from .plan import Plan
from .sight import Sight
from .world import States, matrix

# Shares of the picture's width. Between STILL and MOVED no word fits, so such scenes are drawn anew.
STILL, MOVED = 0.018, 0.045
STIRRED = 0.012  # a toy that has gone so far goes by itself
PACES = {"roll": (0.42, 0.86), "slide": (0.62, 1.08), "spin": (3.8, 6.8)}  # below: slowly, above: quickly
OCCLUDED = 0.2  # share of a toy that must be hidden for a word about it


@dataclass(frozen=True)
class Claim:
    """What the words say of a toy. Other toys are given by their number in the plan.

    verb: stay, roll, slide, hop, jump, spin, tip, fall, nudge. way: in the picture: left, right, toward, away, or
    two of them ("right away"). bumps: toys it ran into, in order. bumped_by: who set it going. after: what came of a
    bump or a landing: back, stop. passes: ("behind" or "before", toy).
    """

    verb: str
    way: str = ""
    pace: str = ""
    enters: str = ""
    leaves: str = ""
    bumps: tuple[int, ...] = ()
    bumped_by: int = -1
    after: str = ""
    passes: tuple[tuple[str, int], ...] = ()

    @property
    def moves(self) -> bool:
        return self.verb != "stay"


class Illegible(Exception):  # noqa: N818 (a verdict on a scene, not a mistake)
    """Why no words fit a scene."""


@dataclass(frozen=True, eq=False)
class Track:
    """Measures of one toy. shift: T 2, from its first place in the picture. turns: T-1 3, rotation vectors. tilt: T."""

    shift: Array
    floor_shift: Array
    turns: Array
    tilt: Array
    lift: Array
    first_touch: int

    @property
    def excursion(self) -> float:
        return float(np.hypot(*self.shift.T).max())


def claims(plan: Plan, states: States, sight: Sight, fps: float) -> tuple[Claim, ...]:
    """One claim for each toy. Raises Illegible if one cannot be described."""
    tracks = [_track(states, sight, n) for n in range(len(plan.toys))]
    _check_legible(plan, states, sight)
    bumps, bumped_by = _roles(states, tracks)
    found = []
    for n, track in enumerate(tracks):
        claim = _claim(plan, states, sight, n, track, fps, bumps[n], bumped_by[n])
        found.append(claim)
    if len(found) > 1:
        silent = {n for n, toy in enumerate(plan.toys) if toy.act.silent}
        if any(found[n] != Claim("stay") for n in silent):
            raise Illegible("a toy that nobody speaks of is touched")
        found = [_with_passes(n, claim, found, states, sight, silent) for n, claim in enumerate(found)]
    return tuple(found)


def _track(states: States, sight: Sight, n: int) -> Track:
    turned = matrix(states.rotations[:, n])
    steps = turned[1:] @ turned[:-1].transpose(0, 2, 1)
    up = (turned @ turned[0].T)[:, 2, 2]
    position = states.positions[:, n]
    touches = [int(c.frame) for c in states.contacts if n in (c.first, c.second)]
    return Track(
        sight.places[:, n] - sight.places[0, n],
        position[:, :2] - position[0, :2],
        _vectors(steps),
        np.degrees(np.arccos(up.clip(-1, 1))),
        position[:, 2] - position[0, 2],
        min(touches, default=len(position) - 1),
    )


def _vectors(turns: Array) -> Array:
    """Rotation matrices (T 3 3) to rotation vectors (T 3)."""
    skew = np.stack(
        [turns[:, 2, 1] - turns[:, 1, 2], turns[:, 0, 2] - turns[:, 2, 0], turns[:, 1, 0] - turns[:, 0, 1]], -1
    )
    sine = np.linalg.norm(skew, axis=1) / 2
    cosine = (np.trace(turns, axis1=1, axis2=2) - 1) / 2
    angle = np.arctan2(sine, cosine)
    return skew / (2 * np.maximum(sine, 1e-9))[:, None] * angle[:, None]


def _check_legible(plan: Plan, states: States, sight: Sight) -> None:
    frames = len(states.positions)
    if states.failed or states.positions[..., 2].min() < 0:
        raise Illegible("the physics failed")
    for n in range(len(plan.toys)):
        inside, seen = sight.inside[:, n], sight.seen[:, n]
        enters, leaves = inside[0] == 0, inside[-1] == 0
        if not enters and (inside[0] < 0.9 or seen[0] < 0.5):
            raise Illegible("a toy is cut or hidden at the start")
        if seen.max() < 0.6:
            raise Illegible("a toy is never seen well")
        if enters and (leaves or inside[-1] < 0.95):
            raise Illegible("a toy does not come all the way in")
        if not leaves and (inside[-1] < 0.6 or seen[-1] < 0.3):
            raise Illegible("a toy is cut or hidden at the end")
        if states.walled[n] < frames and inside[states.walled[n]] > 0:
            raise Illegible("a toy touches a wall")
        if leaves and (inside == 0).sum() < 2:
            raise Illegible("a toy leaves at the very end")


def _roles(states: States, tracks: list[Track]) -> tuple[list[tuple[int, ...]], list[int]]:
    """For each toy, whom it ran into, and who set it going."""
    bumps: list[list[int]] = [[] for _ in tracks]
    bumped_by = [-1] * len(tracks)
    for contact in sorted(states.contacts, key=lambda c: c.frame):
        fast, slow = contact.first, contact.second
        speeds = contact.speeds
        if speeds[1] > speeds[0]:
            fast, slow, speeds = slow, fast, speeds[::-1]
        if speeds[0] < 0.05:
            raise Illegible("two toys touch in passing")
        bumps[fast].append(slow)
        at = int(contact.frame) + 1
        track = tracks[slow]
        moved = (
            np.hypot(*track.shift[:at].T).max() > STIRRED or np.abs(track.turns[: at - 1].sum(0)).max(initial=0) > 0.3
        )
        if not moved and bumped_by[slow] < 0 and not bumps[slow]:
            bumped_by[slow] = fast
    if any(len(some) > 2 for some in bumps):
        raise Illegible("too many bumps to tell")
    return [tuple(some) for some in bumps], bumped_by


def _claim(
    plan: Plan, states: States, sight: Sight, n: int, track: Track, fps: float, bumps: tuple[int, ...], by: int
) -> Claim:
    toy = plan.toys[n]
    rolling = float(np.hypot(track.turns[:, 0], track.turns[:, 1]).sum())
    yaw = abs(float(track.turns[:, 2].sum()))
    enters, leaves = _edges(sight, n)
    if not toy.rolls and 25 < track.tilt[-1] < 60:
        raise Illegible("a toy leans at the end")
    if leaves and not _leaves_on_the_floor(states, sight, n):
        raise Illegible("a toy leaves through the air")
    if not states.grounded[0, n]:
        way = _after_landing(states, n, track)
        return Claim("fall", way, enters=enters, bumps=bumps)
    if track.excursion < STILL and rolling < 0.35 and yaw < 0.35:
        return Claim("stay", bumped_by=by)
    before = track.first_touch
    high = track.lift[: before + 1].max() > 0.1 and by < 0 and not states.grounded[: before + 1, n].all()
    far = float(np.hypot(*track.floor_shift[-1]))
    if high and track.lift.max() > 0.18:
        if far < 0.12:
            return Claim("jump", bumps=bumps)
        return Claim("hop", _way(_travel(sight, n, track)), bumps=bumps)
    if not toy.rolls and track.tilt[-1] >= 60:
        if track.tilt.max() > 140:
            raise Illegible("a toy turns head over heels")
        return Claim("tip", _way(_travel(sight, n, track), 40), enters=enters, leaves=leaves, bumps=bumps, bumped_by=by)
    if yaw > 2.4 and far < 0.15 and by < 0 and rolling < 1:
        rate = float(np.abs(track.turns[:, 2]).max() * fps)
        return Claim("spin", pace=_pace("spin", rate), bumps=bumps)
    if by >= 0 and track.excursion < 0.06 and not leaves:
        return Claim("nudge", bumped_by=by, bumps=bumps)
    if track.excursion < MOVED:
        raise Illegible("a toy barely moves")
    return _travelling(plan, sight, n, track, fps, rolling, Claim("", "", "", enters, leaves, bumps, by))


def _travelling(plan: Plan, sight: Sight, n: int, track: Track, fps: float, rolling: float, claim: Claim) -> Claim:
    toy = plan.toys[n]
    path = float(np.hypot(*np.diff(track.floor_shift, axis=0).T).sum())
    wheel = toy.size * (0.66 if toy.lying else SHAPES[toy.shape].wheel)
    share = rolling / (path / wheel)
    verb = "roll" if toy.rolls and share > 0.5 else "slide" if share < 0.3 else "tumble"
    if verb == "tumble" or (toy.rolls and 0.3 <= share <= 0.5):
        raise Illegible("a toy neither rolls nor slides")
    rested = float(np.hypot(*track.shift[: track.first_touch + 1].T).max()) < STIRRED
    if claim.bumped_by < 0 and not claim.bumps and rested and track.first_touch < len(track.shift) - 1:
        raise Illegible("a toy that spins is pushed away")  # and words would say that it goes by itself
    first = track.first_touch if claim.bumped_by < 0 and claim.bumps else len(track.shift) - 1
    if first < 3 and claim.bumps:
        raise Illegible("a toy bumps too early")
    way, pace, after = _way(_travel(sight, n, track, first)), "", ""
    if verb in PACES and claim.bumped_by < 0:
        start = next(t for t in range(len(track.shift)) if np.hypot(*track.floor_shift[t]) > 0.005)
        # Before anything is touched, which may slow it down.
        steps = np.hypot(*np.diff(track.floor_shift[start : min(start + 5, first) + 1], axis=0).T)
        if len(steps) < 2:
            raise Illegible("too short to see how fast")
        pace = _pace(verb, float(np.median(steps)) * fps)
    if claim.bumps and claim.bumped_by < 0 and not claim.leaves:
        went, on = track.shift[first], track.shift[-1] - track.shift[first]
        along = float(on @ went / max(float(np.hypot(*went)), 1e-6))
        across = math.sqrt(max(0.0, float(on @ on) - along**2))
        if along < -0.03:
            after = "back"
        elif float(np.hypot(*on)) < 0.03:
            after = "stop"
        elif across > 0.6 * max(along, 0.03) and across > 0.04:
            raise Illegible("a toy is thrown off its way")
        if after == "back" and float(np.hypot(*track.shift[-1])) < MOVED:
            raise Illegible("a toy ends where it began")
    if claim.enters in ("left", "right") and way != {"left": "right", "right": "left"}[claim.enters]:
        raise Illegible("a toy comes in askew")
    return Claim(verb, way, pace, claim.enters, claim.leaves, claim.bumps, claim.bumped_by, after)


def _edges(sight: Sight, n: int) -> tuple[str, str]:
    inside, places = sight.inside[:, n], sight.places[:, n]
    return (_side(places[0]) if inside[0] == 0 else ""), (_side(places[-1]) if inside[-1] == 0 else "")


def _leaves_on_the_floor(states: States, sight: Sight, n: int) -> bool:
    """Whether a toy that leaves the frame has never left the floor while it was seen."""
    seen = sight.inside[:, n] > 0
    return bool(states.grounded[seen, n].mean() > 0.9)


def _side(place: Array) -> str:
    x, y = place
    if x < 0 or x > 1:
        return "left" if x < 0 else "right"
    return "above" if y < 0 else "front"


def _travel(sight: Sight, n: int, track: Track, until: int = -1) -> Array:
    """The displacement in the picture while the toy was at least half inside of it, up to a frame."""
    last = until if until >= 0 else len(track.shift) - 1
    inside = np.flatnonzero(sight.inside[: last + 1, n] > 0.5)
    if len(inside) < 2:
        raise Illegible("a toy is not in the picture long enough")
    places = sight.places[:, n]
    return np.asarray(places[inside[-1]] - places[inside[0]])


def _after_landing(states: States, n: int, track: Track) -> str:
    landed = np.flatnonzero(states.grounded[:, n])
    if not len(landed):
        raise Illegible("a toy is still falling at the end")
    on = track.shift[-1] - track.shift[landed[0]]
    far = float(np.hypot(*on))
    if 0.03 <= far < MOVED + 0.015:
        raise Illegible("a toy hardly moves after it has landed")
    return _way(on) if far >= MOVED else ""


def _way(shift: Array, wide: float = 26) -> str:
    """A displacement in words: one direction of the picture, or two where neither is within `wide` degrees."""
    x, y = float(shift[0]), float(shift[1])
    if math.hypot(x, y) < 0.02:
        raise Illegible("a toy has no direction")
    angle = math.degrees(math.atan2(abs(y), abs(x)))
    if min(abs(angle - wide), abs(angle - 90 + wide)) < 2:
        raise Illegible("a direction lies between the words")
    sideways, deep = "right" if x > 0 else "left", "toward" if y > 0 else "away"
    if angle < wide:
        return sideways
    return deep if angle > 90 - wide else f"{sideways} {deep}"


def _pace(verb: str, speed: float) -> str:
    low, high = PACES[verb]
    if min(abs(speed / low - 1), abs(speed / high - 1)) < 0.05:
        raise Illegible("a pace lies between the words")
    return "slowly" if speed < low else "quickly" if speed > high else ""


def _with_passes(
    n: int, claim: Claim, all_claims: list[Claim], states: States, sight: Sight, silent: set[int]
) -> Claim:
    """The claim with whom the toy passes behind or in front of, to be hidden or to hide on the way."""
    if claim.verb not in ("roll", "slide") or claim.bumped_by >= 0:
        return claim
    passes = []
    for m in range(len(all_claims)):
        touched = any({n, m} == {c.first, c.second} for c in states.contacts)
        if m == n or m in silent or touched or all_claims[m].verb not in ("stay", "spin", "jump"):
            continue
        behind, before = sight.hidden[:, n, m].max(), sight.hidden[:, m, n].max()
        apart = sight.places[:, n, 0] - sight.places[:, m, 0]
        near = 0.6 * (sight.extent[0, n] + sight.extent[0, m]) * 0.7
        if apart[0] * apart[-1] < 0 and min(abs(apart[0]), abs(apart[-1])) > near:
            if behind >= OCCLUDED:
                passes.append(("behind", m))
            elif before >= OCCLUDED:
                passes.append(("before", m))
    if len(passes) > 2:
        raise Illegible("too many toys passed")
    return Claim(**{**claim.__dict__, "passes": tuple(passes)})
