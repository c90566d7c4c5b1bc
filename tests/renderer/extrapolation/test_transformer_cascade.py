"""CineScale's cascade of transformers: the released numbers, by the authors' code where it ran."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from contracts.method import clip_facts, picture_facts
from frieze.renderer.checkpoints.facts import LatentSpec, ModelFacts
from frieze.renderer.errors import PlanError, SpecError
from frieze.renderer.extrapolation.cascade import from_known
from frieze.renderer.extrapolation.concentration import by_tokens, stepped
from frieze.renderer.extrapolation.key_positions import known_grid, tiles, warped
from frieze.renderer.extrapolation.method import Method
from frieze.renderer.models.positions import RotaryAxis, squeeze, trained
from frieze.renderer.planning.plan import load_method
from frieze.renderer.sampling.noise_levels import NoiseSchedule
from frieze.renderer.sampling.schedule_table import sampler, table
from frieze.renderer.spec.render_spec import RenderSpec
from support.vectors import EXACT, vectors

FLOW = {"_class_name": "UniPCMultistepScheduler", "flow_shift": 5.0, "num_train_timesteps": 1000}
UNIPC = NoiseSchedule("unipc", True, "velocity", FLOW)


def wan(side: int = 960) -> ModelFacts:
    """Wan 2.1 of 14B, or of another training size."""
    latent = LatentSpec(channels=16, downscale=8, patch=2, temporal=4)
    return dataclasses.replace(
        clip_facts(),
        family="wan",
        square=False,
        latent=latent,
        training_size=side,
        training_frames=81,
        schedule=UNIPC,
    )


def made(height: int, width: int, facts: ModelFacts | None = None, **fields: Any) -> Method:
    options = fields.pop("options", {})
    spec = RenderSpec(
        height=height,
        width=width,
        method="cinescale",
        method_options=options,
        **{"num_frames": 81, "num_inference_steps": 50} | fields,
    )
    return load_method(spec, facts or wan())


def axis(name: str, dim: int, known: int, length: int) -> RotaryAxis:
    return RotaryAxis(name, dim, 10000.0, known, length)


# ---- the released numbers


def test_positions_are_the_released_ones() -> None:
    """Base 20 on both axes of 1088 x 1920, whose 68 rows the model would know of a tall clip."""
    released, plain = vectors("wan_rope")
    for vector, clip in ((released, made(1088, 1920)), (plain, made(720, 1280))):
        lengths = {"frame": 21, "row": 68, "column": 120}
        for name, recorded in vector["axes"].items():
            dim = 2 * recorded["num_frequencies"]
            known = 21 if name == "frame" else 80
            length = lengths[name] if vector is released else min(lengths[name], known)
            index = recorded["frequency_index"]
            for position, pairs in {"1": None, **recorded["cos_sin"]}.items():
                angle_F = clip.positions(
                    axis(name, dim, known, length), torch.tensor([int(position)]), 0.5
                )[0][index]
                if position == "1":
                    expected = torch.tensor(recorded["angle_of_position_1"], dtype=torch.float64)
                    assert torch.allclose(angle_F, expected, rtol=1e-6, atol=0)
                if pairs is not None:
                    found = torch.stack((angle_F.cos(), angle_F.sin()), 1)
                    assert (found - torch.tensor(pairs, dtype=torch.float64)).abs().max() <= 1e-6


@pytest.mark.parametrize("vector", vectors("wan_attention_scale"))
def test_logits_are_scaled_as_released(vector: dict[str, Any]) -> None:
    focus = made(2176, 3840).focus
    assert focus is not None
    assert focus.of_frame is not None
    found = focus.of_frame(vector["tokens_per_latent_frame"])
    assert found == pytest.approx(vector["factor_on_1_over_sqrt_d"], rel=EXACT)


def test_thresholds_are_strict_and_the_law_is_an_option() -> None:
    low, high = 1.049515264524795, 1.0846469037993907
    for tokens, factor in {10_000: 1, 10_001: low, 20_000: low, 20_001: high}.items():
        assert stepped(tokens) == pytest.approx(factor, rel=1e-12)
    assert stepped(32_640, ratios=(1.5, 1.5)) == pytest.approx(low)
    law = made(2176, 3840, options={"attention": "tokens"}).focus
    assert law is not None
    assert law.of_frame is not None
    assert law.of_frame(32_640) == by_tokens(32_640, 3600) == pytest.approx(1.269, abs=5e-4)
    assert law.of_frame(3600) == law.of_frame(100) == 1
    assert made(2176, 3840, options={"attention": "none"}).focus is None


@pytest.mark.parametrize("vector", vectors("wan_schedule"))
def test_levels_and_the_restart_are_the_released_ones(vector: dict[str, Any]) -> None:
    """And what diffusers' own scheduler of flows makes of these even times."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    schedule, shift, steps = UNIPC.by_euler(), vector["shift"], vector["num_steps"]
    tokens = {"tokens": 100, "training_tokens": 100}
    whole = table(schedule, steps, shift=shift, spacing="even", **tokens)
    expected = [*vector["sigmas"], vector["then"]]
    assert [level.sigma for level in whole.levels] == pytest.approx(expected, abs=1e-6)
    stock = FlowMatchEulerDiscreteScheduler(shift=shift)
    stock.set_timesteps(sigmas=[1 - i / steps for i in range(steps)])
    assert [level.sigma for level in whole.levels] == pytest.approx(stock.sigmas.tolist(), abs=1e-6)
    times = [level.timestep for level in whole.levels[:-1]]
    assert times == pytest.approx(stock.timesteps.tolist(), abs=1e-3)
    ratio = {7.0: 1.0, 9.0: 2 / 3}[shift]
    last = made(1632, 2880, shift=7.0, options={"first": ratio}).stages[-1]
    if shift == 9.0:
        again = table(
            schedule, 35, shift=last.shift, start=last.start, spacing=last.spacing, **tokens
        )
        assert [level.sigma for level in again.levels] == pytest.approx(expected[15:], abs=1e-6)
        assert again.levels[0].sigma == pytest.approx(vector["sigma_at_restart"], abs=1e-6)
        assert last.steps == vector["steps_left"]
        other = table(UNIPC, 35, shift=9.0, start=last.start, **tokens)
        assert other.levels[-2].sigma != pytest.approx(expected[-2], abs=1e-3), "control"


