"""Which steps may reuse what an earlier one computed: `0.1`, or `0.1,ends=2`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, NamedTuple, Protocol

from pydantic import BeforeValidator

from ..errors import shown

MOST = 50  # letters
MOST_ENDS = 1000  # as many as steps


class HasSteps(Protocol):
    """A stage."""

    @property
    def num_steps(self) -> int: ...


class StepCache(NamedTuple):
    """The first-block cache of a render.

    A step reuses the other blocks' part where the first one's changed by at most `threshold` of
    itself; never the first and the last `ends` steps of a stage. The first has nothing to reuse;
    what the last one says of the picture is the picture.
    """

    threshold: float
    ends: int = 1

    def may_reuse(self, index: int, num_steps: int) -> bool:
        """Whether a step of a stage of so many is none of those at its ends."""
        return self.ends <= index < num_steps - self.ends


def step_cache(text: str) -> StepCache:
    """The cache that is asked for; ValueError that says what would work."""
    found = re.fullmatch(r"([0-9.]+)(?:, *ends=([0-9]{1,4}))?", text[:MOST].strip())
    try:
        threshold = float(found[1]) if found else 0.0
    except ValueError:
        threshold = 0.0
    ends = int(found[2] or 1) if found else 0
    if not (0 < threshold <= 1 and 1 <= ends <= MOST_ENDS):
        raise ValueError(
            f"{shown(text)} is no threshold above 0 up to 1, as 0.1; nor with steps to compute at "
            "both ends of a stage, as 0.1,ends=2"
        )
    return StepCache(threshold, ends)


def summary(text: str | None, stages: Iterable[HasSteps], num_blocks: int) -> list[str]:
    """What a plan says of it: the most that steps may reuse; work and time count none of it."""
    if text is None:
        return []
    threshold, ends = step_cache(text)
    counts = [stage.num_steps for stage in stages]
    most = sum(max(0, count - 2 * ends) for count in counts)
    return [
        f"cache     up to {most} of {sum(counts)} steps run the first of {num_blocks} blocks "
        f"alone, where it changed by at most {threshold:g}; all are counted as whole"
    ]


def _checked(value: object) -> object:
    """A number as text; and what is no cache is refused."""
    text = f"{value:g}" if isinstance(value, (int, float)) else value
    if isinstance(text, str):
        step_cache(text)
    return text


CacheText = Annotated[str, BeforeValidator(_checked)]
