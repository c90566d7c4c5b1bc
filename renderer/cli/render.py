"""`frieze render`, `plan` and `resume`: flags become one RenderSpec, and others do the work."""

from __future__ import annotations

import json as jsonlib
import shlex
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..api import render as draw
from ..api import resume as finish
from ..checkpoints.decoder import OWN
from ..driver.caller import RenderResult
from ..errors import RenderCancelledError, RenderFailedError, SpecError, StoreError, printable
from ..files.location import Location, S3Path, location
from ..spec.merging import checked, merge
from ..spec.networks import all_loras
from ..spec.render_spec import parse
from ..terminal.error_lines import expected
from ..terminal.interrupts import interruptible
from ..terminal.progress import Progress, choose
from ..terminal.text import remark, result
from .options.arguments import (
    Also,
    Continue,
    Cost,
    DeviceKindName,
    DryRun,
    Json,
    Overwrite,
    Preset,
    Prompt,
    Quiet,
    Sign,
    Size,
    StorePath,
    Timestamp,
    as_json,
)
from .options.spec_fields import takes_fields

if TYPE_CHECKING:
    from ..planning.canvas_plan import CanvasPlan
    from ..spec.render_spec import RenderSpec


@takes_fields()
def render(
    prompt: Prompt = None,
    preset: Preset = None,
    size: Size = None,
    also: Also = None,
    continued: Continue = False,
    dry_run: DryRun = False,
    sign: Sign = None,
    timestamp: Timestamp = None,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Draw a picture.

    Options that are not given fall back to the preset, then to the defaults.
    """
    spec = outpainting(merge(preset, prompt, size, fields))
    if dry_run:
        print_plan(spec, json)
        return
    if not spec.prompt and prompt is None:
        raise SpecError('no prompt; give one, as frieze render "a red sun over blue mountains"')

    begin(spec, also, continued, sign=sign, timestamp=timestamp, json=json, quiet=quiet)


@takes_fields()
def plan(
    prompt: Prompt = None,
    preset: Preset = None,
    size: Size = None,
    cost: Cost = False,
    device_kind: DeviceKindName = None,
    json: Json = False,
    **fields: Any,
) -> None:
    """Say how a picture would be drawn: bands, blocks, memory, time. Draws nothing.

    Takes the options of `frieze render`.
    """
    spec = outpainting(merge(preset, prompt, size, fields))
    print_plan(spec, json, is_costed=cost, kind=device_kind)


# Ways to draw beyond the trained size, one of which is taken where it is named.
LARGER = ("decoder", "method", "stages", "attend", "strategy", "upscale")


def outpainting(spec: RenderSpec) -> RenderSpec:
    """The spec with its model's own decoder, where a picture is drawn around beyond trained sizes.

    The network then draws the whole canvas at the size that it knows, so that it has one horizon
    and one sun, and the decoder enlarges that (tests/bench/results/quality_outpaint.md).
    """
    if spec.place is None or spec.model_fields_set & set(LARGER):
        return spec
    from ..checkpoints.checkpoint import describe

    facts = describe(spec.model, spec.revision, spec.variant)
    if spec.height * spec.width <= facts.training_size**2:
        return spec
    return with_decoder(spec)


def with_decoder(spec: RenderSpec) -> RenderSpec:
    """The spec with its model's own decoder, where the model has one."""
    from ..checkpoints.checkpoint import find

    if not (find(spec.model, spec.revision, spec.variant) / OWN).is_dir():
        return spec
    return parse({**spec.model_dump(exclude_unset=True), "decoder": OWN})


@takes_fields(
    *("workers", "local", "address", "timeout", "wait", "trace_digests"),
    left_out="as it was begun",
)
def resume(
    store: StorePath,
    also: Also = None,
    overwrite: Overwrite = False,
    sign: Sign = None,
    timestamp: Timestamp = None,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Finish a picture that was stopped; the same pixels, on as many workers as you like.

    Options that are not given are those the picture was begun with.
    """

    changes = checked(fields)

    def work(progress: Progress, cancel: threading.Event) -> RenderResult:
        return finish(
            store,
            **changes,
            exports=also or (),
            overwrite=overwrite,
            on_event=progress,
            cancel=cancel,
            sign=sign,
            timestamp=timestamp,
        )

    _show(work, location(store, StoreError), changes, json=json, quiet=quiet)


def begin(
    spec: RenderSpec,
    also: list[str] | None,
    continued: bool,
    *,
    sign: tuple[str, str] | None,
    timestamp: str | None,
    json: bool,
    quiet: bool,
) -> None:
    """Draw into the spec's store, and show it; `continued`: or go on with what is there.

    Raises `SpecError` where what is there would be both kept and replaced.
    """
    from ..outputs.targets import store_of

    if continued and spec.overwrite:
        raise SpecError("--continue keeps what is at --out and --overwrite replaces it; use one")

    def work(progress: Progress, cancel: threading.Event) -> RenderResult:
        return draw(
            spec,
            exports=also or (),
            continued=continued,
            on_event=progress,
            cancel=cancel,
            sign=sign,
            timestamp=timestamp,
        )

    _show(work, store_of(spec.out), {}, json=json, quiet=quiet)


def print_plan(
    spec: RenderSpec, json: bool, *, is_costed: bool = False, kind: str | None = None
) -> None:
    """Print a plan; bytes and work are counted, in seconds, for JSON and where bytes may be short.

    Work is counted where that `is_costed` too, or a method changes the network; its seconds are
    those of devices of a `kind`.
    """
    from ..costs import device_kinds
    from ..driver.print_size import of_print
    from ..planning import memory_check
    from ..planning.plan import plan as planned
    from ..spec.units import GIB

    plan = planned(of_print(spec))
    if kind is not None:
        device_kinds.device_kind(kind)  # refused before what takes seconds
        plan = replace(plan, kind_name=kind)
    is_costed = is_costed or kind is not None or plan.changes_network
    # What is encoded to be enlarged again may cost more than all else, which is to be told.
    is_counted = json or plan.is_estimated or all_loras(spec) or plan.num_encoded
    ample = None if is_counted else memory_check.ample(plan)
    if is_costed or ample is None:
        _compare_weights(plan)  # quicker than counting
    if is_costed:
        _ = plan.cost  # from here on the plan's text says it too
    if ample is not None:
        enough, memory = (size / GIB for size in ample)
        note = f"memory    less than {enough:.2f} GiB on each device, which has {memory:.1f}"
        result(plan, f"{note}; --json counts it")
        if not plan.is_costed:
            result("cost      --cost counts FLOPs, bytes between ranks and seconds")
        return
    estimate = plan.estimate
    _ = plan.cost
    values = {**vars(plan), "estimate": estimate, "predicted": plan.predicted}
    result(as_json(values, event="plan") if json else plan)


def _compare_weights(plan: CanvasPlan) -> None:
    """Refuse a model whose files lack weights; warn of those that nothing uses."""
    from ..planning import weight_names

    for text in weight_names.check(plan.facts, plan.spec):
        remark(f"warning: {text}")


def _show(
    work: Callable[[Progress, threading.Event], RenderResult],
    store: Location,
    given: Mapping[str, Any],
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Do the work before the user's eyes; print where the picture is, or how to go on.

    `given` are fields of the spec that a resume is to be told again.
    """
    progress = choose(json=json, quiet=quiet)

    def told() -> str:
        return _with_resume(
            "aborted" if progress.began else "stopped before any work", store, given
        )

    # Ray says on stdout that a worker died; stdout is for results.
    with progress, interruptible(progress, told) as cancel, redirect_stdout(sys.stderr):
        try:
            drawn = work(progress, cancel)
        except KeyboardInterrupt:
            raise RenderCancelledError(told()) from None
        except RenderCancelledError as error:
            raise RenderCancelledError(_with_resume(str(error), store, given)) from None
        except expected() as error:
            if not progress.began:
                raise
            raise RenderFailedError(_with_resume(str(error), store, given)) from error
    if json:
        places = {"path": str(drawn.path), "outputs": [str(path) for path in drawn.outputs]}
        result(as_json({**vars(drawn), **places}, event="result"))
    elif not quiet:
        result(*map(printable, drawn.outputs))


def _with_resume(message: str, store: Location, given: Mapping[str, Any]) -> str:
    """A message, and how to go on if there is anything to go on with."""
    from ..monitoring import commands

    how = f"finish with: frieze resume {shlex.quote(str(store.absolute()))}"
    if "frieze resume" in message:
        return message
    if isinstance(store, S3Path):  # to ask takes longer than a stop may
        return f"{message}; if {store} was begun, {how}"
    try:
        run = jsonlib.loads((store / "frieze" / "run.json").read_text(encoding="utf-8"))["run"]
        spec = parse({**run["spec"], **given})
        how = f"finish with: {commands.resume(store, spec, run['outputs'])}"
    except FileNotFoundError:
        return message
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the command without what the store is too damaged to say
    return f"{message}; {how}"
