"""The models that ship with Frieze: their names and folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_DEMO = Path(__file__).parents[1] / "demo"
# A transformer with rotary positions in FLUX's layout, and a UNet in Stable Diffusion's.
SHIPPED: Mapping[str, Path] = {"demo": _DEMO / "checkpoint", "demo-unet": _DEMO / "unet"}
