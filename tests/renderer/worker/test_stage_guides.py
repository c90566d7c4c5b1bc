"""Guides on bands equal guides on the whole canvas, and their published forms in velocities."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.cluster.comm import Comm, run_threads, solo
from frieze.cluster.layout import Band, Canvas, cut
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.errors import PlanError, SpecError
from frieze.renderer.extrapolation.guides import (
    WEIGHT_CURVES,
    CanvasRegion,
    Flow,
    Resolution,
    View,
    weight,
)
from frieze.renderer.extrapolation.method import Method
from frieze.renderer.models.positions import trained
from frieze.renderer.planning.checks.bands import check_guide
from frieze.renderer.planning.plan import load_method, plan
from frieze.renderer.sampling.noise_levels import NoiseLevel
from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.worker.low_pass import butterworth, haar
from frieze.renderer.worker.stage_guides import (
    FlowGuiding,
    Grid,
    ResolutionGuiding,
    StageGuide,
    ViewGuiding,
    mask,
    nearest,
)
from tolerances import AMPLE, CONTROL, EXACT_FLOAT64

BANDS = (Band(0, 4), Band(4, 14), Band(14, 22))
CANVAS = Canvas(2, 22, 13)
LEVELS = tuple(NoiseLevel(1000 * s, 1 - s, s) for s in (1.0, 0.8, 0.5, 0.2, 0.0))
SOLO = Grid(CANVAS, (Band(0, 22),))


def canvas(seed: int = 0, canvas: Canvas = CANVAS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 3, canvas.frames, canvas.height, canvas.width)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def rows(x: Tensor, band: Band) -> Tensor:
    return x[..., band.start : band.stop, :]


def joined(work: Callable[[Comm], Tensor], num_ranks: int = len(BANDS)) -> Tensor:
    """What all ranks return, from the top down."""
    return torch.cat(run_threads(work, num_ranks, timeout=AMPLE), dim=-2)


def low(x: Tensor) -> Tensor:
    """Haar's low band of a whole canvas of even sides."""
    mean = F.avg_pool2d(x.flatten(0, 2)[:, None], 2)[:, 0].unflatten(0, x.shape[:3])
    return mean.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize("bands", [BANDS, (Band(0, 3), Band(3, 4), Band(4, 22))])
def test_haar_of_bands_is_that_of_the_canvas(bands: tuple[Band, ...]) -> None:
    x = canvas()
    whole = haar(solo(), x, (Band(0, 22),))
    made = joined(lambda comm: haar(comm, rows(x, bands[comm.rank]), bands))
    assert (made - whole).abs().max() <= EXACT_FLOAT64
    torch.testing.assert_close(whole[..., :12], low(x[..., :12]))
    assert torch.equal(whole[..., 12], haar(solo(), x[..., [12, 12]], (Band(0, 22),))[..., 0])


def test_control_haar_of_bands_alone_is_wrong_where_they_cut_a_block() -> None:
    x, bands = canvas(), (Band(0, 3), Band(3, 22))
    alone = torch.cat([haar(solo(), rows(x, b), (Band(0, b.rows),)) for b in bands], -2)
    assert (alone - haar(solo(), x, (Band(0, 22),))).abs().max() > CONTROL


def whole_butterworth(x: Tensor, cutoff: float, order: int) -> Tensor:
    height, width = (2 * torch.fft.fftfreq(n, dtype=torch.float64) for n in x.shape[-2:])
    radius = torch.hypot(height[:, None], width[None, :])
    return torch.fft.ifft2(torch.fft.fft2(x) / (1 + (radius / cutoff) ** (2 * order))).real


@pytest.mark.parametrize("width", [12, 13])
@pytest.mark.parametrize("bands", [BANDS, (Band(0, 1), Band(1, 22)), (Band(0, 22),)])
def test_butterworth_of_bands_is_that_of_the_whole_canvas(
    bands: tuple[Band, ...], width: int
) -> None:
    x = canvas()[..., :width]

    def work(comm: Comm) -> Tensor:
        return butterworth(comm, rows(x, bands[comm.rank]), bands, cutoff=0.2, order=4)

    made = joined(work, len(bands))
    assert (made - whole_butterworth(x, 0.2, 4)).abs().max() <= EXACT_FLOAT64


def test_control_butterworth_of_bands_alone_is_wrong() -> None:
    x = canvas()
    alone = torch.cat([whole_butterworth(rows(x, band), 0.2, 4) for band in BANDS], -2)
    assert (alone - whole_butterworth(x, 0.2, 4)).abs().max() > CONTROL


