"""Where ranks that wait for their turn leave their memory, so that one device serves many.

A rank's tensors made during its turn are tracked by storage, so views share one parking place
and weights, which are older than the turn, stay. When the rank passes its turn on, each storage
is copied out and emptied in place; before it computes again all are filled with the same bytes.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal

import torch
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

ParkingMedium = Literal["host", "disk"]

MIN_BYTES = 1 << 16  # smaller storages are not worth a copy
MAPPED_BYTES = 1 << 20  # larger blocks go back to the system when freed


@dataclass
class Parked:
    """An emptied storage and where its bytes are: in pinned memory or at `offset` on disk."""

    storage: UntypedStorage
    num_bytes: int
    offset: int = 0
    pinned: Tensor | None = None


class Parking(TorchDispatchMode):
    """Tracks what one rank's thread makes while the mode is on; parks and restores it.

    `host` takes CUDA storages to pinned memory, `disk` takes any to an unlinked file in
    `scratch`. `lots` is shared by the ranks of a world: a tensor that one rank made and another
    meets (a cache inside a shared model) is brought back for good when it is first used.
    """

    def __init__(self, place: ParkingMedium, scratch: str | None, lots: dict[int, Parking]) -> None:
        super().__init__()
        if place == "disk":
            _return_freed_memory()
        self._place = place
        self._scratch = scratch
        self._lots = lots
        self._tracked: dict[int, StorageWeakRef] = {}
        self._num_tracked_when_pruned = 0
        self._parked: dict[int, Parked] = {}
        self._file: IO[bytes] | None = None
        self._is_idle = True  # while copying itself

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._is_idle:
            return func(*args, **kwargs)
        older = {storage._cdata for storage in _storages([*args, *kwargs.values()])}
        for key in older & self._lots.keys():
            self._lots[key].release(key)
        out = func(*args, **kwargs)
        for storage in _storages([out]):
            if storage._cdata not in older:
                self.adopt(storage)
        return out

    def adopt(self, storage: UntypedStorage) -> None:
        """Tracks a storage that is this rank's from now on."""
        if self._is_idle or storage.device.type not in ("cpu", "cuda"):
            return
        self._tracked[storage._cdata] = StorageWeakRef(storage)
        if len(self._tracked) > 2 * self._num_tracked_when_pruned + 64:
            alive = {key: ref for key, ref in self._tracked.items() if not ref.expired()}
            self._tracked, self._num_tracked_when_pruned = alive, len(alive)

    def forget(self, storage: UntypedStorage) -> None:
        """Leaves a storage alone from now on: it belongs to another rank or to all."""
        self._tracked.pop(storage._cdata, None)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Tracks what is made inside; what is left afterwards is never parked."""
        self._is_idle = False
        try:
            with self:
                yield
        finally:
            self._is_idle = True
            self._tracked.clear()
            if self._file is not None:
                self._file.close()
                self._file = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """Inside, the rank's tensors hold no memory and must not be touched by its thread."""
        was_idle, self._is_idle = self._is_idle, True
        try:
            self._park()
            yield
        finally:
            for key in list(self._parked):
                self._fetch(key)
            self._is_idle = was_idle

    def release(self, key: int) -> None:
        """Brings one storage back for good, for another rank that uses it."""
        self._fetch(key)
        self._tracked.pop(key, None)

    def _park(self) -> None:
        offset = 0
        for ref in list(self._tracked.values()):
            storage = UntypedStorage._new_with_weak_ptr(ref.cdata)
            if storage is None or not self._can_park(storage):
                continue
            parked = Parked(storage, storage.nbytes(), offset)
            self._copy_out(parked)
            storage.resize_(0)
            self._parked[storage._cdata] = parked
            self._lots[storage._cdata] = self
            offset += parked.num_bytes

    def _can_park(self, storage: UntypedStorage) -> bool:
        """Not what numpy or another process may look into: torch calls it not resizable."""
        if storage.nbytes() < MIN_BYTES or not storage.resizable():
            return False
        return storage.device.type == "cuda" or (self._place == "disk" and not storage.is_shared())

    def _fetch(self, key: int) -> None:
        parked = self._parked.pop(key, None)
        if parked is None:
            return
        self._lots.pop(key, None)
        parked.storage.resize_(parked.num_bytes)
        self._copy_in(parked)

    def _copy_out(self, parked: Parked) -> None:
        if parked.storage.device.type == "cuda":
            pin = self._place == "host"
            host = torch.empty(parked.num_bytes, dtype=torch.uint8, pin_memory=pin)
            # On one stream the copy ends before the memory is given to the next kernel.
            host.copy_(_bytes_of(parked.storage), non_blocking=pin)
            if pin:
                parked.pinned = host
                return
            self._write(host.data_ptr(), parked)
        else:
            self._write(parked.storage.data_ptr(), parked)

    def _copy_in(self, parked: Parked) -> None:
        if parked.pinned is not None:
            _bytes_of(parked.storage).copy_(parked.pinned, non_blocking=True)
        elif parked.storage.device.type == "cuda":
            host = torch.empty(parked.num_bytes, dtype=torch.uint8)
            self._read(host.data_ptr(), parked)
            _bytes_of(parked.storage).copy_(host)
        else:
            self._read(parked.storage.data_ptr(), parked)

    def _write(self, address: int, parked: Parked) -> None:
        """Written, not mapped: a full disk is then an error, not a signal."""
        folder = self._scratch or tempfile.gettempdir()
        buffer = memoryview((ctypes.c_char * parked.num_bytes).from_address(address))
        written = 0
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
            while written < parked.num_bytes:
                at = parked.offset + written
                written += os.pwrite(self._file.fileno(), buffer[written:], at)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot park {parked.num_bytes} bytes of a waiting rank in {folder}: "
                f"{error.strerror}; use a scratch folder with more room",
            ) from error

    def _read(self, address: int, parked: Parked) -> None:
        assert self._file is not None
        buffer = memoryview((ctypes.c_char * parked.num_bytes).from_address(address))
        done = 0
        while done < parked.num_bytes:
            got = os.preadv(self._file.fileno(), [buffer[done:]], parked.offset + done)
            assert got > 0, "the scratch file lost bytes"
            done += got


def _return_freed_memory() -> None:
    """Without this glibc keeps what was emptied, once for every thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_mmap_threshold = -3  # malloc.h
        mallopt(m_mmap_threshold, MAPPED_BYTES)


def _storages(values: Iterable[Any]) -> Iterator[UntypedStorage]:
    """The storages of the plain tensors among these arguments or results."""
    for value in values:
        if isinstance(value, Tensor):
            if value.layout == torch.strided and value.device.type != "meta":
                yield value.untyped_storage()
        elif isinstance(value, list | tuple):
            yield from _storages(value)


def _bytes_of(storage: UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
