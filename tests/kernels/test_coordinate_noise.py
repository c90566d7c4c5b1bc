"""Noise by place: normal, and the same however a canvas is cut."""

from __future__ import annotations

import pytest
import torch

from frieze.kernels.coordinate_noise import noise

ROWS, COLUMNS = range(512), range(384)


def test_any_cut_is_the_same() -> None:
    whole = noise(7, 3, ROWS, COLUMNS)
    for rows, columns in ((range(5, 17), COLUMNS), (range(500, 512), range(383, 384))):
        part = noise(7, 3, rows, columns)
        assert torch.equal(part, whole[:, rows.start : rows.stop, columns.start : columns.stop])
    assert torch.equal(noise(7, 1, ROWS, COLUMNS), whole[:1])
    moved = noise(7, 3, range(1, 513), COLUMNS)  # the control: by its place, not by its number
    assert not torch.equal(moved, whole)


def test_it_is_normal() -> None:
    x = noise(3, 2, ROWS, COLUMNS, dtype=torch.float64)
    assert float(x.mean()) == pytest.approx(0, abs=0.005)
    assert float(x.std()) == pytest.approx(1, abs=0.005)
    assert float((x**3).mean()) == pytest.approx(0, abs=0.03)
    assert float((x**4).mean()) == pytest.approx(3, abs=0.06)
    assert float((x.abs() < 1).double().mean()) == pytest.approx(0.6827, abs=0.003)


def test_neighbours_channels_seeds_and_streams_know_nothing_of_each_other() -> None:
    x = noise(3, 2, ROWS, COLUMNS)
    pairs = [
        (x[0], x[1]),
        (x[:, 1:], x[:, :-1]),
        (x[..., 1:], x[..., :-1]),
        (x[:, 1:, 1:], x[:, :-1, :-1]),
        *((x, noise(seed, 2, ROWS, COLUMNS)) for seed in (4, 3 + (1 << 32), 2**63 + 3)),
        (x, noise(3, 2, ROWS, COLUMNS, stream=1)),
        (x[:, :384], x[:, :384].mT),
    ]
    for one, other in pairs:
        assert float((one * other).mean()) == pytest.approx(0, abs=0.01)
    for row in range(2, 60):  # no row is another one, moved
        first, second = torch.fft.fft(x[0, 1]), torch.fft.fft(x[0, row])
        assert float(torch.fft.ifft(first * second.conj()).abs().max()) < 384 * 0.3