@pytest.mark.parametrize("margin", [1, 2])
def test_bands_of_the_moved_grid_are_those_of_the_padded_canvas(margin: int) -> None:
    x = canvas()
    grid = Grid(CANVAS, BANDS).shifted(margin)
    assert grid.canvas == Canvas(2, 22 + 2 * margin, 13 + 2 * margin)
    made = joined(lambda comm: grid.into(comm, rows(x, BANDS[comm.rank])))
    assert torch.equal(made, F.pad(x, (margin,) * 4))
    back = joined(lambda comm: grid.back(comm, grid.into(comm, rows(x, BANDS[comm.rank]))))
    assert torch.equal(back, x)


def test_tokens_of_the_moved_grid_are_whole_on_every_rank() -> None:
    for parts in range(1, 8):
        grid = Grid(Canvas(1, 32, 8), cut(32, parts, 2)).shifted(1)
        assert all(band.start % 2 == 0 and band.stop % 2 == 0 for band in grid.bands)
        assert grid.bands[-1].stop == grid.canvas.height


# ---- guided resolution


def test_weights_fall_as_half_a_cosine() -> None:
    assert [weight("cosine_decay", i, 4) for i in (0, 2, 4)] == pytest.approx([1, 0.5, 0])
    assert weight("cosine_shift", 1, 3) == pytest.approx(0.75)
    assert {weight("constant", i, 4) for i in range(4)} == {1.0}
    assert {weight("off", i, 4) for i in range(4)} == {0.0}


def resolution(guide: Resolution, grid: Grid, g: Tensor, comm: Comm) -> ResolutionGuiding:
    own = grid.bands[comm.rank]
    return ResolutionGuiding(guide, comm, grid, LEVELS, g_BCTHW=rows(g, own), margin=1)


@pytest.mark.parametrize("schedule", ["cosine_decay", "cosine_shift"])
def test_guided_x0_is_the_published_rule_for_velocities(schedule: Any) -> None:
    even = Canvas(2, 22, 12)
    g, x, x0 = (canvas(seed, even) for seed in range(3))
    guide = Resolution(schedule, half_token=False)
    made = resolution(guide, Grid(even, (Band(0, 22),)), g, solo()).corrected(1, x0)
    t, c = LEVELS[1].sigma, weight(schedule, 1, 4)
    v, v_g = (x - x0) / t, (x - g) / (t + 1e-6)
    if schedule == "cosine_decay":
        v = v + c * (low(v_g) - low(v))
    else:
        v = v + c * (v_g - v) + (1 - c) * (low(v_g) - low(v))
    assert (made - (x - t * v)).abs().max() <= 1e-5


@pytest.mark.parametrize("schedule", WEIGHT_CURVES)
@pytest.mark.parametrize("index", [0, 1])
def test_guided_resolution_of_bands_is_that_of_the_canvas(schedule: Any, index: int) -> None:
    g, x0 = canvas(1), canvas(2)

    def work(grid: Grid, comm: Comm) -> Tensor:
        guiding = resolution(Resolution(schedule), grid, g, comm)
        now = guiding.grid(index)
        seen = now.into(comm, rows(x0, grid.bands[comm.rank]))
        return now.back(comm, guiding.corrected(index, seen))

    made = joined(lambda comm: work(Grid(CANVAS, BANDS), comm))
    assert (made - work(SOLO, solo())).abs().max() <= EXACT_FLOAT64


