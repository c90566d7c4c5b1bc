"""`frieze train decoder`: a decoder of any size for a model, from pictures of one's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..checkpoints.shipped import SHIPPED
from ..errors import RenderCancelledError, RenderFailedError, printable
from ..spec.merging import checked, merge
from ..spec.render_spec import parse
from ..terminal.error_lines import expected
from ..terminal.interrupts import interruptible
from ..terminal.text import result
from .options.arguments import Continue, Json, Quiet, as_json
from .options.spec_fields import takes_fields

if TYPE_CHECKING:
    from ..training.recipe import TrainingRecipe

train = typer.Typer(add_completion=False, help="Train what a model lacks, on pictures of your own.")
PLACE = ("workers", "local", "address", "device", "timeout", "wait")
LORA_PLACE = (*PLACE, "device_memory")
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
    values = _absolute(values)

    def trained(**told: Any) -> list[Path]:
        from ..training.training_run import train_decoder

        return [train_decoder(recipe, out, parse(place), continued=continued, **told)]

    from ..training import recipe as recipes

    recipe = recipes.of(values)
    _run(recipe, trained, out, place, save_every, json=json, quiet=quiet)


LORA_DESCRIPTIONS = {
    "seed": "decides factors, order, noise and times; default 0",
    "workers": "how many make a step together, each of some of its examples; default 1",
    "num_frames": "frames of each clip; default 1, pictures",
    "method": "whose positions and attention are trained with; default ntk",
    "shift": "timestep shift of the times that are trained at; default: by the size",
}


@train.command()
@takes_fields(
    *("model", "revision", "variant", "seed", "num_frames", "method", "method_options", "shift"),
    *("max_sequence_length", *LORA_PLACE),
    descriptions=LORA_DESCRIPTIONS,
)
def lora(
    data: Annotated[
        str,
        typer.Option(
            show_default=False, help="a folder of pictures with captions, or 'scenes'; no default"
        ),
    ],
    size: Annotated[
        str, typer.Option(show_default=False, help="WIDTHxHEIGHT that is trained at; no default")
    ],
    out: Annotated[
        str,
        typer.Option(
            show_default=False, help="a .safetensors file, for --lora, or a folder; no default"
        ),
    ],
    rank: Annotated[int, typer.Option(show_default=False, help="of the factors; default 16")] = 16,
    alpha: Annotated[
        float | None, typer.Option(help="their product counts alpha / rank; default: the rank")
    ] = None,
    targets: Annotated[
        str,
        typer.Option(
            show_default=False,
            help="layers by their names or ends; default to_q,to_k,to_v,to_out.0",
        ),
    ] = "to_q,to_k,to_v,to_out.0",
    start: Annotated[
        str | None,
        typer.Option(help="a LoRA to go on from, with its rank and layers; default: a new one"),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="write an average of the steps, of which so much stays, as 0.999; default: none"
        ),
    ] = None,
    aspect_buckets: Annotated[
        bool,
        typer.Option(
            "--aspect-buckets", help="learn pictures at sizes of their own shapes; default: off"
        ),
    ] = False,
    caption: Annotated[
        str | None, typer.Option(help="of pictures that have none; default: they are refused")
    ] = None,
    trigger: Annotated[
        str | None,
        typer.Option(help="a word in the place of [trigger], or before captions; default: none"),
    ] = None,
    caption_dropout: Annotated[
        float,
        typer.Option(show_default=False, help="part of examples without captions; default 0.1"),
    ] = 0.1,
    timesteps: Annotated[
        str,
        typer.Option(
            show_default=False,
            help="logit-normal=MEAN,DEVIATION, mode=SCALE, cosmap or uniform; default logit-normal",
        ),
    ] = "logit-normal",
    minutes: Annotated[
        float | None,
        typer.Option(help="how long instead of steps, all resumptions together; default: by steps"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="how many; default 1000")] = None,
    batch: Annotated[
        int, typer.Option(show_default=False, help="examples a step, of all workers; default 4")
    ] = 4,
    rate: Annotated[
        float, typer.Option(show_default=False, help="AdamW's highest rate; default 0.0001")
    ] = 1e-4,
    pictures: Annotated[
        int,
        typer.Option(show_default=False, help="the most that are learned from; default 100000"),
    ] = 100_000,
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(
            show_default=False,
            help="bfloat16: weights so, factors in float32, mixed precision; default float32",
        ),
    ] = "float32",
    guidance_scale: Annotated[
        float,
        typer.Option(
            show_default=False, help="what a model that is told its guidance is told; default 1"
        ),
    ] = 1.0,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="run layers twice, to keep less; default: off"
        ),
    ] = False,
    sample_prompt: Annotated[
        list[str] | None,
        typer.Option(help="drawn at every save, into samples; repeatable; default: none"),
    ] = None,
    sample_steps: Annotated[
        int, typer.Option(show_default=False, help="steps of these; default 20")
    ] = 20,
    save_every: Annotated[
        int, typer.Option(min=1, show_default=False, help="steps between saves; default 500")
    ] = 500,
    continued: Continue = False,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Train a LoRA at any size, with the positions and the attention of a method.

    A picture's caption is a .txt beside it or a row of metadata.jsonl. The file that comes out is
    what `frieze render --lora` and diffusers load, after every save. Stopped or killed, the same
    command with --continue goes on, with --steps to the same weights.
    """
    own = {name: value for name, value in fields.items() if name not in LORA_PLACE}
    place = checked({name: fields[name] for name in LORA_PLACE})
    spec = merge(None, None, size, own)
    values = {"model": "demo", "height": spec.height, "width": spec.width, "rank": rank}
    values |= {"data": data, "targets": targets, "caption": caption, "trigger": trigger}
    values |= {"caption_dropout": caption_dropout, "timesteps": timesteps, "batch": batch}
    values |= {"minutes": minutes, "rate": rate, "pictures": pictures, "dtype": dtype}
    values |= {"steps": 1000 if (minutes, steps) == (None, None) else steps, "alpha": alpha}
    values |= {"guidance_scale": guidance_scale, "checkpointing": checkpointing}
    values |= {"start": start, "ema": ema, "aspect_buckets": aspect_buckets}
    values |= {"sample_prompt": tuple(sample_prompt or ()), "sample_steps": sample_steps}
    values |= {name: getattr(spec, name) for name in own if own[name] is not None}
    values = _absolute(values)

    def trained(**told: Any) -> list[Path]:
        from ..training.lora.lora_run import train_lora

        return list(train_lora(recipe, out, parse(place), continued=continued, **told))

    from ..training.lora import lora_recipe

    recipe = lora_recipe.of(values)
    _run(recipe, trained, out, place, save_every, json=json, quiet=quiet)


