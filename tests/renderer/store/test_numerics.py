"""What decides the last bits is noted once, and told in one line where it is not what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from frieze.kernels.attention import attend
from frieze.renderer.journal.journal import FileJournal
from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.store import numerics
from frieze.renderer.worker import precision

RANK = {"torch": "2.13.0", "capability": "AVX2", "threads": "2"}
USED = RANK | {"attention": "cpu_flash"}


@pytest.fixture
def journal(tmp_path: Path) -> FileJournal:
    return FileJournal(tmp_path / "journal.jsonl")


def test_a_rank_tells_libraries_processor_threads_and_the_attention_it_has_used() -> None:
    attend(*torch.randn(3, 1, 2, 5, 8))
    found = precision.numerics(RenderSpec(prompt="a"), torch.device("cpu"))
    assert found.keys() >= {*precision.LIBRARIES, "device", "capability", "threads", "dtype"}
    assert found["torch"] == torch.__version__
    assert found["threads"] == str(torch.get_num_threads())
    assert "cpu_flash" in found["attention"].split(", ")


def test_what_is_known_already_is_noted_no_more(journal: FileJournal) -> None:
    for ranks in ([RANK], [RANK], [USED], [USED], [RANK], [USED, USED]):
        assert numerics.record(journal, ranks) == ""
    assert [event["ranks"] for event in journal.read()] == [[RANK], [USED]]


def test_what_differs_is_one_line_and_told_once(journal: FileJournal) -> None:
    numerics.record(journal, [USED])
    new = USED | {"torch": "2.14.0", "capability": "AVX512"}
    assert numerics.record(journal, [new]) == (
        "drawn before with torch 2.13.0, not 2.14.0, capability AVX2, not AVX512: "
        "the bytes agree to rounding only"
    )
    assert numerics.record(journal, [new]) == ""


def test_other_numbers_of_ranks_are_not_compared_by_their_attention(journal: FileJournal) -> None:
    numerics.record(journal, [USED])
    assert numerics.record(journal, [USED | {"attention": "reference"}] * 2) == ""
    assert "attention" in numerics.record(journal, [USED | {"attention": "reference"}])


def test_ranks_that_differ_from_each_other_are_told(journal: FileJournal) -> None:
    text = numerics.record(journal, [RANK, RANK | {"capability": "AVX512"}])
    assert text.startswith("workers differ (capability AVX2 and AVX512)")


@pytest.mark.parametrize("ranks", [None, 7, "x", [], [7], [{"torch": ["\x1b"] * 10**4}]])
def test_a_journal_that_somebody_else_wrote_breaks_nothing(
    journal: FileJournal, ranks: Any
) -> None:
    journal.append({"event": numerics.EVENT, "ranks": ranks})
    assert len(numerics.record(journal, [RANK])) < 400
    assert numerics.recorded(journal) == [RANK]