def test_even_steps_lie_half_a_token_off_and_odd_ones_do_not() -> None:
    guiding = resolution(Resolution(), SOLO, canvas(), solo())
    assert [guiding.grid(i).margin for i in range(4)] == [1, 0, 1, 0]
    off = resolution(Resolution("off"), SOLO, canvas(), solo())
    assert [off.grid(i).margin for i in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("guide", [Resolution("off"), Resolution(strength=0.0)])
def test_a_guide_without_strength_hands_back_what_it_got(guide: Resolution) -> None:
    x0 = canvas()
    guiding = resolution(guide, SOLO, canvas(1), solo())
    assert guiding.corrected(0, x0) is x0
    assert guiding.entered(0, x0) is x0


# ---- guided view


REGION = CanvasRegion(6, 4, 8, 6)


def view(guide: View, grid: Grid, comm: Comm) -> ViewGuiding:
    own = grid.bands[comm.rank]
    inside = mask(REGION, CANVAS, Band(0, 22), 0)
    g, noise = rows(canvas(1) * inside, own), rows(canvas(2), own)
    return ViewGuiding(
        guide, comm, grid, LEVELS, g_BCTHW=g, noise_BCTHW=noise, region=REGION, patch=2
    )


def test_the_noisy_form_overwrites_the_place_and_nothing_else() -> None:
    x, guiding = canvas(3), view(View(share=0.5), SOLO, solo())
    for index in (0, 1):
        made = guiding.entered(index, x)
        sigma = LEVELS[index].sigma
        inside = (slice(6, 14), slice(4, 10))
        expected = x.clone()
        noisy = (1 - sigma) * canvas(1) + sigma * canvas(2)
        expected[(..., *inside)] = noisy[(..., *inside)]
        assert torch.equal(made, expected)
    assert guiding.entered(2, x) is x
    assert guiding.corrected(0, x) is x


@pytest.mark.parametrize("form", ["noisy", "feathered", "projected"])
def test_a_view_of_bands_is_that_of_the_canvas(form: Any) -> None:
    x, x0 = canvas(3), canvas(4)

    def work(grid: Grid, comm: Comm) -> Tensor:
        own, guiding = grid.bands[comm.rank], view(View(form, feather=1), grid, comm)
        made = guiding.entered(0, rows(x, own)), guiding.corrected(0, rows(x0, own))
        return torch.cat(made, dim=1)

    made = joined(lambda comm: work(Grid(CANVAS, BANDS), comm))
    whole = work(SOLO, solo())
    assert (made - whole).abs().max() <= EXACT_FLOAT64
    assert (whole - torch.cat([x, x0], dim=1)).abs().max() > CONTROL


def test_the_projected_form_draws_only_the_low_band_of_the_place() -> None:
    x0, g = canvas(4), canvas(1)
    made = view(View("projected", schedule="constant"), SOLO, solo()).corrected(0, x0)
    change, inside = made - x0, (..., slice(6, 14), slice(4, 10))
    assert torch.equal(change[..., :6, :], torch.zeros_like(change[..., :6, :]))
    torch.testing.assert_close(low(made[inside]), low(g[inside]))
    torch.testing.assert_close(change[inside], low(change[inside]))


def test_a_feather_rises_over_its_width_and_not_at_the_canvas_edge() -> None:
    made = mask(CanvasRegion(0, 4, 8, 6), Canvas(1, 16, 12), Band(0, 16), 2)
    rise = [0.5 - 0.5 * math.cos(math.pi * d / 2) for d in (0.5, 1.5)]
    assert made[0].tolist() == pytest.approx([0, 0, 0, 0, *rise, 1, 1, *rise[::-1], 0, 0])
    assert made[:, 6].tolist() == pytest.approx([1] * 6 + rise[::-1] + [0] * 8)


def test_a_view_lies_in_the_middle_or_where_it_is_told_to() -> None:
    inner, outer = Canvas(1, 8, 6), Canvas(1, 22, 14)
    assert View().region(inner, outer, 2) == CanvasRegion(6, 4, 8, 6)
    assert View(top=0.0, left=0.55).region(inner, outer, 2) == CanvasRegion(0, 8, 8, 6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"top": 0.7}, r"top 0.7 .* does not lie inside it; top from 0 to 0.333 works"),
        ({"left": -0.1}, r"left -0.1 .* left from 0 to 0.333 works"),
        ({"form": "round"}, "noisy or feathered or projected"),
    ],
)
def test_a_view_outside_the_canvas_is_refused_before_any_work(
    options: dict[str, Any], match: str
) -> None:
    chosen = {"mode": "view"} | options
    spec = RenderSpec(height=384, width=384, method="ultraimage", method_options=chosen)
    with pytest.raises((PlanError, SpecError), match=match):
        plan(spec)


def test_a_view_larger_than_the_canvas_is_refused() -> None:
    with pytest.raises(PlanError, match="24 latent cells does not lie inside a canvas of 22"):
        View().region(Canvas(1, 24, 8), Canvas(1, 22, 14), 2)


# ---- alignment with the flow of the stage before


def flow(guide: Flow, grid: Grid, comm: Comm) -> FlowGuiding:
    own = grid.bands[comm.rank]
    return FlowGuiding(
        guide,
        comm,
        grid,
        LEVELS,
        alignment=1.0,
        before=LEVELS,
        reference=lambda step: rows(canvas(10 + step), own),
        zeros=rows(torch.zeros_like(canvas()), own),
    )


def test_aligned_steps_are_the_published_rules_for_velocities() -> None:
    guiding, n = flow(Flow(), SOLO, solo()), 4
    before = None
    for i in range(n):
        x, x0, r, t = canvas(20 + i), canvas(30 + i), canvas(10 + i), LEVELS[i].sigma
        made = guiding.corrected(i, x0)
        fall = (n - i) / n
        x0 = x0 + fall * (whole_butterworth(r, 0.2, 4) - whole_butterworth(x0, 0.2, 4))
        v, v_r = (x - x0) / t, (x - r) / t
        if before is not None:
            v = v + 0.5 * fall * (before[0] + v_r - before[1] - v)
        before = (v, v_r)
        assert (made - (x - t * v)).abs().max() <= EXACT_FLOAT64


