"""What follows a verb: objects, places, adverbs. A clause ends where the next subject with a verb begins."""

from __future__ import annotations

from dataclasses import dataclass

from . import lexicon as en
from .nouns import Noun, Phrase, Slot
from .tokens import CLOSED, ENDS, Token
from .verbs import Verb, VerbReader


@dataclass(eq=False)
class Clause:
    """One verb and what belongs to it. link: the word that joins it to what stood before; fresh: begins a sentence.

    tokens `start` to `end`. joint: what joins its subjects.
    """

    link: str
    fresh: bool
    subjects: list[Noun]
    verb: Verb | None
    pieces: list[str | Phrase]
    start: int
    end: int = 0
    joint: str = "and"


class ComplementReader(VerbReader):
    """Reads what follows a verb. Where a `slot` is given, BETWEEN says that a subject still waits for its verb."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.heir: list[Noun] = []  # "... chases a ball rolling down the hill": the participle's subject

    def complements(self, clause: Clause, slot: Slot) -> None:
        """Moves the reading point to where the clause ends, and fills `clause.pieces`."""
        lemma: str | None = clause.verb.lemma if clause.verb else ""
        while lemma is not None and self.i < len(self.tokens):
            lemma = self._piece(clause, lemma, slot)

    def _piece(self, clause: Clause, lemma: str, slot: Slot) -> str | None:
        """Reads one piece. Gives the lemma that governs what follows, or nothing where the clause ends."""
        k, word = self.i, self.word(self.i)
        if length := self.adverbial(k):
            return self._take(clause, length, lemma)
        if word in ENDS or word in (",", "(", ")") or word in en.RELATIVES:
            return None
        if self.is_mark(k):
            self.i += 1
            return lemma
        if word in en.SUBORDINATORS and not self._is_preposition(k):
            return None
        if word in en.COORDINATORS:
            return self._take(clause, 1, lemma) if self._continues(k) else None
        if word == "to" and en.as_form(self.word(k + 1), "base") and k + 1 not in self.verbs_at:
            return self._take(clause, 2, en.as_form(self.word(k + 1), "base"))
        if not clause.pieces and f"{lemma} {word}" in en.PHRASAL and not self.preposition(k + 1):
            return self._take(clause, 1, lemma)
        if self.preposition(k):
            return self._after_preposition(clause, lemma, slot)
        if en.is_participle(word) or (en.is_past(word) and not slot and not en.as_form(word, "base")):
            verdict = self._participle(clause, k)
            if verdict != "noun":
                return self._take(clause, 1, lemma) if verdict == "adjective" else None
        return self._word(clause, lemma, slot)

    def _take(self, clause: Clause, length: int, lemma: str) -> str:
        clause.pieces.append(self.shown(self.i, self.i + length))
        self.i += length
        return lemma

    def _word(self, clause: Clause, lemma: str, slot: Slot) -> str | None:
        """Reads an adverb, an adjective or an object."""
        k, word = self.i, self.word(self.i)
        before_noun = self.word(k + 1) in en.ARTICLES or self.noun_like(k + 1)
        if en.is_adverb(word) or (word in ("not", "both", "all") and not before_noun):
            return None if self._new_clause(k) else self._take(clause, 1, lemma)
        if en.is_adjective(word) and (not self.noun_like(k + 1) or lemma in ("be", "stay")):
            return self._take(clause, 1, lemma)
        gap = not clause.pieces and lemma in en.CONTACT | en.TAKING  # "blows bubbles": a second verb cannot follow here
        nouns, joint = self.nouns(slot, governed=gap and not slot)
        if not nouns:
            ends = self.finite_at(k) or en.verb_forms(word) or word in CLOSED
            return None if ends else self._take(clause, 1, lemma)
        if not slot and clause.verb and self.finite_at(self.i) and not en.is_past(self.word(self.i)):
            self.i = k  # "... rolls left blue cube jumps"
            return None
        clause.pieces.append(Phrase("", nouns, lemma, joint, k, self.i))
        return lemma

    def _after_preposition(self, clause: Clause, lemma: str, slot: Slot) -> str | None:
        """Reads "through the snow", "without moving" or a lone particle."""
        k, length = self.i, self.preposition(self.i)
        if self.word(k) == "with" and self.absolute():
            return None
        inner = self.word(k + length)
        if en.is_participle(inner) and not self.noun_like(k + length):
            return self._take(clause, length + 1, en.as_form(inner, "ing"))
        piece = self.phrase(lemma, slot)
        if piece is None:
            return self._take(clause, length, lemma)
        clause.pieces.append(piece)
        return lemma

    def phrase(self, lemma: str = "", slot: Slot = Slot.OBJECT) -> Phrase | None:
        """A preposition and its nouns, or nothing, and then the point stays."""
        start = self.i
        self.i += self.preposition(start)
        while self.word(self.i) in ("just", "right", "directly", "far", "high") and self.preposition(self.i + 1):
            self.i += 1 + self.preposition(self.i + 1)
        nouns, joint = self.nouns(slot, governed=True)
        if not nouns and self.word(start) == "from" and self.preposition(self.i):  # "from behind the box"
            self.i += self.preposition(self.i)
            nouns, joint = self.nouns(slot, governed=True)
        if not nouns or (nouns[0].pronoun and self.finite_at(self.i) and not slot):
            self.i = start
            return None
        preposition = self.shown(start, nouns[0].start).lower()
        own = preposition == "with" and nouns[-1].owner is not None and not nouns[-1].moves
        if own and (en.is_past(self.word(self.i)) or en.is_participle(self.word(self.i))):
            nouns[-1].text += f" {self.word(self.i)}"  # "with her hands clasped"
            self.i += 1
        return Phrase(preposition, nouns, lemma, joint, start, self.i)

    def _participle(self, clause: Clause, k: int) -> str:
        """What a participle at `k` is: a "verb", whose subject then stands in `heir`, an "adjective" or a "noun"."""
        word, piece = self.word(k), clause.pieces[-1] if clause.pieces else None
        past = not en.is_participle(word)
        if not isinstance(piece, Phrase) or piece.end != k:
            return "verb" if past or en.as_form(word, "ing") else "noun"
        sent = piece.verb in en.CONTACT - en.HELD and piece.preposition in ("", "at")
        if sent or piece.nouns[-1].moves:
            self.heir = piece.nouns
        elif past:
            return "adjective"  # "a bundle of grass wrapped in cloth"
        return "verb"

    # Looking ahead

    def finite_at(self, k: int) -> bool:
        """Whether a verb with a subject of its own, perhaps with adverbs before it, stands at `k`."""
        while en.is_adverb(self.word(k)):
            k += 1
        return self.finite_form(k) or (k in self.verbs_at and not en.is_participle(self.word(k)))

    def absolute(self, only_movers: bool = False) -> bool:
        """Whether "with the ball rolling left", a clause of its own, stands at the reading point."""
        saved = self.i
        self.i += 1
        nouns = self.nouns(Slot.SUBJECT)[0]
        participle = en.is_participle(self.word(self.i)) and self.word(self.i) != "using"
        acts = bool(nouns) and (participle or en.is_past(self.word(self.i)))
        self.i = saved
        acting = nouns and (nouns[0].moves or (nouns[0].plural and nouns[0].head not in en.BODY))
        if not acts or (only_movers and not acting):
            return False  # "a man with a cigar smiling"
        return nouns[0].owner is None or nouns[0].moves  # not "with its lights flashing"

    def _skim(self, k: int) -> int:
        """Where a noun with its places ends that begins at `k`; 0 if none does."""
        saved, self.i = self.i, k
        found = bool(self.nouns(Slot.SUBJECT)[0])
        while found and self.preposition(self.i) and self.phrase(slot=Slot.BETWEEN):
            pass
        end, self.i = self.i, saved
        return end if found else 0

    def _is_preposition(self, k: int) -> bool:
        """Whether "before", "after", "as" and such is followed by a noun only."""
        if self.word(k) not in ("before", "after", "until", "till", "since", "as"):
            return False
        end = self._skim(k + 1)
        return bool(end) and not self.finite_at(end) and not en.is_participle(self.word(end))

    def _new_clause(self, k: int) -> bool:
        """Whether a clause begins with an adverb: "... and suddenly the dog jumps"."""
        opens = self.word(k) in ("then", "suddenly", "meanwhile", "finally", "now")
        return opens and (self.acts(k + 1) or self.finite_at(k + 1))

    def acts(self, k: int) -> bool:
        """Whether a noun and its verb begin at `k`."""
        end = self._skim(k)
        if not end:
            return False
        return self.finite_at(end) or en.is_participle(self.word(end)) or self.word(end) in en.RELATIVES

    def _continues(self, k: int) -> bool:
        """Whether what follows "and" is one more adverb, place or adjective of the same clause."""
        j = k + 1
        if self.word(k) == "then" or self.word(j) in ("then", ",") or self.acts(j):
            return False
        while en.is_adverb(self.word(j)) and not self.preposition(j):
            j += 1
        if self.finite_at(j) or en.is_participle(self.word(j)) or self.acts(j) or self.word(j) in en.SUBORDINATORS:
            return False
        if self.preposition(j):
            saved, self.i = self.i, j
            piece, end = self.phrase(), self.i
            self.i = saved
            return piece is None or not self.acts(end + (self.word(end) == ","))
        if j > k + 1:
            return not en.as_form(self.word(j), "base")
        return en.is_adjective(self.word(j)) and not self.noun_like(j + 1)
