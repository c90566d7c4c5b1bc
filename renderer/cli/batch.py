"""`frieze batch`: draws a batch before the user's eyes, and says how it ended."""

from __future__ import annotations

import json as jsonlib
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import RenderCancelledError, RenderFailedError, SpecError, printable
from ..files.location import location
from ..monitoring import commands
from ..spec.merging import checked
from ..terminal.interrupts import interruptible
from ..terminal.text import result
from .options import completions
from .options.arguments import Json, Quiet, Sign, Timestamp
from .options.spec_fields import takes_fields


@takes_fields(
    *("workers", "local", "park", "address", "device", "device_memory", "timeout", "wait"),
    descriptions={"workers": "how many there are for all items together; default 1"},
)
def batch(
    jobs: Annotated[
        str,
        typer.Argument(
            metavar="JOBS",
            help="a .yaml or .jsonl file of items",
            autocompletion=completions.jobs,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(help="a folder or s3://...; default: the file's name without its suffix"),
    ] = None,
    continued: Annotated[
        bool, typer.Option("--continue", help="go on with the batch that is in --out")
    ] = False,
    retries: Annotated[
        int,
        typer.Option(min=0, show_default=False, help="attempts after one that broke; default 1"),
    ] = 1,
    sign: Sign = None,
    timestamp: Timestamp = None,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Draw many pictures: prompts, sizes, seeds and models, on workers that stay warm.

    What is done stays, what fails does not stop the rest; see configs/batches/example.yaml.
    """
    folder = out or Path(jobs).stem
    options = {**checked(fields), "continued": continued, "retries": retries}
    options |= {"sign": sign, "timestamp": timestamp}
    place = {name: options[name] for name in ("workers", "local", "address") if name in options}
    again = commands.batch(jobs, folder, **place, sign=sign, timestamp=timestamp)
    run(jobs, folder, options, again, json=json, quiet=quiet)


def run(
    source: str | list[dict[str, Any]],
    out: str,
    options: Mapping[str, Any],
    again: str,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Draw items into a folder; raises `RenderFailedError` if any failed, `again` goes on."""
    from ..api import batch as draw
    from ..files.operations import is_taken
    from ..terminal import batch_progress

    shown = batch_progress.choose(json=json, quiet=quiet)

    def told() -> str:
        return f"aborted; go on with: {again}" if shown.began else "stopped before any work"

    # Ray says on stdout that a worker died; stdout is for results.
    with shown, interruptible(shown, told) as cancel, redirect_stdout(sys.stderr):
        try:
            told_of: dict[str, Any] = {"on_event": shown.item, "cancel": cancel, "again": again}
            drawn = draw(source, out=out, **told_of, **options)
            with closing(drawn):
                states = Counter(result.state for result in drawn)
        except KeyboardInterrupt:
            raise RenderCancelledError(told()) from None
    folder = location(out, SpecError)
    report, sheet = folder / "report.json", folder / "contact.png"
    files = [str(path) for path in (report, sheet) if is_taken(path)]
    if json:
        result(jsonlib.dumps({"event": "result", **states, "files": files}))
    elif not quiet:
        result(*map(printable, files))
    if states["failed"]:
        raise RenderFailedError(
            f"{states['failed']} of {states.total()} items failed, as {report} says; "
            f"try them again with: {again}"
        )
