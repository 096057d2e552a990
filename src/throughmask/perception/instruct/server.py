"""Instruct models behind any server that speaks OpenAI's chat completions: vLLM, llama.cpp, Ollama, hosted ones.

Servers differ in what they take. What a server refuses is left out, one thing after the other: first the JSON schema,
then any JSON mode; the answer is checked all the same. The key is read from the environment for each request and kept
nowhere.
"""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...errors import InvalidValueError, ThroughMaskWarning
from ...types import Pixels
from ..language import Reading
from .answer import SCHEMA, AnswerError, plain
from .asking import read_with
from .connection import LOOPBACK, Connection, Reply, ServerError, endpoint
from .prompts import Message

DEFAULT_KEY = "OPENAI_API_KEY"
FORMATS: tuple[dict[str, Any] | None, ...] = (
    {"type": "json_schema", "json_schema": {"name": "reading", "strict": True, "schema": SCHEMA}},
    {"type": "json_object"},
    None,
)
NOT_TAKEN = (400, 415, 422, 501)  # what servers answer to options that they do not know
SECRET = 8  # characters; shorter keys, such as EMPTY, are placeholders and may be words of an answer


@dataclass(eq=False)
class InstructServer:
    """The Language that asks a server.

    url: its address, which ends in /v1 as a rule. model: what the server calls it. key_from: the environment variable
    that holds the key; the default may be unset. picture: uint8 H W 3, for models that see. timeout: seconds for one
    answer. tries: how often a busy or failing server is asked; pauses are as long as it says, else `pause` seconds,
    doubling. Raises InvalidValueError for an address, a name or a key that cannot be.
    """

    url: str
    model: str
    key_from: str = DEFAULT_KEY
    strip_attributes: bool = False
    picture: Pixels | None = field(default=None, repr=False)
    timeout: float = 120.0
    tries: int = 4
    max_tokens: int = 4096  # of an answer, a model's thoughts included
    pause: float = 1.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    _without: frozenset[str] = field(default=frozenset(), init=False, repr=False)  # options that it did not take
    _format: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.url = endpoint(self.url)
        if not self.model.strip():
            raise InvalidValueError("a server of language models needs a model's name", seen=self.model)
        if not (self.timeout > 0 and self.tries >= 1 and self.max_tokens >= 1 and self.pause >= 0):
            seen = f"timeout {self.timeout}, tries {self.tries}, max_tokens {self.max_tokens}, pause {self.pause}"
            raise InvalidValueError("timeout, tries and max_tokens are above 0, and pause is not below", seen=seen)
        parts = urlsplit(self.url)
        if self._key() and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            problem = f"the key in {self.key_from} goes to {parts.hostname} unencrypted: its address is http, not https"
            warnings.warn(problem, ThroughMaskWarning, stacklevel=3)

    def read(self, prompt: str) -> Reading:
        """See `read_with`. Raises ServerError too."""
        return read_with(self.ask, prompt, strip_attributes=self.strip_attributes, picture=self.picture)

    def ask(self, messages: list[Message]) -> str:
        """The text of a model's answer. Raises ServerError, and AnswerError if only thoughts came."""
        connection = Connection(self.url, self.timeout, self.tries, self.pause, self.sleep)
        without, form = self._without, self._format
        while True:
            options = {"temperature": 0, "max_tokens": self.max_tokens, "response_format": FORMATS[form]}
            sent = {name: value for name, value in options.items() if value is not None and name not in without}
            reply = connection.post({"model": self.model, "messages": messages, **sent}, self._key())
            if reply.status == 200:
                content = self._content(reply.text)
                if content.strip() or FORMATS[form] is None:
                    self._without, self._format = without, form
                    return content
                form += 1  # some take a format that they do not know, and then say nothing
            elif reply.status not in NOT_TAKEN:
                raise self._failure(reply)
            elif named := [name for name in ("max_tokens", "temperature") if name in sent and name in reply.text]:
                without |= {*named}
            elif FORMATS[form] is not None:
                form += 1
            else:
                raise self._failure(reply)

    def _content(self, text: str) -> str:
        """The model's words in a chat completion; a refusal counts as such."""
        try:
            choice = json.loads(text)["choices"][0]
            content = choice["message"].get("content") or choice["message"].get("refusal") or ""
            if isinstance(content, list):
                content = "".join(part.get("text", "") for part in content)
            content = self._without_key(content, SECRET)
            cut = choice.get("finish_reason") == "length"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            problem = "the language model's server answers something else than a chat completion"
            fix = f"is {self.url} an address like OpenAI's?"
            raise ServerError(problem, seen=self._words(text) or "nothing", fix=fix) from None
        if cut and not content.strip():
            fix = "allow more tokens, or take a model that thinks less"
            raise AnswerError("the language model thought until it was cut off", seen=self.model, fix=fix)
        return content

    def _failure(self, reply: Reply) -> ServerError:
        status, seen = reply.status, self._words(reply.text) or "no reason given"
        if status == 401:  # what it says may repeat a part of the key
            problem = "the language model's server " + ("rejects the key" if self._key() else "wants a key")
            return ServerError(problem, fix=f"put the server's key into the environment variable {self.key_from}")
        if status == 0:
            return ServerError("the language model's server breaks the connection", seen=seen, fix="look at its log")
        if 300 <= status < 400:
            fix = "give the address that it leads to: a key follows no redirection"
            return ServerError("the language model's server redirects", seen=self.url, fix=fix)
        problem, fix = {
            403: ("does not allow this", "is the key meant for this model?"),
            404: (f"has no such address or no model {self.model!r}", f"is {self.url} right?"),
            429: ("takes no more requests now", "try again later"),
        }.get(status, ("fails", "look at its log") if status >= 500 else ("does not take the request", ""))
        return ServerError(f"the language model's server {problem} (HTTP {status})", seen=seen, fix=fix)

    def _words(self, text: str) -> str:
        """What a server says is wrong, on one line."""
        try:
            said = json.loads(text)
            said = said.get("error") or said.get("message") or said.get("detail") or said
            text = str(said.get("message", text) if isinstance(said, dict) else said)
        except (ValueError, AttributeError, RecursionError):
            pass  # it is no JSON object, and shown as it is
        return plain(self._without_key(text))

    def _without_key(self, text: str, least: int = 1) -> str:
        key = self._key()
        return text.replace(key, "[key]") if len(key) >= least else text

    def _key(self) -> str:
        """The key, or nothing. Raises InvalidValueError; no message shows a value, or a name that may be one."""
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_from):
            problem = "the key of a language model's server is given by the name of an environment variable"
            raise InvalidValueError(problem, fix=f"such as {DEFAULT_KEY}, in upper case")
        key = os.environ.get(self.key_from, "").strip()
        if not re.fullmatch(r"[!-~]*", key):
            raise InvalidValueError(f"the environment variable {self.key_from} holds no key: it has spaces or accents")
        if not key and self.key_from != DEFAULT_KEY:
            raise InvalidValueError("the environment variable that shall hold the key is not set", fix="set it")
        return key
