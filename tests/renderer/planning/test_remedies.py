"""What would fit instead of what does not, found with as few attempts as may be."""

from __future__ import annotations

import functools

import pytest

from frieze.renderer.planning.estimate import Estimate, fits, remedies
from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.spec.units import GIB


def test_what_would_fit_is_found_by_trying() -> None:
    spec = RenderSpec(prompt="x", workers=2)
    tried = []

    def attempt(changed: RenderSpec) -> Estimate:
        tried.append(changed.workers)
        return Estimate(weights=GIB, denoise=8 * GIB // changed.workers, decode=GIB)

    assert fits(attempt(spec), 4 * GIB) is not None
    found = remedies(spec, 4 * GIB, attempt)
    assert [each.split()[1] for each in found] == ["4"]
    assert tried == [2, 4, 2]


def test_lighter_weights_and_more_workers_are_tried_together_if_neither_does() -> None:
    spec = RenderSpec(prompt="x")
    tried = []

    def attempt(changed: RenderSpec) -> Estimate:
        tried.append((changed.storage_dtype is not None, changed.workers))
        weights = 2 * GIB if changed.storage_dtype else 4 * GIB
        return Estimate(weights=weights, denoise=8 * GIB // changed.workers, decode=GIB)

    (found,) = remedies(spec, 4 * GIB, attempt)
    assert found.startswith("--storage-dtype float8_e4m3fn --workers 8 ")
    # Two workers hold weights of 4 GiB each: so would any number of them.
    assert tried == [(False, 2), (True, 1), (True, 2), (True, 4), (True, 8)]


@pytest.mark.parametrize("workers", [1, 2, 3, 48])
@pytest.mark.parametrize("most", [1, 5, 40, 64])
def test_numbers_that_cannot_do_are_not_tried_and_none_is_missed(workers: int, most: int) -> None:
    """Of pictures that can be cut for so many workers at `most`."""
    spec = RenderSpec(prompt="x", workers=workers, quantization="bnb-8bit")

    def attempt(changed: RenderSpec, denoise: float = 0.0) -> Estimate | None:
        if changed.workers > most:
            return None
        return Estimate(weights=GIB, denoise=int(denoise * GIB / changed.workers), decode=GIB)

    for denoise in (2, 10, 40, 150, 1000):
        numbers = [workers << n for n in range(1, 7) if workers << n <= 64]
        each = ((n, attempt(spec.model_copy(update={"workers": n}), denoise)) for n in numbers)
        fewest = [n for n, needed in each if needed and fits(needed, 4 * GIB) is None][:1]
        known = attempt(spec, denoise)
        found = remedies(spec, 4 * GIB, functools.partial(attempt, denoise=denoise), known)
        assert [int(told.split()[1]) for told in found] == fewest


def test_control_without_what_is_needed_every_number_is_tried() -> None:
    tried: list[int] = []
    spec = RenderSpec(prompt="x", quantization="bnb-8bit")
    needed = Estimate(weights=GIB, denoise=1000 * GIB, decode=GIB)

    def attempt(changed: RenderSpec) -> Estimate:
        tried.append(changed.workers)
        return needed

    assert remedies(spec, 4 * GIB, attempt) == ()
    assert tried == [2, 4, 8, 16, 32, 64]
    tried.clear()
    assert remedies(spec, 4 * GIB, attempt, needed) == ()
    assert tried == [32, 64]
