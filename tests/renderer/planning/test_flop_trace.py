"""A plan's FLOPs and bytes are those that steps of a render come to, kind by kind, by ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import checkpoints
import configs_full
from frieze.cluster.comm import Comm, run_threads
from frieze.kernels.flop_count import flop_count
from frieze.kernels.work import Work
from frieze.renderer.costs.stage_costs import WindowCost
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.render_spec import RenderSpec
from support.method_windows import fused
from support.planned_memory import Measured, conditioning, planned
from tolerances import AMPLE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WORDS = 64  # bytes in which ranks tell each other that all is finite; no plan counts them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.build("sdxl-deep", tmp_path_factory.mktemp("sdxl-deep"))


def drawn(folder: Path, **options: Any) -> CanvasPlan:
    return planned(
        RenderSpec(
            model=str(folder),
            device="cpu",
            method="hidiffusion",
            method_options={"schedule": "aggressive", "strided": 0.25, "pooled": 0.75, **options},
            height=256,
            width=128,
            num_inference_steps=4,
            chunk=128,
            local=True,
        )
    )


def counted(made: CanvasPlan, steps: Iterable[int]) -> dict[int, int]:
    """FLOPs of some steps, of which 1 is the first, on one rank that has the weights."""

    def rank(comm: Comm) -> dict[int, int]:
        shard = Measured(made, comm, conditioning(made))
        shard._enter(0)
        shard.begin(0, None)
        found = {}
        for step in steps:
            with flop_count() as count:
                shard.step(step - 1)
            found[step] = count.total
        return found

    return run_threads(rank, 1, timeout=AMPLE)[0]


def test_steps_of_every_kind_cost_what_their_plan_says(folder: Path) -> None:
    """Strided, pooled, in windows alone, and in windows of the trained size fused by grids."""
    made = drawn(folder)
    grids = dataclasses.replace(made.method, windows=fused("hwc", True))
    for each in (made, dataclasses.replace(made, method=grids)):
        (stage,) = each.cost.stages
        assert [kind.steps for kind in stage.kinds] == [(1,), (2, 3), (4,)]
        flops = counted(each, [kind.steps[0] for kind in stage.kinds])
        assert flops == {k.steps[0]: stage.num_prompts * k.flops for k in stage.kinds}
        assert each.cost.relative == stage.relative
    plain = dataclasses.replace(made.method, windows=None, convolutions=None)
    direct = counted(dataclasses.replace(made, method=plain), [1])
    assert direct == {1: stage.num_prompts * stage.direct}
    assert min(kind.flops for kind in made.cost.stages[0].kinds) < 0.9 * stage.direct


def test_a_plan_says_windows_geometry_and_their_cost(folder: Path) -> None:
    made = drawn(folder)
    (stage,) = made.cost.stages
    strided, pooled, last = stage.kinds
    assert strided.geometry
    assert pooled.geometry
    assert last.geometry is None
    assert {each.dilation for each in strided.geometry.convs.values()} == {2}
    rows, columns = 256 // 16, 128 // 16
    assert last.windows == (
        WindowCost(rows, columns, 5, 4, rows * columns // 4, rows * columns // 4, 1 / 4),
    )
    lines = str(made).splitlines()
    assert any("step 1: down_blocks.1.downsamplers.0.conv of stride 4" in line for line in lines)
    assert any(f"of {rows} x {columns} tokens: 4 windows of 32 queries" in line for line in lines)
    assert any(line.startswith(f"work      {made.cost.relative:.2f} of") for line in lines)


@pytest.mark.parametrize("name", ["flux", "wan", "sdxl"])
def test_each_rank_s_step_and_decoding_cost_what_the_plan_says(name: str, tmp_path: Path) -> None:
    """On unequal bands; bytes to other ranks too, and what a rank does beside its own rows."""
    made = planned(
        RenderSpec(
            model=str(checkpoints.build(name, tmp_path / name)),
            device="cpu",
            height=160,
            width=64,
            num_frames=9 if name == "wan" else 1,
            num_inference_steps=2,
            method="none",
            chunk=32,
            workers=3,
            local=True,
        )
    )

    def rank(comm: Comm) -> list[tuple[int, int]]:
        shard = Measured(made, comm, conditioning(made))
        shard._enter(0)
        shard.begin(0, None)
        found = []
        for work in (lambda: shard._advance(0), lambda: list(shard._pieces.decoded(32))):
            before = comm.num_bytes_sent
            with flop_count() as count:
                work()
            found.append((count.total, comm.num_bytes_sent - before))
        return found

    steps, decodes = zip(*run_threads(rank, 3, timeout=AMPLE), strict=True)
    (stage,) = made.cost.stages
    for counted, told in ((steps, stage.kinds[0].ranks), (decodes, made.cost.decode)):
        expected = [
            (each.work.flops, each.work.sent) for each in told for _ in range(each.num_ranks)
        ]
        for (flops, sent), (all_flops, all_sent) in zip(
            sorted(counted), sorted(expected), strict=True
        ):
            assert flops == all_flops
            assert 0 < all_sent <= sent <= all_sent + WORDS


@pytest.mark.slow
def test_auto_of_flux_at_8192_pixels_is_a_tenth_of_drawing_it_at_once(tmp_path: Path) -> None:
    """A step of its last stage: a 28th of the attention, a ninth of all; the render: a tenth."""
    folder = str(configs_full.build("flux1", tmp_path))
    sides = {"height": 8192, "width": 8192, "workers": 8, "address": "auto", "dtype": "bfloat16"}
    spec = RenderSpec(model=folder, num_inference_steps=28, **sides)
    auto, full = (plan(spec.model_copy(update={"method": name})).cost for name in ("auto", "none"))
    (whole,), last = full.stages, auto.stages[-1]
    each, direct = (stage.steps_work.times(1 / stage.num_steps) for stage in (last, whole))
    assert 28 * each.attention <= direct.attention
    assert 9 * each.flops <= direct.flops
    everything = sum((steps + rest for _, steps, rest in auto.rows), start=Work())
    assert 10 * everything.flops <= whole.steps_work.flops
    assert each.sent < 0.1 * direct.sent  # the control: all that is attended to went round
    (window,) = last.kinds[0].windows
    assert window.share < 1 / 28
