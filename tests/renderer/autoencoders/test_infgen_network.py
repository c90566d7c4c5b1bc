"""InfGen's decoder: where it starts, and that a window of the canvas is the whole's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.renderer.autoencoders.infgen_network import InfGenDecoder, Latent
from frieze.renderer.autoencoders.infgen_positions import (
    Window,
    centres,
    in_cells,
    neighbours,
    sphere,
)
from support.decoders import decoder
from tolerances import CONTROL, CROP_FLOAT32, ENLARGED, EXACT_FLOAT64

SIZE = (384, 64)  # taller than the network reaches from its middle
INNER = Window(SIZE, range(170, 203), range(3, 60))
BORDERS = [Window(SIZE, rows, range(64)) for rows in (range(8), range(376, 384))]


def latent(made: InfGenDecoder) -> Latent:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(1, 4, 12, 8, generator=generator, dtype=made.dtype)
    picture = torch.randn(1, 3, 96, 64, generator=generator, dtype=made.dtype)
    return made.latent(z, picture / 3)


def largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("num_steps", [1, 3])
def test_it_starts_as_the_enlarged_decode(num_steps: int) -> None:
    made = decoder(torch.float32)
    given = latent(made)
    expected = F.interpolate(given.picture_B3HW, size=SIZE, mode="bicubic")
    window = Window.whole(SIZE)
    moved = made.draw(given, window, seed=0, num_steps=num_steps)
    assert largest(moved, expected) > CONTROL  # the control: with a last layer that is not zero
    torch.nn.init.zeros_(made.conv_out.weight)
    assert largest(made.draw(given, window, seed=0, num_steps=num_steps), expected) < ENLARGED


def test_faint_edges_are_as_large_as_strong_ones_to_the_network() -> None:
    made, window = decoder(gain=1.0, least_contrast=0.001), Window.whole(SIZE)
    z = torch.zeros(1, 4, 12, 8, dtype=torch.float64)
    edge = torch.ones(1, 3, 96, 64, dtype=torch.float64)
    edge[..., 32:] = -1
    gains = [made.gains(made.latent(z, contrast * edge), window) for contrast in (0.5, 0.05)]
    middle = [float(each[0, 0, 190, 31]) for each in gains]
    assert middle[1] == pytest.approx(10 * middle[0], rel=0.1)
    assert 1 / 0.5 < middle[0] < 2 / 0.5  # over about the standard deviation there
    assert float(gains[0].max()) == pytest.approx(1000)  # where all is flat
    double = made.gains(made.latent(z, 0.5 * edge), Window.whole((768, 128)))
    assert float(double[0, 0, 381, 63]) == pytest.approx(middle[0], rel=0.1)


def test_a_new_one_starts_there() -> None:
    made = InfGenDecoder(latent_channels=4, width=32, depth=1, heads=2, pixel_widths=(8, 16))
    given = latent(made)
    expected = F.interpolate(given.picture_B3HW, size=(192, 128), mode="bicubic")
    assert largest(made.draw(given, Window.whole((192, 128)), seed=0), expected) < ENLARGED


VARIANTS: list[dict[str, Any]] = [
    {},
    {"mode": "global"},
    {"contrast": False, "kernel": 5},
    {"depth": 0},
    {"palette": 0},
    {"num_steps": 2},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, EXACT_FLOAT64), (torch.float32, CROP_FLOAT32)], ids=str
)
def test_a_window_is_that_of_the_whole(
    options: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    made = decoder(dtype, **options)
    given, whole = latent(made), Window.whole(SIZE)
    expected = made.draw(given, whole, seed=5)
    for window in (INNER, *BORDERS):
        found = made.draw(given, window, seed=5)
        assert largest(found, window.of(whole, expected)) < tolerance


@pytest.mark.parametrize("options", VARIANTS[:5], ids=str)
def test_control_half_the_halo_is_too_little(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = decoder(**options)
    given, whole = latent(made), Window.whole(SIZE)
    expected = made.draw(given, whole, seed=5)
    short = made.reach // 2
    monkeypatch.setattr(InfGenDecoder, "reach", short)
    found = made.draw(given, INNER, seed=5)
    assert largest(found, INNER.of(whole, expected)) > EXACT_FLOAT64 * 100


def test_the_noise_is_the_seeds_and_the_frames() -> None:
    made = decoder()
    given = latent(made)
    first = made.draw(given, INNER, seed=5)
    assert torch.equal(first, made.draw(given, INNER, seed=5, frame=0))
    for other in ({"seed": 6}, {"seed": 5, "frame": 1}):
        assert largest(first, made.draw(given, INNER, **other)) > CONTROL


def test_rows_taken_in_turn_are_those_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = decoder()
    given = latent(made)
    at_once = made.draw(given, INNER, seed=0)
    layers = "frieze.renderer.autoencoders.infgen_layers"
    monkeypatch.setattr(f"{layers}.MOST_SCORES", 1)
    assert largest(at_once, made.draw(given, INNER, seed=0)) < EXACT_FLOAT64


def test_places_of_a_doubled_grid_average_to_the_single_one() -> None:
    double = centres(range(26), 26).unflatten(0, (13, 2)).mean(1)
    assert largest(double, centres(range(13), 13)) < EXACT_FLOAT64
    cells = in_cells(range(26), 26, 5).unflatten(0, (13, 2)).mean(1)
    assert largest(cells, in_cells(range(13), 13, 5)) < EXACT_FLOAT64
    corners = torch.arange(26, dtype=torch.float64) / 26  # the control: not the middles
    assert largest(corners.unflatten(0, (13, 2)).mean(1), torch.arange(13) / 13) > CONTROL


def test_places_on_the_sphere_are_apart_at_opposite_edges() -> None:
    points = sphere(Window.whole((16, 16)))
    assert largest(points.norm(dim=-1), torch.ones(16, 16)) < EXACT_FLOAT64
    flat = points.flatten(0, 1)
    apart = torch.cdist(flat, flat) + 9 * torch.eye(256)
    assert float(apart.min()) > 0.01
    window = Window((16, 16), range(3, 5), range(7, 16))
    assert torch.equal(sphere(window), points[3:5, 7:16])


def test_neighbours_stay_inside_and_lie_around() -> None:
    at = in_cells(range(64), 64, 8)
    number, far = neighbours(at, 8, 5)
    assert number.min() == 0
    assert number.max() == 7
    assert torch.equal(number, (far + at[:, None]).round().long())
    middle = (at > 2) & (at < 5)
    assert float(far[middle].abs().max()) <= 2.5
    assert neighbours(at, 3, 5)[0].shape == (64, 3)


@pytest.mark.parametrize("size", [(384, 60), (4, 64)])
def test_sides_that_are_no_whole_tokens_are_refused(size: tuple[int, int]) -> None:
    made = decoder()
    with pytest.raises(ValueError, match=r"is no multiple of 8, .*; the nearest that works is"):
        made.draw(latent(made), Window.whole(size), seed=0)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mode 'local' .*; window and global work"):
        InfGenDecoder(mode="local")


def test_a_folder_gives_back_the_same_network(tmp_path: Path) -> None:
    made = decoder(torch.float32)
    made.save_pretrained(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert json.loads((tmp_path / "config.json").read_text())["width"] == 32
    again = InfGenDecoder.from_pretrained(tmp_path, use_safetensors=True)
    weights = again.state_dict()
    assert weights.keys() == made.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in made.state_dict().items())
    # Weights in a file lie elsewhere in memory, and with that sums run in another order.
    drawn = [each.draw(latent(each), INNER, seed=2) for each in (made, again)]
    assert largest(*drawn) < CROP_FLOAT32


@torch.enable_grad()
@pytest.mark.parametrize("mode", ["window", "global"])
def test_all_weights_learn(mode: str) -> None:
    made = decoder(torch.float32, mode=mode)
    tokens = Window((12, 8), range(2, 10), range(8))
    noisy = torch.randn(1, 3, 64, 64)
    made(latent(made), tokens, noisy, torch.full((1,), 0.7)).square().mean().backward()
    assert not [name for name, weight in made.named_parameters() if weight.grad is None]


def test_places_of_a_large_canvas_are_apart_in_half_precision() -> None:
    """Positions are computed in more; the control computes them in half precision too."""
    window = Window((512, 512), range(256, 257), range(512))
    position = decoder(torch.float32).position
    expected = position(window)
    angles = (sphere(window).bfloat16() @ position.directions_N3.bfloat16().T).float()
    rounded = position.network(torch.cat([angles.cos(), angles.sin()], dim=-1))
    position.network.bfloat16()
    assert largest(position(window).float(), expected) < 0.008
    assert largest(rounded, expected) > 0.012
