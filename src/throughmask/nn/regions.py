"""Labels on the pixel grid -> what masked attention needs on the token grid (paper Sec. 3.3; pooling is our decision).

`label_BN` is exclusive and comes from silhouettes (self-attention, Eq. 3); `sees_BNL` comes from boxes, which may
overlap (cross-attention, Eq. 1-2).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidValueError
from .grid import TokenGrid as TokenGrid

MIN_COVERAGE = 1 / 8  # of a token's pixels × frames; below it a token stays background


def token_regions(labels_BTHW: Tensor, grid: TokenGrid, num_objects: int) -> tuple[Tensor, Tensor]:
    """Label maps to `label_BN` (int64, 0 is background) and `sees_BNL` (bool; column l is for id l+1).

    A token takes the object that covers most of it, if that is at least 1/8 of its pixels × frames (ties go to the
    lower id). An object that would win no token at all takes the token that it covers most, so that a small or fast one
    never vanishes; it does not take another object's last token. A token sees prompt l if its patch meets the box of
    object l in any frame that the token covers; boxes are per frame. Tokens are ordered F, Y, X.

    Raises InvalidValueError if frames, size or ids do not fit.
    """
    B, T, H, W = labels_BTHW.shape
    F, Y, X = grid.tokens(H, W)
    if grid.num_frames != T:
        raise InvalidValueError("the label maps do not have the grid's frame count", seen=f"{T}, not {grid.num_frames}")
    pixels_of = torch.bincount(labels_BTHW.flatten(), minlength=num_objects + 1).tolist()
    if len(pixels_of) > num_objects + 1:
        raise InvalidValueError(
            "a label is larger than the number of objects", seen=len(pixels_of) - 1, fix=f"at most {num_objects}"
        )
    if num_objects == 0:
        empty = torch.zeros(B, F * Y * X, dtype=torch.long, device=labels_BTHW.device)
        return empty, torch.zeros(B, F * Y * X, 0, dtype=torch.bool, device=labels_BTHW.device)
    # One object at a time: a one-hot of a whole clip would be L times the clip. Most ids are in no pixel.
    nowhere = torch.zeros(B, F, Y, X, dtype=torch.long, device=labels_BTHW.device)
    cover, sees = [nowhere] * num_objects, [nowhere > 0] * num_objects
    for index, pixels in enumerate(pixels_of[1:]):
        if not pixels:
            continue
        mine_BTHW = (labels_BTHW == index + 1).float()
        pixels_BTYX = functional.avg_pool2d(mine_BTHW, grid.patch, divisor_override=1)
        cover[index] = _over_time(pixels_BTYX, grid.frames)
        rows = _span(mine_BTHW.amax(3)).unflatten(2, (Y, grid.patch[0])).any(3)
        columns = _span(mine_BTHW.amax(2)).unflatten(2, (X, grid.patch[1])).any(3)
        sees[index] = _over_time(rows[..., :, None] & columns[..., None, :], grid.frames) > 0
    cover_BNL = torch.stack(cover, -1).flatten(1, 3)
    pixels_F = torch.tensor(grid.frames, device=cover_BNL.device) * grid.patch[0] * grid.patch[1]
    enough_N = (pixels_F * MIN_COVERAGE).repeat_interleave(Y * X)
    most, winner = cover_BNL.max(-1)
    label_BN = torch.where(most >= enough_N, winner + 1, 0)
    _keep_every_object(label_BN, cover_BNL)
    return label_BN, torch.stack(sees, -1).flatten(1, 3)


def first_regions(labels_BHW: Tensor, grid: TokenGrid, num_objects: int) -> tuple[Tensor, Tensor]:
    """As `token_regions`, of frame 0 alone, at every latent frame."""
    label_BN, sees_BNL = token_regions(labels_BHW[:, None], replace(grid, frames=grid.frames[:1]), num_objects)
    num_frames = len(grid.frames)
    return label_BN.repeat(1, num_frames), sees_BNL.repeat(1, num_frames, 1)


def _over_time(value_BTYX: Tensor, frames: tuple[int, ...]) -> Tensor:
    """Sum over the frames that each latent frame covers: B T Y X -> B F Y X, int64."""
    parts = value_BTYX.long().split(list(frames), dim=1)
    return torch.stack([part.sum(1) for part in parts], 1)


def _span(line: Tensor) -> Tensor:
    """From the first to the last True along the last axis: the box's extent along that axis."""
    seen = line.long()
    return (seen.cummax(-1).values & seen.flip(-1).cummax(-1).values.flip(-1)).bool()


def _keep_every_object(label_BN: Tensor, cover_BNL: Tensor) -> None:
    """Give each object that is present but won no token the one that it covers most (in place, lowest id first)."""
    count_BL = torch.stack([(label_BN == k + 1).sum(1) for k in range(cover_BNL.shape[2])], 1)
    lost = (count_BL == 0) & (cover_BNL.sum(1) > 0)
    for b, k in lost.nonzero().tolist():
        owner = label_BN[b].clone()
        tokens = torch.bincount(owner, minlength=cover_BNL.shape[2] + 1)
        last = (owner > 0) & (tokens[owner] == 1)
        free = torch.where(last, 0, cover_BNL[b, :, k])
        if free.max() > 0:
            label_BN[b, free.argmax()] = k + 1
