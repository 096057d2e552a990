"""Clauses told anew: for each object a local prompt, and the overall motion."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from . import lexicon as en
from .cast import Cast, Member, touches
from .complements import Clause
from .names import Names
from .nouns import Noun, Phrase
from .verbs import Verb

_WHERE = en.words("in on at near under beside among inside")
_BLOWS = en.INTO | {"hit", "strike", "push", "nudge"}
_STYLES = en.words("style 4k 8k lighting motion quality resolution")
_OUTSIDE = en.words("off-screen offscreen screen outside frame")
_Told = Mapping[Member, str]  # how to write some Members


class Teller:
    """Writes clauses with names for nouns."""

    def __init__(self, cast: Cast, names: Mapping[Member, Names]) -> None:
        self.cast, self.names = cast, names
        self._acts = any(member.acts for member in names)

    def subjects(self, clause: Clause) -> list[Member]:
        """The objects that a clause speaks of."""
        found = dict.fromkeys(m for noun in clause.subjects for m in self.cast.of(noun))
        return [member for member in found if member in self.names]

    def tells(self, clause: Clause) -> bool:
        """Whether a clause says what an object does, or that nothing moves at all."""
        if self.subjects(clause):
            return clause.verb is not None or not self._acts
        if self._undergoes(clause):
            return True
        all_or_none = bool(clause.subjects) and clause.subjects[0].pronoun in ("nothing", "everything")
        return all_or_none and clause.verb is not None

    def uses(self, clause: Clause) -> bool:
        """Whether anything is made of a clause, be it only that it names an object of others."""
        return self.tells(clause) or (clause.verb is None and bool(self.subjects(clause)))

    def _others(self, clause: Clause) -> list[tuple[Member, Phrase]]:
        pieces = [piece for piece in clause.pieces if isinstance(piece, Phrase)]
        return [(m, p) for p in pieces for noun in p.nouns for m in self.cast.of(noun) if m in self.names]

    def _undergoes(self, clause: Clause) -> bool:
        """Whether what is no object does something to one: "the wind blows the leaf away"."""
        plain = clause.verb is not None and not clause.verb.passive and bool(clause.subjects)
        camera = any(noun.head in en.CAMERA for noun in clause.subjects)
        return plain and not camera and any(touches(piece) for _, piece in self._others(clause))

    # One object

    def local_prompt(self, member: Member, clauses: Sequence[Clause]) -> str:
        """All that the clauses say of an object, as one sentence with it as the subject."""
        parts: list[str] = []
        told = self._told_of(member, clauses)
        last: Clause | None = None
        for clause in clauses:
            if member in self.subjects(clause):
                parts.append(self._own(member, clause, last if parts else None, bool(parts)))
                last = clause
            elif text := self._undergone(member, clause, told):
                parts.append(f"and {text}" if parts else text)
                last = None
        text = " ".join([f"the {self.names[member].name}", *(parts or [self._around(member, clauses)])])
        return " ".join(text.split()).replace(" ,", ",").replace(" 's", "'s")

    def _told_of(self, member: Member, clauses: Sequence[Clause]) -> set[tuple[str, str]]:
        """Who is said to do what to an object in passive clauses of its own, "" for any blow: not to be said twice."""
        told = set()
        for clause in clauses:
            if clause.verb and clause.verb.passive and member in self.subjects(clause):
                by = [self.names[m].name for m, piece in self._others(clause) if piece.preposition == "by"]
                told |= {(f"the {name}", lemma) for name in by for lemma in (clause.verb.lemma, "")}
        return told

    def _own(self, member: Member, clause: Clause, last: Clause | None, goes_on: bool) -> str:
        """What a clause says of its subject, joined to what was said before."""
        owned, many = _owned(clause), member.plural
        plural = clause.subjects[0].plural if owned else many
        text = self.predicate(clause, plural, {member: "themselves" if many else "itself"})
        if len(self.subjects(clause)) == 2:
            text = re.sub(r"\b(each other|one another)\b", "the other", text)
        if not goes_on:
            return f"'s {owned} {text}" if owned else text
        follows = last is not None and not clause.fresh and last.end >= clause.start - 2
        if clause.link in en.SUBORDINATORS and follows:  # "drives until it hits the truck"
            if clause.verb and clause.verb.form == "ing" and not owned:
                return f"{clause.link} {self._rest([*clause.verb.words, *clause.pieces], {})}"
            who = f"the {self.names[member].name}" if member.head in en.PEOPLE else "they" if many else "it"
            return f"{clause.link} its {owned} {text}" if owned else f"{clause.link} {who} {text}"
        joint = "and then" if clause.link == "then" else "but" if clause.link == "but" and follows else "and"
        return f"{joint} its {owned} {text}" if owned else f"{joint} {text}"

    def _undergone(self, member: Member, clause: Clause, told: set[tuple[str, str]]) -> str:
        """What a clause with another subject does to an object: it is pushed; or, after "by", it pushes."""
        piece = next((p for m, p in self._others(clause) if m is member), None)
        subjects, verb = self.subjects(clause), clause.verb
        if piece is None or verb is None or verb.negative or not (subjects or self._undergoes(clause)):
            return ""
        doers = self._doers(clause)
        if verb.passive and piece.preposition == "by" and verb.lemma in en.VERBS:
            acted = en.inflect(verb.lemma, "base" if member.plural else "third")
            rest = [p for p in clause.pieces if p is not piece]
            particles = [p for p in rest if isinstance(p, str) and p in en.ADVERBS]
            if particles:
                return f"{acted} {particles[0]} {doers}"  # "knocks over the vase"
            return f"{acted} {doers} {self._rest(rest, {})}"
        if verb.chained or not touches(piece) or self._is_told(doers, piece, told):
            return ""
        be = "are" if member.plural else "is"
        by = f"by {doers}" if doers else ""
        if piece.preposition:
            return f"{be} hit {by}"
        at = clause.pieces.index(piece)
        particles = [p for p in clause.pieces[:at] if isinstance(p, str) and p in en.ADVERBS]
        rest = list(clause.pieces[at + 1 :]) if piece.verb == verb.lemma else []
        while rest and isinstance(rest[0], str) and rest[0] in en.ADVERBS:  # "is blown away by the wind"
            particles.append(str(rest.pop(0)))
        after = self._rest(rest, {member: "itself"})
        return " ".join([be, en.inflect(piece.verb, "part"), *particles, by, after])

    def _doers(self, clause: Clause) -> str:
        """The subjects of a clause, with names; nothing for "someone"."""
        if self.subjects(clause):
            return self._listed([f"the {self.names[m].name}" for m in self.subjects(clause)], clause.joint)
        return self._listed([noun.text for noun in clause.subjects if not noun.pronoun], clause.joint)

    def _is_told(self, doer: str, piece: Phrase, told: set[tuple[str, str]]) -> bool:
        known = (doer, piece.verb) in told or (piece.verb in _BLOWS and (doer, "") in told)
        told.add((doer, piece.verb))
        return known

    def _around(self, member: Member, clauses: Sequence[Clause]) -> str:
        """The prompt of an object of which no clause says what it does: what happens around it."""
        for clause in clauses:
            subjects = self.subjects(clause)
            if subjects and any(m is member for m, _ in self._others(clause)):
                it = "them" if member.plural or member.head in en.PEOPLE else "it"
                return f", as {self._doers(clause)} {self.predicate(clause, _are_many(clause, subjects), {member: it})}"
        for clause in clauses:
            for phrase in (phrase for noun in clause.subjects for phrase in noun.after):
                if self.subjects(clause) and any(member in self.cast.of(noun) for noun in phrase.nouns):
                    return f", with the {self.names[self.subjects(clause)[0]].name} {phrase.preposition} it"
        return ""

    # One clause

    def predicate(self, clause: Clause, plural: bool, told: _Told, *, short: bool = False) -> str:
        """A clause without its subject, its verb in agreement."""
        verb = clause.verb
        if verb is None:
            told = {member: "it" if word == "itself" else word for member, word in told.items()}
            return self._rest([*(p for noun in clause.subjects for p in noun.after), *clause.pieces], told)
        pieces = clause.pieces
        if short and verb.lemma != "be" and not verb.passive:
            pieces = [p for p in pieces if isinstance(p, str) or not self._is_backdrop(p)]
        return " ".join([*verb.adverbs, *verb.agreeing(plural), self._rest(pieces, told, short=short)]).strip()

    def _rest(self, pieces: Sequence[str | Phrase], told: _Told, *, short: bool = False) -> str:
        texts = []
        for piece in pieces:
            if isinstance(piece, str):
                texts.append(piece)
            elif not _is_style(piece):
                nouns = self._listed([self._noun(noun, told, short) for noun in piece.nouns], piece.joint)
                texts.append(f"{piece.preposition} {nouns}".strip())
        return " ".join(texts)

    def _noun(self, noun: Noun, told: _Told, short: bool) -> str:
        members = [m for m in self.cast.of(noun) if m in self.names]
        if members and not (noun.owner and noun.head in en.BODY):
            return self._listed([told.get(m) or f"the {self._name(m, short)}" for m in members], "and")
        if not short or not noun.words:
            return noun.text
        kept = [word for word in noun.words if word.lower() not in en.QUALITIES | en.COLOURS | en.SIZES]
        text = noun.text.replace(" ".join(noun.words), " ".join(kept))
        return re.sub(r"^an? (?=(.))", lambda match: "an " if match[1] in "aeiou" else "a ", text)

    def _name(self, member: Member, short: bool) -> str:
        return self.names[member].short if short else self.names[member].name

    def _is_backdrop(self, piece: Phrase) -> bool:
        """Whether a phrase only says where things are: the paper's motion prompts leave that out."""
        noun = piece.nouns[0]
        backdrop = noun.words and not noun.owner and noun.head not in en.SIDES | en.FRAME
        return piece.preposition in _WHERE and bool(backdrop) and not any(m in self.names for m in self.cast.of(noun))

    @staticmethod
    def _listed(names: list[str], joint: str) -> str:
        names = list(dict.fromkeys(names))
        return f"{', '.join(names[:-1])} {joint} {names[-1]}" if len(names) > 1 else "".join(names)

    # All of it

    def motion_prompt(self, clauses: Sequence[Clause]) -> str:
        """The overall motion: the clauses in their order, with the shortest names that tell the objects apart."""
        sentences: list[str] = []
        last: list[Member] | None = None
        for n, clause in enumerate(clauses):
            subjects = self.subjects(clause)
            if last is None or clause.fresh:
                goes_on = clause.fresh and n + 1 < len(clauses) and not clauses[n + 1].fresh
                leads = f"{clause.link} " if clause.link in en.SUBORDINATORS and goes_on else ""
                sentences.append(leads + self._statement(clause, subjects, again=False))
            else:
                again = subjects == last and bool(subjects)
                sentences[-1] += _joint(clause.link, again) + self._statement(clause, subjects, again=again)
            last = subjects
        sentences = [" ".join(sentence.split()) for sentence in sentences]
        return " ".join(f"{s[0].upper()}{s[1:]}." for s in sentences if s)

    def _statement(self, clause: Clause, subjects: list[Member], *, again: bool) -> str:
        """A clause with short names; again: its subjects are those of the clause before."""
        if not subjects:
            return f"{clause.subjects[0].text} {self.predicate(clause, False, {}, short=True)}"
        owned = _owned(clause)
        names = [f"the {self.names[m].short}" + (f"'s {owned}" if owned else "") for m in subjects]
        told = {m: "themselves" if m.plural else "itself" for m in subjects}
        if again and clause.link in en.SUBORDINATORS and clause.verb and clause.verb.form == "ing":
            return self._rest([*clause.verb.words, *clause.pieces], told, short=True)  # "while holding a flower"
        plural = clause.subjects[0].plural if owned else _are_many(clause, subjects)
        text = self.predicate(clause, plural, told, short=True)
        silent = again and not owned and clause.link in ("and", "then", "but", "")
        return text if silent else f"{self._listed(names, clause.joint)} {text}"

    # Entering

    def enters(self, member: Member, clause: Clause) -> bool:
        """Whether a clause says that an object comes into the picture."""
        verb = clause.verb
        if verb is None or verb.negative or verb.passive:
            return False
        brought = any(_brings_in(piece, verb) for piece in clause.pieces)
        if member in self.subjects(clause):
            return verb.lemma in en.ENTER or brought
        return brought and any(m is member and not p.preposition for m, p in self._others(clause))  # "throws it in"


