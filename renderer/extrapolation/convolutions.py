"""How a U-Net's convolutions walk over a map that is larger than trained; data alone.

Sources: FreeScale (arXiv 2412.09626) and ScaleCrafter (arXiv 2310.07702) for dilation, HiDiffusion
(arXiv 2311.17528) for the resolution-aware U-Net (RAU-Net), as their code was released.
"""

from __future__ import annotations

from dataclasses import dataclass

from frieze.cluster.bands import BlockPool, ConvGeometry, ConvShape

from .method_options import StepOrder
from .unet_layouts import Model, layout

# Levels from 0 on whose maps are the smallest.
DEEPEST = {"sd15": 3, "sdxl": 2}
# Where HiDiffusion strides farther, and where it pools and grows back.
SAMPLERS = {
    "sd15": "down_blocks.0.downsamplers.0.conv",
    "sdxl": "down_blocks.1.downsamplers.0.conv",
}
POOLS = {
    "sd15": BlockPool("down_blocks.1.attentions.0", "up_blocks.2.attentions.1"),
    "sdxl": BlockPool("down_blocks.1.attentions.0", "up_blocks.1.attentions.1"),
}


def dilated_layers(model: Model) -> tuple[str, ...]:
    """Layers that FreeScale dilates: the deepest level and the way into it; no up block.

    It names SDXL's; of Stable Diffusion 1 and 2, which have a level more, they are their like.
    """
    deepest = DEEPEST[layout(model)]
    return (
        f"down_blocks.{deepest - 1}.downsamplers.0.conv",
        *(f"down_blocks.{deepest}.resnets.{i}.conv{j}" for i in (0, 1) for j in (1, 2)),
        *(f"mid_block.resnets.{i}.conv{j}" for i in (0, 1) for j in (1, 2)),
    )


def dilated(dilation: int, model: Model = "sdxl") -> ConvShape:
    """FreeScale's restrained dilation; the samplers keep their stride of 2."""
    return ConvShape(
        {
            name: ConvGeometry(2 if "downsamplers" in name else 1, dilation)
            for name in dilated_layers(model)
        }
    )


@dataclass(frozen=True)
class Schedule:
    """Steps [first, end) that stride farther, and those that pool."""

    strided: tuple[int, int]
    pooled: tuple[int, int]


def raunet_schedule(
    model: Model,
    latent: tuple[int, int],
    num_steps: int,
    order: StepOrder = "published",
    *,
    strided: float | None = None,
    pooled: float | None = None,
) -> Schedule:
    """HiDiffusion's thresholds by model and size; `num_steps` are those actually run.

    An aggressive schedule strides first and pools after, a progressive one does both from the
    first step on. As published SDXL below 4096 pixels on a side is aggressive and all else is not.
    `strided` and `pooled` are the parts of the steps until which, None as published.
    """
    is_large = min(latent) >= (256 if model == "sd15" else 512)
    if order == "published":
        order = "aggressive" if model == "sdxl" and not is_large else "progressive"
    own = _thresholds(model, order, is_large=is_large)
    first, end = (
        int(num_steps * (share if given is None else given))
        for share, given in zip(own, (strided, pooled), strict=True)
    )
    return Schedule((0, first), (first, max(first, end)) if order == "aggressive" else (0, end))


def _thresholds(model: Model, order: StepOrder, *, is_large: bool) -> tuple[float, float]:
    """Parts of the steps until which is strided, and until which is pooled."""
    if order == "aggressive":
        return 8 / 50, 0.7 if is_large else 0.4
    if model == "sd15":
        return (0.7, 0.3) if is_large else (0.4, 0.0)
    if model == "sdxl_turbo":
        return 0.0, 0.5
    return (0.3, 0.7) if is_large else (0.0, 0.4)


def raunet_sites(model: Model) -> tuple[tuple[str, ...], tuple[BlockPool, ...]]:
    """The layers and pools that `raunet` may name."""
    return (SAMPLERS[layout(model)],), (POOLS[layout(model)],)


def raunet(model: Model, schedule: Schedule, step: int) -> ConvShape:
    """What RAU-Net changes at a step: a sampler of stride 4, dilation 2, and a block pooled."""
    (sampler,), pools = raunet_sites(model)
    strides, pooled = (first <= step < end for first, end in (schedule.strided, schedule.pooled))
    return ConvShape({sampler: ConvGeometry(4, 2)} if strides else {}, pools if pooled else ())
