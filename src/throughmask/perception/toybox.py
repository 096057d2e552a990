"""Perception of Toybox pictures: the small segmenter by phrase, at any picture size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..connected import connected_regions
from ..media import resize, resize_labels
from ..types import Labels, Pixels
from .segmenter import STRIDE, PhraseEncoder, PhraseSegmenter, load_words, segment, track

PIECE = 0.2  # of a toy's largest region: smaller ones are another toy's pixels, more often than a toy behind another
SPECK = 30  # pixels at the size that it learnt: fewer are a doubt, not a toy (the smallest toys have 100)


@dataclass(frozen=True, eq=False)
class ToyboxPerception:
    """The small segmenter by phrase, which knows Toybox only. Pictures are shown to it at the size that it learnt."""

    text: PhraseEncoder
    segmenter: PhraseSegmenter
    side: int = 256

    @classmethod
    def load(cls, folder: str | Path) -> ToyboxPerception:
        """What `train toybox-words` wrote."""
        return cls(*load_words(folder))

    def segment(self, image: Pixels, phrases: Mapping[int, str], hints: Labels | None = None) -> Labels:
        """Labels H W; what comes to a few pixels only counts as not found, and small pieces apart from the rest are no
        part of a toy."""
        size = self._size(image.shape[:2])
        prior = None if hints is None else resize_labels(hints, size)
        labels = segment(self.segmenter, self.text, resize(image, size), phrases, prior)
        for id in phrases:
            regions = connected_regions((labels == id)[None])[0]
            sizes = np.bincount(regions.ravel())[1:]
            lost = sizes < (np.inf if sizes.sum() < SPECK else PIECE * sizes.max())
            labels[np.isin(regions, 1 + np.flatnonzero(lost))] = 0
        return resize_labels(labels, _hw(image))

    def track(self, frames: Pixels, phrases: Mapping[int, str], first: Labels | None = None) -> Labels:
        size = self._size(frames.shape[1:3])
        small = np.stack([resize(frame, size) for frame in frames])
        labels = track(self.segmenter, self.text, small, phrases, None if first is None else resize_labels(first, size))
        whole = np.stack([resize_labels(frame, _hw(frames[0])) for frame in labels])
        if first is not None:
            whole[0] = first
        return whole

    def _size(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Near the picture's own aspect, its shorter side as learnt, both sides divisible."""
        scale = self.side / min(size)
        height, width = (max(1, round(length * scale / STRIDE)) * STRIDE for length in size)
        return height, width


def _hw(image: Pixels) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
