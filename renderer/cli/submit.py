"""`frieze submit`: a command of Frieze as a job on a Ray cluster, from its words to its end."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from ..batches import batch_file, items
from ..errors import RenderCancelledError, SpecError, SubmitError
from ..files.location import Location, location
from ..outputs import targets
from ..spec.merging import merge, name_values
from ..spec.render_spec import RenderSpec
from ..terminal.error_lines import FAILED
from ..terminal.interrupts import CANCELLED
from ..terminal.text import copied, remark
from . import upscale
from .job_files import check_reachable, files_of, local_files, packed

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


VARIABLE, EXAMPLE = r"[A-Za-z_][A-Za-z0-9_]*", "HF_HUB_OFFLINE=1"


@dataclass(frozen=True)
class JobRequest:
    """What the job does: its words, the store it fills, and the files here that it needs."""

    words: tuple[str, ...]
    store: str
    title: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class SubmitOptions:
    """How the job is sent; None is what Ray makes of it, `python` the cluster's interpreter."""

    address: str | None = None
    submission_id: str | None = None
    follow: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    num_cpus: float | None = None
    python: str = "python"


def render_request(words: Sequence[str], given: Mapping[str, Any]) -> JobRequest:
    """The request of `frieze render` with these words, which mean these options.

    It finishes its own store when it is sent again. Raises `SpecError` where the job could not
    find what it needs, or nobody what it makes.
    """
    own = {"preset", "prompt", "size", "also", "continued", "dry_run", "json", "quiet"}
    own |= {"sign", "timestamp"}
    fields = {name: value for name, value in given.items() if name not in own}
    spec = merge(given["preset"], given["prompt"], given["size"], fields)
    return _begun(words, given, spec, given["preset"], spec.prompt)


def _begun(
    words: Sequence[str],
    given: Mapping[str, Any],
    spec: RenderSpec,
    preset: str | None,
    title: str,
) -> JobRequest:
    """The request of what begins a store."""
    _check_no_address(spec.address)
    check_reachable("--out", spec.out)
    for path in given["also"] or ():
        check_reachable("--also", path)
    _check_signed(given)
    begins_anew = spec.overwrite or given["continued"] or given["dry_run"]
    return JobRequest(
        words=(*words, *(() if begins_anew else ("--continue",))),
        store=str(targets.store_of(spec.out)),
        title=title,
        files=local_files(files_of(spec, preset)),
    )


def resume_request(words: Sequence[str], given: Mapping[str, Any]) -> JobRequest:
    """The request of `frieze resume`; raises `SpecError` as `render_request` does."""
    _check_no_address(given["address"])
    check_reachable("STORE", given["store"])
    for path in given["also"] or ():
        check_reachable("--also", path)
    _check_signed(given)
    return JobRequest(tuple(words), given["store"], f"resume {PurePosixPath(given['store']).name}")


def batch_request(words: Sequence[str], given: Mapping[str, Any]) -> JobRequest:
    """The request of `frieze batch`, which goes on with its own folder when it is sent again."""
    _check_no_address(given["address"])
    _check_signed(given)
    if given["out"] is None:
        raise SpecError("--out is missing: a batch on a cluster fills a folder every node sees")
    check_reachable("--out", given["out"])
    files = [("JOBS", given["jobs"])]
    local_files(files)
    # One that only the nodes see is read there.
    if os.path.exists(given["jobs"]):
        files += _files_of_items(given["jobs"], location(given["out"], SpecError))
    return JobRequest(
        words=(*words, *(() if given["continued"] else ("--continue",))),
        store=given["out"],
        title=f"batch {PurePosixPath(given['jobs']).name}",
        files=local_files(files),
    )


def _files_of_items(jobs: str, out: Location) -> Iterator[tuple[str, str]]:
    """(item and flag, name) of every file that a batch's items read; raises `SpecError`."""
    listed = items.read(jobs, out, {})
    yield from (("preset", name) for name in batch_file.preset_files(Path(jobs)))
    for item in listed:
        for flag, name in files_of(item.spec):
            yield f"{item.name}: {flag}", name


def upscale_request(words: Sequence[str], given: Mapping[str, Any]) -> JobRequest:
    """The request of `frieze upscale`; raises `SpecError` as `render_request` does."""
    own = {"picture", "size", "enlarger", "also", "continued", "dry_run", "json", "quiet"}
    own |= {"sign", "timestamp"}
    fields = {name: value for name, value in given.items() if name not in own}
    spec = upscale.spec_of(given["picture"], given["size"], fields, given["enlarger"])
    if os.path.isdir(given["picture"]):
        return _folder_request(words, given, spec)
    return _begun(words, given, spec, None, f"upscale {PurePosixPath(given['picture']).name}")


def _folder_request(words: Sequence[str], given: Mapping[str, Any], spec: RenderSpec) -> JobRequest:
    """That of a folder, which goes on with its own --out when it is sent again."""
    _check_no_address(spec.address)
    _check_signed(given)
    check_reachable("--out", spec.out)
    return JobRequest(
        words=(*words, *(() if given["continued"] or given["dry_run"] else ("--continue",))),
        store=spec.out,
        title=f"upscale {PurePosixPath(given['picture']).name}",
        files=local_files(files_of(spec)),
    )


