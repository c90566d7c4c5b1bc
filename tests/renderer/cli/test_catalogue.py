"""Lists of methods, models and exports: all that there is, quickly, as lines and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from frieze.renderer import plugins
from frieze.renderer.cli import app, catalogue
from frieze.renderer.families import wan
from tolerances import AMPLE


def said(*words: str) -> str:
    shown = CliRunner().invoke(app.app, words)
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def records(*words: str) -> dict[str, dict[str, Any]]:
    found = map(json.loads, said(*words, "--json").splitlines())
    return {record["name"]: record for record in found}


def test_every_method_is_a_line_with_its_paper_and_a_page_with_its_options() -> None:
    lines = said("methods").splitlines()
    assert [line.split()[0] for line in lines] == list(plugins.names("methods"))
    own = [line.split()[0] for line in lines if not catalogue.SOURCE.search(line)]
    assert own == ["none"]
    listed = records("methods")
    assert listed["hiflow"]["sources"] == ["arXiv 2504.06232"]
    for name, record in listed.items():
        page = said("methods", name)
        assert all(f"\n  {option} " in page for option in record["options"])
        assert "no description" not in page
        assert records("methods", name) == {name: record}


def test_a_page_states_types_ranges_and_defaults() -> None:
    page = " ".join(said("methods", "rdfc").split())
    assert "margin a number more than 0, up to 1 " in page
    assert "ks a list of whole numbers from 0 to 1e6, as 8,9 " in page
    assert "n_rec a whole number from 1 to 1e6 " in page
    assert "mode dominant or all or detect or none " in page
    assert "source: arXiv 2512.04504 " in page
    assert "cascade true or false" in said("methods", "pi").replace(" " * 8, " ")
    assert "options: none" in said("methods", "none")


def test_a_method_that_is_none_is_one_line() -> None:
    shown = CliRunner().invoke(app.app, ["methods", "rdcf"])
    assert shown.exit_code == 2
    assert "no 'rdcf' in methods; there are: auto, " in shown.stderr


def test_families_and_formats_are_listed() -> None:
    assert records("models").keys() == set(plugins.names("families"))
    assert records("models")["wan"]["training_sizes"] == list(wan.training_sizes)
    assert "FluxPipeline, FluxFillPipeline; trained size 1024 x 1024" in said("models")
    assert records("exports").keys() == set(plugins.names("exports"))
    assert records("exports")["tiff"]["suffixes"] == [".tif", ".tiff"]
    for name in plugins.names("exports"):  # as their modules state them
        assert records("exports")[name]["suffixes"] == list(plugins.load("exports", name).suffixes)
    assert ".mp4, .mov, .mkv" in said("exports")


def test_a_format_has_a_page_with_its_options() -> None:
    page = " ".join(said("exports", "tiff").split())
    assert "suffixes: .tif, .tiff options, each as --option NAME=VALUE: level a whole" in page
    assert "compressing threads; default: all cores" in page
    assert "options: none" in said("exports", "ome_zarr")
    for name in plugins.names("exports"):
        assert "no description" not in said("exports", name)
        assert records("exports", name)[name]["suffixes"] == records("exports")[name]["suffixes"]
    shown = CliRunner().invoke(app.app, ["exports", "tif"])
    assert (shown.exit_code, "no 'tif' in exports; there are: " in shown.stderr) == (2, True)


def test_a_plugin_that_does_not_load_is_a_line_among_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = plugins.load

    def load(kind: str, name: str) -> ModuleType:
        if name == "sega":
            raise plugins.SpecError("it is broken")
        return whole(kind, name)

    monkeypatch.setattr(plugins, "load", load)
    lines = said("methods").splitlines()
    assert len(lines) == len(plugins.names("methods"))
    assert "sega         it is broken" in lines


@pytest.mark.parametrize("words", ["methods", "methods ultraimage", "models", "exports"])
def test_no_list_imports_anything_heavy(words: str) -> None:
    heavy = "{'torch', 'numpy', 'zarr', 'ray', 'diffusers'}"
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print({heavy} & sys.modules.keys(), file=sys.stderr))\n"
        f"sys.argv = ['frieze', *{words.split()!r}]\n"
        "from frieze.renderer.cli.app import main\nmain()\n"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=AMPLE)
    assert (shown.returncode, shown.stderr) == (0, "set()\n"), shown.stderr
    assert len(shown.stdout.splitlines()) > 4
