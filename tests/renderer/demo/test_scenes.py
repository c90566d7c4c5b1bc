"""Scenes are reproducible, keep their layout at every size, and speak the prompt grammar."""

import numpy as np
import pytest

from frieze.renderer.demo import scenes


def test_a_seed_gives_one_scene_and_one_drawing():
    first, second = (scenes.draw(scenes.scene_from(5), 96, 128) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = scenes.draw(scenes.scene_from(6), 96, 128)
    assert (first != other).any()
    assert first.shape == (96, 128, 3)
    assert first.dtype == np.uint8


@pytest.mark.parametrize("seed", range(8))
def test_prompts_name_their_scene(seed: int):
    scene = scenes.scene_from(seed)
    read = scenes.parse(scenes.prompt_of(scene))
    assert (read.sun, read.mountains, read.time) == (scene.sun, scene.mountains, scene.time)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a blue sun over blue mountains at dusk",
        "a red moon over blue mountains at dusk",
        "a white sun over blue mountains at dusk",
        "a red sun over blue mountains",
        "a red sun under blue mountains at dusk",
    ],
)
def test_a_prompt_outside_the_grammar_is_refused_with_what_would_fit(prompt: str):
    with pytest.raises(ValueError, match="a COLOUR sun over COLOUR mountains at TIME"):
        scenes.parse(prompt)


@pytest.mark.parametrize("seed", range(4))
def test_a_larger_drawing_keeps_the_layout(seed: int):
    scene = scenes.scene_from(seed)
    small = scenes.draw(scene, 256, 256).astype(float)
    large = scenes.draw(scene, 1024, 1024).astype(float)
    shrunk = large.reshape(256, 4, 256, 4, 3).mean((1, 3))
    other = scenes.draw(scenes.scene_from(seed + 100), 256, 256).astype(float)
    assert np.abs(small - shrunk).mean() < 2.5
    assert np.abs(small - other).mean() > 5 * np.abs(small - shrunk).mean()


@pytest.mark.parametrize("seed", range(4))
def test_a_larger_drawing_adds_detail(seed: int):
    """The 1024 px drawing holds what the 256 px one, enlarged, does not."""
    scene = scenes.scene_from(seed)
    enlarged = scenes.draw(scene, 256, 256).repeat(4, 0).repeat(4, 1).astype(float)
    large = scenes.draw(scene, 1024, 1024).astype(float)
    assert np.abs(enlarged - large).max() > 40


@pytest.mark.parametrize("window", [(0, 0, 300, 400), (17, 31, 64, 100), (240, 0, 60, 400)])
def test_a_window_has_the_pixels_of_the_whole(window: tuple[int, int, int, int]):
    top, left, height, width = window
    for seed in range(3):
        whole = scenes.draw(scenes.scene_from(seed), 300, 400)
        part = scenes.draw(scenes.scene_from(seed), 300, 400, window)
        np.testing.assert_array_equal(part, whole[top : top + height, left : left + width])


def test_at_least_three_mountain_layers_darken_towards_the_front():
    for time in scenes.SKIES:
        picture = scenes.draw(scenes.Scene("red", "blue", time, seed=3), 256, 256)
        rows = [int(256 * at) for at in (0.63, 0.72, 0.83, 0.97)]
        luma = [float(np.median(picture[row] @ np.array([0.299, 0.587, 0.114]))) for row in rows]
        assert luma == sorted(luma, reverse=True)
        assert len(set(luma)) == 4
