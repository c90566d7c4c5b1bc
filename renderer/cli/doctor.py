"""`frieze doctor`: what this machine offers, or whether pictures of a size repeat."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import SpecError
from ..spec.merging import merge
from ..terminal.error_lines import FAILED
from ..terminal.text import remark, result
from .options import completions
from .options.arguments import Json, Size, as_json
from .options.spec_fields import takes_fields

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
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="measure what the device does in a second, in --dtype, for seconds in plans",
        ),
    ] = False,
    json: Json = False,
    **fields: Any,
) -> None:
    """Report what this machine offers: versions, devices, attention, Ray, model, disk.

    With --calibrate: measure the device, in some seconds, and keep the figures. With a model and
    --size: whether pictures of that size repeat, and which frequencies to correct.
    """
    from . import machine

    if calibrate:
        if model is not None or size is not None:
            raise SpecError("--calibrate measures the device alone; leave MODEL and --size out")
        _calibrate(merge(None, prompt, None, fields), fields.get("dtype") is not None, json)
        return
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


def _calibrate(spec: RenderSpec, is_asked: bool, json: bool) -> None:
    """Measure the device of a spec in its precision, or in all that a CUDA device is used in."""
    from ..costs import device_kinds
    from ..models.device import device_type
    from ..planning import devices

    devices.check_here(spec.model_copy(update={"address": None, "local": True}))
    kind = device_type(spec.device)
    dtypes = (
        ("bfloat16", "float16", "float32") if kind == "cuda" and not is_asked else (spec.dtype,)
    )
    remark(f"measuring {device_kinds.kind_here(kind)} in {', '.join(dtypes)}")
    from ..monitoring.calibration import rates

    name = device_kinds.kind_here(kind)
    device = kind if spec.device == "auto" else spec.device
    measured = [rates(device, dtype) for dtype in dtypes]
    path = device_kinds.keep(name, "measured by frieze doctor --calibrate", measured)
    if json:
        values = {"kind": name, "path": str(path), "measured": measured}
        result(as_json(values, event="calibration"))
        return
    result(*(each.line() for each in measured), path)


def _print_repetition(spec: RenderSpec, detector: Detector | None, json: bool) -> None:
    from ..planning.plan import plan as planned
    from ..repetition import detect

    with redirect_stdout(sys.stderr):
        found = detect.examine(planned(spec), detector, remark)
    if json:
        result(as_json(found, event="repetition"))
    else:
        result(*detect.report(found))
