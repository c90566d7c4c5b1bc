"""`frieze upscale`: a picture or clip that is there already, made larger or redrawn larger."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..checkpoints.decoder import OWN
from ..errors import SpecError
from ..spec.merging import merge
from ..spec.render_spec import NO_DECODER, parse
from ..spec.roles import OF_A_REDRAW, OF_AN_UPSCALE
from ..terminal.text import result
from .options import completions
from .options.arguments import Also, Continue, DryRun, Json, Quiet, Sign, Timestamp
from .options.spec_fields import ALSO_CALLED, takes_fields
from .render import begin, print_plan, with_decoder

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec

# What an upscale may be asked for beside its own words.
FIELDS = (
    *(*OF_AN_UPSCALE, "out", "overwrite"),
    *("workers", "local", "park", "address", "device", "device_memory", "chunk", "timeout"),
    *("wait", "trace_digests", "dpi", "print", "bleed", "color", "intent"),
    *(each for each in OF_A_REDRAW if each not in ("prompt", "creativity", "guide")),
    *("guidance_ranks", "ulysses", "save_every"),
)
CREATIVITY = 0.2  # of --with render: more multiplies the demo's ridges (extrapolation/guides.py)
# What a batch decides for all its items.
OF_A_BATCH = (
    *("upscale", "height", "width", "out", "overwrite", "workers", "max_workers", "local", "park"),
    *("address", "device", "device_memory", "timeout", "wait"),
)
Picture = Annotated[
    str,
    typer.Argument(
        metavar="PICTURE",
        help="a picture or clip, in any format that --init takes, or a folder of them",
        autocompletion=completions.sources,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        help="WIDTHxHEIGHT in pixels, of the picture's shape, as 4096x3072; default: --print's",
        rich_help_panel="Picture",
    ),
]
Decoder = Annotated[
    str | None,
    typer.Option(
        help="folder of an InfGen decoder for the model's latents; default: the model's own. With "
        "render none is the autoencoder, which a model without an own decoder has too",
        rich_help_panel="Model",
    ),
]
With = Annotated[
    Literal["infgen", "render"],
    typer.Option(
        "--with",
        help="what makes it larger: infgen decodes its latents at any size and is the default, "
        "render redraws it with the model first",
        rich_help_panel="Model",
    ),
]
Creativity = Annotated[
    str | None,
    typer.Option(
        help=f"how freely render redraws it: 0 is held most, 1 freest; default {CREATIVITY:g}",
        rich_help_panel="Picture",
    ),
]
Guide = Annotated[
    str | None,
    typer.Option(
        help="what holds a redrawn picture: hiflow, low-band, detail or none; default: low-band",
        rich_help_panel="Model",
        autocompletion=completions.of_field("guide"),
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        help="what the picture shows, for render; default: nothing is said of it",
        rich_help_panel="Picture",
    ),
]
Frames = Annotated[
    str | None,
    typer.Option(
        "--frames",
        "--num-frames",
        help="so many first frames of a clip; default: all",
        rich_help_panel="Picture",
    ),
]
Fps = Annotated[
    str | None,
    typer.Option(help="frames a second of a clip; default: its own", rich_help_panel="Picture"),
]


@takes_fields(*FIELDS, in_panels=True)
def upscale(
    picture: Picture,
    size: Size = None,
    enlarger: With = "infgen",
    decoder: Decoder = None,
    creativity: Creativity = None,
    guide: Guide = None,
    prompt: Prompt = None,
    num_frames: Frames = None,
    fps: Fps = None,
    also: Also = None,
    continued: Continue = False,
    dry_run: DryRun = False,
    sign: Sign = None,
    timestamp: Timestamp = None,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Make a picture or clip larger, or all of a folder.

    With infgen it is enlarged as it is, by bicubic interpolation, and detail is added to that:
    nothing of it goes through the autoencoder and back. With render the model redraws it first, as
    freely as --creativity says: at its own size or the trained one, or without a decoder at growing
    sizes. --size has its shape, in multiples of 8, without a decoder in those of the model; of a
    folder it is the box that each fills in its own shape.
    """
    own = {"decoder": decoder, "num_frames": num_frames, "fps": fps}
    own |= {"creativity": creativity, "guide": guide, "prompt": prompt}
    spec = spec_of(picture, size, fields | own, enlarger)
    if decoder is None and spec.redraws:
        # What the demo redrew at growing sizes had its tokens all over, and what it redrew at the
        # trained size and its decoder enlarged had none (extrapolation/guides.py).
        spec = with_decoder(spec)
    if os.path.isdir(picture):
        who = {"sign": sign, "timestamp": timestamp}
        told = {"dry_run": dry_run, "json": json, "quiet": quiet}
        _folder(spec, also, {"continued": continued, **who}, **told)
        return
    spec = with_own(spec)
    if dry_run:
        print_plan(spec, json)
        return
    begin(spec, also, continued, sign=sign, timestamp=timestamp, json=json, quiet=quiet)


