"""ControlNets of Stable Diffusion's U-Nets (arXiv 2302.05543), through diffusers' module.

Shape suffixes: B batch, C channels, T frames (1), H W latent rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from frieze.cluster.attention import Context
    from frieze.cluster.bands import Marks

    from ..models.family import Control

    Features = tuple[list[Tensor], Tensor]


class UNetControl:
    """A network that is shown a picture.

    It runs under the band mode as the network that it guides does: its convolutions read halos of
    the picture's rows as of latents'.
    """

    def __init__(self, network: Any, name: str = "controlnet") -> None:
        self.network, self.name = network, name

    def marks(self, context: Callable[..., Context]) -> Sequence[Marks]:
        """Its self-attentions, and those that ask the text; called otherwise than the network's."""
        from torch import nn

        from frieze.cluster.bands import mark

        named = nn.ModuleDict({self.name: self.network})
        return (
            mark(named, lambda name, _: name.endswith(".attn1")),
            mark(named, lambda name, _: name.endswith(".attn2"), context, local=True),
        )

    def features(
        self,
        x_BCHW: Tensor,
        timestep: Tensor,
        picture_BCTHW: Tensor,
        control: Control,
        told: Mapping[str, Any],
    ) -> tuple[list[Tensor], Tensor]:
        """What is added to the network's features on the way down, and in its middle.

        The picture is in [-1, 1], and `told` what the network is told beside.
        """
        picture_BCHW = (picture_BCTHW.squeeze(2) / 2 + 0.5).to(x_BCHW.dtype)
        down, middle = self.network(
            x_BCHW,
            timestep,
            **told,
            controlnet_cond=picture_BCHW,
            conditioning_scale=control.scale,
            guess_mode=control.guesses,
            return_dict=False,
        )
        return list(down), middle


def added(each: Sequence[Features]) -> Features:
    """What several ControlNets add together, in their order."""
    (down, middle), *others = each
    for more, deepest in others:
        down = [x + y for x, y in zip(down, more, strict=True)]
        middle = middle + deepest
    return down, middle
