"""The spectrum of a canvas' latent tokens, and gains of rotary frequencies made of it.

SEGA, arXiv 2605.22668. A band holds rows of the canvas only, so it makes its rows of a map of one
number a token; gathered, the map is small, and every rank takes the same spectrum of it.
Shape suffixes: B batch, T frames, H W rows and columns of tokens or of spatial frequencies, S all
of these, E features, N spatial frequencies of one axis, K bins, F rotary frequencies of one axis.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .method import Spectrum

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
    map_THW = map_THW.cpu().double()
    map_THW = map_THW - map_THW.mean(dim=(-2, -1), keepdim=True)
    return Spectrum(
        row=_profile(map_THW.transpose(-2, -1)),
        column=_profile(map_THW),
        radial=_radial(map_THW, max(map_THW.shape[-2:]) // 2),
    )


def _profile(map_THW: Tensor) -> Tensor:
    """|FFT|^2 along the last dim, averaged over the others, in evenly wide bins: [K]."""
    length = map_THW.shape[-1]
    power_N = torch.fft.rfft(map_THW).abs().square().flatten(0, -2).mean(dim=0)
    return _binned(power_N, max(length // 2, NUM_BINS))


def _binned(power_N: Tensor, num_bins: int) -> Tensor:
    """Means over bins of equal width; one narrower than a frequency takes what it lies in."""
    edge = torch.linspace(0, len(power_N), num_bins + 1, dtype=torch.float64)
    sum_N = torch.cat([power_N.new_zeros(1), power_N.cumsum(0)])
    whole = edge.floor().long().clamp(max=len(power_N) - 1)
    sum_at_edge = sum_N[whole] + (edge - whole) * power_N[whole]
    return sum_at_edge.diff() * num_bins / len(power_N)


def _radial(map_THW: Tensor, num_bins: int) -> Tensor:
    """Mean power of rings of equal width around frequency 0, which itself is left out: [K]."""
    power_S = torch.fft.fft2(map_THW).abs().square().mean(dim=0).flatten()[1:]
    if not len(power_S):
        return torch.ones(1, dtype=torch.float64)
    ring_S = _rings(*map_THW.shape[-2:], num_bins)
    num_R = ring_S.bincount()
    return (ring_S.bincount(power_S) / num_R)[num_R > 0]


@functools.lru_cache(maxsize=8)  # a canvas is asked about at every step
def _rings(num_rows: int, num_columns: int, num_bins: int) -> Tensor:
    """The ring in which each spatial frequency but 0 lies: [S]."""
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in (num_rows, num_columns))
    radius_S = torch.hypot(rows[:, None], columns).flatten()[1:]
    return (radius_S / radius_S.max() * num_bins).long().clamp(max=num_bins - 1)


def structure(radial_K: Tensor) -> float:
    """sigma = 1 - flatness^1.5 in 0..1: 0 for white noise, near 1 for a few strong frequencies."""
    floored_K = _floored(radial_K)
    flatness = floored_K.log().mean().exp() / floored_K.mean()
    return 1.0 - min(1.0, float(flatness)) ** STRUCTURE


def gains(profile_K: Tensor, radial_K: Tensor, num_frequencies: int, reference: float) -> Tensor:
    """m_F of one axis, never less than 1: strong bands get less than `reference`, weak ones more.

    The highest rotary frequency looks at the highest spatial one, and so on down.
    """
    share_F = torch.linspace(1, 0, num_frequencies, dtype=torch.float64)
    place_F = share_F * (len(profile_K) - 1)
    below_F = place_F.floor().long().clamp(max=max(len(profile_K) - 2, 0))
    log_K = _floored(profile_K).log()
    above_F = (below_F + 1).clamp(max=len(profile_K) - 1)
    log_F = torch.lerp(log_K[below_F], log_K[above_F], place_F - below_F)
    bent_F = (SHARPNESS * _standard(log_F)).tanh()
    bent_F = bent_F - bent_F.mean()
    return (reference * (1 - DEPTH * structure(radial_K) * bent_F)).clamp(min=1.0)


def _floored(power_K: Tensor) -> Tensor:
    """Powers whose logarithm exists; all ones where there is no power at all."""
    most = power_K.max()
    return torch.ones_like(power_K) if most <= 0 else power_K.clamp(min=float(most) * FLOOR)


def _standard(value_F: Tensor) -> Tensor:
    """Mean 0 and sample deviation 1; zeros where all values are alike."""
    centred_F = value_F - value_F.mean()
    spread = math.sqrt(float(centred_F.square().sum()) / max(1, len(value_F) - 1))
    return centred_F / spread if spread > FLOOR else torch.zeros_like(value_F)


def base_factor(num_frequencies: int, scale: float) -> float:
    """s^(2d / (d - 2)) / (1 + 0.1 ln s), by which the rotary base is multiplied."""
    exponent = 2 * num_frequencies / max(1, num_frequencies - 1)
    return float(scale**exponent / (1 + 0.1 * math.log(scale)))
