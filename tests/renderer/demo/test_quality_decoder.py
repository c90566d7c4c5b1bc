"""What the decoder's benchmark measures: nothing is found in scenes, and each fault is found."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench import quality_decoder_metrics as metrics
from bench import quality_realesrgan as realesrgan
from bench.quality_decoder_rows import Row, rows
from frieze.renderer.demo import scenes

SIDE = 512


@pytest.fixture(scope="module")
def posters() -> list[np.ndarray]:
    """A scene of each hour, without stars too near to a sun."""
    return [scenes.draw(scenes.scene_from(seed), SIDE, SIDE) for seed in (2, 3, 4, 7)]


def test_suns_of_scenes_are_round(posters: list[np.ndarray]):
    assert max(map(metrics.radius_variation, posters)) < 0.01


def test_an_egg_and_a_ragged_sun_are_not_round(posters: list[np.ndarray]):
    scene, poster = scenes.scene_from(7), posters[3]
    y, x = (np.indices((SIDE, SIDE)) + 0.5) / SIDE
    away, angle = (
        np.hypot(y - scene.sun_y, x - scene.sun_x),
        np.arctan2(y - scene.sun_y, x - scene.sun_x),
    )
    ragged, egg = poster.copy(), poster.copy()
    radius = scene.sun_diameter / 2
    ragged[away < radius * (1.05 + 0.05 * np.sin(13 * angle))] = scenes.SUNS[scene.sun]
    egg[np.hypot((y - scene.sun_y) / 1.12, x - scene.sun_x) < radius] = scenes.SUNS[scene.sun]
    assert metrics.radius_variation(ragged) > 0.02
    assert metrics.radius_variation(egg) > 0.02


def test_a_sky_without_a_sun_has_no_roundness():
    assert np.isnan(metrics.radius_variation(np.full((SIDE, SIDE, 3), 90, np.uint8)))


def test_scenes_have_no_flecks_and_painted_ones_are_counted(posters: list[np.ndarray]):
    for poster in posters:
        assert metrics.flecks(poster) < 5
        flecked = poster.astype(int)
        flecked[40:480:20, 40:480:20] += (40, -40, 20)
        found = metrics.flecks(flecked.clip(0, 255).astype(np.uint8))
        assert found > 0.8e6 * 22**2 / SIDE**2


def test_a_step_at_block_edges_is_a_seam(posters: list[np.ndarray]):
    edges = list(range(64, SIDE, 64))
    stepped = posters[1].copy()
    for top in range(64, SIDE, 128):
        stepped[top : top + 64] = np.minimum(stepped[top : top + 64], 252) + 3
    for dim, picture in ((0, stepped), (1, stepped.transpose(1, 0, 2))):
        plain = posters[1] if dim == 0 else posters[1].transpose(1, 0, 2)
        across, beside = metrics.seam(plain, edges, dim)
        assert across / beside < 1.5
        across, beside = metrics.seam(picture, edges, dim)
        assert across / beside > 2


def test_blocks_that_drift_and_a_grid_are_found(posters: list[np.ndarray]):
    poster, small = posters[1], scenes.draw(scenes.scene_from(3), 256, 256)
    drifted, gridded = poster.copy(), poster.copy()
    drifted[128:256, :128] += 6
    gridded[:, ::8] = gridded[:, ::8] // 2
    assert metrics.drift(drifted, small) > metrics.drift(poster, small) + 3
    assert metrics.grid(gridded) > 2 * metrics.grid(poster)


def test_distances_are_those_of_their_definitions():
    flat = np.full((8, 8, 3), 100, np.uint8)
    assert metrics.psnr(flat + np.uint8(10), flat) == pytest.approx(20 * np.log10(25.5))
    checked = flat.copy()
    checked[::2] += 20
    assert metrics.away(checked, np.full((4, 4, 3), 110, np.uint8)) == 0


NCNN = """7767517
6 7
Input data 0 1 data
Split split 1 2 data a b
Convolution conv 1 1 a c 0=12 1=3 4=1 5=1 6=324 9=2 -23310=1,2.000000e-01
PReLU slope 1 1 c d 0=12
PixelShuffle shuffle 1 1 d e 0=2
Interp larger 1 1 b f 0=1 1=2.0 2=2.0
BinaryOp add 2 1 e f out
"""


def test_a_network_of_ncnns_files_is_what_torch_makes_of_its_weights(tmp_path: Path):
    torch.manual_seed(0)
    weight, bias, slope = torch.randn(12, 3, 3, 3).half(), torch.randn(12), torch.rand(12)
    (tmp_path / "net.param").write_text(NCNN)
    tag = realesrgan.HALVES.to_bytes(4, "little")
    numbers = (weight.numpy().tobytes(), bias.numpy().tobytes(), slope.numpy().tobytes())
    (tmp_path / "net.bin").write_bytes(tag + b"".join(numbers))
    x = torch.rand(1, 3, 8, 8)
    hidden = F.leaky_relu(F.conv2d(x, weight.float(), bias, padding=1), 0.2)
    expected = F.pixel_shuffle(F.prelu(hidden, slope), 2) + F.interpolate(x, scale_factor=2)
    layers = realesrgan.parsed(tmp_path / "net")
    torch.testing.assert_close(realesrgan.run(layers, x), expected)
    (tmp_path / "net.bin").write_bytes(tag + b"".join(numbers) + bytes(4))
    with pytest.raises(ValueError, match="bytes of weights"):
        realesrgan.parsed(tmp_path / "net")


def test_rows_of_other_weights_or_steps_are_kept_apart(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    one, other = (Row("InfGen", "infgen", str(tmp_path), steps) for steps in (1, 4))
    before = one.digest
    assert before != other.digest
    (tmp_path / "weights.safetensors").write_bytes(b"1")
    assert one.digest != before
    assert len({row.digest for row in rows(tmp_path, (None, 1))}) == len(rows(tmp_path, (None, 1)))
