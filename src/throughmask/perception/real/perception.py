"""Perception of real pictures: a detector finds boxes by phrase, SAM 2 makes masks of them and follows these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ...connected import connected_regions
from ...errors import InvalidValueError, ThroughMaskError
from ...hub import Say
from ...types import Labels, Pixels, present_ids
from ..parse import DISC, Hints
from .detect import Detection, Detector, WhenAsked
from .segment import Prompt, Sam2, bounds
from .track import Sam2Tracker, Seed
from .weights import GROUNDING_DINO, SAM2, THRESHOLD, enough_memory, find_model, load_whole, silent


@dataclass(frozen=True, eq=False)
class RealPerception:
    """Perception over a Detector, SAM 2 for pictures and SAM 2 for videos.

    look_every: an object that is not in frame 0 is looked for in every so many frames, and followed from there both
    ways. say: hears of what is not found, and why. device: where the models are; on a GPU a picture may be segmented in
    one thread while a video is tracked in another. settings: what run.json records.
    """

    detector: Detector
    segmenter: Sam2
    tracker: Sam2Tracker
    segmenter_name: str = ""
    look_every: int = 8
    say: Say = silent
    device: str = "cpu"

    @classmethod
    def load(
        cls,
        detector: str | Detector = GROUNDING_DINO,
        segmenter: str = SAM2,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        box_threshold: float = THRESHOLD,
        text_threshold: float = THRESHOLD,
        graphs: bool = True,
        say: Say = silent,
    ) -> RealPerception:
        """Models by hub id or folder, downloaded if need be; `say` hears how much before it comes.

        detector: or one that is ready; by name it is found and loaded when it is first asked, for where boxes, points
        or masks are given it may never be. device: one that is there. dtype: of SAM 2, float32, bfloat16 or float16.
        graphs: whether what is computed again and again is replayed on a GPU of NVIDIA's, of all three (see graphs.py).

        Raises InvalidValueError for impossible names or thresholds, SampleError for models that cannot be had,
        DeviceError for a device that is too small.
        """
        if isinstance(detector, str):
            detector = WhenAsked(detector, device, box_threshold, text_threshold, graphs, say)
        folder = find_model(segmenter, ["sam2_video"], say=say)
        from transformers import Sam2Model, Sam2VideoModel
        from transformers.utils import logging

        video = load_whole(Sam2VideoModel, folder, device, dtype=getattr(torch, dtype))
        loud = logging.get_verbosity()
        logging.set_verbosity_error()  # one file serves both classes, which it would warn of
        try:
            picture = load_whole(Sam2Model, folder, dtype=getattr(torch, dtype))
        finally:
            logging.set_verbosity(loud)
        picture.vision_encoder = video.vision_encoder  # nine tenths of the weights, once
        with enough_memory("SAM 2", device):
            # On a CPU a chunk takes as long as its frames one by one, and more memory.
            tracker = Sam2Tracker(video, chunk=1) if device == "cpu" else Sam2Tracker(video, graphs=graphs)
            return cls(detector, Sam2(picture.to(device), graphs), tracker, segmenter, say=say, device=device)

    def make_ready(self) -> None:
        """Load the detector, if it is not there yet. Raises as `load` does."""
        if isinstance(self.detector, WhenAsked):
            _ = self.detector.loaded

    @property
    def settings(self) -> dict[str, Any]:
        return {"detector": self.detector.settings, "segmenter": self.segmenter_name, "look_every": self.look_every}

    def segment(self, image: Pixels, phrases: Mapping[int, str], hints: Labels | None = None) -> Labels:
        return self._segment(image, phrases, {} if hints is None else prompts_of(hints, phrases))

    def segment_hinted(self, image: Pixels, phrases: Mapping[int, str], hints: Hints) -> Labels:
        """As `segment`, with boxes and points to the pixel: of an object that has both, SAM 2 is shown both."""
        boxes = dict(hints.boxes)  # of two for an object the later
        prompts = {}
        for id in {id for id, _ in (*hints.boxes, *hints.points)}:
            dots = tuple((float(x), float(y), True) for k, (x, y) in hints.points if k == id)
            prompts[id] = Prompt(box=boxes.get(id), points=dots)
        return self._segment(image, phrases, prompts)

    def _segment(self, image: Pixels, phrases: Mapping[int, str], prompts: dict[int, Prompt]) -> Labels:
        unknown = set(phrases) - set(prompts)
        if unknown:
            found, missed = self._detect(image, phrases)  # all, so that none takes another's box
            prompts = prompts | {id: Prompt(box=found[id].box) for id in unknown & set(found)}
            for id in sorted(unknown & set(missed)):
                self.say(f"Not found: {missed[id]}.")
        with aside(self.device):
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
            try:
                found, _ = self._detect(frames[t], phrases)
            except ThroughMaskError as error:
                if not seeds:
                    raise
                # What is known already can be followed all the same.
                names = ", ".join(repr(phrases[id]) for id in sorted(absent))
                self.say(f"No longer looked for, from frame {t} on: {names}: {error}.")
                break
            seeds |= {id: Seed(t, Prompt(box=found[id].box)) for id in absent & set(found)}
        for id in sorted(set(phrases) - set(seeds)):
            self.say(f"Not found in any frame that was looked at: {phrases[id]!r}.")
        labels = self.tracker.track(frames, seeds)
        labels[0] = start
        return labels

    def _detect(self, image: Pixels, phrases: Mapping[int, str]) -> tuple[dict[int, Detection], dict[int, str]]:
        """What the detector finds, without boxes that cannot be."""
        with aside(self.device):
            found, missed = self.detector.detect(image, phrases)
        sound, wrong = {}, {}
        for id in set(found) & set(phrases):
            try:
                Prompt(box=found[id].box).check((image.shape[0], image.shape[1]))
                sound[id] = found[id]
            except InvalidValueError:
                wrong[id] = f"{phrases[id]!r}: the detector gives a box that is not in the picture"
        return sound, {**missed, **wrong}


def aside(device: Any) -> AbstractContextManager[Any]:
    """What is computed inside has a stream of its own on a GPU: what another thread computes there meanwhile is not
    waited for. All that goes in and comes out is on the host, but for weights, which have been there for long.
    """
    device = torch.device(device)
    return torch.cuda.stream(_stream(device)) if device.type == "cuda" else nullcontext()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Always the same one, as each keeps memory for itself."""
    stream = torch.cuda.Stream(device, priority=-1)  # its small kernels before the large ones of what is tracked
    stream.wait_stream(torch.cuda.current_stream(device))  # weights, unless they are copied by a host that waits
    return stream


def prompts_of(hints: Labels, ids: Iterable[int]) -> dict[int, Prompt]:
    """What painted hints (see parse.Hints.painted) say of each id that they show: a box, points, or else a mask."""
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