def _absolute(values: dict[str, Any]) -> dict[str, Any]:
    """Folders by names that mean the same from anywhere."""
    names = [
        n for n in ("data", "model", "start") if values.get(n) not in (None, "", "scenes", *SHIPPED)
    ]
    paths = {name: os.path.abspath(os.path.expanduser(values[name])) for name in names}
    return values | {n: path for n, path in paths.items() if n != "model" or os.path.exists(path)}


def _run(
    recipe: TrainingRecipe,
    trained: Callable[..., list[Path]],
    out: str,
    place: dict[str, Any],
    save_every: int,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Train before the user's eyes; say where what was made is, or how to go on."""
    from ..terminal import progress
    from ..training.training_folder import TrainingFolder

    folder = TrainingFolder(out, recipe.suffix)
    words = tuple(
        word
        for name, value in place.items()
        if name != "local"
        for word in ("--" + name.replace("_", "-"), str(value))
    )
    words += ("--local",) if place.get("local") else ()
    shown = progress.choose(json=json, quiet=quiet)

    def told(message: str = "aborted") -> str:
        if not folder.is_begun:
            return f"{message} before any work"
        return f"{message}; go on with: {recipe.command(folder.path, words)}"

    with shown, interruptible(shown, told) as cancel, redirect_stdout(sys.stderr):
        try:
            paths = trained(save_every=save_every, tell=shown, cancel=cancel)
        except KeyboardInterrupt:
            raise RenderCancelledError(told()) from None
        except RenderCancelledError as error:
            raise RenderCancelledError(told(str(error))) from None
        except expected() as error:
            if not shown.began:
                raise
            raise RenderFailedError(told(str(error))) from error
    for path in paths:
        if json:
            result(as_json({"path": str(path)}, event="result"))
        elif not quiet:
            result(printable(path))
