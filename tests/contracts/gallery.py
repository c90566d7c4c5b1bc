"""Tiny checkpoints drawn by the renderer and by diffusers, each picture once a test module.

Latents are [C, T, H, W], pixels [T, H, W, 3] of 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from PIL import Image
from torch import Tensor

import checkpoints
from frieze.renderer import RenderSpec, render
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.store.store import Store
from support.shared import Once
from tolerances import CONTROL, GREY_LEVELS, STOCK_LATENTS

# Five or more rows of patches: two and three ranks get unequal bands.
DRAWN: dict[str, Any] = {
    "prompt": "a red sun over blue mountains",
    "negative_prompt": "grey",
    "height": 112,
    "width": 64,
    "num_inference_steps": 2,
    "seed": 7,
    "max_sequence_length": 48,
}
UNET = {
    "height": 128,
    "max_sequence_length": None,
    "guidance_scale": 5.0,
}  # its coarsest cell is 32 pixels
SD3 = {"guidance_scale": 5.0}
CLIP = {"num_frames": 5, "guidance_scale": 4.0}
# How each layout differs from `DRAWN`; the guidance scale that is changed to see it comes last.
LAYOUTS: dict[str, dict[str, Any]] = {
    "flux": {"guidance_scale": 3.5, "true_cfg_scale": 2.0},
    "flux-schnell": {"true_cfg_scale": 2.0},
    "sd3": SD3,
    "sd3-no-t5": SD3,
    "sd35": SD3,
    "qwen": {"true_cfg_scale": 3.0},
    "wan": CLIP,
    "wan22": CLIP | {"guidance_scale_2": 3.0},
    "wan22-small": CLIP | {"height": 224},
    # Its network takes whatever comes before the last 512 tokens for those of the picture.
    "wan-i2v": CLIP | {"max_sequence_length": 512},
    "wan22-i2v": CLIP | {"guidance_scale_2": 3.0},
    "sdxl": UNET,
    "sdxl-turbo": UNET,
    "sd15": UNET,
    "sd21": UNET,
    "flux2": {"guidance_scale": 4.0, "negative_prompt": None},
    "flux2-dev": {"guidance_scale": 4.0, "negative_prompt": None, "max_sequence_length": 160},
    "zimage": {"guidance_scale": 4.0},
    "sd15-inpaint": UNET,
    "sdxl-inpaint": UNET,
    "flux-fill": {"guidance_scale": 30.0, "negative_prompt": None},
}
# Of layouts whose network knows masks.
MASKED = ("sd15-inpaint", "sdxl-inpaint", "flux-fill")
# Of families that take a ControlNet.
CONTROLLED = ("sd15", "sdxl", "flux")


@dataclass(frozen=True)
class Drawn:
    """What a render left in its store, or what diffusers drew."""

    latents_CTHW: Tensor
    pixels_THWC: np.ndarray


class Gallery:
    """Checkpoints, references and renders, each made once and only when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._once = Once()

    def checkpoint(self, name: str) -> Path:
        """The folder of a layout's checkpoint."""
        return self._once(
            ("checkpoint", name), partial(checkpoints.build, name, self.folder / name)
        )

    def lora(self, name: str) -> str:
        """A LoRA for a layout."""
        from checkpoints.lora import build_lora

        folder = self.folder / f"{name}-lora"
        return str(self._once(("lora", name), partial(build_lora, self.checkpoint(name), folder)))

    def controlnet(self, name: str, **options: Any) -> str:
        """The folder of a ControlNet for a layout."""
        from checkpoints.controlnet import build_controlnet

        key, folder = ("controlnet", name, *sorted(options.items())), self.folder
        path = folder / "-".join([name, *options, "controlnet"])
        made = partial(build_controlnet, self.checkpoint(name), path, **options)
        return str(self._once(key, made))

    def picture(self, name: str) -> str:
        """A picture of a layout's size, to be redrawn or animated."""
        size = self.arguments(name)
        path = self.folder / f"{size['width']}x{size['height']}.png"
        rows = np.linspace(0, 3, size["height"])[:, None, None]
        columns = np.linspace(0, 2, size["width"])[None, :, None]
        waves = np.sin(rows * [3, 2, 1] + columns * [1, 2, 4])
        Image.fromarray(np.uint8(127.5 + 100 * waves)).save(path)
        return str(path)

    def other_picture(self, name: str) -> str:
        """Another one, of rings."""
        size = self.arguments(name)
        path = self.folder / f"{size['width']}x{size['height']}-rings.png"
        y, x = np.mgrid[: size["height"], : size["width"]]
        radius = np.hypot(y - size["height"] / 3, x - size["width"] / 2)[..., None]
        Image.fromarray(np.uint8(127.5 + 110 * np.cos(radius / [3, 5, 8]))).save(path)
        return str(path)

    def grey(self, name: str) -> str:
        """A mask of a third of everything, of a layout's shape."""
        size = self.arguments(name)
        path = self.folder / f"{size['width']}x{size['height']}-grey.png"
        Image.new("L", (size["width"], size["height"]), 85).save(path)
        return str(path)

    def masked(self, name: str) -> dict[str, Any]:
        """A picture of a layout's size, and a mask whose edges are those of cells."""
        size = self.arguments(name)
        height, width = size["height"], size["width"]
        path = self.folder / f"{width}x{height}-mask.png"
        mask = np.zeros((height, width), np.uint8)
        mask[height // 2 // 32 * 32 :, : width // 2] = 255
        Image.fromarray(mask).save(path)
        fields = {"mask": str(path), "resize_mask": True, "feather": 0, "strength": 1.0}
        return {"init": self.picture(name), **fields}

    def arguments(self, name: str) -> dict[str, Any]:
        """A spec's fields that draw this layout."""
        return DRAWN | LAYOUTS[name]

    def _all(self, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        first = {"image": self.picture(name)} if name.endswith("i2v") else {}
        masked = self.masked(name) if name in MASKED else {}
        return self.arguments(name) | first | masked | dict(changes)

    def stock(self, name: str, **changes: Any) -> Drawn:
        """What diffusers draws."""
        from checkpoints.stock import stock

        def make() -> Drawn:
            asked = self._all(name, changes)
            latents, pixels = stock(self.checkpoint(name), **asked)
            pixels = np.uint8(np.round(np.clip(pixels, 0, 1) * 255))
            if asked.get("mask"):  # pipelines leave to their callers what stays
                drawn = np.asarray(Image.open(asked["mask"]))[..., None] > 0
                pixels = np.where(drawn, pixels, np.asarray(Image.open(asked["init"])))
            return Drawn(latents, pixels)

        return self._once(("stock", name, *sorted(changes.items())), make)

    def drawn(self, name: str, **changes: Any) -> Drawn:
        """What Frieze draws, kept for the next who asks."""
        return self._once(
            ("drawn", name, *sorted(changes.items())), partial(self.fresh, name, **changes)
        )

    def fresh(self, name: str, **changes: Any) -> Drawn:
        """What Frieze draws now."""
        out = self.folder / f"{name}-{len(list(self.folder.glob('*.zarr')))}.zarr"
        render(self.spec(name, out=str(out), **changes))
        return self.opened(name, out)

    def opened(self, name: str, path: Path) -> Drawn:
        """What a finished store of a layout holds."""
        facts = describe(str(self.checkpoint(name)))
        return Drawn(_latents(path, facts.latent.channels), _pixels(path))

    def spec(self, name: str, **changes: Any) -> RenderSpec:
        """The spec of a layout, on threads of this process."""
        fields = {"local": True, "model": str(self.checkpoint(name))}
        return RenderSpec(**(fields | self._all(name, changes)))


def _latents(path: Path, channels: int) -> Tensor:
    store = Store.open(str(path))
    state = store.last_state()
    assert state is not None
    height = store.layout.latents[state.stage].shape[-2]
    rows = store.load_latents(state.stage, state.slot, slice(0, height))
    return torch.from_numpy(rows[:channels])  # the solver's history follows


def _pixels(path: Path) -> np.ndarray:
    array = np.asarray(zarr.open_array(str(path / "0"), mode="r")[:])
    return np.moveaxis(array if array.ndim == 4 else array[None], -3, -1)


def grey_levels(a: Drawn, b: Drawn) -> int:
    """The largest difference of two pictures or clips."""
    assert a.pixels_THWC.shape == b.pixels_THWC.shape
    return int(np.abs(a.pixels_THWC.astype(int) - b.pixels_THWC.astype(int)).max())


def run_isolated(a: Drawn, b: Drawn) -> float:
    """The largest difference of latents, relative to the largest of b."""
    assert a.latents_CTHW.shape == b.latents_CTHW.shape
    difference = (a.latents_CTHW - b.latents_CTHW).abs().max()
    return float(difference / b.latents_CTHW.abs().max())


def equal(a: Drawn, b: Drawn) -> None:
    """Assert that two pictures are the same but for the order of sums."""
    assert run_isolated(a, b) <= STOCK_LATENTS
    assert grey_levels(a, b) <= GREY_LEVELS


def differ(a: Drawn, b: Drawn) -> None:
    """Assert that two pictures are not the same: the control of `equal`."""
    assert run_isolated(a, b) > CONTROL
    assert grey_levels(a, b) > GREY_LEVELS
