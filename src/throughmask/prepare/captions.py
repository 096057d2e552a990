"""A caption for a video that has none, by a language model that sees some of its frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import InvalidValueError
from ..perception.instruct.prompts import Message, data_url
from ..types import Pixels

SHOWN = 4  # frames, evenly spaced
LONGEST = 1000  # characters
TASK = (
    "These are frames of one short video, in order of time. Say in one or two plain English sentences what moves in it"
    " and how: who does what, in which direction. Name each object by its kind and its colour. Invent nothing that the"
    " frames do not show. Answer with these sentences and nothing else."
)


def tell(frames: Pixels, ask: Callable[[list[Message]], str]) -> str:
    """The caption of frames T H W 3. ask: messages to the text of its answer. Raises InvalidValueError without one."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, SHOWN).round().astype(int))
    shown = [{"type": "image_url", "image_url": {"url": data_url(frames[k])}} for k in chosen]
    answer = ask([{"role": "user", "content": [{"type": "text", "text": TASK}, *shown]}])
    caption = " ".join(answer.split()).strip("\"'` ")
    if not caption or len(caption) > LONGEST:
        raise InvalidValueError("the model's answer is no caption", seen=caption)
    return caption
