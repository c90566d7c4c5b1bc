"""The spectrum of a canvas' latent tokens, and gains of rotary frequencies made of it.

SEGA, arXiv 2605.22668. A band holds rows of the canvas only, so it makes its rows of a map of one
number a token; gathered, the map is small, and every rank takes the same spectrum of it, in numpy,
whose calls cost a few small arrays less than torch's.
Shape suffixes: B batch, T frames, H W rows and columns of tokens or of spatial frequencies, S all
of these, E features, N spatial frequencies of one axis, K bins, F rotary frequencies of one axis.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .method import Spectrum

Array = NDArray[np.float64]

NUM_BINS = 8  # at least
# How far gains leave their mean, how sharply, and how fast structure counts.
DEPTH, SHARPNESS, STRUCTURE = 0.15, 1.5, 1.5
# Of the largest power: what stands for none where its logarithm is taken.
FLOOR = 1e-12


def token_means(token_BSE: Tensor, num_columns: int, num_frames: int = 1) -> Tensor:
    """A band's rows of the map, float64 [T, H, W]: tokens behind the input projection, averaged.

    The average is over batch and features. Maps of bands in rank order, joined along H, are the
    canvas' map.
    """
    mean_S = token_BSE.mean(dim=(0, 2), dtype=torch.float64)
    return mean_S.reshape(num_frames, -1, num_columns)


def spectrum(map_THW: Tensor) -> Spectrum:
    """Power of the whole canvas' map by frequency along rows' and columns' axis, and by radius.

    Frames of a clip are averaged as powers. It is made on the CPU, in the same bits everywhere.
    """
    found_THW = map_THW.cpu().double().numpy()
    wave_THW = np.fft.fft2(found_THW - found_THW.mean(axis=(-2, -1), keepdims=True))
    power_HW = (wave_THW.real**2 + wave_THW.imag**2).mean(axis=0)
    return Spectrum(
        row=torch.from_numpy(_profile(power_HW.T)),
        column=torch.from_numpy(_profile(power_HW)),
        radial=torch.from_numpy(_radial(power_HW)),
    )


def _profile(power_HW: Array) -> Array:
    """|FFT|^2 along the last dim alone, averaged over the other, in evenly wide bins: [K].

    By Parseval's theorem that is the mean of the transform's of both, a length of the other less.
    """
    height, width = power_HW.shape
    power_N = power_HW.mean(axis=0)[: width // 2 + 1] / height
    return _binned(power_N, max(width // 2, NUM_BINS))


def _binned(power_N: Array, num_bins: int) -> Array:
    """Means over bins of equal width; one narrower than a frequency takes what it lies in."""
    whole, rest = _edges(len(power_N), num_bins)
    sum_N = np.concatenate([np.zeros(1), power_N.cumsum()])
    sum_at_edge = sum_N[whole] + rest * power_N[whole]
    return np.diff(sum_at_edge) * num_bins / len(power_N)


# A canvas is asked about at every step: what depends on its size alone is kept.
@functools.lru_cache(maxsize=8)
def _edges(length: int, num_bins: int) -> tuple[NDArray[np.int64], Array]:
    """Where the edges of even bins lie: the frequency, and the part of it below the edge."""
    edge = np.linspace(0, length, num_bins + 1)
    whole = np.minimum(np.floor(edge).astype(np.int64), length - 1)
    return whole, edge - whole


def _radial(power_HW: Array) -> Array:
    """Mean power of rings of equal width around frequency 0, which itself is left out: [K]."""
    power_S = power_HW.ravel()[1:]
    if not len(power_S):
        return np.ones(1)
    ring_S, num_R = _rings(*power_HW.shape, max(power_HW.shape) // 2)
    total_R = np.bincount(ring_S, power_S, minlength=len(num_R))
    return total_R[num_R > 0] / num_R[num_R > 0]


@functools.lru_cache(maxsize=8)
def _rings(
    num_rows: int, num_columns: int, num_bins: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ring in which each spatial frequency but 0 lies: [S]; and how many lie in each: [R]."""
    radius_S = np.hypot(np.fft.fftfreq(num_rows)[:, None], np.fft.fftfreq(num_columns)).ravel()[1:]
    ring_S = np.minimum((radius_S / radius_S.max() * num_bins).astype(np.int64), num_bins - 1)
    return ring_S, np.bincount(ring_S)


def structure(radial_K: Tensor) -> float:
    """sigma = 1 - flatness^1.5 in 0..1: 0 for white noise, near 1 for a few strong frequencies."""
    floored_K = _floored(radial_K.numpy())
    flatness = float(np.exp(np.log(floored_K).mean()) / floored_K.mean())
    return 1.0 - min(1.0, flatness) ** STRUCTURE


def gains(profile_K: Tensor, radial_K: Tensor, num_frequencies: int, reference: float) -> Tensor:
    """m_F of one axis, never less than 1: strong bands get less than `reference`, weak ones more.

    The highest rotary frequency looks at the highest spatial one, and so on down.
    """
    below_F, above_F, rest_F = _places(num_frequencies, len(profile_K))
    log_K = np.log(_floored(profile_K.numpy()))
    log_F = log_K[below_F] + rest_F * (log_K[above_F] - log_K[below_F])
    bent_F = np.tanh(SHARPNESS * _standard(log_F))
    bent_F = bent_F - bent_F.mean()
    gain_F = reference * (1 - DEPTH * structure(radial_K) * bent_F)
    return torch.from_numpy(np.maximum(gain_F, 1.0))


@functools.lru_cache(maxsize=8)
def _places(
    num_frequencies: int, num_bins: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The bins between which each rotary frequency looks, and how far on from the first."""
    place_F = np.linspace(1, 0, num_frequencies) * (num_bins - 1)
    below_F = np.minimum(np.floor(place_F).astype(np.int64), max(num_bins - 2, 0))
    return below_F, np.minimum(below_F + 1, num_bins - 1), place_F - below_F


def _floored(power_K: Array) -> Array:
    """Powers whose logarithm exists; all ones where there is no power at all."""
    most = float(power_K.max())
    return np.ones_like(power_K) if most <= 0 else np.maximum(power_K, most * FLOOR)


def _standard(value_F: Array) -> Array:
    """Mean 0 and sample deviation 1; zeros where all values are alike."""
    centred_F = value_F - value_F.mean()
    spread = math.sqrt(float(centred_F @ centred_F) / max(1, len(value_F) - 1))
    return centred_F / spread if spread > FLOOR else np.zeros_like(value_F)


def base_factor(num_frequencies: int, scale: float) -> float:
    """s^(2d / (d - 2)) / (1 + 0.1 ln s), by which the rotary base is multiplied."""
    exponent = 2 * num_frequencies / max(1, num_frequencies - 1)
    return float(scale**exponent / (1 + 0.1 * math.log(scale)))
