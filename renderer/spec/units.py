"""Units that sizes are told in, and how many bytes a number takes."""

from __future__ import annotations

GIB = 2**30
BYTES_OF = {"uint8": 1, "uint16": 2, "bfloat16": 2, "float16": 2, "float32": 4}
