"""What stays of latents and of pixels, against plain arithmetic."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from frieze.renderer.sampling.inpainting import Outside, cell_means, composited
from frieze.renderer.sampling.noise_levels import NoiseLevel


def test_latents_stay_where_nothing_is_drawn() -> None:
    clean, noise, x = torch.randn(3, 1, 4, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    drawn = torch.zeros(1, 1, 1, 6, 5)
    drawn[..., 2:] = 1
    drawn[..., 1] = 0.25
    outside = Outside(clean, noise, drawn)
    assert torch.equal(outside.kept(x, None)[..., 0], clean[..., 0])
    kept = outside.kept(x, NoiseLevel(500.0, 0.6, 0.8))
    given = 0.6 * clean + 0.8 * noise
    assert torch.equal(kept[..., 2:], x[..., 2:])
    assert torch.equal(kept[..., :1], given[..., :1])
    assert torch.allclose(kept[..., 1], 0.75 * given[..., 1] + 0.25 * x[..., 1])


def test_cells_are_means_of_their_pixels_and_frames() -> None:
    x = torch.rand(1, 1, 9, 16, 24, generator=torch.Generator().manual_seed(0))
    expected = F.avg_pool2d(x[:, 0], 8)[:, None]
    assert torch.allclose(cell_means(x[:, :, :1], 8, 1), expected[:, :, :1])
    clip = cell_means(x, 8, 4)
    assert clip.shape == (1, 1, 3, 2, 3)
    assert torch.allclose(clip[:, :, 0], expected[:, :, 0])
    assert torch.allclose(clip[:, :, 2], expected[:, :, 5:].mean(2))


def test_pixels_stay_bit_by_bit_and_what_is_drawn_is_within_range() -> None:
    given = torch.rand(1, 4, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    given[:, 3] = 0
    given[:, 3, :, 2:] = 1
    drawn = torch.full((1, 3, 1, 4, 4), 1.7, dtype=torch.bfloat16)
    made = composited(drawn, given)
    assert torch.equal(made[..., :2, :], given[:, :3, :, :2])
    assert torch.equal(made[..., 2:, :], torch.ones(1, 3, 1, 2, 4))
