"""`frieze serve`: the images API on this machine's workers or a cluster's."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RenderCancelledError, SpecError, line, shown
from ..spec.merging import checked
from ..terminal.interrupts import interruptible
from ..terminal.text import remark, result
from .options.arguments import Json, Quiet, Sign, Timestamp
from .options.spec_fields import takes_fields
from .options.tls import Certificate, CertificateKey, tls_context

if TYPE_CHECKING:
    from ..server.server import Settings

MIB = 2**20


@takes_fields(
    *(
        "watermark",
        "watermark_options",
        "workers",
        "local",
        "park",
        "address",
        "device",
        "device_memory",
        "timeout",
        "wait",
    ),
    descriptions={"workers": "how many there are for all jobs together; default 1"},
)
def serve(
    folder: Annotated[
        str,
        typer.Option(show_default=False, help="where jobs and pictures are kept; default served"),
    ] = "served",
    preset: Annotated[
        list[str] | None,
        typer.Option(
            help="a model to serve: a preset, a .yaml file, or ID=PRESET; repeatable; default: demo"
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            show_default=False,
            help="address to listen on, beyond this machine with tokens; default 127.0.0.1",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, show_default=False, help="0: any that is free; default 8000"
        ),
    ] = 8000,
    token_file: Annotated[
        str | None,
        typer.Option(help="tokens of clients, one a line; default: those in FRIEZE_TOKENS"),
    ] = None,
    certificate: Certificate = None,
    key: CertificateKey = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="a further field of a render that requests may set; repeatable; default: none"
        ),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=256, show_default=False, help="of a picture; default 67108864")
    ] = 8192 * 8192,
    max_steps: Annotated[
        int, typer.Option(min=1, show_default=False, help="of a picture; default 200")
    ] = 200,
    max_queue: Annotated[
        int,
        typer.Option(
            min=1, show_default=False, help="jobs that wait, more are told 429; default 100"
        ),
    ] = 100,
    max_body: Annotated[
        int, typer.Option(min=1, show_default=False, help="MiB of a request; default 64")
    ] = 64,
    max_wait: Annotated[
        float,
        typer.Option(
            min=1,
            show_default=False,
            help="seconds that a request waits for pictures; default 3600",
        ),
    ] = 3600.0,
    max_priority: Annotated[
        int,
        typer.Option(
            min=-100,
            max=100,
            show_default=False,
            help="the highest that a request may ask for; 0: nobody goes before others; "
            "default 100",
        ),
    ] = 100,
    retries: Annotated[
        int,
        typer.Option(min=0, show_default=False, help="attempts after one that broke; default 1"),
    ] = 1,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="7d|100",
            help="how long jobs stay after their end, in m, h, d or w, or how many; the others "
            "are deleted with their pictures; default: all stay",
        ),
    ] = None,
    sign: Sign = None,
    timestamp: Timestamp = None,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Serve the images API that OpenAI's clients speak, with jobs that outlive a restart.

    Requests name presets as models. Its addresses and fields are on the page /docs of the server.
    """
    from ..outputs.signer import asked_for
    from ..server import access
    from ..server.allowed_fields import allowed
    from ..server.jobs.retention import Retention
    from ..server.limits import Limits

    tokens = access.tokens(token_file)
    access.check_reach(host, tokens)
    if not max_wait < 1e6:
        raise SpecError(f"--max-wait {max_wait}: less than 1000000 seconds work")
    limits = Limits(max_pixels, max_steps, max_queue, max_body * MIB, max_wait, max_priority)
    own = allowed(allow or ())
    retention = None if keep is None else Retention.of(keep)
    tls, signer = tls_context(certificate, key), asked_for(sign, timestamp)
    settings = _settings(folder, preset or ["demo"], own, limits, retries, fields)
    spread = replace(settings.spread, signer=signer)
    settings = replace(settings, tokens=tokens, tls=tls, spread=spread, retention=retention)
    _run(settings, host, port, json=json, quiet=quiet)


def _settings(
    folder: str,
    presets: list[str],
    own: frozenset[str],
    limits: Any,
    retries: int,
    fields: dict[str, Any],
) -> Settings:
    """What was asked for, each model planned once: what can never be drawn is said now."""
    from ..batches.items import read
    from ..batches.scheduling import pack
    from ..files.location import location
    from ..planning import devices
    from ..server.jobs.job_run import Spread
    from ..server.served_models import served_models
    from ..server.server import Settings

    where = location(folder, SpecError)
    if not isinstance(where, Path):
        raise SpecError(f"--folder {shown(folder)}: a folder of this machine works")
    told = checked(fields)
    workers = told.pop("workers", 1)
    if not isinstance(workers, int):
        raise SpecError(f"workers {workers!r}: a server takes one number")
    address = told.get("address")
    ray = devices.on_ray(workers, address, local=bool(told.get("local")))
    spread = Spread(workers, told, ray, retries)
    models = served_models(presets)
    root = where.resolve()
    for model in models.values():
        values = {**model.values, "prompt": "a picture", "name": "first"}
        (item,) = read([values], root / "frieze-check", told)
        pack(item, 0, workers)
    return Settings(root, models, own, limits, spread, address)


def _run(settings: Settings, host: str, port: int, *, json: bool, quiet: bool) -> None:
    from ..server.server import Server, listen
    from ..terminal import batch_progress

    words = [word for word in sys.argv[1:] if word != "--json"]
    again = shlex.join(["frieze", *words])
    shown_on = batch_progress.choose(json=json, quiet=quiet)
    listening = listen(host, port)
    with listening, shown_on:
        server = Server(settings, shown_on.item)

        def told() -> str:
            jobs = server.waiting()
            left = f"{jobs} job{'' if jobs == 1 else 's'} of {settings.folder} wait"
            return line(f"stopped; {left}{'s' * (jobs == 1)}; go on with: {again}")

        with (
            interruptible(shown_on, told) as cancel,
            redirect_stdout(sys.stderr),
            server.serving(listening),
        ):
            scheme = "https" if settings.tls else "http"
            _announce(scheme, listening.getsockname(), server.waiting(), json=json, quiet=quiet)
            with suppress(KeyboardInterrupt):
                server.draw(cancel)
        raise RenderCancelledError(told())


def _announce(scheme: str, name: Any, jobs: int, *, json: bool, quiet: bool) -> None:
    """Where it listens."""
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    url = f"{scheme}://{host}:{name[1]}/v1"
    if json:
        import json as jsonlib

        result(jsonlib.dumps({"event": "serving", "url": url, "jobs": jobs}), stream=sys.__stdout__)
    elif not quiet:
        remark(f"serving {url}" + (f", {jobs} jobs go on" if jobs else ""))
