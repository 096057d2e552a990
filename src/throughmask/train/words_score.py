"""How good the word networks are on scenes they have never seen: masks by phrase, masks followed, what texts tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from ..perception.segmenter import PhraseEncoder, PhraseSegmenter, segment, track
from ..types import Labels
from .clips import Clips
from .words_batches import shrunk
from .words_head import IGNORE, ToyHead, targets_of, toys_of
from .words_texts import KINDS, PLACES, Story, absent_phrase, misspell, texts_of

LEAST = 100  # pixels of a toy that counts, at full size
EVERY = 6  # frames between two that are segmented by phrase alone


def score_masks(
    text: PhraseEncoder, segmenter: PhraseSegmenter, clips: Clips, stories: Sequence[Story], *, shrink: int = 1
) -> dict[str, float]:
    """Means over toys and frames of the intersection over union. iou: by phrase alone (frame 0 alone where a name tells
    a place). iou_tracked: found in frame 0 and followed to the end. absent: share of absent toys that are not found."""
    alone: list[float] = []
    tracked: list[float] = []
    absent: list[float] = []
    least = LEAST / shrink**2
    for n, story in enumerate(stories):
        one = shrunk(Clips(clips.pixels[n : n + 1], clips.labels[n : n + 1]), shrink, torch.device("cpu"))
        pixels, labels = (part[0].numpy() for part in one)
        telling = story.tellings[0]
        phrases = dict(zip(telling.ids, telling.names, strict=True))
        placed = any(name.split()[0] in PLACES for name in telling.names)
        for t in range(0, 1 if placed else len(pixels), EVERY):
            alone += overlaps(labels[t], segment(segmenter, text, pixels[t], phrases), phrases, least)
        for truth, found in zip(labels, track(segmenter, text, pixels, phrases), strict=True):
            tracked += overlaps(truth, found, phrases, least)
        name = absent_phrase(story, np.random.default_rng(story.seed))
        absent.append(float(np.count_nonzero(segment(segmenter, text, pixels[0], {1: name})) < least))
    return {"iou": _mean(alone), "iou_tracked": _mean(tracked), "absent": _mean(absent)}


def overlaps(truth: Labels, found: Labels, ids: Iterable[int], least: float) -> list[float]:
    """The intersection over union of each id that has so many pixels in truth."""
    masks = [(truth == k, found == k) for k in ids if np.count_nonzero(truth == k) >= least]
    return [float((a & b).sum() / (a | b).sum()) for a, b in masks]


@torch.no_grad()
def score_head(
    text: PhraseEncoder, head: ToyHead, stories: Sequence[Story], *, typos: float = 0.0
) -> dict[str, dict[str, float]]:
    """For each kind of text the share of what it tells that is understood, by field. typos: share of words misspelt."""
    chance = np.random.default_rng(0)
    scores: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        texts, told = [], []
        for story in stories:
            for words, ids in (pair for telling in story.tellings for pair in texts_of(telling, kind)):
                texts.append(misspell(words, typos, chance))
                told.append(targets_of(words, toys_of(story, ids), alone=kind == "prompt"))
        answers = [head(*text(texts[k : k + 64])) for k in range(0, len(texts), 64)]
        scores[kind] = {}
        for name in told[0]:
            answer = torch.cat([part[name].argmax(-1) for part in answers]).cpu()
            target = torch.tensor([targets[name] for targets in told])
            if (target != IGNORE).any():
                scores[kind][name] = _mean((answer == target)[target != IGNORE].tolist())
    return scores


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
