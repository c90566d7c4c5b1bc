"""The fields of a spec that requests may set beside those of the images API."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import SpecError
from ..spec.field_errors import nearest
from ..spec.render_spec import RenderSpec

DEFAULT = (
    *("negative_prompt", "strength", "feather", "num_inference_steps", "guidance_scale"),
    *("guidance_scale_2", "true_cfg_scale", "seed", "method", "method_options", "attend"),
    *("wrap", "cache", "shift", "bits", "dpi"),
)
# Those that name files, weights, devices or machines, that cost memory without bound, or that a
# request says in the API's own words. No owner can allow them.
NEVER = frozenset(
    {
        *("prompt", "model", "revision", "variant", "lora", "lora_2", "decoder", "controlnet"),
        *("control", "height", "width", "num_frames", "fps", "init", "upscale", "image", "mask"),
        *("edit", "edit_stage", "stages", "out", "overwrite", "workers", "max_workers", "local"),
        *("park", "address", "device", "device_memory", "ulysses", "guidance_ranks", "chunk"),
        *("save_every", "timeout", "wait", "trace_digests", "creativity", "guide"),
    }
)
SHORT = {"steps": "num_inference_steps"}  # other words for a field


def allowed(names: Iterable[str]) -> frozenset[str]:
    """The default fields and those that the owner names; raises `SpecError`."""
    found = set(DEFAULT)
    can_be = [name for name in RenderSpec.model_fields if name not in NEVER]
    for name in names:
        field = SHORT.get(name, name).replace("-", "_")
        if field in NEVER:
            raise SpecError(
                f"--allow {name}: names files, weights or machines, or has another word in the "
                f"API; there are: {', '.join(can_be)}"
            )
        if field not in can_be:
            raise SpecError(
                f"--allow {name}: no such field; the nearest is {nearest(name, can_be)!r}"
            )
        found.add(field)
    return frozenset(found)
