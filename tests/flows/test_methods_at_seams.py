"""Methods that change windows and convolutions, by layouts of U-Nets: no seam on any ranks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import checkpoints
from frieze.cluster.comm import Comm, solo
from frieze.cluster.layout import Band, Mesh
from frieze.renderer import resume
from support.drawing import draw as render
from support.drawing import grey_levels, pixels, small_spec, stop_after
from support.estimates import estimate, on_threads, planned, start
from support.processes import run_processes
from support.shared import kept
from tolerances import CONTROL, EXACT_FLOAT32, EXACT_FLOAT64, GREY_LEVELS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("kept_encoders"),
]
UNIT = 16  # latent rows, as many as the model was trained on, of which bands are multiples
COLUMNS = 16
BANDS = {1: (4,), 2: (1, 3), 3: (2, 1, 1), 4: (1, 1, 1, 1)}  # units of each rank
MESHES = [Mesh(ring=2), Mesh(ring=3), Mesh(ulysses=2), Mesh(ring=2, ulysses=2)]
# Latent rows of each rank where a cascade doubles at most, by layout; cut at the coarsest cells.
CASCADED = {
    "sd": {1: (40,), 2: (24, 16), 3: (16, 8, 16), 4: (8, 8, 8, 16)},
    "sdxl": {1: (44,), 2: (28, 16), 3: (20, 8, 16), 4: (16, 8, 8, 12)},
    # Its dilation counts by twice the trained size.
    "sdxl-turbo": {1: (64,), 2: (40, 24), 3: (24, 8, 32), 4: (16, 8, 24, 16)},
}
# Every kind of step: options, and the step of ten that is of this kind.
BOTH = {"schedule": "progressive", "strided": 0.3, "pooled": 0.7}
RELEASED = {"dilation": False, "fast": True, "fusion": "hw", "jitter": "released"}
AS_TOLD = {"size_told": "canvas"}  # then nothing else differs from the plain model
KINDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "strided and pooled": ("hidiffusion", BOTH, 0),
    "pooled": ("hidiffusion", BOTH | {"strided": 0}, 5),
    "strided": ("hidiffusion", {"windows": False, "strided": 0.9, "pooled": 0}, 1),
    "windows alone": ("hidiffusion", {"raunet": False}, 2),
    "fused and dilated": ("cinescale", {}, 0),
    "fused": ("cinescale", {"dilation": False, "fusion": "wc"}, 4),
    "fused as released": ("cinescale", RELEASED, 4),
    "dilated": ("cinescale", {"fusion": "none", "free_u": False} | AS_TOLD, 1),
    "skips filtered": ("cinescale", {"fusion": "none", "dilation": False} | AS_TOLD, 4),
}
# The slow tests draw every pair on every mesh; the layouts differ in what they are told, the kinds
# do not. Here each kind and each layout meets a mesh, and each method all of them.
RING_2, RING_3, ULYSSES, RING_ULYSSES = MESHES
QUICK: dict[tuple[str, str], Mesh] = {
    ("sdxl-deep", "strided and pooled"): RING_ULYSSES,
    ("sdxl-deep", "fused and dilated"): RING_ULYSSES,
    ("sd15-deep", "strided"): ULYSSES,
    ("sd15-deep", "windows alone"): RING_3,
    ("sd15-deep", "fused and dilated"): RING_2,
    ("sdxl-turbo-deep", "pooled"): RING_2,
    ("sdxl-turbo-deep", "dilated"): RING_3,
    ("sd21-deep", "fused as released"): ULYSSES,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("deep")
    return {name: checkpoints.build(name, root / name) for name in checkpoints.DEEP}


def meshes(layout: str, kind: str) -> list[Mesh]:
    """Bands of Stable Diffusion's four levels are too low for a dilation on more than two ranks."""
    is_low = layout[:3] in ("sd1", "sd2") and KINDS[kind][1].get("dilation", True)
    most = 2 if is_low and KINDS[kind][0] == "cinescale" else 4
    return [mesh for mesh in MESHES if mesh.world_size <= most]


def bands(layout: str, kind: str, num_ranks: int) -> tuple[Band, ...]:
    """So many unequal bands; twice as tall where a network of four levels strides and pools."""
    is_xl = layout.startswith("sdxl")
    if KINDS[kind][0] == "cinescale":
        rows = CASCADED[layout.removesuffix("-deep") if is_xl else "sd"][num_ranks]
    else:
        unit = 2 * UNIT if kind == "strided and pooled" and not is_xl else UNIT
        rows = tuple(unit * count for count in BANDS[num_ranks])
    edges = [0, *itertools.accumulate(rows)]
    return tuple(Band(*pair) for pair in itertools.pairwise(edges))


def made(folder: Path, kind: str, mesh: Mesh, own: tuple[Band, ...] | None = None) -> Any:
    """The plan of a step of a kind, on all bands or on `own` alone."""
    method, options, _ = KINDS[kind]
    return planned_as(folder, kind, mesh, own, method=method, method_options=options)


