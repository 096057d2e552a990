"""What SAM 2 remembers of objects that were shown in the same frame, and its step through a frame, for all at once.

transformers' own step works on one object after the other, makes constants anew each time, and waits for the device in
between: on a fast GPU that takes several times as long as the arithmetic. Its parts are called here with the objects as
a batch and nothing is waited for; the masks are the same. The frame in which objects are shown is left to transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .graphs import Graphs
from .segment import Prompt, mask_values


class Seen(NamedTuple):
    """A frame as SAM 2's image encoder has it, finest level first: (Y X) 1 C each. places: where the last one's are."""

    features: list[Tensor]
    places: Tensor


def show(session: Any, id: int, step: int, prompt: Prompt, size: tuple[int, int], side: int) -> None:
    """Show an object in a frame of transformers' session of a video of this height and width."""
    k = session.obj_id_to_idx(id)
    if prompt.mask is not None:
        session.add_mask_inputs(k, step, mask_values(prompt.mask, side))
        return
    points, labels = prompt.sparse(size, side)
    session.add_point_inputs(k, step, {"point_coords": points[None, None], "point_labels": labels[None, None]})


class Memory:
    """Of N objects, shown in one frame: that frame, and the last ones that SAM 2 looks back at.

    ids: of the objects. masks: logits N 1 Y X of the frame in which they are shown. Bounded, however long the video.
    graphs: what replays the step through a frame: one graph for each number of frames that are remembered, as they come
    once a video until as much is remembered as ever will be.
    """

    @torch.inference_mode()
    def __init__(
        self, model: Any, seen: Seen, size: tuple[int, int], prompts: Mapping[int, Prompt], graphs: Graphs | None = None
    ) -> None:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        config, device = model.config, model.device
        self.graphs = graphs or Graphs(model, None)
        places = {"inference_device": device, "inference_state_device": device, "video_storage_device": device}
        session = Sam2VideoInferenceSession(video_height=size[0], video_width=size[1], dtype=model.dtype, **places)
        for id, prompt in prompts.items():
            show(session, id, 0, prompt, size, config.image_size)
        session.obj_with_new_inputs = list(prompts)
        session.cache.cache_vision_features(0, {"vision_feats": seen.features, "vision_pos_embeds": [seen.places]})
        output = model(session, frame_idx=0)
        self.ids: list[int] = output.object_ids
        self.masks: Tensor = output.pred_masks
        kept = [outputs["cond_frame_outputs"][0] for outputs in session.output_dict_per_obj.values()]
        # What is remembered: of the frame in which they were shown, then of the last ones, newest first.
        self.values = torch.cat([one["maskmem_features"] for one in kept], 1)[None]  # frames (Y X) N C
        self.pointers = torch.cat([one["object_pointer"][:, 0] for one in kept])[None]  # frames N C
        self.age = torch.zeros(1, device=device)  # frames since they were shown
        # Where the values of a memory are, and of how long ago they are: of k frames ago in row k - 1 of what was
        # learned, of the frame in which objects were shown in the last row.
        where, ages = torch.cat([one["maskmem_pos_enc"] for one in kept], 1), model.memory_temporal_positional_encoding
        # What the decoder is told where nothing is shown.
        nowhere = torch.zeros(len(kept), 1, 1, 2, dtype=model.dtype, device=device)
        nothing = torch.full((len(kept), 1, 1), -1, dtype=torch.int32, device=device)
        sparse, dense = model.prompt_encoder(nowhere, nothing, None, None)
        self.constants = (where + ages.roll(1, 0), model.get_image_wide_positional_embeddings(), sparse, dense)

    @torch.inference_mode()
    def step(self, seen: Seen) -> Tensor:
        """Mask logits N 1 Y X in the next frame, which is remembered."""
        state = self.values, self.pointers, self.age
        outputs = self.graphs(advance, *seen.features, seen.places, *self.constants, *state)
        logits, self.values, self.pointers, self.age = outputs
        return logits


