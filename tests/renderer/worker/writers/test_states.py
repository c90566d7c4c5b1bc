"""States are written beside the work, and into slots that nobody needs."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from frieze.renderer.driver.state_slots import NUM_SLOTS, StateSlots
from frieze.renderer.journal.inventory import SavedState
from frieze.renderer.worker.writers.states import StateWriter
from tolerances import AMPLE


def test_what_is_written_is_what_was_there_when_it_began() -> None:
    saving, written, may_write = StateWriter(), [], threading.Event()

    def write(rows_CTHW: np.ndarray) -> None:
        assert may_write.wait(AMPLE)
        written.append(rows_CTHW.copy())

    x, memory = torch.rand(2, 1, 3, 4), torch.rand(1, 1, 3, 4)
    before = torch.cat([x, memory]).numpy()
    saving.start([x, memory], write)
    assert written == []
    x.zero_()
    may_write.set()
    saving.settle()
    assert np.array_equal(written[0], before)
    saving.settle()  # nothing more to wait for
    assert len(written) == 1


def test_an_error_is_raised_by_whoever_waits_unless_it_no_longer_matters() -> None:
    def write(rows_CTHW: np.ndarray) -> None:
        raise OSError("no room")

    saving = StateWriter()
    saving.start([torch.zeros(1, 1, 1, 1)], write)
    with pytest.raises(OSError, match="no room"):
        saving.settle()
    saving.start([torch.zeros(1, 1, 1, 1)], write)
    saving.drop()
    saving.settle()


def states(*places: tuple[int, int, int]) -> list[SavedState]:
    return [SavedState(*place) for place in places]


def test_a_state_never_takes_the_newest_ones_slot() -> None:
    slots = StateSlots([])
    for step in range(1, 8):
        slot = slots.take(0, NUM_SLOTS)
        assert slots.newest is None or slot != slots.newest.slot
        slots.newest = SavedState(0, step, slot)


def test_a_slot_that_was_given_up_is_left_to_a_worker_that_may_still_write() -> None:
    slots = StateSlots(states((0, 1, 0)))
    for _ in range(3):
        given_up = slots.take(0, NUM_SLOTS)
        slots.give_up()
        for step in range(2, 9):
            slot = slots.take(0, NUM_SLOTS)
            assert slot != given_up
            slots.newest = SavedState(0, step, slot)


def test_control_two_slots_cannot_keep_one_free() -> None:
    """Stores of earlier versions have two: the newest state is safe, a stale writer is not."""
    slots = StateSlots(states((0, 1, 0)))
    given_up = slots.take(0, 2)
    slots.give_up()
    assert slots.take(0, 2) == given_up == 1


@pytest.mark.parametrize(
    ("named", "turn"),
    [((), 0), (((0, 1, 0),), 1), (((0, 1, 1),), 0), (((0, 1, 0), (0, 2, 2)), 0)],
)
def test_a_resume_leaves_the_slot_whose_turn_it_was(
    named: tuple[tuple[int, int, int], ...], turn: int
) -> None:
    slots = StateSlots(states(*named))
    for step in range(3, 9):
        slot = slots.take(0, NUM_SLOTS)
        assert slot != turn
        slots.newest = SavedState(0, step, slot)


def test_each_stage_has_slots_of_its_own() -> None:
    slots = StateSlots(states((0, 4, 0)))
    assert slots.take(1, NUM_SLOTS) == 0
