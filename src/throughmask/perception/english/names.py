"""Names of objects: what a detector can see and place, and more where two would share a name; short ones for motion."""

from __future__ import annotations

from dataclasses import dataclass

from . import lexicon as en
from .cast import PLACES_OF, Member


@dataclass(frozen=True)
class Names:
    """name: "red ball". phrase: all that is said of its look, "big shiny red ball on a table". short: "ball"."""

    name: str
    phrase: str
    short: str


def names_of(members: list[Member], notes: list[str], *, strip: bool) -> dict[Member, Names]:
    """Names of all objects; strip: short names never have attributes. Guesses are told in `notes`."""
    full = _told_apart(members, notes)
    short = {m: " ".join((*(w for w in m.words[:-1] if not _is_attribute(w)), m.words[-1], *m.tail)) for m in members}
    if not strip:
        short |= {m: full[m] for group in _alike(short) for m in group}
    return {m: Names(full[m], _phrase(m), short[m]) for m in members}


def _told_apart(members: list[Member], notes: list[str]) -> dict[Member, str]:
    """Colour and kind; where that is not enough also size and praise, what it has on or is on, and at last a guess."""
    full = {m: _joined(m, en.QUALITIES if m.restricts else en.QUALITIES | en.SIZES) for m in members}
    full |= {m: _joined(m, frozenset()) for group in _alike(full) for m in group}
    full |= {m: " ".join([full[m], *_looks(m)]) for group in _alike(full) for m in group}
    for group in _alike(full):
        if len(group) in PLACES_OF and not any(m.place for m in group):
            for member, place in zip(group, PLACES_OF[len(group)], strict=True):
                member.place, full[member] = place, f"{place} {full[member]}"
            notes.append(f"{' and '.join(full[m] for m in group)}: which is which is a guess")
        else:
            notes.append(f"{len(group)} objects are all named {full[group[0]]!r}: say what tells them apart")
    return full


def _alike(names: dict[Member, str]) -> list[list[Member]]:
    """Those that share a name."""
    groups: dict[str, list[Member]] = {}
    for member, name in names.items():
        groups.setdefault(name.lower(), []).append(member)
    return [group for group in groups.values() if len(group) > 1]


def _joined(member: Member, without: frozenset[str]) -> str:
    kept = [word for word in member.words[:-1] if word.lower() not in without]
    while kept and kept[0] == "and":
        kept.pop(0)
    return " ".join([*([member.place] if member.place else []), *kept, member.words[-1], *member.tail])


def _looks(member: Member) -> list[str]:
    return [f"{p.preposition} {' '.join((*p.nouns[0].words, *p.nouns[0].tail))}" for p in member.after[:1]]


def _phrase(member: Member) -> str:
    after = [f"{p.preposition} {' and '.join(noun.text for noun in p.nouns)}" for p in member.after]
    return " ".join([_joined(member, frozenset()), *after])


def _is_attribute(word: str) -> bool:
    return en.is_adjective(word.lower()) or word == "and"
