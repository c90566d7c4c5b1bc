"""Work over the rates of a device: the seconds that a render will take; needs no torch.

A rank's seconds are the sum of what its FLOPs, its bytes, its operations and its messages take;
ranks that share a device wait for each other, and so do the cores of one processor.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any, Literal

from frieze.kernels.work import Work

from .device_kinds import DeviceKind, Rates
from .stage_costs import Ranks, RenderCost

# How ranks lie on devices: each on its own; processes on the cores of one processor; or threads
# of which one at a time computes.
Placement = Literal["apart", "cores", "turns"]


@dataclass(frozen=True)
class StageSeconds:
    """Of what comes before the first step, and of each step in order."""

    begin: float
    steps: tuple[float, ...]

    @property
    def total(self) -> float:
        """Of the stage."""
        return self.begin + sum(self.steps)


@dataclass(frozen=True)
class Prediction:
    """Seconds of a render's stages and of its decoding, without its start, by figures of a kind.

    `is_limit`: by what the maker publishes, so that it takes longer.
    """

    kind: str
    stages: tuple[StageSeconds, ...]
    decode: float
    is_limit: bool = False

    @property
    def total(self) -> float:
        """Of all."""
        return sum(stage.total for stage in self.stages) + self.decode

    def facts(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**asdict(self), "total": self.total}


def predict(
    cost: RenderCost, kind: DeviceKind, dtype: str, placement: Placement, num_blocks: int = 0
) -> Prediction | None:
    """None where there are figures of neither kind in this precision.

    The store takes `num_blocks` blocks of pixels, and a state each step.
    """
    rates, limits = kind.rates(dtype), kind.limits
    if rates is None and (limits is None or dtype not in limits.flops):
        return None

    def seconds(ranks: Ranks) -> float:
        if rates is not None:
            return _seconds(ranks, rates, placement)
        assert limits is not None
        flops = [each.work.flops for each in ranks for _ in range(each.num_ranks)]
        whole = max(flops, default=0) if placement == "apart" else sum(flops)
        return whole / limits.flops[dtype]

    block, state = (rates.block, rates.state) if rates is not None else (0.0, 0.0)
    stages = []
    for stage in cost.stages:
        by_step = {
            step: often * seconds(kind.ranks)
            for kind in stage.kinds
            for step, often in zip(kind.steps, kind.draws or repeat(1), strict=False)
        }
        steps = tuple(by_step[step] + state for step in sorted(by_step))
        stages.append(StageSeconds(sum(map(seconds, stage.begin)), steps))
    num_ranks = sum(each.num_ranks for each in cost.decode) if placement == "apart" else 1
    decode = seconds(cost.decode) + block * num_blocks / max(1, num_ranks)
    return Prediction(kind.kind, tuple(stages), decode, is_limit=rates is None)


def _seconds(ranks: Ranks, rates: Rates, placement: Placement) -> float:
    """Until the last rank is done."""
    is_banded = sum(each.num_ranks for each in ranks) > 1
    if placement == "apart":
        works = (each.work for each in ranks)
        alone = (_computing(work, rates) + _waiting(work, rates, is_banded) for work in works)
        return max(alone, default=0.0)
    computing = sum(each.num_ranks * _computing(each.work, rates) for each in ranks)
    waiting = [(each.num_ranks, _waiting(each.work, rates, is_banded)) for each in ranks]
    if placement == "turns":
        return computing + sum(number * each for number, each in waiting)
    return computing + max((each for _, each in waiting), default=0.0)


def _computing(work: Work, rates: Rates) -> float:
    """What a device's cores share."""
    flops = work.matmul / rates.matmul + work.conv / rates.conv + work.attention / rates.attention
    return flops + work.touched / rates.copied + work.sent / rates.link


def _waiting(work: Work, rates: Rates, is_banded: bool) -> float:
    """What each rank's thread does one thing after the other."""
    call, conv = rates.call, rates.conv_call
    if is_banded:
        call, conv = rates.banded_call, rates.banded_conv_call
    return work.calls * call + work.convs * conv + work.messages * rates.message
