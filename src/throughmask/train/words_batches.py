"""Batches for the words: random frames on the device, phrases with the masks they mean, and texts with what they tell.

Clips stay on the device. What is drawn with words takes a CPU longer than a GPU's step takes: other processes do it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ..perception.segmenter import check_size
from .augment import swap_sides
from .clips import Clips
from .words_head import name_targets, targets_of, toys_of
from .words_texts import KINDS, Story, Telling, absent_phrase, draw_phrase, misspell, texts_of

if TYPE_CHECKING:
    from .config import WordsConfig

NOBODY = 255  # an id that no pixel has


class Batch(NamedTuple):
    """pixels: B 3 H W in -1..1. For each picture P phrases, so M = B P: phrase_ids, phrase_mask M S; prior, target
    M 1 H W, the prior empty where there is none. text_ids, text_mask: K S; told: K SLOTS for each field."""

    pixels: Tensor
    phrase_ids: Tensor
    phrase_mask: Tensor
    prior: Tensor
    target: Tensor
    text_ids: Tensor
    text_mask: Tensor
    told: dict[str, Tensor]


class Draw(NamedTuple):
    """What is drawn on the CPU. which: clip, frame, and whether it is mirrored, B; and, B P, the id that a phrase
    means, and the frame and id of the mask given beside it."""

    which: tuple[Tensor, ...]
    half: bool
    phrases: dict[str, Tensor]
    texts: dict[str, Tensor]
    told: dict[str, Tensor]


class WordBatches:
    """The batches of a run. stories: of each clip, in the clips' order."""

    def __init__(
        self,
        clips: Clips,
        stories: Sequence[Story],
        tokenizer: Any,
        config: WordsConfig,
        device: torch.device,
        rank: int,
    ) -> None:
        smallest = config.shrink * (2 if config.half else 1)
        check_size(*(side // smallest for side in clips.labels.shape[2:]))
        # Clips are small enough to stay on the device: 6.5 MB each at 256×256, 25 frames.
        self.pixels, self.labels = shrunk(clips, config.shrink, device)
        self.config, self.device = config, device
        self.draws = Draws(stories, tokenizer, config, self.labels.shape[1], rank)
        self.generator = torch.Generator(device).manual_seed(config.seed * 1000 + rank)

    def __iter__(self) -> Iterator[Batch]:
        """A batch for each step."""
        workers = self.config.workers if self.config.workers > 1 else 0
        draws = DataLoader(
            self.draws,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=_draw_alone,
            prefetch_factor=4 if workers else None,
            pin_memory=self.device.type == "cuda",
        )
        return map(self.join, draws)

    def join(self, draw: Draw) -> Batch:
        """The pictures, masks and texts that were drawn."""
        which = (part.to(self.device, non_blocking=True) for part in draw.which)
        clip, frame, flip, thing, prior_frame, prior_thing = which
        pixels = self.pixels[clip, frame].permute(0, 3, 1, 2).float() / 255
        target = (self.labels[clip, frame][:, None] == thing[..., None, None]).float()
        prior = (self.labels[clip[:, None], prior_frame] == prior_thing[..., None, None]).float()
        pixels, target, prior = (torch.where(flip[:, None, None, None], x.flip(-1), x) for x in (pixels, target, prior))
        prior = roughen(prior.flatten(0, 1)[:, None], self.generator)
        target = target.flatten(0, 1)[:, None]
        if draw.half:  # toys of half the size
            pixels, target, prior = (F.avg_pool2d(x, 2) for x in (pixels, target, prior))
            target, prior = (target >= 0.5).float(), prior.round()
        pixels, target = bend(pixels, target, self.config.bend, self.generator)
        pixels = jitter(pixels, self.generator) * 2 - 1
        phrases, texts, told = (self._to_device(part) for part in (draw.phrases, draw.texts, draw.told))
        return Batch(
            pixels,
            phrases["input_ids"],
            phrases["attention_mask"].bool(),
            prior,
            target,
            texts["input_ids"],
            texts["attention_mask"].bool(),
            told,
        )

    def _to_device(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: part.to(self.device, non_blocking=True) for name, part in parts.items()}


def _draw_alone(worker: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process is one core; a forked tokenizer warns of more


class Draws(Dataset[Draw]):
    """What is drawn for each step; it follows from the seed, the rank and the step alone."""

    def __init__(
        self, stories: Sequence[Story], tokenizer: Any, config: WordsConfig, num_frames: int, rank: int
    ) -> None:
        self.stories, self.tokenizer, self.config = stories, tokenizer, config
        self.num_frames, self.rank = num_frames, rank

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> Draw:
        self.chance = np.random.default_rng([self.config.seed, self.rank, step])
        return self._draw()

    def _draw(self) -> Draw:
        config, chance = self.config, self.chance
        clips = chance.integers(len(self.stories), size=config.batch)
        flips = chance.random(config.batch) < (0.5 if config.flip else 0)
        # Frame 0 is the one that is parsed, and the only one of which words of place are true.
        first = chance.random(config.batch) < 0.2
        frames = np.where(first, 0, chance.integers(self.num_frames, size=config.batch))
        phrases, asked = [], []
        for clip, frame, flip in zip(clips, frames, flips, strict=True):
            for _ in range(config.phrases):
                phrase, *ids = self._ask(self.stories[clip], int(frame))
                phrases.append(self._written(phrase, flip))
                asked.append(ids)
        texts, told = zip(*(self._tell() for _ in range(config.texts)), strict=True)
        which = [torch.from_numpy(part) for part in (clips, frames, flips)]
        which += torch.tensor(asked).unflatten(0, (config.batch, config.phrases)).unbind(-1)
        targets = {name: torch.tensor([each[name] for each in told]) for name in told[0]}
        half = bool(chance.random() < config.half)
        return Draw(tuple(which), half, self._tokens(phrases), self._tokens(texts), targets)

    def _tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        return dict(self.tokenizer(list(texts), padding="longest", truncation=True, return_tensors="pt"))

    def _written(self, text: str, flip: bool) -> str:
        return misspell(swap_sides(text) if flip else text, self.config.typos, self.chance)

    def _ask(self, story: Story, frame: int) -> tuple[str, int, int, int]:
        """A phrase, the id it means, and whose mask of which frame is given beside it."""
        chance, telling = self.chance, self._telling(story)
        given = chance.random() < self.config.prior
        others = [*range(1, len(story.toys) + 1), NOBODY]
        near = self._near(frame)
        if chance.random() < self.config.absent:
            return absent_phrase(story, chance), NOBODY, near, int(chance.choice(others)) if given else NOBODY
        index = int(chance.integers(len(telling.ids)))
        phrase, thing = draw_phrase(story, telling, index, chance), telling.ids[index]
        if phrase.holds == "never" or (phrase.holds == "at first" and frame > 0):
            return phrase.text, thing, near, thing
        # Where the phrase alone is enough, it is right and a mask of something else is wrong.
        wrong = given and phrase.holds == "always" and chance.random() < 0.1
        prior = int(chance.choice(others)) if wrong else thing if given else NOBODY
        return phrase.text, thing, near, prior

    def _near(self, frame: int) -> int:
        """Another frame, to take a mask from: mostly the next one, but an object may have been hidden for many."""
        spans, shares = ((1, 2), (2, 4), (4, 13)), (0.65, 0.2, 0.15)
        apart = int(self.chance.integers(*spans[int(self.chance.choice(3, p=shares))]))
        after = frame + apart < self.num_frames and (frame < apart or self.chance.random() < 0.5)
        return frame + apart if after else max(frame - apart, 0 if frame else min(1, self.num_frames - 1))

    def _tell(self) -> tuple[str, dict[str, list[int]]]:
        """A text, and what the head should say of it."""
        chance = self.chance
        story = self.stories[int(chance.integers(len(self.stories)))]
        telling, flip = self._telling(story), self.config.flip and chance.random() < 0.5
        kind = str(chance.choice((*KINDS, "name"), p=(0.3, 0.2, 0.1, 0.3, 0.1)))
        if kind == "name":
            index = int(chance.integers(len(telling.ids)))
            toy = story.toys[telling.ids[index] - 1]
            return self._written(telling.names[index], flip), name_targets(telling.names[index], toy)
        texts = texts_of(telling, kind)
        text, ids = texts[int(chance.integers(len(texts)))]
        toys = toys_of(story, ids)
        targets = targets_of(text, toys, alone=kind == "prompt")
        if flip:  # what is told is the same, left and right swapped
            swapped = targets_of(text, [toy.mirrored() for toy in toys], alone=kind == "prompt")
            targets["way"] = [new if old >= 0 else old for old, new in zip(targets["way"], swapped["way"], strict=True)]
        return self._written(text, flip), targets

    def _telling(self, story: Story) -> Telling:
        return story.tellings[int(self.chance.integers(len(story.tellings)))]


def shrunk(clips: Clips, factor: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels and labels on the device, sides divided by the factor: the mean pixel, the id that most pixels have."""
    pixels, labels = [], []
    for n in range(len(clips) if factor > 1 else 0):
        x = torch.tensor(clips.pixels[n]).permute(0, 3, 1, 2).float()
        pixels.append(F.avg_pool2d(x, factor).round().byte().permute(0, 2, 3, 1))
        known = torch.tensor(clips.labels[n])
        shares = torch.stack([F.avg_pool2d((known == k).float(), factor) for k in range(int(known.max()) + 1)])
        labels.append(shares.argmax(0).byte())
    if factor > 1:
        return torch.stack(pixels).to(device), torch.stack(labels).to(device)
    # Not torch.tensor, which reads all of it into memory first.
    return torch.from_numpy(clips.pixels).to(device), torch.from_numpy(clips.labels).to(device)


def roughen(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Masks as an earlier guess would have them: shifted by some pixels, a little larger or smaller. M 1 H W."""
    draw = torch.rand(4, len(masks), 1, 1, 1, generator=generator, device=masks.device)
    shift = (draw[:2, :, 0, 0] * 2 - 1) * 0.04 * (draw[2, :, 0, 0] < 0.7)  # of half the picture's sides
    matrix = torch.eye(2, 3, device=masks.device).repeat(len(masks), 1, 1)
    matrix[:, :, 2] = shift[..., 0].T
    grid = F.affine_grid(matrix, list(masks.shape), align_corners=False)
    moved = F.grid_sample(masks, grid, mode="nearest", align_corners=False)
    grown, shrunk_ = F.max_pool2d(moved, 5, 1, 2), -F.max_pool2d(-moved, 3, 1, 1)
    return torch.where(draw[3] < 0.2, grown, torch.where(draw[3] < 0.35, shrunk_, moved))


def bend(pixels: Tensor, target: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures as a model makes them: outlines that wave by some pixels, and in half of them no fine detail.

    B 3 H W in 0..1, and M 1 H W, as many masks for each picture. What a toy is called no longer shows in its outline
    alone: the mask given beside the phrase must tell two toys of one colour apart. share: of the pictures.
    """
    B, H, W = len(pixels), *pixels.shape[-2:]
    draw = torch.rand(3, B, 1, 1, 1, generator=generator, device=pixels.device)
    waves = torch.randn(B, 2, 8, 8, generator=generator, device=pixels.device) * 0.05 * draw[0]
    waves = F.interpolate(waves, (H, W), mode="bicubic", align_corners=False) * (draw[1] < share)
    still = torch.eye(2, 3, device=pixels.device).expand(B, 2, 3)
    grid = F.affine_grid(still, [B, 1, H, W], align_corners=False) + waves.permute(0, 2, 3, 1)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    coarse = F.interpolate(F.avg_pool2d(pixels, 4), (H, W), mode="bilinear", align_corners=False)
    pixels = torch.where(draw[1] < share, torch.lerp(pixels, coarse, (2 * draw[2] - 1).clamp(min=0)), pixels)
    grid = grid.repeat_interleave(len(target) // B, 0)
    return pixels, F.grid_sample(target, grid, mode="nearest", padding_mode="border", align_corners=False)


def jitter(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Other light, some noise and blur; colours keep their names. B 3 H W in 0..1."""
    B, device = len(pixels), pixels.device
    draw = torch.rand(6, B, 1, 1, 1, generator=generator, device=device)
    tint = torch.rand(B, 3, 1, 1, generator=generator, device=device)
    x = pixels.clamp(min=1e-4) ** (0.8 + 0.45 * draw[0])
    x = x * (0.85 + 0.3 * draw[1]) * (0.96 + 0.08 * tint)
    x = (x - 0.5) * (0.85 + 0.3 * draw[2]) + 0.5
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.where(draw[3] < 0.25, torch.lerp(x, blurred, draw[4]), x)
    noise = torch.randn(pixels.shape, generator=generator, device=device)
    return (x + noise * 0.05 * (draw[5] - 0.5).clamp(min=0)).clamp(0, 1)
