"""One step of training an InfGen decoder by rectified flow on crops of large pictures.

The residual r of a picture over its enlarged decode, times the network's gains, is noised to
r_t = (1 - t) r + t eps, and the network gives r back; its error is weighed as the velocity's
would be. Only the crop is drawn and noised, at its place on the canvas. What a step
draws depends on its number alone, so a training that goes on makes the weights of one that never
stopped.
Pictures that are decoded at one size are learned from together, each at the same place.
Shape suffixes: B pictures, C channels, H rows, W columns (h, w: of a crop).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from frieze.cluster.comm import Comm
from frieze.cluster.comm import worlds as comms

from ..autoencoders.infgen_network import PATCH, InfGenDecoder, Latent
from ..autoencoders.infgen_positions import Window
from .loop import cosine, follow, read, warmed_up, write
from .timesteps import LogitNormal, Timesteps, loss_weight, sample

STATE = "training.pt"
SMALL = 1e-12
TOGETHER = 4  # pictures at most that a network is run on at once
TRIES = 16  # pictures that are looked at for another of a size


class Pictures(Protocol):
    """What is learned from: pictures that can be had in parts at any size."""

    def decoded_size(self, number: int) -> tuple[int, int]:
        """Rows and columns of a picture's exact decode, whose enlargement is 1."""

    def latents(self, number: int) -> tuple[Tensor, Tensor]:
        """Latents [1, C, H, W] of a picture, and their exact decode [1, 3, H, W]."""

    def crop(self, number: int, window: Window) -> Tensor:
        """A window of the same picture at the size of the window's canvas, [1, 3, h, w]."""

    def __len__(self) -> int:
        """How many there are."""


@runtime_checkable
class FinitePictures(Protocol):
    """Pictures that have no more detail than their files."""

    def most_scale(self, number: int) -> float:
        """The largest enlargement of a picture's decode that a crop of it can be had at."""


