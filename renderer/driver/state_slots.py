"""Which slot of the store the next state goes to."""

from __future__ import annotations

from collections.abc import Sequence

from ..journal.inventory import SavedState

# One holds the newest state that counts, one is being written, and one may still be written to by
# a worker that was lost without a word.
NUM_SLOTS = 3


class StateSlots:
    """Which slot of a stage's array the next state goes to."""

    def __init__(self, states: Sequence[SavedState]) -> None:
        """`states` are those that the journal names, in their order.

        The workers of a driver that died may live for a moment, and write once more: to the slot
        whose turn it was.
        """
        self.newest = states[-1] if states else None
        self._writing, self._lost = (0, 0), (0, 0)
        if self.newest is not None:
            stage = self.newest.stage
            slots = [1 - self.newest.slot % 2, *(s.slot for s in states if s.stage == stage)]
            self._writing = (stage, slots[-2])
        self.give_up()

    def take(self, stage: int, num_slots: int) -> int:
        """A slot for the next state of a stage: not the newest's, nor one that was given up."""
        newest = self.newest
        taken = newest.slot if newest is not None and newest.stage == stage else None
        free = [slot for slot in range(num_slots) if slot != taken]
        slot = next((slot for slot in free if (stage, slot) != self._lost), free[0])
        self._writing = (stage, slot)
        return slot

    def give_up(self) -> None:
        """What was being written does not count; its slot is left to a worker that still may."""
        self._lost = self._writing
