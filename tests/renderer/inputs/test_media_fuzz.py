"""Damaged pictures and clips are read or refused in one line: no traceback, no wait, no crash.

Whole small files of every kind are changed in bytes, cut, doubled or mixed, from a seed.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from frieze.renderer.errors import MOST_LETTERS, MediaError
from frieze.renderer.inputs import media
from support.media_files import WHOLE, damaged, whole

EACH = 20  # of a file, in `make test`; times `FULL` in `make test-all`
FULL = 25


def check(path: Path, data: bytes) -> None:
    """Read or refused in one line, alike by what only looks and by what reads."""
    path.write_bytes(data)
    for look in (media.peek, lambda where: list(media.frames(where, 4))):
        try:
            found = look(path)
        except MediaError as error:
            message = str(error)
            assert message.isprintable()
            assert len(message) <= MOST_LETTERS
        else:
            frames = found if isinstance(found, list) else []
            assert all(frame.dtype == np.float32 for frame in frames)
            assert all(0 <= frame.min() <= frame.max() <= 1 for frame in frames)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    "times", [EACH, pytest.param(EACH * FULL, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_damage_is_told_in_one_line(tmp_path: Path, name: str, times: int) -> None:
    chance = random.Random(f"{name} {times}")
    data = whole(name)
    check(tmp_path / "whole", data)
    list(media.frames(tmp_path / "whole"))  # without damage: read
    for number in range(times):
        file = damaged(data, chance)
        try:
            check(tmp_path / "damaged", file)
        except BaseException:
            (tmp_path / f"{number}.{name}").write_bytes(file)  # kept for whoever looks
            raise
