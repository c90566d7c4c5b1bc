"""Finite numbers: a render that meets NaN or infinity ends and says where, and draws no black.

`torch.aminmax` reads a tensor once and copies nothing; what it gives is NaN if any element is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from frieze.cluster.comm import Comm

from ..errors import ModelError, NotFiniteError
from ..spec.networks import all_loras

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec


Named = Mapping[str, Iterable[Tensor]]


# What float16 holds ends at 65504: networks that were trained in bfloat16 leave it.
WIDER = "bfloat16 or float32"


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all elements are finite numbers."""
    return all(bool(_flag([x])) for x in tensors)


def first_fault(comm: Comm, named: Named) -> str:
    """The name of the first tensors that are not finite on some rank; "" where all are.

    All ranks call it with the same names, and hear the same.
    """
    flags = torch.stack([_flag(tensors, comm.device) for tensors in named.values()])
    whole = comm.all_reduce(flags, "min").tolist()
    return next((name for name, ok in zip(named, whole, strict=True) if not ok), "")


def _flag(tensors: Iterable[Tensor], device: torch.device | str = "cpu") -> Tensor:
    """1 if all elements are finite, else 0: uint8, on the device."""
    # No range of float8 is known to torch: 8 bits are read as 32.
    plain = [x.detach().float() if x.dtype.itemsize == 1 else x.detach() for x in tensors]
    ends = [end for x in plain if x.numel() for end in torch.aminmax(x)]
    if not ends:
        return torch.ones((), dtype=torch.uint8, device=device)
    return torch.stack([end.isfinite() for end in ends]).all().to(device, torch.uint8)


def error(what: str, where: str, spec: RenderSpec) -> NotFiniteError:
    """The error to raise where `what` is not finite."""
    return NotFiniteError(f"{where}: {what}: NaN or infinite in {spec.dtype}; {remedy(spec)}")


def remedy(spec: RenderSpec) -> str:
    """What may work instead."""
    if spec.dtype == "float16":
        return f"float16 ends at 65504: dtype {WIDER} works"
    scales = {name: getattr(spec, name) for name in ("guidance_scale", "true_cfg_scale")}
    told = [f"{name} {scale:g}" for name, scale in scales.items() if scale is not None]
    weaker = f"a smaller {' and '.join(told)}" if told else "a smaller guidance scale"
    wider = "dtype float32, " if spec.dtype == "bfloat16" else ""
    loras = " or weaker LoRAs" if all_loras(spec) else ""
    return f"{wider}{weaker}{loras} may work"


def check_weights(module: nn.Module, folder: Path) -> None:
    """Raise `ModelError` that names the first weight that is not finite.

    Packed weights of quantised modules are passed over, for no type of torch says what they hold.
    """
    for name, weight in module.state_dict().items():
        is_plain = type(weight) is Tensor and weight.dtype.itemsize > 1
        if is_plain and weight.is_floating_point() and not is_finite([weight]):
            narrow = weight.dtype == torch.float16
            raise ModelError(
                f"{folder}: weight {name} holds NaN or infinity in "
                f"{str(weight.dtype).removeprefix('torch.')}; "
                + (f"dtype {WIDER} may work, else " if narrow else "")
                + "fetch the model anew"
            )
