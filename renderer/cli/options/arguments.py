"""Arguments and options that several commands share, and what their --json prints."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer

from . import completions

Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="what the picture shows")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="start from a preset: a name or a .yaml file; default: none",
        rich_help_panel="Picture",
        autocompletion=completions.presets,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        help="WIDTHxHEIGHT in pixels, as 1024x768; default: --width, --height",
        rich_help_panel="Picture",
    ),
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        help="a further file, as poster.tif or s3://...; repeatable; default: none",
        rich_help_panel="Output",
        autocompletion=completions.pictures,
    ),
]
Sign = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--sign",
        metavar="CERT KEY",
        help="sign files with Content Credentials (C2PA): a certificate and its key in PEM, no "
        "store keeps them; default: unsigned",
        rich_help_panel="Output",
    ),
]
Timestamp = Annotated[
    str | None,
    typer.Option(
        "--timestamp",
        metavar="URL",
        help="with --sign: an RFC 3161 authority's time stamp; default: none",
        rich_help_panel="Output",
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
Cost = Annotated[
    bool,
    typer.Option(
        "--cost",
        help="count FLOPs, bytes between ranks and seconds, which takes a few; done without asking "
        "where memory is counted",
        rich_help_panel="Output",
    ),
]
DeviceKindName = Annotated[
    str | None,
    typer.Option(
        "--device-kind",
        metavar="NAME",
        help="tell the seconds on devices of this kind, as nvidia-h200; default: those here",
        rich_help_panel="Output",
        autocompletion=completions.device_kinds,
    ),
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
StorePath = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="the working store: a .zarr folder or s3://...",
        autocompletion=completions.stores,
    ),
]


def as_json(value: Any, **more: str) -> str:
    """A value and further fields as one line of JSON; functions and types by their names."""
    from pydantic_core import to_jsonable_python

    def name(part: object) -> str:
        return str(getattr(part, "__name__", part))

    plain = to_jsonable_python(value, fallback=name)
    return jsonlib.dumps({**more, **plain})
