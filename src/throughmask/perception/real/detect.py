"""Boxes by phrase: Grounding DINO through transformers' own class, each phrase in a text of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock, local
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...errors import InvalidValueError, SampleError
from ...hub import Say
from ...types import Pixels
from .device import on_device
from .graphs import Graphs, Recorded
from .matching import Candidate, Corners, allot, split_place
from .weights import GROUNDING_DINO as GROUNDING_DINO
from .weights import THRESHOLD, enough_memory, find_model, load_whole, loading, silent

_TAIL = re.compile(r" (?:of|on|in|at|with|by|near|under|behind|beside|from|to) ")


class Detection(NamedTuple):
    """An object's box: left, top, right, bottom in pixels, as edges; and its score, 0 to 1."""

    box: Corners
    score: float


class Detections(NamedTuple):
    """What was found, by id; and for every other id why not, in words that name its phrase."""

    found: dict[int, Detection]
    missed: dict[int, str]


class Detector(Protocol):
    """Finds the best box of each phrase. No two ids get the same box."""

    @property
    def settings(self) -> dict[str, Any]:
        """What run.json records: the model, its thresholds."""
        ...

    def detect(self, image: Pixels, phrases: Mapping[int, str]) -> Detections:
        """image: uint8 H W 3. phrases: of each object id, such as "red ball" or "left dog"."""
        ...


class _Answer(NamedTuple):
    """What the network says of a text. places: where each token begins and ends in it (tokens 2); of its queries, on
    its device, how sure they are of each token (queries tokens), and their boxes (queries 4).
    """

    text: str
    places: Tensor
    logits: Tensor
    boxes: Tensor


