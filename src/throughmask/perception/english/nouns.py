"""Noun phrases: who and what. No list of nouns: a noun is what nothing else explains.

A word that may be a noun or a verb is decided by what stands around it, and by where the noun phrase stands (`Slot`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum

from . import lexicon as en
from .tokens import CLOSED, Token, Tokens

LONGEST_NAME = 12  # words of one noun phrase
LONGEST_LIST = 12  # noun phrases before the "and" that closes a list
DEEPEST_OF = 3  # "a box of bags of cups of tea"
ORDINALS = ("first", "second", "third")
_OWNERS = {"its": "it", "his": "he", "her": "she", "their": "they"}
_POINTING = ("another", "each", "some", "this", "that", "these", "those")


class Slot(IntEnum):
    """What may follow a noun phrase: no verb of its own; one that an earlier noun still lacks; its own."""

    OBJECT = 0
    BETWEEN = 1
    SUBJECT = 2


@dataclass(eq=False)
class Noun:
    """A noun phrase, tokens `start` to `end`. words: from the first adjective to the head; tail: "of birds".

    owner: whose it is. after: where it is and what it has on: "in a red dress".
    """

    start: int
    end: int = 0
    article: str = ""
    number: int = 0
    words: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    pronoun: str = ""
    owner: Noun | None = None
    after: list[Phrase] = field(default_factory=list)
    text: str = ""

    @property
    def head(self) -> str:
        return self.words[-1].lower() if self.words else ""

    @property
    def plural(self) -> bool:
        return self.number > 1 or en.is_plural(self.head) or self.pronoun in ("they", "both", "them")

    @property
    def bare(self) -> bool:
        return not (self.article or self.owner or self.number)

    @property
    def single(self) -> bool:
        """Whether its article says that it is one thing."""
        return self.article in ("a", "an", "this", "that", "each", "every", "another") or self.number == 1

    @property
    def moves(self) -> bool:
        """Whether it is of a kind that moves of its own accord."""
        return self.head in en.MOVERS or en.singular(self.head) in en.MOVERS


@dataclass(eq=False)
class Phrase:
    """Nouns under a preposition, or without one a verb's objects; `verb` is the lemma that they belong to."""

    preposition: str
    nouns: list[Noun]
    verb: str = ""
    joint: str = "and"
    start: int = 0
    end: int = 0

    @property
    def dress(self) -> bool:
        """ "in red", "in a red dress"."""
        noun = self.nouns[0]
        return self.preposition == "in" and (noun.head in en.CLOTHES or (noun.bare and noun.head in en.COLOURS))


