"""`frieze upscale`: a picture or clip that is there already, made larger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..checkpoints.decoder import OWN
from ..errors import SpecError
from ..spec.merging import merge
from ..spec.roles import OF_AN_UPSCALE
from . import completions
from .arguments import Also, Continue, DryRun, Json, Quiet
from .render import begin, print_plan
from .spec_options import takes_fields

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec

# What an upscale may be asked for beside its own words.
FIELDS = (
    *(*OF_AN_UPSCALE, "out", "overwrite"),
    *("workers", "local", "park", "address", "device", "device_memory", "chunk", "timeout"),
    *("wait", "trace_digests", "dpi"),
)
Picture = Annotated[
    str,
    typer.Argument(
        metavar="PICTURE",
        help="a picture or clip, in any format that --init takes",
        autocompletion=completions.sources,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        help="WIDTHxHEIGHT in pixels, of the picture's shape, as 4096x3072; no default",
        rich_help_panel="Picture",
    ),
]
Decoder = Annotated[
    str | None,
    typer.Option(
        help="folder of an InfGen decoder for the model's latents; default: the model's own",
        rich_help_panel="Model",
    ),
]
With = Annotated[
    Literal["infgen"],
    typer.Option(
        "--with",
        help="what makes it larger: infgen, which decodes its latents at any size, is the default",
        rich_help_panel="Model",
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
    num_frames: Frames = None,
    fps: Fps = None,
    also: Also = None,
    continued: Continue = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Make a picture or clip larger.

    It is enlarged as it is, by bicubic interpolation, and detail is added to that: nothing of it
    goes through the autoencoder and back. --size has its shape, in multiples of 8.
    """
    own = {"decoder": decoder, "num_frames": num_frames, "fps": fps}
    spec = with_frames(spec_of(picture, size, fields | own))
    if dry_run:
        print_plan(spec, json)
        return
    begin(spec, also, continued, json=json, quiet=quiet)


def spec_of(picture: str, size: str | None, fields: Mapping[str, Any]) -> RenderSpec:
    """The spec of these words, the picture not yet looked at; raises `SpecError`."""
    if size is None:
        raise SpecError("no size; give one of the picture's shape, as --size 4096x3072")
    decoder = fields.get("decoder") or OWN
    return merge(None, None, size, {**fields, "upscale": picture, "decoder": decoder})


def with_frames(spec: RenderSpec) -> RenderSpec:
    """The spec with the frames of its clip, and so many a second, where it does not say."""
    from ..inputs import media

    given = spec.model_fields_set
    if {"num_frames", "fps"} <= given:
        return spec
    found = media.peek(str(spec.upscale))
    own: dict[str, Any] = {"num_frames": found.frames}
    if found.fps is not None:
        own["fps"] = found.fps
    changes = {name: value for name, value in own.items() if name not in given}
    return merge(None, None, None, {**spec.model_dump(exclude_unset=True), **changes})