@pytest.mark.parametrize("vector", vectors("wan_2026_warp"))
def test_keys_are_drawn_in_as_released(vector: dict[str, Any]) -> None:
    tile = range(*vector["tile"])
    found = warped(vector["length"], tile, vector["most_relative"], vector["threshold"])
    assert found.tolist() == vector["key_position"]


def test_no_key_is_farther_than_known_and_none_overtakes_another() -> None:
    for length, known in ((135, 45), (240, 80), (60, 52), (7, 4), (9, 1)):
        for part in (0.4, 0.1, 1.0):
            for tile in tiles(length, max(1, round(part * known))):
                place_S = warped(length, tile, known - 1, round(0.2 * known))
                assert max(place_S.max() - tile[0], tile[-1] - place_S.min()) <= known - 1
                assert bool((place_S.diff() >= 0).all())
                assert place_S[tile.start : tile.stop].tolist() == list(tile)
    assert warped(45, range(18), 44, 9).tolist() == list(range(45))


def test_the_ladder_is_the_released_one() -> None:
    """From 1088 x 1920 to 1632 x 2880 and 2176 x 3840: shifts 7, 9 and 11, bases 20 and 25."""
    for height, width, first, shift, start in (
        (1632, 2880, 2 / 3, 9.0, 0.9545),
        (2176, 3840, 0.5, 11.0, 0.9625),
    ):
        clip = made(height, width, shift=7.0, options={"first": first})
        small, large = clip.stages
        assert (small.scale, small.shift, small.start) == (first, pytest.approx(7.0), 1.0)
        assert (large.steps, large.shift) == (35, pytest.approx(shift))
        assert large.start == pytest.approx(start, abs=5e-5)
        assert {stage.spacing for stage in clip.stages} == {"even"}
        assert (large.enlarge, clip.solver, clip.guide) == ("latents_linear", "euler", None)
        for name, side in (("row", height), ("column", width)):
            for stage, factor in ((small, 20.0), (large, 25.0)):
                length = round(side * stage.scale / 16)
                angle_F = clip.positions(axis(name, 42, 80, length), torch.ones(1), 0.5)[0]
                base = dataclasses.replace(axis(name, 42, 80, length), theta=10000.0 * factor)
                assert torch.allclose(angle_F, trained(base, torch.ones(1), 0.5)[0], rtol=1e-12)
    direct = made(2176, 3840, shift=5.0, options={"first": 1, "row_factor": 20})
    assert [stage.shift for stage in direct.stages] == [5.0]


def test_bases_grow_by_axis() -> None:
    options = {"row_factor": [2, 3], "column_factor": [4], "frame_factor": 5}
    clip = made(2160, 3840, options=options)
    assert [round(stage.scale, 3) for stage in clip.stages] == [0.333, 0.577, 1.0]
    for name, length, factor in (
        *(("row", 45, 1), ("row", 78, 2), ("row", 135, 3)),
        *(("column", 80, 1), ("column", 139, 4), ("column", 240, 4)),
        *(("frame", 21, 1), ("frame", 22, 5)),
    ):
        own = axis(name, 42, 21 if name == "frame" else 80, length)
        found = clip.positions(own, torch.arange(3), 0.5)
        base = dataclasses.replace(own, theta=10000.0 * factor)
        assert torch.allclose(found, trained(base, torch.arange(3), 0.5), rtol=1e-12)


