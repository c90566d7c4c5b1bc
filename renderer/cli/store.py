"""The commands that only read stores, from any machine: export, status, verify and others."""

from __future__ import annotations

import json as jsonlib
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import RenderFailedError, StoreError, SubmitError, line, printable
from ..terminal.text import remark, result
from .options import completions
from .options.arguments import Json, Overwrite, Sign, StorePath, Timestamp

POLL_SECONDS = 1.0
START_SECONDS = 30.0  # a driver that was started just now may take so long to take up its store
DAMAGED = 1  # the exit code of `verify`
DIFFER = 1  # the exit code of stores that do, as of `diff`


def export(
    store: StorePath,
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="the file to write; its suffix decides",
            autocompletion=completions.pictures,
        ),
    ],
    overwrite: Overwrite = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="wait for a store still drawn", rich_help_panel="Output"),
    ] = False,
    dpi: Annotated[
        float | None,
        typer.Option(
            help="dots per inch written to the file; default: the store's", rich_help_panel="Output"
        ),
    ] = None,
    color: Annotated[
        str | None,
        typer.Option(
            help="colours of the file: srgb, display-p3, adobe-rgb or an ICC profile of RGB or "
            "CMYK; default: the store's",
            rich_help_panel="Output",
            autocompletion=completions.colors,
        ),
    ] = None,
    intent: Annotated[
        str | None,
        typer.Option(
            help="what becomes of colours that --color has not: perceptual, relative, saturation "
            "or absolute; default: the store's",
            rich_help_panel="Output",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE of the format, as quality=95; repeatable; default: its own",
            rich_help_panel="Output",
            autocompletion=completions.export_options,
        ),
    ] = None,
    sign: Sign = None,
    timestamp: Timestamp = None,
    json: Json = False,
) -> None:
    """Write a finished picture, or one still being drawn, as TIFF, PNG, ..."""
    from ..outputs import content_credentials, exporting
    from ..outputs.signer import asked_for
    from ..spec.merging import typed_values

    asked = {"dpi": dpi, "color": color, "intent": intent}
    told: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    path = exporting.export(
        store,
        out,
        overwrite=overwrite,
        follow=follow,
        options=typed_values("--option", option or (), "quality=95"),
        signing=content_credentials.signing(asked_for(sign, timestamp), {}),
        **told,
    )
    result(jsonlib.dumps({"event": "result", "path": str(path)}) if json else printable(path))


def status(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE|JOB",
            help="a .zarr folder; with --address a job's id",
            autocompletion=completions.stores,
        ),
    ],
    address: Annotated[
        str | None,
        typer.Option(help="http://HEAD:8265 of the cluster that runs the job; default: a STORE"),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="look again until nobody is at work, 30 s at least")
    ] = False,
    json: Json = False,
) -> None:
    """Say how a render stands: progress, time left, workers, failures. Disturbs nobody."""
    from ..monitoring.status import Status
    from ..monitoring.status import status as look

    def show(found: Status, text: str) -> None:
        result(jsonlib.dumps(found.as_json()) if json else text)

    if address is not None:
        store = _store_of(store, address)
    found = look(store)
    show(found, str(found))
    if not follow:
        return
    until = time.monotonic() + START_SECONDS
    while found.state in ("running", "silent") or (
        found.state == "stopped" and time.monotonic() < until
    ):
        until = 0.0 if found.state != "stopped" else until  # it was seen at work
        time.sleep(POLL_SECONDS)
        before, found = found, look(store)
        for failure in found.failures[len(before.failures) :]:
            remark(line(failure.get("message", "")))
        if (found.state, found.stage, found.step, found.blocks) != (
            *(before.state, before.stage, before.step, before.blocks),
        ):
            show(found, found.line())
    if found.state != "done":
        raise RenderFailedError(f"{found.line()}; finish with: frieze resume {shlex.quote(store)}")


def verify(store: StorePath, json: Json = False) -> None:
    """Read all of a store and say what is damaged, and what resume draws again; changes nothing.

    Exit code 1: something is damaged.
    """
    from ..store.integrity.verification import verify as look

    found = look(store)
    result(jsonlib.dumps(found.as_json()) if json else str(found))
    if not found.is_whole:
        raise typer.Exit(DAMAGED)


def _store_of(job: str, address: str) -> str:
    """The store that a job fills, by what its cluster knows of it."""
    from frieze.cluster.ray.jobs import JobError, JobServer

    from ..files.location import Location, location

    try:
        state, about = JobServer(address).about(job)
    except JobError as error:
        raise SubmitError(str(error)) from error
    if "frieze_store" not in about:
        raise SubmitError(
            f"job {job!r} is {state} and names no store; give its path: frieze status STORE"
        )
    where: Location = location(about["frieze_store"], StoreError)
    if isinstance(where, Path) and not where.is_dir():
        raise StoreError(
            f"job {job!r} is {state}, and its store {where} is not there: not begun, or out of "
            "reach of this machine"
        )
    return str(where)


def report(
    store: StorePath,
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="the page to write, as poster.html",
            autocompletion=completions.pages,
        ),
    ],
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a render's account as one HTML page: picture, plan, times, failures."""
    from ..monitoring.report import report as write

    path = write(store, out, overwrite=overwrite)
    result(jsonlib.dumps({"event": "result", "path": str(path)}) if json else printable(path))


def digests(
    store: StorePath,
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="STORE",
            help="another; default: what was drawn twice in one",
            autocompletion=completions.stores,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Say where two renders of the same picture first differ: stage, step, rank and tensor.

    Both must have been drawn with --trace-digests. Exit code 1 if they differ.
    """
    from ..monitoring.comparison import compare

    found = compare(store, other)
    result(jsonlib.dumps(found.as_json()) if json else line(found))
    if found.first is not None:
        raise typer.Exit(DIFFER)
