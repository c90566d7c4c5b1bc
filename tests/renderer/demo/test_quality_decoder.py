"""What the decoder's benchmark measures: nothing is found in scenes, and each fault is found."""

import numpy as np
import pytest

from bench import quality_decoder_metrics as metrics
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
