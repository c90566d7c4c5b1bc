"""Whatever is damaged in a store, no other picture comes of it: the damage drill as a test."""

from __future__ import annotations

import random

import pytest

from support import damage
from support.damage import CONDITIONS, ENDS, KINDS, Case, Drill, Outcome

NUM_SAMPLED = 6


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    return Drill(tmp_path_factory.mktemp("damage"))


def check(outcomes: list[Outcome]) -> None:
    """None of what must not be."""
    bad = [f"{o.case}: {o.end}\n{o.text}" for o in outcomes if o.end in ENDS[3:]]
    assert not bad, "\n".join(bad)


@pytest.mark.timeout(600)
def test_a_sample_of_all_damage_is_mended_or_one_line(drill: Drill) -> None:
    chance = random.Random(0)
    outcomes = [drill.run(case) for case in chance.sample(list(drill.cases()), NUM_SAMPLED)]
    check(outcomes)
    assert len({outcome.end for outcome in outcomes}) > 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_damage_is_mended_or_one_line(drill: Drill, kind: str, condition: str) -> None:
    check(
        [
            drill.run(case)
            for case in drill.cases()
            if (case.kind, case.condition) == (kind, condition)
        ]
    )


def test_control_without_digests_a_block_in_anothers_place_goes_unnoticed(
    drill: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("guided", "finished", "0/c/0/0/0", damage.SWAPPED)
    assert drill.run(case).end == "drawn again"
    for module in ("store.integrity.losses", "store.zarr_bucket"):
        monkeypatch.setattr(f"frieze.renderer.{module}.digest", lambda data: ANY)
    assert drill.run(case).end == "SILENTLY WRONG"


class _Any(str):
    """Equal to every digest."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


ANY = _Any()
