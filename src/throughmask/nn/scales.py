"""The two scales of guidance as numbers. Without torch, so that a request is checked before torch is loaded."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import InvalidValueError


class Scales(NamedTuple):
    """ẽ = e(∅,∅) + image·[e(c_I,∅) - e(∅,∅)] + text·[e(c_I,c_T) - e(c_I,∅)], as weights of the three branches."""

    image: float = 1.0
    text: float = 1.0

    def weights(self) -> list[float]:
        """Weights of (nothing, image, image + text); a branch of weight 0 need not be computed.

        Raises InvalidValueError for a negative or non-finite scale.
        """
        for name, scale in zip(self._fields, self, strict=True):
            if not 0 <= scale < float("inf"):
                raise InvalidValueError(
                    f"the {name} guidance must be a number from 0 up", seen=scale, fix="1 is no guidance"
                )
        return [1 - self.image, self.image - self.text, self.text]
