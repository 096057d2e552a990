"""Claims in English: the caption, the motion prompt and a local prompt for each toy, each in one of many phrasings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .events import Claim, Illegible
from .plan import Plan, Toy
from .sight import Sight

# (third person, participle, plural)
VERBS = {
    "stay": (
        ("stays still", "staying still", "stay still"),
        ("does not move", "not moving", "do not move"),
        ("stays where it is", "staying where it is", "stay where they are"),
        ("rests on the floor", "resting on the floor", "rest on the floor"),
        ("stands still", "standing still", "stand still"),
    ),
    "roll": (("rolls", "rolling", "roll"),),
    "slide": (("slides", "sliding", "slide"), ("glides", "gliding", "glide"), ("slides", "sliding", "slide")),
    "hop": (("hops", "hopping", "hop"), ("jumps", "jumping", "jump"), ("leaps", "leaping", "leap")),
    "jump": (
        ("jumps up", "jumping up", "jump up"),
        ("jumps into the air", "jumping into the air", "jump into the air"),
        ("leaps up and lands again", "leaping up and landing again", "leap up and land again"),
        ("jumps on the spot", "jumping on the spot", "jump on the spot"),
    ),
    "spin": (
        ("spins on the spot", "spinning on the spot", "spin on the spot"),
        ("spins around", "spinning around", "spin around"),
        ("turns around on the spot", "turning around on the spot", "turn around on the spot"),
        ("spins in place", "spinning in place", "spin in place"),
    ),
    "tip": (
        ("tips over", "tipping over", "tip over"),
        ("falls over", "falling over", "fall over"),
        ("topples over", "toppling over", "topple over"),
    ),
    "fall": (
        ("drops from above", "dropping from above", "drop from above"),
        ("falls from above", "falling from above", "fall from above"),
        ("drops to the floor", "dropping to the floor", "drop to the floor"),
        ("falls to the floor", "falling to the floor", "fall to the floor"),
    ),
    "nudge": (
        ("moves a little", "moving a little", "move a little"),
        ("shifts a little", "shifting a little", "shift a little"),
    ),
}
WAYS = {
    "right": ("to the right", "to the right", "rightward"),
    "left": ("to the left", "to the left", "leftward"),
    "toward": ("toward the camera", "toward the viewer", "to the front"),
    "away": ("away from the camera", "away from the viewer", "to the back"),
    "right toward": ("to the right and toward the camera", "to the front right"),
    "left toward": ("to the left and toward the camera", "to the front left"),
    "right away": ("to the right and away from the camera", "to the back right"),
    "left away": ("to the left and away from the camera", "to the back left"),
}
PACES = {"slowly": ("slowly", "slowly", "gently"), "quickly": ("quickly", "quickly", "fast")}
BUMP = (("bumps into", "bumping into"), ("hits", "hitting"), ("runs into", "running into"))
BUMPED = (("is knocked", "being knocked"), ("is pushed", "being pushed"), ("gets knocked", "getting knocked"))
AFTER = {
    "": (("", ""),),
    "stop": ((" and stops", " and stopping"), (", where it stops", ", where it stops")),
    "back": ((" and bounces back", " and bouncing back"),),
}


@dataclass(frozen=True)
class Text:
    """The words of a scene. order: the plan's toys in the order of their ids, that of the caption's first mention;
    toys that nobody speaks of have none.

    names, prompts: of each object, in id order. stripped: the motion prompt without any attribute, as in the paper.
    """

    caption: str
    motion: str
    stripped: str
    order: tuple[int, ...]
    names: tuple[str, ...]
    prompts: tuple[str, ...]


def tell(plan: Plan, sight: Sight, claims: tuple[Claim, ...], chance: np.random.Generator) -> Text:
    """Put claims into words. Raises Illegible if two toys cannot be told apart, or one that is touched goes untold."""
    toys = plan.toys
    telling = _twin_words(toys, sight, claims, chance)
    full = [" ".join(filter(None, (telling[n], toy.colour, toy.shape))) for n, toy in enumerate(toys)]
    fond = [_fond(toy, telling[n], full[n], chance) for n, toy in enumerate(toys)]
    teller = _Teller(fond, full, claims, chance, silent={n for n, toy in enumerate(toys) if toy.act.silent})
    caption = teller.caption()
    order = tuple(dict.fromkeys(teller.mentioned))
    touched = {m for n in order for m in (*claims[n].bumps, claims[n].bumped_by, *(m for _, m in claims[n].passes))}
    if not touched - {-1} <= set(order):
        raise Illegible("a toy is touched that no word names")
    short = _short_names(toys, sight, claims, full, chance)
    plain = [toy.shape for toy in toys]
    prompts = []
    for n in order:
        local = _Teller([full[n]] * len(toys), full, claims, chance, known=set(range(len(toys))) - {n})
        local.later = full
        if claims[n].bumped_by >= 0 or chance.random() < 0.4:
            prompts.append(local.clause(n))
        else:
            prompts.append(local.clause(n, participle=True))
    return Text(
        caption,
        _motion_prompt(order, short, claims, chance),
        _motion_prompt(order, plain, claims, chance),
        order,
        tuple(full[n] for n in order),
        tuple(prompts),
    )


def _motion_prompt(
    order: Sequence[int], names: list[str], claims: tuple[Claim, ...], chance: np.random.Generator
) -> str:
    teller = _Teller(names, names, claims, chance, known=set(range(len(names))))
    return teller.join([teller.clause(n) for n in order])


class _Teller:
    """Writes clauses and remembers who has been mentioned: first "a red ball", then "the red ball"."""

    def __init__(
        self,
        first: list[str],
        later: list[str],
        claims: tuple[Claim, ...],
        chance: np.random.Generator,
        known: set[int] | None = None,
        silent: set[int] | None = None,
    ) -> None:
        self.first, self.later, self.claims, self.chance = first, later, claims, chance
        self.known, self.silent = known or set(), silent or set()
        self.mentioned: list[int] = []

    def pick(self, choices: Sequence[tuple[str, ...] | str]) -> str | tuple[str, ...]:
        return choices[int(self.chance.integers(len(choices)))]

    def toy(self, n: int) -> str:
        if n in self.known or n in self.mentioned:
            self.mentioned.append(n)
            return f"the {self.later[n]}"
        self.mentioned.append(n)
        return with_article(self.first[n])

    def caption(self) -> str:
        waiting = [int(n) for n in self.chance.permutation(len(self.claims)) if n not in self.silent]
        clauses = []
        still = [n for n in waiting if self.claims[n] == Claim("stay")]
        together = still if len(still) > 1 and self.chance.random() < 0.5 else []
        if len(still) == len(waiting) and self.chance.random() < 0.5:
            subjects = _listed([self.toy(n) for n in still])
            return self.join([f"nothing moves: {subjects} {'stand' if len(still) > 1 else 'stands'} on the floor"])
        while waiting:
            n = waiting.pop(0)
            if n in together:
                waiting = [m for m in waiting if m not in together]
                clauses.append(f"{_listed([self.toy(m) for m in together])} {self.pick(VERBS['stay'])[2]}")
                continue
            claim = self.claims[n]
            pushed = [m for m in claim.bumps if self.claims[m].bumped_by == n and m in waiting]
            # "... bumps into a blue block, which slides to the right": the block's own clause is then told.
            if pushed and claim.bumps[-1] == pushed[-1] and not claim.after and self.chance.random() < 0.65:
                told = self.clause(n)
                waiting.remove(pushed[-1])
                clauses.append(f"{told}, which {self._consequence(pushed[-1])}")
            else:
                clauses.append(self.clause(n))
        return self.join(clauses)

    def join(self, clauses: list[str]) -> str:
        """Clauses as sentences of one to three."""
        text, k = "", 0
        while k < len(clauses):
            take = min(len(clauses) - k, int(self.chance.choice([1, 2, 3], p=[0.35, 0.5, 0.15])))
            part = clauses[k : k + take]
            k += take
            if take == 3:
                text += _sentence(f"{part[0]}, {part[1]}, and {part[2]}")
            elif take == 2:
                joint = str(
                    self.chance.choice([", and ", " while ", ", while ", "; ", " as "], p=[0.35, 0.3, 0.15, 0.1, 0.1])
                )
                # "which slides to the right while ..." would be read of the wrong toy.
                text += _sentence((", and " if ", which " in part[0] else joint).join(part))
            else:
                text += _sentence(part[0])
        return text.strip()

    def clause(self, n: int, participle: bool = False) -> str:
        """One toy's claim, with its subject: "the red ball rolls slowly to the right"."""
        claim, form = self.claims[n], int(participle)
        subject = self.toy(n)
        if claim.bumped_by >= 0:
            return f"{subject} {self._passive(claim, form)}"
        text = self._motion(claim, form)
        if claim.bumps:
            text += f" and {self.pick(BUMP)[form]} {_listed([self.toy(m) for m in claim.bumps])}"
            text += self.pick(AFTER[claim.after])[form]
        return f"{subject} {text}"

    def _motion(self, claim: Claim, form: int) -> str:
        verb = self.pick(VERBS[claim.verb])[form]
        pace = f" {self.pick(PACES[claim.pace])}" if claim.pace else ""
        way = f" {self.pick(WAYS[claim.way])}" if claim.way else ""
        if claim.passes:
            verb = f"{('comes', 'coming')[form]} in from the {claim.enters} and {verb}" if claim.enters else verb
            text = f"{verb}{pace}{way}" + "".join(self._passing(k, claim, form) for k in range(len(claim.passes)))
            return text + (f" and {('leaves', 'leaving')[form]} the frame" if claim.leaves else "")
        if claim.verb == "fall":
            return verb + (f" and {('rolls on', 'rolling on')[form]}{way}" if way else "")
        if claim.enters:
            return self._entering(claim, verb, pace, way, form)
        if claim.leaves:
            return self._leaving(claim, verb, pace, way, form)
        if self.chance.random() < 0.7 or not way:
            return f"{verb}{pace}{way}"
        return f"{verb}{way}{pace}"

    def _entering(self, claim: Claim, verb: str, pace: str, way: str, form: int) -> str:
        side = f"from the {claim.enters}"
        choices = (
            f"{verb}{pace} in {side}",
            f"{verb}{pace} into view {side}",
            f"{('enters', 'entering')[form]} {side} and {verb}{pace}{way}",
            f"{('comes', 'coming')[form]} in {side}, {self._participle(claim.verb)}{pace}",
        )
        return str(self.pick(choices))

    def _leaving(self, claim: Claim, verb: str, pace: str, way: str, form: int) -> str:
        side = f" on the {claim.leaves}" if claim.leaves in ("left", "right") else ""
        choices = [
            f"{verb}{pace}{way} and {('leaves', 'leaving')[form]} the frame",
            f"{verb}{pace}{way}, out of the picture",
            f"{verb}{pace} out of the frame{side or way}",
            f"{verb}{pace} out of view{way}",
        ]
        return str(self.pick(choices))

    def _passing(self, number: int, claim: Claim, form: int) -> str:
        kind, other = claim.passes[number]
        place = {"behind": "behind", "before": "in front of"}[kind]
        alone = not claim.bumps and not claim.leaves and len(claim.passes) == 1
        choice = str(self.pick(("", "and", "with") if alone else ("", "and")))
        if choice == "and" or number:
            return f" and {('passes', 'passing')[form]} {place} {self.toy(other)}"
        return f"{', passing' if choice else ''} {place} {self.toy(other)}"

    def _passive(self, claim: Claim, form: int) -> str:
        by, way = self.toy(claim.bumped_by), f" {self.pick(WAYS[claim.way])}" if claim.way else ""
        pushed = self.pick(BUMPED)[form]
        out = (" and leaves the frame", " and leaving the frame")[form] if claim.leaves else ""
        if claim.verb == "stay":
            return f"{('is hit', 'being hit')[form]} by {by} but {('does not move', 'not moving')[form]}"
        if claim.verb == "nudge":
            return f"{('is nudged', 'being nudged')[form]} by {by}"
        if claim.verb == "tip":
            text = f"{pushed.replace('pushed', 'knocked')} over by {by}"
        elif self.chance.random() < 0.4:
            verb = self.pick(VERBS[claim.verb])[form]
            text = f"{('is hit', 'being hit')[form]} by {by} and {verb}{way}"
        else:
            text = f"{pushed}{way} by {by}"
        text += out
        if claim.bumps:
            text += f" and {self.pick(BUMP)[form]} {_listed([self.toy(m) for m in claim.bumps])}"
        return text

    def _consequence(self, n: int) -> str:
        """What the bumped toy does, after "which"."""
        claim = self.claims[n]
        if claim.verb == "stay":
            return "does not move"
        verb = self.pick(VERBS[claim.verb])[0]
        way = f" {self.pick(WAYS[claim.way])}" if claim.way and claim.verb != "tip" else ""
        text = f"{verb}{way}" + (" and leaves the frame" if claim.leaves else "")
        if claim.bumps:
            text += f" and {self.pick(BUMP)[0]} {_listed([self.toy(m) for m in claim.bumps])}"
        return text

    def _participle(self, verb: str) -> str:
        return str(self.pick(VERBS[verb])[1])


