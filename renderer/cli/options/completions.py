"""Values that a shell completes: presets, methods, models, stores, files by their formats.

Typer asks for them at every press of the tab key, so nothing here imports more than it must, or
looks at more than `MOST_SEEN` names. Names that a shell would have to be told in quotes are left
out: what a stranger called a folder is put into a command line here.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from ... import plugins
from ...checkpoints.shipped import SHIPPED
from ...errors import SpecError
from ...spec.presets import preset, preset_names
from ...spec.render_spec import RenderSpec

Values = Callable[..., list[str]]

MOST_SEEN, MOST_DEEP = 2000, 3  # names, and folders in folders, that are looked at
STORES, JOBS, PRESETS = (".zarr",), (".yaml", ".yml", ".json", ".jsonl"), (".yaml", ".yml")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff")
CLIPS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
_PLAIN = re.compile(r"~?[\w./+,@%-]*", re.ASCII)  # of what no shell makes something else


def presets(incomplete: str) -> list[str]:
    """Presets by name, and YAML files."""
    return [*preset_names(), *_ending(incomplete, PRESETS)]


def device_kinds() -> list[str]:
    """Kinds of devices that there are figures of."""
    from ...costs.device_kinds import names

    return list(names())


def methods() -> list[str]:
    """Methods, those of other packages too."""
    return list(plugins.names("methods"))


def strategies() -> list[str]:
    """Strategies, those of other packages too."""
    return list(plugins.names("strategies"))


def exports() -> list[str]:
    """Formats, those of other packages too."""
    return list(plugins.names("exports"))


def watermarks() -> list[str]:
    """Watermarks, those of other packages too."""
    return list(plugins.names("watermarks"))


def options(ctx: Any, incomplete: str) -> list[str]:
    """Options of the method that was given, or its preset's, or of all; and their known words."""
    method = ctx.params.get("method") or _of_preset(ctx.params.get("preset"))
    return _named("methods", [method] if method else methods(), incomplete)


def export_options(ctx: Any, incomplete: str) -> list[str]:
    """Options of the format that a file's suffix asks for; and their known words."""
    suffix = os.path.splitext(str(ctx.params.get("out") or ""))[1].lower()
    trees = {name: syntax("exports", name) for name in exports()}
    names = [name for name, tree in trees.items() if tree and suffix in suffixes_in(tree)]
    return _named("exports", names, incomplete)


def _named(kind: str, names: list[str], incomplete: str) -> list[str]:
    """NAME= of the options of these plugins, or NAME=WORD of one."""
    found: dict[str, list[str]] = {}
    for plugin in names:
        for option, schema in option_schemas(kind, plugin).items():
            words = ["true", "false"] if schema.get("type") == "boolean" else schema.get("enum", [])
            found.setdefault(option, []).extend(words)
    name, equals, _ = incomplete.partition("=")
    if not equals:
        return [f"{option}=" for option in found]
    return [f"{name}={word}" for word in dict.fromkeys(found.get(name, []))]


def option_schemas(kind: str, name: str) -> dict[str, dict[str, Any]]:
    """The JSON schema of each option of a plugin; none of one that cannot be loaded."""
    try:
        options = getattr(plugins.load(kind, name), "Options", None)
    except SpecError:
        return {}
    schemas: dict[str, dict[str, Any]] = {}
    if options is not None:
        schemas |= options.model_json_schema().get("properties", {})
    return schemas


def _of_preset(name: str | None) -> str | None:
    """The method of a preset."""
    try:
        method = preset(name).get("method") if name else None
    except SpecError:
        return None
    return method if isinstance(method, str) else None


def models(incomplete: str) -> list[str]:
    """The shipped models, and folders in diffusers' layout."""
    return [*SHIPPED, *_found(incomplete, lambda path: (path / "model_index.json").is_file())]


def devices() -> list[str]:
    """Kinds of devices."""
    return ["auto", "cpu", "cuda"]


def quantizations() -> list[str]:
    """Ways to quantise weights."""
    from ...models.quantization import KINDS

    return list(KINDS)


def addresses() -> list[str]:
    """Words that an address of a Ray cluster may be."""
    return ["auto", "local"]


