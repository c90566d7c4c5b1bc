"""Which item is drawn by how many workers, in which order, and what runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpoints import build
from frieze.renderer import PlanError
from frieze.renderer.batches.items import read
from frieze.renderer.batches.scheduling import LARGE, MOST_TOGETHER, ScheduledItem, pack, phases


def packed(num_workers: int, **values: Any) -> ScheduledItem:
    asked = {"prompt": "a red sun", "size": "64x64", "device": "cpu", **values}
    (item,) = read([asked], Path("/tmp/nowhere"), {"local": False})
    return pack(item, 0, num_workers)


def jobs(num_workers: int, *listed: dict[str, Any]) -> list[ScheduledItem]:
    asked = [{"prompt": "a red sun", "size": "64x64", "device": "cpu", **v} for v in listed]
    made = read(asked, Path("/tmp/nowhere"), {"local": False})
    return [pack(item, number, num_workers) for number, item in enumerate(made)]


def test_a_small_picture_is_one_workers_and_a_large_one_is_cut() -> None:
    assert packed(4).width == 1
    assert packed(4, size="2048x2032").width == 1
    assert packed(4, size="2048x2048").width == 4
    assert LARGE == 2048 * 2048
    assert packed(1, size="2048x2048").width == 1


def test_a_large_picture_is_cut_as_far_as_its_rows_go() -> None:
    assert packed(6, size="65536x64", method="none", device_memory=1000).width == 4
    (stage,) = packed(6, size="2048x2048", method="none").plan.stages
    assert len(stage.bands) == 6


def test_what_one_device_cannot_hold_is_cut() -> None:
    alone = packed(2, size="512x512", device_memory=100).plan.estimate.bytes_per_device
    halves = packed(2, size="512x512", workers=2).plan.estimate.bytes_per_device
    assert halves < alone
    between = (alone + halves) / 2 / 0.95 / 2**30
    assert packed(2, size="512x512", device_memory=between).width == 2


def test_what_the_item_says_wins() -> None:
    assert packed(4, size="64x64", workers=2).width == 2
    assert packed(4, size="2048x2048", workers=1).width == 1
    with pytest.raises(PlanError, match="workers 5 are more than the 4 of the batch"):
        packed(4, workers=5)


def test_what_no_number_of_workers_can_draw_is_refused() -> None:
    with pytest.raises(PlanError, match="height 33 is no multiple of 16"):
        packed(3, size="64x33")


def order(made: list[Any]) -> list[tuple[int, int, list[int]]]:
    return [(phase.width, phase.num_lanes, [job.number for job in phase.jobs]) for phase in made]


def test_priorities_come_first_and_workers_change_as_seldom_as_can_be() -> None:
    made = jobs(
        3, {}, {"workers": 3}, {"seed": 2}, {"priority": 5}, {"workers": 3, "seed": 1}, {"seed": 3}
    )
    # The first to start is of the same width as those after it: one phase of both priorities.
    assert order(phases(made, 3, one_device=False)) == [(1, 3, [3, 0, 2, 5]), (3, 1, [1, 4])]
    assert order(phases(made, 3, one_device=True)) == [(1, 1, [3, 0, 2, 5]), (3, 1, [1, 4])]


def test_as_many_lanes_as_the_workers_give_and_the_items_need() -> None:
    made = jobs(5, *({"workers": 2, "seed": seed} for seed in range(3)), {"seed": 9})
    assert order(phases(made, 5, one_device=False)) == [(1, 1, [3]), (2, 2, [0, 1, 2])]


def test_items_with_the_same_weights_follow_each_other(tmp_path: Path) -> None:
    other = str(build("flux", tmp_path / "model"))
    listed = [{}, {"model": other, "num_inference_steps": 2}, {"seed": 1}, {"dtype": "bfloat16"}]
    made = jobs(2, *listed, {"model": other, "seed": 2})
    assert order(phases(made, 2, one_device=False)) == [(1, 2, [0, 2, 1, 4, 3])]


def test_on_one_device_weights_matter_before_workers(tmp_path: Path) -> None:
    listed = [{}, {"dtype": "bfloat16"}, {"workers": 2}, {"dtype": "bfloat16", "workers": 2}]
    made = jobs(2, *listed)
    assert order(phases(made, 2, one_device=True)) == [
        *((1, 1, [0]), (2, 1, [2]), (1, 1, [1]), (2, 1, [3])),
    ]
    assert order(phases(made, 2, one_device=False)) == [(1, 2, [0, 1]), (2, 1, [2, 3])]


def test_a_phase_holds_no_more_prompts_than_memory_may() -> None:
    (job,) = jobs(1, {})
    many = [job] * (MOST_TOGETHER + 1)
    made = phases(many, 2, one_device=False)
    assert [len(phase.jobs) for phase in made] == [MOST_TOGETHER, 1]
