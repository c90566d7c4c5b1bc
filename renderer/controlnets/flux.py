"""ControlNets of FLUX.1 through diffusers' module: a few of its blocks, which see a picture too.

Most see the picture's latents; XLabs' have convolutions for its pixels, and their features go to
the network's blocks in turn. A union of several kinds is told which one by a token before the text.
Shape suffixes: B batch, C channels, T frames (1), H W rows and columns, S tokens, E features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from frieze.cluster.attention import Context
    from frieze.cluster.bands import Marks

    from ..models.family import Control


class FluxControl:
    """A network that is shown a picture.

    It runs under the band mode as the network that it guides does, with the same angles, so that a
    method's positions are its own too.
    """

    def __init__(self, network: Any) -> None:
        from ..models.rotary import AngleRope

        network.pos_embed = AngleRope()
        self.network = network

    @property
    def sees_pixels(self) -> bool:
        """Whether it is shown a picture's pixels, not its latents."""
        return self.network.input_hint_block is not None

    @property
    def num_tokens(self) -> int:
        """Tokens that it puts before the text."""
        return int(self.network.union)

    def marks(self, context: Callable[..., Context]) -> Sequence[Marks]:
        """Joint attention of its blocks; called otherwise than the network's."""
        from torch import nn

        from frieze.cluster.bands import mark

        named = nn.ModuleDict({"controlnet": self.network})
        return (mark(named, lambda name, _: name.endswith(".attn"), context),)

    def features(
        self,
        token_BSE: Tensor,
        picture: Tensor,
        guidance_B: Tensor,
        control: Control,
        told: Mapping[str, Any],
    ) -> dict[str, Any]:
        """What the transformer takes beside: features for its double and single blocks.

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
        return {
            "controlnet_block_samples": double,
            "controlnet_single_block_samples": single,
            "controlnet_blocks_repeat": self.sees_pixels,
        }