def group_size(batch: int) -> int:
    """Examples that are run at once; the same on any number of workers."""
    return max(1, min(TOGETHER, batch // 2))


def num_groups(batch: int) -> int:
    """Groups of such examples, which workers share."""
    return -(-batch // group_size(batch))


@dataclass(frozen=True)
class FlowPlan:
    """How a decoder is trained.

    `crop` pixels a side; `scales` are the least and the most enlargement, drawn log-uniformly.
    A part `sought` of the crops lies where the decode lacks most of a picture, the rest anywhere.
    `least_time` bounds the weight of errors near the clean end, as in `loss_weight`. Errors beyond
    `quadratic` count by their size, so that a star that no latent tells of does not outweigh all
    ridges.
    `autocast`: matrix products and convolutions in bfloat16, weights and the rest in float32.
    """

    steps: int
    batch: int = 8
    crop: int = 64
    scales: tuple[float, float] = (1.0, 8.0)
    sought: float = 0.5
    rate: float = 2e-3
    warm_up: int = 100
    ema: float = 0.995
    least_time: float = 0.12
    quadratic: float = 0.5
    timesteps: Timesteps = field(default_factory=lambda: LogitNormal(0.3, 1.2))
    autocast: bool = False
    seed: int = 0

    @property
    def groups(self) -> int:
        """Of a batch, each run at once: two or more, where there are as many examples."""
        return num_groups(self.batch)

    def together(self, item: int) -> int:
        """Examples of a group."""
        size = group_size(self.batch)
        return min(size, self.batch - item * size)

    def __post_init__(self) -> None:
        if self.crop % PATCH or self.crop < PATCH:
            raise ValueError(f"crop {self.crop} is no multiple of {PATCH}")


@dataclass(frozen=True)
class Crop:
    """What examples are: pictures of a size, tokens of their canvas, noise levels, and noise."""

    pictures: tuple[int, ...]
    tokens: Window
    times: tuple[float, ...]
    seed: int

    @property
    def time_B(self) -> Tensor:
        """The noise levels, in float64."""
        return torch.tensor(self.times, dtype=torch.float64)

    def latents(self, pictures: Pictures) -> tuple[Tensor, Tensor]:
        """Latents [B, C, H, W] of the pictures, and their exact decodes [B, 3, H, W]."""
        both = zip(*(pictures.latents(number) for number in self.pictures), strict=True)
        z_BCHW, picture_B3HW = (torch.cat(each) for each in both)
        return z_BCHW, picture_B3HW

    def target(self, pictures: Pictures) -> Tensor:
        """The pictures themselves there, [B, 3, h, w]."""
        window = self.tokens.times(PATCH)
        return torch.cat([pictures.crop(number, window) for number in self.pictures])


def drawn_crop(plan: FlowPlan, pictures: Pictures, step: int, item: int) -> Crop:
    """The item-th group of a step, by their numbers alone.

    Places are uniform on the canvas, or as likely as the first picture's decode is wrong there:
    most of a picture is sky, of which a decoder has nothing to learn.
    """
    key = (plan.seed * 1_000_003 + step) * 4099 + item
    generator = torch.Generator().manual_seed(key % 2**63)
    numbers = _alike(pictures, plan.together(item), generator)
    picture = numbers[0]
    u = torch.rand(3, generator=generator, dtype=torch.float64)
    least, most = plan.scales
    if isinstance(pictures, FinitePictures):
        most = max(least, min(most, *(pictures.most_scale(number) for number in numbers)))
    scale, side = least * (most / least) ** float(u[0]), plan.crop // PATCH
    height, width = (
        max(side, round(pixels * scale / PATCH)) for pixels in pictures.decoded_size(picture)
    )
    is_sought = float(torch.rand((), generator=generator, dtype=torch.float64)) < plan.sought
    place = _lacking(pictures, picture, generator) if is_sought else None
    top, left = (
        int(v * (most - side + 1)) if place is None else _around(centre, side, most)
        for v, centre, most in zip(u[1:].tolist(), place or (0, 0), (height, width), strict=True)
    )
    rows, columns = range(top, top + side), range(left, left + side)
    times = tuple(float(t) for t in sample(plan.timesteps, len(numbers), generator))
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return Crop(numbers, Window((height, width), rows, columns), times, seed)


def _lacking(pictures: Pictures, number: int, generator: torch.Generator) -> tuple[float, float]:
    """A place of a picture, in parts of its height and width, where its decode is wrong.

    As likely as its error squared; a picture without one is looked at anywhere.
    """
    height, width = pictures.decoded_size(number)
    _, decode_13HW = pictures.latents(number)
    picture_13HW = pictures.crop(number, Window.whole((height, width)))
    error_HW = (picture_13HW - decode_13HW)[0].square().mean(dim=0).cpu().double() + SMALL
    index = int(torch.multinomial(error_HW.flatten(), 1, generator=generator))
    return (index // width + 0.5) / height, (index % width + 0.5) / width


def _around(centre: float, side: int, most: int) -> int:
    """The first of `side` tokens about a place, given in parts of `most` tokens."""
    return min(max(0, round(centre * most - side / 2)), most - side)


def _alike(pictures: Pictures, number: int, generator: torch.Generator) -> tuple[int, ...]:
    """Pictures that are decoded at one size; the first again where no other is soon found."""
    first = int(torch.randint(len(pictures), (1,), generator=generator))
    found = [first]
    for _ in range(number - 1):
        tried = torch.randint(len(pictures), (TRIES,), generator=generator).tolist()
        same = (n for n in tried if pictures.decoded_size(n) == pictures.decoded_size(first))
        found.append(next(same, first))
    return tuple(found)


def flow_loss(
    network: InfGenDecoder, latent: Latent, crop: Crop, target_B3hw: Tensor, plan: FlowPlan
) -> Tensor:
    """Weighed pseudo-Huber error of the clean residuals on one crop, the mean over pictures."""
    window = crop.tokens.times(PATCH)
    low_B3hw = network.enlarged(latent, window)
    residual_B3hw = network.gains(latent, window) * (target_B3hw - low_B3hw)
    generator = torch.Generator().manual_seed(crop.seed)
    eps_B3hw = torch.randn(residual_B3hw.shape, generator=generator).to(residual_B3hw)
    time_B = crop.time_B.to(residual_B3hw.device)
    noisy_B3hw = torch.lerp(residual_B3hw, eps_B3hw, time_B.to(eps_B3hw)[:, None, None, None])
    clean_B3hw = network(latent, crop.tokens, noisy_B3hw, time_B, crop.seed)
    weight_B = loss_weight("sample", time_B, plan.least_time).to(eps_B3hw)
    return (weight_B * pseudo_huber(clean_B3hw - residual_B3hw, plan.quadratic)).mean()


def pseudo_huber(error: Tensor, quadratic: float) -> Tensor:
    """Means [B] of errors squared that are small beside `quadratic`; large ones count linearly.

    The loss of Charbonnier; Song and Dhariwal (arXiv 2310.14189, sec. 3.3) train samplers with it.
    """
    square = error.float().square()
    return (2 * square / (1 + (1 + square / quadratic**2).sqrt())).flatten(1).mean(dim=1)


class FlowTraining:
    """A network, its average, its optimiser, and the number of steps that are done.

    On each rank of `comm` the same, but for its own share of a step's examples, whose gradients
    are added up over the ranks: all make the same step. `progress` in [0, 1] says how far a
    training is that ends by the clock, for one that ends by its steps it is None.
    """

    def __init__(self, network: InfGenDecoder, plan: FlowPlan) -> None:
        self.network, self.plan, self.step_index = network.train(), plan, 0
        self.comm: Comm = comms.solo()
        self.progress: float | None = None
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(network.parameters(), plan.rate, betas=(0.9, 0.99))

    def step(self, pictures: Pictures) -> float:
        """Learn from one batch; the mean loss of its examples before it, on all ranks alike."""
        plan = self.plan
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        kind = self.network.device.type
        with torch.enable_grad(), torch.autocast(kind, torch.bfloat16, enabled=plan.autocast):
            for item in range(self.comm.rank, plan.groups, self.comm.size):
                loss = self._loss(pictures, item) * plan.together(item) / plan.batch
                loss.backward()
                total += float(loss.detach())
        total = added_gradients(self.network, total, self.comm)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step_index += 1
        self._follow()
        return total

    def _loss(self, pictures: Pictures, item: int) -> Tensor:
        crop = drawn_crop(self.plan, pictures, self.step_index, item)
        latent = self.network.latent(*crop.latents(pictures), crop.tokens)
        return flow_loss(self.network, latent, crop, crop.target(pictures), self.plan)

    @property
    def rate(self) -> float:
        """Rises over the first steps and falls by a cosine to a hundredth at the end."""
        done = self.step_index / self.plan.steps if self.progress is None else self.progress
        return self.plan.rate * warmed_up(self.step_index, self.plan.warm_up) * cosine(done)

    def _follow(self) -> None:
        """The average, which at first follows faster: a new network has no past."""
        keep = min(self.plan.ema, self.step_index / (self.step_index + 10))
        follow(self.average, self.network, keep)

    def states(self) -> dict[str, Any]:
        """All that going on needs."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step_index,
        }

    def load_states(self, saved: dict[str, Any]) -> None:
        """Take up what `states` gave."""
        self.network.load_state_dict(saved["network"])
        self.average.load_state_dict(saved["average"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.step_index = saved["step"]

    def save(self, folder: Path) -> None:
        """Write all that going on needs, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / STATE, self.states())

    def restore(self, folder: Path) -> None:
        """Go on from where `save` was called, if it was."""
        if (saved := read(folder / STATE)) is not None:
            self.load_states(saved)

    def run(self, pictures: Pictures, tell: Callable[[int, float], None] | None = None) -> None:
        """All steps that are not done; `tell` hears of each, with its loss."""
        while self.step_index < self.plan.steps:
            loss = self.step(pictures)
            if tell is not None:
                tell(self.step_index, loss)


def added_gradients(network: torch.nn.Module, loss: float, comm: Comm) -> float:
    """Add up the gradients of all ranks on each of them, and their losses; the losses' sum.

    A weight that has no gradient on a rank, for its share of a batch was empty, counts as zero.
    """
    if comm.size == 1:
        return loss
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = torch.cat([part.flatten() for part in parts])
    total = comm.all_reduce(torch.cat([flat, flat.new_tensor([loss])]))
    sums = total[:-1].split([weight.numel() for weight in weights])
    for weight, part in zip(weights, sums, strict=True):
        weight.grad = part.view_as(weight).clone()
    return float(total[-1])