def advance(model: Any, *inputs: Tensor) -> list[Tensor]:
    """Mask logits N 1 Y X in the next frame; and the values, pointers and age that a Memory has then.

    inputs: the frame's features and places as in Seen; where values are, frames (Y X) N C; where the image is; the
    prompts that show nothing, sparse and dense; values, pointers and age. A pure function of tensors, without waiting
    for the device: it may be recorded and replayed.
    """
    *features, places, marks, image, sparse, dense, values, pointers, age = inputs
    config, count = model.config, pointers.shape[1]
    coarse = features[-1].expand(-1, count, -1)
    recalled = _recalled(model, coarse, places, values, marks[: len(values)], pointers, age)
    logits, pointer, score = _decoded(model, recalled, features[:-1], image, (sparse, dense))
    if config.num_maskmem > 1:
        side = (config.image_size, config.image_size)
        fine = F.interpolate(logits.float(), side, mode="bilinear", align_corners=False).to(logits.dtype)
        value = model._encode_new_memory(coarse, fine, score, False)[0]
        values = torch.cat([values[:1], value[None], values[1:]])[: config.num_maskmem]
    pointers = torch.cat([pointers[:1], pointer[None], pointers[1:]])[: config.max_object_pointers_in_encoder]
    return [logits, values, pointers, age + 1]


def _recalled(
    model: Any, features: Tensor, places: Tensor, values: Tensor, marks: Tensor, pointers: Tensor, age: Tensor
) -> Tensor:
    """A frame's coarsest features (Y X) N C in the light of what is remembered, as N C Y X."""
    ages = _ages(model, pointers, age + 1)
    # A pointer is as long as several values of a memory: it is cut into that many tokens.
    pieces = pointers.shape[-1] // model.mem_dim
    tokens = pointers.unflatten(-1, (pieces, model.mem_dim)).transpose(1, 2).flatten(0, 1)
    ages = ages.repeat_interleave(pieces, dim=0)[:, None].expand(-1, features.shape[1], -1)
    recalled = model.memory_attention(
        current_vision_features=features,
        current_vision_position_embeddings=places,
        memory=torch.cat([values.flatten(0, 1), tokens]).to(model.dtype),
        memory_posision_embeddings=torch.cat([marks.flatten(0, 1), ages]),
        num_object_pointer_tokens=len(tokens),
    )[0]  # N (Y X) C
    return recalled.transpose(1, 2).unflatten(-1, model.backbone_feature_sizes[-1])


def _ages(model: Any, pointers: Tensor, age: Tensor) -> Tensor:
    """How long ago each pointer was, encoded: pointers C. age: of the first, 1."""
    from transformers.models.sam2_video.modeling_sam2_video import get_1d_sine_pe

    if not model.config.enable_temporal_pos_encoding_for_object_pointers:
        return pointers.new_zeros(len(pointers), model.mem_dim)
    ages = torch.cat([age, torch.arange(1, len(pointers), dtype=age.dtype, device=age.device)])
    ages = ages / float(model.config.max_object_pointers_in_encoder - 1)
    encoded = get_1d_sine_pe(ages, dim=pointers.shape[-1]).to(pointers.dtype)
    return model.temporal_positional_encoding_projection_layer(encoded)


def _decoded(
    model: Any, recalled: Tensor, finer: list[Tensor], image: Tensor, prompts: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Mask logits N 1 Y X, pointers N C and scores N 1 1 (above 0: the object is there)."""
    from transformers.models.sam2_video.modeling_sam2_video import NO_OBJ_SCORE

    sizes, several = model.backbone_feature_sizes[:-1], model._use_multimask(False, None)
    masks, trust, tokens, score = model.mask_decoder(
        image_embeddings=recalled,
        image_positional_embeddings=image,
        sparse_prompt_embeddings=prompts[0],
        dense_prompt_embeddings=prompts[1],
        multimask_output=several,
        high_resolution_features=[
            level.permute(1, 2, 0).unflatten(-1, size) for level, size in zip(finer, sizes, strict=True)
        ],
    )
    if several:  # the answer that is trusted most
        best = trust.argmax(-1, keepdim=True)  # N 1 1
        masks = masks.take_along_dim(best[..., None, None], 2)
        if tokens.shape[2] > 1:
            tokens = tokens.take_along_dim(best[..., None], 2)
    there = score > 0
    logits = torch.where(there[..., None], masks[:, :, 0], NO_OBJ_SCORE)
    there = there.to(logits.dtype)
    pointer = there * model.object_pointer_proj(tokens[:, :, 0]) + (1 - there) * model.no_object_pointer
    return logits, pointer[:, 0], score