class NounReader(Tokens):
    """Reads noun phrases at the reading point, which moves past what was read."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.verbs_at: set[int] = set()  # words taken for verbs because of what stands around them
        self._of_depth = 0

    def nouns(self, slot: Slot = Slot.OBJECT, governed: bool = False) -> tuple[list[Noun], str]:
        """One noun phrase, or several joined by commas and "and", and what joins them; governed: by a preposition."""
        first = self.noun(slot, governed)
        if first is None:
            return [], ""
        found, joint, end = [first], "and", self.i
        waiting: list[Noun] = []
        while len(waiting) < LONGEST_LIST:
            conjunction = self._joint()
            more = self._one_more(first, conjunction, governed)
            if more is None or (more.pronoun and not slot):
                break
            if not self._goes_on(slot, conjunction):
                if not slot and (en.as_form(self.word(self.i), "base") or self.word(self.i) in ("are", "were", "have")):
                    found, end = [first], first.end  # "behind the box, and the ball and the top stay"
                break
            waiting.append(more)
            if conjunction in ("and", "or", "nor"):  # a list is one only when "and" has closed it
                _share_head(first, more)
                found, waiting, end = found + waiting, [], self.i
                joint = "and" if conjunction == "and" else "or"
        self.i = end
        return found, joint if len(found) > 1 else "and"

    def _joint(self) -> str:
        """Passes over ",", "and" or both: the word, the comma, or nothing."""
        comma = self.word(self.i) == ","
        word = self.word(self.i + comma)
        conjunction = word in ("and", "or", "nor")
        self.i += comma + conjunction
        return word if conjunction else "," * comma

    def _one_more(self, first: Noun, joint: str, governed: bool) -> Noun | None:
        more = self.noun(Slot.SUBJECT) if joint else None
        if more is None and len(joint) > 1 and governed and not first.article and self.bounds(self.i + 1):
            return self.noun(governed=True)  # "with food and drinks"
        return more

    def _goes_on(self, slot: Slot, joint: str) -> bool:
        """Whether a noun after a comma or "and" is one more of a list, and not the subject of a clause to come."""
        if slot:
            return joint != "," or self.word(self.i) in (",", "and", "or")
        saved = self.i
        while self.preposition(self.i):  # "and the ball on the right spins"
            self.i += self.preposition(self.i)
            if self.noun(Slot.SUBJECT, governed=True) is None:
                break
        acts = self.word(self.i) in en.RELATIVES or self.verb_at(self.i) or en.as_form(self.word(self.i), "third")
        self.i = saved
        return not acts and (joint != "," or self.word(self.i) in (",", "and", "or"))

    def verb_at(self, k: int) -> bool:
        while en.is_adverb(self.word(k)):
            k += 1
        return self.word(k) in en.AUXILIARIES or (k in self.verbs_at and self.word(k) not in en.POSITIONS)

    # One noun phrase

    def noun(self, slot: Slot = Slot.OBJECT, governed: bool = False) -> Noun | None:
        """The noun phrase at the reading point, or nothing, and then the point stays."""
        start = k = self.i
        if self.adverbial(k):
            return None
        noun = Noun(start)
        k = self._determiners(noun, self._quantifier(noun, k))
        if not noun.pronoun:
            words, k = self._words(noun, k, slot, governed)
            k = self._of(noun, words, self._pronominal(noun, words, k), slot)
            noun.words = tuple(words)
        if not noun.words and not noun.pronoun:
            return None
        noun.end, noun.text = k, self.shown(start, k)
        self.i = k
        return noun

    def _quantifier(self, noun: Noun, k: int) -> int:
        """Passes over "all", "both of", "just" before an article or number."""
        word, after = self.word(k), self.word(k + 1)
        if word in ("all", "both", "each", "either", "neither", "just", "only", "not", "half") and (
            after in en.ARTICLES or after in en.POSSESSIVES or after == "of" or after in en.NUMBERS
        ):
            noun.article = "the" if word in ("all", "both") else ""
            return k + (2 if after == "of" else 1)
        return k

    def _determiners(self, noun: Noun, k: int) -> int:
        word = self.word(k)
        if word in en.PRONOUNS and not (word == "her" and self.noun_like(k + 1)):
            if word == "both" and self.noun_like(k + 1) and not self.verb_alone(k + 1):
                noun.article, noun.number = "the", 2
            else:
                noun.pronoun = word
            return k + 1
        if word in en.POSSESSIVES:
            noun.owner = Noun(k, k + 1, pronoun=_OWNERS.get(word, "i"), text=word)
            k += 1
        elif word in en.ARTICLES and (word != "that" or self.noun_like(k + 1)):
            noun.article = word
            k += 1
            if word == "another" and self.verb_alone(k):
                noun.pronoun = "other"
                return k
        return self._number(noun, k)

    def _number(self, noun: Noun, k: int) -> int:
        word = self.word(k)
        number = int(word) if re.fullmatch("[1-9][0-9]?", word) else en.NUMBERS.get(word, 0)
        if number and not (number == 1 and noun.article):
            noun.number = number
            k += 1
            if self.verb_alone(k):
                noun.pronoun = "one" if number == 1 else "they"
            if self.word(k) == "of" and self.word(k + 1) == "them":
                noun.pronoun = "one" if number == 1 else "they"
                return k + 2
            if self.word(k) == "of" and (self.word(k + 1) in en.ARTICLES or self.word(k + 1) in en.POSSESSIVES):
                noun.article = "" if number == 1 else "the"  # one of the dogs
                k += 2
        elif word in en.MANY:
            k += 1
        elif word in ("other", "others") and self.verb_alone(k + 1):
            noun.pronoun = word
            k += 1
        return k

    def _words(self, noun: Noun, k: int, slot: Slot, governed: bool) -> tuple[list[str], int]:
        """Adjectives and head."""
        words: list[str] = []
        while k < len(self.tokens) and len(words) < LONGEST_NAME:
            if self.word(k) == "'s" and words and not self._contracts(k):
                owner = Noun(noun.start, k, noun.article, noun.number, tuple(words), text=self.shown(noun.start, k))
                noun.owner, noun.article, noun.number = owner, "", 0
                words.clear()
            elif skipped := self._intensifies(k, words, noun.bare) or self._lists_adjectives(k, words):
                k += skipped
                continue
            elif not (self._joins_colours(k, words) or (governed and not words and self._governed(k, slot))) and (
                self._ends_noun(k, words, noun, slot)
            ):
                break
            else:
                words.append(self.tokens[k].shown)
            k += 1
        return words, k

    def _pronominal(self, noun: Noun, words: list[str], k: int) -> int:
        """What stands for a noun: "the other", "the one", "two" alone."""
        last = words[-1].lower() if words else ""
        if not words and (noun.number or noun.article in _POINTING):
            noun.pronoun = "one" if noun.number == 1 else "other" if noun.article == "another" else "they"
        elif last in ("other", "others"):
            noun.pronoun = last
            words.clear()
        elif (last in ("one", "ones") or (last in ORDINALS and noun.article == "the")) and len(words) == 1:
            noun.pronoun = last if last in ORDINALS else "one"
            words.clear()
        return k

    def _of(self, noun: Noun, words: list[str], k: int, slot: Slot) -> int:
        """ "of birds" after "a flock"; a pair of dogs is two dogs."""
        if not words or self.word(k) != "of" or words[-1].lower() in en.SIDES or self._of_depth >= DEEPEST_OF:
            return k
        saved, self.i = self.i, k + 1
        self._of_depth += 1
        plain = self.word(self.i) not in en.ARTICLES and self.word(self.i) not in en.POSSESSIVES
        inner = self.noun(Slot.OBJECT if plain else slot, governed=True)
        self._of_depth -= 1
        end, self.i = self.i, saved
        if inner is None or not inner.words:
            return k
        if words[-1].lower() in ("pair", "couple") and not noun.owner:
            noun.number, words[:] = 2, inner.words
        else:
            noun.tail = ("of", *self.shown(inner.start, inner.end).split())
        return end

    # Where a noun phrase ends

    def _ends_noun(self, k: int, words: list[str], noun: Noun, slot: Slot) -> bool:
        """Whether the word at `k` is no part of the noun phrase that has `words` so far."""
        word, last, ready = self.word(k), words[-1].lower() if words else "", _may_be_head(words)
        if self.is_mark(k) or word in en.COORDINATORS or word in en.ARTICLES or word in en.POSSESSIVES:
            return True
        if ready:
            return self._ends_after_head(k, last, noun, slot)
        if words:
            if self._stands_alone(k, last, slot):
                return True
            return word in CLOSED and word != "can" and not en.is_adjective(word)
        if not noun.bare:
            return (word in en.AUXILIARIES and word != "can") or word in ("that", "which", "of", "not", "while")
        if word in CLOSED or en.is_adverb(word) or word == "not":
            return not (word in en.POSITIONS and slot and self.noun_like(k + 1))
        return self._begins_verb(k, slot)

    def _ends_after_head(self, k: int, last: str, noun: Noun, slot: Slot) -> bool:
        word, after = self.word(k), self.word(k + 1)
        if word == "can" and en.as_form(after, "third"):
            return False
        if word in CLOSED or en.is_adverb(word) or word in en.POSITIONS or word in ("not", "all", "both", "each"):
            return True
        if word in en.COMPOUND_PASTS and self.noun_like(k + 1):
            return False
        if self._reads_as_verb(k, last, noun, slot):
            self.verbs_at.add(k)
            return True
        return False

    def _reads_as_verb(self, k: int, last: str, noun: Noun, slot: Slot) -> bool:
        """Whether a word after a possible head is a verb."""
        word, after = self.word(k), self.word(k + 1)
        if en.is_participle(word) or en.is_past(word):
            return True
        if en.as_form(word, "third"):
            return noun.single or not self.plural_subject(k) if slot else noun.bare
        open_end = self.bounds(k + 1) or after in CLOSED or en.is_adverb(after)
        if en.as_form(word, "base"):
            if en.is_plural(last):
                return True
            own = slot is Slot.SUBJECT or (noun.bare and slot is Slot.BETWEEN)
            return own and open_end and after not in en.RELATIVES - {"where"} and not self.verb_ahead(k + 1)
        return bool(slot) and open_end and not self.verb_ahead(k + 1) and self._unknown_verb(k, last, noun.bare)

    def _unknown_verb(self, k: int, last: str, bare: bool) -> bool:
        """Whether a word of no known kind is the verb: "a robot zorps left", "parrots bob their heads"."""
        word, after = self.word(k), self.word(k + 1)
        listed = after in en.COORDINATORS and not en.as_form(self.word(k + 2), "third", "past")
        if after in en.RELATIVES or listed or en.is_adjective(word):
            return False
        if en.is_plural(last) or last in en.SAME_PLURAL:
            return after not in en.COORDINATORS and not self.is_mark(k + 1)
        return not bare and word.endswith("s") and not word.endswith("ss")

    def _begins_verb(self, k: int, slot: Slot) -> bool:
        """Whether a word without article or adjective before it is a verb rather than a bare noun."""
        word = self.word(k)
        if en.is_adjective(word):
            return False
        if en.as_form(word, "third"):
            return not self.plural_subject(k)
        if en.as_form(word, "base"):
            return bool(slot) and (self.word(k + 1) in CLOSED - en.AUXILIARIES or not self.verb_ahead(k + 1))
        if en.is_participle(word) and not en.as_form(word, "ing") and not slot:
            return False  # "pours seasoning into a pot"
        if en.is_participle(word) or en.is_past(word):
            return not (self.noun_like(k + 1) and self.verb_ahead(k + 2))
        return False

    def _stands_alone(self, k: int, last: str, slot: Slot) -> bool:
        """Whether the adjective before `k` is itself the noun: "on the left jumps", "in blue claps"."""
        if en.is_participle(last) or en.is_past(last):
            return False
        if en.as_form(self.word(k), "third"):
            return not self.plural_subject(k) and (bool(slot) or last in en.POSITIONS)
        if not slot or last not in en.POSITIONS or not en.as_form(self.word(k), "base"):
            return False
        after = self.preposition(k + 1) or en.is_adverb(self.word(k + 1))  # "the ball and the top rest on the floor"
        return bool(after) and not self.verb_ahead(k + 1)

    def _governed(self, k: int, slot: Slot) -> bool:
        """Whether a preposition makes a noun of a word that may be a verb: "in circles"."""
        word = self.word(k)
        if word in en.AUXILIARIES:
            return False
        if en.as_form(word, "third"):
            return not slot or self.finite_form(k + 1)
        return bool(en.as_form(word, "base")) or (en.is_past(word) and (not slot or self.noun_like(k + 1)))

    def _intensifies(self, k: int, words: list[str], bare: bool) -> int:
        """How many words to pass over: "very" in "a very big dog", "neatly made" in "a neatly made bed"."""
        word, after = self.word(k), self.word(k + 1)
        if (bare and not words) or _may_be_head(words) or not (word in ("very", "too", "so") or word.endswith("ly")):
            return 0
        if not en.is_adverb(word) or self.bounds(k + 1) or after in CLOSED:
            return 0
        return 1 + ((en.is_past(after) or en.is_participle(after)) and self.noun_like(k + 2))

    def _lists_adjectives(self, k: int, words: list[str]) -> int:
        """The comma of "a tall, dark man"."""
        follows = en.is_adjective(self.word(k + 1)) and (self.noun_like(k + 2) or self.word(k + 2) == ",")
        return int(self.word(k) == "," and bool(words) and not _may_be_head(words) and follows)

    def _contracts(self, k: int) -> bool:
        """Whether 's is "is": the dog's running."""
        after = self.word(k + 1)
        if en.is_participle(after):
            return not self.noun_like(k + 2)  # "the owl's striking presence"
        return after in ("not", "a", "an", "the", "being", "also", "still", "now")

    def _joins_colours(self, k: int, words: list[str]) -> bool:
        """ "a black and white cat"."""
        both = self.word(k - 1) in en.ADJECTIVES and self.word(k + 1) in en.ADJECTIVES
        return self.word(k) == "and" and bool(words) and both and self.noun_like(k + 2)


def _may_be_head(words: list[str]) -> bool:
    """Whether the last of the words read so far can be the noun itself."""
    last = words[-1].lower() if words else ""
    return bool(words) and (last == "one" or not (en.is_adjective(last) or en.is_participle(last) or en.is_past(last)))


def _share_head(first: Noun, more: Noun) -> None:
    """ "the red and the blue ball": two balls."""
    if len(first.words) == 1 and first.head in en.COLOURS | en.SIZES | {"left", "right"} and more.words:
        first.words += more.words[-1:]
