"""Parts of a canvas that ask prompts of their own: every family's network, on any ranks.

Shape suffixes: B batch, L text tokens, E features, P prompts, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.bands import BandMode
from frieze.cluster.comm import Comm, axis_comms, run_threads
from frieze.cluster.layout import Band, Canvas, Mesh
from frieze.renderer.checkpoints.checkpoint import load_family
from frieze.renderer.models.family import BandPlace, Guidance
from frieze.renderer.models.positions import trained
from frieze.renderer.models.regional_prompts import RegionalPrompts
from support.denoising import LEVEL, Studio, distance, latents, noise, rows_of, spec, whole
from tolerances import CASTS_TO_FLOAT32, CONTROL, EXACT_FLOAT64

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
# Tokens of each prompt's text, where a family takes any number.
LENGTHS: dict[str, Sequence[int]] = {"wan": (9, 9, 9), "zimage": (40, 3, 33)}
NAMES = (
    *("flux", "flux2", "sd35", "qwen", "wan", "zimage", "sdxl"),
    pytest.param("sd15", marks=pytest.mark.slow),  # a U-Net like SDXL's
)
MESHES = (Mesh(ring=2), Mesh(ring=3), Mesh(ulysses=2), Mesh(ring=2, ulysses=2))
CUTS = {2: (0, 1, 6), 3: (0, 3, 4, 6), 4: (0, 1, 2, 4, 6)}  # in whole patches


@pytest.fixture(scope="module", params=NAMES)
def studio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    made = Studio.of(request.param, tmp_path_factory.mktemp("edits"))
    for expert in getattr(made.model, "experts", ()):
        expert.double()
    return made


def name(studio: Studio) -> str:
    return studio.folder.name


def canvas(studio: Studio) -> Canvas:
    patch = studio.facts.latent.patch
    return Canvas(2 if studio.facts.video else 1, 6 * patch, 4 * patch)


def bands(studio: Studio, mesh: Mesh) -> tuple[Band, ...]:
    patch = studio.facts.latent.patch
    if mesh.world_size == 1:
        return whole(canvas(studio))
    edges = [patch * edge for edge in CUTS[mesh.world_size]]
    return tuple(map(Band, edges, edges[1:]))


def texts(studio: Studio, *, alike: bool = False) -> list[dict[str, Tensor]]:
    """Three prompts' tensors; with `alike` the first one's three times."""
    shapes = load_family(studio.facts.family).text_shapes(studio.facts, spec(studio.folder))
    lengths = LENGTHS.get(name(studio), (7, 5, 12))
    found = []
    for seed, length in enumerate(lengths):
        embeds = noise(1, length, shapes["embeds"][2], seed=seed)
        pooled = {key: noise(*shapes[key], seed=seed) for key in shapes.keys() - {"embeds"}}
        found.append({"embeds": embeds, **pooled})
    return found[:1] * 3 if alike else found


def edits(studio: Studio) -> RegionalPrompts:
    """Three prompts that share every cell in another way."""
    at = canvas(studio)
    share_PHW = noise(3, at.height, at.width, seed=9).mul(4).softmax(0)
    return RegionalPrompts(("a", "b", "c"), share_PHW)


def denoised(
    studio: Studio, told: Sequence[Mapping[str, Tensor]], mesh: Mesh, **changes: Any
) -> Tensor:
    """x0 of the canvas, whose parts are told different prompts, on a mesh of threads."""
    at, cuts, prompts = canvas(studio), bands(studio, mesh), edits(studio)
    x, marks = latents(studio.facts, at), studio.model.denoiser_marks(LEVEL)
    tensors = prompts.joined(told)

    def rank(comm: Comm) -> Tensor:
        comms, band = axis_comms(changes.get("comm") or comm, mesh), cuts[comm.rank]
        place = prompts.place(BandPlace(band, at, trained), told)
        with torch.no_grad(), BandMode(comms, cuts, marks=marks, canvas=at):
            return studio.model.denoised(rows_of(x, band), LEVEL, tensors, place, Guidance())

    return torch.cat(run_threads(rank, mesh.world_size), dim=-2)


def alone(studio: Studio, tensors: Mapping[str, Tensor], band: Band | None = None) -> Tensor:
    """x0 of the canvas, or of a band by itself, under one prompt, outside any mode."""
    at = canvas(studio)
    band = band or whole(at)[0]
    x = rows_of(latents(studio.facts, at), band)
    with torch.no_grad():
        return studio.model.denoised(x, LEVEL, tensors, BandPlace(band, at, trained), Guidance())


def limit(studio: Studio) -> float:
    return CASTS_TO_FLOAT32 if studio.facts.family == "wan" else EXACT_FLOAT64


def test_one_prompt_told_three_times_is_that_prompt(studio: Studio) -> None:
    told = texts(studio, alike=True)
    for mesh in (Mesh(), Mesh(ring=3)):
        assert distance(denoised(studio, told, mesh), alone(studio, told[0])) <= limit(studio)


def test_ranks_and_heads_agree(studio: Studio) -> None:
    told = texts(studio)
    one = denoised(studio, told, Mesh())
    for mesh in MESHES:
        assert distance(denoised(studio, told, mesh), one) <= limit(studio)
    for text in told:  # the control: no prompt by itself is the same
        assert distance(alone(studio, text), one) > CONTROL


def test_control_other_shares_on_a_rank_show(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = texts(studio)
    one = denoised(studio, told, Mesh())
    from frieze.cluster.attention import Regions

    of_band = Regions.of_band
    monkeypatch.setattr(
        Regions, "of_band", lambda self, grid, rank, like: of_band(self, grid, 0, like).roll(1, 0)
    )
    assert distance(denoised(studio, told, Mesh()), one) > CONTROL
