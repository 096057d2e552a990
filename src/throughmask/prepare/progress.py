"""How far a preparation is: one line that is written over, with the rate of each step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TextIO

EVERY = 0.5  # seconds between two lines on a terminal
EVERY_IN_FILE = 30.0


class Done(NamedTuple):
    """A clip that is written down, and the seconds of its steps."""

    rejected: bool
    seconds: dict[str, float]


class Progress:
    """Says nothing without `to`, a text stream."""

    def __init__(self, to: TextIO | None = None) -> None:
        self.to = to
        self.over = to is not None and to.isatty()
        self._start("", 0)

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[None]:
        """`total` things to do, called `name`."""
        self._start(name, total)
        try:
            yield
        finally:
            if self.done and self.to is not None:
                self._say(last=True)

    def step(self, seconds: Mapping[str, float], *, rejected: bool = False) -> None:
        """One more is done; seconds: of its steps."""
        self.done += 1
        self.rejected += rejected
        for name, value in seconds.items():
            times, spent = self.steps.get(name, (0, 0.0))
            self.steps[name] = times + 1, spent + value
        if self.to is not None and time.monotonic() - self._said > (EVERY if self.over else EVERY_IN_FILE):
            self._say()

    def line(self) -> str:
        """Such as: 37/60 clips, 4 rejected, 5.1/s, 0:04 left (a second: decode 30, detect 12, track 4)."""
        spent = max(time.monotonic() - self._begun, 1e-9)
        rate = self.done / spent
        left = int((self.total - self.done) / rate) if rate else 0
        text = f"{self.done}/{self.total} {self.name}, {self.rejected} rejected, {rate:.3g}/s, "
        text += f"{left // 60}:{left % 60:02d} left"
        rates = [f"{name} {times / spent:.3g}" for name, (times, spent) in self.steps.items() if spent > 1e-3]
        return f"{text} (a second: {', '.join(rates)})" if rates else text

    def _start(self, name: str, total: int) -> None:
        self.name, self.total, self.done, self.rejected = name, total, 0, 0
        self.steps: dict[str, tuple[int, float]] = {}
        self._begun = self._said = time.monotonic()

    def _say(self, last: bool = False) -> None:
        assert self.to is not None
        self._said = time.monotonic()
        if self.over:
            self.to.write(f"\r\033[K{self.line()}" + "\n" * last)
        else:
            self.to.write(f"{self.line()}\n")
        self.to.flush()