def spec_of(
    picture: str, size: str | None, fields: Mapping[str, Any], enlarger: str = "infgen"
) -> RenderSpec:
    """The spec of these words, the picture not yet looked at; raises `SpecError`."""
    if size is None and fields.get("print") is None:
        raise SpecError(
            "no size; give one of the picture's shape, as --size 4096x3072, or --print 60x45cm"
        )
    given = {name: value for name, value in fields.items() if value is not None}
    if enlarger == "render":
        if given.get("decoder") == NO_DECODER:
            del given["decoder"]
        return merge(None, None, size, {"creativity": CREATIVITY, **given, "upscale": picture})
    if told := [name for name in OF_A_REDRAW if given.get(name)]:
        flag = "--" + ALSO_CALLED.get(told[0], told[0]).removeprefix("--").replace("_", "-")
        raise SpecError(
            f"{flag} is for what is redrawn, and infgen redraws nothing; add --with render, or "
            "leave it out"
        )
    decoder = given.pop("decoder", OWN)
    return merge(None, None, size, {**given, "upscale": picture, "decoder": decoder})


def with_own(spec: RenderSpec) -> RenderSpec:
    """The spec with its clip's frames, so many a second, and its depth, where it does not say."""
    from ..batches.picture_folder import own_fields

    given = spec.model_fields_set
    if {"num_frames", "fps", "bits"} <= given:
        return spec
    own = own_fields(str(spec.upscale), spec.model_dump(exclude_unset=True))
    return parse({**spec.model_dump(exclude_unset=True), **own})


def _folder(
    spec: RenderSpec,
    also: list[str] | None,
    options: Mapping[str, Any],
    *,
    dry_run: bool,
    json: bool,
    quiet: bool,
) -> None:
    """All pictures and clips of a folder, as a batch with these options."""
    from ..batches import picture_folder
    from . import batch

    given = spec.model_dump(exclude_unset=True, exclude=set(OF_A_BATCH))
    if spec.print is not None:
        raise SpecError("--print is for one picture; of a folder give --size, a box for each")
    if spec.overwrite:
        raise SpecError("--overwrite is for one picture; of a folder use another --out")
    if spec.max_workers is not None:
        raise SpecError(f"workers {spec.workers}..{spec.max_workers}: a folder takes one number")
    listed = list(picture_folder.items(str(spec.upscale), spec, given, tuple(also or ())))
    if dry_run:
        for item in listed:
            result(f"{item['upscale']} becomes {item['width']}x{item['height']}, {item['name']}")
        return
    out = spec.out if "out" in spec.model_fields_set else f"{Path(str(spec.upscale)).name}-large"
    names = ("workers", "local", "park", "address", "device", "device_memory", "timeout", "wait")
    told = {name: getattr(spec, name) for name in names if name in spec.model_fields_set}
    words = [word for word in sys.argv[1:] if word != "--continue"]
    again = shlex.join(["frieze", *words, "--continue"])
    batch.run(listed, out, {**told, **options}, again, json=json, quiet=quiet)
