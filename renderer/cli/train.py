"""`frieze train decoder`: a decoder of any size for a model, from pictures of one's own."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from typing import Annotated, Any, Literal

import typer

from ..checkpoints.shipped import SHIPPED
from ..errors import RenderCancelledError, RenderFailedError, printable
from ..spec.merging import checked
from ..spec.render_spec import parse
from ..terminal.error_lines import expected
from ..terminal.interrupts import interruptible
from ..terminal.text import result
from .arguments import Continue, Json, Quiet, as_json
from .spec_options import takes_fields

train = typer.Typer(add_completion=False, help="Train what a model lacks, on pictures of your own.")
PLACE = ("workers", "local", "address", "device", "timeout", "wait")
DESCRIPTIONS = {
    "seed": "decides crops, noise and the network's first weights; default 0",
    "workers": "how many make a step together, each of some of its crops; default 1",
}


@train.callback()
def _group() -> None:
    """A group of commands, whether it has one or more."""


@train.command()
@takes_fields("model", "revision", "variant", "seed", *PLACE, descriptions=DESCRIPTIONS)
def decoder(
    data: Annotated[
        str, typer.Option(show_default=False, help="a folder of pictures, or 'scenes'; no default")
    ],
    out: Annotated[
        str,
        typer.Option(show_default=False, help="the decoder's folder, for --decoder; no default"),
    ],
    start: Annotated[
        str | None,
        typer.Option(help="folder of a decoder to start from; default: a new network"),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="how long, all resumptions together; default 30")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="how many steps instead of minutes; default: by minutes")
    ] = None,
    batch: Annotated[
        int, typer.Option(show_default=False, help="crops a step, of all workers; default 8")
    ] = 8,
    crop: Annotated[
        int, typer.Option(show_default=False, help="pixels a side of a crop; default 64")
    ] = 64,
    scale: Annotated[
        float,
        typer.Option(show_default=False, help="the largest enlargement that is learned; default 8"),
    ] = 8.0,
    rate: Annotated[
        float, typer.Option(show_default=False, help="AdamW's highest rate; default 0.002")
    ] = 2e-3,
    pictures: Annotated[
        int,
        typer.Option(show_default=False, help="the most that are learned from; default 1000"),
    ] = 1000,
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(show_default=False, help="bfloat16: mixed precision; default float32"),
    ] = "float32",
    stages: Annotated[
        str,
        typer.Option(
            show_default=False,
            help="'flow,distillation' ends with a decoder that draws in one step, "
            "'flow,adversarial' with a sharper one (frieze[train]); either goes on alone from "
            "--start; default flow",
        ),
    ] = "flow",
    save_every: Annotated[
        int, typer.Option(min=1, show_default=False, help="steps between saves; default 500")
    ] = 500,
    continued: Continue = False,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Train an InfGen decoder, which makes pictures of any size from those a model draws.

    Pictures must be larger than what the model draws of them. The folder that comes out is what
    `frieze render --decoder` takes, after every save. Stopped or killed, the same command with
    --continue goes on, with --steps to the same weights.
    """
    given = checked(fields)
    place = {name: given.pop(name) for name in PLACE if name in given}
    own = {"minutes": 30.0 if (minutes, steps) == (None, None) else minutes, "steps": steps}
    values = {"model": "demo", "batch": batch, "crop": crop, "scale": scale, "rate": rate}
    values |= (
        {"data": data, "start": start, "pictures": pictures, "dtype": dtype, "stages": stages}
        | own
        | given
    )
    _run(_absolute(values), out, place, save_every, continued, json=json, quiet=quiet)


def _absolute(values: dict[str, Any]) -> dict[str, Any]:
    """Folders by names that mean the same from anywhere."""
    names = [
        n for n in ("data", "model", "start") if values[n] not in (None, "", "scenes", *SHIPPED)
    ]
    paths = {name: os.path.abspath(os.path.expanduser(values[name])) for name in names}
    return values | {n: path for n, path in paths.items() if n != "model" or os.path.exists(path)}


def _run(
    values: dict[str, Any],
    out: str,
    place: dict[str, Any],
    save_every: int,
    continued: bool,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Train before the user's eyes; say where the decoder is, or how to go on."""
    from ..terminal import progress
    from ..training import recipe as recipes
    from ..training.training_folder import TrainingFolder
    from ..training.training_run import train_decoder

    recipe, workers = recipes.of(values), parse(place)
    folder = TrainingFolder(out)
    words = tuple(
        w for n in PLACE if n in place and n != "local" for w in (f"--{n}", str(place[n]))
    )
    words += ("--local",) if place.get("local") else ()
    shown = progress.choose(json=json, quiet=quiet)

    def told(message: str = "aborted") -> str:
        if not folder.is_begun:
            return f"{message} before any work"
        return f"{message}; go on with: {recipe.command(folder.path, words)}"

    with shown, interruptible(shown, told) as cancel, redirect_stdout(sys.stderr):
        try:
            path = train_decoder(
                recipe,
                out,
                workers,
                continued=continued,
                save_every=save_every,
                tell=shown,
                cancel=cancel,
            )
        except KeyboardInterrupt:
            raise RenderCancelledError(told()) from None
        except RenderCancelledError as error:
            raise RenderCancelledError(told(str(error))) from None
        except expected() as error:
            if not shown.began:
                raise
            raise RenderFailedError(told(str(error))) from error
    if json:
        result(as_json({"path": str(path)}, event="result"))
    elif not quiet:
        result(printable(path))
