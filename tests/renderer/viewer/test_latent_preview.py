"""Latents are shown in the colours that are known of them, and in false ones before."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.export import RUN, draw
from frieze.renderer.store.layout import LatentArray, StoreLayout
from frieze.renderer.store.store import SavedState, Store
from frieze.renderer.viewer import latent_preview
from frieze.renderer.viewer.tiles import TileCache, TilePyramid

SIDE, BLOCK = 256, 128
# Two stages of which each has one step: {"levels": [first, last]}.
STAGES = [{"height": 16, "width": 16, "levels": [[1.0], [0.0]]}] * 2


def make(path: Path, channels: int = 6) -> tuple[Store, np.ndarray, np.ndarray]:
    """A store of latents [C, 1, h, w] whose pixels are a linear map of them, none drawn yet."""
    side = SIDE // 8
    first, array = (LatentArray(n, (2, channels, 1, s, s), 8) for n, s in (("0", 16), ("1", side)))
    layout = StoreLayout(SIDE, SIDE, (BLOCK, BLOCK), latents=(first, array))
    store = Store.create(path, layout, fingerprint="f", run={**RUN, "stages": STAGES})
    random = np.random.default_rng(3)
    latents = random.normal(size=(channels, 1, side, side)).astype(np.float32)
    weights = random.normal(size=(channels, 3)) * 20
    colours = np.einsum("chw,cr->hwr", latents[:, 0], weights) + 128
    small = np.clip(colours, 0, 255).round().astype(np.uint8)
    return store, latents, small.repeat(8, 0).repeat(8, 1)


def save(store: Store, stage: int, latents: np.ndarray) -> None:
    rows = slice(0, latents.shape[2])
    store.confirm_state(SavedState(stage, 1, 0), [store.save_latents(stage, 0, rows, latents)])


def colours(store: Store, known: latent_preview.ColourFit | None) -> np.ndarray:
    """Of the newest state, in 0 to 255."""
    state = store.last_state()
    assert state is not None
    latents = latent_preview.small_latents(store, state)
    found = latent_preview.false_colours(latents) if known is None else known.colours(latents)
    return np.clip(found * 255, 0, 255)


def test_drawn_blocks_tell_the_colours_of_the_rest(tmp_path: Path) -> None:
    store, latents, pixels = make(tmp_path / "a.zarr")
    tiles = TilePyramid(store, TileCache(2**24))
    assert latent_preview.preview(store, None) is None
    save(store, 0, latents[:, :, :16, :16])
    assert latent_preview.fit(store, tiles) is None  # no pixels are decoded from these
    save(store, 1, latents)
    assert latent_preview.fit(store, tiles) is None
    draw(store, pixels, 0, BLOCK, None)
    known = latent_preview.fit(store, tiles)
    assert known is not None
    found, expected = colours(store, known), pixels[::8, ::8]
    inside = (expected > 0) & (expected < 255)
    undrawn = np.s_[BLOCK // 8 :]
    off = np.abs(found - expected)[undrawn][inside[undrawn]]
    assert np.median(off) <= 2
    false = np.abs(colours(store, None) - expected)[undrawn][inside[undrawn]]
    assert np.median(false) > 20  # control: what is not fitted is far off


@pytest.mark.parametrize("channels", [1, 2, 4, 16])
def test_false_colours_use_the_whole_range(channels: int) -> None:
    latents = np.random.default_rng(0).normal(size=(channels, 40, 30)) * 7 + 3
    found = latent_preview.false_colours(latents)
    assert found.shape == (40, 30, 3)
    assert 0.4 < found.mean() < 0.6
    assert 0.1 < found.std() < 0.4
    constant = latent_preview.false_colours(np.ones((channels, 4, 4)))
    assert np.isfinite(constant).all()


def test_large_latents_are_averaged(tmp_path: Path) -> None:
    array = LatentArray("0", (2, 4, 1, 600, 300), 100)
    layout = StoreLayout(600, 300, (300, 300), latents=(array,))
    store = Store.create(tmp_path / "a.zarr", layout, fingerprint="f", run=RUN)
    latents = np.random.default_rng(0).normal(size=(4, 1, 600, 300)).astype(np.float32)
    save(store, 0, latents)
    state = store.last_state()
    assert state is not None
    small = latent_preview.small_latents(store, state)
    assert small.shape == (4, 200, 100)
    expected = latents[:, 0].reshape(4, 200, 3, 100, 3).mean((2, 4))
    np.testing.assert_allclose(small, expected, atol=1e-6)
    shown = latent_preview.preview(store, None)
    assert shown is not None
    assert Image.open(io.BytesIO(shown)).size == (300, 600)  # the picture's
