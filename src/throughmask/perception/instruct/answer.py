"""A model's answer: its JSON schema, and its way into a Reading.

What a model gets wrong and code can put right is put right here: order, articles, attributes in the motion prompt.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import ThroughMaskError
from ...types import MAX_OBJECTS
from ..language import Named, Reading

TEXTS = ("words", "kind", "name", "phrase", "prompt")
MAX_ANSWER = 100_000  # characters; 255 objects need fewer
MAX_TEXT = 2000  # characters; text encoders read fewer
MAX_NAME = 80  # characters; detectors read few words
MAX_MISTAKES = 5  # told at once
_OBJECT = {**{name: {"type": "string"} for name in TEXTS}, "enters": {"type": "boolean"}}
# Every property is required and nothing is bounded: what the strict mode of hosted servers takes.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "motion_prompt": {"type": "string"},
        "objects": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": _OBJECT,
                "required": list(_OBJECT),
                "additionalProperties": False,
            },
        },
    },
    "required": ["motion_prompt", "objects"],
    "additionalProperties": False,
}
_STRAIGHT = str.maketrans("‘’“”", "''\"\"")


class AnswerError(ThroughMaskError):
    """A language model's answer from which no Reading can be made."""


@dataclass(frozen=True)
class _Told:
    """An object as a model tells it; the fields of the schema."""

    words: str
    kind: str
    name: str
    phrase: str
    prompt: str
    enters: bool


def reading_of(answer: str, prompt: str, *, strip_attributes: bool = False) -> Reading:
    """The Reading in a model's answer, which may stand in a fence, after thoughts, or between sentences.

    Raises AnswerError with its mistakes and its beginning.
    """
    mistakes: list[str] = []
    said = _json(answer, mistakes)
    motion = _text(said, "motion_prompt", "", mistakes) if said else ""
    told = _objects(said["objects"], prompt, mistakes) if said else []
    if mistakes:
        shown = "; ".join(mistakes[:MAX_MISTAKES])
        fix = "take a larger model, say the prompt more simply, or read it by rule, without a model"
        problem = f"the language model's answer cannot be used: {shown}"
        raise AnswerError(problem, seen=plain(answer) or "an empty answer", fix=fix)
    told = _in_order(told, prompt)
    kinds = Counter(thing.kind for thing in told)
    bare = [thing for thing in told if strip_attributes or kinds[thing.kind] == 1]
    motion = _without_attributes(motion, bare)
    notes = [f"{thing.name!r} is what {thing.words!r} names" for thing in told if not _spans(thing.name, prompt)]
    vague = [thing.name for thing in told if thing not in bare and not _spans(thing.name, motion)]
    if vague:
        notes.append(f"the motion prompt does not tell apart: {', '.join(vague)}")
    if not told:
        notes.append("no object is named")
    objects = tuple(Named(thing.name, thing.phrase, thing.prompt, thing.enters) for thing in told)
    return Reading(prompt, motion, objects, notes=tuple(notes))


def plain(text: str) -> str:
    """Text from elsewhere on one line, without what a terminal would obey or cannot show."""
    return " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).split())


def _json(answer: str, mistakes: list[str]) -> dict[str, Any] | None:
    """The first JSON object that has objects; None, and a mistake, if there is none."""
    if len(answer) > MAX_ANSWER:
        mistakes.append(f"it is far too long ({len(answer)} characters)")
        return None
    text = answer.rpartition("</think>")[2]
    for brace in re.finditer("{", text):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, brace.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found.get("objects"), list):
            return found
    mistakes.append('it is not one whole JSON object with "motion_prompt" and a list "objects"')
    return None


def _text(said: dict[str, Any], key: str, where: str, mistakes: list[str]) -> str:
    value = said.get(key)
    text = plain(value) if isinstance(value, str) else ""
    if not text:
        mistakes.append(f'{where}"{key}" is missing or no text')
    elif len(text) > (most := MAX_NAME if key in ("kind", "name") else MAX_TEXT):
        mistakes.append(f'{where}"{key}" is longer than {most} characters')
    return text


