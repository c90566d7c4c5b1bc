"""What saved latents look like before they are decoded: a linear map of them to colours.

Where pixels of these weights are drawn, of this picture or another one, the map is fitted to them
by least squares. Else the colours are false ones: the first principal component becomes lightness,
the next two colour. Neither needs a model.
Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..codecs import picture_rows
from ..codecs.tile_pyramid import TILE
from ..store.store import SavedState, Store
from .tiles import TilePyramid

SIDE = 256  # latents of a preview along a side, at the most
SHOWN = 1024  # and pixels
LEAST_SAMPLES = 8  # for each unknown of a fit
SMALLEST = 1e-3  # singular value of a fit, to the largest: what hardly varied tells nothing
RANGE = 2.5  # standard deviations from black to white
# Lightness and two colours that oppose each other, as rows of R, G and B.
COLOURS = np.array([[1.0, 1.0, 1.0], [0.35, -0.05, -0.3], [-0.25, 0.25, -0.2]])


@dataclass(frozen=True, eq=False)
class ColourFit:
    """R, G and B in 0 to 1 as `weights` [C + 1, 3] times the channels and a one."""

    weights: np.ndarray

    def colours(self, latents_CHW: np.ndarray) -> np.ndarray:
        """Colours [H, W, 3] in 0 to 1."""
        samples = latents_CHW.reshape(latents_CHW.shape[0], -1).T
        found = np.hstack([samples, np.ones((len(samples), 1))]) @ self.weights
        return found.reshape(*latents_CHW.shape[1:], 3)


def key_of(store: Store) -> tuple[str, str, int] | None:
    """What two stores must share for one's fit to be the other's; None without states."""
    state = store.last_state()
    if state is None:
        return None
    run, channels = store.run, store.layout.latents[state.stage].shape[1]
    return str(run.get("weights", "")), str(run.get("decoder", "")), channels


def is_final(store: Store, state: SavedState) -> bool:
    """Whether a state is what the picture is decoded from."""
    steps = store.num_steps
    return bool(steps) and (state.stage, state.step) == (len(steps) - 1, steps[-1])


def small_latents(store: Store, state: SavedState, frame: int = 0) -> np.ndarray:
    """A frame's latents [C, H, W], averaged to at most `SIDE` a side; read strip by strip.

    Raises `StoreError` where they are written over meanwhile.
    """
    array = store.layout.latents[state.stage]
    _, channels, frames, height, width = array.shape
    by = math.ceil(max(height, width) / SIDE)
    at = _latent_frame(frame, store.layout.frames, frames)
    small = np.zeros((channels, math.ceil(height / by), math.ceil(width / by)))
    for top in range(0, height, by):
        rows = slice(top, min(top + by, height))
        mean_CW = store.load_latents(state.stage, state.slot, rows, slice(at, at + 1))[:, 0].mean(1)
        padded = np.pad(mean_CW, ((0, 0), (0, -width % by)), mode="edge")
        small[:, top // by] = padded.reshape(channels, -1, by).mean(2)
    return small


def fit(store: Store, pyramid: TilePyramid) -> ColourFit | None:
    """The map from a store's final latents to the pixels drawn of them; None with too few."""
    state = store.last_state()
    if state is None or not is_final(store, state) or not store.done():
        return None
    frame = 0 if store.layout.frames is None else store.layout.frames // 2
    latents_CHW = small_latents(store, state, frame)
    level = min(pyramid.top, TILE.bit_length() - 1)  # the largest that is one tile
    tile = pyramid.tile(level, 0, 0, frame)
    size = latents_CHW.shape[:0:-1]
    pixels = Image.fromarray(picture_rows.of_bits(tile.pixels_HWC, 8)).resize(
        size, Image.Resampling.BOX
    )
    drawn = Image.fromarray(tile.drawn_HW.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    is_drawn = np.asarray(drawn).ravel() == 255
    samples = latents_CHW.reshape(len(latents_CHW), -1).T[is_drawn]
    if len(samples) < LEAST_SAMPLES * (samples.shape[1] + 1):
        return None
    known = np.hstack([samples, np.ones((len(samples), 1))])
    colours = np.asarray(pixels).reshape(-1, 3)[is_drawn] / 255
    return ColourFit(np.linalg.lstsq(known, colours, rcond=SMALLEST)[0])


def false_colours(latents_CHW: np.ndarray) -> np.ndarray:
    """Colours [H, W, 3] in 0 to 1 of latents that nothing is known of."""
    samples = latents_CHW.reshape(len(latents_CHW), -1).T
    samples = samples - samples.mean(0)
    _, axes = np.linalg.eigh(samples.T @ samples)
    parts = samples @ axes[:, ::-1][:, :3]
    parts = np.pad(parts, ((0, 0), (0, 3 - parts.shape[1])))
    parts /= np.maximum(parts.std(0), 1e-6) * 2 * RANGE
    return (0.5 + parts @ COLOURS).reshape(*latents_CHW.shape[1:], 3)


def preview(store: Store, known: ColourFit | None, frame: int = 0) -> bytes | None:
    """A PNG of the newest state in the picture's shape; None where there is none."""
    state = store.last_state()
    if state is None:
        return None
    latents_CHW = small_latents(store, state, frame)
    colours = false_colours(latents_CHW) if known is None else known.colours(latents_CHW)
    pixels = np.clip(np.nan_to_num(colours) * 255, 0, 255).round().astype(np.uint8)
    # In the picture's shape: latents of an earlier stage have another one by a few pixels.
    height, width = store.layout.height, store.layout.width
    scale = min(1.0, SHOWN / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, format="PNG")
    return file.getvalue()


def _latent_frame(frame: int, frames: int | None, latent_frames: int) -> int:
    """The latent frame that a frame is decoded from, or nearly."""
    if frames is None or frames == 1:
        return 0
    return round(frame * (latent_frames - 1) / (frames - 1))
