"""The commands that only look at a store, from any machine that can read it."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from typing import Annotated

import typer

from .errors import RenderFailedError

POLL_SECONDS = 1.0

StorePath = Annotated[
    str, typer.Argument(metavar="STORE", help="the working store, a .zarr folder")
]
Json = Annotated[bool, typer.Option("--json", help="JSON lines on stdout")]


def status(
    store: StorePath,
    follow: Annotated[
        bool, typer.Option("--follow", help="look again until nobody is at work")
    ] = False,
    json: Json = False,
) -> None:
    """Say how a render stands: progress, time left, workers, failures. Disturbs nobody."""
    from .status import Status
    from .status import status as look

    def show(found: Status, text: str) -> None:
        print(jsonlib.dumps(found.as_json()) if json else text, flush=True)

    found = look(store)
    show(found, str(found))
    if not follow:
        return
    while found.state in ("running", "silent"):
        time.sleep(POLL_SECONDS)
        before, found = found, look(store)
        for failure in found.failures[len(before.failures) :]:
            print(failure.get("message", ""), file=sys.stderr, flush=True)
        if (found.state, found.stage, found.step, found.blocks) != (
            *(before.state, before.stage, before.step, before.blocks),
        ):
            show(found, found.line())
    if found.state != "done":
        raise RenderFailedError(f"{found.line()}; finish with: frieze resume {store}")


def report(
    store: StorePath,
    out: Annotated[str, typer.Argument(metavar="OUT", help="the page to write, as poster.html")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace files that are there")
    ] = False,
    json: Json = False,
) -> None:
    """Write a render's account as one HTML page: picture, plan, times, failures."""
    from .report import report as write

    path = write(store, out, overwrite=overwrite)
    print(jsonlib.dumps({"event": "result", "path": str(path)}) if json else path)