def _objects(items: list[Any], prompt: str, mistakes: list[str]) -> list[_Told]:
    if len(items) > MAX_OBJECTS:
        mistakes.append(f"it lists {len(items)} objects, and at most {MAX_OBJECTS} are possible")
        return []
    told = []
    for k, item in enumerate(items, 1):
        where = f"object {k}: "
        if not isinstance(item, dict):
            mistakes.append(f"{where}it is no JSON object")
            continue
        texts = {key: _text(item, key, where, mistakes) for key in TEXTS}
        texts |= {key: _bare_noun(texts[key]) for key in ("kind", "name")}
        if not isinstance(item.get("enters"), bool):
            mistakes.append(f'{where}"enters" is neither true nor false')
            continue
        texts["words"] = texts["words"].strip(" .,;:!?\"'")
        if not _spans(texts["words"], prompt):
            texts["words"] = texts["name"]
        if not all(texts.values()):
            continue
        if not _spans(texts["words"], prompt):
            mistakes.append(
                f'{where}{texts["name"]!r} is not named in the prompt: copy the words that name it to "words", '
                "or leave it out"
            )
        told.append(_Told(**texts, enters=item["enters"]))
    for name, count in Counter(thing.name for thing in told).items():
        if count > 1:
            mistakes.append(f'{count} objects are named {name!r}: tell them apart by position, such as "left {name}"')
    return told


def _bare_noun(text: str) -> str:
    """Lower case, as names are looked up; without article and punctuation."""
    return re.sub(r"^(an?|the) ", "", text.lower()).strip(" .,;:!?\"'")


def _in_order(told: Sequence[_Told], prompt: str) -> list[_Told]:
    """In the order in which the prompt first names them. Members of a group stay as they are."""
    start: dict[str, int] = {}
    claimed: list[tuple[int, int]] = []
    # "ball" is not where "red ball" stands, if that is another object
    for words in sorted({thing.words for thing in told}, key=lambda words: (-len(words), words)):
        spans = _spans(words, prompt)
        free = [(a, b) for a, b in spans if not any(c <= a and b <= d for c, d in claimed)]
        start[words] = (free or spans)[0][0]
        claimed += spans
    return sorted(told, key=lambda thing: start[thing.words])


def _spans(words: str, text: str) -> list[tuple[int, int]]:
    """Where words stand in a text, as whole words, whatever their case, spaces and quotation marks."""
    words, text = (" ".join(one.translate(_STRAIGHT).casefold().split()) for one in (words, text))
    pattern = re.escape(words)
    if words.isascii():  # scripts without spaces have no whole words
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return [match.span() for match in re.finditer(pattern, text)] if words else []


def _without_attributes(motion: str, told: Sequence[_Told]) -> str:
    """The motion prompt with "ball" for each "big red ball"."""
    for thing in told:
        noun = rf"{re.escape(thing.kind)}(?!\w)"
        parts = [re.split(rf"(?<!\w){noun}", text.lower()) for text in (thing.name, thing.phrase)]
        looks = {word for before, *after in parts if after for word in re.findall(r"[\w'-]+", before)}
        looks -= {"a", "an", "the", "and"}
        if not looks:
            continue
        words = "|".join(map(re.escape, sorted(looks, key=len, reverse=True)))
        pattern = rf"(?<![\w'-])(an? )?((?:{words})(?:,? and |, | ))+({noun})"
        motion = re.sub(pattern, _with_article, motion, flags=re.I)
    return motion


def _with_article(match: re.Match[str]) -> str:
    """The noun of "a big red ball", with its article."""
    article, noun = match[1], match[3]
    if article:
        noun = f"{article[0]}{'n' if noun[0].lower() in 'aeiou' else ''} {noun}"
    return noun[0].upper() + noun[1:] if match[0][0].isupper() else noun
