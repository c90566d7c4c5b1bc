"""The command line: flags become one RenderSpec, errors become one line; others do the work."""

from __future__ import annotations

import io
import json as jsonlib
import shlex
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from . import looking, outputs
from . import submit as jobs
from .errors import RenderCancelledError, RenderFailedError, SpecError, StoreError
from .flags import checked, merge, takes_fields
from .homes import holds_store
from .locations import Location, location
from .oneline import FAILED, OneLine, expected
from .plan import plan as planned
from .progress import Progress, choose
from .render import RenderResult
from .render import render as draw
from .render import resume as finish
from .spec import RenderSpec
from .stopping import interruptible

app = typer.Typer(
    cls=OneLine,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog='Begin with: frieze render "a red sun over blue mountains" --preset demo --out sun.tif',
    context_settings={"help_option_names": ["-h", "--help"]},
)

Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="what the picture shows")]
Preset = Annotated[
    str | None,
    typer.Option(help="start from a preset: a name or a .yaml file", rich_help_panel="Picture"),
]
Size = Annotated[
    str | None,
    typer.Option(help="WIDTHxHEIGHT in pixels, as 1024x768", rich_help_panel="Picture"),
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        help="a further file, as poster.tif or s3://...; repeatable", rich_help_panel="Output"
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="JSON lines on stdout", rich_help_panel="Output")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="say nothing but errors", rich_help_panel="Output")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="print the plan and stop", rich_help_panel="Output")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="replace files that are there", rich_help_panel="Output")
]
Continue = Annotated[
    bool,
    typer.Option(
        "--continue",
        help="finish the store at --out if one is there; else begin",
        rich_help_panel="Output",
    ),
]
Detector = Literal["attention", "draft"]
DRAFTED = "a red sun over blue mountains at dusk"
StorePath = Annotated[
    str, typer.Argument(metavar="STORE", help="the working store: a .zarr folder or s3://...")
]


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
        print(f"frieze {metadata.version('frieze')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    else:
        return
    raise typer.Exit


@app.command()
@takes_fields()
def render(
    prompt: Prompt = None,
    preset: Preset = None,
    size: Size = None,
    also: Also = None,
    continued: Continue = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Draw a picture.

    Options that are not given fall back to the preset, then to the defaults.
    """
    spec = merge(preset, prompt, size, fields)
    if dry_run:
        _print_plan(spec, json)
        return
    if not spec.prompt and prompt is None:
        raise SpecError('no prompt; give one, as frieze render "a red sun over blue mountains"')

    if continued and spec.overwrite:
        raise SpecError("--continue keeps what is at --out and --overwrite replaces it; use one")

    def work(progress: Progress, cancel: threading.Event) -> RenderResult:
        return draw(spec, exports=also or (), continued=continued, on_event=progress, cancel=cancel)

    _show(work, outputs.store_of(spec.out), json=json, quiet=quiet)


@app.command()
@takes_fields()
def plan(
    prompt: Prompt = None,
    preset: Preset = None,
    size: Size = None,
    json: Json = False,
    **fields: Any,
) -> None:
    """Say how a picture would be drawn: bands, blocks, memory, time. Draws nothing.

    Takes the options of `frieze render`.
    """
    _print_plan(merge(preset, prompt, size, fields), json)


@app.command()
@takes_fields("workers", "local", "address", "timeout", "wait")
def resume(
    store: StorePath,
    also: Also = None,
    overwrite: Overwrite = False,
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
        )

    _show(work, location(store, StoreError), json=json, quiet=quiet)


@app.command()
@takes_fields(
    *("workers", "local", "park", "address", "device", "device_memory", "timeout", "wait")
)
def batch(
    jobs: Annotated[str, typer.Argument(metavar="JOBS", help="a .yaml or .jsonl file of items")],
    out: Annotated[
        str | None,
        typer.Option(help="a folder or s3://...; default: the file's name without its suffix"),
    ] = None,
    continued: Annotated[
        bool, typer.Option("--continue", help="go on with the batch that is in --out")
    ] = False,
    retries: Annotated[
        int, typer.Option(min=0, help="attempts after one that broke; default 1")
    ] = 1,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Draw many pictures: prompts, sizes, seeds and models, on workers that stay warm.

    What is done stays, what fails does not stop the rest; see configs/batches/example.yaml.
    """
    from . import batch_command

    folder = out or Path(jobs).stem
    options = {**checked(fields), "continued": continued, "retries": retries}
    batch_command.run(jobs, folder, options, json=json, quiet=quiet)


@app.command()
def export(
    store: StorePath,
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="the file to write; its suffix decides")
    ],
    overwrite: Overwrite = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="wait for a store still drawn", rich_help_panel="Output"),
    ] = False,
    dpi: Annotated[
        float | None,
        typer.Option(help="dots per inch written to the file", rich_help_panel="Output"),
    ] = None,
    json: Json = False,
) -> None:
    """Write a finished picture, or one still being drawn, as TIFF, PNG, ..."""
    options = {} if dpi is None else {"dpi": dpi}
    path = outputs.export(store, out, overwrite=overwrite, follow=follow, **options)
    print(jsonlib.dumps({"event": "result", "path": str(path)}) if json else path)


