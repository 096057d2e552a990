"""Batches of cached items. What is drawn at a step follows from the seed and the step alone: resuming is exact."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..backbones import Backbone
from ..nn.guidance import Condition, draw_drops, drop
from ..nn.objective import Objective
from ..nn.plan import SortPlan
from ..stages.conditioning import Seen, join_motion, join_video
from ..stages.recipes import Recipe
from .latents import LatentItems

AHEAD = 3  # batches that are made while the device computes


class Batch(NamedTuple):
    """clean: B C F Y X, what is to be learnt. time: B. plan: the backbone's, of the condition's label. squared_runs: of
    masked self-attention among (the finest) tokens, for one sample."""

    clean: Tensor
    time: Tensor
    condition: Condition
    plan: Any
    squared_runs: float


class Rows(NamedTuple):
    """What a batch is made of, as it was cached: half precision, stills not repeated in time, nothing null yet.

    plan: the backbone's, of the labels with null ones; run lengths stay on the CPU.
    """

    clean: Tensor
    time: Tensor
    drop_image: Tensor
    drop_text: Tensor
    text: Tensor
    image: Tensor | None = None
    first: Tensor | None = None
    motion: Tensor | None = None
    label: Tensor | None = None
    sees: Tensor | None = None
    local: Tensor | None = None
    key_mask: Tensor | None = None
    plan: Any = None

    def pinned(self) -> Rows:
        """In memory that a GPU can fetch from while it computes."""
        return self._each(lambda part: part.contiguous().pin_memory())  # one that is expanded cannot be pinned

    def to(self, device: torch.device) -> Rows:
        return self._each(lambda part: part.to(device, non_blocking=True))

    def _each(self, move: Callable[[Tensor], Tensor]) -> Rows:
        moved: dict[str, Any] = {name: move(part) for name, part in self._asdict().items() if isinstance(part, Tensor)}
        return self._replace(**moved, plan=_moved(self.plan, move))


def _moved(plan: Any, move: Callable[[Tensor], Tensor]) -> Any:
    """A plan with its tensors moved: a sort plan, or tuples of them and of labels."""
    if isinstance(plan, SortPlan):
        parts = ("order", "inverse", "starts", "lengths")
        return plan._replace(**{name: move(getattr(plan, name)) for name in parts})
    if isinstance(plan, tuple):
        parts_moved = [_moved(part, move) for part in plan]
        return type(plan)(*parts_moved) if hasattr(plan, "_fields") else tuple(parts_moved)
    return move(plan) if isinstance(plan, Tensor) else plan


def _sort_plan(plan: Any) -> SortPlan | None:
    """The first sort plan in a plan: that of the finest tokens."""
    if isinstance(plan, tuple) and not isinstance(plan, SortPlan):
        return next((found for part in plan if (found := _sort_plan(part)) is not None), None)
    return plan if isinstance(plan, SortPlan) else None


def _longer(local: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Local prompts B L S D padded to a multiple of 16 tokens: a compiled step is compiled anew for each length."""
    more = -local.shape[2] % 16
    return functional.pad(local, (0, 0, 0, more)), functional.pad(key_mask, (0, more))


class Draws(NamedTuple):
    """What is drawn for the samples of a step: an item, the variant of its labels, a phrasing, a time, what is null."""

    items: list[int]
    variants: Tensor
    phrasings: Tensor
    time: Tensor
    drop_image: Tensor
    drop_text: Tensor


