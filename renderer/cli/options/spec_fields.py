"""RenderSpec's fields as options of the command line, and options back into a RenderSpec."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from ...spec.render_spec import RenderSpec
from ...spec.roles import PANELS
from .completions import of_field

# Shorter words than diffusers' own; those work as well.
ALSO_CALLED = {
    "num_frames": "--frames",
    "method_options": "--option",
    "strategy_options": "--strategy-option",
    "watermark_options": "--watermark-option",
    "edit": "--region",
    "scheduler_options": "--scheduler-option",
    "stages": "--stage",
    "control": "--control-image",
    "controlnet_conditioning_scale": "--controlnet-scale",
}


def takes_fields(
    *names: str,
    left_out: str | None = None,
    in_panels: bool = False,
    descriptions: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's `**fields` by one option per field; no names mean every field.

    Those that are named are in no panel of the help, unless `in_panels`.

    An option that is not given arrives as None: the preset decides, then the default; or it means
    what the help shall say of it, `left_out`. `descriptions` say what fields are to this command,
    where that is not what they are to a render.
    """

    def replace(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [
            p.replace(kind=p.KEYWORD_ONLY)
            for p in signature.parameters.values()
            if p.kind is not p.VAR_KEYWORD
        ]
        new = [
            _parameter(name, panel, left_out, descriptions.get(name))
            for name, panel in _fields(names, in_panels)
        ]
        # Within a panel the preset and the size come before the fields, --also and --json after.
        first = [p for p in own if _panel(p) == "Picture"]
        parameters = sorted(first + new + [p for p in own if p not in first], key=_place)
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return replace


def _fields(names: tuple[str, ...], in_panels: bool) -> list[tuple[str, str | None]]:
    """Fields and the panels of the help that they are in; some alone are in none."""
    if names and not in_panels:
        return [(field, None) for field in names]
    panels = {
        field: role.panel
        for field, role in RenderSpec.roles().items()
        if role.panel and (not names or field in names)
    }
    return sorted(panels.items(), key=lambda item: PANELS.index(item[1]))


def _parameter(
    name: str, panel: str | None, left_out: str | None, description: str | None
) -> inspect.Parameter:
    field = RenderSpec.model_fields[name]
    kind = _bare(field.annotation)
    flag = "--" + name.replace("_", "-")
    also = (ALSO_CALLED[name],) if name in ALSO_CALLED else ()
    if get_origin(kind) in (tuple, dict):  # given again and again
        kind = list[str]
    option = typer.Option(
        *also,
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=description or _help(field, left_out),
        rich_help_panel=panel,
        autocompletion=of_field(name),
        # Text stays text: the spec reads numbers, and names the value that is none.
        parser=str if kind in (int, float) else None,
    )
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _bare(annotation: Any) -> Any:
    """A field's type without None and without what checks its values: what a help can name."""
    if get_origin(annotation) in (Union, UnionType):
        (kept,) = (kind for kind in get_args(annotation) if kind is not NoneType)
        return _bare(kept)
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _help(field: FieldInfo, left_out: str | None) -> str:
    """What a field is, and what it is when it is left out: its description says so, or this."""
    text = field.description or ""
    if left_out is not None:
        return f"{text.partition('; default')[0]}; default: {left_out}"
    if "default" in text:
        return text
    default = "off" if field.default is False else field.default
    return (
        f"{text}; default {default:g}"
        if isinstance(default, float)
        else f"{text}; default {default}"
    )


def _panel(parameter: inspect.Parameter) -> str | None:
    (option,) = parameter.annotation.__metadata__
    panel: str | None = option.rich_help_panel
    return panel


def _place(parameter: inspect.Parameter) -> int:
    order: list[str | None] = [None, *PANELS]
    return order.index(_panel(parameter))
