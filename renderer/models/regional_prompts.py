"""What parts of a canvas are told instead of its prompt, and how much of each place each part is.

Shape suffixes: B batch, L text tokens, E features, M masks, P prompts, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.cluster.attention import Regions
from frieze.kernels.reference import wide

from .family import BandPlace

ROUNDING = 1e-5  # of means that add up to 1


@dataclass(frozen=True)
class RegionalPrompts:
    """The prompts that have a share of a canvas, and their shares of each cell."""

    prompts: tuple[str, ...]
    share_PHW: Tensor
    _known: dict[int, Regions] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(prompts: Sequence[str], mask_MHW: Tensor | None) -> RegionalPrompts:
        """Of a first prompt, and of others by their masks of the whole canvas (None: no others)."""
        if mask_MHW is None:
            return RegionalPrompts(tuple(prompts), torch.ones(1, 1, 1))
        share_PHW = shares(mask_MHW)
        kept = [index for index, share_HW in enumerate(share_PHW) if bool(share_HW.any())]
        return RegionalPrompts(tuple(prompts[index] for index in kept), share_PHW[kept])

    @property
    def are_several(self) -> bool:
        """Whether there is more than one prompt; else all is as with that one alone."""
        return len(self.prompts) > 1

    def _regions(self, margin: int) -> Regions:
        """The shares, in the margins as at the edges."""
        if margin not in self._known:
            around = F.pad(self.share_PHW[None], (margin,) * 4, mode="replicate")
            self._known[margin] = Regions(around[0])
        return self._known[margin]

    def place(
        self, place: BandPlace, texts: Sequence[Mapping[str, Tensor]], margin: int = 0
    ) -> BandPlace:
        """The place with the tokens of each prompt's text, on a canvas of so many cells around."""
        if not self.are_several:
            return place
        tokens = tuple(text["embeds"].shape[1] for text in texts)
        return replace(place, texts=tokens, regions=self._regions(margin))

    def joined(self, texts: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """What the network is told: all tokens, one prompt's after the other's.

        What stands for the whole of a text is the mean in the shares of the canvas. All else is
        the first prompt's.
        """
        first = texts[0]
        if not self.are_several:
            return first
        found = {**first, "embeds": torch.cat([text["embeds"] for text in texts], dim=1)}
        if "pooled" in first:
            pooled_PBE = torch.stack([text["pooled"] for text in texts])
            share_P = self.share_PHW.mean((1, 2)).to(pooled_PBE.device, wide(pooled_PBE.dtype))
            mean_BE = torch.einsum("p,pbe->be", share_P, pooled_PBE.to(share_P.dtype))
            found["pooled"] = mean_BE.to(pooled_PBE.dtype)
        return found


def shares(mask_MHW: Tensor) -> Tensor:
    """Each prompt's share of each cell, float64 [1 + M, H, W], adding up to 1.

    The first prompt has what no mask covers; where masks are more than all together, they share.
    """
    mask_MHW = mask_MHW.double()
    covered_HW = mask_MHW.sum(0)
    rest_HW = (1 - covered_HW).clamp(min=0)
    rest_HW[rest_HW < ROUNDING] = 0
    return torch.cat([rest_HW[None], mask_MHW]) / (covered_HW + rest_HW)
