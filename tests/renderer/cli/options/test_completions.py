"""What shells complete, through the protocol by which they ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from frieze.renderer import plugins
from frieze.renderer.cli.options import completions
from frieze.renderer.models.quantization import KINDS
from frieze.renderer.outputs import exporting
from tolerances import AMPLE

PROGRAM = """
import atexit, sys
heavy = {"torch", "numpy", "zarr", "ray", "diffusers"}
atexit.register(lambda: print(heavy & sys.modules.keys(), file=sys.stderr))
sys.argv[0] = "frieze"
from frieze.renderer.cli.app import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "sun.zarr",
        "suns/moon.zarr",
        "a b.zarr",
        "models/tiny",
        ".hidden.zarr",
        "$(x).zarr",
    ):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models" / "tiny" / "model_index.json").write_text("{}")
    (tmp_path / "mine.yaml").write_text("seed: 3")
    (tmp_path / "file.zarr").write_text("no folder")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(shell: str, words: str, folder: Path) -> str:
    """What a shell is told that completes the last word of a command line."""
    variables = {"_FRIEZE_COMPLETE": f"complete_{shell}", "PATH": "/usr/bin:/bin"}
    if shell == "bash":
        variables |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    else:
        variables |= {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    shown = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=AMPLE,
    )
    assert (shown.returncode, shown.stderr) == (0, "set()\n")
    return shown.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_that_asks_is_told_and_nothing_heavy_is_imported(shell: str, folder: Path) -> None:
    stores = asked(shell, "frieze resume s", folder)
    assert "sun.zarr" in stores
    assert "suns/moon.zarr" in stores
    assert "hidden" not in stores
    formats = asked(shell, "frieze export sun.zarr ", folder)
    assert "sun.tif" in formats
    assert "sun.png" in formats


def test_each_value_has_what_there_is(folder: Path) -> None:
    (folder / "deep" / "er" / "est" / "far.zarr").mkdir(parents=True)
    assert completions.stores("") == ["sun.zarr", "suns/moon.zarr"]
    assert completions.stores(f"{folder}/suns/") == [f"{folder}/suns/moon.zarr"]
    assert completions.stores("deep/er/") == ["deep/er/est/far.zarr"]
    assert completions.stores("nosuch/") == []
    assert completions.models("m") == ["demo", "demo-unet", "models/tiny"]
    assert {"demo", "mine.yaml"} <= set(completions.presets(""))
    assert completions.jobs("mi") == ["mine.yaml"]
    (folder / "photo.tif").touch()
    assert completions.sources("ph") == ["photo.tif"]
    assert set(completions.methods()) == set(plugins.names("methods"))
    assert set(completions.exports()) == set(plugins.names("exports"))
    assert completions.quantizations() == list(KINDS)
    dtypes = completions.of_field("dtype")
    assert dtypes is not None
    assert dtypes() == ["float32", "bfloat16", "float16"]
    assert completions.of_field("seed") is None


def test_formats_are_those_that_can_be_written() -> None:
    for suffix in completions._suffixes():
        exporting.exporter(Path(f"a{suffix}"))
    for name in plugins.names("exports"):
        assert set(plugins.load("exports", name).suffixes) <= set(completions._suffixes())


@pytest.mark.parametrize(
    ("begun", "first"),
    [("", "sun.png"), ("out/", "out/sun.png"), ("red", "red.png"), ("out/red.t", "out/red.tif")],
)
def test_a_file_to_be_made_is_called_as_it_was_begun(begun: str, first: str) -> None:
    class Context:
        params = {"store": "suns/sun.zarr"}  # noqa: RUF012

    found = completions.pictures(Context(), begun)
    assert first in [name for name in found if name.startswith(begun)]
    assert completions.pictures(Context(), "$(x)") == []


def test_no_more_is_looked_at_than_a_press_of_a_key_may_take(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "MOST_SEEN", 3)
    assert len(completions.stores("")) < 2


def test_options_are_those_of_the_method_that_was_given(folder: Path) -> None:
    words = "frieze render x --method rdfc --option m"
    assert asked("bash", words, folder).split() == ["margin=", "mode="]
    assert asked("fish", "frieze render x --method rdfc --option mode=d", folder).split() == [
        "mode=dominant",
        "mode=detect",
    ]
    assert "canvas_prompt=" in asked(
        "bash", "frieze plan --preset flux-ultraimage --option c", folder
    )
    assert "kappa=" in asked("bash", "frieze plan x --option k", folder)
    assert asked("bash", "frieze methods yar", folder).split() == ["yarn"]


def test_options_are_those_of_the_format_that_is_asked_for() -> None:
    class Context:
        params = {"out": "suns/sun.tif"}  # noqa: RUF012

    assert "classic=" in completions.export_options(Context(), "")
    assert completions.export_options(Context(), "classic=") == ["classic=true", "classic=false"]
    Context.params = {"out": "sun.png"}
    assert "classic=" not in completions.export_options(Context(), "")
