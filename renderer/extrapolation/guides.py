"""How a stage is guided by the one before it: recipes, and where their pictures lie.

Every guide says what becomes of x0, the clean latents that the network estimates, so that it
works with any solver and, since x = alpha x0 + sigma eps at every level, any family. Rectified
flow's velocity is v = (x - x0) / sigma, so v + w (v' - v) is x0 + w (x0' - x0).
Sizes are latent cells. What a guide does to a band is in worker/stage_guides.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import PlanError

if TYPE_CHECKING:
    from frieze.cluster.layout import Canvas

    from ..spec.render_spec import HeldBy


WeightCurve = Literal["cosine_decay", "cosine_shift", "constant", "off"]


WEIGHT_CURVES: tuple[WeightCurve, ...] = ("cosine_decay", "cosine_shift", "constant", "off")


Form = Literal["noisy", "feathered", "projected"]


FORMS: tuple[Form, ...] = ("noisy", "feathered", "projected")


def weight(schedule: WeightCurve, index: int, num_steps: int) -> float:
    """c_i of step i of n: (1 + cos(pi i / n)) / 2, or the same at every step."""
    if schedule in ("cosine_decay", "cosine_shift"):
        return 0.5 * (1 + math.cos(math.pi * index / num_steps))
    return 1.0 if schedule == "constant" else 0.0


@dataclass(frozen=True)
class Resolution:
    """The enlarged picture g governs the low band (projected flow of I-Max, arXiv 2410.07536;
    guided resolution of UltraImage, arXiv 2512.04504).

    x0 <- x0 + c LP(g - x0), LP the low band of one level of Haar; `cosine_shift` adds g itself
    first: x0 + c (g - x0) + (1 - c) LP(g - x0). `strength` multiplies what is added. With
    `half_token` the grid of tokens lies half a token off at every other step, so that its seams
    do not add up.
    """

    schedule: WeightCurve = "cosine_decay"
    strength: float = 1.0
    half_token: bool = True

    array: ClassVar[Literal["guide", "clean"]] = "guide"
    num_memory: ClassVar[int] = 0

    @property
    def is_on(self) -> bool:
        """Whether anything is done at all."""
        return self.strength > 0 and self.schedule != "off"


@dataclass(frozen=True)
class CanvasRegion:
    """Rows and columns of a canvas, in latent cells."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class View:
    """The small picture g stays at a place of the larger canvas, which is painted around it
    (guided view of UltraImage, arXiv 2512.04504).

    `noisy`: before each of the first steps the place holds (alpha g + sigma eps), eps being the
    stage's first noise; `feathered` the same with edges that fade over `feather` tokens;
    `projected`: the low band of x0 there is drawn to g's with falling weight, at all steps.
    `share` is the part of the steps that the first two forms last, 11 of 30 as released; a large
    timestep shift leaves so much noise by then that more of them are needed to keep the view.
    `top` and `left` are the place's corner as parts of the canvas' height and width; None centres.
    """

    form: Form = "noisy"
    top: float | None = None
    left: float | None = None
    share: float = 11 / 30
    feather: int = 4
    schedule: WeightCurve = "cosine_decay"

    array: ClassVar[Literal["guide", "clean"]] = "guide"
    num_memory: ClassVar[int] = 0

    def lasts(self, num_steps: int) -> int:
        """Steps at which the place is held."""
        return max(1, round(self.share * num_steps)) if self.share else 0

    def region(self, inner: Canvas, outer: Canvas, patch: int) -> CanvasRegion:
        """Where the small canvas lies, on whole tokens; raises `PlanError` if that is outside."""
        sides = (
            ("top", self.top, inner.height, outer.height),
            ("left", self.left, inner.width, outer.width),
        )
        top, left = (_edge(*side, patch) for side in sides)
        return CanvasRegion(top, left, inner.height, inner.width)


def _edge(name: str, part: float | None, length: int, whole: int, patch: int) -> int:
    if length > whole:
        raise PlanError(
            f"a view of {length} latent cells does not lie inside a canvas of {whole}; "
            "give the stage before it a smaller scale"
        )
    if part is None:
        return (whole - length) // 2 // patch * patch
    most = (whole - length) / whole
    edge = round(part * whole / patch) * patch if math.isfinite(part) else -1
    if not 0 <= edge <= whole - length:
        raise PlanError(
            f"a view at {name} {part:g} that is {length / whole:.3g} of the canvas does not lie "
            f"inside it; {name} from 0 to {math.floor(most * 1000) / 1000:g} works"
        )
    return edge


