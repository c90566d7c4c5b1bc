"""Every kind of step that a method makes of a U-Net needs what its plan says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import checkpoints
from frieze.renderer.extrapolation.method import WindowPolicy
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.spec.render_spec import RenderSpec
from support.method_windows import fused, overlapping, softened
from support.planned_memory import CLOSE, estimated, measured, planned

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = ("sd15-deep", "sdxl-deep")
    return {name: checkpoints.build(name, tmp_path_factory.mktemp(name)) for name in names}


RAUNET = {"strided": 0.5, "pooled": 1.0, "schedule": "aggressive", "windows": False}
OPTIONS = {
    "strided, then pooled": RAUNET,
    "both, in windows": {"strided": 1.0, "pooled": 1.0, "schedule": "progressive"},
    "windows": {"raunet": False},
}
POLICIES = {
    "fused": fused("hwc", False),
    "fused grids": fused("hwc", True),
    "overlapping": overlapping,
    "softened": softened,
}


def plan_of(folder: Path, change: str, workers: int) -> CanvasPlan:
    unit = 256 if change == "both, in windows" else 128  # a row of blocks for each worker
    made = planned(
        RenderSpec(
            model=str(folder),
            workers=workers,
            device="cpu",
            method="hidiffusion",
            method_options=OPTIONS.get(change, {"raunet": False, "windows": False}),
            height=2 * unit,
            width=256,
            num_inference_steps=2,
            chunk=unit,
            local=True,
        )
    )
    return in_windows(made, POLICIES[change]) if change in POLICIES else made


def in_windows(made: CanvasPlan, windows: WindowPolicy | None) -> CanvasPlan:
    return dataclasses.replace(made, method=dataclasses.replace(made.method, windows=windows))


@pytest.mark.parametrize(
    ("name", "change", "workers"),
    [
        ("sdxl-deep", "strided, then pooled", 1),
        ("sdxl-deep", "windows", 2),
        pytest.param("sdxl-deep", "fused", 1, marks=pytest.mark.slow),
        pytest.param("sdxl-deep", "fused grids", 1, marks=pytest.mark.slow),
        pytest.param("sd15-deep", "both, in windows", 2, marks=pytest.mark.slow),
        pytest.param("sdxl-deep", "fused grids", 2, marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_step_needs_what_its_plan_says(
    folders: dict[str, Path], name: str, change: str, workers: int
) -> None:
    made = plan_of(folders[name], change, workers)
    peak = max(denoise for denoise, _ in measured(made))
    assert estimated(made).denoise == pytest.approx(peak, rel=CLOSE)


# Windows alone are counted above, by ranks; what is softened is fused too.
@pytest.mark.parametrize(
    "change", [pytest.param("overlapping", marks=pytest.mark.slow), "softened"]
)
def test_windows_and_fusion_that_decide_the_peak_are_counted(
    folders: dict[str, Path], change: str
) -> None:
    """A plan that left them out would be wrong by more than plans may be."""
    made = plan_of(folders["sd15-deep"], change, 1)
    peak = max(denoise for denoise, _ in measured(made))
    assert estimated(made).denoise == pytest.approx(peak, rel=CLOSE)
    assert estimated(in_windows(made, None)).denoise < (1 - CLOSE) * peak
