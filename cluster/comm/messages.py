"""What ranks exchange, what they wait for, and how that fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

MOST_BYTES = 2**20  # of what is said in JSON: sizes and names


class CommError(RuntimeError):
    """Ranks cannot talk as asked: wrong rank, wrong shape, or a band too short to lend rows."""


class RankLostError(CommError, ConnectionError):
    """A rank died, hung or gave up; `rank` names it where that is known."""

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


class Like(NamedTuple):
    """What a received tensor will be."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x: Tensor) -> Like:
        return cls(tuple(x.shape), x.dtype, x.device)

    def with_size(self, dim: int, size: int) -> Like:
        """The same with another size in one dim."""
        shape = list(self.shape)
        shape[dim] = size
        return self._replace(shape=tuple(shape))

    def as_json(self) -> list[Any]:
        """JSON from which `from_json` makes it again."""
        return [self.shape, str(self.dtype).removeprefix("torch."), str(self.device)]

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """What `as_json` said; raises CommError where it is nothing of the kind."""
        try:
            shape, name, device = value
            dtype = getattr(torch, name)
            is_shape = all(type(n) is int and n >= 0 for n in shape)
            if not isinstance(dtype, torch.dtype) or not is_shape:
                raise ValueError(name)
            return cls(tuple(shape), dtype, torch.device(device))
        except (TypeError, ValueError, AttributeError, RuntimeError):
            raise CommError(f"{str(value)[:100]!r} describes no tensor") from None

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape)) or "scalar"
        return f"{sizes} {str(self.dtype).removeprefix('torch.')}"


class Pending:
    """A posted exchange; tensors sent must not be written to before `wait()` has returned."""

    def __init__(self, finish: Callable[[], dict[int, Tensor]]) -> None:
        self._finish: Callable[[], dict[int, Tensor]] | None = finish
        self._received: dict[int, Tensor] = {}

    def wait(self) -> dict[int, Tensor]:
        """The tensors received, by source rank; RankLostError within the comm's timeout."""
        if self._finish is not None:
            finish, self._finish = self._finish, None
            self._received = finish()
        return self._received

    def only(self) -> Tensor:
        """The one tensor received."""
        (received,) = self.wait().values()
        return received


def check_like(x: Tensor, like: Like, source: int) -> None:
    """CommError unless `x` has the shape and dtype announced."""
    if tuple(x.shape) != tuple(like.shape) or x.dtype != like.dtype:
        raise CommError(f"rank {source} sent {Like.of(x)} where {like} was expected")


def in_bytes(value: Any, device: torch.device) -> Tensor:
    """A JSON value as a tensor of bytes: nothing that is read back can run code."""
    payload = json.dumps(value).encode()
    if len(payload) > MOST_BYTES:
        raise CommError(f"{len(payload)} bytes of JSON; at most {MOST_BYTES} work")
    return torch.frombuffer(bytearray(payload), dtype=torch.uint8).to(device)


def from_bytes(payload: Tensor) -> Any:
    """The JSON value that `in_bytes` was given; raises CommError where there is none."""
    try:
        return json.loads(payload.cpu().numpy().tobytes())
    except (ValueError, RecursionError):
        raise CommError(f"{payload.numel()} bytes of a rank are no JSON") from None
