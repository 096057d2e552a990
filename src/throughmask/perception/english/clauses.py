"""A prompt's clauses: who does what. A verb without a subject inherits one, and a command becomes a statement."""

from __future__ import annotations

import re

from . import lexicon as en
from .complements import Clause, ComplementReader
from .nouns import Noun, Phrase, Slot
from .tokens import ENDS, Token
from .verbs import Verb

DEEPEST = 6  # clauses within clauses
_PICTURE = (
    "video|clip|animation|gif|movie|film|shot|scene|image|picture|photo|photograph|footage|closeup|close-up|view|"
    "portrait|painting|drawing|close up|close up view|time-lapse|timelapse"
)
_OPENING = re.compile(
    r"(please|can you|could you|would you|i would like|i 'd like|i want|i need|let us see|we can see|we see|"
    r"you can see|you see|there is|there are|there 's|it 's|it is|this is|"
    rf"((create|generate|make|produce|render|show|give|draw) (me )?)?((a|an|the|this) )?(\w+ ){{0,2}}({_PICTURE}) "
    r"(of|showing|shows|depicts|depicting|features|featuring|capturing|where|in which|opens on|begins with|starts with|"
    r"captures)) "
)
_LINKS = en.SUBORDINATORS | en.COORDINATORS | {"with"}
_BEFORE_NOUN = en.words("before after until till since as once")  # "after the rain"


