"""The conversation: ask, check the answer, let the model correct it once."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import InvalidValueError
from ...types import Pixels
from ..language import MAX_WORDS, Reading
from .answer import AnswerError, reading_of
from .prompts import Message, correction, question


def read_with(
    ask: Callable[[list[Message]], str],
    prompt: str,
    *,
    strip_attributes: bool = False,
    picture: Pixels | None = None,
) -> Reading:
    """Read a prompt with a model. ask: messages to the text of its answer.

    picture: uint8 H W 3, for a model that sees; strip_attributes: as for `read_prompt`. Raises InvalidValueError for a
    prompt that is empty or too long, before anything is asked, and AnswerError if the second answer is wrong too.
    """
    _check(prompt)
    messages = question(prompt, picture)
    answer = ask(messages)
    try:
        return reading_of(answer, prompt, strip_attributes=strip_attributes)
    except AnswerError as error:
        answer = ask([*messages, *correction(answer, error.problem)])
    return reading_of(answer, prompt, strip_attributes=strip_attributes)


def _check(prompt: str) -> None:
    if not isinstance(prompt, str) or not prompt.strip():
        fix = 'say what moves, such as "the red ball rolls to the left"'
        raise InvalidValueError("the prompt is empty", seen=prompt, fix=fix)
    words = len(prompt.split())
    if words > MAX_WORDS or len(prompt) > 20 * MAX_WORDS:  # not every script puts spaces between words
        fix = f"say what moves in at most {MAX_WORDS} words"
        raise InvalidValueError("the prompt is too long", seen=f"{words} words, {len(prompt)} characters", fix=fix)
