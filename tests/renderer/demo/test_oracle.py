"""The oracle reads drawn scenes right at every size, and is not fooled by wrong ones."""

from dataclasses import replace

import numpy as np
import pytest

from frieze.renderer.demo import oracle, scenes

PROMPT = "a red sun over blue mountains at dusk"


def drawn(prompt: str = PROMPT, side: int = 256) -> np.ndarray:
    return scenes.draw(replace(scenes.parse(prompt), seed=4), side, side)


def with_disk(picture: np.ndarray, colour: str, x: float, diameter: float) -> np.ndarray:
    side = min(picture.shape[:2])
    rows, columns = np.indices(picture.shape[:2])
    inside = np.hypot(rows - 0.2 * side, columns - x * side) < diameter * side / 2
    copy = picture.copy()
    copy[inside] = scenes.SUNS[colour]
    return copy


def blurred(picture: np.ndarray, passes: int) -> np.ndarray:
    soft = picture.astype(float)
    for _ in range(passes):
        for dim in (0, 1):
            soft = (np.roll(soft, 1, dim) + 2 * soft + np.roll(soft, -1, dim)) / 4
    return soft.round().astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "number"),
    [
        (256, 256, 100),
        (512, 768, 20),
        pytest.param(512, 512, 30, marks=pytest.mark.slow),
        pytest.param(1024, 1024, 8, marks=pytest.mark.slow),
        pytest.param(2048, 2048, 3, marks=pytest.mark.slow),
    ],
)
def test_drawn_scenes_are_read_right_in_99_of_100(height: int, width: int, number: int):
    chosen = [scenes.scene_from(seed) for seed in range(number)]
    right = [
        oracle.agrees(oracle.judge(scenes.draw(s, height, width)), scenes.prompt_of(s))
        for s in chosen
    ]
    assert np.mean(right) >= 0.99


@pytest.mark.parametrize("colour", scenes.SUNS)
@pytest.mark.parametrize("side", [256, 1024])
def test_two_suns_are_counted_as_two(colour: str, side: int):
    body = "moon" if colour == "white" else "sun"
    prompt = f"a {colour} {body} over green mountains at night"
    one = drawn(prompt, side)
    assert oracle.judge(one).suns == 1
    for diameter in (0.045, 0.16):
        verdict = oracle.judge(with_disk(one, colour, 0.15, diameter))
        assert verdict.suns == 2
        assert not oracle.agrees(verdict, prompt)


def test_no_sun_is_none():
    scene = replace(scenes.parse("a white moon over brown mountains at night"), sun_y=-1.0, seed=2)
    assert oracle.judge(scenes.draw(scene, 256, 256)).suns == 0


def test_a_wrong_colour_sky_or_mountain_does_not_agree():
    verdict = oracle.judge(drawn())
    assert oracle.agrees(verdict, PROMPT)
    for wrong in (
        PROMPT.replace("red", "orange"),
        PROMPT.replace("red", "pink"),
        PROMPT.replace("blue", "purple"),
        PROMPT.replace("dusk", "night"),
        PROMPT.replace("dusk", "dawn"),
    ):
        assert not oracle.agrees(verdict, wrong)


def test_an_upside_down_picture_is_seen():
    for time in scenes.SKIES:
        picture = drawn(PROMPT.replace("dusk", time))
        assert oracle.judge(picture).upright
        assert not oracle.judge(picture[::-1]).upright


def test_a_sun_half_behind_a_ridge_is_one_sun():
    for seed in range(12):
        scene = replace(scenes.scene_from(seed), sun_y=0.47, seed=seed)
        verdict = oracle.judge(scenes.draw(scene, 256, 256))
        assert verdict.colours == (scene.sun,)


def test_a_blurred_picture_is_read_right_and_has_less_detail():
    for seed in range(8):
        scene = scenes.scene_from(seed)
        sharp = scenes.draw(scene, 256, 256)
        soft = oracle.judge(blurred(sharp, 3))
        assert oracle.agrees(soft, scenes.prompt_of(scene))
        assert soft.detail < 0.5 * oracle.judge(sharp).detail


def test_an_enlarged_picture_has_less_detail_than_a_drawn_one():
    for seed in range(4):
        scene = scenes.scene_from(seed)
        enlarged = blurred(scenes.draw(scene, 256, 256).repeat(4, 0).repeat(4, 1), 4)
        assert oracle.detail(enlarged) < 0.5 * oracle.detail(scenes.draw(scene, 1024, 1024))


def test_a_picture_that_is_none_is_refused():
    with pytest.raises(ValueError, match="expected"):
        oracle.judge(np.zeros((256, 256), np.uint8))


@pytest.mark.parametrize(("height", "width"), [(256, 256), (1024, 1024), (512, 1024), (1024, 512)])
def test_no_fir_of_a_scene_is_stray(height: int, width: int):
    for seed in range(3):
        assert oracle.stray_firs(scenes.draw(scenes.scene_from(seed), height, width)) == 0


@pytest.mark.parametrize("time", scenes.SKIES)
@pytest.mark.parametrize("side", [256, 512])
def test_firs_in_the_air_are_counted(time: str, side: int):
    for mountains in scenes.MOUNTAINS:
        picture = drawn(f"a red sun over {mountains} mountains at {time}", side)
        ridge = picture[int(0.97 * side)].mean(0)
        for y, x in [(0.12, 0.1), (0.3, 0.25), (0.5, 0.8), (0.66, 0.6)]:
            rows, columns = np.indices(picture.shape[:2]) / side
            fir = (np.abs(columns - x) < 0.3 * (rows - y)) & (rows < y + 0.045)
            picture[fir] = ridge
        assert oracle.stray_firs(picture) == 4


def test_a_fir_on_the_ridge_or_a_speck_is_no_stray_one():
    picture = drawn(side=512)
    ridge = picture[500].mean(0)
    picture[300:500, 90:110] = ridge
    picture[100:102, 300:302] = ridge
    assert oracle.stray_firs(picture) == 0
