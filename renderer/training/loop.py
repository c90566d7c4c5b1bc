"""What the loops of trainings share: an average, a rate, states on disk, a log."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LEAST = 0.01  # of a rate, at its end


@torch.no_grad()
def follow(average: torch.nn.Module, network: torch.nn.Module, keep: float) -> None:
    """Move averaged weights towards a network's: `keep` of what they were stays."""
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - keep)


def warmed_up(step: int, steps: int) -> float:
    """A rate's part at a step (from 0 on) while it rises over the first `steps`."""
    return min(1.0, (step + 1) / steps)


def cosine(part: float, held: float = 0.0) -> float:
    """A rate's part when so much of a training is done: 1 while `held`, then down to `LEAST`."""
    late = min(1.0, max(0.0, (part - held) / (1 - held)))
    return LEAST + (1 - LEAST) * math.cos(math.pi * late / 2) ** 2


def write(path: Path, states: Mapping[str, Any]) -> None:
    """Write states that `read` gives back, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    torch.save(dict(states), part)
    os.replace(part, path)


def read(path: Path) -> dict[str, Any] | None:
    """States that were written, on the CPU; None if none were."""
    if not path.exists():
        return None
    states: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return states


def append_row(path: Path, columns: Sequence[str], row: Sequence[object]) -> None:
    """Add a row to a log in CSV, which begins with the names of its columns."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, row] if is_new else [row])


@dataclass
class TrainingState:
    """A model that is trained, its average, its optimiser; steps and seconds that are done."""

    model: torch.nn.Module
    ema: torch.nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0
    spent: float = 0.0

    def save(self, path: Path, step: int, spent: float) -> None:
        """Write all that going on needs, when so many steps and seconds are done."""
        self.step, self.spent = step, spent
        parts = {name: getattr(self, name).state_dict() for name in ("model", "ema", "optimiser")}
        write(path, parts | {"step": step, "spent": spent})

    def restore(self, path: Path) -> tuple[int, float]:
        """Go on from there, if anything is; steps and seconds that are done."""
        if (saved := read(path)) is not None:
            for name in ("model", "ema", "optimiser"):
                getattr(self, name).load_state_dict(saved[name])
            self.step, self.spent = saved["step"], saved["spent"]
        return self.step, self.spent
