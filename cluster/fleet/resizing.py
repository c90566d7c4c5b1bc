"""When a fleet should be larger or smaller: decided here, asked and done in `ray_fleet`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """The fewest and the most ranks that are wanted, in multiples of `unit`."""

    least: int
    most: int
    unit: int = 1

    def fit(self, num_ranks: int) -> int:
        """The most of so many ranks that can be used; 0 if they are too few."""
        usable = min(num_ranks, self.most) // self.unit * self.unit
        return usable if usable >= self.least else 0


def next_size(
    bounds: Bounds,
    *,
    size: int,
    staying: int,
    ready: int,
    seconds_left: float,
    change_seconds: float,
) -> int:
    """How many ranks the next step should have.

    Of `size` ranks `staying` are on nodes that stay, and `ready` newcomers wait. Ranks on a node
    that leaves are let go while it is still there, unless too few would be left. Newcomers are
    taken when that pays: work is shared evenly, so s seconds on n ranks take s n / m on m, and a
    change costs `change_seconds`.
    """
    possible = bounds.fit(staying + ready)
    if staying < size and possible:
        return possible
    gained = seconds_left * (1 - size / possible) if possible > size else 0.0
    return possible if gained > change_seconds else size
