"""The command line: all commands, each in a file of its own."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any, ClassVar

import typer

from ..terminal import interrupts
from ..terminal.error_lines import ErrorLineGroup
from ..terminal.lazy_commands import LazyCommand
from ..terminal.text import guard, result


def _command(file: str, about: str, **settings: Any) -> LazyCommand:
    """A command in a file of this folder; `about` is the first paragraph of its docstring."""
    return LazyCommand(f"{__package__}.{file}", about, settings)


class Commands(ErrorLineGroup):
    """All commands, in the order of the help."""

    table: ClassVar = {
        "render": _command("render", "Draw a picture."),
        "upscale": _command("upscale", "Make a picture or clip larger, or all of a folder."),
        "plan": _command(
            "render",
            "Say how a picture would be drawn: bands, blocks, memory, time. Draws nothing.",
        ),
        "config": _command(
            "config",
            "Print a preset and flags merged, as YAML for --preset FILE.yaml. Draws nothing.",
        ),
        "resume": _command(
            "render",
            "Finish a picture that was stopped; the same pixels, on as many workers as you like.",
        ),
        "batch": _command(
            "batch",
            "Draw many pictures: prompts, sizes, seeds and models, on workers that stay warm.",
        ),
        "serve": _command(
            "serve",
            "Serve the images API that OpenAI's clients speak, with jobs that outlive a restart.",
        ),
        "export": _command(
            "store", "Write a finished picture, or one still being drawn, as TIFF, PNG, ..."
        ),
        "status": _command(
            "store",
            "Say how a render stands: progress, time left, workers, failures. Disturbs nobody.",
        ),
        "view": _command(
            "view",
            "Show renders in a browser while they are drawn: deep zoom, progress, comparisons.",
        ),
        "verify": _command(
            "store",
            "Read all of a store and say what is damaged, and what resume draws again; "
            "changes nothing.",
        ),
        "report": _command(
            "store", "Write a render's account as one HTML page: picture, plan, times, failures."
        ),
        "digests": _command(
            "store",
            "Say where two renders of the same picture first differ: stage, step, rank and tensor.",
        ),
        "train": _command("train", "Train what a model lacks, on pictures of your own."),
        "methods": _command(
            "catalogue",
            "List the extrapolation methods, or say what one does and what it can be told.",
        ),
        "models": _command(
            "catalogue",
            "List the families of models, the pipelines that they serve, and what they were "
            "trained on.",
        ),
        "exports": _command(
            "catalogue",
            "List the formats of finished files, and the suffixes of --out that ask for them.",
        ),
        "doctor": _command(
            "doctor",
            "Report what this machine offers: versions, devices, attention, Ray, model, disk.",
        ),
        "submit": _command(
            "submit",
            "Run a command as a job on a Ray cluster, with this very code.",
            context_settings={"allow_interspersed_args": False},
        ),
    }


app = typer.Typer(
    cls=Commands,
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


def main() -> None:
    """The command line of this process."""
    interrupts.run(_run)


def _run() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names in letters that a terminal may not know
            stream.reconfigure(errors="backslashreplace")
    guard()
    app()
