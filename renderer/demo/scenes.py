"""Procedural poster landscapes with a prompt grammar: the demo model's training set and truth.

Lengths are fractions of the canvas (heights of its height, x of its width, sizes of its shorter
side), so one `Scene` has one layout at every size; larger drawings add finer ridges, stars and
twigs. Shape legend: H, W pixels of the drawn window, C = 3 colours, K octaves, T trees.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SUNS = {
    "red": (216, 36, 36),
    "orange": (250, 128, 10),
    "yellow": (255, 226, 40),
    "pink": (244, 64, 176),
    "white": (252, 248, 236),
}
MOUNTAINS = {
    "blue": (52, 104, 168),
    "green": (58, 128, 84),
    "purple": (122, 72, 156),
    "brown": (150, 98, 66),
}
# Top and horizon of the sky. All are muted and none is near white, so that a saturated sun and a
# white moon stand out at every hour.
SKIES = {
    "dawn": ((150, 132, 172), (232, 190, 168)),
    "day": ((92, 160, 196), (188, 214, 208)),
    "dusk": ((74, 50, 104), (196, 122, 122)),
    "night": ((18, 26, 62), (62, 84, 124)),
}
STARS = {"dawn": 0, "day": 0, "dusk": 14, "night": 40}
LIGHT = {"dawn": 0.95, "day": 1.0, "dusk": 0.8, "night": 0.55}
LAYERS = 4
_TREES = 22
_BASE = (0.54, 0.64, 0.75, 0.87)
_RELIEF = (0.10, 0.085, 0.06, 0.035)
_MIST = (0.52, 0.26, 0.06, 0.0)
_SHADE = (1.0, 0.86, 0.62, 0.26)


@dataclass(frozen=True)
class Scene:
    """One poster: what the prompt names (sun, mountains, time) and a layout it does not name."""

    sun: str
    mountains: str
    time: str
    sun_x: float = 0.5
    sun_y: float = 0.3
    sun_diameter: float = 0.17
    seed: int = 0


def scene_from(seed: int) -> Scene:
    """Draw a scene of the training distribution; the same seed gives the same scene."""
    rng = np.random.default_rng((7, seed))
    return Scene(
        sun=str(rng.choice(list(SUNS))),
        mountains=str(rng.choice(list(MOUNTAINS))),
        time=str(rng.choice(list(SKIES))),
        sun_x=float(rng.uniform(0.2, 0.8)),
        sun_y=float(rng.uniform(0.16, 0.42)),
        sun_diameter=float(rng.uniform(0.14, 0.2)),
        seed=seed,
    )


def prompt_of(scene: Scene) -> str:
    """Name a scene: 'a red sun over blue mountains at dusk'; the white disk is called a moon."""
    body = "moon" if scene.sun == "white" else "sun"
    return f"a {scene.sun} {body} over {scene.mountains} mountains at {scene.time}"


def parse(prompt: str) -> Scene:
    """Read a prompt of the grammar into a scene with the default layout.

    Raises ValueError for a sentence outside the grammar, naming what would fit.
    """
    words = prompt.lower().replace(",", " ").split()
    match words:
        case ["a" | "an", sun, "sun" | "moon" as body, "over", hills, "mountains", "at", time] if (
            sun in SUNS and hills in MOUNTAINS and time in SKIES
        ):
            if (sun == "white") == (body == "moon"):
                return Scene(sun, hills, time)
    raise ValueError(
        f"{prompt!r} is not in the demo grammar: 'a COLOUR sun over COLOUR mountains at TIME' with "
        f"suns {', '.join(SUNS)} (white: 'moon'), mountains {', '.join(MOUNTAINS)}, "
        f"times {', '.join(SKIES)}"
    )


def draw(
    scene: Scene, height: int, width: int, window: tuple[int, int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Draw a scene on a height x width canvas; uint8 (H, W, 3), values 0-255.

    `window` (top, left, H, W) draws only that part, with the pixels the whole would have.
    """
    top, left, rows, columns = window or (0, 0, height, width)
    y_H = (np.arange(top, top + rows, dtype=np.float32) + 0.5)[:, None]
    x_W = (np.arange(left, left + columns, dtype=np.float32) + 0.5)[None, :]
    side = min(height, width)
    picture_HWC = np.broadcast_to(_sky(scene, y_H / np.float32(height)), (rows, columns, 3)).copy()
    _stars(picture_HWC, scene, height, width, top, left)
    radius = scene.sun_diameter * side / 2
    distance_HW = np.hypot(y_H - scene.sun_y * height, x_W - scene.sun_x * width)
    _paint(picture_HWC, radius - distance_HW, np.array(SUNS[scene.sun], np.float32))
    for layer in range(LAYERS):
        ridge_W = _ridge(scene, layer, x_W[0] / side, side) * height
        inside_HW = y_H - ridge_W[None]
        if layer == LAYERS - 1:
            inside_HW = _planted(scene, inside_HW, x_W[0] / side, side, width / side)
        _paint(picture_HWC, inside_HW, _slope(scene, layer, y_H / np.float32(height)))
    return (picture_HWC + 0.5).astype(np.uint8)


def _paint(picture_HWC: Floats, inside_HW: Floats, colour: Floats) -> None:
    """Blend a colour in where the signed distance in pixels is positive, with one soft pixel."""
    hit_H = np.flatnonzero((inside_HW > -0.5).any(axis=1))
    if hit_H.size == 0:
        return
    part = slice(hit_H[0], hit_H[-1] + 1)
    cover_HW1 = np.clip(inside_HW[part] + 0.5, 0, 1)[..., None]
    paint = colour[part] if colour.ndim == 3 else colour
    picture_HWC[part] += cover_HW1 * (paint - picture_HWC[part])