def draw(seed: int, step: int, batch: int, num_items: int, num_variants: int, objective: Objective, p: float) -> Draws:
    """The draws of a whole batch, the same on every process. Each item comes once before any comes again."""
    places = range(step * batch, (step + 1) * batch)
    epochs = {place // num_items for place in places}
    orders = {epoch: np.random.default_rng((seed, 1, epoch)).permutation(num_items) for epoch in epochs}
    items = [int(orders[place // num_items][place % num_items]) for place in places]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    variants = torch.randint(num_variants, (batch,), generator=generator)
    phrasings = torch.randint(1 << 30, (batch,), generator=generator)
    time = objective.draw_times(batch, generator)
    return Draws(items, variants, phrasings, time, *draw_drops(batch, p, generator))


class Batches:
    """The batches of this process, each step's share of the whole batch in `accumulate` parts.

    stage: "base", "motion" or "video".
    """

    def __init__(
        self,
        items: LatentItems,
        stage: str,
        recipe: Recipe,
        backbone: Backbone,
        tokenizer: object,
        objective: Objective,
        *,
        batch: int,
        accumulate: int,
        variants: int,
        drop: float,
        seed: int,
        rank: int,
        world: int,
    ) -> None:
        self.items, self.stage, self.recipe, self.backbone, self.tokenizer = items, stage, recipe, backbone, tokenizer
        self.objective, self.size, self.accumulate = objective, batch, accumulate
        self.variants, self.drop, self.seed, self.rank, self.world = variants, drop, seed, rank, world
        self.empty = backbone.global_text(tokenizer, *items.prompts.empty())[0]

    def iterate(self, first_step: int, device: torch.device) -> Generator[list[Batch]]:
        """The parts of every step from `first_step` on. Two threads read ahead; joining them is the device's work."""

        def gather(step: int) -> list[Rows]:
            parts = self.gather(step)
            return [part.pinned() for part in parts] if device.type == "cuda" else parts

        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(gather, first_step + k) for k in range(AHEAD)]
            try:
                for step in itertools.count(first_step + AHEAD):
                    parts = waiting.pop(0).result()
                    waiting.append(pool.submit(gather, step))
                    yield [self.join(part.to(device)) for part in parts]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def parts(self, step: int) -> list[Batch]:
        """This process's share of a step, on the CPU."""
        return [self.join(part) for part in self.gather(step)]

    def gather(self, step: int) -> list[Rows]:
        """This process's share of a step, read from the cache."""
        draws = draw(self.seed, step, self.size, len(self.items), self.variants, self.objective, self.drop)
        share = self.size // self.world
        part = share // self.accumulate
        first = self.rank * share
        return [self._gather(draws, slice(k, k + part)) for k in range(first, first + share, part)]

    def join(self, rows: Rows) -> Batch:
        """The batch on the rows' device; what the network is told is joined as for sampling (stages.conditioning)."""
        F = rows.clean.shape[2]
        seen = Seen(rows.label, rows.sees, rows.local, rows.key_mask)
        if self.stage == "motion":
            assert rows.first is not None
            assert rows.image is not None
            condition = join_motion(self.recipe, rows.first, rows.image, rows.text, F, seen)
        elif self.stage == "base":
            condition = Condition(rows.clean[:, :0], rows.text)
        else:
            assert rows.image is not None
            condition = join_video(self.recipe, rows.image, rows.motion, rows.text, F, seen)
        condition = drop(condition, self.empty.to(rows.text.device), image=rows.drop_image, text=rows.drop_text)
        plan = _sort_plan(rows.plan)
        squared = 0.0 if plan is None else float(plan.runs.clamp(min=0).double().square().sum())
        return Batch(rows.clean.float(), rows.time, condition, rows.plan, squared / len(rows.clean))

    def _gather(self, draws: Draws, which: slice) -> Rows:
        items, read = draws.items[which], self.items.rows
        phrasings = [
            int(draws.phrasings[which][k]) % self.items.prompts.num_phrasings(item) for k, item in enumerate(items)
        ]
        told = self.items.prompts.texts(items, phrasings, 1 if self.stage == "motion" else 0)
        rows = Rows(
            read("motion", items, [0] * len(items)) if self.stage == "motion" else read("video", items),
            draws.time[which],
            draws.drop_image[which],
            draws.drop_text[which],
            self.backbone.global_text(self.tokenizer, *told),
        )
        if self.stage == "motion":
            rows = rows._replace(first=read("first", items), image=read("image", items))
            return self._masked(rows, items, [0] * len(items), phrasings, first=True) if self.recipe.bind else rows
        return rows if self.stage == "base" else self._video(rows, items, draws.variants[which].tolist(), phrasings)

    def _video(self, rows: Rows, items: list[int], variants: list[int], phrasings: list[int]) -> Rows:
        read = self.items.rows
        rows = rows._replace(image=read("image", items))
        if self.recipe.motion == "none":
            return rows
        if self.recipe.motion == "flow":
            return rows._replace(motion=read("motion", items, [0] * len(items)))
        rows = rows._replace(motion=read("motion", items, variants))
        return self._masked(rows, items, variants, phrasings)

    def _masked(
        self, rows: Rows, items: list[int], variants: list[int], phrasings: list[int], *, first: bool = False
    ) -> Rows:
        """What masked layers need. first: the regions of frame 0, at every frame."""
        read = self.items.rows
        _, _, F, Y, X = rows.clean.shape

        if self.recipe.mask_self:
            tokens = read("begins", items) if first else read("tokens", items, variants)
            label = torch.where(rows.drop_image[:, None], -1, tokens.long())
            rows = rows._replace(label=label, plan=self.backbone.plan(label, (F, Y, X)))
        if self.recipe.mask_cross:
            packed = read("sees", items, variants).numpy()
            if first:  # a frame's tokens stand together
                packed = np.tile(packed[:, : packed.shape[1] // F], (1, F, 1))
            seen = np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(packed, axis=(0, 1))))
            num_objects = int(seen[-1]) + 1 if len(seen) else 1
            sees = torch.from_numpy(np.unpackbits(packed, axis=-1, count=num_objects)).bool()
            local, key_mask = _longer(*self.items.prompts.local(items, phrasings, num_objects))
            rows = rows._replace(sees=sees, local=local, key_mask=key_mask)
        return rows
