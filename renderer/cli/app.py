"""The command line: all commands, each in a file of its own."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from ..terminal import interrupts
from ..terminal.error_lines import ErrorLineGroup
from ..terminal.text import guard, result
from . import catalogue, store
from .batch import batch
from .config import config
from .doctor import doctor
from .render import plan, render, resume
from .submit import submit
from .upscale import upscale

app = typer.Typer(
    cls=ErrorLineGroup,
    pretty_exceptions_enable=False,
    epilog='Begin with: frieze render "a red sun over blue mountains" --preset demo --out sun.tif',
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def frieze(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="With any command: say where a fault comes from.")
    ] = False,
) -> None:
    """Draw pictures of any size with a diffusion model, on any number of devices."""
    if version:
        from importlib import metadata

        result(f"frieze {metadata.version('frieze')}")
    elif context.invoked_subcommand is None:
        result(context.get_help())
    else:
        return
    raise typer.Exit


for command in (
    render,
    upscale,
    plan,
    config,
    resume,
    batch,
    store.export,
    store.status,
    store.verify,
    store.report,
    store.digests,
    catalogue.methods,
    catalogue.models,
    catalogue.exports,
    doctor,
):
    app.command()(command)
app.command(context_settings={"allow_interspersed_args": False})(submit)


def main() -> None:
    """The command line of this process."""
    interrupts.run(_run)


def _run() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names in letters that a terminal may not know
            stream.reconfigure(errors="backslashreplace")
    guard()
    app()