def _brings_in(piece: str | Phrase, verb: Verb) -> bool:
    """ "into view", "in" (from the left), "from off-screen"."""
    if isinstance(piece, str):
        return piece == "in" and verb.lemma not in ("climb", "get", "take", "let", "fill", "breathe")
    head = piece.nouns[0].head
    if piece.preposition in ("into", "inside", "in"):
        return head in en.FRAME | {"sight"} and (piece.preposition == "into" or verb.lemma in ("come", "walk", "run"))
    return piece.preposition.startswith("from") and head in _OUTSIDE


def _owned(clause: Clause) -> str:
    """ "tail" in "the dog's tail wags", a clause about the dog."""
    noun = clause.subjects[0] if clause.subjects else None
    return " ".join(noun.words) if noun and noun.owner and noun.head in en.BODY else ""


def _are_many(clause: Clause, subjects: list[Member]) -> bool:
    return (len(subjects) > 1 and clause.joint == "and") or any(member.plural for member in subjects)


def _joint(link: str, again: bool) -> str:
    """What joins a clause to the one before; again: of the same subjects."""
    if not link:
        return " and " if again else ", "
    if link == "then":
        return ", and then "
    return f" {link} " if again or link in en.SUBORDINATORS else f", {link} "


def styles(clause: Clause) -> list[Phrase]:
    """Phrases of a clause that speak of the picture's style, not of what happens."""
    return [piece for piece in clause.pieces if isinstance(piece, Phrase) and _is_style(piece)]


def _is_style(piece: Phrase) -> bool:
    return piece.preposition.startswith("in the style") or piece.nouns[0].head in _STYLES
