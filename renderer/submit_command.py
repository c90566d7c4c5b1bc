"""`frieze submit`: the words of another command, sent as a job to a Ray cluster."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .errors import SpecError


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
    from . import submit as jobs

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