class ClauseReader(ComplementReader):
    """Reads all of `tokens` into `clauses`; `skipped` are spans of tokens that belong to none."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.clauses: list[Clause] = []
        self.skipped: list[tuple[int, int]] = []
        self._subjects: list[Noun] = []  # of the last clause: those of a verb that comes without
        self._waiting: list[Clause] = []  # "Running through the park, the dog ...": their subject is still to come
        self._lead: list[str | Phrase] = []  # "After the rain, ...": goes to the clause to come
        self._commanded = ""  # the verb of a command
        self._depth = 0

    def read(self) -> list[Clause]:
        while self.i < len(self.tokens):
            before = self.i
            self._next()
            if self.i == before:
                self.i += 1
                self._skip(before)
        for clause in self._waiting:
            clause.subjects = clause.subjects or self._subjects
        return self.clauses

    def _skip(self, start: int) -> None:
        if any(not self.is_mark(k) for k in range(start, self.i)):
            self.skipped.append((start, self.i))

    def _next(self) -> None:
        """Reads one clause, or what stands for one."""
        start = self.i
        fresh, link = self._link()
        if fresh:
            self._commanded = ""
        caused = self._opening(fresh)
        if self.i >= len(self.tokens):
            return
        if self.word(self.i) in en.RELATIVES and not fresh and self._subjects:
            self._relative(self.heir or self._last_nouns() or self._subjects)
            return
        if end := self._style():
            at, self.i = self.i, end
            self._skip(at)
            return
        lead = self._leading()
        nouns, joint = self.nouns(Slot.SUBJECT)
        if not nouns:
            self._without_subject(start, fresh, link, lead)
            return
        if lead and not fresh and not link and self.clauses and self.word(nouns[0].start - 1) == ",":
            self.clauses[-1].pieces += lead  # "... rolls left, out of the picture, a cube jumps"
            self.clauses[-1].end = start = nouns[0].start
            lead = []
        self.heir = []
        clause = Clause(link, fresh, nouns, None, self._lead + lead, start, joint=joint)
        self._lead = []
        self._with_subject(clause, caused)

    # Before a clause

    def _link(self) -> tuple[bool, str]:
        """Passes over marks and joining words: whether a sentence begins, and the word that joins."""
        fresh, link, before = not self.clauses, "", ""
        while self.i < len(self.tokens):
            word = self.word(self.i)
            if word == ":" and self.finite_at(self.i + 1):
                link = ""  # "ball: rolls left"
            elif word in ENDS:
                fresh, link = True, ""
            elif word == "as" and self.word(self.i + 1) == "soon":  # "as soon as"
                self.i += 2
                link = "when"
            elif word == "with" and not self.absolute():
                break
            elif word in _LINKS:
                link = {"&": "and", "plus": "and", "with": "while"}.get(word, word)
                fresh = fresh or (before == "and" and link in en.SUBORDINATORS)  # "..., and when the bus arrives, ..."
            elif not self.is_mark(self.i):
                break
            before = word
            self.i += 1
        return fresh, link

    def _opening(self, fresh: bool) -> bool:
        """Passes over "please", "a video of", "I want" and "make"; whether the next verb may be bare."""
        caused, passed = False, True
        while passed:
            words = " ".join(token.text for token in self.tokens[self.i : self.i + 12]) + " "
            opening = _OPENING.match(words)
            if opening:
                self.i += len(opening.group().split())
                caused = caused or opening.group().startswith("i ")
            passed = opening is not None
            if (fresh or self._commanded or passed) and self._causes():
                caused = passed = True
        return caused

    def _causes(self) -> bool:
        """Passes over "make", "let" or "animate" before what is to act."""
        start = self.i
        lemma = en.as_form(self.word(start), "base")
        noun_after_all = en.as_form(self.word(start + 1), "third") or self.word(start + 1) in en.AUXILIARIES
        if lemma not in en.CAUSE | en.PRESENT or noun_after_all:
            return False
        begins = start + 1 + (self.word(start + 1) == "me")
        self.i = begins
        found = bool(self.nouns(Slot.SUBJECT)[0])
        self.i = begins if found else start
        self._commanded = lemma if found else self._commanded
        return found

    def _style(self) -> int:
        """Where a fragment about the picture's style ends ("cinematic lighting"); 0 if there is none here."""
        k, words = self.i, set()
        if self.word(k) in en.ARTICLES:
            return 0
        while not self.is_mark(k) and k < self.i + 8:
            if self.word(k) in en.AUXILIARIES or en.as_form(self.word(k), "third", "ing"):
                return 0
            words.add(self.word(k))
            k += 1
        told = en.STYLE - en.FRAME if self.preposition(self.i) else en.STYLE
        return k if words & told else 0

    def _leading(self) -> list[str | Phrase]:
        """Adverbs and prepositional phrases before a subject."""
        lead: list[str | Phrase] = []
        while self.i < len(self.tokens):
            k, word = self.i, self.word(self.i)
            if self.preposition(k) and (piece := self.phrase()):
                lead.append(piece)
            elif en.is_adverb(word) and not (word in en.POSITIONS and self.noun_like(k + 1)):
                if self.verb_at(k) or self.finite_at(k):
                    break
                if word not in ("only", "just", "please"):
                    lead.append(word)
                self.i += 1
            elif word == "," and lead:
                self.i += 1
            else:
                break
        return lead

    # With a subject

    def _with_subject(self, clause: Clause, caused: bool) -> None:
        for waiting in self._waiting:
            waiting.subjects = clause.subjects
        self._waiting, self._subjects = [], clause.subjects
        self._modified(clause)
        if caused and self.word(self.i) == "to":
            self.i += 1
        if self.word(self.i) == "," and en.is_participle(self.word(self.i + 1)):
            self.i += 1  # "a man in a suit, shouting loudly"
        verb = self.verb(bare=caused)
        if verb is None:
            self._verbless(clause, caused)
            return
        if self.word(clause.subjects[0].start) in ("neither", "no") and verb.form in ("third", "base", "past"):
            verb.words, verb.form = ("does", "not", verb.lemma), "aux"
        head = clause.subjects[0]
        if verb.lemma in en.SEE and (head.head in en.FRAME or head.pronoun in ("i", "you", "we")):
            return  # "the video shows ...": what it shows is read next
        reduced = verb.form == "ing" or self._reduced_passive(verb)
        self._finish(clause, verb, Slot.BETWEEN if reduced else Slot.OBJECT)
        if reduced:
            self._resumed(clause)

    def _modified(self, clause: Clause) -> None:
        """Reads what stands between a subject and its verb; clauses among it come before the subject's own."""
        known = len(self.clauses)
        while self._modifier(clause.subjects):
            self._subjects = clause.subjects
        if len(self.clauses) > known:  # "the cat that sits on the sofa jumps": two clauses of one sentence
            self.clauses[known].fresh, self.clauses[known].link = clause.fresh, clause.link
            clause.fresh, clause.link = False, "and"

    def _modifier(self, nouns: list[Noun]) -> bool:
        k, word = self.i, self.word(self.i)
        if word == "with" and self.absolute(only_movers=True):
            return False
        infinitive = word == "to" and en.as_form(self.word(k + 1), "base")
        if self.preposition(k) and not infinitive and (piece := self.phrase(slot=Slot.BETWEEN)):
            nouns[-1].after.append(piece)
        elif word in en.RELATIVES and self._depth < DEEPEST:
            self._relative(nouns, Slot.BETWEEN)
        elif word != "," or not self._interrupts(nouns):
            return False
        return self.i > k

    def _resumed(self, clause: Clause) -> None:
        """ "a dog running through the snow jumps": the second verb of a subject."""
        saved = self.i
        self.i += self.word(self.i) == ","
        verb = self.verb() if self.finite_at(self.i) else None
        if verb is None:
            self.i = saved
        else:
            self._finish(Clause("and", False, clause.subjects, None, [], self.i, joint=clause.joint), verb)

    def _finish(self, clause: Clause, verb: Verb, slot: Slot = Slot.OBJECT) -> None:
        lead, clause.pieces, clause.verb = clause.pieces, [], verb
        self.complements(clause, slot)
        clause.pieces += lead
        clause.end = self.i
        self.clauses.append(clause)

    def _verbless(self, clause: Clause, caused: bool) -> None:
        """ "the blue one right", "after the rain", "animate the bird", "a bird and a cat"."""
        self.complements(clause, Slot.OBJECT)
        clause.end = self.i
        last = next((c for c in reversed(self.clauses) if c.verb), None)
        if clause.link in _BEFORE_NOUN and not clause.pieces:
            phrase = Phrase(clause.link, clause.subjects, start=clause.start, end=clause.end)
            (self._lead if clause.fresh or last is None else last.pieces).append(phrase)
            return
        if caused:
            clause.verb = Verb(("moves",), "move", "third")
        elif last and not clause.fresh and any(isinstance(piece, str) for piece in clause.pieces):
            clause.verb = last.verb
        self.clauses.append(clause)

    def _interrupts(self, nouns: list[Noun]) -> bool:
        """ ", rolling left," or ", which rolls left,": read only if a verb follows that needs the subject."""
        saved, known = self.i, len(self.clauses)
        self.i += 1
        self._depth += 1
        if self._depth <= DEEPEST and self.word(self.i) in en.RELATIVES:
            self._relative(nouns, Slot.BETWEEN)
        elif self._depth <= DEEPEST and (en.is_participle(self.word(self.i)) or en.is_past(self.word(self.i))):
            verb = self.verb()
            if verb:
                if not self._reduced_passive(verb) and verb.form == "past":
                    verb.words, verb.form = ("is", *verb.words), "aux"  # "a dancer, dressed in white, ..."
                self._finish(Clause("and", False, nouns, None, [], saved), verb, Slot.BETWEEN)
        self._depth -= 1
        self.i += self.word(self.i) == ","
        after = self.word(self.i + 1)
        if self.word(self.i).endswith("s") and (after in en.ARTICLES or after in en.POSSESSIVES):
            self.verbs_at.add(self.i)  # "a fisherman, standing in his boat, casts a net"
        if len(self.clauses) > known and self.finite_at(self.i):
            return True
        self.i = saved
        del self.clauses[known:]
        return False

    # Relative clauses

    def _relative(self, nouns: list[Noun], slot: Slot = Slot.OBJECT) -> None:
        """Reads "which slides to the right", said of `nouns`."""
        start, word = self.i, self.word(self.i)
        self.i += 1
        self._depth += 1
        clause = Clause("and", False, nouns, None, [], start)
        if word == "whose" and (owned := self.noun(Slot.SUBJECT)):
            owned.owner = nouns[-1]
            clause.subjects = [owned]
        elif not self.finite_at(self.i) and (others := self.nouns(Slot.SUBJECT)[0]):
            clause.subjects, clause.link = others, "where" if word == "where" else "and"
        verb = self.verb()
        if verb is None and clause.subjects[0].start == start + 1:  # "which zorps to the left": the noun was the verb
            clause.subjects, self.i = nouns, start + 1
            self.verbs_at.add(self.i)
            verb = self.verb()
        if verb is None:
            self.i = max(self.i, start + 1)
            self._skip(start)
        else:
            self._finish(clause, verb, slot)
            if clause.subjects is not nouns and word not in ("whose", "where"):
                _fill_gap(clause, nouns, verb)
            self._subjects = clause.subjects
        self._depth -= 1

    def _last_nouns(self) -> list[Noun]:
        """What a relative clause after a comma speaks of."""
        pieces = [p for p in self.clauses[-1].pieces if isinstance(p, Phrase) and not p.dress] if self.clauses else []
        return pieces[-1].nouns if pieces else []

    def _reduced_passive(self, verb: Verb) -> bool:
        """Whether it is passive; "a ball kicked by a boy" is made so."""
        if verb.form not in ("past", "part"):
            return False
        by = "by" in [self.word(self.i + n) for n in range(3)]
        touched = verb.lemma in en.CONTACT - en.GOING or verb.lemma in ("cover", "surround", "fill")
        if en.as_form(verb.words[0], "past") and not (touched and by):
            return False
        verb.words, verb.form, verb.passive = ("is", *verb.words), "aux", True
        return True

    # Without a subject

    def _without_subject(self, start: int, fresh: bool, link: str, lead: list[str | Phrase]) -> None:
        last = self.clauses[-1] if self.clauses else None
        verb = self.verb()
        if verb is None:
            if lead and last and not fresh:
                last.pieces += [link if link in en.COORDINATORS else "and", *lead] if last.pieces else lead
                last.end = self.i
            elif lead:
                self._skip(start)
            return
        clause = Clause(link, fresh, self.heir or self._subjects, None, self._lead + lead, start)
        clause.joint = last.joint if last and not self.heir else "and"
        self._lead, self.heir = [], []
        if verb.form == "base" and self._is_command(fresh):
            self._obey(clause, verb)
            return
        if fresh:
            clause.subjects = []
        if verb.form == "ing" and (fresh or not last):
            self._waiting.append(clause)
        self._reduced_passive(verb)
        self._finish(clause, verb)

    def _is_command(self, fresh: bool) -> bool:
        if fresh or not self.clauses or not self._subjects:
            return True
        again = bool(self._commanded) and self._commanded not in en.CAUSE | en.PRESENT
        return again and self.word(self.i) in en.ARTICLES  # "... and push the box"

    def _obey(self, clause: Clause, verb: Verb) -> None:
        """ "roll the ball to the left": the ball rolls to the left; "push the box": the box is pushed."""
        self._commanded = verb.lemma
        self.complements(clause, Slot.OBJECT)
        clause.verb, clause.end = verb, self.i
        objects = next((p for p in clause.pieces if isinstance(p, Phrase) and not p.preposition), None)
        if objects is None:
            self._skip(clause.start)  # "zoom in on the cat"
            return
        clause.pieces.remove(objects)
        clause.subjects, clause.joint = objects.nouns, objects.joint
        self._subjects = clause.subjects
        if verb.lemma not in en.ERGATIVE and verb.words[0] not in ("do", "not", "never"):
            clause.verb = Verb(("is", en.inflect(verb.lemma, "part")), verb.lemma, "aux", True, verb.adverbs)
        self.clauses.append(clause)


def _fill_gap(clause: Clause, nouns: list[Noun], verb: Verb) -> None:
    """ "the dog which the boy throws a ball to": the noun goes where the clause lacks one."""
    last = clause.pieces[-1] if clause.pieces else None
    if isinstance(last, str) and last in en.PREPOSITIONS:
        clause.pieces[-1] = Phrase(last, nouns, verb.lemma)
    else:
        clause.pieces.insert(0, Phrase("", nouns, verb.lemma))
