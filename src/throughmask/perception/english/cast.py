"""Who is who: noun phrases and pronouns to Members, and which Members are objects (paper: "motion-capable")."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from . import lexicon as en
from .complements import Clause
from .nouns import ORDINALS, Noun, Phrase

PLACES_OF = {2: ("left", "right"), 3: ("left", "middle", "right")}


@dataclass(eq=False)
class Member:
    """Something that the prompt speaks of. words: adjectives and head; tail: "of birds"; place: where it is.

    start: the token of its first mention. restricts: "the" makes its adjectives more than ornament .
    """

    words: tuple[str, ...]
    tail: tuple[str, ...] = ()
    place: str = ""
    plural: bool = False
    restricts: bool = False
    after: list[Phrase] = field(default_factory=list)
    start: int = 0
    met: bool = False  # it is more than the owner of something
    subject: bool = False
    told: bool = False  # it is the subject of a verb
    acts: bool = False  # of one that is more than "is red"
    touched: bool = False

    @property
    def head(self) -> str:
        return self.words[-1].lower()

    @property
    def kind(self) -> str:
        return en.singular(self.head)

    @property
    def marks(self) -> frozenset[str]:
        """What tells it from others of its kind."""
        return _marks(self.words, self.place)


class Cast:
    """The Members of a prompt; `of` gives those that a Noun stands for. notes: guesses that a person should know of."""

    def __init__(self, clauses: list[Clause]) -> None:
        self.members: list[Member] = []
        self.notes: list[str] = []
        self._of: dict[Noun, list[Member]] = {}
        self._groups: list[list[Member]] = []
        self._recent: list[Member] = []  # the last mentioned comes last
        self._subjects: list[Member] = []
        self._told: list[Member] = []  # those of a group that "one" has spoken of
        for clause in clauses:
            self._read(clause)

    def of(self, noun: Noun) -> list[Member]:
        return self._of.get(noun, [])

    def objects(self) -> list[Member]:
        """Those that act, are acted upon, or are of a kind that moves; scenery only if it acts alone."""
        able = [m for m in self.members if m.head not in en.NEVER]
        found = [m for m in able if m.acts or m.touched or (m.met and (m.head in en.MOVERS or m.kind in en.MOVERS))]
        found = [m for m in found if m.head not in en.SCENERY]
        found = found or [m for m in able if m.told] or [m for m in able if m.head not in en.SCENERY and m.subject]
        return sorted(found, key=lambda m: m.start)

    # Clause by clause

    def _read(self, clause: Clause) -> None:
        start = min((noun.start for noun in clause.subjects), default=0)
        phrases = [piece for piece in clause.pieces if isinstance(piece, Phrase)]
        before = [phrase for phrase in phrases if 0 < phrase.end <= start]
        self._mention(before)
        subjects = self._all(clause.subjects, True)
        if len(subjects) > 1:
            self._groups.append(subjects)
        self._subjects = subjects or self._subjects
        self._take_places(clause)
        self._mention([piece for piece in clause.pieces if isinstance(piece, Phrase) and piece not in before])
        state = clause.verb is not None and clause.verb.lemma == "be" and not phrases
        for member in subjects:
            member.subject = True
            member.told |= clause.verb is not None
            member.acts |= clause.verb is not None and not state
        self._touch(clause)

    def _take_places(self, clause: Clause) -> None:
        """ "waves to the ball on the right": a place that tells the ball from another one belongs to its name."""
        for piece, after in pairwise(clause.pieces[:]):
            if isinstance(piece, Phrase) and isinstance(after, Phrase) and after.start == piece.end:
                noun, place = piece.nouns[-1], _side(after)
                others = {m.place for m in self.members if m.head == noun.head and m.place} - {place}
                if (place and others) or (after.dress and noun.head in en.PEOPLE):
                    noun.after.append(after)
                    clause.pieces.remove(after)

    def _all(self, nouns: list[Noun], subject: bool) -> list[Member]:
        found: list[Member] = []
        for noun in nouns:
            found += [member for member in self._resolve(noun, subject) if member not in found]
            self._mention(noun.after)
        for member in found:
            member.met = True
        return found

    def _mention(self, phrases: list[Phrase]) -> None:
        for phrase in phrases:
            known = len(self.members)
            members = self._all(phrase.nouns, False)
            if phrase.preposition in ("like", "as"):  # "barks like a dog": there is none
                for member in self.members[known:]:
                    member.met = False
            if len(members) > 1:
                self._groups.append(members)

    def _touch(self, clause: Clause) -> None:
        passive = clause.verb is not None and clause.verb.passive
        if any(noun.head in en.CAMERA for noun in clause.subjects):
            return
        for piece in clause.pieces:
            if isinstance(piece, Phrase) and (touches(piece) or (passive and piece.preposition == "by")):
                for member in (m for noun in piece.nouns for m in self.of(noun)):
                    member.touched = True

    # Whom a noun stands for

    def _resolve(self, noun: Noun, subject: bool) -> list[Member]:
        if noun in self._of:
            return self._of[noun]
        if noun.owner:
            self._resolve(noun.owner, subject)
        if noun.owner and noun.head in en.BODY:
            found = self._of[noun.owner]  # "its tail": the dog
        else:
            found = self._pronoun(noun, subject) if noun.pronoun else self._named(noun)
        self._of[noun] = found
        self._recent = [m for m in self._recent if m not in found] + found
        return found

    def _pronoun(self, noun: Noun, subject: bool) -> list[Member]:
        word, single = noun.pronoun, [m for m in self._recent if not m.plural]
        if word in ("they", "them", "both", "themselves"):
            plural = [m for m in self._recent[-1:] if m.plural]
            return plural or (self._groups[-1] if self._groups else self._recent[-2:])
        if word in ORDINALS:
            group = self._groups[-1] if self._groups else []
            return group[ORDINALS.index(word) : ORDINALS.index(word) + 1]
        if word in ("one", "other", "others"):
            return self._of_group(noun, word)
        if word in ("it", "itself"):
            return self._thing(single, word, subject)
        if word in ("he", "she", "him", "her", "himself", "herself", "who"):
            people = [m for m in single if m.head in en.PEOPLE]
            return (people or [m for m in single if m.head in en.ANIMALS] or single)[-1:]
        return []

    def _thing(self, single: list[Member], word: str, subject: bool) -> list[Member]:
        """ "it": the subject of before, or as an object something else."""
        things = [m for m in single if m.head not in en.PEOPLE]
        if word == "it" and not subject:
            things = [m for m in things if m not in self._subjects] or things
        things = [m for m in things if m.head not in en.NEVER | en.SCENERY] or things
        things = [m for m in things if m.subject or m.touched] or things
        return ([m for m in things if m in self._subjects] or things)[-1:]

    def _of_group(self, noun: Noun, word: str) -> list[Member]:
        """ "one", "the other", "another", "the others"."""
        group = self._groups[-1] if self._groups else []
        rest = [m for m in group if m not in self._told]
        if word == "others":
            return rest
        if noun.article == "another" or (not group and word == "other"):
            like = (self._subjects or self._recent)[-1:]
            return [self._new(noun, "", like[0].words[-1:])] if like else []
        rest = rest or group or self._recent[-1:]
        if word == "one":
            self._told = rest[:1]
        return rest[:1]

    def _named(self, noun: Noun) -> list[Member]:
        place = _take_place(noun)
        if noun.head in ("one", "ones") and (told := self._the_one(noun, place)):
            return told
        other = noun.article == "another" or any(word.lower() == "other" for word in noun.words)
        noun.words = tuple(word for word in noun.words if word.lower() not in ("other", "same")) or noun.words
        kind = en.singular(noun.head)
        known = [m for m in self.members if m.kind == kind and (not m.tail or not noun.tail or m.tail == noun.tail)]
        known = [m for m in known if _marks(noun.words, place) <= m.marks]
        if noun.plural:
            return self._several(noun, known, place)
        fitting = [m for m in known if not m.plural and (not noun.after or not m.after or _same_look(noun, m))]
        if other:
            rest = [m for m in fitting if m not in self._told and m not in self._subjects]
            rest = rest or [m for m in fitting if m not in self._subjects]
            return rest[:1] if rest and noun.article != "another" else [self._new(noun, place)]
        if noun.number == 1:
            self._told = [m for m in fitting if m not in self._told][:1] or [self._new(noun, place)]
            return self._told
        if not fitting or noun.article in ("a", "an"):
            return [self._new(noun, place)]
        exact = [m for m in fitting if m.marks == _marks(noun.words, place)] or fitting
        return [max(exact, key=self._recent.index)]

    def _the_one(self, noun: Noun, place: str) -> list[Member]:
        """ "the blue one" is a blue what? And "two boys ...; the taller one" names a boy whose name was a guess."""
        heads = [m for m in self._recent if m.head not in en.NEVER]
        heads = [m for m in heads if m.subject or any(m in group for group in self._groups)] or heads
        if not heads:
            return []
        noun.words = (*noun.words[:-1], heads[-1].words[-1])
        group = [m for m in (self._groups[-1] if self._groups else []) if m.words[-1] == noun.words[-1]]
        rest = [m for m in group if m not in self._told and m.place in PLACES_OF.get(len(group), ())]
        known = frozenset(noun.words[:-1]) <= frozenset().union(*(m.marks for m in group))
        if not rest or known or place:
            return []
        rest[0].words, rest[0].place, rest[0].restricts = noun.words, "", True
        self._told = [*self._told, rest[0]]
        return rest[:1]

    def _several(self, noun: Noun, known: list[Member], place: str) -> list[Member]:
        """ "the dogs", "two dogs": Members known before, several new ones, or one that is many."""
        single = [m for m in known if not m.plural]
        if many := [m for m in known if m.plural]:
            return many[-1:]
        definite = noun.article in ("the", "these", "those") or noun.owner
        if definite and len(single) > 1 and noun.number in (0, len(single)):
            return single
        if noun.number not in PLACES_OF or place:
            return [self._new(noun, place)]
        one = (*noun.words[:-1], en.singular(noun.words[-1]))
        group = [self._new(noun, at, one) for at in PLACES_OF[noun.number]]
        self._groups.append(group)
        self._told = []
        names = " and ".join(" ".join(("the", m.place, *one)) for m in group)
        self.notes.append(f"{noun.text!r} is read as {names}; which is which is a guess")
        return group

    def _new(self, noun: Noun, place: str, words: tuple[str, ...] = ()) -> Member:
        restricts = noun.article in ("the", "this", "that")
        plural = noun.plural and not words
        member = Member(words or noun.words, noun.tail, place, plural, restricts, noun.after, noun.start)
        self.members.append(member)
        self._recent.append(member)
        return member


def touches(piece: Phrase) -> bool:
    """Whether a verb moves, hits or goes after these nouns."""
    if not piece.preposition:
        return piece.verb in en.CONTACT
    if piece.preposition == "into" and piece.verb in en.INTO - en.COLLIDE:
        return piece.nouns[0].head not in en.PLACES
    return piece.preposition in ("with", "into", "against") and piece.verb in en.COLLIDE


def _marks(words: tuple[str, ...], place: str) -> frozenset[str]:
    marks = frozenset(word.lower() for word in words[:-1]) - en.QUALITIES - {"and"}
    return marks | {place} if place else marks


def _same_look(noun: Noun, member: Member) -> bool:
    looks = [[(p.preposition, p.nouns[0].text) for p in phrases] for phrases in (noun.after, member.after)]
    return looks[0] == looks[1]


def _side(phrase: Phrase) -> str:
    """ "on the left" is left."""
    noun = phrase.nouns[0]
    plain = len(noun.words) == 1 and noun.owner is None and phrase.preposition in ("on", "in", "at", "to")
    side = noun.head if plain and noun.head in en.POSITIONS else ""
    return "middle" if side in ("center", "centre") else side


def _take_place(noun: Noun) -> str:
    """The place in what follows a noun, which then is no longer there: "the ball on the left" is the left ball."""
    for phrase in noun.after:
        if side := _side(phrase):
            noun.after.remove(phrase)
            return side
    return ""
