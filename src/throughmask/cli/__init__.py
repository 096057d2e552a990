"""The command `throughmask`: each verb and each tool is a command that returns an `Answer`.

Heavy packages are imported inside the commands that need them, so that help is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from .. import __version__
from . import (
    animate,
    bundle,
    convert,
    doctor,
    edit,
    evaluate,
    generate,
    init,
    measure,
    perceive,
    prepare,
    samples,
    toybox,
    train,
)
from .shell import Answer, Json, Verbose, log_to_stderr, run

app = typer.Typer(
    help="Animate a picture from a sentence through mask trajectories.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Version = Annotated[bool, typer.Option("--version", help="Print the version.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, version: Version = False, as_json: Json = False, verbose: Verbose = False
) -> Answer | None:
    log_to_stderr(verbose)
    if context.invoked_subcommand is not None:
        return None
    if version:
        return Answer({"version": __version__}, [f"throughmask {__version__}"])
    raise typer.BadParameter("a command is missing", ctx=context)


MODULES = (
    animate,
    samples,
    perceive,
    toybox,
    convert,
    edit,
    init,
    generate,
    measure,
    prepare,
    train,
    bundle,
    evaluate,
    doctor,
)
for module in MODULES:
    module.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `throughmask` with the given arguments, or the process's own, and return the exit status.

    One of torchrun's processes ends here, with its own arguments: gloo's threads let go of their last piece of work a
    moment later, for which they want the interpreter, and where that is being taken down they abort the process, whose
    work was done (seen in 2 of some 100 runs).
    """
    status = run(app, sys.argv[1:] if arguments is None else arguments)
    if arguments is None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
