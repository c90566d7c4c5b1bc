"""Steps that reuse the blocks behind the first: alike on any ranks and after a stop, as diffusers'
own first-block cache, and refused where there is nothing to reuse."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import checkpoints
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Mesh
from frieze.renderer import Event, RenderCancelledError, RenderSpec, plan, render, resume
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.driver.store_arrays import store_layout
from frieze.renderer.errors import PlanError, SpecError
from frieze.renderer.planning.stage_plan import num_cached
from frieze.renderer.sampling.solver_step import SolverStep
from frieze.renderer.sampling.solvers import solver
from frieze.renderer.spec.render_spec import parse
from frieze.renderer.worker.stage_guides import Grid
from support.drawing import draw, grey_levels, pixels, small_spec, stop_after
from support.estimates import bands_of, loaded, network, planned, start
from tolerances import AMPLE, CONTROL, EXACT_FLOAT32, EXACT_FLOAT64, GREY_LEVELS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("kept_encoders"),
]
ROWS, COLUMNS, STEPS = 20, 6, 8  # tokens
SHARES = {1: (20,), 2: (5, 15), 3: (5, 9, 6), 4: (3, 7, 1, 9)}
MESHES = (Mesh(ring=2), Mesh(ring=3), Mesh(ulysses=2), Mesh(ring=2, ulysses=2))
FAMILIES = ("flux", "flux2", "sd3", "qwen", "zimage", "wan")
GUIDED = {"true_cfg_scale": 3.0, "negative_prompt": "grey"}


class Folders(dict[str, Path]):
    """Tiny checkpoints, each made when it is asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def __missing__(self, name: str) -> Path:
        self[name] = checkpoints.build(name, self.root / name)
        return self[name]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("cache"))


def made(folder: Path, mesh: Mesh, cache: str | None, **fields: Any) -> Any:
    latent = describe(str(folder)).latent
    return planned(
        folder,
        bands_of(latent, SHARES[mesh.world_size]),
        mesh,
        height=ROWS * latent.unit,
        width=COLUMNS * latent.unit,
        num_frames=5 if folder.name.startswith("wan") else 1,
        num_inference_steps=STEPS,
        **{"method": "none", "shift": 30.0, "cache": cache} | fields,
    )


def rank(comm: Comm, plan_: Any, folder: Path) -> tuple[Tensor, list[tuple[int, ...]]]:
    """This rank's rows of the finished latents, and when each half was computed, by step."""
    stage = plan_.stages[-1]
    band, grid = stage.bands[comm.rank], Grid(stage.canvas, stage.bands)
    x = start(plan_, torch.float64)[..., band.start : band.stop, :]
    net, step_of = network(comm, plan_, torch.float64, folder), solver(plan_.facts.schedule)
    net.inputs = [torch.zeros_like(x)] * num_cached(plan_.spec, stage)
    history: tuple[Tensor, ...] = (torch.zeros_like(x),) * step_of.num_history
    found = []
    for step in range(stage.num_steps):
        with torch.no_grad():
            x0 = net.predict(x, step, grid)
        x, history = step_of.step(SolverStep(step, stage.levels, x, x0, history))
        found.append(tuple(net.computed))
    return x, found


def drawn(folder: Path, mesh: Mesh, cache: str | None, **fields: Any) -> tuple[Tensor, Any]:
    loaded(folder, torch.float64)
    plan_ = made(folder, mesh, cache, **fields)
    ranks = run_threads(rank, mesh.world_size, plan_, folder, timeout=AMPLE)
    assert all(found == ranks[0][1] for _, found in ranks)
    return torch.cat([x for x, _ in ranks], dim=-2), ranks[0][1]


# Random networks change much from step to step: with these some steps of each are reused.
CACHES = {"flux": 0.6, "flux2": 0.9, "sd3": 0.6, "qwen": 0.7, "zimage": 0.85, "wan": 0.28}