def colors(incomplete: str) -> list[str]:
    """Colour spaces by name, and ICC profiles that are there."""
    from ...color.profiles import NAMED, SUFFIXES

    return [*NAMED, *_ending(incomplete, SUFFIXES)]


def stores(incomplete: str) -> list[str]:
    """Folders that are called as stores are."""
    return _found(incomplete, lambda path: path.suffix in STORES and path.is_dir())


def jobs(incomplete: str) -> list[str]:
    """Files that may be a batch's."""
    return _ending(incomplete, JOBS)


def sources(incomplete: str) -> list[str]:
    """Pictures and clips that are there, by their names."""
    return _ending(incomplete, PICTURES + CLIPS)


def pictures(ctx: Any, incomplete: str) -> list[str]:
    """A file to be made, in each format: called as was begun, else as the store or --out is."""
    given = ctx.params.get("store") or ctx.params.get("out") or "picture.zarr"
    own = os.path.splitext(os.path.basename(str(given).rstrip("/")))[0]
    begun, suffix = os.path.splitext(incomplete)
    name = os.path.basename(begun) if suffix or incomplete[-1:] not in ("", "/") else own
    place = os.path.dirname(begun)
    stem = os.path.join(place, name) if name else incomplete
    return [stem + known for known in _suffixes() if _PLAIN.fullmatch(stem)]


def pages(ctx: Any, incomplete: str) -> list[str]:
    """A report to be written."""
    begun = os.path.splitext(incomplete)[0]
    own = os.path.splitext(os.path.basename(str(ctx.params.get("store") or "report")))[0]
    return [f"{begun or own}.html"]


# What completes the fields of a spec; those of a few words that are known complete themselves.
OF_FIELD: dict[str, Values] = {
    "model": models,
    "method": methods,
    "method_options": options,
    "strategy": strategies,
    "watermark": watermarks,
    "device": devices,
    "quantization": quantizations,
    "address": addresses,
    "color": colors,
    "out": pictures,
}


def of_field(name: str) -> Values | None:
    """What completes a field's option; None for numbers and free text."""
    words = _words(RenderSpec.model_fields[name].annotation)
    return OF_FIELD.get(name) or ((lambda: list(words)) if words else None)


def _words(annotation: Any) -> tuple[str, ...]:
    """The words of a Literal, or of one that may be None."""
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if get_origin(annotation) is Literal:
        return tuple(map(str, kinds))
    return _words(kinds[0]) if len(kinds) == 1 else ()


def _suffixes() -> tuple[str, ...]:
    """What files of each format end in, as the plugins state it; they are not imported."""
    trees = [syntax("exports", name) for name in plugins.names("exports")]
    return tuple(suffix for tree in trees if tree for suffix in suffixes_in(tree))


def syntax(kind: str, name: str) -> ast.Module | None:
    """A plugin's syntax, None where its text cannot be read; nothing of it is run."""
    source = plugins.source(kind, name)
    if source is None or source.suffix != ".py":
        return None
    try:
        return ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):  # no text, or no Python
        return None


def suffixes_in(tree: ast.Module) -> tuple[str, ...]:
    """What files of a format end in, as its module states it; none where it works them out."""
    values = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "suffixes"
    )
    try:
        return tuple(suffix for value in values for suffix in ast.literal_eval(value))
    except (TypeError, ValueError):
        return ()


def _ending(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    return _found(incomplete, lambda path: path.suffix in suffixes and path.is_file())


def _found(incomplete: str, is_one: Callable[[Path], bool]) -> list[str]:
    """Paths that begin as was typed and are such a one, in folders below as well."""
    place, begun = os.path.split(incomplete)
    start = os.path.expanduser(place) if place else "."
    seen = 0
    found: list[str] = []
    waiting = [(start, place, 0)]
    while waiting:
        folder, shown, depth = waiting.pop(0)
        for entry in _entries(folder):
            seen += 1
            path = os.path.join(shown, entry.name)
            if seen > MOST_SEEN:
                return found
            if (depth == 0 and not entry.name.startswith(begun)) or not _PLAIN.fullmatch(path):
                continue
            if entry.name.startswith(".") and not (depth == 0 and begun):
                continue
            if is_one(Path(entry.path)):
                found.append(path)
            elif depth + 1 < MOST_DEEP and entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, path, depth + 1))
    return found


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
