"""Figures of devices: shipped ones are limits, the user's come first, bad ones are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from frieze.renderer.costs import device_kinds
from frieze.renderer.costs.device_kinds import Rates, device_kind, keep, kind_here, known, names
from frieze.renderer.errors import SpecError

FIGURES = dict.fromkeys(("matmul", "conv", "attention", "copied", "link"), 1000000000.0)
TIMES = {"call": 1e-6, "banded_call": 1e-5, "message": 1e-4}
RATES = Rates(dtype="float32", **FIGURES, **TIMES, when="2026-11-30", load=0.5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "frieze" / "devices"


def test_shipped_kinds_are_limits_and_say_so() -> None:
    assert "nvidia-h200" in names()
    for name in names():
        kind = device_kind(name)
        assert kind.kind == name
        assert kind.limits
        assert not kind.measured
        assert "limits" in kind.told("bfloat16")
        assert "calibrate" in kind.told("bfloat16")
        assert "no figures of float64" in kind.told("float64")


def test_what_was_measured_here_comes_first_and_keeps_other_precisions(cache: Path) -> None:
    path = keep("nvidia-h200", "mine", [RATES])
    assert path == cache / "nvidia-h200.yaml"
    keep("nvidia-h200", "mine", [RATES.model_copy(update={"dtype": "float16"})])
    kind = device_kind("nvidia-h200")
    assert {each.dtype for each in kind.measured} == {"float16", "float32"}
    assert kind.rates("float32") == RATES
    assert kind.limits
    assert kind.told("float32") == "by nvidia-h200, measured 2026-11-30 at load 0.5"


def test_a_kind_without_figures_is_one_line_that_says_how_to_make_them() -> None:
    for name in ("nvidia-h300", "../presets/demo", "A" * 3000):
        assert known(name) is None
        with pytest.raises(
            SpecError, match=r"no figures of device kind .*nvidia-h200.*calibrate"
        ) as e:
            device_kind(name)
        assert len(str(e.value)) < 1200
        assert "\n" not in str(e.value)


BAD = {
    "kind: [": "YAML",
    "kind: x\nmeasured: 3": "measured",
    "kind: x\nlimits: {source: s, flops: {float32: -1}, memory: 1}": "limits.flops.float32",
    "[1, 2]": "it: ",
}


@pytest.mark.parametrize("text", BAD)
def test_a_file_that_is_none_is_one_line(text: str, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "x.yaml").write_text(text)
    with pytest.raises(SpecError, match=BAD[text]) as error:
        device_kind("x")
    assert "\n" not in str(error.value)


def test_a_processor_is_named_by_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert kind_here("cpu").endswith("-3-threads")
    assert device_kinds.slug("NVIDIA H200 (SXM)") == "nvidia-h200-sxm"