def test_what_a_model_was_trained_on_is_left_alone() -> None:
    for height, width, side in ((720, 1280, 960), (1280, 720, 960), (480, 832, 624)):
        clip = made(height, width, wan(side))
        assert clip.note == "the plain model, no larger than trained"
        plain = Method(stages=clip.stages, note=clip.note)
        assert clip == plain
        assert [stage.scale for stage in clip.stages] == [1.0]
    assert len(made(960, 1664, wan(624)).stages) == 2
    assert from_known(RenderSpec(height=1024, width=1024), picture_facts(), None)[0] == 0.25


def test_pictures_go_through_pixels_and_other_shifts_grow_as_much() -> None:
    facts = dataclasses.replace(picture_facts(), schedule=UNIPC)
    picture = made(1024, 1024, facts, num_frames=1)
    assert [stage.scale for stage in picture.stages] == [0.25, 0.5, 1.0]
    assert {stage.enlarge for stage in picture.stages} == {"pixels"}
    shifts = [stage.shift for stage in picture.stages]
    assert shifts == pytest.approx([5.0, 5.0 * 11 / 7, 5.0 * 19 / 7])
    told = made(1024, 1024, facts, num_frames=1, options={"shifts": [3, 4], "restart": 0.5})
    assert [stage.shift for stage in told.stages] == [3, 4, 4]
    assert [stage.steps for stage in told.stages] == [None, 25, 25]
    own = made(1024, 1024, facts, num_frames=1, options={"sampler": "checkpoint"})
    assert ({stage.spacing for stage in own.stages}, own.solver) == ({"checkpoint"}, "checkpoint")


def test_what_is_redrawn_takes_the_first_stages_place() -> None:
    over = made(1024, 1024, picture_facts(), num_frames=1, init="a.png")
    assert [stage.scale for stage in over.stages] == [0.5, 1.0]
    assert over.stages[0].start == 1.0


def test_detail_is_held_where_it_is_asked_for() -> None:
    assert made(2176, 3840).guide is None
    held = made(2176, 3840, options={"detail": 1.5}).guide
    assert getattr(held, "factor", None) == 1.5
    assert made(2176, 3840, mask="a.png").guide is not None


def test_the_scheduler_that_is_stepped_by_euler_says_so() -> None:
    assert (sampler(UNIPC), sampler(UNIPC.by_euler())) == ("UniPC", "Euler")


# ---- rectified positions


def test_keys_are_drawn_in_within_the_trained_grid_of_the_pictures_shape() -> None:
    spec = RenderSpec(height=2160, width=3840)
    assert known_grid(spec, wan()) == {"row": 45, "column": 80}
    clip = made(2160, 3840, options={"positions": "rectified", "restart": 0.25})
    assert (clip.positions, clip.focus) == (trained, None)
    assert clip.key_positions is not None
    frames = axis("frame", 44, 21, 21)
    small = (frames, axis("row", 42, 80, 45), axis("column", 42, 80, 80))
    assert clip.key_positions(small) is None
    turns = clip.key_positions((frames, axis("row", 42, 80, 135), axis("column", 42, 80, 240)))
    assert turns is not None
    assert ({len(t) for t in turns.rows[:-1]}, {len(t) for t in turns.columns[:-1]}) == ({18}, {32})
    assert tuple(turns.row_angles.shape) == (8, 135, 64)
    assert not turns.row_angles[..., :22].any()
    assert not turns.row_angles[..., 43:].any()
    assert not turns.column_angles[..., :43].any()
    # Keys of a tile's own stay.
    assert not turns.row_angles[3, 54:72].any()


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"options": {"dilation": False}}, "option dilation is for U-Nets, and wan has none"),
        ({"options": {"fusion": "hwc"}}, "option fusion of cinescale = hwc: .* hw or none works"),
        ({"options": {"positions": "rectified", "fusion": "hw"}}, "are not rectified; use none"),
        ({"options": {"first": 0}}, "option first of cinescale = 0; .* more than 0, up to 1"),
        ({"options": {"row_factor": "0.5"}}, "option row_factor of cinescale = "),
        ({"options": {"positions": "rect"}}, "the nearest is 'rectified'"),
        (
            {"options": {"positions": "rectified"}, "edit": ("a.png=x",)},
            "option positions = rectified with an edit: use positions=ntk, or no edit",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises((PlanError, SpecError), match=words) as caught:
        made(2176, 3840, **changes)
    assert "\n" not in str(caught.value)


def test_models_without_rotary_positions_grow_without_them() -> None:
    facts = dataclasses.replace(picture_facts(), rotary=False, family="sd3")
    picture = made(1024, 1024, facts, num_frames=1)
    assert (picture.positions, picture.absolute) == (trained, squeeze)
    assert picture.focus is not None
    with pytest.raises(PlanError, match="tile is for rotary positions, and sd3 has none"):
        made(1024, 1024, facts, num_frames=1, options={"tile": 0.5})
