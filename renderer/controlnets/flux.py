"""ControlNets of FLUX.1 through diffusers' module: a few of its blocks, which see a picture too.

Most see the picture's latents; XLabs' have convolutions for its pixels, and their features go to
the network's blocks in turn. A union of several kinds is told which one by a token before the text.
Shape suffixes: B batch, C channels, T frames (1), H W rows and columns, S tokens, E features.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from frieze.cluster.attention import Context
    from frieze.cluster.bands import Marks

    from ..models.family import Control, Seen


class FluxControl:
    """A network that is shown a picture.

    It runs under the band mode as the network that it guides does, with the same angles, so that a
    method's positions are its own too.
    """

    def __init__(self, network: Any, name: str = "controlnet") -> None:
        from ..models.rotary import AngleRope

        network.pos_embed = AngleRope()
        self.network, self.name = network, name

    @property
    def sees_pixels(self) -> bool:
        """Whether it is shown a picture's pixels, not its latents."""
        return self.network.input_hint_block is not None

    @property
    def num_tokens(self) -> int:
        """Tokens that it puts before the text."""
        return int(self.network.union)

    @property
    def sees(self) -> Seen:
        """What it is shown of a picture."""
        return "pixels" if self.sees_pixels else "latents"

    def marks(self, context: Callable[[int], Context]) -> Sequence[Marks]:
        """Joint attention of its blocks, with so many tokens before the text.

        They are called otherwise than the network's.
        """
        from torch import nn

        from frieze.cluster.bands import mark

        named = nn.ModuleDict({self.name: self.network})
        before = self.num_tokens
        return (mark(named, lambda name, _: name.endswith(".attn"), lambda *_: context(before)),)

    def features(
        self,
        token_BSE: Tensor,
        picture: Tensor,
        guidance_B: Tensor,
        control: Control,
        told: Mapping[str, Any],
    ) -> Features:
        """What it adds to the transformer's double and single blocks.

        `picture` are pixels in [-1, 1] or tokens of latents, and `told` what both networks are.
        """
        import torch

        mode_B1 = None
        if control.mode is not None:
            mode_B1 = torch.full((token_BSE.shape[0], 1), control.mode, device=token_BSE.device)
        double, single = self.network(
            hidden_states=token_BSE,
            controlnet_cond=picture.to(token_BSE.dtype),
            controlnet_mode=mode_B1,
            conditioning_scale=control.scale,
            guidance=guidance_B if self.network.config.guidance_embeds else None,
            **told,
            return_dict=False,
        )
        return Features(tuple(double or ()), tuple(single or ()), self.sees_pixels)


@dataclass(frozen=True)
class Features:
    """What is added to the transformer's blocks [B, S, E]: of each feature to a run of them.

    `in_turn`: to one block after the other instead, and again from the first.
    """

    double: tuple[Tensor, ...]
    single: tuple[Tensor, ...]
    in_turn: bool

    @property
    def layout(self) -> tuple[int, int, bool]:
        """What features must have in common to be added as they are."""
        return len(self.double), len(self.single), self.in_turn

    def of_blocks(self, num_double: int, num_single: int) -> Features:
        """The same with a feature for every block of a transformer."""
        double, single = (
            tuple(
                x[i % len(x) if self.in_turn else i // -(-n // len(x))]
                for i in range(n if x else 0)
            )
            for x, n in ((self.double, num_double), (self.single, num_single))
        )
        return Features(double, single, in_turn=False)


def added(each: Sequence[Features], num_double: int, num_single: int) -> dict[str, Any]:
    """What a transformer of so many blocks takes beside, of several ControlNets together.

    Those of other numbers of features are added block by block, as each alone would be.
    """
    if len({features.layout for features in each}) > 1:
        each = [features.of_blocks(num_double, num_single) for features in each]
    return {
        "controlnet_block_samples": _sums([features.double for features in each]),
        "controlnet_single_block_samples": _sums([features.single for features in each]),
        "controlnet_blocks_repeat": each[0].in_turn,
    }


def _sums(each: Sequence[tuple[Tensor, ...]]) -> list[Tensor] | None:
    """Features added in the ControlNets' order, of those that have some."""
    some = [features for features in each if features]
    return [functools.reduce(operator.add, x) for x in zip(*some, strict=True)] or None
