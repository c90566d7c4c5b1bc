"""The first-block cache: as diffusers has it, and one decision of a whole canvas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache
from torch import Tensor, nn

from frieze.cluster.bands import BandError, BandMode, BlockCache, BlockRun, hook_blocks, mark
from frieze.cluster.comm import Comm, run_threads, solo
from frieze.cluster.layout import Band, Canvas
from frieze.renderer.checkpoints.checkpoint import load_family
from frieze.renderer.models.family import BandPlace, Guidance
from frieze.renderer.models.positions import trained
from frieze.renderer.sampling.noise_levels import NoiseLevel
from support.banded import BANDS, WIDTH, Attention, canvas, rows_of
from support.denoising import CPU, Studio, latents, noise, spec
from tolerances import AMPLE, CONTROL, EXACT_FLOAT64


class Pointwise(nn.Module):
    """Blocks that know their own tokens only, the text among them joined or not."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x_BSE: Tensor) -> Tensor:
        return x_BSE + self.scale * x_BSE.sin()


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()

    def forward(self, x_BSE: Tensor) -> Tensor:
        return x_BSE + self.attn(x_BSE)


class Network(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = x_BCHW.flatten(2).mT
        for block in self.blocks:
            x = block(x)
        return x.mT.unflatten(2, x_BCHW.shape[2:])


def run_of(*blocks: nn.Module) -> BlockRun:
    run = BlockRun(Network(*blocks), ("blocks",))
    hook_blocks(run)
    return run


def changed(x: Tensor, rows: slice, by: float) -> Tensor:
    y = x.clone()
    y[..., rows, :] += by
    return y


def two_steps(
    run: BlockRun, cache: BlockCache, x: Tensor, y: Tensor, mode: Callable[[], Any]
) -> tuple[Tensor, bool]:
    """What the second step gives, and whether it reused the first."""
    found, num_own = x, x.shape[-2] * x.shape[-1]
    for index, each in enumerate((x, y)):
        with torch.no_grad(), mode(), cache.step(run, num_own, computes=index == 0):
            found = run.network(each)
    return found, cache.is_reused


@pytest.mark.parametrize(("by", "is_reused"), [(0.3, True), (3.0, False)])
def test_all_ranks_decide_by_the_whole_canvas(by: float, is_reused: bool) -> None:
    """A change of the topmost rows most of all: the first band by itself says no, others yes."""
    run = run_of(Pointwise(0.5), Pointwise(-0.3), Pointwise(0.2))
    x = canvas(2, 3)
    y = changed(changed(x, slice(0, 4), by), slice(4, None), 0.02)

    def rank(comm: Comm, own: bool) -> tuple[Tensor, bool]:
        rows = (rows_of(x, BANDS[comm.rank]), rows_of(y, BANDS[comm.rank]))
        at = Canvas(1, x.shape[-2], WIDTH)
        cache = BlockCache(0.12, solo() if own else comm)
        return two_steps(run, cache, *rows, lambda: BandMode(comm, BANDS, canvas=at))

    whole, decided = two_steps(run, BlockCache(0.12, solo()), x, y, torch.no_grad)
    assert decided == is_reused
    ranks = run_threads(lambda comm: rank(comm, False), len(BANDS), timeout=AMPLE)
    assert {reused for _, reused in ranks} == {is_reused}
    shared = torch.cat([rows for rows, _ in ranks], dim=-2)
    assert float((shared - whole).abs().max()) <= EXACT_FLOAT64
    alone = run_threads(lambda comm: rank(comm, True), len(BANDS), timeout=AMPLE)
    assert [reused for _, reused in alone] == [False, True, True], "control"
    seam = torch.cat([rows for rows, _ in alone], dim=-2)
    assert float((seam - whole).abs().max()) > CONTROL, "control"


def test_marked_layers_of_blocks_that_are_left_out_need_not_attend() -> None:
    """And others must."""
    x = canvas(1, 8)
    run = run_of(Attending(), Attending(), Attending())
    marks = (mark(run.network, lambda name, layer: isinstance(layer, Attention)),)

    def rank(comm: Comm, each: Any, whole: tuple[Band, ...]) -> bool:
        cache, at = BlockCache(1.0, comm), Canvas(1, x.shape[-2], WIDTH)
        own = rows_of(x, whole[comm.rank])
        return two_steps(
            run, cache, own, own, lambda: BandMode(comm, whole, marks=each, canvas=at)
        )[1]

    assert (
        run_threads(lambda comm: rank(comm, marks, BANDS), len(BANDS), timeout=AMPLE) == [True] * 3
    )
    absent = (mark(nn.ModuleDict({"other": Attention()}), lambda name, _: name == "other"),)
    with pytest.raises(BandError, match="other"):
        rank(solo(), (*marks, *absent), (Band(0, x.shape[-2]),))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", ["flux", "qwen", "wan"])
def test_it_is_diffusers_first_block_cache(family: str, tmp_path: Path) -> None:
    """Step by step on the same network: what is reused, and what comes of it."""
    studio = Studio.of(family, tmp_path)
    stock = load_family(studio.facts.family).load(studio.facts, spec(studio.folder), CPU)
    for part in (*vars(stock).values(), *getattr(stock, "experts", ())):
        if isinstance(part, nn.Module):
            part.double()
    for expert in getattr(studio.model, "experts", ()):
        expert.double()
    shapes = load_family(studio.facts.family).text_shapes(studio.facts, spec(studio.folder))
    tensors = {name: noise(*shape, seed=2) for name, shape in shapes.items()}
    at = Canvas(1, 8, 6)
    place = BandPlace(Band(0, at.height), at, trained)
    threshold = 0.05
    network = getattr(stock, "transformer", None) or stock.experts[0]
    apply_first_block_cache(network, FirstBlockCacheConfig(threshold=threshold))
    levels = [NoiseLevel(t, 0.5, 0.5) for t in (500.0, 500.01, 500.02, 480.0, 480.01)]
    run = studio.model.block_run(levels[0])
    hook_blocks(run)
    cache, reused = BlockCache(threshold, solo()), []
    for index, level in enumerate(levels):
        x = latents(studio.facts, at) + 0.001 * index
        tokens = at.height * at.width // studio.facts.latent.patch**2
        with torch.no_grad(), network.cache_context("cond"):
            expected = stock.denoised(x, level, tensors, place, Guidance())
        with torch.no_grad(), cache.step(run, tokens, computes=False):
            found = studio.model.denoised(x, level, tensors, place, Guidance())
        reused.append(cache.is_reused)
        worst = float((found - expected).abs().max() / expected.abs().max())
        assert worst <= EXACT_FLOAT64, (index, reused)
    assert reused == [False, True, True, False, True]
