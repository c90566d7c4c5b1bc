"""What image tokens attend to: alike on any ranks and after a stop, undone at the trained size."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
from frieze.cluster.layout import Band, Mesh
from frieze.renderer import Event, RenderCancelledError, RenderSpec, plan, render, resume
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.errors import PlanError
from frieze.renderer.extrapolation.method import StepContext
from frieze.renderer.models.family import BandPlace
from support.drawing import draw, grey_levels, pixels, small_spec
from support.estimates import bands_of, loaded, on_threads, planned
from tolerances import CONTROL, ENTROPY_FLOAT32, EXACT_FLOAT32, EXACT_FLOAT64, GREY_LEVELS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("kept_encoders"),
]
KINDS = ("pooled", "shifted", "windows", "fused")
TRAINED, ROWS, COLUMNS = 8, 20, 12  # tokens: 2.5 and 1.5 times the trained side
SHARES = {1: (20,), 2: (5, 15), 3: (5, 9, 6), 4: (3, 7, 1, 9)}
MESHES = (
    *(Mesh(), Mesh(ring=2), Mesh(ring=3), Mesh(ulysses=2), Mesh(ring=2, ulysses=2)),
    Mesh(ulysses=3),
)
ROTARY = ("flux", "flux2", "qwen", "zimage", "wan")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny checkpoints that were trained at eight tokens a side."""
    root, found = tmp_path_factory.mktemp("attend"), {}
    for name in (*ROTARY, "sd3"):
        found[name] = folder = checkpoints.build(name, root / name)
        side = TRAINED * describe(str(folder)).latent.unit
        hints = {"training_size": side, "training_frames": 5 if name == "wan" else 1}
        (folder / "frieze.json").write_text(json.dumps(hints))
    return found


def made(folder: Path, mesh: Mesh, attend: str | None, **fields: Any) -> Any:
    """A picture, or clip, of one stage whose positions are interpolated."""
    latent = describe(str(folder)).latent
    return planned(
        folder,
        bands_of(latent, SHARES[mesh.world_size]),
        mesh,
        height=ROWS * latent.unit,
        width=COLUMNS * latent.unit,
        num_frames=5 if folder.name == "wan" else 1,
        num_inference_steps=3,
        attend=attend,
        **{"method": "pi", "method_options": {"cascade": False}} | fields,
    )


def estimate(folder: Path, mesh: Mesh, attend: str | None) -> torch.Tensor:
    return on_threads(made(folder, mesh, attend), 0, torch.float64, folder)


def check(folder: Path, kind: str, meshes: tuple[Mesh, ...]) -> None:
    whole, full = (estimate(folder, Mesh(), attend) for attend in (kind, "full"))
    assert torch.equal(full, estimate(folder, Mesh(), None))
    assert float((whole - full).abs().max()) > CONTROL * float(full.abs().max()), "control"
    # Some networks round to float32 on their way, whatever their precision.
    most = EXACT_FLOAT32 if folder.name == "wan" else EXACT_FLOAT64
    for mesh in meshes:
        found = estimate(folder, mesh, kind)
        worst = float((found - whole).abs().max() / whole.abs().max())
        assert worst <= most, (kind, mesh, worst)


# The slow test has every pair on every mesh; here each kind and each family meets several.
@pytest.mark.parametrize(
    ("family", "kind", "meshes"),
    [
        ("flux", "pooled", (MESHES[1], MESHES[4])),
        ("wan", "pooled", (MESHES[2], MESHES[4])),
        ("qwen", "fused", (MESHES[2],)),
        ("sd3", "windows", (MESHES[2],)),
        ("zimage", "shifted", (MESHES[3],)),
    ],
)
def test_any_ranks_attend_alike(
    folders: dict[str, Path], family: str, kind: str, meshes: tuple[Mesh, ...]
) -> None:
    check(folders[family], kind, meshes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [*ROTARY, "sd3"])
