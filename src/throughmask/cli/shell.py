"""What every command shares: `--json`, `-v`, notices, errors in one line, and the exit status.

A command returns an `Answer`; nothing else prints.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from ..errors import ThroughMaskError, ThroughMaskWarning

USAGE, INTERRUPTED = 2, 130
as_json_now = ContextVar("as_json_now", default=False)  # whether this command is to answer with JSON, and no more
# Typer carries its own copy of click in some versions and imports the package in others; this is the one in use.
ClickException: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens to standard error.")]


@dataclass(frozen=True)
class Answer:
    """What a command found or made: `data` for `--json`, `lines` for people, and the exit status."""

    data: dict[str, Any]
    lines: Sequence[str] = field(default_factory=list)
    status: int = 0


def command(app: typer.Typer, name: str, **settings: Any) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Add a function to the app as the command `name`, with the options that every command has; settings: typer's."""

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        @functools.wraps(function)
        def run(*args: Any, as_json: bool, verbose: bool, **options: Any) -> Answer:
            log_to_stderr(verbose)
            as_json_now.set(as_json)
            return function(*args, **options)

        own = inspect.signature(function, eval_str=True)
        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
            for key, kind in (("as_json", Json), ("verbose", Verbose))
        ]
        parameters = [*own.parameters.values(), *shared]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        app.command(name, **settings)(run)
        return function

    return register


def log_to_stderr(verbose: bool) -> None:
    """Turn logging of this package on."""
    if verbose:
        logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True)
        logging.getLogger("throughmask").setLevel(logging.DEBUG)


def note(text: str) -> None:
    """Tell the user something that the result alone does not show."""
    warnings.warn(text, ThroughMaskWarning, stacklevel=2)


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status: 0, 1 (found wanting), 2 (a mistake) or 130 (interrupted)."""
    words = list(arguments) or ["--help"]
    as_json = "--json" in words
    with _notices() as notes:
        try:
            answer = app(args=words, prog_name="throughmask", standalone_mode=False)
        except ThroughMaskError as error:
            content = {"kind": type(error).__name__, "problem": error.problem, "fix": error.fix, "message": str(error)}
            return _failed(as_json, USAGE, str(error), content)
        except ClickException as error:
            return _failed(as_json, USAGE, *_usage(error, words))
        except (KeyboardInterrupt, typer.Abort):
            answer = INTERRUPTED
        if answer == INTERRUPTED:  # typer returns it where the interrupt came inside of a command
            return _failed(as_json, INTERRUPTED, "interrupted", {"kind": "Interrupted", "message": "interrupted"})
        if isinstance(answer, Answer):
            data = {**answer.data, "notes": notes} if notes else answer.data
            _print(json.dumps(data, ensure_ascii=False) if as_json else "\n".join(answer.lines))
            return answer.status
    return answer if isinstance(answer, int) else 0


@contextmanager
def _notices() -> Iterator[list[str]]:
    """Show our warnings as one line each on standard error, and collect them."""
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", ThroughMaskWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, ThroughMaskWarning):
                notes.append(" ".join(str(message).split()))
                print(f"note: {notes[-1]}", file=sys.stderr)
            else:
                usual(message, category, *where, **more)

        warnings.showwarning = show
        yield notes


def _usage(error: Any, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "throughmask"
    message = f"{error.format_message().rstrip('.')}; see '{where} --help'"
    return message, {"kind": "UsageError", "message": message, "arguments": list(words)}


def _failed(as_json: bool, status: int, message: str, content: dict[str, Any]) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    if as_json:
        _print(json.dumps({"error": content}, ensure_ascii=False))
    return status


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = None  # so that nothing is flushed at exit
    except UnicodeEncodeError:
        print(text.encode("ascii", "backslashreplace").decode(), flush=True)