def _sky(scene: Scene, y_H: Floats) -> Floats:
    """Vertical gradient from the zenith to the horizon, shape (H, 1, 3)."""
    top, horizon = (np.array(colour, np.float32) for colour in SKIES[scene.time])
    fade_H11 = np.clip(y_H / 0.6, 0, 1)[..., None] ** 1.3
    return (top + (horizon - top) * fade_H11).astype(np.float32)


def _slope(scene: Scene, layer: int, y_H: Floats) -> Floats:
    """Colour of a mountain layer by height, misty at its foot; far layers fade into the sky."""
    horizon = np.array(SKIES[scene.time][1], np.float32)
    own = np.array(MOUNTAINS[scene.mountains], np.float32) * np.float32(
        _SHADE[layer] * LIGHT[scene.time]
    )
    foot_H11 = np.clip((y_H - _BASE[layer]) / 0.22, 0, 1)[..., None] * 0.3
    mist_H11 = _MIST[layer] + (1 - _MIST[layer]) * foot_H11 * (layer < LAYERS - 1)
    return (own + (horizon - own) * mist_H11).astype(np.float32)


def _ridge(scene: Scene, layer: int, x_W: Floats, side: int) -> Floats:
    """Height of a ridge line as a fraction from the top: folded sines, finer on larger canvases.

    Octaves stop at a period of 8 pixels, so that each doubling of the canvas adds one.
    """
    rng = np.random.default_rng((11, scene.seed, layer))
    frequency_K = 1.3 * 2.0 ** np.arange(14) * rng.uniform(0.8, 1.25, 14)
    phase_K, lift = rng.uniform(0, 1, 14), rng.uniform(-0.02, 0.02)
    keep_K = frequency_K * 8 < side
    frequency_K, phase_K = frequency_K[keep_K, None], phase_K[keep_K, None]
    weight_K = 0.5 * (frequency_K / 1.3) ** -1.15
    waves_W = (weight_K * (2 * np.abs(np.sin(np.pi * (frequency_K * x_W + phase_K))) - 1)).sum(0)
    return (_BASE[layer] + lift + _RELIEF[layer] * waves_W).astype(np.float32)


def _planted(scene: Scene, inside_HW: Floats, x_W: Floats, side: int, span: float) -> Floats:
    """Add firs to the signed distance in pixels of the front ridge; wider firs show more twigs."""
    rng = np.random.default_rng((13, scene.seed))
    trees = max(1, round(_TREES * span))
    at_T = (np.arange(trees) + rng.uniform(0.2, 0.8, trees)) * span / trees
    tall_T = rng.uniform(0.04, 0.095, trees) * (rng.uniform(0, 1, trees) < 0.8) * side
    nearest_W = np.searchsorted((at_T[1:] + at_T[:-1]) / 2, x_W)
    near_H = np.flatnonzero((np.abs(inside_HW + tall_T.max() / 2) < tall_T.max() / 2 + 1).any(1))
    if near_H.size == 0:
        return inside_HW
    band = slice(near_H[0], near_H[-1] + 1)
    tall_W = np.maximum(tall_T[nearest_W], 1e-3).astype(np.float32)
    up_HW = np.clip(-inside_HW[band] / tall_W, 0, 1.5)
    twigs = float(np.clip(side * 0.07 / 5, 1, 9))
    width_HW = (1 - up_HW) * (1.35 - 0.7 * np.mod(up_HW * twigs, 1))
    half = 0.36 / _TREES * side
    away_W = (np.abs(x_W - at_T[nearest_W]) * side).astype(np.float32)
    planted_HW = inside_HW.copy()
    planted_HW[band] = np.maximum(inside_HW[band], half * width_HW - away_W)
    return planted_HW


def _stars(picture_HWC: Floats, scene: Scene, height: int, width: int, top: int, left: int) -> None:
    """Light points in the upper sky; a larger canvas keeps the stars and adds fainter ones."""
    side = min(height, width)
    number = round(STARS[scene.time] * max(1, side / 256) * (height * width / side**2))
    rng = np.random.default_rng((17, scene.seed))
    stars = rng.uniform(0, 1, (number, 3))
    rows, columns = picture_HWC.shape[:2]
    for index, (u, v, brightness) in enumerate(stars):
        y, x = u * 0.5 * height - top, v * width - left
        radius = 1.5 * (side / 256) ** 0.5 / (1 + index / 40) ** 0.5 + 0.2
        y0, x0 = int(y - radius - 1), int(x - radius - 1)
        y1, x1 = int(y + radius + 2), int(x + radius + 2)
        if y1 <= 0 or x1 <= 0 or y0 >= rows or x0 >= columns:
            continue
        patch = picture_HWC[max(y0, 0) : y1, max(x0, 0) : x1]
        ys = np.arange(max(y0, 0), max(y0, 0) + patch.shape[0])[:, None] + 0.5
        xs = np.arange(max(x0, 0), max(x0, 0) + patch.shape[1])[None] + 0.5
        cover = np.clip(radius + 0.5 - np.hypot(ys - y, xs - x), 0, 1) * (0.45 + 0.5 * brightness)
        patch += cover[..., None].astype(np.float32) * (
            np.array((240, 236, 220), np.float32) - patch
        )