def test_every_family_attends_alike_on_any_ranks(
    folders: dict[str, Path], family: str, kind: str
) -> None:
    if (family, kind) != ("sd3", "pooled"):
        check(folders[family], kind, MESHES[1:])


@pytest.mark.parametrize("family", ROTARY)
def test_blocks_turn_no_farther_than_a_token_did(folders: dict[str, Path], family: str) -> None:
    """By the angles that the family's network is given, at every step of `pi` and `auto`."""
    folder = folders[family]
    model = loaded(folder, torch.float64)
    for method in ("pi", "auto"):
        plan_ = made(folder, Mesh(), None, method=method, method_options={}, stages=[{"scale": 1}])
        canvas, spacing = plan_.stages[0].canvas, plan_.method.token_spacing
        axes = model.axes(BandPlace(Band(0, canvas.height), canvas, plan_.method.positions))
        for level in plan_.stages[0].levels[:-1]:
            context = StepContext.of(
                plan_.facts, 0, canvas, plan_.stages[0].levels, stage=0, step=0
            )
            context = dataclasses.replace(context, level=level)
            by_name = dict(zip(("row", "column"), spacing(context), strict=True))
            for axis in (each for each in axes if each.name in by_name):
                angles = plan_.method.positions(axis, torch.arange(axis.length), level.sigma)
                fastest = float(angles.diff(dim=0).abs().max())
                # Of a clip's model the trained length is rounded down.
                assert 0.9 < fastest * by_name[axis.name] <= 1 + 1e-9, (method, axis)


# Twice as high and wide as trained, drawn by what is done unless told otherwise.
SQUARE: dict[str, Any] = {"num_inference_steps": 2, "method": "auto"}


def entropies(store: Path) -> list[dict[str, list[float]]]:
    lines = (store / "frieze" / "journal.jsonl").read_text().splitlines()
    return [e["entropies"] for e in map(json.loads, lines) if e["event"] == "focus"]


def stop_in_second_stage(spec: RenderSpec) -> None:
    cancel, steps = threading.Event(), list[Event]()

    def listen(event: Event) -> None:
        steps.extend([event] if event.kind == "step" else [])
        if len(steps) == spec.num_inference_steps + 1:
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(spec, on_event=listen, cancel=cancel)


