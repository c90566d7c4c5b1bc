"""Unmodified diffusers modules on bands equal the same modules on the whole canvas."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from frieze.cluster.bands import BandMode, Marks, mark
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, Mesh, cut
from support.cases import CASES, Case
from support.processes import run_processes
from support.shared import kept
from tolerances import AMPLE, CONTROL, EXACT_FLOAT32, EXACT_FLOAT64

pytestmark = pytest.mark.long
DTYPES = {torch.float64: EXACT_FLOAT64, torch.float32: EXACT_FLOAT32}
few = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@kept
def reference(name: str, dtype: torch.dtype) -> Tensor:
    """What one process makes of the canvas."""
    case = CASES[name]
    with torch.no_grad():
        return case.draw(case.model(dtype), case.canvas(dtype), Band(0, case.height))


@kept
def marked(name: str, dtype: torch.dtype, copy: int = 0) -> tuple[nn.Module, Marks]:
    """The model with its canvas attentions marked; to be built outside of threads."""
    case = CASES[name]
    model = case.model(dtype)
    return model, mark(model, lambda layer, _: case.match(layer), case.context)


def on_bands(
    comm: Comm, name: str, dtype: torch.dtype, bands: tuple[Band, ...], mesh: Mesh | None
) -> Tensor:
    """This rank's rows of the result."""
    case, band = CASES[name], bands[comm.rank]
    model, marks = marked(name, dtype, comm.rank if case.keeps_state else 0)
    with BandMode(comm, bands, mesh=mesh, marks=[marks], canvas=case.latent):
        return case.draw(model, case.rows_of(case.canvas(dtype), band), band)


def distance(name: str, dtype: torch.dtype, parts: list[Tensor]) -> float:
    """Largest difference from one process; in float32 relative to the largest value."""
    whole = reference(name, dtype)
    difference = float((torch.cat(parts, dim=-2) - whole).abs().max())
    return difference if dtype == torch.float64 else difference / float(whole.abs().max())


def threaded(name: str, dtype: torch.dtype, bands: tuple[Band, ...], **axes: int) -> float:
    """The distance of bands that threads draw, all with one model where it keeps no state."""
    for rank in range(len(bands) if CASES[name].keeps_state else 1):
        marked(name, dtype, rank)
    mesh = Mesh(**axes) if axes else None
    return distance(name, dtype, run_threads(on_bands, len(bands), name, dtype, bands, mesh))


def cuts(case: Case, num_bands: int) -> st.SearchStrategy[tuple[Band, ...]]:
    """Any cut of the case's canvas into so many bands."""
    units = case.height // case.align
    edges = st.lists(
        st.integers(1, units - 1), min_size=num_bands - 1, max_size=num_bands - 1, unique=True
    )
    return edges.map(
        lambda inner: tuple(
            Band(a * case.align, b * case.align) for a, b in pairwise([0, *sorted(inner), units])
        )
    )


def unequal(case: Case, num_bands: int) -> tuple[Band, ...]:
    """A cut with the tallest band in the middle."""
    weights = [3.0 if i == num_bands // 2 else 1.0 for i in range(num_bands)]
    return cut(case.height, num_bands, case.align, weights)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_bands_match_one_process(name: str, num_ranks: int) -> None:
    @few
    @given(bands=cuts(CASES[name], num_ranks))
    def holds(bands: tuple[Band, ...]) -> None:
        assert threaded(name, torch.float64, bands) <= EXACT_FLOAT64

    holds()


@pytest.mark.parametrize(
    "num_ranks",
    [1, pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", CASES)
def test_bands_match_one_process_in_float32(name: str, num_ranks: int) -> None:
    bands = unequal(CASES[name], num_ranks)
    assert threaded(name, torch.float32, bands) <= EXACT_FLOAT32


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
@pytest.mark.parametrize("name", CASES)
def test_bands_without_the_mode_are_wrong(name: str, num_ranks: int) -> None:
    """The control: were the mode to do nothing, the tests above would see it."""
    case = CASES[name]
    model, _ = marked(name, torch.float64)
    x = case.canvas(torch.float64)
    parts = [case.draw(model, case.rows_of(x, band), band) for band in unequal(case, num_ranks)]
    assert distance(name, torch.float64, parts) > CONTROL


MESHES = [
    {"ring": 2, "ulysses": 2},
    {"ring": 1, "ulysses": 2},
    {"ring": 1, "ulysses": 3},
    {"ring": 2, "ulysses": 1},
]


@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize("name", ["flux", "wan", "vae_decode"])
def test_every_mesh_matches_one_process(name: str, mesh: dict[str, int]) -> None:
    """Flux has 3 heads and the autoencoder 1, so heads do not divide either."""
    bands = unequal(CASES[name], Mesh(**mesh).world_size)
    assert threaded(name, torch.float64, bands, **mesh) <= EXACT_FLOAT64


def text_of_blocks(
    comm: Comm, models: list[nn.Module], dtype: torch.dtype, bands: tuple[Band, ...]
) -> list[Tensor]:
    """The text rows that leave FLUX's double blocks, and their attentions, on this rank."""
    case, model, band = CASES["flux"], models[comm.rank], bands[comm.rank]
    marks = mark(model, lambda layer, _: case.match(layer), case.context)
    texts: list[Tensor] = []
    for block in model.transformer_blocks:
        block.attn.register_forward_hook(lambda layer, args, out: texts.append(out[1]))
        block.register_forward_hook(lambda layer, args, out: texts.append(out[0]))
    with BandMode(comm, bands, mesh=Mesh(ring=2, ulysses=2), marks=[marks]):
        case.draw(model, case.rows_of(case.canvas(dtype), band), band)
    return texts


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_text_rows_have_the_same_bits_on_every_rank(dtype: torch.dtype) -> None:
    case = CASES["flux"]
    models = [case.model(dtype) for _ in range(4)]
    first, *others = run_threads(text_of_blocks, 4, models, dtype, unequal(case, 4))
    assert len(first) == 4
    for texts in others:
        assert all(torch.equal(a, b) for a, b in zip(first, texts, strict=True))


PROCESS_CASES = ("vae_decode", "unet", "flux", "wan")


def several_on_bands(comm: Comm, dtype: torch.dtype) -> dict[str, Any]:
    """One spawn, several modules."""
    return {
        name: on_bands(comm, name, dtype, unequal(CASES[name], comm.size), None)
        for name in PROCESS_CASES
    }


def test_bands_of_real_processes_match_one_process() -> None:
    outcomes = run_processes(3, several_on_bands, torch.float64, timeout=AMPLE)
    for outcome in outcomes:
        assert isinstance(outcome, dict), outcome
    for name in PROCESS_CASES:
        parts = [outcome[name] for outcome in outcomes]
        assert distance(name, torch.float64, parts) <= EXACT_FLOAT64
