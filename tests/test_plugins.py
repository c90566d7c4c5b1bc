"""A plugin of each kind, as another distribution ships it: one new file, and it draws."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from frieze.cluster.strategies import Strategy
from frieze.renderer import SpecError, plugins, resume
from frieze.renderer.checkpoints.checkpoint import find
from frieze.renderer.cli import app
from frieze.renderer.cli.options import completions
from support.drawing import draw, pixels, small_spec, stop_after
from tolerances import GREY_LEVELS

TINY = {"height": 128, "width": 128, "num_inference_steps": 2, "method": "none"}
Install = Callable[[str, str, str], str]

FAMILY = """
import dataclasses
from frieze.renderer.families import flux
from frieze.renderer.families.flux import encode, text_shapes

pipelines = ("PosterPipeline",)

def describe(folder):
    return dataclasses.replace(flux.describe(folder), family="posters", pipeline=pipelines[0])

def load(facts, spec, device):
    return flux.load(facts, spec, device)
"""
METHOD = """
from frieze.renderer.extrapolation.method import Method
from frieze.renderer.models.positions import trained

def method(spec, facts):
    return Method(positions=lambda axis, at, sigma: trained(axis, 2 * at, sigma), note="twice")
"""
EXPORT = """
from frieze.renderer import ExportError

suffixes = (".ppm",)

def check(out, layout):
    if layout.dtype != "uint8":
        raise ExportError(f"{out}: a portable pixmap has 8 bits here; use --bits 8")

def export(output):
    check(output.path, output.layout)
    with output.file() as part, part.open("wb") as file:
        file.write(b"P6 %d %d 255\\n" % (output.layout.width, output.layout.height))
        for _, rows in output.flat_strips(64):
            file.write(rows.tobytes())
    return output.path
"""
WATERMARK = """
def mark(pixels_HWC, row, *, frame, size, options):
    marked = pixels_HWC.copy()
    marked[(-row) % 2 :: 2] ^= 1  # the last bit of every second row of the canvas
    return marked