@dataclass(frozen=True, eq=False)
class GroundingDino:
    """Detector over GroundingDinoForObjectDetection.

    A box counts if one of its phrase's words is seen in it more surely than box_threshold, and its noun more surely
    than text_threshold, so that "red ball" is no red block. batch: how many phrases the network is given at a time,
    each with the picture; what it answers to one does not depend on the others. graphs: whether its three large parts
    are replayed on a GPU of NVIDIA's (see graphs.py), where it must be asked from one stream only.

    Raises InvalidValueError unless both thresholds are from 0 to 1, and batch above 0.
    """

    model: Any
    tokenizer: Any
    image_processor: Any
    box_threshold: float = THRESHOLD
    text_threshold: float = THRESHOLD
    name: str = ""
    batch: int = 4
    graphs: bool = False
    # A tokenizer that one thread sets to pad while it is at work in another raises "Already borrowed".
    _reading: Any = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidValueError("at least one phrase is asked at a time", seen=self.batch)
        for what in ("box_threshold", "text_threshold"):
            if not 0 <= getattr(self, what) <= 1:
                raise InvalidValueError(f"the {what.replace('_', ' ')} is from 0 to 1", seen=getattr(self, what))
        if self._parts is None:
            return
        graphs = Graphs.on(self.model, self.graphs)
        if graphs.record is not None:
            # Every layer of deformable attention would wait for the device, to check what it was given. Its own switch:
            os.environ.setdefault("TRANSFORMERS_DISABLE_TORCH_CHECK", "1")
        for part in (self._parts.backbone, self._parts.encoder, self._parts.decoder):
            part.forward = Recorded(_own(part.forward), graphs) if self.graphs else _own(part.forward)
        self._parts.backbone.forward = _OnePicture(self._parts.backbone.forward)

    @classmethod
    def load(
        cls,
        name: str = GROUNDING_DINO,
        *,
        device: str = "cpu",
        box_threshold: float = THRESHOLD,
        text_threshold: float = THRESHOLD,
        graphs: bool = False,
        say: Say = silent,
    ) -> GroundingDino:
        """A hub id or a folder, in float32: a bfloat16 tells places apart to 1/256 only.

        Raises as find_model and load_whole do.
        """
        cls(None, None, None, box_threshold, text_threshold)
        folder = find_model(name, ["grounding-dino"], say=say)
        from transformers import AutoTokenizer, GroundingDinoForObjectDetection, GroundingDinoImageProcessorPil

        with loading(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            image_processor = GroundingDinoImageProcessorPil.from_pretrained(folder)
        if tokenizer.convert_tokens_to_ids(".") in (None, tokenizer.unk_token_id):  # transformers makes an empty one
            raise SampleError(f"{name} lacks its tokenizer", fix="copy the whole folder again, or download it again")
        model = load_whole(GroundingDinoForObjectDetection, folder, device, dtype=torch.float32)
        # On a CPU a batch takes as long as its phrases one by one, and more memory.
        batch = 1 if device == "cpu" else cls.batch
        return cls(model, tokenizer, image_processor, box_threshold, text_threshold, name, batch, graphs)

    @property
    def settings(self) -> dict[str, Any]:
        return {"model": self.name, "box_threshold": self.box_threshold, "text_threshold": self.text_threshold}

    def detect(self, image: Pixels, phrases: Mapping[int, str]) -> Detections:
        """Raises DeviceError if the device's memory does not suffice."""
        seen = self.image_processor(images=Image.fromarray(np.ascontiguousarray(image)), return_tensors="pt")
        size = (image.shape[0], image.shape[1])
        nouns = {id: split_place(phrase)[0] for id, phrase in phrases.items()}
        candidates: dict[str, list[Candidate]] = {}
        best: dict[str, float] = {}
        with enough_memory("Grounding DINO", self.model.device):
            seen = {name: on_device(value, self.model.device) for name, value in seen.items()}
            # All are asked before the first answer is read, which a GPU would be idle after.
            asked = list(dict.fromkeys(nouns.values()))
            groups = (asked[begin : begin + self.batch] for begin in range(0, len(asked), self.batch))
            with self._looking():
                answers = [answer for group in groups for answer in self._answers(seen, group)]
            for noun, answer in zip(asked, answers, strict=True):
                candidates[noun], best[noun] = self._candidates(answer, size)
        boxes = allot(phrases, candidates, size)
        missed = {
            id: f"{phrases[id]!r}: what fits it is another object"
            if candidates[noun]
            else f"{phrases[id]!r}: not seen surely enough (best score {best[noun]:.2f})"
            for id, noun in nouns.items()
            if id not in boxes
        }
        return Detections({id: Detection(box, score) for id, (box, score, _) in boxes.items()}, missed)

    @property
    def _parts(self) -> Any:
        """None of what stands in for a model."""
        return self.model.model if isinstance(self.model, nn.Module) else None

    def _looking(self) -> AbstractContextManager[None]:
        """All that is asked inside, in this thread, is about one picture."""
        return nullcontext() if self._parts is None else cast(_OnePicture, self._parts.backbone.forward).looking()

    @torch.inference_mode()
    def _answers(self, seen: Mapping[str, Tensor], nouns: Sequence[str]) -> list[_Answer]:
        """Of each noun; seen: of one picture."""
        texts = [noun.replace(".", " ").strip() + "." for noun in nouns]
        with self._reading:
            words = self.tokenizer(
                texts, padding=True, padding_side="right", return_tensors="pt", return_offsets_mapping=True
            )
        places, lengths = words.pop("offset_mapping"), words["attention_mask"].sum(1).tolist()
        several = {name: values.expand(len(texts), *values.shape[1:]) for name, values in seen.items()}
        output = self.model(**several, **{name: on_device(value, self.model.device) for name, value in words.items()})
        rows = zip(texts, places, lengths, output.logits, output.pred_boxes, strict=True)
        return [_Answer(text, place[:length], logits, boxes) for text, place, length, logits, boxes in rows]

    def _candidates(self, answer: _Answer, size: tuple[int, int]) -> tuple[list[Candidate], float]:
        """Boxes above the thresholds, and the best score of any."""
        text, (start, end) = answer.text, answer.places.T
        probability = answer.logits.float().sigmoid().cpu()[:, : len(start)]  # queries tokens
        said = (end > start) & (end < len(text))  # not what stands for start and end, nor the full stop
        begin, stop = _head(text[:-1])
        score, _ = probability[:, said].max(1)
        sure, _ = probability[:, said & (start < stop) & (end > begin)].max(1)
        fit = probability[:, said].mean(1)
        height, width = size
        x, y, w, h = answer.boxes.float().cpu().unbind(1)
        edges = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1).clamp(0, 1)
        boxes = edges * torch.tensor([width, height, width, height])
        whole = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
        kept = whole & (score > self.box_threshold) & (sure > self.text_threshold)
        rows = zip(boxes[kept].tolist(), score[kept].tolist(), fit[kept].tolist(), strict=True)
        return [Candidate((b[0], b[1], b[2], b[3]), s, f) for b, s, f in rows], float(score.max())


