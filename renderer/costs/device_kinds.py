"""What devices of a kind do in a second: files of figures, shipped or measured here; no torch.

`configs/devices/KIND.yaml` are shipped, `frieze doctor --calibrate` writes the user's own, which
come before those. `limits` are what a maker publishes: nothing is as quick. `measured` are what a
program saw.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import SpecError, shown
from ..files.atomic import whole_file
from ..input_files import fault
from ..spec.units import scaled
from ..spec.values import ValuesError, file_text, from_yaml, to_yaml

SHIPPED = Path(__file__).parents[2] / "configs" / "devices"
MEASURE = "frieze doctor --calibrate, on a machine that has such devices, measures them"

Positive = Annotated[float, Field(gt=0, le=1e24, allow_inf_nan=False)]
Time = Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)]


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Figures):
    """Published peaks: FLOPs a second by precision, bytes a second of memory and to one other."""

    source: str
    flops: Mapping[str, Positive]
    memory: Positive
    link: Positive | None = None


class Rates(_Figures):
    """What was measured in one precision.

    FLOPs a second of products of matrices, of convolutions and of attention; bytes a second that
    other operations read and write, and that go to another rank; seconds that an operation takes
    whatever its size, on bands too, and a convolution beyond that, that a message does, and that
    a block of the store and a saved state do.
    """

    dtype: str
    matmul: Positive
    conv: Positive
    attention: Positive
    copied: Positive
    call: Time
    banded_call: Time
    conv_call: Time = 0.0
    banded_conv_call: Time = 0.0
    link: Positive
    message: Time
    block: Time = 0.0
    state: Time = 0.0
    when: str = ""
    load: Annotated[float, Field(ge=0, le=1e6)] = 0.0  # of the machine, processes at work
    torch: str = ""

    def line(self) -> str:
        """The figures, for people."""
        kinds = {"products": self.matmul, "convolutions": self.conv, "attention": self.attention}
        flops = ", ".join(f"{name} {scaled(each, 'FLOP/s')}" for name, each in kinds.items())
        moved = f"copies {scaled(self.copied, 'B/s')}, to another rank {scaled(self.link, 'B/s')}"
        each = f"an operation {self.call * 1e6:.3g} us, on bands {self.banded_call * 1e6:.3g} us"
        each += f", a convolution {self.conv_call * 1e6:.3g} us more, on bands "
        each += f"{self.banded_conv_call * 1e6:.3g} us, a message {self.message * 1e6:.3g} us"
        each += f", a block {self.block * 1e3:.3g} ms, a state {self.state * 1e3:.3g} ms"
        return f"{self.dtype}: {flops}, {moved}, {each}, load {self.load:g}"


class DeviceKind(_Figures):
    """A kind of device; a processor is one with so many of its cores."""

    kind: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,80}$")]
    about: str = ""
    limits: Limits | None = None
    measured: tuple[Rates, ...] = ()

    @property
    def is_processor(self) -> bool:
        """Whether its ranks share cores."""
        return self.kind.endswith("-threads")

    def told(self, dtype: str) -> str:
        """Where the seconds come from in a precision, and if from nowhere, how to have them."""
        if (rates := self.rates(dtype)) is not None:
            return f"by {self.kind}, measured {rates.when} at load {rates.load:g}"
        if self.limits and dtype in self.limits.flops:
            return f"by the limits of {self.kind}, {self.limits.source}: {MEASURE}"
        return f"device kind {self.kind} has no figures of {dtype}; {MEASURE}"

    def rates(self, dtype: str) -> Rates | None:
        """What was measured in a precision, None where nothing was."""
        return next((each for each in self.measured if each.dtype == dtype), None)


def user_folder() -> Path:
    """Where figures lie that were measured here."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "frieze" / "devices"


def names() -> tuple[str, ...]:
    """All kinds that there are files of."""
    found = (path.stem for folder in (user_folder(), SHIPPED) for path in folder.glob("*.yaml"))
    return tuple(sorted(set(found)))


def device_kind(name: str) -> DeviceKind:
    """Figures of a kind, measured here if they were; `SpecError` where there are none."""
    files = [path for path in _files(name) if path.is_file()]
    if not files:
        raise SpecError(
            f"no figures of device kind {shown(name)}; there are: {', '.join(names()) or 'none'}; "
            f"{MEASURE}"
        )
    found = [_read(path) for path in files]
    limits = next((each.limits for each in found if each.limits), None)
    return found[0].model_copy(update={"limits": limits})


def known(name: str) -> DeviceKind | None:
    """The same, None where there are no figures."""
    return device_kind(name) if any(path.is_file() for path in _files(name)) else None


def keep(name: str, about: str, measured: Sequence[Rates]) -> Path:
    """Write figures into the user's file of a kind, beside those of other precisions there.

    Returns the file; raises `SpecError` where it cannot be written.
    """
    path = user_folder() / f"{name}.yaml"
    dtypes = {each.dtype for each in measured}
    there = _read(path).measured if path.is_file() else ()
    kept = (*measured, *(each for each in there if each.dtype not in dtypes))
    kind = DeviceKind(kind=name, about=about, measured=kept)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"{path.parent} cannot be made: {error.strerror or error}") from None
    with whole_file(path, overwrite=True, error=SpecError) as part:
        part.write_text(to_yaml(kind.model_dump(mode="json", exclude={"limits"})), encoding="utf-8")
    return path


def _files(name: str) -> list[Path]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,80}", name):
        return []
    return [folder / f"{name}.yaml" for folder in (user_folder(), SHIPPED)]


def _read(path: Path) -> DeviceKind:
    if (why := fault(path)) is not None:
        raise SpecError(f"figures of a device: {why}")
    try:
        return DeviceKind.model_validate(from_yaml(file_text(path)))
    except ValuesError as error:
        raise SpecError(f"{path} is not YAML that works: {error}; {MEASURE}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise SpecError(f"{path}: {where}: {first['msg']}; {MEASURE}") from None


def kind_here(device_type: str) -> str:
    """The name of the kind of this machine's processor, or of its first CUDA device."""
    if device_type == "cuda":
        import torch

        return slug(torch.cuda.get_device_name())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    num = int(threads) if threads.isdigit() and int(threads) else cores or 1
    return slug(f"{_processor()} {num} threads")


def slug(name: str) -> str:
    """A name in small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(told, "") or platform.processor() or platform.machine()