def test_aligned_steps_of_bands_are_those_of_the_canvas() -> None:
    def work(grid: Grid, comm: Comm) -> Tensor:
        guiding, own = flow(Flow(), grid, comm), grid.bands[comm.rank]
        return torch.cat([guiding.corrected(i, rows(canvas(30 + i), own)) for i in range(4)], 1)

    made = joined(lambda comm: work(Grid(CANVAS, BANDS), comm))
    assert (made - work(SOLO, solo())).abs().max() <= EXACT_FLOAT64


def test_the_step_before_is_all_that_an_aligned_step_remembers() -> None:
    guiding, again = (flow(Flow(), SOLO, solo()) for _ in range(2))
    for index in range(2):
        guiding.corrected(index, canvas(30 + index))
    again.memory = guiding.memory
    assert torch.equal(guiding.corrected(2, canvas(32)), again.corrected(2, canvas(32)))
    assert len(flow(Flow(accelerate=0.0), SOLO, solo()).memory) == 0


def test_steps_are_matched_by_the_time_of_rectified_flow() -> None:
    assert [nearest(LEVELS, NoiseLevel(0, 1 - t, t)) for t in (1.0, 0.7, 0.55, 0.1)] == [0, 1, 2, 3]
    # A level that preserves variance is as noisy as t = sigma / (alpha + sigma).
    assert nearest(LEVELS, NoiseLevel(0, math.sqrt(0.5), math.sqrt(0.5))) == 2


def test_no_guide_changes_nothing() -> None:
    x, guiding = canvas(), StageGuide(solo(), SOLO, LEVELS)
    assert guiding.entered(0, x) is x
    assert guiding.corrected(0, x) is x
    assert guiding.grid(0) is SOLO


# ---- what methods make of it, and what is refused


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("imax", {}, Resolution),
        ("hiflow", {}, Flow),
        ("ultraimage", {}, type(None)),
        ("ultraimage", {"mode": "resolution"}, Resolution),
        ("ultraimage", {"mode": "view"}, View),
    ],
)
def test_guided_methods_have_their_guides(name: str, options: dict[str, Any], kind: type) -> None:
    spec = RenderSpec(height=512, width=512, method=name, method_options=options)
    assert isinstance(load_method(spec, describe("demo")).guide, kind)


def test_hiflow_restarts_where_the_last_steps_of_a_whole_table_begin() -> None:
    made = plan(RenderSpec(height=1024, width=1024, method="hiflow", num_inference_steps=30))
    assert [stage.num_steps for stage in made.stages] == [30, 16, 10]
    plain = RenderSpec(height=1024, width=1024, method="none", num_inference_steps=30)
    whole = plan(plain).stages[0]
    last = [level.sigma for level in made.stages[2].levels]
    assert last == pytest.approx([level.sigma for level in whole.levels[-11:]], abs=1e-6)


def test_a_prompt_of_the_large_canvas_is_that_of_later_stages_only() -> None:
    options = {"mode": "view", "canvas_prompt": "mountains"}
    spec = RenderSpec(
        prompt="a sun", height=384, width=384, method="ultraimage", method_options=options
    )
    made = plan(spec)
    assert [stage.prompt for stage in made.stages] == ["a sun", "mountains"]
    assert made.prompts == ("a sun", "mountains")


def test_half_tokens_and_a_first_frame_do_not_go_together() -> None:
    with pytest.raises(PlanError, match=r"half_token True: .* use false"):
        check_guide(Method(guide=Resolution()), (), (), 2, animates=True)
    check_guide(Method(guide=Resolution(half_token=False)), (), (), 2, animates=True)


def test_more_bands_than_column_frequencies_are_refused() -> None:
    stage: Any = SimpleNamespace(canvas=Canvas(1, 64, 2), bands=cut(64, 3))
    with pytest.raises(PlanError, match="3 bands are more than the 2 column frequencies"):
        check_guide(Method(guide=Flow()), (stage, stage), (stage,), 1, animates=False)


@pytest.mark.parametrize("name", ["imax", "hiflow"])
def test_models_without_rotary_positions_are_guided_only(name: str) -> None:
    facts = dataclasses.replace(describe("demo"), rotary=False)
    made = load_method(RenderSpec(method=name, height=512, width=512), facts)
    assert made.guide is not None
    assert (made.positions, made.focus, len(made.stages)) == (trained, None, 2)
