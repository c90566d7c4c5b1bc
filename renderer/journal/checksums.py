"""JSON as stores have it, and digests that tell whether what is read is what was written.

No CRC: that of bytes that end with their own CRC, as Zarr's `crc32c` leaves them, is a constant.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

# Hexadecimal digits of a digest: 64 bits, which no accident hits.
LENGTH = 16
NAME = "sum"


def digest(data: Any) -> str:
    """A digest of bytes, or of anything that lies in memory as bytes do."""
    return hashlib.blake2b(data, digest_size=LENGTH // 2).hexdigest()


def values_of(text: str | bytes) -> Any:
    """The values of a JSON text; raises ValueError, also for NaN, infinity and what is too deep.

    Python takes those for numbers; no other reader of JSON does.
    """
    try:
        return json.loads(text, parse_float=_number, parse_constant=_number)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no number of JSON")
    return number


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with a digest of them as the last one, "sum"."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"))
    return {**values, NAME: digest(text.encode("ascii"))}


def is_whole(values: Mapping[str, Any]) -> bool:
    """Whether JSON values are those that were sealed; False also where they never were."""
    plain = {name: value for name, value in values.items() if name != NAME}
    return sealed(plain)[NAME] == values.get(NAME)


def split(joined: str) -> list[str]:
    """Digests that were put together to one text."""
    return [joined[i : i + LENGTH] for i in range(0, len(joined), LENGTH)]
