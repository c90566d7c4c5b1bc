"""Spectra of a canvas' tokens, the same from bands, and gains that follow them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frieze.renderer.extrapolation.spectrum import (
    base_factor,
    gains,
    spectrum,
    structure,
    token_means,
)
from tolerances import CONTROL, EXACT_FLOAT64

REFERENCE = 4**0.08


def falling(num_bins: int, power: float = 2.0) -> Tensor:
    return torch.arange(1, num_bins + 1, dtype=torch.float64) ** -power


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def wave(height: int, width: int, cycles: int) -> Tensor:
    """Cycles along the column axis; rows are alike."""
    phase = 2 * torch.pi * cycles * torch.arange(width, dtype=torch.float64) / width
    return phase.cos().expand(1, height, width)


def test_factor_and_mean_gain_are_the_published_ones() -> None:
    assert base_factor(28, 4.0) == pytest.approx(15.57, abs=0.005)
    assert pytest.approx(1.1173, abs=5e-5) == REFERENCE
    assert base_factor(28, 1.0) == 1


@pytest.mark.parametrize(("num_bins", "within"), [(32, 0.015), (64, 0.01), (128, 0.005)])
def test_a_falling_spectrum_gains_detail_and_leaves_structure(num_bins: int, within: float) -> None:
    gain_F = gains(falling(num_bins), falling(128), 28, REFERENCE)
    # Known to three digits for 256 tokens, 128 bins; how its bins begin and end is not.
    assert float(gain_F[0]) == pytest.approx(1.238, abs=within)
    assert gain_F[-1] == 1
    assert bool((gain_F.diff() <= 0).all())


def test_white_noise_gains_the_reference_everywhere() -> None:
    flat = torch.ones(32, dtype=torch.float64)
    assert structure(flat) == pytest.approx(0, abs=EXACT_FLOAT64)
    assert gains(flat, flat, 28, REFERENCE).tolist() == [REFERENCE] * 28
    # And noise that is not quite flat nearly so, where structure is far from it.
    made = spectrum(noise(1, 64, 64))
    assert structure(made.radial) < 0.05
    assert structure(falling(32)) > 0.9


@pytest.mark.parametrize("cycles", [1, 5, 12])
def test_a_wave_is_found_at_its_frequency(cycles: int) -> None:
    made = spectrum(wave(48, 32, cycles))
    # 17 frequencies share 16 bins; the middle of one tells where most of it goes.
    assert int(made.column.argmax()) == int((cycles + 0.5) * 16 / 17)
    assert int(made.row.argmax()) == 0
    assert len(made.row) == 24
    turned = spectrum(wave(48, 32, cycles).transpose(1, 2))
    assert torch.allclose(turned.row, made.column)
    assert torch.allclose(turned.radial, made.radial)


def test_bins_keep_the_mean_power() -> None:
    map_THW = noise(1, 20, 33)
    power_HN = torch.fft.rfft(map_THW - map_THW.mean())[0].abs().square()
    assert float(spectrum(map_THW).column.mean()) == pytest.approx(float(power_HN.mean()))


def test_a_constant_does_not_count() -> None:
    map_THW = noise(1, 16, 16)
    for one, other in zip(_parts(map_THW), _parts(map_THW + 100), strict=True):
        assert torch.allclose(one, other)
    assert not torch.allclose(spectrum(map_THW).row, spectrum(2 * map_THW).row)


@pytest.mark.parametrize("rows", [(4, 4), (3, 5), (1, 2, 5)])
def test_bands_joined_in_rank_order_have_the_spectrum_of_the_canvas(rows: tuple[int, ...]) -> None:
    tokens_BHWE = noise(2, 8, 6, 10)
    bands = [part.flatten(1, 2) for part in tokens_BHWE.split(rows, dim=1)]
    maps = [token_means(band, 6) for band in bands]
    whole = spectrum(token_means(tokens_BHWE.flatten(1, 2), 6))
    joined = spectrum(torch.cat(maps, dim=1))
    for one, other in zip(vars(whole).values(), vars(joined).values(), strict=True):
        assert torch.allclose(one, other, rtol=EXACT_FLOAT64, atol=0)
    # A band's own spectrum is another.
    alone = spectrum(maps[-1])
    assert abs(structure(alone.radial) - structure(whole.radial)) > CONTROL


def test_tokens_of_a_clip_lie_frame_by_frame() -> None:
    tokens_BTHWE = noise(1, 3, 4, 5, 7)
    map_THW = token_means(tokens_BTHWE.flatten(1, 3), 5, num_frames=3)
    assert torch.allclose(map_THW, tokens_BTHWE.mean(dim=(0, 4)))
    frames = [spectrum(frame[None]).row for frame in map_THW]
    assert torch.allclose(spectrum(map_THW).row, torch.stack(frames).mean(0))


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    num_frequencies=st.integers(1, 32),
    kind=st.sampled_from(["noise", "wave", "constant", "point"]),
)
def test_gains_are_numbers_of_any_map(
    size: tuple[int, int, int], num_frequencies: int, kind: str
) -> None:
    frames, height, width = size
    map_THW = {
        "noise": noise(*size),
        "wave": wave(height, width, 2).expand(frames, -1, -1),
        "constant": torch.full(size, 3.0),
        "point": torch.nn.functional.pad(torch.ones(frames, 1, 1), (0, width - 1, 0, height - 1)),
    }[kind]
    made = spectrum(map_THW)
    for profile_K in (made.row, made.column):
        gain_F = gains(profile_K, made.radial, num_frequencies, REFERENCE)
        assert gain_F.shape == (num_frequencies,)
        assert bool((gain_F.isfinite() & (gain_F >= 1)).all())


def _parts(map_THW: Tensor) -> list[Tensor]:
    return list(vars(spectrum(map_THW)).values())
