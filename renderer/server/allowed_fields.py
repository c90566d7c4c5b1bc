"""The fields of a spec that requests may set beside those of the images API."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import SpecError, shown

DEFAULT = (
    *("negative_prompt", "strength", "feather", "num_inference_steps", "guidance_scale"),
    *("guidance_scale_2", "true_cfg_scale", "seed", "method", "method_options", "attend"),
    *("wrap", "cache", "shift", "bits", "dpi"),
)
# What an owner may add. All others name files, weights, devices or machines, cost memory without
# bound, or have another word in the API: no owner can allow them.
FURTHER = (
    *("max_sequence_length", "scheduler", "scheduler_options", "strategy", "strategy_options"),
    *("quantization", "storage_dtype", "dtype", "place", "resamplings"),
)
SHORT = {"steps": "num_inference_steps"}  # other words for a field


def allowed(names: Iterable[str]) -> frozenset[str]:
    """The default fields and those that the owner names; raises `SpecError`."""
    found = set(DEFAULT)
    for name in names:
        field = SHORT.get(name, name).replace("-", "_")
        if field not in (*DEFAULT, *FURTHER):
            raise SpecError(
                f"--allow {shown(name)}: requests cannot set that; beside what they may, there "
                f"are: {', '.join(FURTHER)}"
            )
        found.add(field)
    return frozenset(found)
