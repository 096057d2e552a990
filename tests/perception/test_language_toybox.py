"""Rules for English against captions that were not written for them: Toybox's, whose objects and deeds are known."""

import re
from importlib.util import find_spec

import pytest

from throughmask.perception.english import lexicon
from throughmask.perception.language import read_prompt

# Not importorskip: MuJoCo chooses its OpenGL while it is imported, which only toybox.opengl may do.
pytestmark = pytest.mark.skipif(find_spec("mujoco") is None, reason="Toybox needs MuJoCo")
SEEDS = range(40)

# What may be said of a toy that does this (throughmask.toybox.words); one that is bumped may be said to be pushed.
VERBS = {
    "stay": {"stay", "rest", "stand", "not"},
    "roll": {"roll"},
    "slide": {"slide", "glide"},
    "hop": {"hop", "jump", "leap"},
    "jump": {"jump", "leap"},
    "spin": {"spin", "turn"},
    "tip": {"tip", "fall", "topple", "over"},
    "fall": {"fall", "drop"},
    "nudge": {"nudge", "move", "shift"},
}
WAYS = {
    "left": {"left", "leftward"},
    "right": {"right", "rightward"},
    "toward": {"toward", "front"},
    "away": {"away", "back"},
}
PUSHED = {"push", "knock"}


def stories(seeds):
    from throughmask.toybox import make_story

    for seed in seeds:
        story = make_story(seed)
        yield story.text.caption, story.text.names, [story.claims[n] for n in story.text.order]


def tells(thing, claim):
    """Whether an object's local prompt has the verb and the directions of what its toy does, and no opposite."""
    said = set(re.findall(r"[a-z]+", thing.prompt.replace(thing.name, "", 1)))
    verbs = said | {lemma for word in said for lemma, _ in lexicon.verb_forms(word)}
    if not verbs & (VERBS[claim.verb] | (PUSHED if claim.bumped_by >= 0 else set())):
        return False
    ways = [] if claim.enters or claim.verb in ("stay", "nudge") else claim.way.split()
    opposite = {"left": "right", "right": "left"}
    wrong = any(way in opposite and said & WAYS[opposite[way]] for way in ways)
    entering = claim.verb == "fall" or thing.enters == bool(claim.enters)
    return entering and not wrong and all(said & WAYS[way] for way in ways)


def measure(found):
    """The shares of captions whose names are found in order, and of objects that `tells` holds for."""
    named, told, turned = [], [], []
    for caption, names, claims in found:
        objects = read_prompt(caption).objects
        named.append(tuple(thing.name for thing in objects) == tuple(names))
        if named[-1]:
            told += [tells(thing, claim) for thing, claim in zip(objects, claims, strict=True)]
            if len(claims) > 1:  # the same with the claims of other toys
                turned += [tells(thing, claim) for thing, claim in zip(objects, claims[1:] + claims[:1], strict=True)]
    return [sum(which) / len(which) for which in (named, told, turned)]


@pytest.mark.slow
def test_captions_of_toybox():
    named, told, turned = measure(stories(SEEDS))
    assert named >= 0.95
    assert told >= 0.9
    assert turned < 0.5  # the measure tells one object from another