def check(folder: Path, meshes: tuple[Mesh, ...]) -> None:
    cache = str(CACHES[folder.name])
    whole, found = drawn(folder, Mesh(), cache)
    plain, all_computed = drawn(folder, Mesh(), None)
    assert not any(all_computed)
    halves = list(zip(*found, strict=True))
    counted = [sum(after <= step for step, after in enumerate(half)) for half in halves]
    assert all(0 < count < STEPS - 2 for count in counted), (folder.name, found)
    assert all(half[0] == 1 and half[-1] == STEPS for half in halves)
    worst = float((whole - plain).abs().max() / plain.abs().max())
    assert worst > CONTROL, "control"
    # Some networks round to float32 on their way, whatever their precision.
    most = EXACT_FLOAT32 if folder.name == "wan" else EXACT_FLOAT64
    for mesh in meshes:
        shared, same = drawn(folder, mesh, cache)
        assert same == found, (folder.name, mesh)
        worst = float((shared - whole).abs().max() / whole.abs().max())
        assert worst <= most, (folder.name, mesh, worst)


# The slow test has every pair.
@pytest.mark.parametrize(
    ("family", "mesh"), [("flux", MESHES[1]), ("zimage", MESHES[1]), ("sd3", MESHES[3])]
)
def test_any_ranks_reuse_alike(folders: dict[str, Path], family: str, mesh: Mesh) -> None:
    check(folders[family], (mesh,))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reuses_alike_on_any_ranks(folders: dict[str, Path], family: str) -> None:
    check(folders[family], MESHES)


def test_an_expert_reuses_nothing_of_the_other(folders: dict[str, Path]) -> None:
    """Its blocks are others: the first of its steps computes them, whatever the threshold."""
    folder = folders["wan22"]
    plan_ = made(folder, Mesh(), "1", shift=2.0)
    model = loaded(folder, torch.float64)
    runs = [model.block_run(level) for level in plan_.stages[0].levels[:-1]]
    second = runs.index(runs[-1])
    assert 1 < second < STEPS - 1
    _, found = drawn(folder, Mesh(), "1", shift=2.0)
    computed = [{after == step + 1 for after in each} for step, each in enumerate(found)]
    assert computed[second] == {True}
    assert any(False in each for each in computed[1:second])


# ---- whole renders of the demo

DEMO: dict[str, Any] = {"num_inference_steps": 9, "cache": "0.25", "width": 128}


def reused(store: Path) -> list[int]:
    """Of every saved state the evaluations that were none until then."""
    lines = (store / "frieze" / "journal.jsonl").read_text().splitlines()
    return [event["reused"] for event in map(json.loads, lines) if event["event"] == "state"]


def test_a_stopped_render_goes_on_with_what_it_had_to_reuse(tmp_path: Path) -> None:
    """At every step of one stage that reuses; and what was saved of others would be another
    picture."""
    events: list[Event] = []
    render(small_spec(tmp_path / "whole.zarr", **DEMO), on_event=events.append)
    whole, counts = pixels(tmp_path / "whole.zarr"), reused(tmp_path / "whole.zarr")
    told = [event.message for event in events if "all blocks but the first" in event.message]
    assert told == [f"cache 0.25: {counts[-1]} of 9 steps reused all blocks but the first"]
    steps = [event.facts["reused"] for event in events if event.kind == "step"]
    assert steps == [0, *np.diff([*counts]).tolist()]
    before = [step for step in range(2, 8) if steps[step]]  # steps done before one that reuses
    assert before, "control"
    for step in before[:2]:
        stopped = tmp_path / f"stopped-{step}.zarr"
        stop_after(small_spec(stopped, **DEMO), step)
        resume(stopped)
        assert np.array_equal(pixels(stopped), whole), step
        assert reused(stopped)[-1] == counts[-1]
    shared = tmp_path / "shared.zarr"
    stop_after(small_spec(shared, **DEMO), before[0])
    resume(shared, workers=2)
    assert grey_levels(pixels(shared), whole) <= GREY_LEVELS
    draw(tmp_path / "plain.zarr", **DEMO | {"cache": None})
    assert grey_levels(pixels(tmp_path / "plain.zarr"), whole) > GREY_LEVELS, "control"