def with_article(name: str) -> str:
    if name.split()[0] in ("left", "right", "front", "back"):
        return f"the {name}"
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _fond(toy: Toy, telling: str, full: str, chance: np.random.Generator) -> str:
    """The name at first mention, sometimes with more about the toy than is needed."""
    if telling:
        return full
    size = toy.size_word if chance.random() < 0.3 else ""
    gloss = ("shiny" if toy.shiny else "matte") if chance.random() < 0.15 else ""
    return " ".join(filter(None, (size, gloss, full)))


def _twin_words(
    toys: tuple[Toy, ...], sight: Sight, claims: tuple[Claim, ...], chance: np.random.Generator
) -> list[str]:
    """For toys that share colour and shape, what tells them apart; nothing for the others."""
    words = [""] * len(toys)
    groups: dict[tuple[str, str], list[int]] = {}
    for n, toy in enumerate(toys):
        groups.setdefault((toy.colour, toy.shape), []).append(n)
    for group in groups.values():
        if len(group) > 1:
            options = _distinctions(toys, sight, claims, group)
            if not options:
                raise Illegible("two toys of one kind cannot be told apart")
            for n, word in zip(group, options[int(chance.integers(len(options)))], strict=True):
                words[n] = word
    return words


def _short_names(
    toys: tuple[Toy, ...], sight: Sight, claims: tuple[Claim, ...], full: list[str], chance: np.random.Generator
) -> list[str]:
    """The shape alone; an attribute, usually the colour, only where two toys would share the name."""
    names = [toy.shape for toy in toys]
    for shape in {toy.shape: 0 for toy in toys}:
        group = [n for n, toy in enumerate(toys) if toy.shape == shape]
        if len(group) < 2:
            continue
        colours = len({toys[n].colour for n in group}) == len(group)
        options = _distinctions(toys, sight, claims, group)
        if colours and (not options or chance.random() < 0.65):
            chosen = [toys[n].colour for n in group]
        elif options:
            chosen = list(options[int(chance.integers(len(options)))])
        else:
            chosen = [full[n].removesuffix(f" {shape}") for n in group]
        for n, word in zip(group, chosen, strict=True):
            names[n] = f"{word} {shape}"
    return names


def _distinctions(
    toys: tuple[Toy, ...], sight: Sight, claims: tuple[Claim, ...], group: list[int]
) -> list[tuple[str, ...]]:
    """Ways to tell the toys of a group apart by size or place: a word for each of them."""
    options: list[tuple[str, ...]] = []
    sizes = [toys[n].size for n in group]
    if len(group) == 2 and max(sizes) > 1.3 * min(sizes):
        options.append(("big", "small") if sizes[0] > sizes[1] else ("small", "big"))
    if any(claims[n].enters for n in group):
        return options
    for axis, words in ((0, ("left", "right")), (1, ("back", "front"))):
        places = sight.seen_places[0, group, axis]
        by_place = np.argsort(places)
        named = (words[0], "middle", words[1]) if len(group) == 3 else words
        if len(named) == len(group) and np.diff(places[by_place]).min() > 0.1:
            options.append(tuple(named[int(np.flatnonzero(by_place == k)[0])] for k in range(len(group))))
    return options


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ". "
