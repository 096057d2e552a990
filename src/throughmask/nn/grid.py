"""What one token covers, in frames and pixels. Without torch, so that a request is checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidValueError


@dataclass(frozen=True)
class TokenGrid:
    """What one token covers: `patch` pixels (height, width), and for each latent frame how many frames of the clip."""

    patch: tuple[int, int]
    frames: tuple[int, ...]

    @classmethod
    def one_to_one(cls, num_frames: int, patch: tuple[int, int]) -> TokenGrid:
        """Every frame has its own latent frame (image VAEs: the U-Net)."""
        return cls(patch, (1,) * num_frames)

    @classmethod
    def causal(cls, num_frames: int, patch: tuple[int, int], stride: int = 4) -> TokenGrid:
        """The first frame alone, then `stride` frames a latent frame (causal video VAEs: Wan's 1+4+4…).

        Raises InvalidValueError unless num_frames = 1 + stride · k.
        """
        if num_frames < 1 or (num_frames - 1) % stride:
            k = max(0, round((num_frames - 1) / stride))
            raise InvalidValueError(
                f"this video VAE takes 1 + {stride}k frames", seen=num_frames, fix=f"nearest is {1 + stride * k}"
            )
        return cls(patch, (1, *(stride,) * ((num_frames - 1) // stride)))

    @property
    def num_frames(self) -> int:
        return sum(self.frames)

    def tokens(self, height: int, width: int) -> tuple[int, int, int]:
        """The token grid F, Y, X of a clip of that size. Raises InvalidValueError if the patch does not divide it."""
        ph, pw = self.patch
        if height % ph or width % pw:
            near = f"{max(1, round(height / ph)) * ph}×{max(1, round(width / pw)) * pw}"
            raise InvalidValueError(
                f"height and width must be multiples of {ph} and {pw}",
                seen=f"{height}×{width}",
                fix=f"nearest is {near}",
            )
        return len(self.frames), height // ph, width // pw
