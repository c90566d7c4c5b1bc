"""The command line: what it takes, what it passes on, and what it shows."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from frieze.renderer.cli import app, render
from frieze.renderer.driver.caller import RenderResult
from frieze.renderer.errors import SpecError
from frieze.renderer.events import Event
from frieze.renderer.outputs import exporting
from frieze.renderer.spec import merging
from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.spec.roles import PANELS
from support.command_line import frieze, process
from tolerances import AMPLE

HEAVY = ["torch", "ray", "diffusers", "transformers", "zarr", "numpy", "tifffile", "PIL", "triton"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RenderSpec, dict[str, Any]]]:
    """Puts a stand-in in the driver's place and lists what it was asked to draw."""
    asked: list[tuple[RenderSpec, dict[str, Any]]] = []

    def draw(spec: RenderSpec, **options: Any) -> RenderResult:
        asked.append((spec, options))
        options["on_event"](Event("stage", stage=1, num_stages=1, num_steps=2, message="64x64"))
        for step in (1, 2):
            counts = {"stage": 1, "num_stages": 1, "step": step, "num_steps": 2}
            options["on_event"](Event("step", seconds=0.5, **counts))
        paths = (Path(spec.out), *map(Path, options["exports"]))
        return RenderResult(paths[0], paths, 1.0, 5, 6, 7)

    monkeypatch.setattr(render, "draw", draw)
    return asked


# What it takes


def test_every_field_of_a_panel_has_a_flag_of_its_name() -> None:
    command = get_command(app.app).commands["render"]
    flags = {p.name: {*p.opts, *p.secondary_opts} for p in command.params}
    panels = {p.name: p.rich_help_panel for p in command.params if p.param_type_name == "option"}
    for name, role in RenderSpec.roles().items():
        if role.panel is not None:
            assert f"--{name.replace('_', '-')}" in flags[name]
            assert panels[name] == role.panel


@pytest.mark.parametrize("words", [["--help"], ["render", "--help"], ["--version"], ["--nope"]])
def test_telling_how_it_is_used_imports_nothing_heavy(words: list[str]) -> None:
    watch = f"import atexit, sys; atexit.register(lambda: print(set({HEAVY}) & set(sys.modules)))"
    out, _ = process(*words, program=watch).communicate(timeout=AMPLE)
    assert out.endswith("set()\n")


def test_importing_the_public_face_imports_nothing_heavy() -> None:
    code = f"import sys, frieze.renderer; print(set({HEAVY}) & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_every_option_says_what_it_is_when_it_is_left_out() -> None:
    """Switches that can only be set excepted: they are off."""
    silent = [
        f"{name} {param.opts[0]}: {param.help}"
        for name, command in get_command(app.app).commands.items()
        for param in command.params
        if param.param_type_name == "option"
        and not (param.is_flag and not param.secondary_opts)
        and "default" not in (param.help or "")
    ]
    assert not silent, "\n".join(silent)


def test_defaults_in_the_help_are_those_that_are_used() -> None:
    params = {p.name: p for p in get_command(app.app).commands["render"].params}
    for name, field in RenderSpec.model_fields.items():
        has_none = RenderSpec.roles()[name].panel is None
        if has_none or field.default is None or field.default_factory:
            continue
        told = params[name].help.rpartition("default")[2].strip(": ")
        default = field.default
        if isinstance(default, tuple) and len(default) == 1:  # of several things one value each
            (default,) = default
        used = {"False": "off", "()": "none"}.get(str(default), default)
        assert told == (f"{used:g}" if isinstance(used, float) else str(used)), name


