"""What can be said and asked of Toybox's scenes: their texts in several phrasings, what each text tells of each toy,
and phrases that name one toy. Made once, by physics alone, and kept as JSON lines."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import SampleError
from ..files import new_file
from ..toybox.kinds import COLOURS, HELD_OUT, SHAPES
from ..toybox.recipes import SCENES
from ..toybox.words import PACES, VERBS, WAYS
from .samples import runs

PLACES = ("left", "right", "front", "back", "middle")
SIDES = {"left": "right", "right": "left"}
# What the head predicts of each object, and what it can be; "" where the words leave it open.
FIELDS: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": tuple(SHAPES),
    "verb": tuple(VERBS),
    "way": ("", *WAYS),
    "pace": ("", *PACES),
}
KINDS = ("caption", "motion", "stripped", "prompt")  # of texts: the first three tell of all objects, the last of one


@dataclass(frozen=True)
class Toy:
    """What is true of one toy: what it is and, as `toybox.events.Claim` has it, what it does. bumped: by another."""

    colour: str
    shape: str
    size: str
    gloss: str
    verb: str
    way: str = ""
    pace: str = ""
    enters: str = ""
    leaves: str = ""
    bumped: bool = False
    passes: bool = False

    def mirrored(self) -> Toy:
        """The same in a picture whose left and right are swapped."""
        way = " ".join(SIDES.get(word, word) for word in self.way.split())
        enters, leaves = (SIDES.get(side, side) for side in (self.enters, self.leaves))
        return replace(self, way=way, enters=enters, leaves=leaves)


@dataclass(frozen=True)
class Telling:
    """One phrasing. names, prompts, ids: of each object in the caption's order of first mention; ids in the clip."""

    caption: str
    motion: str
    stripped: str
    names: tuple[str, ...]
    prompts: tuple[str, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Story:
    """A seed's toys, object k of the clip at k - 1, and its tellings; the first is the Sample's own."""

    seed: int
    toys: tuple[Toy, ...]
    tellings: tuple[Telling, ...]


class Phrase(NamedTuple):
    """Words for one toy. holds: "always", "at first" (in frame 0: it tells a place), or "never": a mask must help."""

    text: str
    holds: str


def read_story(seed: int, phrasings: int) -> Story:
    """The toys and texts of a seed. The telling k equals the text of `make_story(seed, phrasing=k)`."""
    from ..toybox import make_story
    from ..toybox.source import retell

    story = make_story(seed)
    tellings, own = [], story.text.order
    for phrasing in range(phrasings):
        text = retell(seed, phrasing, story.plan, story.sight, story.claims)
        ids = tuple(own.index(n) + 1 for n in text.order)
        tellings.append(Telling(text.caption, text.motion, text.stripped, text.names, text.prompts, ids))
    toys = []
    for n in own:
        toy, claim = story.plan.toys[n], story.claims[n]
        gloss, bumped = "shiny" if toy.shiny else "matte", claim.bumped_by >= 0
        deed = (claim.verb, claim.way, claim.pace, claim.enters, claim.leaves, bumped, bool(claim.passes))
        toys.append(Toy(toy.colour, toy.shape, toy.size_word, gloss, *deed))
    return Story(seed, tuple(toys), tuple(tellings))


class Stories(Sequence[Story]):
    """The stories in a file, read when one is asked for: other processes are handed the path alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return len(self._read)

    def __getitem__(self, index: Any) -> Any:
        return self._read[index]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @cached_property
    def _read(self) -> list[Story]:
        _, *lines = self.path.read_text(encoding="utf-8").splitlines()
        return [_story(json.loads(line)) for line in lines]


def make_stories(seeds: Sequence[int], path: Path, *, phrasings: int, workers: int = 1) -> Stories:
    """The stories of the seeds, from `path` if it holds them already, else written there by `workers` processes.

    Raises SampleError for a file of other seeds or phrasings.
    """
    made_of = {"scenes": SCENES, "seeds": runs(seeds), "phrasings": phrasings}
    if not path.exists():
        with new_file(path) as temporary:
            lines = [json.dumps(made_of), *_lines(seeds, phrasings, workers)]
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        first = file.readline().rstrip("\n")
    if json.loads(first) != made_of:
        raise SampleError(f"{path} holds other stories", seen=first, fix="name another cache")
    return Stories(path)


def texts_of(telling: Telling, kind: str) -> list[tuple[str, tuple[int, ...]]]:
    """The texts of a kind, each with the ids that it tells of, in its order."""
    if kind == "prompt":
        return [(prompt, (k,)) for prompt, k in zip(telling.prompts, telling.ids, strict=True)]
    return [(getattr(telling, kind), telling.ids)]


def said(text: str, toy: Toy, alone: bool) -> dict[str, str]:
    """What the text says of a toy, by the names of FIELDS, without what it leaves open. alone: it tells of no other.

    Follows `toybox.words`: which clauses leave out a verb (a push) or a direction (a way in or out of the frame).
    """
    told = {"shape": toy.shape, "verb": toy.verb, "way": toy.way, "pace": toy.pace}
    if f"{toy.colour} {toy.shape}" in text.lower():
        told["colour"] = toy.colour
    # "is pushed to the left" does not say whether it rolls.
    if toy.bumped and toy.verb not in ("stay", "nudge", "tip") and not (alone and _has(text, VERBS[toy.verb])):
        del told["verb"]
    over = toy.bumped and toy.verb == "tip"  # "is knocked over", whatever the way
    goes_in = toy.enters and not toy.passes and (toy.enters not in SIDES or toy.way != SIDES[toy.enters])
    goes_out = toy.leaves in SIDES and not toy.passes and not toy.bumped and toy.way != toy.leaves
    if toy.way and (over or goes_in or goes_out) and not (alone and _has(text, [WAYS[toy.way]])):
        del told["way"]
    return told


def draw_phrase(story: Story, telling: Telling, index: int, chance: np.random.Generator) -> Phrase:
    """Words for the telling's object `index`, as a person or a language model might name it."""
    toy, name = story.toys[telling.ids[index] - 1], telling.names[index]
    holds = "at first" if name.split()[0] in PLACES else "always"
    choice = chance.random()
    if choice < 0.25:
        return Phrase(telling.prompts[index], holds)
    plain = f"{toy.colour} {toy.shape}"
    if choice < 0.40:
        alike = [other for other in story.toys if other.shape == toy.shape]
        place = name.split()[0] if name.split()[0] in PLACES else ""
        if place and len({other.colour for other in alike}) == 1:  # "the left can": all cans are told apart by place
            name = f"{place} {toy.shape}"
        else:
            name, holds = toy.shape, "always" if len(alike) == 1 else "never"
    elif choice < 0.55 and name == plain:
        gloss = toy.gloss if chance.random() < 0.3 else ""
        name = " ".join(filter(None, (toy.size, gloss, plain)))
    return Phrase(_article(name, chance), holds)


def absent_phrase(story: Story, chance: np.random.Generator) -> str:
    """A name that no toy of the scene bears; often one shares its colour or its shape."""
    here = {(toy.colour, toy.shape) for toy in story.toys}
    # The held-out pairs are never named: to learn that they are nowhere would be to learn them.
    free = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in here and (c, s) not in HELD_OUT]
    toy = story.toys[int(chance.integers(len(story.toys)))]
    near = [pair for pair in free if (pair[0] == toy.colour) != (pair[1] == toy.shape)]
    some = near if chance.random() < 0.7 else free
    return _article(" ".join(some[int(chance.integers(len(some)))]), chance)


