"""What a render costs: steps, beginnings and decoding, on each rank; needs no torch.

What is counted, and how, is in `planning/flop_trace.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from frieze.kernels.work import Work

if TYPE_CHECKING:
    from frieze.cluster.bands import ConvShape


@dataclass(frozen=True)
class WindowCost:
    """Windows that the layers of one size of map attend in; the largest has so many queries, keys.

    `rows` and `columns` are the map's. `fusion` names the axes along which their answers are fused
    with the canvas', or with those of so many `grids` of it; None where they are not. `pooled` are
    blocks of the rest of the canvas that each query asks too. `share` is of the pairs
    of queries and keys that full attention has.
    """

    rows: int
    columns: int
    num_layers: int
    num_windows: int
    queries: int
    keys: int
    share: float
    fusion: str | None = None
    grids: int = 0
    pooled: int = 0

    def __str__(self) -> str:
        layers = f"{self.num_layers} layers" if self.num_layers > 1 else "1 layer"
        text = (
            f"{layers} of {self.rows} x {self.columns} tokens: {self.num_windows} windows of "
            f"{self.queries} queries x {self.keys} keys{self._pooled}, {self.share:.2g} of full "
            "attention"
        )
        if self.fusion:
            text += f"; fused with {f'{self.grids} grids of ' if self.grids else ''}the canvas"
            text += f" along {self.fusion}"
        return text

    @property
    def _pooled(self) -> str:
        return f" and {self.pooled} blocks of the rest" if self.pooled else ""


@dataclass(frozen=True)
class RankCost:
    """So many ranks that do alike, and what each of them does."""

    num_ranks: int
    work: Work


Ranks = tuple[RankCost, ...]


def all_ranks(ranks: Ranks) -> Work:
    """Of all ranks together."""
    return sum((each.work.times(each.num_ranks) for each in ranks), start=Work())


@dataclass(frozen=True)
class StepCost:
    """Steps, from 1, that a method changes alike, and the FLOPs of one for one prompt.

    `ranks` have what a whole step asks of each rank, once: all prompts, and the solver. `draws`
    are how often each step is drawn, if not once.
    """

    steps: tuple[int, ...]
    flops: int
    relative: float  # to a step with full attention and the network's own convolutions
    windows: tuple[WindowCost, ...] = ()
    geometry: ConvShape | None = None
    ranks: Ranks = ()
    draws: tuple[int, ...] = ()

    @property
    def num_draws(self) -> int:
        """Of all these steps."""
        return sum(self.draws) or len(self.steps)


@dataclass(frozen=True)
class StageCost:
    """The kinds of a stage's steps; `direct` is one that changes nothing at the stage's size.

    `flops` are of all steps and prompts, `relative` to as many steps that change nothing. `begin`
    is what comes before the first step: the picture that is enlarged is decoded and encoded.
    """

    direct: int
    kinds: tuple[StepCost, ...]
    num_prompts: int = 1  # that each step evaluates
    begin: tuple[Ranks, ...] = ()
    flops: int = field(init=False)
    relative: float = field(init=False)

    def __post_init__(self) -> None:
        flops = self.num_prompts * sum(kind.num_draws * kind.flops for kind in self.kinds)
        num_draws = sum(kind.num_draws for kind in self.kinds)
        direct = self.num_prompts * num_draws * self.direct
        object.__setattr__(self, "flops", flops)
        object.__setattr__(self, "relative", flops / direct if direct else 0.0)

    @property
    def num_steps(self) -> int:
        """Steps of all kinds."""
        return sum(len(kind.steps) for kind in self.kinds)

    @property
    def steps_work(self) -> Work:
        """What all steps ask of all ranks."""
        done = (all_ranks(kind.ranks).times(kind.num_draws) for kind in self.kinds)
        return sum(done, start=Work())

    @property
    def begin_work(self) -> Work:
        """What comes before the first step, on all ranks."""
        return sum(map(all_ranks, self.begin), start=Work())


@dataclass(frozen=True)
class RenderCost:
    """What denoising costs, stage by stage, and decoding the picture at the end.

    `relative` are the FLOPs of denoising to those of drawing the picture directly: in one stage
    of the first stage's steps, with full attention.
    """

    stages: tuple[StageCost, ...]
    decode: Ranks = ()
    relative: float = field(init=False)

    def __post_init__(self) -> None:
        drawn = [stage for stage in self.stages if stage.num_steps]
        flops = sum(stage.flops for stage in drawn)
        direct = drawn[0].num_steps * drawn[-1].num_prompts * drawn[-1].direct if drawn else 0
        object.__setattr__(self, "relative", flops / direct if direct else 0.0)

    @property
    def rows(self) -> list[tuple[str, Work, Work]]:
        """(what, work of steps, work of autoencoders) of each stage and of decoding."""
        rows = [
            (f"stage {number}", stage.steps_work, stage.begin_work)
            for number, stage in enumerate(self.stages, 1)
        ]
        return [*rows, ("decoding", Work(), all_ranks(self.decode))]

    def lines(self, index: int) -> Iterator[str]:
        """What `frieze plan` says of a stage: a line for each kind of step, and their windows."""
        for kind in self.stages[index].kinds:
            changed = _geometry(kind.geometry)
            if not changed and not kind.windows:
                changed = ["the network as it is"]
            lead = ", ".join([*changed, *_attention(kind.windows)])
            share = f"{kind.relative:.3g} of the FLOPs of drawing this size directly"
            yield f"{_ranges(kind.steps)}: {lead}; {share}"
            yield from (f"  {each}" for each in kind.windows)


def _attention(windows: Sequence[WindowCost]) -> list[str]:
    """What layers attend to, where that is not the canvas."""
    if any(each.pooled for each in windows):
        return ["attention in windows and to pooled context"]
    return ["attention in windows"] if windows else []


def _ranges(steps: Sequence[int]) -> str:
    """steps 1-7, 9."""
    runs = []
    for _, run in groupby(enumerate(steps), lambda pair: pair[1] - pair[0]):
        numbers = [step for _, step in run]
        runs.append(f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0]))
    return f"{'steps' if len(steps) > 1 else 'step'} {', '.join(runs)}"


def _geometry(shape: ConvShape | None) -> list[str]:
    """Layers that stride farther by name, how many are dilated, and what is pooled."""
    if shape is None:
        return []
    strided = {name: each for name, each in shape.convs.items() if each.stride > 2}
    dilated = Counter(e.dilation for name, e in shape.convs.items() if name not in strided)
    return [
        *(f"{name} of stride {e.stride}, dilation {e.dilation}" for name, e in strided.items()),
        *(f"{number} layers dilated by {by}" for by, number in dilated.items()),
        *(f"blocks pooled from {pool.after} to {pool.until}" for pool in shape.pools),
    ]
