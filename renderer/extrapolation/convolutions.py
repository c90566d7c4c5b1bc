"""How a U-Net's convolutions walk over a map that is larger than trained; data alone.

Sources: FreeScale (arXiv 2412.09626) and ScaleCrafter (arXiv 2310.07702) for dilation, HiDiffusion
(arXiv 2311.17528) for the resolution-aware U-Net (RAU-Net), as their code was released.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from frieze.cluster.bands import BlockPool, ConvGeometry, ConvShape

Model = Literal["sd15", "sdxl", "sdxl_turbo", "sdxl_inpainting"]


# Layers of SDXL that FreeScale dilates: the deepest level and the way into it; no up block.
DILATED = (
    "down_blocks.1.downsamplers.0.conv",
    *(f"down_blocks.2.resnets.{i}.conv{j}" for i in (0, 1) for j in (1, 2)),
    *(f"mid_block.resnets.{i}.conv{j}" for i in (0, 1) for j in (1, 2)),
)


def dilated(dilation: int) -> ConvShape:
    """FreeScale's restrained dilation, for SDXL's layout; the samplers keep their stride of 2."""
    return ConvShape(
        {name: ConvGeometry(2 if "downsamplers" in name else 1, dilation) for name in DILATED}
    )


@dataclass(frozen=True)
class Schedule:
    """Steps [first, end) that stride farther, and those that pool."""

    strided: tuple[int, int]
    pooled: tuple[int, int]


def raunet_schedule(model: Model, latent: tuple[int, int], num_steps: int) -> Schedule:
    """HiDiffusion's thresholds by model and size; `num_steps` are those actually run.

    SDXL below 4096 pixels on a side is `aggressive`: it strides first and pools after.
    """

    def until(share: float) -> int:
        return int(num_steps * share)

    large = min(latent) >= (256 if model == "sd15" else 512)
    if model == "sdxl_turbo":
        return Schedule((0, 0), (0, until(0.5)))
    if large:
        shares = (0.7, 0.3) if model == "sd15" else (0.3, 0.7)
        return Schedule((0, until(shares[0])), (0, until(shares[1])))
    if model == "sd15":
        return Schedule((0, until(0.4)), (0, 0))
    first = until(8 / 50) if model == "sdxl" else 0
    return Schedule((0, first), (first, until(0.4)))


def raunet(model: Model, schedule: Schedule, step: int) -> ConvShape:
    """What RAU-Net changes at a step: a sampler of stride 4, dilation 2, and a block pooled."""
    level, up = (0, 2) if model == "sd15" else (1, 1)
    convs = {f"down_blocks.{level}.downsamplers.0.conv": ConvGeometry(4, 2)}
    pool = BlockPool("down_blocks.1.attentions.0", f"up_blocks.{up}.attentions.1")
    strides, pools = (first <= step < end for first, end in (schedule.strided, schedule.pooled))
    return ConvShape(convs if strides else {}, (pool,) if pools else ())