def test_both_halves_have_their_own_on_ranks_of_their_own(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Each of two ranks evaluates one prompt; the store has what both are to reuse."""
    unit = describe(str(folders["qwen"])).latent.unit
    fields: dict[str, Any] = GUIDED | {
        "model": str(folders["qwen"]),
        "height": 12 * unit,
        "width": 4 * unit,
        "num_inference_steps": STEPS,
        "method": "none",
        "shift": 30.0,
        "cache": 0.9,
        "chunk": 2 * unit,
    }
    draw(tmp_path / "one.zarr", **fields)
    pairs = {"workers": 4, "guidance_ranks": 2}
    draw(tmp_path / "four.zarr", **fields | pairs)
    one, four = pixels(tmp_path / "one.zarr"), pixels(tmp_path / "four.zarr")
    assert grey_levels(one, four) <= GREY_LEVELS
    counts = reused(tmp_path / "one.zarr")
    assert reused(tmp_path / "four.zarr") == counts
    assert counts[-1] > 0, "control"
    step = next(i for i, (a, b) in enumerate(pairwise(counts)) if b > a)
    stop_after(small_spec(tmp_path / "s.zarr", **fields | pairs), step + 1)
    resume(tmp_path / "s.zarr")
    assert np.array_equal(pixels(tmp_path / "s.zarr"), four)


def test_a_cascade_begins_each_stage_with_nothing(tmp_path: Path) -> None:
    """Where a stage's first step measures entropies the step after it computes too."""
    stages = [{"scale": 0.5, "steps": 5}, {"start": 0.6, "steps": 5}]
    fields: dict[str, Any] = {"stages": stages, "cache": 1, "height": 512, "width": 512}
    events: list[Event] = []
    spec = small_spec(tmp_path / "a.zarr", method="auto", **fields)
    render(spec, on_event=events.append)
    steps = [event.facts["reused"] for event in events if event.kind == "step"]
    assert steps == [0, 0, 1, 1, 0, 0, 0, 1, 1, 0]
    stop_in_second = tmp_path / "b.zarr"
    cancel_after(small_spec(stop_in_second, method="auto", **fields), 8)
    resume(stop_in_second)
    assert np.array_equal(pixels(stop_in_second), pixels(tmp_path / "a.zarr"))


def cancel_after(spec: RenderSpec, num_steps: int) -> None:
    """Stop after so many steps of all stages."""
    cancel, steps = threading.Event(), list[Event]()

    def listen(event: Event) -> None:
        steps.extend([event] if event.kind == "step" else [])
        if len(steps) == num_steps:
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(spec, on_event=listen, cancel=cancel)


# ---- what a plan says


def test_a_plan_counts_what_is_kept() -> None:
    """Two residuals and one at work of each token, and latents in the store; no less work."""
    stages = [{"scale": 0.5, "steps": 10}, {"start": 0.6, "steps": 10}]
    spec = RenderSpec(prompt="x", height=512, width=512, stages=stages, local=True)
    plain, cached = plan(spec), plan(spec.model_copy(update={"cache": "0.1,ends=2"}))
    tokens, width = 32 * 32, plain.facts.cost.hidden
    kept = 3 * tokens * width * 4
    more = cached.estimate.denoise - plain.estimate.denoise
    assert kept <= more <= 1.2 * kept
    counted = [[stage.flops for stage in each.cost.stages] for each in (plain, cached)]
    assert counted[0] == counted[1]
    (line,) = [line for line in str(cached).splitlines() if line.startswith("cache")]
    assert "up to 12 of 20 steps run the first of" in line
    shapes = [[array.shape[1] for array in store_layout(each).latents] for each in (plain, cached)]
    assert shapes == [[16, 16, 3], [32, 32, 3]]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": "demo-unet"}, "a U-Net"),
        ({"num_inference_steps": 2}, "of at most 2 steps a stage 1 at each end"),
        ({"num_inference_steps": 6, "cache": "0.1,ends=3"}, "of at most 6 steps a stage 3 at each"),
        (
            {"method": "ultraimage", "method_options": {"mode": "resolution"}},
            "moves all tokens by half of one",
        ),
        ({"cache": "2"}, "is no threshold above 0 up to 1"),
        ({"cache": -0.1}, "is no threshold above 0 up to 1"),
        ({"cache": "0.1,ends=0"}, "both ends of a stage"),
        ({"cache": "nan"}, "is no threshold"),
    ],
)
def test_what_cannot_reuse_is_refused_in_a_line(fields: dict[str, Any], says: str) -> None:
    values = {"prompt": "x", "height": 512, "width": 512, "cache": "0.1"} | fields
    with pytest.raises((PlanError, SpecError), match=says) as refused:
        plan(parse(values))
    assert "\n" not in str(refused.value)