ERRANDS: Mapping[str, Callable[[Sequence[str], Mapping[str, Any]], JobRequest]] = {
    "render": render_request,
    "upscale": upscale_request,
    "resume": resume_request,
    "batch": batch_request,
}


def send(request: JobRequest, way: SubmitOptions) -> int:
    """Send the job, follow it if asked to; returns its exit code.

    Raises `SubmitError` where the cluster does not take it, `RenderCancelledError` when the
    user leaves a job that goes on.
    """
    from frieze.cluster.ray.jobs import JobError, JobServer, RayJob

    name = way.submission_id or _new_name(request.store)
    if not NAME.fullmatch(name):
        raise SpecError(f"--submission-id {name!r}: letters, digits, '.', '_' and '-' work")
    try:
        server = JobServer(way.address)
        with packed(request.files) as package:
            server.submit(
                RayJob(
                    entrypoint=shlex.join((way.python, "-m", "frieze.renderer", *request.words)),
                    submission_id=name,
                    modules=package.modules,
                    folder=package.folder,
                    environment=way.environment,
                    metadata={**_about(request), **way.metadata},
                    num_cpus=way.num_cpus,
                )
            )
        _say(f"job {name} is at {server.address}; its store is {request.store}")
        how = _how_to_go_on(name, server.address)
        if not way.follow:
            _say(how)
            return 0
        try:
            end = server.follow(name, copied)
        except KeyboardInterrupt:
            raise RenderCancelledError(f"job {name} goes on without you; {how}") from None
    except JobError as error:
        raise SubmitError(str(error)) from error
    return _told(name, end.status, end.exit_code, end.message, way.python)


def _check_signed(given: Mapping[str, Any]) -> None:
    """A key goes with no job, for Ray keeps what does: it lies where the job finds it, or nowhere.

    Raises `SpecError`.
    """
    for path in given.get("sign") or ():
        check_reachable("--sign", path)


def _check_no_address(address: str | None) -> None:
    if address not in (None, "auto"):
        raise SpecError(
            f"--address {address} after the --: a job is on its cluster already; put the head's "
            "address before the --, as http://HEAD:8265"
        )


def _new_name(store: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", PurePosixPath(store).stem).strip("-.") or "picture"
    return f"frieze-{stem[:64]}-{secrets.token_hex(3)}"


def _about(request: JobRequest) -> dict[str, str]:
    """What a list of jobs shows; progress is read from the store that it names."""
    version = metadata.version("frieze")
    about = {"store": request.store, "title": request.title[:200], "version": version}
    return {f"frieze_{name}": value for name, value in about.items()}


def _how_to_go_on(name: str, address: str) -> str:
    where = f"--address {address} {name}"
    return (
        f"follow it with: ray job logs --follow {where}; stop it with: ray job stop {where}; "
        "the same frieze submit again finishes what it began"
    )


def _told(name: str, status: str, code: int | None, message: str, python: str) -> int:
    """Say how the job ended; returns the exit code for this process."""
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        _say(f"job {name} was stopped; the same frieze submit again finishes what it began")
        return CANCELLED
    if code is None:
        _say(f"job {name} did not start: {' '.join(message.split())[:600]}")
    elif code == 127 or "No module named" in message:
        _say(
            f"job {name} failed with exit code {code}: {python!r} of the cluster lacks what Frieze "
            "needs; name another with --python, or install Frieze's dependencies there"
        )
    else:
        _say(f"job {name} failed with exit code {code}; its log says why")
    return code or FAILED


def _say(text: str) -> None:
    remark(f"frieze: {text}")


def submit(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND ...", help="render, upscale, resume or batch, as typed"),
    ],
    address: Annotated[
        str | None, typer.Option(help="http://HEAD:8265; default: RAY_API_SERVER_ADDRESS")
    ] = None,
    submission_id: Annotated[
        str | None, typer.Option(help="the job's name; default: one made from the store's")
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow/--no-wait", help="show the job's log until it ends; default: --follow"
        ),
    ] = True,
    metadata: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE to keep with the job; repeatable; default: none"),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the job's environment; repeatable; default: none"),
    ] = None,
    entrypoint_num_cpus: Annotated[
        float | None,
        typer.Option(min=0, help="CPUs for the driver; 1 keeps it off the head; default: 0"),
    ] = None,
    python: Annotated[
        str, typer.Option(show_default=False, help="the cluster's interpreter; default: python")
    ] = "python",
) -> None:
    """Run a command as a job on a Ray cluster, with this very code.

    Files named by relative paths go with it; what it makes must be where every node sees it.
    Ctrl-C leaves the job alone. The same command again finishes what the first one began.
    """

    name, *rest = words
    if name not in ERRANDS:
        raise SpecError(f"a job cannot be {name!r}; it can be {' or '.join(ERRANDS)}")
    assert context.parent is not None
    asked: Any = context.parent.command
    given = asked.commands[name].make_context(name, rest, parent=context.parent).params
    way = SubmitOptions(
        address=address,
        submission_id=submission_id,
        follow=follow,
        metadata=name_values("--metadata", metadata or (), EXAMPLE, VARIABLE),
        environment=name_values("--env", env or (), EXAMPLE, VARIABLE),
        num_cpus=entrypoint_num_cpus,
        python=python,
    )
    raise typer.Exit(send(ERRANDS[name](words, given), way))
