"""A prompt as words and marks, and what can be told of a word from those around it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import lexicon as en

LOOK_AHEAD = 30  # words that may stand between a noun and the verb that it is waiting for
ENDS = frozenset(".!?;:\n")
CLOSED = (
    en.ARTICLES | en.POSSESSIVES | en.PRONOUNS | en.RELATIVES | en.COORDINATORS | en.SUBORDINATORS | en.PREPOSITIONS
) | en.AUXILIARIES
_CONTRACTED = {"can't": "can not", "won't": "will not", "cannot": "can not", "let's": "let us", "gonna": "going to"}
_SLANG = {"&": "and", "w/": "with", "thru": "through", "n": "and", "+": "and", "til": "until", "ur": "your"}
_REAL = en.words("form trail")  # words that a slip of a function word would give
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|w/|[.,;:!?()\n\u2014\u2013&+]|(?<=\s)-(?=\s)")


def _longest_first(text: str) -> list[list[str]]:
    return sorted((known.split() for known in text.split(",")), key=len, reverse=True)


_PREPOSITIONS = _longest_first(en.COMPOUND_PREPOSITIONS)
_ADVERBIALS = _longest_first(en.ADVERBIALS)


@dataclass(frozen=True)
class Token:
    """A word, in lower case and with the slips of function words mended, or a mark. shown: as it is to be written.

    start, end: where it stands in the prompt.
    """

    text: str
    shown: str
    start: int
    end: int


def tokenize(prompt: str) -> list[Token]:
    """The words and marks of a prompt; what is neither, such as quotes or an emoji, is passed over."""
    text = prompt.replace("\u2019", "'")
    letters = [c for c in text if c.isalpha()]
    shouted = len(letters) > 3 and sum(c.isupper() for c in letters) > 0.8 * len(letters)
    tokens: list[Token] = []
    for match in _WORD.finditer(text):
        word, first = match.group(), not tokens or tokens[-1].text in ENDS
        shown = word.lower() if shouted or (first and not word[1:].isupper()) else word
        for part in _parts(word.lower()):
            tokens.append(Token(part, shown if part == word.lower() else part, match.start(), match.end()))
    return _in_sequence(tokens)


def _in_sequence(tokens: list[Token]) -> list[Token]:
    """ "After that it jumps" is "then it jumps"; "after that ball" stays."""
    texts, kept = [token.text for token in tokens], []
    k = 0
    while k < len(tokens):
        what, clause = " ".join(texts[k : k + 2]), texts[k + 2] if k + 2 < len(texts) else "."
        opens = clause in en.PRONOUNS or clause in en.ARTICLES or clause in en.POSSESSIVES or not clause.isalpha()
        if what in ("after that", "after this") and opens:
            kept.append(Token("then", "then", tokens[k].start, tokens[k + 1].end))
            k += 2
        else:
            kept.append(tokens[k])
            k += 1
    return kept


def _parts(word: str) -> list[str]:
    word = _SLANG.get(word, word)
    if word in _CONTRACTED:
        return _CONTRACTED[word].split()
    if word.endswith("n't") and len(word) > 3:
        return [word[:-3], "not"]
    found = re.fullmatch(r"(.+)('s|'re|'m|'ll|'d|'ve)", word)
    return [found[1], found[2]] if found else [_mended(word)]


def _mended(word: str) -> str:
    """`teh` is `the`: two letters changed places in a function word."""
    known = word in CLOSED or word in en.ADJECTIVES or word in _REAL or en.verb_forms(word)
    if known or not 3 <= len(word) <= 7:
        return word
    swaps = (word[:k] + word[k + 1] + word[k] + word[k + 2 :] for k in range(len(word) - 1))
    return next((swap for swap in swaps if swap in CLOSED), word)


class Tokens:
    """Tokens with a reading point `i`. Methods look at the word at `k`; none of those here moves the point."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.i = tokens, 0

    def word(self, k: int) -> str:
        return self.tokens[k].text if 0 <= k < len(self.tokens) else ""

    def shown(self, start: int, end: int) -> str:
        return " ".join(token.shown for token in self.tokens[start:end]).replace(" 's", "'s").replace(" ,", ",")

    def is_mark(self, k: int) -> bool:
        """Whether it is a mark, or the end."""
        return not self.word(k)[:1].isalnum() and not self.word(k).startswith("'")

    def bounds(self, k: int) -> bool:
        """Whether a clause may end before it."""
        word = self.word(k)
        return self.is_mark(k) or word in en.COORDINATORS or word in en.SUBORDINATORS or word in en.RELATIVES

    def preposition(self, k: int) -> int:
        """How many words the preposition has; 0 if it is none."""
        for known in _PREPOSITIONS:
            if [self.word(k + n) for n in range(len(known))] == known:
                return len(known)
        return int(self.word(k) in en.PREPOSITIONS)

    def adverbial(self, k: int) -> int:
        """How many words an adverb of several words has, such as "a little"; 0 if it is none."""
        for known in _ADVERBIALS:
            if [self.word(k + n) for n in range(len(known))] == known:
                article = known[0] == "a" and self.noun_like(k + len(known))  # "a little dog"
                return 0 if article else len(known)
        return 0

    def noun_like(self, k: int) -> bool:
        """Whether it may be a noun or what stands before one."""
        word = self.word(k)
        if self.bounds(k) or word in CLOSED or en.is_participle(word):
            return False
        finite = en.as_form(word, "third", "past") and not en.is_adjective(word)
        return word in en.BODY or not (en.is_adverb(word) or finite)

    def finite_form(self, k: int) -> bool:
        """Whether it has a form that only a verb with its own subject has."""
        return self.word(k) in en.AUXILIARIES or bool(en.as_form(self.word(k), "third", "past"))

    def after_adverbs(self, k: int) -> int:
        while en.is_adverb(self.word(k)) and not self.bounds(k) and not self.preposition(k):
            k += 1
        return k

    def verb_ahead(self, k: int) -> bool:
        """Whether a verb that could be a clause's own comes at `k` or later, before the clause can end."""
        for j in range(k, k + LOOK_AHEAD):
            if self.bounds(j):
                return False
            word, last = self.word(j), self.word(j - 1)
            if last in en.ARTICLES or last in en.POSSESSIVES or last in en.PREPOSITIONS or en.is_adjective(last):
                continue
            bare = en.as_form(word, "base") and (j == k or en.is_plural(last))
            if self.finite_form(j) or bare or (j == k and en.is_participle(word)):
                return True
        return False

    def plural_subject(self, k: int) -> bool:
        """Whether a word in -s is a plural noun, because a verb without -s follows: "waves crash"."""
        if en.as_form(self.word(k), "third") in ("let", "help", "make", "have"):  # "lets go"
            return False
        after = self.word(self.after_adverbs(k + 1))
        return bool(en.as_form(after, "base") and after not in CLOSED) or after in en.AUXILIARIES

    def verb_alone(self, k: int) -> bool:
        """Whether it is a verb, and not a noun with its verb behind it."""
        word = self.word(k)
        if word in en.AUXILIARIES or self.is_mark(k) or (en.is_adverb(word) and not self.noun_like(k)):
            return True
        noun = self.plural_subject(k) or en.as_form(self.word(k + 1), "third", "ing")
        return bool(en.verb_forms(word)) and not noun
