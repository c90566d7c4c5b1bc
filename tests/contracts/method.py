"""What every extrapolation method must hold to; run over each file in renderer/methods/."""

from __future__ import annotations

import torch

from frieze.renderer.family import describe
from frieze.renderer.method import Axis, Method, load_method, trained
from frieze.renderer.spec import RenderSpec


class MethodContract:
    """Inherit, and define `name`."""

    name: str

    def method(self, side: int) -> Method:
        spec = RenderSpec(prompt="x", height=side, width=side, method=self.name)
        return load_method(spec, describe(spec.model))

    def test_it_is_the_plain_model_at_the_trained_size(self) -> None:
        made = self.method(describe("demo").training_size)
        assert [(stage.scale, stage.start) for stage in made.stages] == [(1.0, 1.0)]
        axis = Axis("row", 32, 10000.0, trained=16, length=16)
        positions = torch.arange(16)
        for sigma in (1.0, 0.5, 0.01):
            angles = made.positions(axis, positions, sigma)
            assert torch.equal(angles, trained(axis, positions, sigma))

    def test_its_last_stage_is_the_picture_and_its_first_starts_from_noise(self) -> None:
        for side in (256, 512, 1024, 1536):
            stages = self.method(side).stages
            assert stages[0].start == 1.0
            assert stages[-1].scale == 1.0
            scales = [stage.scale for stage in stages]
            assert scales == sorted(scales)

    def test_positions_of_a_band_are_those_of_the_whole_canvas(self) -> None:
        axis = Axis("row", 32, 10000.0, trained=16, length=64)
        positions = self.method(1024).positions
        whole = positions(axis, torch.arange(64), 0.5)
        assert whole.dtype == torch.float64
        assert torch.equal(positions(axis, torch.arange(20, 33), 0.5), whole[20:33])

    def test_a_spec_may_state_its_own_cascade(self) -> None:
        stages = ({"scale": 0.5}, {"scale": 1.0, "start": 0.3, "steps": 2})
        spec = RenderSpec(prompt="x", height=512, width=512, method=self.name, stages=stages)
        made = load_method(spec, describe("demo"))
        assert [stage.start for stage in made.stages] == [1.0, 0.3]
