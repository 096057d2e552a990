"""Masks through a video: SAM 2, whose memory goes from frame to frame, forward and backward."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...connected import Mask, lay
from ...errors import InvalidValueError
from ...types import MAX_OBJECTS, Labels, Pixels
from .graphs import Graphs
from .memory import Memory, Seen
from .segment import Prompt, pixel_values, whole
from .weights import enough_memory


class Seed(NamedTuple):
    """Where an object is first shown: the frame, counted from 0, and how."""

    frame: int
    prompt: Prompt


@dataclass(frozen=True, eq=False)
class Sam2Tracker:
    """SAM 2 for videos. model: a Sam2VideoModel, which stays where it is. chunk: how many frames its image encoder is
    given at a time. graphs: whether what is computed again and again is replayed on a GPU of NVIDIA's (see graphs.py).

    Memory does not grow with the video: at most a chunk of frames is there at a time, and what is remembered is the
    frames in which objects were shown and the last `window` ones. On a GPU nothing is waited for but the masks of a
    chunk before.
    """

    model: Any
    chunk: int = 8
    graphs: bool = True

    def track(self, frames: Pixels, seeds: Mapping[int, Seed]) -> Labels:
        """Labels uint8 T H W of a video (uint8 T H W 3): each seed's object under its id, smaller on top.

        An object is followed from its seed forward to the end, and backward to the start; where it is hidden its label
        does not appear, and it keeps its id when it comes back. Raises InvalidValueError for a seed that is not in the
        video, DeviceError if memory does not suffice.
        """
        T, size = len(frames), (frames.shape[1], frames.shape[2])
        for id, seed in seeds.items():
            if not 0 <= seed.frame < T:
                raise InvalidValueError(f"object {id} is shown in a frame that is not there", seen=seed.frame)
            seed.prompt.check(size)
        labels, areas = np.zeros((T, *size), np.uint8), np.zeros((T, MAX_OBJECTS + 1), np.int64)
        if not seeds:
            return labels
        starts = [seed.frame for seed in seeds.values()]
        for t, masks in self.follow(frames, seeds, range(min(starts), T)):
            for id, mask in masks.items():
                lay(labels[t], areas[t], id, mask)
        late = {id: seed for id, seed in seeds.items() if seed.frame}
        for t, masks in self.follow(frames, late, range(max(starts), -1, -1) if late else ()):
            for id in (id for id in masks if t < late[id].frame):
                lay(labels[t], areas[t], id, masks[id])
        return labels

    @property
    def window(self) -> int:
        """How many frames, the present one included, SAM 2 remembers beside those in which objects were shown."""
        return int(max(self.model.config.max_object_pointers_in_encoder, self.model.config.num_maskmem))

    @cached_property
    def _graphs(self) -> Graphs:
        """For as long as the tracker, so that the next video needs none of its own."""
        return Graphs.on(self.model, self.graphs)

    def follow(
        self, frames: Pixels, seeds: Mapping[int, Seed], order: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Mask]]]:
        """Each frame's number with the masks (bool H W) of the objects shown so far, frames in the order given."""
        size, what = (frames.shape[1], frames.shape[2]), f"SAM 2 with {len(seeds)} objects"
        # Objects that are shown later have a memory of their own: in a shared one, whose masks are given in a frame
        # changes what is remembered of others.
        memories: list[Memory] = []
        coming: deque[Callable[[], tuple[int, dict[int, Mask]]]] = deque()
        for begin in range(0, len(order), self.chunk):
            several = list(order[begin : begin + self.chunk])
            with enough_memory(what, self.model.device):
                seen = self._seen(frames[several])
            for t in several:  # backward is forward through the frames in reversed order
                new = {id: seed.prompt for id, seed in seeds.items() if seed.frame == t}
                with enough_memory(what, self.model.device):
                    masks = self._step(memories, seen.popleft(), new, size)
                coming.append(_sent(t, [id for memory in memories for id in memory.ids], masks))
                if len(coming) > self.chunk:
                    yield coming.popleft()()
        for arrived in coming:
            yield arrived()

    @torch.inference_mode()
    def _seen(self, frames: Pixels) -> deque[Seen]:
        """Frames (uint8 T H W 3) through the image encoder, all at once."""
        pixels = pixel_values(frames, self.model.config.image_size, self.model.device).to(self.model.dtype)
        *features, places = self._graphs(encode, pixels)
        return deque(Seen([level[:, k : k + 1] for level in features], places) for k in range(len(frames)))

    @torch.inference_mode()
    def _step(self, memories: list[Memory], seen: Seen, new: Mapping[int, Prompt], size: tuple[int, int]) -> Tensor:
        """Masks (N H W) of a frame: of the objects that are remembered, then of new ones, remembered from now on."""
        logits = [memory.step(seen) for memory in memories]
        if new:
            memories.append(Memory(self.model, seen, size, new, self._graphs))
            logits.append(memories[-1].masks)
        return whole(torch.cat(logits), size)


def encode(model: Any, pixels: Tensor) -> list[Tensor]:
    """Frames T 3 S S as SAM 2's image encoder has them, finest level first: (Y X) T C each; and last, (Y X) 1 C, where
    the coarsest one's are. A pure function of tensors: it may be recorded and replayed.
    """
    output = model.get_image_features(pixels, return_dict=True)
    return [*output.fpn_hidden_states, output.fpn_position_encoding[-1][:, :1]]


def _sent(t: int, ids: Sequence[int], masks: Tensor) -> Callable[[], tuple[int, dict[int, Mask]]]:
    """Masks N H W of frame t on their way to the host; they are waited for when what is returned is called."""
    there = masks.to("cpu", non_blocking=masks.is_cuda)
    sent = torch.cuda.current_stream(masks.device).record_event() if masks.is_cuda else None

    def arrived() -> tuple[int, dict[int, Mask]]:
        if sent is not None:
            sent.synchronize()
        return t, dict(zip(ids, there.numpy(), strict=True))

    return arrived
