"""One step of training a decoder that draws in one step against a discriminator.

InfGen's loss (arXiv 2509.10441, sec. 3.4): absolute error, features, and what a discriminator
says, which weighs by the ratio of both parts' slopes at the last layer (VQGAN, arXiv 2012.09841,
eq. 7). It starts from a decoder that was distilled, or from a flow's, never from a new one: of
pictures without detail a discriminator learns nothing that helps to draw it.
The decoder stands still while the discriminator cannot tell pictures from drawn ones: at first,
for it is new, and whenever it collapses. Without it the other losses would blur what there is.
Shape suffixes: B batch, h rows, w columns of what is judged of a crop.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from frieze.cluster.comm import Comm

from ..autoencoders.infgen_network import PATCH, InfGenDecoder
from ..autoencoders.infgen_positions import Window
from .discriminator import PatchDiscriminator, discriminator_loss, known, slope_penalty
from .distillation import crop_noise, residual
from .infgen_training import FlowPlan, FlowTraining, Pictures, added_gradients, drawn_crop
from .perceptual import PerceptualDistance

log = logging.getLogger(__name__)

REMEMBERED = 0.95  # of the mean lead at each step
SMALL = 1e-8


@dataclass(frozen=True)
class AdversarialPlan(FlowPlan):
    """How a decoder is trained against a discriminator; the rest as in `FlowPlan`.

    `perceptual` and `adversarial` are the weights of these losses beside the absolute error, the
    latter times the ratio of slopes, which is at most `most_ratio`. The discriminator, `width`
    wide, learns alone for `alone` steps; it counts while its judgements of real pictures lead by
    `least_lead`. `penalty` is R1's gamma, taken every `penalty_every` steps at as many times its
    weight. The outer `border` tokens of a crop, which do not see what is beyond, are not judged.
    Raises ValueError for a crop of which nothing is left.
    """

    rate: float = 1e-4
    perceptual: float = 0.1
    adversarial: float = 0.5
    most_ratio: float = 10.0
    width: int = 48
    discriminator_rate: float = 1e-3
    alone: int = 150
    least_lead: float = 0.05
    penalty: float = 0.1
    penalty_every: int = 8
    border: int = 1
    seed: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop <= 2 * self.border * PATCH:
            raise ValueError(
                f"crop {self.crop} less a border of {self.border} tokens is nothing; "
                f"{(2 * self.border + 1) * PATCH} is the least that works"
            )


@dataclass(frozen=True)
class Examples:
    """Real and drawn residuals [B, 3, h, w], their enlarged decodes, and their gains."""

    real: Tensor
    drawn: Tensor
    low: Tensor
    gains: Tensor


@dataclass(frozen=True)
class Losses:
    """Of one step: each loss before its weight.

    `lead` is by how much real judgements are above drawn ones, a mean over the last steps;
    `ratio` what the adversarial slope was multiplied by, 0 where the decoder stood still.
    """

    absolute: float = 0.0
    perceptual: float = 0.0
    adversarial: float = 0.0
    discriminator: float = 0.0
    penalty: float = 0.0
    lead: float = 0.0
    ratio: float = 0.0


class AdversarialTraining(FlowTraining):
    """A decoder of one step, its average, a discriminator, and both optimisers.

    `losses` are the last step's. Raises `ModelError` where the perceptual loss has a weight and
    its network is not installed, unless a distance is handed in.
    """

    plan: AdversarialPlan

    def __init__(
        self,
        network: InfGenDecoder,
        plan: AdversarialPlan,
        distance: torch.nn.Module | None = None,
    ) -> None:
        self.distance = PerceptualDistance() if plan.perceptual and distance is None else distance
        network.requires_grad_(True).register_to_config(num_steps=1)
        super().__init__(network, plan)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(plan.seed)
            self.discriminator: torch.nn.Module = PatchDiscriminator(plan.width)
        self.discriminator.to(network.device)
        if self.distance is not None:
            self.distance.to(network.device)
        self.discriminator_optimiser = torch.optim.Adam(
            self.discriminator.parameters(), plan.discriminator_rate, betas=(0.5, 0.9)
        )
        self.lead, self.losses = 0.0, Losses()

    @torch.enable_grad()
    def step(self, pictures: Pictures) -> float:
        """Learn from one batch; the absolute and perceptual part of the loss before it."""
        is_alone, plan, kind = self.is_alone, self.plan, self.network.device.type
        with (
            torch.set_grad_enabled(not is_alone),
            torch.autocast(kind, torch.bfloat16, enabled=plan.autocast),
        ):
            examples = self._examples(pictures)
        taught = self._teach(examples) if plan.adversarial else (0.0, 0.0, 0.0)
        drawn = examples.drawn.detach().requires_grad_()
        parts = self._decoder_losses(drawn, examples)
        ratio = 0.0 if is_alone else self._learn(examples.drawn, drawn, parts)
        told = self._added([*(float(part.detach()) for part in parts), *taught])
        self.lead = REMEMBERED * self.lead + (1 - REMEMBERED) * told[-1]
        named = zip(
            ("absolute", "perceptual", "adversarial", "discriminator", "penalty"),
            told,
            strict=False,
        )
        self.losses = Losses(**dict(named), lead=self.lead, ratio=ratio)
        self.step_index += 1
        if not is_alone:
            self._follow()
        self._tell(was_alone=is_alone)
        return self.losses.absolute + plan.perceptual * self.losses.perceptual

    @property
    def is_alone(self) -> bool:
        """Whether the discriminator learns alone: it is new, or cannot tell pictures apart."""
        is_behind = self.step_index < self.plan.alone or self.lead < self.plan.least_lead
        return self.plan.adversarial > 0 and is_behind

    @property
    def rate(self) -> float:
        """As a flow's, but that it rises when the discriminator has learned alone."""
        steps = self.step_index + 1 - (self.plan.alone if self.plan.adversarial else 0)
        return super().rate * min(1.0, max(0, steps) / self.plan.warm_up)

    def _examples(self, pictures: Pictures) -> Examples:
        """A step's crops, real and drawn, without their borders."""
        made = []
        for item in range(self.comm.rank, self.plan.groups, self.comm.size):
            crop = drawn_crop(self.plan, pictures, self.step_index, item)
            latent = self.network.latent(*crop.latents(pictures), crop.tokens)
            window = crop.tokens.times(PATCH)
            low = self.network.enlarged(latent, window)
            drawn = residual(self.network, latent, crop, crop_noise(crop, low), 1)
            target = crop.target(pictures)
            inner = judged(crop.tokens, self.plan.border).times(PATCH)
            gains = self.network.gains(latent, window)
            parts = (gains * (target - low), drawn, low, gains)
            made.append([inner.of(window, each).float() for each in parts])
        return Examples(*(torch.cat(each) for each in zip(*made, strict=True)))

    def _teach(self, examples: Examples) -> tuple[float, float, float]:
        """A step of the discriminator; before it, its loss, its slope's penalty and its lead.

        Like all losses here those of this rank's examples, by their part of the batch.
        """
        plan, beside, part = self.plan, known(examples.low), self._part(examples)
        self.discriminator_optimiser.zero_grad(set_to_none=True)
        real = self.discriminator(examples.real, beside)
        drawn = self.discriminator(examples.drawn.detach(), beside)
        loss = part * discriminator_loss(real, drawn)
        penalty = loss.new_zeros(())
        if self.step_index % plan.penalty_every == 0:
            penalty = part * slope_penalty(self.discriminator, examples.real, beside)
        (loss + plan.penalty / 2 * plan.penalty_every * penalty).backward()
        added_gradients(self.discriminator, 0.0, self.comm)
        self.discriminator_optimiser.step()
        lead = part * (real.mean() - drawn.mean())
        return float(loss.detach()), float(penalty.detach()), float(lead.detach())

    def _decoder_losses(self, drawn: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        """Absolute, perceptual and adversarial, each before its weight; 0 where it has none."""
        part = self._part(examples)
        absolute = part * (drawn - examples.real).abs().mean()
        perceptual = adversarial = absolute.new_zeros(())
        if self.distance is not None and self.plan.perceptual:
            pair = (examples.low + each / examples.gains for each in (drawn, examples.real))
            perceptual = part * self.distance(*pair).mean()
        if self.plan.adversarial:
            adversarial = -part * self.discriminator(drawn, known(examples.low)).mean()
        return absolute, perceptual, adversarial

    def _learn(self, made: Tensor, drawn: Tensor, losses: tuple[Tensor, Tensor, Tensor]) -> float:
        """A step of the decoder, which made what is `drawn`; the ratio of the slopes there."""
        plan, ratio = self.plan, 0.0
        absolute, perceptual, adversarial = losses
        (slope,) = torch.autograd.grad(absolute + plan.perceptual * perceptual, drawn)
        if plan.adversarial:
            (other,) = torch.autograd.grad(adversarial, drawn)
            last = self.network.conv_out.weight
            ratio = slope_ratio(made, last, slope, other, plan.most_ratio, self.comm)
            slope = slope + plan.adversarial * ratio * other
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.optimiser.zero_grad(set_to_none=True)
        made.backward(slope)
        added_gradients(self.network, 0.0, self.comm)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        return ratio

    def _part(self, examples: Examples) -> float:
        """How much of the batch this rank's examples are."""
        return len(examples.real) / self.plan.batch

    def _added(self, values: list[float]) -> list[float]:
        """Sums over all ranks."""
        own = torch.tensor(values, dtype=torch.float64, device=self.network.device)
        return [float(value) for value in self.comm.all_reduce(own)]

    def _tell(self, *, was_alone: bool) -> None:
        """Of a discriminator that stops to count when it should, and of one that counts again."""
        if self.step_index < self.plan.alone or not self.plan.adversarial:
            return
        was_alone &= self.step_index > self.plan.alone
        if self.is_alone and not was_alone:
            log.warning(
                "step %d: the discriminator cannot tell pictures from drawn ones (it leads by "
                "%.2f, %.2f is needed); it learns alone until it can",
                *(self.step_index, self.lead, self.plan.least_lead),
            )
        elif was_alone and not self.is_alone:
            log.warning("step %d: the discriminator counts again", self.step_index)

    def states(self) -> dict[str, Any]:
        """The discriminator's too; the perceptual network's are its package's."""
        return super().states() | {
            "discriminator": self.discriminator.state_dict(),
            "discriminator_optimiser": self.discriminator_optimiser.state_dict(),
            "lead": self.lead,
        }

    def load_states(self, saved: dict[str, Any]) -> None:
        """Take up what `states` gave."""
        super().load_states(saved)
        self.discriminator.load_state_dict(saved["discriminator"])
        self.discriminator_optimiser.load_state_dict(saved["discriminator_optimiser"])
        self.lead = saved["lead"]


def judged(tokens: Window, border: int) -> Window:
    """A crop's tokens less twice a border each way: half at each end, none at the canvas' own."""
    parts = []
    for part, most in zip((tokens.rows, tokens.columns), tokens.size, strict=True):
        cut = 0 if part.start == 0 else 2 * border if part.stop == most else border
        parts.append(range(part.start + cut, part.stop + cut - 2 * border))
    rows, columns = parts
    return Window(tokens.size, rows, columns)


def slope_ratio(
    drawn: Tensor, last: Tensor, slope: Tensor, other: Tensor, most: float, comm: Comm
) -> float:
    """Length of one slope at the weights `last` over another's, both given at what is drawn.

    Each is the sum of all ranks', whose examples are parts of a batch.
    """
    lengths = []
    for each in (slope, other):
        (at_last,) = torch.autograd.grad(drawn, last, each, retain_graph=True)
        lengths.append(float(comm.all_reduce(at_last).norm()))
    return min(most, lengths[0] / (lengths[1] + SMALL))