"""
STRATEGY = """
def predict(denoised, x, level, comm, *, bands, marks, modifier, step):
    return denoised(x, level)  # every rank for itself
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Writes a plugin's one file and its distribution's metadata into a folder of the path."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def write(kind: str, name: str, text: str) -> str:
        module = f"frieze_{name}_of_another"
        (site / f"{module}.py").write_text(text)
        about = site / f"{module}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[frieze.{kind}]\n{name} = {module}\n")
        importlib.invalidate_caches()
        monkeypatch.syspath_prepend(site)  # what is installed is looked up once for a path
        return module

    yield write
    for name in [name for name in sys.modules if name.endswith("_of_another")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Pixels drawn with what ships with Frieze."""
    out = tmp_path_factory.mktemp("plain") / "a.zarr"
    draw(out, **TINY)
    return pixels(out)


def test_a_family_of_another_distribution_draws_its_checkpoints(
    install: Install, tmp_path: Path, plain: np.ndarray
) -> None:
    folder = Path(shutil.copytree(find("demo"), tmp_path / "posters"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "PosterPipeline"}))
    with pytest.raises(ValueError, match="Frieze knows"):
        draw(tmp_path / "a.zarr", model=str(folder), **TINY)
    install("families", "posters", FAMILY)
    draw(tmp_path / "a.zarr", model=str(folder), **TINY)
    assert np.array_equal(pixels(tmp_path / "a.zarr"), plain)


def test_a_method_of_another_distribution_changes_the_picture(
    install: Install, tmp_path: Path, plain: np.ndarray
) -> None:
    with pytest.raises(SpecError, match="no 'twice' in methods; there are: auto"):
        draw(tmp_path / "a.zarr", **TINY | {"method": "twice"})
    install("methods", "twice", METHOD)
    draw(tmp_path / "a.zarr", **TINY | {"method": "twice"})
    assert not np.array_equal(pixels(tmp_path / "a.zarr"), plain)
    assert "twice" in completions.methods()


def test_an_export_of_another_distribution_writes_the_pixels(
    install: Install, tmp_path: Path, plain: np.ndarray
) -> None:
    install("exports", "ppm", EXPORT)
    result = draw(tmp_path / "a.ppm", **TINY)
    head, data = result.path.read_bytes()[:15], result.path.read_bytes()[15:]
    assert head == b"P6 128 128 255\n"
    assert data == plain.tobytes()
    assert ".ppm" in completions._suffixes()


def test_a_strategy_of_another_distribution_spreads_the_canvas(
    install: Install, tmp_path: Path, plain: np.ndarray
) -> None:
    with pytest.raises(SpecError, match="no 'apart' in strategies; there are: bands"):
        draw(tmp_path / "a.zarr", **TINY, strategy="apart")
    assert not (tmp_path / "a.zarr").exists()
    install("strategies", "apart", STRATEGY)
    for workers, is_exact in ((1, True), (2, False)):
        draw(tmp_path / f"{workers}.zarr", **TINY, strategy="apart", workers=workers)
        apart = np.abs(pixels(tmp_path / f"{workers}.zarr").astype(int) - plain).max()
        assert (apart <= GREY_LEVELS) == is_exact
    assert "apart" in completions.strategies()


def test_a_watermark_of_another_distribution_marks_the_pixels(
    install: Install, tmp_path: Path, plain: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match="no 'rows' in watermarks; there are: luminance"):
        draw(tmp_path / "a.zarr", **TINY, watermark="rows")
    assert not (tmp_path / "a.zarr").exists()
    module = install("watermarks", "rows", WATERMARK)
    stop_after(small_spec(tmp_path / "b.zarr", **TINY, watermark="rows"), 1)
    draw(tmp_path / "a.zarr", **TINY, watermark="rows")
    expected = plain.copy()
    expected[::2] ^= 1
    assert np.array_equal(pixels(tmp_path / "a.zarr"), expected)
    assert "rows" in completions.watermarks()
    bad = WATERMARK.replace("return marked", "return marked[1:]")
    install("watermarks", "short", bad)
    with pytest.raises(SpecError, match="watermark short gave uint8"):
        draw(tmp_path / "c.zarr", **TINY, watermark="short")
    site = Path(sys.modules[module].__file__ or "").parent
    shutil.rmtree(site / f"{module}-1.0.dist-info")  # it is gone again: nothing goes on unmarked
    monkeypatch.syspath_prepend(site)  # what is installed is looked up once for a path
    with pytest.raises(SpecError, match="no 'rows' in watermarks; there are: luminance, short"):
        resume(tmp_path / "b.zarr")


def test_the_lists_show_plugins_of_other_distributions(install: Install) -> None:
    options = (
        "from frieze.renderer.extrapolation.method_options import MethodOptions, Part\n"
        "class Options(MethodOptions):\n    share: Part = 0.5\n"
    )
    install("methods", "twice", f'"""Twice (arXiv 2401.00001)."""\n{METHOD}\n{options}')
    install("exports", "ppm", f'"""Portable pixmaps."""\n{EXPORT}')
    install("exports", "pgm", EXPORT.replace('(".ppm",)', 'tuple([".pgm"])'))
    install("families", "posters", f'"""Posters."""\n{FAMILY}')
    for kind in ("methods", "exports", "families"):
        install(kind, f"broken_{kind}", "def broken(:")
        install(kind, f"empty_{kind}", "")

    def said(*words: str) -> str:
        shown = CliRunner().invoke(app.app, words)
        assert shown.exit_code == 0, shown.output
        return " ".join(shown.stdout.split())

    assert "twice Twice (arXiv 2401.00001)." in said("methods")
    assert "share a number more than 0, up to 1 " in said("methods", "twice")
    assert "ppm Portable pixmaps. .ppm" in said("exports")
    assert "pgm no description .pgm" in said("exports")
    assert "posters Posters. PosterPipeline; trained size as a checkpoint" in said("models")
    for kind, command in (("methods", "methods"), ("exports", "exports"), ("families", "models")):
        assert f"broken_{kind} 'broken_{kind}' of {kind} (frieze_broken_{kind}" in said(command)
        assert "does not define" in said(command)
    assert completions.options(SimpleNamespace(params={"method": "twice"}), "") == ["share="]


@pytest.mark.parametrize("name", plugins.names("strategies"))
def test_a_strategy_takes_what_the_contract_gives(name: str) -> None:
    module = plugins.load("strategies", name)
    asked = inspect.signature(Strategy.predict).parameters
    taken = inspect.signature(module.predict).parameters
    assert [(p.name, p.kind) for p in taken.values()] == [(p.name, p.kind) for p in asked.values()]


@pytest.mark.parametrize("kind", plugins.KINDS)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nosuch_module", "cannot be loaded: No module named 'nosuch_module'"),
        ("def broken(:", "cannot be loaded"),
        ("", "does not define"),
    ],
    ids=["imports", "syntax", "empty"],
)
def test_a_plugin_that_is_none_is_one_line(
    install: Install, kind: str, text: str, reason: str
) -> None:
    module = install(kind, "broken", text)
    with pytest.raises(SpecError, match=reason) as caught:
        plugins.load(kind, "broken")
    assert module in str(caught.value)
    assert kind in str(caught.value)
