"""Seconds are work over rates: in turns, on the cores of a processor, and on devices apart."""

from __future__ import annotations

import pytest

from frieze.kernels.work import Work
from frieze.renderer.costs.cost_table import cost_table
from frieze.renderer.costs.device_kinds import DeviceKind, Limits, Rates
from frieze.renderer.costs.prediction import predict
from frieze.renderer.costs.stage_costs import RankCost, RenderCost, StageCost, StepCost

RATES = Rates(
    dtype="float32",
    matmul=100,
    conv=50,
    attention=25,
    copied=10,
    call=0.5,
    banded_call=2,
    conv_call=0.25,
    banded_conv_call=1,
    link=5,
    message=3,
)
KIND = DeviceKind(kind="x", measured=(RATES,), limits=None)
# 1 + 2 + 4 + 10 + 2 seconds that cores share; by 3 calls, 2 convolutions and 1 message others.
WORK = Work(100, 100, 100, touched=100, calls=3, sent=10, messages=1, convs=2)


def cost(num_ranks: int) -> RenderCost:
    ranks = (RankCost(num_ranks, WORK),)
    light = StepCost((1, 3), 1, 1.0, ranks=(RankCost(num_ranks, Work(matmul=100)),))
    stage = StageCost(1, (light, StepCost((2,), 1, 1.0, ranks=ranks)), begin=(ranks,))
    return RenderCost((stage,), ranks)


@pytest.mark.parametrize(
    ("placement", "num_ranks", "heavy", "light"),
    [
        ("apart", 1, 19 + 1.5 + 0.5 + 3, 1),
        ("apart", 4, 19 + 6 + 2 + 3, 1),
        ("cores", 4, 4 * 19 + 6 + 2 + 3, 4),
        ("turns", 4, 4 * (19 + 6 + 2 + 3), 4),
    ],
)
def test_seconds_by_placement(placement: str, num_ranks: int, heavy: float, light: float) -> None:
    found = predict(cost(num_ranks), KIND, "float32", placement)  # type: ignore[arg-type]
    assert found is not None
    (stage,) = found.stages
    assert stage.steps == pytest.approx((light, heavy, light))
    assert (stage.begin, found.decode) == pytest.approx((heavy, heavy))
    assert found.total == pytest.approx(3 * heavy + 2 * light)
    assert not found.is_limit
    heads, first, *_, last = cost_table(cost(num_ranks), found)
    assert heads.endswith("seconds")
    assert float(first.split()[-1]) == pytest.approx(stage.total, rel=0.01)
    assert float(last.split()[-1]) == pytest.approx(found.total, rel=0.01)


@pytest.mark.parametrize(("placement", "writers"), [("apart", 4), ("cores", 1), ("turns", 1)])
def test_blocks_and_states_take_seconds_of_their_own(placement: str, writers: int) -> None:
    slow = DeviceKind(kind="x", measured=(RATES.model_copy(update={"block": 0.25, "state": 0.5}),))
    plain, found = (
        predict(cost(4), kind, "float32", placement, 40)  # type: ignore[arg-type]
        for kind in (KIND, slow)
    )
    assert plain is not None
    assert found is not None
    more = [b - a for a, b in zip(plain.stages[0].steps, found.stages[0].steps, strict=True)]
    assert more == pytest.approx([0.5] * 3)
    assert found.decode - plain.decode == pytest.approx(0.25 * 40 / writers)


def test_limits_are_at_least_and_other_precisions_nothing() -> None:
    limits = Limits(source="a sheet", flops={"bfloat16": 100}, memory=1)
    kind = DeviceKind(kind="x", limits=limits)
    found = predict(cost(2), kind, "bfloat16", "apart")
    assert found is not None
    assert found.is_limit
    assert found.stages[0].steps == (1, 3, 1)
    assert cost_table(cost(2), found)[0].endswith("seconds, at least")
    assert predict(cost(2), kind, "float32", "apart") is None
    assert predict(cost(2), KIND, "bfloat16", "apart") is None
