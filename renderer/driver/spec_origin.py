"""What a spec means away from where it was written: its paths, and the address that it names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frieze.cluster.ray import session

from ..checkpoints.decoder import OWN
from ..checkpoints.shipped import SHIPPED
from ..color.profiles import NAMED
from ..errors import SpecError
from ..spec.render_spec import RenderSpec
from ..spec.stage_spec import StageSpec

# Of an address in a store these are this machine's own, whoever wrote it.
HERE = (None, "auto", "local")
# Ray unpacks a job's files under such a name, in a folder that goes away with the job.
_OF_A_JOB = "_ray_pkg_"


def with_whole_paths(spec: RenderSpec) -> RenderSpec:
    """The spec with absolute paths of what it reads, so that a store resumes from any folder."""
    if _OF_A_JOB in os.getcwd():
        return spec
    model = Path(spec.model).expanduser()
    changes: dict[str, Any] = {
        "lora": tuple(each.absolute() for each in spec.lora),
        "lora_2": tuple(each.absolute() for each in spec.lora_2),
        "stages": spec.stages and tuple(map(_whole_stage, spec.stages)),
        "decoder": spec.decoder if spec.decoder in (None, OWN) else _whole(spec.decoder),
        "init": None if spec.init is None else _whole(spec.init),
        "upscale": None if spec.upscale is None else _whole(spec.upscale),
        "image": None if spec.image is None else _whole(spec.image),
        "mask": None if spec.mask is None else _whole(spec.mask),
        "controlnet": tuple(map(_whole, spec.controlnet)),
        "control": tuple(map(_whole, spec.control)),
        "color": spec.color and _whole_profile(spec.color),
        "edit": tuple(e.model_copy(update={"mask": _whole(e.mask)}) for e in spec.edit),
    }
    if spec.model not in SHIPPED and model.is_dir():
        changes["model"] = str(model.absolute())
    return spec.model_copy(update=changes)


def _whole_stage(stage: StageSpec) -> StageSpec:
    own = {"lora": stage.lora, "lora_2": stage.lora_2}
    whole = {n: loras and tuple(x.absolute() for x in loras) for n, loras in own.items()}
    return stage.model_copy(update=whole)


def _whole(name: str) -> str:
    """A file's name as an absolute path."""
    return str(Path(name).expanduser().absolute())


def _whole_profile(color: str) -> str:
    """A profile's file as an absolute path; what names a colour space stays."""
    is_file = color.lower() not in NAMED and Path(color).expanduser().exists()
    return _whole(color) if is_file else color


def of_store(spec: RenderSpec, given: Mapping[str, Any]) -> RenderSpec:
    """The spec of a store, which a stranger may have made, with what was `given` here.

    No address of a cluster is called on that was not given here; `SpecError` says how.
    """
    if spec.address in HERE or given.get("address") is not None or spec.local:
        return spec
    if session.is_connected() or os.environ.get("RAY_ADDRESS"):
        return spec.model_copy(update={"address": None})
    raise SpecError(
        f"the store was begun on the Ray at {spec.address!r}, which is not called on unasked; add "
        f"--address {spec.address} to go on there, --address local or --local to go on here"
    )
