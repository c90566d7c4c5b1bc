"""The rows of the quality benchmark: what each one is, and how it draws one picture.

Every row of a cell draws the same prompts from the same seeds, in the same steps and with the same
time shift. Pictures are uint8 [H, W, 3].
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench import quality_tiles
from frieze.renderer import RenderSpec, plugins, render
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.demo import scenes
from frieze.renderer.errors import FriezeError
from frieze.renderer.extrapolation.method import Method
from frieze.renderer.planning.plan import load_method
from frieze.renderer.store.store import Store

Pixels = NDArray[np.uint8]
NATIVE, TOKEN = 256, 16
REAL_SEED = 100_000  # of the first layout that rows are held to; no row draws it
REALS = 2  # real scenes for each prompt
REPEAT = 320  # pixels: the control's period, the model's own dominant one in whole tokens
SINGLE = ({"scale": 1.0, "start": 1.0},)
# Modules that methods import and that hold no formulas.
RECORDS = {"errors", "facts", "method", "method_options", "render_spec"}
Kind = Literal["scenes", "reference", "repeated", "enlarged", "tiles", "method"]

# Rows beside each method's plain one: label -> (method, options, whether it keeps its own stages).
# Those of methods or options that are not there are left out.
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any], bool]] = {
    "ntk, by factor": ("ntk", {"convention": "factor"}, False),
    "yarn, no temperature": ("yarn", {"temperature": False}, False),
    "dype of pi": ("dype", {"form": "pi"}, False),
    "dype of ntk": ("dype", {"form": "ntk"}, False),
    "riflex on rows and columns": ("riflex", {"along": "picture"}, False),
    "rdfc, faded": ("rdfc", {"fade": 2}, False),
    "rdfc of all": ("rdfc", {"mode": "all"}, False),
    "ultraimage, guided resolution": ("ultraimage", {"mode": "resolution"}, True),
    "ultraimage, guided view": ("ultraimage", {"mode": "view"}, True),
}
# What later stages of `auto` attend to, beside what it does by itself, held to full attention.
FULL = "auto, full attention"
ATTENTION: Mapping[str, str] = {
    FULL: "full",
    "auto, pooled context": "pooled",
    "auto, shifted windows": "shifted",
    "auto, trained windows": "windows",
    "auto, fused windows": "fused",
}


# The first-block cache at these thresholds, held to full attention too.
CACHED = ("0.05", "0.1", "0.2")


# Canvases drawn in tiles: label -> (method, whether it keeps its stages, the strategy's options).
TILES: Mapping[str, tuple[str, bool, Mapping[str, Any]]] = {
    "auto, tiles": ("auto", True, {}),
    "plain model, tiles": ("none", False, {"positions": "tile"}),
    "plain model, tiles without fusion": (
        *("none", False),
        {"positions": "tile", "fusion": 0, "shift": False},
    ),
}


@dataclass(frozen=True)
class Cell:
    """One size, pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def native(self) -> tuple[int, int]:
        """Height and width of a picture of this shape with about the area that was trained on."""
        short = min(self.height, self.width)
        tokens = round(NATIVE / TOKEN * math.sqrt(short / max(self.height, self.width)))
        height, width = (round(tokens * x / short) * TOKEN for x in (self.height, self.width))
        return height, width


@dataclass(frozen=True)
class Settings:
    """What all rows of a run share."""

    steps: int = 20
    shift: float = 3.0


@dataclass(frozen=True)
class Row:
    """One way to draw. `cascade`: in the method's own stages, else in one at the full size."""

    name: str
    kind: Kind
    method: str = "none"
    options: Mapping[str, Any] = field(default_factory=dict)
    cascade: bool = False
    attend: str | None = None
    tiles: Mapping[str, Any] | None = None
    cache: str | None = None

    @property
    def is_direct(self) -> bool:
        """Whether it is one render in one stage, whose attention can be told."""
        return self.kind == "method" and not self.cascade and self.tiles is None

    def digest(self, cell: Cell, settings: Settings) -> str:
        """What decides the pictures, the method's own file included, as a few letters."""
        own = {name: value for name, value in asdict(self).items() if value is not None}
        about = json.dumps([own, asdict(cell), asdict(settings)], sort_keys=True)
        code = b"" if self.kind in ("scenes", "reference", "repeated") else _code(self.method)
        if self.tiles is not None:
            code += Path(plugins.load("strategies", "tiles").__file__ or "").read_bytes()
        return hashlib.sha256(about.encode() + code).hexdigest()[:8]


def _code(method: str) -> bytes:
    """The text of a method's file and of the formulas that it imports."""
    file = Path(plugins.load("methods", method).__file__ or "")
    text = file.read_text(encoding="utf-8")
    names = [
        node.module or node.names[0].name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.level == 2
    ]
    used = sorted(name for name in {*names} if name.split(".")[-1] not in RECORDS)
    beside = [file.parents[1] / f"{name.replace('.', '/')}.py" for name in used]
    return b"".join(path.read_bytes() for path in (file, *beside) if path.exists())