class _OnePicture:
    """What stands for the `forward` of the backbone: of a batch with the same picture in all places it sees one, and
    while it is looking, in the thread that said so, of all batches the first one's.
    """

    def __init__(self, forward: Callable[[Tensor, Tensor], Any]) -> None:
        self.forward, self.thread = forward, local()

    def __reduce__(self) -> tuple[Any, ...]:
        return _OnePicture, (self.forward,)  # a model is copied whole, but not what a thread is looking at

    @contextmanager
    def looking(self) -> Iterator[None]:
        self.thread.seen = []
        try:
            yield
        finally:
            del self.thread.seen

    def __call__(self, pixel_values: Tensor, pixel_mask: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        seen = getattr(self.thread, "seen", [])
        if not seen:
            one = 1 if pixel_values.stride(0) == 0 else len(pixel_values)
            seen.append(self.forward(pixel_values[:one], pixel_mask[:one]))
        levels, places = seen[0]
        shape = [len(pixel_values), *(-1,) * 3]
        # Lists of their own: the model puts another level behind them.
        return (
            [(values.expand(shape), mask.expand(shape[:-1])) for values, mask in levels],
            [place.expand(shape) for place in places],
        )


def _own(forward: Any) -> Any:
    """A part's own `forward`, if that of its model has been replaced by another detector."""
    return _own(forward.forward) if isinstance(forward, Recorded | _OnePicture) else forward


@dataclass(eq=False)
class WhenAsked:
    """GroundingDino.load, put off until something is looked for: boxes, points or masks may make it needless."""

    name: str = GROUNDING_DINO
    device: str = "cpu"
    box_threshold: float = THRESHOLD
    text_threshold: float = THRESHOLD
    graphs: bool = False
    say: Say = silent
    _loading: Any = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        GroundingDino(None, None, None, self.box_threshold, self.text_threshold)  # refuses wrong thresholds now

    @property
    def settings(self) -> dict[str, Any]:
        return {"model": self.name, "box_threshold": self.box_threshold, "text_threshold": self.text_threshold}

    def detect(self, image: Pixels, phrases: Mapping[int, str]) -> Detections:
        """Raises as `GroundingDino.load` does, too."""
        return self.loaded.detect(image, phrases)

    @property
    def loaded(self) -> GroundingDino:
        """The same for all threads. Raises as `GroundingDino.load` does."""
        with self._loading:
            return self._loaded

    @cached_property
    def _loaded(self) -> GroundingDino:
        return GroundingDino.load(
            self.name,
            device=self.device,
            box_threshold=self.box_threshold,
            text_threshold=self.text_threshold,
            graphs=self.graphs,
            say=self.say,
        )


def _head(phrase: str) -> tuple[int, int]:
    """Where the noun stands: "ball" in "red ball", "flock" in "large flock of birds"."""
    tail = _TAIL.search(phrase)
    stop = tail.start() if tail else len(phrase)
    return phrase.rfind(" ", 0, stop) + 1, stop
