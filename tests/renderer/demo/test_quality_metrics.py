"""The quality benchmark's measures tell what they are for, and do not see it where it is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench import features
from bench import quality_metrics as metrics
from bench import quality_tiles as tiles
from frieze.renderer.demo import scenes

RNG = np.random.default_rng


def drawn(number: int, side: int = 512, first: int = 0) -> list[np.ndarray]:
    return [scenes.draw(scenes.scene_from(first + i), side, side) for i in range(number)]


def repeated(picture: np.ndarray, axis: int) -> np.ndarray:
    """The first 320 pixels along an axis again and again: 20 tokens, the dominant period."""
    first = np.take(picture, np.arange(320), axis)
    return np.take(np.concatenate([first, first], axis), np.arange(512), axis)


def profiles(pictures: list[np.ndarray], axis: int) -> np.ndarray:
    return np.stack([metrics.lag_profile(picture, axis) for picture in pictures])


def test_the_dominant_period_of_the_demo_model_is_that_of_its_rotary_table():
    assert metrics.dominant_period() == pytest.approx(19.869, abs=1e-3)
    assert metrics.dominant_period(32) == pytest.approx(35.33, abs=1e-2)


@pytest.mark.parametrize(("cells", "expected"), [(64, range(32, 43)), (128, range(32, 48))])
def test_lags_lie_around_the_dominant_period_and_leave_something_to_compare(cells, expected):
    assert metrics.lags(cells) == expected
    assert len(metrics.lags(32)) == 0


@pytest.mark.parametrize("axis", [0, 1])
def test_a_repeated_scene_has_a_high_lag_correlation_at_its_period_and_a_real_one_has_not(axis):
    real_T = profiles(drawn(12, first=500), axis).mean(0)
    own = drawn(6)
    score_N, lag_N = metrics.repetition(profiles([repeated(p, axis) for p in own], axis), real_T)
    control_N, _ = metrics.repetition(profiles(own, axis), real_T)
    assert lag_N.tolist() == [20.0] * 6
    assert score_N.min() > 0.5
    assert score_N.mean() > control_N.mean() + 0.5


def test_a_sky_that_is_the_same_along_its_rows_is_no_repetition_across():
    picture = np.repeat(np.linspace(0, 255, 512).astype(np.uint8)[:, None], 512, 1)
    assert np.all(metrics.lag_profile(np.dstack([picture] * 3), 1) == 0)


def test_a_sun_between_the_parts_that_are_compared_is_no_repetition():
    picture = np.full((512, 512, 3), 60, np.uint8)
    picture[100:180, 216:296] = 250
    assert np.all(metrics.lag_profile(picture, 1) <= 0)
    picture[100:180, 20:100] = picture[100:180, 340:420] = 250
    assert metrics.lag_profile(picture, 1).max() > 0.9


def test_a_side_too_short_for_any_lag_has_no_score():
    score_N, lag_N = metrics.repetition(np.zeros((2, 0)), np.zeros(0))
    assert np.isnan(score_N).all()
    assert np.isnan(lag_N).all()


@pytest.mark.parametrize(
    ("height", "width", "number"), [(256, 256, 1), (512, 512, 4), (384, 768, 6)]
)
def test_crops_cover_the_picture(height: int, width: int, number: int):
    numbers = np.arange(height * width).reshape(height, width)
    found = metrics.crops(numbers)
    assert [crop.shape for crop in found] == [(256, 256)] * number
    assert np.array_equal(np.unique(np.concatenate(found)), numbers.ravel())


def test_the_kernel_distance_is_that_of_its_definition():
    x, y = RNG(1).normal(size=(2, 4, 1, 3))

    def k(a, b):
        return (a[0] @ b[0] / 3 + 1) ** 3

    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    terms = [k(x[i], x[j]) + k(y[i], y[j]) - 2 * k(x[i], y[j]) for i, j in pairs]
    assert metrics.kid(x, y, RNG(0)).value == pytest.approx(np.mean(terms), rel=1e-10)


def test_two_sets_of_one_distribution_are_at_no_distance_and_another_one_is():
    x, y = RNG(1).normal(size=(2, 100, 2, 8))
    same = metrics.kid(x, y, RNG(0))
    other = metrics.kid(x, y + 0.5, RNG(0))
    assert same.low < 0 < same.high
    assert other.low > same.high


def test_crops_of_one_picture_that_are_alike_make_no_distance():
    """Counted as pictures of their own they would: like pairs lie within a set, never across."""
    x, y = (RNG(s).normal(size=(60, 1, 8)).repeat(4, 1) for s in (1, 2))
    assert metrics.kid(x, y, RNG(0)).low < 0
    assert metrics.kid(*(z.reshape(240, 1, 8) for z in (x, y)), RNG(0)).low > 0


def test_prompts_that_differ_widely_hide_no_distance():
    """Both sets have the same prompts; told apart by chance, their spread would hide the rest."""
    prompt = 3 * RNG(5).normal(size=(60, 1, 8))
    x, y = (prompt + 0.3 * RNG(s).normal(size=(60, 1, 8)) for s in (1, 2))
    shifted = metrics.kid(x, y + 0.3, RNG(0))
    assert shifted.low > 0
    assert metrics.kid(x, RNG(7).permutation(y + 0.3), RNG(0)).low < 0


def test_a_distance_of_a_single_prompt_is_refused():
    with pytest.raises(ValueError, match="needs the same two"):
        metrics.kid(np.zeros((1, 1, 4)), np.zeros((1, 1, 4)), RNG(0))
    with pytest.raises(ValueError, match="3 prompts"):
        metrics.kid(np.zeros((2, 1, 4)), np.zeros((3, 1, 4)), RNG(0))


def test_the_share_of_all_of_few_is_not_surely_all():
    few, many = metrics.share([True] * 4), metrics.share([True] * 64)
    assert (few.value, few.high) == (1.0, 1.0)
    assert few.low < 0.6 < 0.9 < many.low
    none = metrics.share([False] * 4)
    assert (none.value, none.low) == (0.0, 0.0)


def test_intervals_hold_the_figure_and_shrink_with_pictures():
    few, many = (metrics.mean(RNG(3).normal(5, 1, n), RNG(0)) for n in (8, 512))
    assert few.low < few.value < few.high
    assert many.high - many.low < 0.3 * (few.high - few.low)
    assert few.low < many.high
    assert many.high < metrics.mean(RNG(3).normal(7, 1, 512), RNG(0)).low
    assert np.isnan(metrics.mean([1.0, float("nan")], RNG(0)).value)


def test_a_ratio_of_like_sets_is_one():
    found = metrics.ratio(RNG(1).normal(4, 1, 200), RNG(2).normal(4, 1, 200), RNG(0))
    assert found.low < 1 < found.high
    assert found.high - found.low < 0.15


def test_features_tell_an_enlarged_scene_and_one_upside_down_from_real_ones():
    network, asked = features.load(), [scenes.scene_from(seed) for seed in range(16)]

    def real(first: int, side: int = 256) -> list[np.ndarray]:
        layouts = [scenes.scene_from(first + i) for i in range(len(asked))]
        named = [
            replace(layout, sun=scene.sun, mountains=scene.mountains, time=scene.time)
            for layout, scene in zip(layouts, asked, strict=True)
        ]
        return [scenes.draw(scene, side, side) for scene in named]

    def distance(pictures: list[np.ndarray]) -> metrics.Estimate:
        x, y = (features.features(network, each)[:, None] for each in (pictures, real(100)))
        return metrics.kid(x, y, RNG(0))

    control = distance(real(200))
    assert control.low < 0 < control.high
    assert distance([p[::-1] for p in real(200)]).low > control.high
    assert distance([tiles.enlarged(p, 256, 256) for p in real(200, 128)]).low > control.high


def test_tiles_overlap_by_half_and_reach_every_edge():
    corners = tiles.tile_corners(384, 640)
    assert corners == [(y, x) for y in (0, 128) for x in (0, 128, 256, 384)]
    assert tiles.tile_corners(256, 256) == [(0, 0)]
    assert tiles.tile_corners(256, 300) == [(0, 0), (0, 44)]
    with pytest.raises(ValueError, match="smaller than a tile"):
        tiles.tile_corners(128, 512)


def test_tiles_of_one_picture_blend_into_that_picture():
    picture = drawn(1, 384)[0]
    x_CHW = torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1
    corners = tiles.tile_corners(384, 384)
    parts = torch.stack([x_CHW[:, y : y + 256, x : x + 256] for y, x in corners])
    assert np.array_equal(tiles.blended(parts, corners, 384, 384), picture)
    parts[0] += 1.0
    assert not np.array_equal(tiles.blended(parts, corners, 384, 384), picture)


def test_a_step_at_a_windows_border_is_seen_where_one_elsewhere_is_not() -> None:
    """Three grey levels across the sky: at a border of windows, and four tokens beside it."""
    sky = np.full((512, 512, 3), 100, np.uint8)
    stepped, beside = sky.copy(), sky.copy()
    stepped[:, 256:] += 3
    beside[:, 320:] += 3
    assert metrics.border_step(sky) == 0
    assert metrics.border_step(stepped) == pytest.approx(1)  # one of three borders
    assert metrics.border_step(beside) <= 0
    assert metrics.rms(sky, stepped) == pytest.approx(3 / 2**0.5)
    assert metrics.rms(sky, sky) == 0