def rows(cell: Cell, settings: Settings, wanted: tuple[str, ...] = ()) -> list[Row]:
    """Ceiling, control, floor, what people do today, then every method there is.

    `wanted` keeps only these methods; a method that refuses the demo model is told and left out.
    """
    found = [
        Row("real scenes", "scenes"),
        Row("control: a scene repeated", "repeated"),
        Row("plain model", "method", "none"),
        Row("native enlarged", "enlarged"),
        Row("native enlarged, tiles refined", "tiles"),
    ]
    names = [name for name in plugins.names("methods") if name != "none"]
    for name in names:
        found += _rows_of(name, cell, settings)
    for name, (method, options, cascade) in VARIANTS.items():
        if method in names:
            found.append(Row(name, "method", method, options, cascade))
    for name, (method, cascade, told) in TILES.items():
        found.append(Row(name, "method", method, cascade=cascade, tiles=told))
    for name, attend in ATTENTION.items():
        found.append(Row(name, "method", "auto", cascade=True, attend=attend))
    for threshold in CACHED:
        name = f"auto, cached at {threshold}"
        found.append(Row(name, "method", "auto", cascade=True, attend="full", cache=threshold))
    kept = [row for row in found if not wanted or row.method == "none" or row.method in wanted]
    return [row for row in kept if _is_possible(row, cell, settings)]


def _rows_of(name: str, cell: Cell, settings: Settings) -> list[Row]:
    """A method in one stage, if that is one of its ways, and in its own cascade if it has one.

    `auto` is what it is by itself, and nothing else.
    """
    if name == "auto":
        return [Row(name, "method", name, cascade=True)]
    single, own = Row(name, "method", name), Row(f"{name}, its cascade", "method", name, {}, True)
    try:
        at_once, staged = (_method(row, cell, settings) for row in (single, own))
    except FriezeError:
        return [single]  # `rows` tells why it is left out
    if len(staged.stages) == 1:
        return [single]
    # One stage is no way for a method whose first stage guides the next.
    is_led = at_once.guide is not None or len(at_once.stages) > 1
    return [own] if is_led else [single, own]


def _method(row: Row, cell: Cell, settings: Settings) -> Method:
    return load_method(spec_of(row, cell, settings, 0), describe("demo"))


def _is_possible(row: Row, cell: Cell, settings: Settings) -> bool:
    try:
        _method(row, cell, settings)
    except FriezeError as error:
        print(f"{cell} {row.name}: left out, {error}", flush=True)
        return False
    return True


def prompt(seed: int) -> str:
    """The prompt that goes with a seed."""
    return scenes.prompt_of(scenes.scene_from(seed))


def real_scene(number: int) -> scenes.Scene:
    """A real scene that rows are held to: the prompt of a seed, and a layout that no row draws."""
    asked = scenes.scene_from(number // REALS)
    layout = scenes.scene_from(REAL_SEED + number)
    return replace(layout, sun=asked.sun, mountains=asked.mountains, time=asked.time)


def draw(row: Row, cell: Cell, settings: Settings, seed: int) -> tuple[Pixels, float]:
    """One picture and the seconds it took, without those of loading the model."""
    if row.kind in ("method", "enlarged", "tiles"):
        _load()
    began = time.perf_counter()
    height, width = cell.height, cell.width
    if row.kind == "scenes":
        picture = scenes.draw(scenes.scene_from(seed), height, width)
    elif row.kind == "reference":
        picture = scenes.draw(real_scene(seed), height, width)
    elif row.kind == "repeated":
        tile = scenes.draw(scenes.scene_from(seed), REPEAT, REPEAT)
        times = (math.ceil(height / REPEAT), math.ceil(width / REPEAT), 1)
        picture = np.tile(tile, times)[:height, :width]
    elif row.kind == "method":
        picture = rendered(spec_of(row, cell, settings, seed))
    else:
        small, spent = _native(cell, settings, seed)
        began = time.perf_counter() - spent  # as if it were drawn for this row alone
        picture = quality_tiles.enlarged(small, height, width)
        if row.kind == "tiles":
            picture = quality_tiles.refined(picture, prompt(seed), seed)
    return picture, time.perf_counter() - began


@functools.cache
def _load() -> None:
    """Have this process load all that a render and the tiles need."""
    rendered(spec_of(Row("first", "method"), Cell(NATIVE, NATIVE), Settings(steps=1), 0))
    quality_tiles.stock()


@functools.lru_cache(maxsize=4)
def _native(cell: Cell, settings: Settings, seed: int) -> tuple[Pixels, float]:
    """The picture at native size, and the seconds it took."""
    began = time.perf_counter()
    native = Cell(*reversed(cell.native))
    picture = rendered(spec_of(Row("native", "method"), native, settings, seed))
    return picture, time.perf_counter() - began


def rendered(spec: RenderSpec, **listening: Any) -> Pixels:
    """A render's pixels; its store does not stay."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/picture.zarr"
        render(spec.model_copy(update={"out": out}), **listening)
        return np.concatenate([rows for _, rows in Store.open(out).in_order()])


def spec_of(row: Row, cell: Cell, settings: Settings, seed: int) -> RenderSpec:
    """The render of a row."""
    return RenderSpec(
        prompt=prompt(seed),
        seed=seed,
        height=cell.height,
        width=cell.width,
        method=row.method,
        method_options=dict(row.options),
        stages=None if row.cascade else SINGLE,
        num_inference_steps=settings.steps,
        attend=row.attend,
        cache=row.cache,
        strategy="bands" if row.tiles is None else "tiles",
        strategy_options=dict(row.tiles or {}),
        shift=settings.shift,
        local=True,
    )
