"""JSON over HTTP with patience: a busy or failing server is asked again, one that says nothing is given up.

Python's own urllib: the HTTP client that our requirements bring along changes with their versions.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from ... import __version__
from ...errors import InvalidValueError, ThroughMaskError
from .answer import plain

MAX_BYTES = 1 << 22  # of a response
MAX_WAIT = 60.0  # seconds; a server that wants more is not waited for
LOOPBACK = ("localhost", "127.0.0.1", "::1")
log = logging.getLogger(__name__)


class ServerError(ThroughMaskError):
    """A language model's server that cannot be reached, refuses, or answers something else than a chat completion."""


class Reply(NamedTuple):
    """What came back. status: of HTTP; 0: the connection broke."""

    status: int
    text: str
    retry_after: str = ""


@dataclass(frozen=True)
class Connection:
    """Where requests go and how long they may take: see InstructServer."""

    url: str
    timeout: float
    tries: int
    pause: float
    sleep: Callable[[float], None] = field(repr=False)

    def post(self, body: dict[str, Any], key: str) -> Reply:
        """The reply to a request; the last one, where all tries failed. Raises ServerError where none can come."""
        headers = {"Content-Type": "application/json", "User-Agent": f"through-the-mask/{__version__}"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = json.dumps(body).encode()
        for attempt in range(self.tries):
            reply = self._send(Request(self.url, data, headers, method="POST"))
            if not _passing(reply.status) or attempt == self.tries - 1:
                break
            said = _seconds(reply.retry_after)
            wait = self.pause * 2**attempt if said is None else said
            if wait > MAX_WAIT:
                problem = f"the language model's server wants {wait:.0f} seconds of pause (HTTP {reply.status})"
                raise ServerError(problem, seen=self.url, fix="try again later")
            log.warning("%s: HTTP %d; next try in %.1f seconds", self.url, reply.status, wait)
            self.sleep(wait)
        return reply

    def _send(self, request: Request) -> Reply:
        started = time.monotonic()
        try:
            try:
                response = _opener(self.url).open(request, timeout=self.timeout)
            except HTTPError as error:
                response = error
            with response:
                text = self._read(response, started)
                return Reply(response.status, text, response.headers.get("Retry-After", ""))
        except TimeoutError:
            raise self._late() from None
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._late() from None
            problem = f"the language model's server at {self.url} cannot be reached"
            raise ServerError(problem, seen=plain(str(error.reason)), fix="is it running there?") from None
        except (OSError, HTTPException) as error:
            return Reply(0, f"{type(error).__name__}: {error}")

    def _read(self, response: Any, started: float) -> str:
        """The text of a response. A server that sends it drop by drop is cut off, and so is one without end."""
        source: Any = response.fp if isinstance(response, HTTPError) else response
        parts: list[bytes] = []
        while part := source.read1(1 << 16):
            parts.append(part)
            if sum(map(len, parts)) > MAX_BYTES:
                problem = "the language model's server answers without end"
                raise ServerError(problem, seen=f"more than {MAX_BYTES >> 20} MiB", fix=f"is {self.url} its address?")
            if time.monotonic() - started > self.timeout:
                raise TimeoutError
        return b"".join(parts).decode("utf-8", "replace")

    def _late(self) -> ServerError:
        problem = f"the language model's server did not answer within {self.timeout:g} seconds"
        return ServerError(problem, seen=self.url, fix="is the model loaded? allow more time, or take a smaller model")


class _NoRedirect(HTTPRedirectHandler):
    """urllib would take the key along to wherever it is sent."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def endpoint(url: str) -> str:
    """The address of a server's chat completions. Raises InvalidValueError; its message shows no password."""
    fix = "such as http://localhost:8000/v1"
    try:
        parts = urlsplit(url.strip())
        there = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        there = False
    if not there or not re.fullmatch(r"[!-~]+", url.strip()):
        shown = re.sub(r"//.*@|[?#].*", "...", plain(url))
        raise InvalidValueError("this is no address of a language model's server", seen=shown, fix=fix)
    if parts.username is not None or parts.query or parts.fragment:
        problem = "the address of a language model's server holds a password, a question mark or a #"
        raise InvalidValueError(problem, fix=f"{fix}; a key is read from an environment variable")
    path = parts.path.rstrip("/") or "/v1"
    path = path if path.endswith("/chat/completions") else f"{path}/chat/completions"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _opener(url: str) -> OpenerDirector:
    """Without proxies for this very machine."""
    own = [ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK else []
    return build_opener(_NoRedirect, *own)


def _passing(status: int) -> bool:
    """Whether it may be better in a moment. 501 says that it never will."""
    return status in (0, 408, 429) or (status >= 500 and status != 501)


def _seconds(retry_after: str) -> float | None:
    """What Retry-After says: seconds, or a date. None if it is neither."""
    text = retry_after.strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # the last: a date without a zone
        return None
