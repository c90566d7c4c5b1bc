"""A plan counts tiles: FLOPs, bytes and memory are those of a step, however many there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import checkpoints
from frieze.cluster.comm import Comm, run_threads
from frieze.kernels.flop_count import flop_count
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.spec.render_spec import RenderSpec
from support.planned_memory import CLOSE, Measured, conditioning, estimated, measured, planned
from tolerances import AMPLE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
WORDS = 64  # bytes in which ranks tell each other that all is finite; no plan counts them
FIXED: dict[str, Any] = {"shift": False, "fusion": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints that were trained at 64 pixels."""
    found = {}
    for name in ("flux", "sdxl"):
        found[name] = checkpoints.build(name, tmp_path_factory.mktemp("planned") / name)
        (found[name] / "frieze.json").write_text(json.dumps({"training_size": 64}))
    return found


def made(folder: Path, **fields: Any) -> CanvasPlan:
    return planned(
        RenderSpec(
            **{
                "model": str(folder),
                "device": "cpu",
                "height": 160,
                "width": 128,
                "num_inference_steps": 2,
                "method": "none",
                "chunk": 32,
                "local": True,
                "strategy": "tiles",
            }
            | fields
        )
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [("flux", FIXED), ("flux", {"shift": False}), ("sdxl", FIXED | {"batch": 2})],
)
def test_each_rank_s_step_costs_what_the_plan_says(
    folders: dict[str, Path], name: str, options: dict[str, Any]
) -> None:
    plan = made(folders[name], workers=3, strategy_options=options)

    def rank(comm: Comm) -> tuple[int, int]:
        shard = Measured(plan, comm, conditioning(plan))
        shard._enter(0)
        shard.begin(0, None)
        before = comm.num_bytes_sent
        with flop_count() as count:
            shard._advance(0)
        return count.total, comm.num_bytes_sent - before

    found = sorted(run_threads(rank, 3, timeout=AMPLE))
    (stage,) = plan.cost.stages
    kind = stage.kinds[0]
    told = [(each.work.flops, each.work.sent) for each in kind.ranks for _ in range(each.num_ranks)]
    for (flops, sent), (all_flops, all_sent) in zip(found, sorted(told), strict=True):
        # Batches that are not full are taken for full ones.
        assert flops <= all_flops <= flops * (1 if options.get("batch", 1) == 1 else 1.5)
        if options is FIXED:
            assert all_sent <= sent <= all_sent + WORDS
    if options is FIXED:
        assert sum(flops for flops, _ in found) == stage.num_prompts * kind.flops


def test_memory_is_what_a_step_holds_and_does_not_grow_with_tiles(
    folders: dict[str, Path],
) -> None:
    small = made(folders["flux"])
    (denoise, _), *_ = measured(small)
    assert abs(estimated(small).denoise / denoise - 1) <= CLOSE
    large = made(folders["flux"], height=640)  # four times the tiles
    per_cell = 8 * 4 * 16  # copies of the latents of a cell: state, rows, sums, noise
    cells = (640 - 160) // 8 * 128 // 8
    assert estimated(large).denoise - estimated(small).denoise <= per_cell * cells
    bands = estimated(made(folders["flux"], height=640, strategy="bands")).denoise
    assert bands > 1.2 * estimated(large).denoise, "control: the whole canvas does grow"


def test_a_plan_says_how_many_tiles_there_are(folders: dict[str, Path]) -> None:
    text = str(made(folders["flux"], workers=3, strategy_options={"shift": False}))
    assert "a step: at most 9 tiles of 64 x 64 px, 4 + 2 + 3, " in text
    assert ", and a canvas of 64 x 64 px" in text
    assert "tiles" not in str(made(folders["flux"], strategy="bands"))