app.command()(looking.status)
app.command()(looking.report)


@app.command()
@takes_fields("seed", "dtype", "workers", "local", "address", "device")
def doctor(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="examine this model at --size instead")
    ] = None,
    size: Size = None,
    prompt: Annotated[str, typer.Option(help="what its drafts show")] = DRAFTED,
    detector: Annotated[
        Detector | None, typer.Option(help="listen to its attention, or draw drafts; default: both")
    ] = None,
    json: Json = False,
    **fields: Any,
) -> None:
    """Report what this machine offers: versions, devices, attention, Ray, model, disk.

    With a model and --size: whether pictures of that size repeat, and which frequencies to correct.
    """
    from . import doctor as machine

    if model is not None or size is not None:
        spec = merge(None, prompt, size, {**fields, "model": model})
        _print_repetition(spec, detector, json)
        return
    whole = True
    for finding in machine.examine():
        print(finding.to_json() if json else finding, flush=True)
        whole = whole and finding.state != "missing"
    if not whole:
        raise typer.Exit(FAILED)


@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND ...", help="render, resume or batch, as typed here"),
    ],
    address: Annotated[
        str | None, typer.Option(help="http://HEAD:8265; default: RAY_API_SERVER_ADDRESS")
    ] = None,
    submission_id: Annotated[
        str | None, typer.Option(help="the job's name; default: one made from the store's")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-wait", help="show the job's log until it ends")
    ] = True,
    metadata: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE to keep with the job; repeatable")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the job's environment; repeatable")
    ] = None,
    entrypoint_num_cpus: Annotated[
        float | None, typer.Option(min=0, help="CPUs for the driver; 1 keeps it off the head")
    ] = None,
    python: Annotated[str, typer.Option(help="the cluster's interpreter")] = "python",
) -> None:
    """Run a command as a job on a Ray cluster, with this very code.

    Files named by relative paths go with it; what it makes must be where every node sees it.
    Ctrl-C leaves the job alone. The same command again finishes what the first one began.
    """
    name, *rest = words
    if name not in jobs.ERRANDS:
        raise SpecError(f"a job cannot be {name!r}; it can be {' or '.join(jobs.ERRANDS)}")
    assert context.parent is not None
    asked: Any = context.parent.command
    given = asked.commands[name].make_context(name, rest, parent=context.parent).params
    way = jobs.Way(
        address=address,
        submission_id=submission_id,
        follow=follow,
        metadata=jobs.named("--metadata", metadata or ()),
        environment=jobs.named("--env", env or ()),
        num_cpus=entrypoint_num_cpus,
        python=python,
    )
    raise typer.Exit(jobs.send(jobs.ERRANDS[name](words, given), way))


def main() -> None:
    """Entry point of the console script `frieze`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names in letters that a terminal may not know
            stream.reconfigure(errors="backslashreplace")
    app()


def _print_plan(spec: RenderSpec, json: bool) -> None:
    made = planned(spec)
    estimate = made.estimate  # from here on the plan's text says it too
    print(_to_json({**vars(made), "estimate": estimate}, event="plan") if json else made)


def _print_repetition(spec: RenderSpec, detector: Detector | None, json: bool) -> None:
    from . import attended

    with redirect_stdout(sys.stderr):
        found = attended.examine(planned(spec), detector, print)  # on stderr
    if json:
        print(_to_json(found, event="repetition"))
    else:
        print(*attended.report(found), sep="\n")


def _to_json(value: Any, **more: str) -> str:
    from pydantic_core import to_jsonable_python

    def name(part: object) -> str:
        return str(getattr(part, "__name__", part))

    plain = to_jsonable_python(value, fallback=name)
    return jsonlib.dumps({**more, **plain})


def _show(
    work: Callable[[Progress, threading.Event], RenderResult],
    store: Location,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Do the work before the user's eyes; print where the picture is, or how to go on."""
    progress = choose(json=json, quiet=quiet)
    # Ray says on stdout that a worker died; stdout is for results.
    with progress, interruptible(progress) as cancel, redirect_stdout(sys.stderr):
        try:
            result = work(progress, cancel)
        except (KeyboardInterrupt, RenderCancelledError) as error:
            raise RenderCancelledError(_with_resume(str(error) or "aborted", store)) from None
        except expected() as error:
            if not progress.began:
                raise
            raise RenderFailedError(_with_resume(str(error), store)) from error
    if json:
        places = {"path": str(result.path), "outputs": [str(path) for path in result.outputs]}
        print(_to_json({**vars(result), **places}, event="result"))
    elif not quiet:
        print(*result.outputs, sep="\n")


def _with_resume(message: str, store: Location) -> str:
    if "frieze resume" in message or not holds_store(store):
        return message
    return f"{message}; finish with: frieze resume {shlex.quote(str(store))}"
