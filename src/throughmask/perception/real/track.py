"""Masks through a video: SAM 2's memory through transformers' own class, frame by frame, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...connected import Mask, lay
from ...errors import InvalidValueError
from ...types import MAX_OBJECTS, Labels, Pixels
from .segment import Prompt, at_size, mask_values, pixel_values
from .weights import enough_memory


class Seed(NamedTuple):
    """Where an object is first shown: the frame, counted from 0, and how."""

    frame: int
    prompt: Prompt


@dataclass(frozen=True, eq=False)
class Sam2Tracker:
    """SAM 2 for videos. model: a Sam2VideoModel.

    Frames are fed to it one at a time, and what it will not look at again is dropped: it keeps the frame at hand, the
    memory of the frames in which objects were shown, and that of the last `window` frames.
    """

    model: Any

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

    def follow(
        self, frames: Pixels, seeds: Mapping[int, Seed], order: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Mask]]]:
        """Each frame's number with the masks (bool H W) of the objects shown so far, frames in the order given."""
        size, side = (frames.shape[1], frames.shape[2]), self.model.config.image_size
        sessions: list[Any] = []
        for step, t in enumerate(order):  # backward is forward through the frames in reversed order
            if new := [id for id, seed in seeds.items() if seed.frame == t]:
                # Of their own: in a shared one, whose masks are given in a frame changes what is remembered of others.
                sessions.append(self._session(size))
                sessions[-1].cache = sessions[0].cache  # the picture is encoded once for all
                for id in new:
                    self._show(sessions[-1], id, step, seeds[id].prompt, size)
                sessions[-1].obj_with_new_inputs = new
            masks: dict[int, Mask] = {}
            with enough_memory(f"SAM 2 with {len(seeds)} objects", self.model.device):
                pixels = pixel_values(frames[t], side).to(self.model.device, self.model.dtype)
                for session in sessions:
                    output = self.model(session, frame=pixels, frame_idx=step)
                    masks |= zip(output.object_ids, at_size(output.pred_masks, size), strict=True)
                    self._forget(session, step)
            yield t, masks

    def _session(self, size: tuple[int, int]) -> Any:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        device = self.model.device
        return Sam2VideoInferenceSession(
            video_height=size[0],
            video_width=size[1],
            inference_device=device,
            inference_state_device=device,
            video_storage_device=device,
            dtype=self.model.dtype,
        )

    def _show(self, session: Any, id: int, step: int, prompt: Prompt, size: tuple[int, int]) -> None:
        side, k = self.model.config.image_size, session.obj_id_to_idx(id)
        if prompt.mask is not None:
            session.add_mask_inputs(k, step, mask_values(prompt.mask, side))
            return
        points, labels = prompt.sparse(size, side)
        session.add_point_inputs(k, step, {"point_coords": points[None, None], "point_labels": labels[None, None]})

    def _forget(self, session: Any, step: int) -> None:
        del session.processed_frames[step]
        for outputs in session.output_dict_per_obj.values():
            outputs["non_cond_frame_outputs"].pop(step + 1 - self.window, None)
            for kept in outputs.values():
                kept.get(step, {}).pop("high_res_masks", None)  # the largest part, and of no use after its frame
