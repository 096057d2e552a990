"""Verbs with their auxiliaries, and their agreement with one or several subjects."""

from __future__ import annotations

from dataclasses import dataclass

from . import lexicon as en
from .nouns import NounReader
from .tokens import CLOSED

_SHORT = {"'re": "are", "'m": "am", "'s": "is", "'ll": "will", "'d": "would", "'ve": "have"}
_SINGULAR = {"are": "is", "were": "was", "have": "has", "do": "does"}
_PLURAL = {one: many for many, one in _SINGULAR.items()}
_TOGETHER = ("both", "all", "each")  # "they all run"


@dataclass(eq=False)
class Verb:
    """words: auxiliaries, "not", the verb, and what it begins ("starts running"); form: of the first of them.

    lemma: of the last one. chained: it begins another verb.
    """

    words: tuple[str, ...]
    lemma: str
    form: str
    passive: bool = False
    adverbs: tuple[str, ...] = ()
    chained: bool = False

    @property
    def negative(self) -> bool:
        return "not" in self.words or "never" in self.words

    def agreeing(self, plural: bool) -> list[str]:
        """Its words as a statement about one thing or several: "rolling" becomes "rolls" or "roll"."""
        first, *rest = self.words
        form = "base" if plural else "third"
        if self.form == "aux":
            return [(_PLURAL if plural else _SINGULAR).get(first, first), *rest]
        if self.form == "ing":
            lemma = en.as_form(first, "ing")
            return [*([en.inflect(lemma, form)] if lemma else ["are" if plural else "is", first]), *rest]
        if self.form in ("base", "third"):
            stem = first if self.form == "base" else first.removesuffix("s")
            return [en.inflect(en.as_form(first, self.form) or stem, form), *rest]
        return [first, *rest]


class VerbReader(NounReader):
    """Reads verbs at the reading point, which moves past what was read."""

    def verb(self, bare: bool = False) -> Verb | None:
        """The verb at the reading point, or nothing, and then the point stays; bare: it may be an infinitive."""
        k, adverbs = self.i, []
        while en.is_adverb(self.word(k)) or self.word(k) in _TOGETHER:
            if self.word(k) not in _TOGETHER:
                adverbs.append(self.tokens[k].shown)
            k += 1
        words, k = self._auxiliaries(k)
        found = self._main(k, words, bare)
        if found is None:
            return self._copula(k, words, tuple(adverbs))
        lemma, form = found
        passive = form == "part" and bool(set(words) & (en.BE | en.GET))
        verb = Verb((*words, self.word(k)), lemma, "aux" if words else form, passive, tuple(adverbs))
        self.i = k + 1
        self._chain(verb)
        return verb

    def _auxiliaries(self, k: int) -> tuple[list[str], int]:
        words: list[str] = []
        while (
            self.word(k) in en.AUXILIARIES or self.word(k) in ("not", "never") or (words and en.is_adverb(self.word(k)))
        ):
            words.append(_SHORT.get(self.word(k), self.word(k)))
            k += 1
        if not words and self.word(k) in en.GET and en.is_past(self.word(k + 1)):
            words.append(self.word(k))
            k += 1
        return words, k

    def _copula(self, k: int, words: list[str], adverbs: tuple[str, ...]) -> Verb | None:
        """ "is", "has" and "does" without another verb."""
        if not words or words[0] in ("not", "never") or not set(words) & (en.BE | {"has", "have", "had", "does", "do"}):
            return None
        while len(words) > 1 and en.is_adverb(words[-1]) and words[-1] not in ("not", "never"):
            words.pop()
            k -= 1
        self.i = k
        return Verb(tuple(words), "be" if set(words) & en.BE else "have", "aux", False, adverbs)

    def _main(self, k: int, words: list[str], bare: bool) -> tuple[str, str] | None:
        """Lemma and form of the verb itself."""
        word = self.word(k)
        if self.is_mark(k):
            return None
        if words:
            return self._after_auxiliary(word, words)
        if word in CLOSED or (en.is_adverb(word) and not en.verb_forms(word)):
            return None
        for form in ("base",) * bare + ("third", "ing", "past", "base", "part"):
            if lemma := en.as_form(word, form):
                return lemma, form
        if en.is_participle(word):
            return word, "ing"
        if k not in self.verbs_at or word in en.POSITIONS:
            return None
        if en.is_past(word):
            return word, "past"
        return (word[:-1], "third") if word.endswith("s") else (word, "base")

    def _after_auxiliary(self, word: str, words: list[str]) -> tuple[str, str] | None:
        be = bool(set(words) & (en.BE | en.GET))
        for form in ("ing", "part") if be else ("base", "part", "past"):
            if lemma := en.as_form(word, form):
                return lemma, form
        if be:
            return (word, "ing") if en.is_participle(word) else (word, "part") if en.is_past(word) else None
        only_have = not set(words) - {"has", "have", "had"}
        return None if word in CLOSED or en.is_adverb(word) or only_have else (word, "base")

    def _chain(self, verb: Verb) -> None:
        """starts running, tries to catch, comes rolling, lets go: the verb whose objects follow is the last one."""
        while verb.lemma in en.CATENATIVE or verb.lemma == "let":
            k, word = self.i, self.word(self.i)
            lemma = "" if word != "to" else en.as_form(self.word(k + 1), "base") or "be" * (self.word(k + 1) == "be")
            if verb.lemma == "let" and word != "go":
                return
            if lemma and (lemma == "be" or not self.noun_like(k + 2)):
                verb.words, verb.lemma, self.i = (*verb.words, "to", self.word(k + 1)), lemma, k + 2
            elif en.is_participle(word) or word == "go":
                verb.words, verb.lemma, self.i = (*verb.words, word), en.as_form(word, "ing", "base") or word, k + 1
            else:
                return
            verb.chained = True
