"""What every extrapolation method must hold to; run over each file in renderer/methods/."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frieze.cluster.layout import Canvas
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.checkpoints.facts import LatentSpec, ModelFacts
from frieze.renderer.errors import PlanError, SpecError
from frieze.renderer.extrapolation.method import Method, Spectrum, StepContext
from frieze.renderer.models.positions import RotaryAxis, trained
from frieze.renderer.planning.plan import load_method
from frieze.renderer.sampling.noise_levels import NoiseLevel
from frieze.renderer.spec.render_spec import RenderSpec
from support.shared import kept

NAMES = ("frame", "row", "column", "text")
SIGMAS = (1.0, 0.5, 0.01, 0.0)
UNET_METHODS = {"hidiffusion"}  # those that serve U-Nets alone
LENGTHS = st.integers(1, 400)


@kept
def picture_facts() -> ModelFacts:
    """Of the model that comes with the package."""
    return describe("demo")


@kept
def clip_facts() -> ModelFacts:
    """The same for a model of clips of 21 latent frames."""
    return dataclasses.replace(picture_facts(), video=True, training_frames=21)


@kept
def unet_facts() -> ModelFacts:
    """The same for a model whose network is SDXL's U-Net."""
    latent = LatentSpec(channels=4, downscale=8, patch=4)
    facts = dataclasses.replace(picture_facts(), family="unet", rotary=False, latent=latent)
    return dataclasses.replace(facts, attentions=(0, 2, 2))


