"""A prompt to what the method needs of it: a motion prompt, and for each object a name and a local prompt.

Where the paper asks Llama (Sec. 3.1, Fig. 10 and 11), `EnglishRules` reads English by rule, without any model.
`Language` is the door for either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from ..errors import InvalidValueError
from ..types import MAX_OBJECTS
from .english.cast import Cast
from .english.clauses import ClauseReader
from .english.names import names_of
from .english.telling import Teller, styles
from .english.tokens import Token, tokenize

MAX_WORDS = 2000  # a text encoder reads a few hundred
_EMOJI = re.compile("[\u2190-\u2bff\U0001f000-\U0001faff][\ufe0f\u200d\U0001f000-\U0001faff]*")


@dataclass(frozen=True)
class Named:
    """An object: its name, "red ball"; all that the prompt says of its look, "big red ball in a box"; its local prompt.

    enters: its verb says that it enters the frame, so it may be missing from the picture.
    """

    name: str
    phrase: str
    prompt: str
    enters: bool = False


@dataclass(frozen=True)
class Reading:
    """What was read in a prompt. objects: id k is the k-th, in the order in which the prompt first names them.

    unused: spans of the prompt that nothing was made of. notes: guesses, and what a person should know.
    """

    prompt: str
    motion_prompt: str
    objects: tuple[Named, ...]
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Language(Protocol):
    """Reads prompts: rules here, a language model elsewhere."""

    def read(self, prompt: str) -> Reading: ...


@dataclass(frozen=True)
class EnglishRules:
    """The Language that needs no model. strip_attributes: see `read_prompt`."""

    strip_attributes: bool = False

    def read(self, prompt: str) -> Reading:
        return read_prompt(prompt, strip_attributes=self.strip_attributes)


@dataclass(frozen=True)
class Known:
    """The Language of one prompt that was read before: a model is asked once."""

    reading: Reading

    def read(self, prompt: str) -> Reading:
        return self.reading


def read_prompt(prompt: str, *, strip_attributes: bool = False) -> Reading:
    """Read an English prompt. A prompt that names nothing gives no objects, and a note that says so.

    strip_attributes: the motion prompt calls objects by their kind alone, as the paper does, even if two share it.
    Raises InvalidValueError if it is empty, too long, or names more objects than there are ids.
    """
    tokens = _checked(prompt)
    reader = ClauseReader(tokens)
    clauses = reader.read()
    cast = Cast(clauses)
    members, notes = cast.objects(), list(cast.notes)
    if len(members) > MAX_OBJECTS:
        fix = f"name at most {MAX_OBJECTS}"
        raise InvalidValueError("the prompt names too many objects", seen=len(members), fix=fix)
    names = names_of(members, notes, strip=strip_attributes)
    teller = Teller(cast, names)
    told = [clause for clause in clauses if teller.tells(clause)]
    objects = tuple(
        Named(names[m].name, names[m].phrase, teller.local_prompt(m, told), any(teller.enters(m, c) for c in told))
        for m in members
    )
    if not objects:
        notes.append("no object is named")
    spans = [(c.start, c.end) for c in clauses if not teller.uses(c)] + reader.skipped
    spans += [(phrase.start, phrase.end) for clause in told for phrase in styles(clause)]
    return Reading(prompt, teller.motion_prompt(told), objects, _unused(prompt, tokens, spans), tuple(notes))


def _checked(prompt: str) -> list[Token]:
    if not isinstance(prompt, str) or not prompt.strip():
        fix = 'say what moves, such as "the red ball rolls to the left"'
        raise InvalidValueError("the prompt is empty", seen=prompt, fix=fix)
    tokens = tokenize(prompt)
    if len(tokens) > MAX_WORDS:
        fix = f"say what moves in at most {MAX_WORDS} words"
        raise InvalidValueError("the prompt is too long", seen=f"{len(tokens)} words", fix=fix)
    return tokens


def _unused(prompt: str, tokens: list[Token], spans: list[tuple[int, int]]) -> tuple[str, ...]:
    """Spans of tokens as text, in order, those that touch as one; and emoji."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        elif start < end:
            merged.append((start, end))
    texts = [prompt[tokens[start].start : tokens[end - 1].end].strip(" \n\t,.;:!?") for start, end in merged]
    return tuple(dict.fromkeys(text for text in (*_EMOJI.findall(prompt), *texts) if text))
