"""Every kind of step that a method makes of a U-Net needs what its plan says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import checkpoints
from frieze.renderer.spec.render_spec import RenderSpec
from support.method_windows import fused
from support.planned_memory import CLOSE, estimated, measured, planned

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = ("sd15-deep", "sdxl-deep")
    return {name: checkpoints.build(name, tmp_path_factory.mktemp(name)) for name in names}


STRIDED = {"strided": 1.0, "schedule": "aggressive", "windows": False}
POOLED = {"strided": 0.0, "pooled": 1.0, "schedule": "aggressive", "windows": False}
BOTH = {"strided": 1.0, "pooled": 1.0, "schedule": "progressive"}
WINDOWS = {"raunet": False}
CHANGES = {"strided": STRIDED, "pooled": POOLED, "both": BOTH, "windows": WINDOWS}
FUSED = {"hw": ("hw", False), "hwc": ("hwc", False), "fast": ("hwc", True)}


@pytest.mark.parametrize(
    ("name", "change", "workers"),
    [
        ("sd15-deep", "both", 2),
        ("sd15-deep", "windows", 1),
        ("sdxl-deep", "strided", 1),
        ("sdxl-deep", "pooled", 2),
        ("sdxl-deep", "windows", 2),
        ("sdxl-deep", "hw", 1),
        ("sdxl-deep", "hwc", 2),
        ("sdxl-deep", "fast", 2),
    ],
)
def test_every_kind_of_step_needs_what_its_plan_says(
    folders: dict[str, Path], name: str, change: str, workers: int
) -> None:
    options = CHANGES.get(change, {"raunet": False, "windows": False})
    size = {"height": 512, "width": 256, "num_inference_steps": 2, "chunk": 256, "local": True}
    made = planned(
        RenderSpec(
            model=str(folders[name]),
            workers=workers,
            device="cpu",
            method="hidiffusion",
            method_options=options,
            **size,
        )
    )
    if change in FUSED:
        method = dataclasses.replace(made.method, windows=fused(*FUSED[change]))
        made = dataclasses.replace(made, method=method)
    needed, peaks = estimated(made), measured(made)
    assert needed.denoise == pytest.approx(max(peak for peak, _ in peaks), rel=CLOSE)
