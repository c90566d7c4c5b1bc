"""What a model draws with a LoRA as it is by now: a picture, or the frames of a clip, a prompt.

Shape suffixes: C channels (3), T frames, H rows, W columns.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frieze.cluster.comm import worlds as comms

from ...autoencoders.decoding import decode, quantise
from ...worker.precision import exactly
from .method_denoiser import MethodDenoiser

MOST_FRAMES = 5  # of a clip that are shown, evenly of all


@exactly
def write_samples(
    denoiser: MethodDenoiser,
    prompts: Sequence[Sequence[Mapping[str, Tensor]]],
    folder: Path,
    name: str,
) -> None:
    """Write a PNG for each prompt, NAME-1.png and so on, of the same noise at every call.

    A prompt is the halves of its conditioning. Frames of a clip stand side by side.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index, halves in enumerate(prompts):
        generator = torch.Generator().manual_seed(denoiser.plan.spec.seed + index)
        noise = torch.randn(denoiser.shape, generator=generator).to(halves[0]["embeds"].device)
        frames = _frames(denoiser, denoiser.drawn(halves, noise))
        part = folder / f"{name}-{index + 1}.part"
        Image.fromarray(np.concatenate(frames, axis=1)).save(part, "png")
        os.replace(part, folder / f"{name}-{index + 1}.png")


def _frames(denoiser: MethodDenoiser, x_BCTHW: Tensor) -> list[np.ndarray]:
    """Frames [H, W, 3] uint8 of latents, a few of many."""
    canvas = denoiser.stage.canvas
    pieces = decode(
        *(denoiser.model, x_BCTHW, denoiser.stage.bands, canvas, comms.solo()),
        rows_per_block=canvas.height * denoiser.plan.facts.latent.downscale,
    )
    found = [quantise(f, 8) for piece in pieces for f in piece.pixels_BCTHW.unbind(2)]
    chosen = np.linspace(0, len(found) - 1, min(MOST_FRAMES, len(found))).round().astype(int)
    return [found[index] for index in chosen]
