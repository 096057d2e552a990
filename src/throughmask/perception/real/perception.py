"""Perception of real pictures: a detector finds boxes by phrase, SAM 2 makes masks of them and follows these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...connected import connected_regions
from ...hub import Say
from ...types import Labels, Pixels, present_ids
from ..parse import DISC
from .detect import GROUNDING_DINO, Detector, GroundingDino
from .segment import SAM2, Prompt, Sam2, bounds
from .track import Sam2Tracker, Seed
from .weights import find_model, load_whole, silent


@dataclass(frozen=True, eq=False)
class RealPerception:
    """Perception over a Detector, SAM 2 for pictures and SAM 2 for videos.

    look_every: an object that is not in frame 0 is looked for in every so many frames, and followed from there both
    ways. say: hears of what is not found, and why. settings: what run.json records.
    """

    detector: Detector
    segmenter: Sam2
    tracker: Sam2Tracker
    segmenter_name: str = ""
    look_every: int = 8
    say: Say = silent

    @classmethod
    def load(
        cls,
        detector: str | Detector = GROUNDING_DINO,
        segmenter: str = SAM2,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        box_threshold: float = 0.25,
        text_threshold: float = 0.25,
        say: Say = silent,
    ) -> RealPerception:
        """Models by hub id or folder, downloaded if need be; `say` hears how much before it comes.

        detector: or one that is ready. device: one that is there. dtype: of SAM 2, float32, bfloat16 or float16.
        Raises InvalidValueError for impossible names or thresholds, SampleError for models that cannot be had.
        """
        folder = find_model(segmenter, ["sam2_video"], say=say)
        if isinstance(detector, str):
            detector = GroundingDino.load(
                detector, device=device, box_threshold=box_threshold, text_threshold=text_threshold, say=say
            )
        from transformers import Sam2Model, Sam2VideoModel

        video = load_whole(Sam2VideoModel, folder, dtype=getattr(torch, dtype))
        picture = load_whole(Sam2Model, folder, dtype=getattr(torch, dtype))
        picture.vision_encoder = video.vision_encoder  # nine tenths of the weights, once
        return cls(detector, Sam2(picture.to(device)), Sam2Tracker(video.to(device)), segmenter, say=say)

    @property
    def settings(self) -> dict[str, Any]:
        return {"detector": self.detector.settings, "segmenter": self.segmenter_name, "look_every": self.look_every}

    def segment(self, image: Pixels, phrases: Mapping[int, str], hints: Labels | None = None) -> Labels:
        prompts = {} if hints is None else prompts_of(hints, phrases)
        unknown = set(phrases) - set(prompts)
        if unknown:
            found, missed = self.detector.detect(image, phrases)  # all, so that none takes another's box
            prompts |= {id: Prompt(box=found[id].box) for id in unknown & set(found)}
            for id in sorted(unknown & set(missed)):
                self.say(f"Not found: {missed[id]}.")
        labels = self.segmenter.segment(image, prompts)
        for id in sorted(set(prompts) - set(present_ids(labels))):
            self.say(f"Not found: {phrases[id]!r}: its mask is empty, or smaller objects cover it.")
        return labels

    def track(self, frames: Pixels, phrases: Mapping[int, str], first: Labels | None = None) -> Labels:
        start = self.segment(frames[0], phrases) if first is None else first
        seeds = {id: Seed(0, Prompt(mask=start == id)) for id in present_ids(start)}
        # From the last frame on, too: what enters may come late.
        for t in sorted({*range(self.look_every, len(frames), self.look_every), len(frames) - 1}):
            absent = set(phrases) - set(seeds)
            if not absent or not t:
                break
            found, _ = self.detector.detect(frames[t], phrases)
            seeds |= {id: Seed(t, Prompt(box=found[id].box)) for id in absent & set(found)}
        labels = self.tracker.track(frames, seeds)
        labels[0] = start
        return labels


def prompts_of(hints: Labels, ids: Iterable[int]) -> dict[int, Prompt]:
    """What painted hints (see parse.painted_hints) say of each id that they show: a box, points, or else a mask."""
    widest = 2 * max(1.0, DISC * min(hints.shape)) + 1
    prompts = {}
    for id in set(ids) & set(present_ids(hints)):
        mask = hints == id
        left, top, right, bottom = box = bounds(mask)
        if hints[int(top) : int(bottom), int(left) : int(right)].all():  # other hints may lie on a box
            prompts[id] = Prompt(box=box)
            continue
        regions = connected_regions(mask[None])[0]
        boxes = [bounds(regions == k) for k in range(1, int(regions.max()) + 1)]
        if all(max(right - left, bottom - top) <= widest for left, top, right, bottom in boxes):
            dots = (((left + right - 1) / 2, (top + bottom - 1) / 2, True) for left, top, right, bottom in boxes)
            prompts[id] = Prompt(points=tuple(dots))
        else:
            prompts[id] = Prompt(mask=mask)
    return prompts
