"""Libraries are imported without a search for garbage, and afterwards all is as before."""

from __future__ import annotations

import gc

import pytest

from frieze.renderer.models.imports import uncollected


def test_no_garbage_is_looked_for_until_all_is_imported() -> None:
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()


def test_a_program_that_never_looks_is_left_so() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