def test_a_cascade_is_the_same_on_workers_and_after_a_stop_in_its_second_stage(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """With concentration, whose entropies are measured through what is pooled."""
    folder = folders["flux"]
    square = SQUARE | {"model": str(folder), "chunk": describe(str(folder)).latent.unit * 4}
    square |= dict.fromkeys(("height", "width"), 2 * describe(str(folder)).training_size)
    for name, fields in {
        "one": {"attend": "pooled"},
        "three": {"attend": "pooled", "workers": 3},
        "full": {"attend": "full"},
    }.items():
        draw(tmp_path / f"{name}.zarr", **square | fields)
    one, three, full = (pixels(tmp_path / f"{name}.zarr") for name in ("one", "three", "full"))
    assert grey_levels(three, one) <= GREY_LEVELS
    assert grey_levels(one, full) > 0, "control"
    (first,), (second,), (whole,) = (
        entropies(tmp_path / f"{name}.zarr")[-1] for name in ("one", "three", "full")
    )
    for layer, heads in first.items():
        assert second[layer] == pytest.approx(heads, rel=ENTROPY_FLOAT32)
        assert heads != whole[layer], "control"
        assert heads == pytest.approx(whole[layer], abs=0.15)
    stop_in_second_stage(small_spec(tmp_path / "stopped.zarr", **square | {"attend": "pooled"}))
    resume(tmp_path / "stopped.zarr")
    assert np.array_equal(pixels(tmp_path / "stopped.zarr"), one)


def test_at_the_trained_size_nothing_changes(tmp_path: Path) -> None:
    draw(tmp_path / "a.zarr", num_inference_steps=1, width=64)
    for kind in KINDS:
        path = tmp_path / f"{kind}.zarr"
        draw(path, num_inference_steps=1, width=64, method="auto", attend=kind)
        assert np.array_equal(pixels(tmp_path / "a.zarr"), pixels(path)), kind


# ---- by stage and noise level


def choice(spec: RenderSpec) -> list[list[str]]:
    """What each step of each stage attends to, as its windows tell."""
    made, found = plan(spec), []
    for index, stage in enumerate(made.stages):
        kinds = []
        for step in range(stage.num_steps):
            context = StepContext.of(
                made.facts, 0, stage.canvas, stage.levels, stage=index, step=step
            )
            windows = made.method.windows
            shape = windows(context, "layer", *_tokens(stage.canvas)) if windows else None
            if not context.is_beyond or shape is None:
                kinds.append("full")
            else:
                kinds.append("pooled" if shape.pooled else "fused" if shape.fusion else "windows")
        found.append(kinds)
    return found


def _tokens(canvas: Any) -> tuple[int, int]:
    return canvas.height // 2, canvas.width // 2


def test_stages_and_noise_levels_choose() -> None:
    def spec(**fields: Any) -> RenderSpec:
        values = {"height": 1024, "width": 1024, "num_inference_steps": 7, "local": True}
        return RenderSpec(prompt="x", **values | fields)

    full, pooled = ["full"] * 7, ["pooled"] * 7
    assert choice(spec()) == [full, full[:4], pooled[:4]]  # of three stages later ones are short
    assert choice(spec(height=512, width=512)) == [full, full]
    assert choice(spec(attend="pooled")) == [full, pooled[:4], pooled[:4]]
    assert choice(spec(attend="full")) == [full, full[:4], full[:4]]
    second, third = choice(spec(attend="fused,full@0.2"))[1:]
    assert (second, third) == (["fused"] * 3 + ["full"], ["fused"] * 2 + ["full"] * 2)
    stages = [{"scale": 0.25}, {"scale": 0.5, "start": 0.5, "attend": "windows"}, {"start": 0.4}]
    assert choice(spec(stages=stages)) == [full, ["windows"] * 7, pooled]
    assert choice(spec(stages=stages, attend="full")) == [full, ["windows"] * 7, full]


def test_a_plan_counts_what_is_pooled() -> None:
    """An image query asks its window and the blocks outside it instead of the canvas."""
    spec = RenderSpec(prompt="x", height=512, width=512, attend="pooled", local=True)
    cost = plan(spec).cost
    stage = cost.stages[1]
    (kind,) = stage.kinds
    (windows,) = kind.windows
    assert (windows.keys, windows.pooled, windows.num_windows) == (256, 192, 4)
    num_tokens = 32**2
    pairs = num_tokens * (256 + 192)
    assert windows.share == pairs / num_tokens**2
    assert "attention in windows and to pooled context; " in next(cost.lines(1))
    width = plan(spec).facts.cost.hidden
    assert stage.direct - kind.flops == windows.num_layers * 4 * width * (num_tokens**2 - pairs)


# ---- what cannot be


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"method": "ntk", "attend": "pooled"}, "'ntk' keeps neighbours as far apart"),
        ({"method": "none", "attend": "pooled"}, "'none' keeps neighbours as far apart"),
        (
            {"method": "ultravico", "attend": "windows", "model": "wan"},
            "fade along the whole clip; use full",
        ),
        ({"method": "pi", "stages": [{"attend": "pooled"}], "model": "sd3"}, "sd3 has learnt ones"),
        ({"method": "auto", "attend": "full,pooled@0.3", "model": "demo-unet"}, "a U-Net"),
    ],
)
def test_what_cannot_attend_so_is_refused_in_a_line(
    folders: dict[str, Path], fields: dict[str, Any], says: str
) -> None:
    model = fields.get("model", "demo")
    model = str(folders.get(model, model))
    spec = RenderSpec(prompt="x", height=512, width=512, **fields | {"model": model})
    with pytest.raises(PlanError, match=says) as refused:
        plan(spec)
    assert "\n" not in str(refused.value)
    assert "use " in str(refused.value)
