"""Whether the devices of a render have the memory that it needs, and what would need less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checkpoints.decoder import PIXELS_A_TOKEN, DecoderFacts
from ..errors import FriezeError, PlanError
from ..inputs.host_memory import memory_bytes
from ..models.device import device_type, has_cuda
from ..spec.render_spec import RenderSpec
from ..spec.units import BYTES_OF, GIB
from .devices import on_cluster
from .estimate import Estimate, fits, remedies
from .stage_plan import num_cached

if TYPE_CHECKING:
    from collections.abc import Callable

    from .canvas_plan import CanvasPlan

# A render that needs so many times less than there is, by a rough guess, is not traced: that
# takes about a second, and the guess is never wrong by as much.
MARGIN = 4
HOPELESS = 64  # nor is one that would need so many times more
# [tokens, hidden] in a transformer's block, the prompt's, keys and values in flight included.
LIVE_TENSORS = 24
# [pixels, channels] at a decoder's end; some autoencoders work in float32 whatever is asked.
LIVE_PIXELS, PIXEL_BYTES = 12, 4
GATHERED_BYTES = 2**28  # keys and values around the places of a canvas, of a few rows


def check(plan: CanvasPlan, again: Callable[[RenderSpec], CanvasPlan]) -> None:
    """Raises `PlanError` where a plan does not fit; `again` plans a spec that might.

    A cluster's devices are not ours to see: there it is checked if `device_memory` says of them.
    """
    spec = plan.spec
    memory = available(spec)
    if memory is None:
        return
    sharing = _sharing(spec)
    guess = sharing * roughly(plan)
    workers = "1 worker" if spec.workers == 1 else f"{spec.workers} workers"
    asked = f"{spec.width}x{spec.height} {plan.facts.family} on {workers} does not fit"
    if guess > HOPELESS * memory:
        raise PlanError(
            f"{asked}: it needs about {guess / GIB:.0f} GiB on each device, which has "
            f"{memory / GIB:.1f}; draw a smaller picture"
        )
    if ample(plan) is not None:
        return
    reason = fits(plan.estimate, memory, num_workers=sharing)
    if reason is not None:
        raise PlanError(f"{asked}: {reason}; {_instead(plan, memory, again)}")


def ample(plan: CanvasPlan) -> tuple[int, int] | None:
    """Bytes that are enough on each device, and those that it has, where that is clear at once.

    None where it is not, and what is needed must be counted.
    """
    memory = available(plan.spec)
    enough = MARGIN * _sharing(plan.spec) * roughly(plan)
    return (enough, memory) if memory is not None and enough < memory else None


def available(spec: RenderSpec) -> int | None:
    """Bytes of each device, as told or as found here; None where nobody knows."""
    if spec.device_memory is not None:
        return int(spec.device_memory * GIB)
    if on_cluster(spec):
        return None
    if device_type(spec.device) == "cuda" and has_cuda():
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    return memory_bytes()


def _sharing(spec: RenderSpec) -> int:
    """Workers that hold memory of one device at the same time."""
    if spec.park is not None:
        return 1
    on_this_cpu = spec.device_memory is None and not on_cluster(spec) and spec.device == "cpu"
    return spec.workers if spec.local or on_this_cpu else 1


def _instead(plan: CanvasPlan, memory: int, again: Callable[[RenderSpec], CanvasPlan]) -> str:
    def attempt(changed: RenderSpec) -> Estimate | None:
        try:
            return again(changed).estimate
        except FriezeError:
            return None

    found = remedies(plan.spec, memory, attempt, plan.estimate)
    if not found:
        return "draw a smaller picture, or use larger devices"
    return f"{' or '.join(found)} would do"


def roughly(plan: CanvasPlan) -> int:
    """Bytes of one worker, guessed from a few sizes; more than a `MARGIN`th of what it needs."""
    facts, size = plan.facts, BYTES_OF[plan.spec.dtype]
    latent, cost = facts.latent, facts.cost
    most, per_prompt = 0, plan.spec.max_sequence_length or facts.max_sequence_length
    for stage in plan.stages:
        cells = max(band.rows for band in stage.bands) * stage.canvas.width
        num_text = per_prompt * (1 + len(stage.edits))
        tokens = stage.canvas.frames * cells // latent.patch**2 + num_text if stage.num_steps else 0
        pixels = cells * latent.downscale**2 * latent.temporal
        decode = pixels * LIVE_PIXELS * cost.decoder_channels * PIXEL_BYTES
        kept = num_cached(plan.spec, stage)
        live = LIVE_TENSORS + (2 * kept + 1 if kept else 0)
        most = max(most, live * tokens * cost.hidden * size, decode)
    if plan.decoder is not None:
        most = max(most, _decoder_bytes(plan, plan.decoder))
    return most + plan.weight_bytes


def _decoder_bytes(plan: CanvasPlan, decoder: DecoderFacts) -> int:
    """Likewise of a decoder of any size that draws a block, and what it reads around it."""
    config = decoder.config
    reach = 5 + config.depth * (config.kernel // 2)
    rows = plan.block[0] + 2 * PIXELS_A_TOKEN * reach * config.num_steps
    half, quarter = config.pixel_widths[:2]
    numbers = 36 + 2 * half + quarter // 2 + config.width // 4  # a pixel
    gathered = GATHERED_BYTES if config.mode == "window" else 0
    return min(rows, plan.spec.height) * plan.spec.width * numbers * PIXEL_BYTES + gathered
