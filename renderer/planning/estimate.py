"""Bytes that a render needs on each device, part by part, and whether a device has them.

What is counted, and how, is in `trace.py`; this needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ..spec.render_spec import RenderSpec
from ..spec.units import GIB

# Of a CUDA device: its context, the libraries' workspaces and what the allocator cannot join.
USABLE = 0.95
MOST_WORKERS = 64  # that are tried
LIGHTER = "--storage-dtype float8_e4m3fn"
ALONE = "--local --park host on one device, or as many devices"


@dataclass(frozen=True)
class Estimate:
    """Peak bytes on each device, of the worker that needs most.

    `weights` stay. `denoise` is what a step holds beside them: latents, the solver's memory,
    conditioning and activations, of which `in_flight` came from other workers. `decode` and
    `encode` are the autoencoder's. `text` is the text encoders', which are gone before the rest
    is loaded. `host` is each worker's memory on the host: the noise, drawn whole, and
    weights as they are without the LoRAs that stages exchange. `decoder_flops`
    are the operations of a decoder of any size, of all workers together, `encoder_flops` those of
    encoding what it enlarges, of which `attention_flops` are by pairs of cells.
    """

    weights: int
    denoise: int
    decode: int
    in_flight: int = 0
    encode: int = 0
    text: int = 0
    host: int = 0
    decoder_flops: int = 0
    encoder_flops: int = 0
    attention_flops: int = 0
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes_per_device(self) -> int:
        """The most at any moment of a render with one worker on each device."""
        return self.together(1)

    def together(self, num_workers: int, *, parked: bool = False) -> int:
        """The same where so many workers of one process share a device and its weights.

        `parked`: those that wait leave the device.
        """
        each = max(self.denoise, self.decode, self.encode)
        return max(self.weights + each * (1 if parked else num_workers), self.text)

    def rows(self) -> Iterator[tuple[str, int]]:
        """(part, bytes) in the order of a render; parts that need nothing are left out."""
        names = ("text", "weights", "encode", "denoise", "in_flight", "decode", "host")
        return ((name, getattr(self, name)) for name in names if getattr(self, name))


def fits(needed: Estimate, device_memory: int, *, num_workers: int = 1) -> str | None:
    """Why devices of so many bytes cannot hold what is needed; None if they can.

    `num_workers` of one process share a device.
    """
    usable = int(device_memory * USABLE)
    peak = needed.together(num_workers)
    if peak <= usable:
        return None
    phases = {
        "the text encoders": needed.text,
        "denoising": needed.weights + num_workers * needed.denoise,
        "decoding": needed.weights + num_workers * needed.decode,
        "encoding": needed.weights + num_workers * needed.encode,
    }
    worst = max(phases, key=lambda name: phases[name])
    return (
        f"{worst} needs {peak / GIB:.1f} GiB on each device, of which "
        f"{0 if worst.startswith('the') else needed.weights / GIB:.1f} GiB are weights; a device "
        f"of {device_memory / GIB:.1f} GiB has {usable / GIB:.1f} GiB to give"
    )


def remedies(
    spec: RenderSpec,
    device_memory: int,
    attempt: Callable[[RenderSpec], Estimate | None],
    needed: Estimate | None = None,
) -> tuple[str, ...]:
    """What would fit instead, found by trying; `attempt` gives None for a spec that cannot be.

    `needed` is what did not fit, if it is known. An attempt takes seconds; those of one precision
    follow each other, for its model is built once for all of them.
    """
    lighter = spec.model_copy(update={"storage_dtype": "float8_e4m3fn"})
    can_cast = spec.storage_dtype is None and spec.quantization is None
    workers = _enough(spec, device_memory, attempt, needed)
    more = f"--workers {workers} ({ALONE})" if workers else None
    weighs = needed is None or _without_weights(needed) <= device_memory * USABLE
    found = []
    if can_cast and weighs and _does(attempt(lighter), device_memory):
        found.append(LIGHTER)
    if more:
        found.append(more)
    if can_cast and not found and (workers := _enough(lighter, device_memory, attempt, needed)):
        found.append(f"{LIGHTER} --workers {workers} ({ALONE})")
    return tuple(found)


def _without_weights(needed: Estimate) -> int:
    """What lighter weights leave as it is."""
    return max(needed.denoise, needed.decode, needed.encode, needed.text)


def _does(needed: Estimate | None, device_memory: int) -> bool:
    return needed is not None and fits(needed, device_memory) is None


def _enough(
    spec: RenderSpec,
    device_memory: int,
    attempt: Callable[[RenderSpec], Estimate | None],
    needed: Estimate | None,
) -> int | None:
    """The fewest workers that would do, of 2, 4, 8, ... times as many; None where none would.

    Numbers that would not do if `needed` fell with their square are not tried: it falls with the
    number, and what attention holds of pairs of tokens with the square.
    """
    usable = device_memory * USABLE
    most = max(needed.denoise, needed.decode, needed.encode) if needed else 0
    workers = 2 * spec.workers
    while workers <= MOST_WORKERS:
        if most * (spec.workers / workers) ** 2 <= usable:
            tried = attempt(spec.model_copy(update={"workers": workers}))
            if _does(tried, device_memory):
                return workers
            if tried and max(tried.weights, tried.text) > usable:
                return None  # every worker holds all of these
        workers *= 2
    return None