def planned_as(
    folder: Path, kind: str, mesh: Mesh, own: tuple[Band, ...] | None = None, **fields: Any
) -> Any:
    """The plan of a canvas that a kind is drawn on, by any method."""
    own = own or bands(folder.name, kind, mesh.world_size)
    rows = own[-1].stop
    is_cascade = KINDS[kind][0] == "cinescale"
    columns = COLUMNS * (1 if is_cascade else rows // (4 * UNIT) or 1)
    return planned(
        folder,
        own,
        mesh,
        height=8 * rows,
        width=8 * (columns + 4 * (is_cascade and folder.name.startswith("sdxl"))),
        chunk=256 if rows > 4 * UNIT else 128,
        num_inference_steps=10,
        guidance_scale=3.0,
        negative_prompt="grey",
        **fields,
    )


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@kept
def whole(folder: Path, kind: str, dtype: torch.dtype) -> Tensor:
    """One rank's."""
    return on_threads(made(folder, kind, Mesh()), KINDS[kind][2], dtype, folder)


def check_same(folder: Path, kind: str, on: Sequence[Mesh]) -> Tensor:
    """On each of the meshes what one rank draws, which is returned, and not the plain model."""
    step = KINDS[kind][2]
    expected = whole(folder, kind, torch.float64)
    for mesh in on:
        found = on_threads(made(folder, kind, mesh), step, torch.float64, folder)
        assert distance(found, expected) <= EXACT_FLOAT64, mesh
    plain = planned_as(folder, kind, Mesh(), method="none")
    assert distance(on_threads(plain, step, torch.float64, folder), expected) > CONTROL
    return expected


@pytest.mark.parametrize(("layout", "kind"), QUICK)
def test_every_method_is_the_same_on_ranks(
    folders: dict[str, Path], layout: str, kind: str
) -> None:
    check_same(folders[layout], kind, [QUICK[layout, kind]])


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "kind"), list(itertools.product(checkpoints.DEEP, KINDS)))
def test_every_method_with_every_layout_is_the_same_on_any_ranks(
    folders: dict[str, Path], layout: str, kind: str
) -> None:
    """Two, three and four bands on a ring, on Ulysses and on both; in single precision too."""
    folder, every = folders[layout], meshes(layout, kind)
    expected = check_same(folder, kind, every)
    single = made(folder, kind, every[:2][-1])
    found = on_threads(single, KINDS[kind][2], torch.float32, folder)
    assert distance(found.double(), expected) <= EXACT_FLOAT32


@pytest.mark.parametrize(
    ("layout", "kind"),
    [("sdxl-turbo-deep", "pooled"), ("sdxl-deep", "fused and dilated")],
)
def test_bands_that_know_of_no_others_are_wrong(
    folders: dict[str, Path], layout: str, kind: str
) -> None:
    """The control: each rank draws its band as a canvas of its own."""
    folder = folders[layout]
    canvas = start(made(folder, kind, Mesh()), torch.float64)
    parts = []
    for band in bands(layout, kind, 2):
        alone = made(folder, kind, Mesh(), (Band(0, band.rows),))
        step = KINDS[kind][2]
        parts.append(estimate(solo(), alone, step, canvas[..., band.start : band.stop, :], folder))
    assert distance(torch.cat(parts, dim=-2), whole(folder, kind, torch.float64)) > CONTROL


def drawn_by_a_process(comm: Comm, folder: Path, kind: str, mesh: Mesh) -> np.ndarray:
    plan = made(folder, kind, mesh)
    rows = estimate(comm, plan, KINDS[kind][2], start(plan, torch.float64), folder)
    return rows.numpy()


@pytest.mark.slow  # ranks that import everything anew
@pytest.mark.parametrize("kind", ["strided and pooled", "fused and dilated"])
@pytest.mark.parametrize("mesh", [Mesh(ring=2), Mesh(ulysses=2)], ids=["ring", "ulysses"])
def test_processes_draw_as_threads_do(folders: dict[str, Path], mesh: Mesh, kind: str) -> None:
    folder = folders["sdxl-deep"]
    parts = run_processes(2, drawn_by_a_process, folder, kind, mesh)
    found = torch.cat([torch.from_numpy(part) for part in parts], dim=-2)
    assert distance(found, whole(folder, kind, torch.float64)) <= EXACT_FLOAT64


RENDERED = {
    "height": 256,
    "width": 128,
    "chunk": 128,
    "num_inference_steps": 4,
    "method": "hidiffusion",
    "method_options": {"schedule": "progressive", "strided": 0.5, "pooled": 0.75},
    "guidance_scale": 3.0,
}


def test_a_render_is_the_same_on_workers_and_after_a_stop_in_every_kind_of_step(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Steps 1 and 2 stride and pool, 3 pools, 4 is plain but for its windows."""
    fields = RENDERED | {"model": str(folders["sdxl-deep"])}
    render(tmp_path / "one.zarr", **fields)
    one = pixels(tmp_path / "one.zarr")
    for step in (2, 3):
        store = tmp_path / f"stopped-{step}.zarr"
        stop_after(small_spec(store, **fields), step)
        resume(store)
        assert np.array_equal(pixels(store), one), step
    render(tmp_path / "two.zarr", **fields, workers=2)
    assert grey_levels(pixels(tmp_path / "two.zarr"), one) <= GREY_LEVELS
    render(tmp_path / "plain.zarr", **fields | {"method": "none", "method_options": {}})
    assert grey_levels(pixels(tmp_path / "plain.zarr"), one) > 2, "control"


# One whole render; that each method changes nothing there is `renderer/methods/test_contract.py`'s.
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(name, marks=[] if name == "sd15-deep" else pytest.mark.slow)
        for name in checkpoints.DEEP
    ],
)
def test_up_to_the_trained_size_it_is_the_plain_model(
    folders: dict[str, Path], tmp_path: Path, layout: str
) -> None:
    fields = RENDERED | {"model": str(folders[layout]), "height": 128, "width": 128, "chunk": 64}
    for method in ("none", "hidiffusion"):
        options = fields["method_options"] if method == "hidiffusion" else {}
        render(
            tmp_path / f"{method}.zarr", **fields | {"method": method, "method_options": options}
        )
    assert np.array_equal(*(pixels(tmp_path / f"{m}.zarr") for m in ("none", "hidiffusion")))
