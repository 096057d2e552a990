"""Seeds to Samples: the scene is drawn, simulated, measured and told; what words do not fit is drawn anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction

import numpy as np

from ..errors import InvalidValueError
from ..types import MaskTrajectory, Origin, Sample, Scene, SceneObject, Video, exact_fps
from .events import MOVED, Claim, Illegible, claims
from .looks import draw_looks
from .mjcf import build
from .plan import VERBS, Plan, draw_acts, draw_kicks, draw_plan
from .recipes import MAX_SEED, MAX_TOYS, Stream, chance, chance_of_number, recipe_of
from .render import render
from .sight import Sight, look
from .truth import Deed, Thing, Truth, forward_flow
from .words import Text, tell
from .world import States, simulate, steps_per_frame

ATTEMPTS = 400
SAME_ACTS = 25
AGAIN_ATTEMPTS = 200
RETELLINGS = 20
PROBES = 2  # times that a scene with a touch is played again before it counts as decided by its words
AGREES = 0.3  # how far, relative to its length, a displacement may then be off


@dataclass(frozen=True, eq=False)
class Story:
    """A scene that words fit: made by physics alone, nothing drawn yet."""

    seed: int
    attempt: int
    again: int
    size: tuple[int, int]
    fps: Fraction
    plan: Plan
    states: States
    sight: Sight
    claims: tuple[Claim, ...]
    text: Text


def make_story(
    seed: int,
    *,
    again: int = 0,
    phrasing: int = 0,
    size: tuple[int, int] = (256, 256),
    frames: int = 25,
    fps: object = 12,
    toys: int | None = None,
    verbs: tuple[str, ...] = (),
) -> Story:
    """The scene of a seed, without pictures; the same arguments give the same states and words, byte for byte.

    again: 0 is the scene itself; any other number plays the same scene and words with hidden parameters drawn anew.
    phrasing: another number tells the same in other words. Raises InvalidValueError for arguments out of range.
    """
    rate = _check(seed, again, phrasing, size, frames, fps, toys, verbs)
    recipe = recipe_of(seed, toys=toys, verbs=tuple(verbs))
    number = recipe.choose_number(chance_of_number(seed))
    aspect, seconds = size[1] / size[0], float((frames - 1) / rate)
    for attempt in range(1, ATTEMPTS + 1):
        # What toys do is kept for a while, or the motions that are hard to get right would become rare.
        acts = draw_acts(recipe, number, chance(seed, Stream.SCENE, 0, (attempt - 1) // SAME_ACTS))
        plan = draw_plan(recipe, acts, chance(seed, Stream.SCENE, attempt), aspect, seconds)
        if plan is None:
            continue
        stage = _Stage(plan, frames, rate)
        try:
            states, sight, found = stage.play(chance(seed, Stream.HIDDEN, attempt, 0))
            if (recipe.entering and not any(c.enters for c in found)) or not _decided(
                stage, seed, attempt, sight, found
            ):
                continue
            text = tell(plan, sight, found, chance(seed, Stream.WORDS))  # one phrasing decides for all
        except Illegible:
            continue
        if phrasing:
            text = retell(seed, phrasing, plan, sight, found)
        if again:
            states, sight = _again(stage, seed, attempt, again, found)
        return Story(seed, attempt, again, size, rate, plan, states, sight, found, text)
    fix = "other seeds, verbs or a longer clip will do"
    raise InvalidValueError("no scene that words fit was found for this seed", seen=seed, fix=fix)


def make_sample(seed: int, *, stripped: bool = False, gl_device: int | None = None, **options: object) -> Sample:
    """The Sample of a seed; options as for `make_story`. stripped: a motion prompt without attributes, as the paper's.

    Raises InvalidValueError for arguments out of range, NoOpenGLError where nothing can be rendered.
    """
    return draw(make_story(seed, **options), stripped=stripped, gl_device=gl_device)[0]  # type: ignore[arg-type]


def make_sample_with_truth(
    seed: int, *, stripped: bool = False, gl_device: int | None = None, flow: bool = True, **options: object
) -> tuple[Sample, Truth]:
    """The Sample of a seed and all that is known about it; without `flow`, Truth.flow is None, which is faster."""
    story = make_story(seed, **options)  # type: ignore[arg-type]
    return draw(story, stripped=stripped, gl_device=gl_device, flow=flow)


def retell(seed: int, phrasing: int, plan: Plan, sight: Sight, claims: tuple[Claim, ...]) -> Text:
    """A scene that words fit, in those of a phrasing. One in thousands of them would leave a toy without a name that
    another one touches: then it is phrased anew.
    """
    for draw in range(RETELLINGS):
        try:
            return tell(plan, sight, claims, chance(seed, Stream.WORDS, phrasing, draw))
        except Illegible:
            continue
    return tell(plan, sight, claims, chance(seed, Stream.WORDS))


class ToyboxSource:
    """Toybox in memory, for training: item k is the Sample of `seeds[k]`. Can be pickled, and serves many processes.

    seeds: any sequence of seeds, all those of training by default. options: as for `make_sample`.
    """

    def __init__(self, seeds: range | tuple[int, ...] = range(1_000_000), **options: object) -> None:
        if not len(seeds):
            raise InvalidValueError("a source needs at least one seed")
        self.seeds, self.options = seeds, options

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Sample:
        return make_sample(self.seeds[index], **self.options)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


class _Stage:
    """A plan with its model, to be played with several hidden parameters."""

    def __init__(self, plan: Plan, frames: int, fps: Fraction) -> None:
        self.plan, self.frames, self.fps = plan, frames, fps
        self.model = build(plan, float(1 / fps / steps_per_frame(fps)))

    def play(self, hidden: np.random.Generator) -> tuple[States, Sight, tuple[Claim, ...]]:
        states = simulate(self.model, self.plan, draw_kicks(self.plan, hidden), self.frames, self.fps)
        sight = look(self.model, self.plan, states)
        return states, sight, claims(self.plan, states, sight, float(self.fps))


def _decided(stage: _Stage, seed: int, attempt: int, sight: Sight, found: tuple[Claim, ...]) -> bool:
    """Whether the words decide the outcome: a scene with touches must come out alike when it is played again."""
    touches = any(claim.bumps or claim.bumped_by >= 0 for claim in found)
    for probe in range(PROBES if touches else 0):
        try:
            _, other, other_claims = stage.play(chance(seed, Stream.HIDDEN, attempt, 0, 1 + probe))
        except Illegible:
            return False
        if other_claims != found:
            return False
        for n in range(len(found)):
            moved, also = (s.seen_places[-1, n] - s.seen_places[0, n] for s in (sight, other))
            length = float(np.hypot(*moved))
            if length > MOVED and float(np.hypot(*(also - moved))) > AGREES * length:
                return False
    return True


def _again(stage: _Stage, seed: int, attempt: int, again: int, found: tuple[Claim, ...]) -> tuple[States, Sight]:
    for draw in range(AGAIN_ATTEMPTS):
        try:
            states, sight, other = stage.play(chance(seed, Stream.HIDDEN, attempt, again, draw))
        except Illegible:
            continue
        if other == found:
            return states, sight
    raise InvalidValueError("the scene never came out alike again", seen=f"seed {seed}, again {again}")


def draw(
    story: Story, *, stripped: bool = False, gl_device: int | None = None, film: bool = True, flow: bool = False
) -> tuple[Sample, Truth]:
    """Render a story; without `film` the Sample has no video, which is faster.

    Raises NoOpenGLError where nothing can be rendered.
    """
    looks = draw_looks(chance(story.seed, Stream.LOOKS), story.plan.room.yaw)
    pictures = render(story.plan, looks, story.states, story.size, film=film, depth=flow, gl_device=gl_device)
    text = story.text
    ids = np.zeros(len(story.plan.toys) + 1, np.uint8)
    ids[np.array(text.order) + 1] = np.arange(1, len(text.order) + 1)
    labels = ids[pictures.labels]
    objects = tuple(
        SceneObject(k, name, prompt) for k, (name, prompt) in enumerate(zip(text.names, text.prompts, strict=True), 1)
    )
    motion = text.stripped if stripped else text.motion
    again = f", again {story.again}" if story.again else ""
    sample = Sample(
        Scene(pictures.pixels[0], labels[0], text.caption, motion, objects),
        MaskTrajectory(labels, story.fps),
        Video(pictures.pixels, story.fps) if film else None,
        Origin(f"throughmask.toybox, seed {story.seed}{again}", "CC0-1.0"),
    )
    moved = None
    if flow and pictures.depth is not None:
        moved = forward_flow(story.plan.camera, story.states, pictures.labels, pictures.depth)
    return sample, truth_of(story, moved)


def truth_of(story: Story, flow: object = None) -> Truth:
    """What is known of a scene, objects in id order; `flow` as `forward_flow` gives it."""
    order = list(story.text.order)
    ids = {n: k for k, n in enumerate(order, 1)}
    ids[-1] = 0
    sight, states = story.sight, story.states
    deeds, objects = [], []
    for n in order:
        claim, toy = story.claims[n], story.plan.toys[n]
        seen = np.flatnonzero(sight.seen[:, n] > 0)
        shift = sight.seen_places[seen[-1], n] - sight.seen_places[seen[0], n]
        fields = {
            **asdict(claim),
            "bumps": tuple(ids[m] for m in claim.bumps),
            "bumped_by": ids[claim.bumped_by],
            "passes": tuple((kind, ids[m]) for kind, m in claim.passes),
        }
        deeds.append(Deed(**fields, displacement=(float(shift[0]), float(shift[1]))))
        objects.append(Thing(toy.shape, toy.colour, toy.size, toy.shiny))
    return Truth(
        story.seed,
        story.attempt,
        story.again,
        tuple(objects),
        tuple(deeds),
        story.plan.camera,
        states.positions[:, order],
        states.rotations[:, order],
        sight.places[:, order],
        sight.seen[:, order],
        sight.hidden[:, order][:, :, order],
        tuple(
            (round(c.frame, 3), min(pair), max(pair))
            for c in states.contacts
            for pair in [(ids[c.first], ids[c.second])]
        ),
        story.text.stripped,
        flow,  # type: ignore[arg-type]
    )


def _check(
    seed: int,
    again: int,
    phrasing: int,
    size: tuple[int, int],
    frames: int,
    fps: object,
    toys: int | None,
    verbs: tuple[str, ...],
) -> Fraction:
    for what, value, least, most in (
        ("a seed", seed, 0, MAX_SEED),
        ("again", again, 0, MAX_SEED),
        ("a phrasing", phrasing, 0, MAX_SEED),
        ("the number of frames", frames, 9, 1000),
        ("the height", size[0], 32, 2048),
        ("the width", size[1], 32, 2048),
        ("the number of toys", 1 if toys is None else toys, 1, MAX_TOYS),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
            raise InvalidValueError(f"{what} must be a whole number from {least} to {most}", seen=value)
    if size[0] % 2 or size[1] % 2:
        even = f"{size[0] + size[0] % 2}x{size[1] + size[1] % 2}"
        raise InvalidValueError("height and width must be even", seen=f"{size[0]}x{size[1]}", fix=f"such as {even}")
    if not 0.5 <= size[1] / size[0] <= 2:
        fix = "at most twice as wide as high, or twice as high as wide"
        raise InvalidValueError("the room does not fit a picture of this form", seen=f"{size[0]}x{size[1]}", fix=fix)
    unknown = [verb for verb in verbs if verb not in VERBS]
    if unknown:
        raise InvalidValueError("toys know no such motion", seen=", ".join(unknown), fix=f"known: {', '.join(VERBS)}")
    rate = exact_fps(fps)
    seconds = (frames - 1) / rate
    if not 1 <= seconds <= 10:
        fix = "25 frames at 12 fps are two seconds"
        raise InvalidValueError("a clip must last from 1 to 10 seconds", seen=f"{float(seconds):.2f} s", fix=fix)
    return rate