def misspell(text: str, share: float, chance: np.random.Generator) -> str:
    """The text with a letter dropped, doubled or swapped with the next in that share of its longer words."""
    words = text.split(" ")
    for index in np.flatnonzero(chance.random(len(words)) < share):
        word = words[index]
        if len(word) > 2:
            k, way = int(chance.integers(len(word) - 1)), int(chance.integers(3))
            words[index] = word[:k] + ("", word[k] * 2, word[k + 1] + word[k])[way] + word[k + (2 if way == 2 else 1) :]
    return " ".join(words)


def _article(name: str, chance: np.random.Generator) -> str:
    from ..toybox.words import with_article

    return (name, f"the {name}", with_article(name))[int(chance.integers(3))]


def _has(text: str, forms: Any) -> bool:
    return any(word in text for words in forms for word in words)


def _lines(seeds: Sequence[int], phrasings: int, workers: int) -> list[str]:
    if workers == 1:
        return [_line(seed, phrasings) for seed in seeds]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_line, seeds, [phrasings] * len(seeds), chunksize=8))


def _line(seed: int, phrasings: int) -> str:
    return json.dumps(asdict(read_story(seed, phrasings)))


def _story(record: dict[str, Any]) -> Story:
    def tupled(fields: dict[str, Any]) -> dict[str, Any]:
        return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}

    tellings = tuple(Telling(**tupled(telling)) for telling in record["tellings"])
    return Story(record["seed"], tuple(Toy(**toy) for toy in record["toys"]), tellings)