def test_a_plan_that_clearly_fits_is_said_without_a_model() -> None:
    watch = f"import atexit, sys; atexit.register(lambda: print(set({HEAVY}) & set(sys.modules)))"
    small = ("plan", "--size", "512x512", "--device", "cpu")
    out, _ = process(*small, "--device-memory", "24", program=watch).communicate(timeout=AMPLE)
    assert re.search(r"memory +less than 0\.\d\d GiB on each device, which has 24\.0", out)
    assert out.endswith("{'numpy'}\n")
    # One that may not fit is traced.
    for more in (("--device-memory", "0.2"), ("--device-memory", "24", "--cost")):
        shown = frieze(*small, *more)
        assert bool(re.search(r"memory +0\.\d\d GiB on each", shown.stdout)) == ("0.2" in more)
        assert re.search(r"all +[\d.]+ GFLOP +[\d.]+ GFLOP +[\d.]+ GFLOP", shown.stdout)


def test_a_plan_tells_seconds_of_a_device_kind_or_how_to_have_them() -> None:
    small = ("plan", "--size", "256x256", "--device", "cpu", "--device-memory", "24")
    shown = frieze(*small, "--device-kind", "nvidia-h200")
    assert "seconds, at least" in shown.stdout
    assert "calibrate" in shown.stdout
    refused = frieze(*small, "--device-kind", "nvidia-h300")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert re.fullmatch(r".*no figures of device kind 'nvidia-h300'.*calibrate.*\n", refused.stderr)


