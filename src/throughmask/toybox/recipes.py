"""What a seed promises: how many toys, from which split; and the independent streams of chance behind a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from ..errors import InvalidValueError

SCENES = 2  # what seeds mean, for caches of them; 2: in training the number of toys says nothing of what they do
TRAINING = range(0, 1_000_000)
TRAINING_TWINS = range(900_000, 1_000_000)  # of these; elsewhere no two toys are alike, and no text tells a place
TRAINING_BYSTANDERS = range(800_000, 900_000)  # of these; elsewhere every toy is named
MAX_SEED = 2**53  # a whole number that JSON keeps
MAX_TOYS = 5
NUMBERS = (0.30, 0.18, 0.20, 0.17, 0.15)  # of 1 to 5 toys, in training


@dataclass(frozen=True)
class Recipe:
    """What must hold of a scene; every seed has one. toys: how many, None where chance decides (`least` or more)."""

    toys: int | None = None
    least: int = 1
    entering: bool = False  # one toy is not in frame 0 and comes in
    twins: bool = False  # two toys share colour and shape
    bystanders: bool = False  # some toys stand about that no word names and no mask shows
    held_out: bool = False  # one toy is of a colour and shape never seen together in training
    verbs: tuple[str, ...] = ()  # only these motions are set going; empty: all

    def choose_number(self, chance: np.random.Generator) -> int:
        least = max(self.least, 2 if self.twins or self.bystanders else 1)
        number = int(chance.choice(np.arange(1, MAX_TOYS + 1), p=np.array(NUMBERS) / sum(NUMBERS)))
        if number < least:
            number = int(chance.integers(least, MAX_TOYS + 1))
        return self.toys or number


SPLITS = {
    "training": (TRAINING, Recipe()),
    "toybox-single": (range(1_000_000, 1_000_064), Recipe(toys=1)),
    "toybox-multi": (range(1_100_000, 1_100_064), Recipe(least=2)),
    "toybox-entering": (range(2_000_000, 2_000_064), Recipe(least=2, entering=True)),
    "toybox-twins": (range(3_000_000, 3_000_064), Recipe(twins=True)),
    "toybox-compositional": (range(4_000_000, 4_000_064), Recipe(held_out=True)),
    "toybox-bystanders": (range(5_000_000, 5_000_064), Recipe(bystanders=True)),
}
HELD_OUT_SPLITS = ("toybox-128", *(name for name in SPLITS if name != "training"))


def split_seeds(name: str) -> tuple[int, ...]:
    """The seeds of a held-out split; toybox-128 is toybox-single and then toybox-multi, 64 scenes each.

    Raises InvalidValueError for an unknown name, and for "training", which is every seed below a million.
    """
    if name == "toybox-128":
        return split_seeds("toybox-single") + split_seeds("toybox-multi")
    if name not in HELD_OUT_SPLITS:
        raise InvalidValueError("there is no such split", seen=name, fix=f"known: {', '.join(HELD_OUT_SPLITS)}")
    return tuple(SPLITS[name][0])


def recipe_of(seed: int, *, toys: int | None = None, verbs: tuple[str, ...] = ()) -> Recipe:
    """What the seed promises; seeds between the splits are like training. `toys` and `verbs` overrule it."""
    # A split has room to grow: its seeds keep their meaning up to the next hundred thousand.
    fitting = (r for seeds, r in SPLITS.values() if seeds.start <= seed < max(seeds.stop, seeds.start + 100_000))
    recipe = next(fitting, Recipe())
    if seed in TRAINING_TWINS or seed in TRAINING_BYSTANDERS:
        recipe = Recipe(twins=seed in TRAINING_TWINS, bystanders=seed in TRAINING_BYSTANDERS)
    return replace(recipe, toys=toys or recipe.toys, verbs=verbs)


class Stream(IntEnum):
    """Independent chances of one seed: `again` redraws HIDDEN alone, another phrasing WORDS alone."""

    SCENE = 0
    HIDDEN = 1
    WORDS = 2
    LOOKS = 3
    NUMBER = 4


def chance(seed: int, stream: Stream, *more: int) -> np.random.Generator:
    """numpy takes zeros at the end of `more` for nothing: with 0 or 0, 0 it is the same chance as without."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int(stream), *more])))


def chance_of_number(seed: int) -> np.random.Generator:
    """What the number of toys is drawn from. Held-out scenes draw their first motion from the same chance, so a number
    goes with some motions there; they stay what they are, as results are told of them. In training, where numbers
    decide all scenes with one toy, no such toy would fall, slide, hop, jump, spin or tip over.
    """
    return chance(seed, Stream.NUMBER if seed in TRAINING else Stream.SCENE)
