"""`frieze config`: a preset and flags merged, as YAML that `--preset FILE.yaml` reads back."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from ..errors import ModelError, SpecError
from ..spec.merging import merge
from ..spec.render_spec import RenderSpec, parse
from ..spec.values import ValuesError, from_yaml, to_yaml
from ..terminal.text import remark, result
from .options.arguments import Preset, Prompt, Size
from .options.spec_fields import takes_fields

_PASSWORD = re.compile(r"://[^/\s]*@")  # user:password@ of an address


@takes_fields()
def config(
    prompt: Prompt = None,
    preset: Preset = None,
    size: Size = None,
    full: Annotated[
        bool, typer.Option("--full", help="print the defaults too", rich_help_panel="Output")
    ] = False,
    **fields: Any,
) -> None:
    """Print a preset and flags merged, as YAML for --preset FILE.yaml. Draws nothing.

    Takes the options of `frieze render`.
    """
    spec = merge(preset, prompt, size, fields)
    if spec.print is not None:
        from ..driver.print_size import of_print

        with suppress(ModelError):  # of a model that is not here its render finds the size
            spec = of_print(spec)
    if spec.address is not None and _PASSWORD.search(spec.address):
        remark("frieze: the address holds a password and is left out; give it with --address")
        kept = {name: getattr(spec, name) for name in spec.model_fields_set - {"address"}}
        spec = parse(kept)
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    result(as_yaml(spec, full=full, in_ascii=not is_unicode).rstrip("\n"))


def as_yaml(spec: RenderSpec, *, full: bool = False, in_ascii: bool = False) -> str:
    """The fields that were given, or all, as YAML from which `parse` makes the same spec.

    Raises `SpecError` for what no YAML file of ours could hold.
    """
    values = spec.model_dump()
    given = [name for name in values if full or name in spec.model_fields_set]
    kept = {name: values[name] for name in given if name != "max_workers"}
    if spec.max_workers is not None:
        kept["workers"] = f"{spec.workers}..{spec.max_workers}"
    try:
        text = to_yaml(kept, in_ascii=in_ascii)
        from_yaml(text)
    except ValuesError as error:
        raise SpecError(f"this cannot be written as a preset: {error}") from None
    return text