def test_help_groups_the_options() -> None:
    shown = frieze("render", "--help")
    assert shown.exit_code == 0
    places = [shown.stdout.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    assert "pixels; default 1024" in " ".join(re.sub("[│╭╮╰╯─]", " ", shown.stdout).split())


def test_no_command_shows_the_help() -> None:
    assert frieze().stdout == frieze("--help").stdout
    assert frieze().exit_code == 0


def test_the_version_is_one_line() -> None:
    assert re.fullmatch(r"frieze \d+\.\d+\.\d+\S*\n", frieze("--version").stdout)


# What it passes on


def test_flags_win_over_the_preset_and_the_preset_over_the_defaults(
    drawn: list[tuple[RenderSpec, dict[str, Any]]], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("prompt: a moon\nseed: 5\nworkers: 3\nlocal: true\nheight: 64\n")
    shown = frieze("render", "--preset", str(path), "--seed", "7", "--no-local", "--width", "32")
    assert shown.exit_code == 0, shown.output
    spec = drawn[0][0]
    assert spec == RenderSpec(prompt="a moon", seed=7, workers=3, local=False, height=64, width=32)


def test_size_is_width_by_height(drawn: list[tuple[RenderSpec, dict[str, Any]]]) -> None:
    assert frieze("render", "a sun", "--size", "1024x768").exit_code == 0
    assert (drawn[0][0].width, drawn[0][0].height) == (1024, 768)


def test_size_wins_over_a_presets_height(
    drawn: list[tuple[RenderSpec, dict[str, Any]]],
) -> None:
    assert frieze("render", "--preset", "demo", "--size", "64x32").exit_code == 0
    assert (drawn[0][0].width, drawn[0][0].height) == (64, 32)


def test_an_empty_prompt_is_drawn_when_it_is_given(
    drawn: list[tuple[RenderSpec, dict[str, Any]]],
) -> None:
    assert frieze("render", "").exit_code == 0
    assert drawn[0][0].prompt == ""


def test_also_may_be_given_several_times(
    drawn: list[tuple[RenderSpec, dict[str, Any]]],
) -> None:
    shown = frieze("render", "a sun", "--out", "a.zarr", "--also", "a.tif", "--also", "a.png")
    assert list(drawn[0][1]["exports"]) == ["a.tif", "a.png"]
    assert shown.stdout == "a.zarr\na.tif\na.png\n"


@pytest.mark.usefixtures("drawn")
def test_paths_go_to_stdout_and_progress_to_stderr() -> None:
    shown = frieze("render", "a sun", "--out", "a.zarr")
    assert shown.stdout == "a.zarr\n"
    assert "stage 1/1 64x64\n" in shown.stderr
    assert "stage 1/1: step 2/2, 0.50 s each\n" in shown.stderr


def test_what_a_start_is_busy_with_is_shown_before_its_first_step(tmp_path: Path) -> None:
    words = ("--size", "64x64", "--num-inference-steps", "1", "--local")
    shown = frieze("render", "a sun", *words, "--out", str(tmp_path / "a.zarr"))
    lines = shown.stderr.splitlines()
    (loading,) = (line for line in lines if re.fullmatch(r"loading weights, \d+\.\d\d GiB", line))
    in_order = ["encoding the prompt", loading, "stage 1/1 64x64"]
    assert sorted(in_order, key=lines.index) == in_order


@pytest.mark.usefixtures("drawn")
def test_quiet_says_nothing() -> None:
    shown = frieze("render", "a sun", "--quiet")
    assert (shown.exit_code, shown.output) == (0, "")


@pytest.mark.usefixtures("drawn")
def test_json_is_events_and_then_the_result() -> None:
    shown = frieze("render", "a sun", "--out", "a.zarr", "--json")
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["stage", "step", "step", "result"]
    assert lines[1]["seconds"] == 0.5
    assert lines[-1]["outputs"] == ["a.zarr"]
    assert shown.stderr == ""


def test_a_dry_run_prints_the_plan_and_draws_nothing(
    drawn: list[tuple[RenderSpec, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plan(str):
        estimate = cost = predicted = "asked for"
        is_estimated, changes_network, facts, spec = True, False, None, None

    module = importlib.import_module("frieze.renderer.planning.plan")
    monkeypatch.setattr("frieze.renderer.planning.weight_names.check", lambda *_: ())
    monkeypatch.setattr(module, "plan", lambda spec: Plan(f"bands for {spec.height} rows"))
    assert frieze("render", "x", "--height", "64", "--dry-run").stdout == "bands for 64 rows\n"
    assert frieze("plan", "--height", "64").stdout == "bands for 64 rows\n"
    assert drawn == []


def test_a_plan_is_told_to_machines_by_value() -> None:
    shown = frieze("plan", "--preset", "demo-cascade", "--size", "512x256", "--json")
    made = json.loads(shown.stdout)
    assert (made["event"], made["spec"]["width"], made["spec"]["height"]) == ("plan", 512, 256)
    assert [len(stage["bands"]) for stage in made["stages"]] == [2, 2, 2]
    assert [stage["relative"] for stage in made["cost"]["stages"]] == [1, 1, 1]
    assert " at 0x" not in shown.stdout


def test_resume_passes_on_only_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def finish(path: str, **options: Any) -> RenderResult:
        asked.update(options)
        return RenderResult(Path(path), (Path(path),), 1.0, 5, 6, 7)

    monkeypatch.setattr(render, "finish", finish)
    assert frieze("resume", "a.zarr", "--workers", "3", "--also", "a.png").exit_code == 0
    always = {"exports", "overwrite", "on_event", "cancel", "sign", "timestamp"}
    assert set(asked) == {"workers"} | always
    assert (asked["workers"], asked["exports"], asked["overwrite"]) == (3, ["a.png"], False)


def test_export_passes_on_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def export(store: str, out: str, **options: Any) -> str:
        asked.append((store, out, options))
        return out

    monkeypatch.setattr(exporting, "export", export)
    assert frieze("export", "a.zarr", "a.tif", "--overwrite", "--dpi", "72").stdout == "a.tif\n"
    options = {"overwrite": True, "follow": False, "options": {}, "signing": None, "dpi": 72.0}
    assert asked == [("a.zarr", "a.tif", options)]


def test_options_of_a_method_are_named_values() -> None:
    given = merging.merge(
        None, "x", None, {"method_options": ["margin=0.85", "mode=all", "ks=[9]"]}
    )
    assert given.method_options == {"margin": 0.85, "mode": "all", "ks": [9]}
    with pytest.raises(SpecError, match="--option 'margin' is not NAME=VALUE"):
        merging.merge(None, "x", None, {"method_options": ["margin"]})
