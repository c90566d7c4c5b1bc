"""A page for each plugin: what its module says, its sources, its options, its picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from documentation.markdown import ARXIV, code, definitions, line, page, prose, toctree
from frieze.renderer import plugins
from frieze.renderer.cli.options.completions import option_schemas
from frieze.renderer.spec.options import default_text, meaning
from frieze.renderer.spec.presets import preset, preset_names

GALLERY = "tests/bench/results/gallery"
# What is said above the list of a kind, and what it states of each: attributes of its module.
KINDS = {
    "methods": ("Methods", "Ways past the trained size, for `--method`.", {}),
    "families": (
        "Families",
        "Kinds of models, each held to its own pipeline of diffusers.",
        {"pipelines": "Pipelines", "training_sizes": "Trained sizes, in pixels a side"},
    ),
    "exports": ("Exports", "Formats of finished files.", {"suffixes": "Suffixes"}),
    "strategies": ("Strategies", "Ways to spread a canvas over workers, for `--strategy`.", {}),
    "watermarks": ("Watermarks", "Marks in the pixels themselves, for `--watermark`.", {}),
}
FLAG = {
    "methods": "--option",
    "exports": "--option",
    "strategies": "--strategy-option",
    "watermarks": "--watermark-option",
}
SINGULAR = {"methods": "method", "strategies": "strategy", "watermarks": "watermark"}
PROMPT = "a red sun"
# Of the function that a kind's module defines, whose docstring says more.
FUNCTION = {
    "methods": "method",
    "exports": "check",
    "strategies": "predict",
    "watermarks": "mark",
}


def pages(root: Path) -> dict[str, str]:
    drawn = pictures(root)
    made: dict[str, str] = {}
    for kind, (title, about, stated) in KINDS.items():
        modules = {name: plugins.load(kind, name) for name in plugins.names(kind)}
        for name, module in modules.items():
            how = drawn.get(name) if kind == "methods" else None
            made[f"{kind}/{name}"] = _page(kind, name, module, stated, how)
        listed = ((f"[{name}](/{kind}/{name}.md)", _summary(m)) for name, m in modules.items())
        more = "Pictures: [gallery](/gallery.md)." if kind == "methods" else ""
        made[f"{kind}/index"] = page(
            f"# {title}", f"{about} {more}".strip(), definitions(listed), toctree(modules)
        )
    made["gallery"] = _gallery(drawn)
    return made


def pictures(root: Path) -> dict[str, Any]:
    """How the picture of each method that has one was drawn."""
    record = root / GALLERY / "pictures.json"
    said = json.loads(record.read_text(encoding="utf-8"))
    return {name: how for name, how in said.items() if (root / GALLERY / f"{name}.jpg").exists()}


def _summary(module: ModuleType) -> str:
    return line((module.__doc__ or "").strip().split("\n")[0])


def _page(
    kind: str, name: str, module: ModuleType, stated: dict[str, str], how: dict[str, Any] | None
) -> str:
    doc = module.__doc__ or ""
    first, _, rest = doc.strip().partition("\n\n")
    function = getattr(module, FUNCTION.get(kind, ""), None)
    papers = list(dict.fromkeys(ARXIV.findall(doc)))
    links = ", ".join(f"[arXiv {paper}](https://arxiv.org/abs/{paper})" for paper in papers)
    facts = [(title, _values(module, key)) for key, title in stated.items()]
    return page(
        f"# {name}",
        prose(first),
        _called(kind, name, module, how),
        _picture(name, how) if kind == "methods" else "",
        prose(rest),
        prose(function.__doc__ or "") if function and kind != "exports" else "",
        f"Sources: {links}." if links else "",
        definitions((title, values) for title, values in facts if values),
        *_options(kind, name),
    )


def _called(kind: str, name: str, module: ModuleType, how: dict[str, Any] | None) -> str:
    """How one is asked for, of a picture that is shown exactly so, and the presets that do."""
    if kind == "families":
        return ""
    if kind == "exports":
        return code(f"frieze export poster.zarr poster{module.suffixes[0]}", "sh")
    flag = f"--{SINGULAR[kind]}"
    words = f"frieze render {json.dumps(how['prompt'] if how else PROMPT)} {flag} {name}"
    if how:
        words += f" --model {how['model']} --size {how['size']}"
        words += f" --num-inference-steps {how['steps']} --seed {how['seed']} --out {name}.png"
    asking = [each for each in preset_names() if preset(each).get(SINGULAR[kind]) == name]
    links = ", ".join(f"[{each}](#preset-{each})" for each in asking)
    return page(code(words, "sh"), f"Presets: {links}." if links else "").strip()


def _values(module: ModuleType, key: str) -> str:
    return ", ".join(f"`{value}`" for value in getattr(module, key, None) or ())


def _options(kind: str, name: str) -> Iterator[str]:
    schemas = option_schemas(kind, name)
    if not schemas:
        return
    yield "## Options"
    yield f"Each as `{FLAG[kind]} NAME=VALUE`."
    yield definitions(
        (f"`{option}`", "; ".join(filter(None, _facts(schema))))
        for option, schema in schemas.items()
    )


def _facts(schema: dict[str, Any]) -> Iterator[str]:
    told = schema.get("description", "")
    yield line(told)
    yield line(meaning(schema))
    if "; default" not in told:
        yield f"default: `{default_text(schema)}`"


def _how(how: dict[str, Any]) -> str:
    return (
        f"{how['prompt']!r}, by the shipped model `{how['model']}` at {how['size']}, twice its "
        f"trained side, in {how['steps']} steps with seed {how['seed']}"
    )


def _picture(name: str, how: dict[str, Any] | None) -> str:
    if how is None:
        return "*No shipped model draws by it, so that there is no picture.*"
    told = _how(how)
    path = f"/pictures/{GALLERY}/{name}.jpg"
    return f"![A picture drawn by {name}]({path})\n\n*{told[0].upper()}{told[1:]}.*"


def _gallery(drawn: dict[str, Any]) -> str:
    cells = (
        f"[![A picture drawn by {name}](/pictures/{GALLERY}/{name}.jpg)](/methods/{name}.md)\n"
        f"[{name}](/methods/{name}.md)"
        for name in drawn
    )
    hows = {_how(how): [n for n in drawn if _how(drawn[n]) == _how(how)] for how in drawn.values()}
    said = (f"{', '.join(f'`{n}`' for n in names)}: {how}." for how, names in hows.items())
    return page(
        "# Gallery of methods",
        "One prompt and one seed past the trained size. The plain model, `none`, repeats what it "
        "knows; what is changed about that is what a method is.",
        *(["::::{container} gallery", *cells, "::::"] if drawn else []),
        *said,
    )
