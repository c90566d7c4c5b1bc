"""Every kind of step that a method makes of a U-Net needs what its plan says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import checkpoints
from frieze.cluster.attention import AttentionShape, ScaleFusion
from frieze.renderer.extrapolation.method import WindowPolicy
from frieze.renderer.extrapolation.windows import interleaved_windows, trained_windows
from frieze.renderer.spec.render_spec import RenderSpec
from support.planned_memory import CLOSE, estimated, measured, planned

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = ("sd15-deep", "sdxl-deep")
    return {name: checkpoints.build(name, tmp_path_factory.mktemp(name)) for name in names}


def fused(axes: Any, coarse: bool) -> WindowPolicy:
    """Windows of the trained size on the largest maps, fused with the canvas or sub-grids of it."""

    def windows(context: Any, layer: str, rows: int, columns: int) -> AttentionShape | None:
        if not layer.startswith(("down_blocks.0", "down_blocks.1", "up_blocks")):
            return None
        grids = interleaved_windows(rows, columns, (2, 2)) if coarse else None
        local = trained_windows(rows, columns, (rows // 2, columns // 2))
        return AttentionShape(local, ScaleFusion(3, axes=axes, coarse=grids))

    return windows


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
