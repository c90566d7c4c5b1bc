"""One step of distilling a flow decoder into one that draws in a single step.

The teacher draws a crop from its noise in several steps, as `InfGenDecoder.draw` does; the
student, which starts as the teacher, learns to make of the same noise the same residual in one
(Luhman & Luhman, arXiv 2101.02388). That is a function of noise and latent, so its regression has
no mean of many answers to fall back on, as that of a picture has; pictures are not looked at.
Both see the crop alone, as both did when the flow was trained: a halo as wide as all the steps
reach would be many times the crop, and a border that both have alike teaches nothing wrong.
Shape suffixes: B batch (1 picture), H rows, W columns (h, w: of a crop).
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from frieze.kernels.coordinate_noise import noise

from ..autoencoders.infgen_network import PATCH, InfGenDecoder, Latent
from .infgen_training import Crop, FlowPlan, FlowTraining, Pictures, drawn_crop


@dataclass(frozen=True)
class DistillationPlan(FlowPlan):
    """How one step is learned: `teacher_steps` the teacher's, the rest as in `FlowPlan`.

    `absolute` is the share of the absolute error in the loss, beside the squared one: it counts
    the many small errors, which are the texture, where squares count edges. Raises ValueError
    for fewer than two steps and for a share outside [0, 1].
    """

    rate: float = 5e-4
    teacher_steps: int = 6
    absolute: float = 0.5
    seed: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_steps < 2:
            raise ValueError(f"{self.teacher_steps} steps of a teacher; 2 or more work")
        if not 0 <= self.absolute <= 1:
            raise ValueError(f"share {self.absolute:g} of the absolute error; 0 to 1 works")


def crop_noise(crop: Crop, like: Tensor) -> Tensor:
    """The noise that a canvas has there, of the crop's seed and those after it, [B, 3, h, w]."""
    window = crop.tokens.times(PATCH)
    place = (3, window.rows, window.columns)
    made = [
        noise(crop.seed + index, *place, device=like.device, dtype=like.dtype)
        for index in range(len(crop.pictures))
    ]
    return torch.stack(made)


def residual(
    network: InfGenDecoder, latent: Latent, crop: Crop, noise_B3hw: Tensor, num_steps: int
) -> Tensor:
    """What a network makes of noise in so many steps on a crop alone, [B, 3, h, w]."""
    levels = [1 - step / num_steps for step in range(num_steps + 1)]
    r_B3hw = noise_B3hw
    for level, after in itertools.pairwise(levels):
        time_B = torch.full((len(r_B3hw),), level, dtype=torch.float64, device=r_B3hw.device)
        clean_B3hw = network(latent, crop.tokens, r_B3hw, time_B, crop.seed)
        r_B3hw = clean_B3hw + after / level * (r_B3hw - clean_B3hw)
    return r_B3hw


class DistillationTraining(FlowTraining):
    """A student, its average, the teacher that both were, and the student's optimiser.

    The network handed in, best the average of a flow's training, becomes the student, whose
    configuration says from now on that it draws in one step.
    """

    plan: DistillationPlan

    def __init__(self, network: InfGenDecoder, plan: DistillationPlan) -> None:
        self.teacher = copy.deepcopy(network).eval().requires_grad_(False)
        network.requires_grad_(True).register_to_config(num_steps=1)
        super().__init__(network, plan)

    def _loss(self, pictures: Pictures, item: int) -> Tensor:
        crop = drawn_crop(self.plan, pictures, self.step_index, item)
        known = crop.latents(pictures)
        noise_B3hw = crop_noise(crop, known[1])
        with torch.no_grad():
            latent, steps = self.teacher.latent(*known, crop.tokens), self.plan.teacher_steps
            expected_B3hw = residual(self.teacher, latent, crop, noise_B3hw, steps)
        latent = self.network.latent(*known, crop.tokens)
        found_B3hw = residual(self.network, latent, crop, noise_B3hw, 1)
        error_B3hw = (found_B3hw - expected_B3hw).float()
        share = self.plan.absolute
        return share * error_B3hw.abs().mean() + (1 - share) * error_B3hw.square().mean()

    def states(self) -> dict[str, Any]:
        """The teacher's too: it is no longer what was handed in."""
        return super().states() | {"teacher": self.teacher.state_dict()}

    def load_states(self, saved: dict[str, Any]) -> None:
        """Take up what `states` gave."""
        super().load_states(saved)
        self.teacher.load_state_dict(saved["teacher"])
