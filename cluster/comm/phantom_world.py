"""A rank without others: every message has its shape and no content, for meta tensors.

What a rank receives is made where it would be received, and what it sends is held as long as a
real rank holds it, so the memory that a rank needs can be counted on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .collectives import Comm
from .messages import CommError, Like, Pending

Receiving = Callable[[], AbstractContextManager[Any]]
Sending = Callable[[Sequence[int]], None]


class PhantomComm(Comm):
    """One rank of a world in which nobody else exists and nothing is sent."""

    def __init__(
        self,
        rank: int,
        size: int,
        device: torch.device | str,
        receiving: Receiving,
        sending: Sending,
    ) -> None:
        super().__init__(rank, size, 0.0, device)
        self._receiving, self._sending = receiving, sending

    def _post(self, sends: Mapping[int, Tensor], receives: Mapping[int, Like], tag: int) -> Pending:
        self._sending([x.numel() * x.element_size() for x in sends.values()])
        with self._receiving():
            sent = [x.contiguous() for x in sends.values()]
            received = {
                rank: torch.empty(like.shape, dtype=like.dtype, device=like.device)
                for rank, like in receives.items()
            }

        def finish() -> dict[int, Tensor]:
            sent.clear()
            return received

        return Pending(finish)

    def broadcast_object(self, obj: Any, source: int) -> Any:
        """This rank's own object, for there is no other; CommError if another has it."""
        if self.rank != source:
            raise CommError(f"rank {source} would broadcast, but rank {self.rank} is alone")
        return obj

    def all_gather_object(self, obj: Any) -> list[Any]:
        """This rank's object once for every rank."""
        return [obj] * self.size

    def group(self, ranks: Sequence[int]) -> Comm:
        """As many phantoms as `ranks`, numbered in the order given."""
        super().group(ranks)  # refuses what cannot be
        return PhantomComm(
            ranks.index(self.rank), len(ranks), self.device, self._receiving, self._sending
        )

    def abort(self, reason: str) -> None:
        """Nobody hears it."""

    def close(self) -> None:
        """Holds nothing."""


def phantom(
    rank: int,
    size: int,
    *,
    device: torch.device | str = "meta",
    receiving: Receiving = nullcontext,
    sending: Sending = lambda _: None,
) -> Comm:
    """Rank `rank` of `size`, alone; what it receives and copies to send is made in `receiving()`.

    `sending` is told the bytes of each message that is posted together. CommError unless
    0 <= rank < size.
    """
    if not 0 <= rank < size:
        raise CommError(f"rank {rank} is not one of the {size} ranks")
    return PhantomComm(rank, size, device, receiving, sending)