@dataclass(frozen=True)
class Flow:
    """Aligned with the stage before, step by step (HiFlow, arXiv 2504.06232).

    With r, the x0 of that stage at the same time, enlarged: x0 <- x0 + a_i L(r - x0), L a
    Butterworth low-pass; then the way from x0 to r is to shrink as it did there: velocities
    v <- v + b_i (v_before + v_r - v_r,before - v). a_i and b_i fall evenly from `align` (one for
    each stage after the first) and `accelerate` to 0. `cutoff` is in parts of Nyquist's frequency.
    """

    align: tuple[float, ...] = (1.0, 0.25)
    accelerate: float = 0.5
    cutoff: float = 0.2
    order: int = 4

    array: ClassVar[Literal["guide", "clean"]] = "clean"

    @property
    def num_memory(self) -> int:
        """r - x0 of the step before."""
        return 1 if self.accelerate else 0

    def alignment(self, stage_index: int) -> float:
        """What a_i starts from; the last one given holds for all later stages."""
        return self.align[min(stage_index - 1, len(self.align) - 1)]


@dataclass(frozen=True)
class Detail:
    """The enlarged picture g holds the latents near its own way down from noise (detail factor of
    FreeScale, arXiv 2412.09626, eq. 4).

    Before every step x <- (1 - c) x + c (alpha g + sigma eps), eps being the stage's first noise,
    with c = ((1 + cos(pi (1 - t))) / 2) ** factor at the time t, 1 at most noise. A small factor
    keeps c large for longer: closer to the picture before, less detail that is new. Where the user
    hands in a mask the factor is `inside` on what of it is not black and `outside` elsewhere.
    """

    factor: float = 2.0
    inside: float = 3.0
    outside: float = 0.5

    array: ClassVar[Literal["guide", "clean"]] = "guide"
    num_memory: ClassVar[int] = 0

    def hold(self, time: float) -> float:
        """(1 + cos(pi (1 - t))) / 2, which a factor is an exponent of: 1 at noise, 0 at the end."""
        return 0.5 * (1 + math.cos(math.pi * (1 - time)))


Guide = Resolution | View | Flow | Detail


HELD_BY: HeldBy = "low-band"  # of those the default


def held_by(name: HeldBy, creativity: float) -> Guide | None:
    """What holds a picture that is redrawn so freely; None where nothing does.

    With k = 1 - creativity: `low-band` is `Resolution` at strength k; `hiflow` is `Flow` that
    aligns by k and accelerates by k / 2, the picture itself being the first x0 at all times;
    `detail` is `Detail` with the factor 4 (1 - k) / k. All are nothing at creativity 1.

    Of three of the demo's pictures redrawn from 256 to 512 pixels (tests/bench/quality_redraw.py)
    all kept one sun, its colour and the landscape's order with every guide. At creativities of 0.2,
    0.5 and 0.8 the tone of the worst block drifted by 1.9, 3.6 and 8.1 grey levels with low-band,
    1.8, 3.3 and 7.9 with hiflow, 2.7, 5.0 and 9.6 with detail, 3.0, 5.1 and 9.7 with none; detail
    was 0.67, 0.75 and 0.85 of all (0.25 enlarged, 1.14 by InfGen). The layout was nearer to the
    scenes' with low-band (KID 0.52, 0.61, 0.60) than with hiflow (0.62, 0.69, 0.63). From 0.5 on
    ridges multiply, at 0.8 the sun's rim is ragged.

    So do they at 1024, where tokens show all over at any creativity. Of four pictures what was
    redrawn at 256 and enlarged by InfGen had a detail of 1.10 at a creativity of 0.2 (redrawn at
    512 and 1024: 0.54; by InfGen alone: 1.00), a steepest phase of 8 pixels 1.24 times the flattest
    (1.80; 1.24) and a drift of 2.7 (6.7; 2.2). Redrawn at 512 first it had ridges
    more. At 0.5 drift is 3.6; at 0.8 one of three is no more what its prompt says, nor is one of
    three that nothing held at 0.5.
    """
    hold = 1 - creativity
    if name == "none" or hold <= 0:
        return None
    if name == "hiflow":
        return Flow(align=(hold,), accelerate=hold / 2)
    if name == "detail":
        return Detail(factor=4 * creativity / hold)
    return Resolution(strength=hold, half_token=False)