def spectrum(seed: int = 0) -> Spectrum:
    """Some power in every bin."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.rand(3, 16, generator=generator, dtype=torch.float64) + 0.01
    return Spectrum(*parts)


def gain(made: Method, axis: RotaryAxis, sigma: float) -> torch.Tensor:
    """What cos and sin of the axis are multiplied by; 1 where the method has no gains."""
    found = 1.0 if made.gains is None else made.gains(axis, sigma, spectrum())
    return torch.as_tensor(found, dtype=torch.float64)


class MethodContract:
    """Inherit, and define `name`."""

    name: str

    def method(self, side: int, **fields: Any) -> Method:
        """The method for a picture of that side, by a model that it serves."""
        spec = RenderSpec(prompt="x", height=side, width=side, method=self.name, **fields)
        for facts in (picture_facts(), clip_facts()):
            with contextlib.suppress(PlanError):
                return load_method(spec, facts)
        return load_method(spec, unet_facts())

    @pytest.mark.parametrize("name_of_axis", NAMES)
    @pytest.mark.parametrize(("known", "length"), [(16, 16), (16, 9), (21, 21), (21, 1), (1, 1)])
    def test_it_is_the_plain_model_up_to_the_trained_size(
        self, name_of_axis: str, known: int, length: int
    ) -> None:
        side = picture_facts().training_size
        for made in (self.method(side), self.method(4 * side)):
            axis = RotaryAxis(name_of_axis, 32, 10000.0, known, length)
            positions = torch.arange(length) - length // 2
            for sigma in SIGMAS:
                angles = made.positions(axis, positions, sigma)
                assert torch.equal(angles, trained(axis, positions, sigma))
                assert bool((gain(made, axis, sigma) == 1).all())
            assert made.absolute is None or made.absolute(known, length) == 1

    def test_at_the_trained_size_it_draws_in_one_stage(self) -> None:
        made = self.method(picture_facts().training_size)
        assert [(stage.scale, stage.start) for stage in made.stages] == [(1.0, 1.0)]

    def test_its_last_stage_is_the_picture_and_its_first_starts_from_noise(self) -> None:
        for side in (256, 512, 1024, 1536):
            stages = self.method(side).stages
            assert stages[0].start == 1.0
            assert stages[-1].scale == 1.0
            scales = [stage.scale for stage in stages]
            assert scales == sorted(scales)

    @pytest.mark.parametrize("name_of_axis", NAMES)
    def test_positions_of_a_band_are_those_of_the_whole_canvas(self, name_of_axis: str) -> None:
        axis = RotaryAxis(name_of_axis, 32, 10000.0, trained=16, length=64)
        positions = self.method(1024).positions
        whole = positions(axis, torch.arange(64), 0.5)
        assert whole.dtype == torch.float64
        assert torch.equal(positions(axis, torch.arange(20, 33), 0.5), whole[20:33])

    def test_positions_do_not_depend_on_what_was_asked_before(self) -> None:
        axis = RotaryAxis("row", 32, 10000.0, trained=16, length=64)
        fresh = [self.method(1024).positions(axis, torch.arange(64), sigma) for sigma in SIGMAS]
        positions = self.method(1024).positions
        reused = [positions(axis, torch.arange(64), sigma) for sigma in SIGMAS]
        assert all(torch.equal(*pair) for pair in zip(fresh, reused, strict=True))

    @settings(max_examples=40, deadline=None)
    @given(
        name_of_axis=st.sampled_from(NAMES),
        half_dim=st.integers(1, 32),
        theta=st.sampled_from((256.0, 10000.0)),
        known=LENGTHS,
        length=LENGTHS,
        sigma=st.floats(0, 1),
    )
    def test_angles_and_gains_are_numbers_at_any_length(
        self, name_of_axis: str, half_dim: int, theta: float, known: int, length: int, sigma: float
    ) -> None:
        axis = RotaryAxis(name_of_axis, 2 * half_dim, theta, known, length)
        made = self.method(1024)
        angles = made.positions(axis, torch.arange(length), sigma)
        assert angles.shape == (length, half_dim)
        assert bool(angles.isfinite().all())
        # Never faster than trained, and never backwards.
        assert bool((angles >= 0).all())
        assert bool((angles <= trained(axis, torch.arange(length), sigma) * (1 + 1e-12)).all())
        gains = gain(made, axis, sigma)
        assert gains.shape in ((), (half_dim,))
        assert bool((gains.isfinite() & (gains >= 1)).all())

    def test_it_serves_clips_or_says_what_it_serves(self) -> None:
        spec = RenderSpec(method=self.name, num_frames=81)
        if self.name in UNET_METHODS:
            with pytest.raises(PlanError, match=r"changes the U-Net of"):
                load_method(spec, clip_facts())
            return
        made = load_method(spec, clip_facts())
        for name_of_axis, known, length in (("frame", 21, 42), ("row", 30, 60), ("column", 52, 52)):
            axis = RotaryAxis(name_of_axis, 42, 10000.0, known, length)
            angles = made.positions(axis, torch.arange(length), 0.5)
            assert bool(angles.isfinite().all())
            same = torch.equal(angles, trained(axis, torch.arange(length), 0.5))
            assert same or length > known

    def test_its_spacing_is_that_of_its_positions(self) -> None:
        """Blocks of pooled context turn as far as a token did; others' keys would cancel."""
        made = self.method(1024)
        axis = RotaryAxis("row", 32, 10000.0, trained=16, length=64)
        fastest = {
            sigma: float(made.positions(axis, torch.arange(64), sigma).diff(dim=0).abs().max())
            for sigma in SIGMAS
        }
        if made.token_spacing is None:
            assert max(fastest.values()) > 0.9, "interpolated, and does not say so"
            return
        for sigma, angle in fastest.items():
            level = NoiseLevel(sigma, 1 - sigma, sigma)
            context = StepContext(1, 0, 1, level, Canvas(1, 128, 128), (4.0, 4.0))
            assert made.token_spacing(context)[0] * angle == pytest.approx(1)

    def test_a_spec_may_state_its_own_cascade(self) -> None:
        made = self.method(512, stages=({"scale": 0.5}, {"scale": 1.0, "start": 0.3, "steps": 2}))
        assert [stage.start for stage in made.stages] == [1.0, 0.3]

    def test_an_option_it_does_not_have_is_refused(self) -> None:
        with pytest.raises(SpecError, match=f"method {self.name} .*'no_such_option'"):
            self.method(512, method_options={"no_such_option": 1})
