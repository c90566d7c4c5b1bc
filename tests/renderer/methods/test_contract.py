"""Every method keeps the contract; and what is particular to one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from contracts.method import MethodContract, clip_facts, picture_facts, spectrum
from frieze.renderer import plugins
from frieze.renderer.errors import PlanError, SpecError
from frieze.renderer.extrapolation.method import Method
from frieze.renderer.models.positions import RotaryAxis, interpolated, trained
from frieze.renderer.planning.plan import load_method
from frieze.renderer.spec.render_spec import RenderSpec
from tolerances import CONTROL

FLUX = RotaryAxis("row", 56, 10000.0, trained=128, length=225)
QWEN = RotaryAxis("row", 56, 10000.0, trained=83, length=256)
FOURFOLD = RotaryAxis("row", 56, 10000.0, trained=64, length=256)
FRAMES = RotaryAxis("frame", 44, 10000.0, trained=21, length=42)


@pytest.mark.parametrize("name", plugins.names("methods"), scope="class")
class TestEveryMethod(MethodContract):
    """The contract, once for each file in the folder."""

    @pytest.fixture(autouse=True)
    def _named(self, name: str) -> None:
        self.name = name


def made(name: str, size: tuple[int, int] = (1024, 1024), **options: Any) -> Method:
    """The method for a clip's model, of height and width."""
    spec = RenderSpec(height=size[0], width=size[1], method=name, method_options=options)
    return load_method(spec, clip_facts())


def period(method: Method, axis: RotaryAxis, sigma: float = 1.0) -> Tensor:
    """Tokens after which each frequency's angle is a whole turn further."""
    return 2 * math.pi / method.positions(axis, torch.ones(1), sigma)[0]


def plain(axis: RotaryAxis) -> Tensor:
    return 2 * math.pi / trained(axis, torch.ones(1), 1.0)[0]


def test_interpolated_positions_never_leave_the_trained_range() -> None:
    axis = RotaryAxis("row", 32, 10000.0, trained=16, length=64)
    angles = interpolated(axis, torch.arange(64), 0.5)
    # Frequency 0 is 1 radian a token: its angles are the positions themselves.
    assert angles[:, 0].tolist() == [position / 4 for position in range(64)]
    assert angles[:, 0].max() < 16


def test_interpolation_comes_in_a_cascade_unless_told_otherwise() -> None:
    side = 4 * picture_facts().training_size
    assert [stage.scale for stage in made("pi", (side, side)).stages] == [0.25, 0.5, 1.0]
    assert [s.scale for s in made("pi", (side, side), cascade=False).stages] == [1.0]


def test_interpolation_serves_models_with_added_positions() -> None:
    absolute = made("pi").absolute
    assert absolute is not None
    assert [absolute(64, length) for length in (32, 64, 96, 256)] == [1.0, 1.0, 1.5, 4.0]
    # Whatever else stretches frequencies has nothing to stretch there.
    assert made("ntk").absolute is None


def test_auto_grows_from_a_short_side_of_the_trained_length() -> None:
    side = picture_facts().training_size
    auto = made("auto", (4 * side, 4 * side))
    assert [(s.scale, s.start) for s in auto.stages] == [(0.25, 1.0), (0.5, 0.4), (1.0, 0.3)]
    twice = made("auto", (2 * side, 2 * side))
    assert [(s.scale, s.start) for s in twice.stages] == [(0.5, 1.0), (1.0, 0.8)]
    # Several stages add to what the last one drew, and concentrate less each.
    spread_LH = torch.tensor([[0.2, 0.9]])
    assert torch.allclose(auto.focus.scale(spread_LH), torch.tensor([[1.6, 1.1]]))
    assert torch.allclose(twice.focus.scale(spread_LH), torch.tensor([[2.0, 1.2]]))
    assert auto.note == "3 stages, positions interpolated, heads concentrated"
    assert torch.allclose(period(auto, FOURFOLD), 4 * plain(FOURFOLD))
    # Steps of growth are alike, and none is above 2.
    scales = [stage.scale for stage in made("auto", (3 * side, 6 * side)).stages]
    assert scales == pytest.approx([1 / 3, 3**-0.5, 1])
    # A side no longer than trained is drawn at its length at once, whatever the other is.
    assert [stage.scale for stage in made("auto", (side, 2 * side)).stages] == [1.0]
    # A picture that is drawn over has a layout already.
    over = RenderSpec(height=4 * side, width=4 * side, method="auto", init="a.png")
    assert [s.scale for s in load_method(over, picture_facts()).stages] == [1.0]
    # A first frame is drawn the same way.
    spec = RenderSpec(height=4 * side, width=4 * side, method="auto", image="a.png")
    assert load_method(spec, clip_facts()).stages == auto.stages


