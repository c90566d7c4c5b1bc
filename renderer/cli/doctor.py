"""`frieze doctor`: what this machine offers, or whether pictures of a size repeat."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..spec.merging import merge
from ..terminal.error_lines import FAILED
from ..terminal.text import remark, result
from . import completions
from .arguments import Json, Size, as_json
from .spec_options import takes_fields

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec

Detector = Literal["attention", "draft"]
DRAFTED = "a red sun over blue mountains at dusk"


@takes_fields("seed", "dtype", "workers", "local", "address", "device")
def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="examine this model at --size instead",
            autocompletion=completions.models,
        ),
    ] = None,
    size: Size = None,
    prompt: Annotated[
        str, typer.Option(show_default=False, help=f"what its drafts show; default: {DRAFTED}")
    ] = DRAFTED,
    detector: Annotated[
        Detector | None, typer.Option(help="listen to its attention, or draw drafts; default: both")
    ] = None,
    json: Json = False,
    **fields: Any,
) -> None:
    """Report what this machine offers: versions, devices, attention, Ray, model, disk.

    With a model and --size: whether pictures of that size repeat, and which frequencies to correct.
    """
    from . import machine

    if model is not None or size is not None:
        spec = merge(None, prompt, size, {**fields, "model": model})
        _print_repetition(spec, detector, json)
        return
    whole = True
    for finding in machine.examine():
        result(finding.to_json() if json else finding)
        whole = whole and finding.state != "missing"
    if not whole:
        raise typer.Exit(FAILED)


def _print_repetition(spec: RenderSpec, detector: Detector | None, json: bool) -> None:
    from ..planning.plan import plan as planned
    from ..repetition import detect

    with redirect_stdout(sys.stderr):
        found = detect.examine(planned(spec), detector, remark)
    if json:
        result(as_json(found, event="repetition"))
    else:
        result(*detect.report(found))