def test_auto_stretches_nothing_where_a_model_knows_many_shapes() -> None:
    knows = dataclasses.replace(picture_facts(), square=False)
    side, unit = knows.training_size, knows.latent.unit
    spec = RenderSpec(height=2 * side, width=8 * side, method="auto")
    auto = load_method(spec, knows)
    assert [stage.scale for stage in auto.stages] == [0.25, 0.5, 1.0]
    lengths = {"row": 2 * side // unit, "column": 8 * side // unit}
    for stage in auto.stages:
        for name, whole in lengths.items():
            length = round(stage.scale * whole)
            axis = RotaryAxis(name, 16, 100.0, trained=side // unit, length=length)
            tokens = torch.arange(length)
            expected = trained(axis, tokens / (4 * stage.scale), 1.0)
            assert torch.allclose(auto.positions(axis, tokens, 1.0), expected)
    # The control: a model of squares has its columns squeezed by 8, its rows by 2.
    column = RotaryAxis("column", 16, 100.0, trained=side // unit, length=lengths["column"])
    squares = load_method(spec, picture_facts()).positions(column, torch.arange(8), 1.0)
    assert torch.allclose(squares, trained(column, torch.arange(8) / 8, 1.0))


def test_auto_is_the_plain_model_up_to_the_trained_area_and_frames() -> None:
    side = picture_facts().training_size
    wide = RotaryAxis("column", 32, 10000.0, trained=16, length=32)
    tokens = torch.arange(wide.length)
    for size in ((side, side), (side // 2, 2 * side)):
        auto = made("auto", size)
        assert torch.equal(auto.positions(wide, tokens, 1.0), trained(wide, tokens, 1.0))
        assert (auto.focus, auto.absolute, len(auto.stages)) == (None, None, 1)
    assert auto.note == "the plain model, no larger than trained"
    longer = RenderSpec(height=side, width=side, num_frames=22, method="auto")
    assert load_method(longer, clip_facts()).positions is interpolated
    assert made("auto", (2 * side, 2 * side)).positions is interpolated


@pytest.mark.parametrize("stage", [1, 2])
def test_auto_draws_the_layout_of_an_unknown_shape_squeezed_and_the_rest_in_its_width(
    stage: int,
) -> None:
    side = picture_facts().training_size
    auto = made("auto", (2 * side, 4 * side))
    rows, columns = (
        RotaryAxis(name, 32, 10000.0, trained=16, length=length * stage)
        for name, length in (("row", 16), ("column", 32))
    )
    tokens = torch.arange(columns.length)
    early, late = (auto.positions(columns, tokens, sigma) for sigma in (0.86, 0.85))
    assert torch.equal(early, interpolated(columns, tokens, 0.86))
    # Tokens are as wide as those of rows, and the dominant frequency's period is the canvas.
    expected = trained(columns, tokens / stage, 0.85)
    ratio = (late[-1] / expected[-1]).tolist()
    period = 2 * math.pi * (columns.length - 1) / late[-1]
    assert [j for j, r in enumerate(ratio) if not math.isclose(r, 1)] == [2]
    assert period[2] == pytest.approx(columns.length)
    assert 2 * math.pi * 10000 ** (2 / 16) * stage < columns.length
    for sigma in (0.86, 0.85):
        assert torch.equal(auto.positions(rows, tokens, sigma), interpolated(rows, tokens, sigma))
    tall = made("auto", (4 * side, 2 * side))
    assert torch.equal(tall.positions(columns, tokens, 0.1), interpolated(columns, tokens, 0.1))


def test_auto_draws_at_once_what_is_hardly_longer_than_trained() -> None:
    side = picture_facts().training_size
    slight = made("auto", (round(1.15 * side), round(1.15 * side)))
    assert [stage.scale for stage in slight.stages] == [1.0]
    assert slight.focus is not None
    more = made("auto", (round(1.25 * side), round(1.25 * side)))
    assert [stage.scale for stage in more.stages] == pytest.approx([0.8, 1.0])


def test_auto_does_what_it_can_where_nothing_rotates_and_says_so() -> None:
    facts = dataclasses.replace(picture_facts(), rotary=False, family="sd3")
    fixed = load_method(RenderSpec(height=1024, width=1024, method="auto"), facts)
    assert fixed.focus is None
    assert fixed.absolute is not None
    assert fixed.absolute(16, 64) == 4
    assert fixed.note.endswith("sd3 rotates no positions, so that no head is concentrated")


def test_ntk_leaves_the_lowest_frequency_divided_and_repeats() -> None:
    periods = period(made("ntk"), QWEN)
    assert periods[8:10].tolist() == pytest.approx([121.9, 176.6], abs=0.05)
    assert float(periods[-1] / plain(QWEN)[-1]) == pytest.approx(256 / 83)


def test_ntk_by_a_factor_multiplies_the_base() -> None:
    axis = RotaryAxis("column", 56, 10000.0, trained=64, length=256)
    times_ten = RotaryAxis("column", 56, 100000.0, trained=64, length=256)
    given = period(made("ntk", convention="factor", factor=10), axis)
    assert torch.allclose(given, plain(times_ten))
    # By default the root of the ratio of areas, here 4 and 3.
    square = period(made("ntk", convention="factor"), axis)
    assert torch.allclose(
        square, plain(RotaryAxis("column", 56, 40000.0, axis.trained, axis.length)), rtol=1e-12
    )
    wide = made("ntk", (900, 1600), convention="factor")
    expected = plain(RotaryAxis("column", 56, 30000.0, axis.trained, axis.length))
    assert torch.allclose(period(wide, axis), expected, rtol=1e-12)
    row = RotaryAxis("row", 56, 10000.0, trained=64, length=144)
    assert torch.allclose(period(wide, row), expected, rtol=1e-12)


def test_ntk_by_a_factor_leaves_frames_alone() -> None:
    assert torch.equal(period(made("ntk", convention="factor", factor=20), FRAMES), plain(FRAMES))
    assert not torch.equal(period(made("ntk"), FRAMES), plain(FRAMES))


def test_clipped_ntk_stretches_no_more_than_interpolation() -> None:
    ratio = period(made("ntk", convention="factor", factor=10, clip=True), FOURFOLD)
    ratio = ratio / plain(FOURFOLD)
    free = period(made("ntk", convention="factor", factor=10), FOURFOLD) / plain(FOURFOLD)
    assert float(free.max()) > 4 + CONTROL
    assert float(ratio.max()) == pytest.approx(4)
    assert torch.allclose(ratio, free.clamp(max=4.0))


def test_ntk_with_a_factor_and_the_other_convention_is_refused() -> None:
    with pytest.raises(SpecError, match="factor = 10 needs option convention=factor"):
        made("ntk", factor=10)


def test_dynamic_ntk_is_ntk_where_a_is_one() -> None:
    assert torch.equal(period(made("dynamic_ntk"), QWEN), period(made("ntk"), QWEN))
    # a = 2 at s = 4: as at s = 7.
    longer = RotaryAxis("row", 56, 10000.0, trained=64, length=448)
    assert torch.allclose(period(made("dynamic_ntk", a=2), FOURFOLD), period(made("ntk"), longer))


def test_yarn_has_bands_and_a_temperature() -> None:
    yarn = made("yarn")
    printed = [42.1, 132.5, 349.2, 485.2, 674.2]
    found = period(yarn, FOURFOLD, sigma=0.3)[[5, 7, 8, 9, 10]]
    assert found.tolist() == pytest.approx(printed, abs=0.05)
    assert yarn.gains is not None
    assert yarn.gains(FOURFOLD, 0.3, None) == pytest.approx(1.1386, abs=5e-5)
    assert yarn.gains(FRAMES, 0.3, None) == 1
    assert made("yarn", temperature=False).gains is None


@pytest.mark.parametrize(
    ("sigma", "printed"),
    [
        (1.0, [42.1, 132.5, 349.2, 485.2, 674.2]),
        (0.7, [37.9, 85.4, 131.7, 241.0, 460.4]),
        (0.15, [32.5, 62.8, 87.3, 121.3, 168.6]),
    ],
)
def test_dype_moves_the_bands_with_the_noise(sigma: float, printed: list[float]) -> None:
    dype = made("dype")
    found = period(dype, FOURFOLD, sigma)[[5, 7, 8, 9, 10]]
    assert found.tolist() == pytest.approx(printed, abs=0.05)
    # The temperature does not fade.
    assert dype.gains is not None
    assert dype.gains(FOURFOLD, sigma, None) == pytest.approx(1.1386, abs=5e-5)


@pytest.mark.parametrize("form", ["pi", "ntk"])
def test_dype_fades_a_stretch_of_twice_the_power(form: str) -> None:
    dype = made("dype", form=form)
    assert dype.gains is None
    half = period(dype, FOURFOLD, sigma=math.sqrt(0.5))  # kappa is 1 there
    static = period(made("pi" if form == "pi" else "ntk"), FOURFOLD)
    assert torch.allclose(half, static)
    full = period(dype, FOURFOLD) / plain(FOURFOLD)
    assert torch.allclose(full, (static / plain(FOURFOLD)) ** 2)


@pytest.mark.parametrize("form", ["pi", "ntk", "yarn"])
def test_dype_falls_to_the_trained_positions_with_the_noise(form: str) -> None:
    dype = made("dype", form=form)
    periods = torch.stack([period(dype, FOURFOLD, sigma / 20) for sigma in range(21)])
    assert bool((periods.diff(dim=0) >= -1e-9).all())
    assert float(periods[-1].max() / plain(FOURFOLD).max()) > 2
    assert torch.equal(periods[0], plain(FOURFOLD))


def test_dype_may_fade_in_another_way() -> None:
    flat = period(made("dype", form="pi", strength=1, power=1), FOURFOLD, sigma=0.5)
    assert torch.allclose(flat, 2 * plain(FOURFOLD))


def test_riflex_slows_the_frequency_of_the_first_repetition_down() -> None:
    slow = period(made("riflex"), FRAMES)
    assert float(plain(FRAMES)[3]) == pytest.approx(22.1, abs=0.05)
    assert float(slow[3]) == pytest.approx(42 / 0.9)
    others = [j for j in range(22) if j != 3]
    assert torch.equal(slow[others], plain(FRAMES)[others])


def test_riflex_finds_the_published_frequency_of_hunyuan_video() -> None:
    """One-based 4 on an axis of 16 channels and base 256: a period of 50.27 latent frames."""
    axis = RotaryAxis("frame", 16, 256.0, trained=33, length=66)
    slow, known = period(made("riflex", period=48), axis), plain(axis)
    assert float(known[3]) == pytest.approx(50.27, abs=0.005)
    assert (slow != known).nonzero().flatten().tolist() == [3]
    assert torch.equal(period(made("riflex", k=3), axis), slow)
    # Up to its period nothing repeats, so nothing is done.
    shorter = RotaryAxis("frame", 16, 256.0, trained=33, length=50)
    assert torch.equal(period(made("riflex", period=48), shorter), known)


def test_riflex_refuses_pictures_unless_it_is_to_work_along_them() -> None:
    spec = RenderSpec(method="riflex")
    with pytest.raises(PlanError, match="flux draws pictures; method rdfc"):
        load_method(spec, picture_facts())
    along = spec.model_copy(update={"method_options": {"along": "picture"}})
    positions = load_method(along, picture_facts()).positions
    axis = RotaryAxis("row", 32, 10000.0, trained=16, length=32)
    assert not torch.equal(positions(axis, torch.arange(4), 1.0), trained(axis, torch.arange(4), 1))
    with pytest.raises(SpecError, match="k = 22; axis frame has 0 to 21"):
        period(made("riflex", k=22), FRAMES)


def test_rdfc_gives_the_published_periods() -> None:
    assert float(period(made("rdfc", margin=0.85), FLUX)[9]) == pytest.approx(264.71, abs=0.01)
    assert float(period(made("rdfc"), FLUX)[9]) == pytest.approx(225)
    qwen = period(made("rdfc", ks=[8, 9], edit="divide"), QWEN)
    assert qwen[8:10].tolist() == pytest.approx([269.28, 374.16], abs=0.01)
    twice = period(made("rdfc", n_rec=2), QWEN)
    assert twice[8:10].tolist() == pytest.approx([256, 256])
    assert torch.equal(twice[10:], plain(QWEN)[10:])


def test_rdfc_never_edits_frames() -> None:
    for options in ({}, {"mode": "all"}, {"ks": [3]}):
        assert torch.equal(period(made("rdfc", **options), FRAMES), plain(FRAMES))
    assert not torch.equal(period(made("rdfc"), QWEN), plain(QWEN))


def test_rdfc_may_fade_with_the_noise() -> None:
    faded, static = made("rdfc", fade=2), made("rdfc")
    assert torch.allclose(period(faded, QWEN, 1.0), period(static, QWEN, 1.0))
    assert torch.equal(period(faded, QWEN, 0.0), plain(QWEN))
    assert torch.equal(period(static, QWEN, 0.0), period(static, QWEN, 1.0))


def test_sega_has_a_strong_base_and_gains_of_its_own_axis() -> None:
    sega, seen = made("sega"), spectrum()
    assert sega.needs_spectrum
    base = RotaryAxis("row", 56, 155716.49, trained=64, length=256)
    assert torch.allclose(period(sega, FOURFOLD), plain(base))
    assert sega.gains is not None
    column = RotaryAxis("column", 56, 10000.0, trained=64, length=256)
    row_F, column_F = sega.gains(FOURFOLD, 0.5, seen), sega.gains(column, 0.5, seen)
    assert isinstance(row_F, Tensor)
    assert isinstance(column_F, Tensor)
    assert float((row_F - column_F).abs().max()) > CONTROL
    assert sega.gains(FRAMES, 0.5, seen) == 1
    flat = made("sega", kappa=0).gains
    assert flat is not None
    assert float(torch.as_tensor(flat(FOURFOLD, 0.5, seen)).max()) < float(row_F.max())


def test_ultravico_keeps_a_window_of_the_trained_length_with_the_published_constants() -> None:
    decay = made("ultravico").decay
    assert decay is not None
    wan = decay(RotaryAxis("frame", 44, 10000.0, trained=21, length=63))
    assert [wan.factor(d) for d in (0, 10, 11, 62)] == [1.0, 1.0, 0.9, 0.9]
    hunyuan = made("ultravico", periods=[50], beta=0.6).decay
    assert hunyuan is not None
    told = hunyuan(RotaryAxis("frame", 16, 256.0, trained=33, length=99))
    # The released bands of risk: 46 to 54 and 96 to 104 frames.
    assert [d for d in range(99) if told.factor(d) == 0.6] == [*range(46, 55), *range(96, 99)]


def test_ultravico_refuses_pictures_and_a_beta_above_alpha() -> None:
    with pytest.raises(PlanError, match="ultravico is for the frames of clips, and flux draws"):
        load_method(RenderSpec(method="ultravico"), picture_facts())
    with pytest.raises(SpecError, match=r"beta 0\.95 is more than alpha 0\.9"):
        made("ultravico", periods=[50], beta=0.95)
