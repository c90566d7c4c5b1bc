"""Streaming decode on bands equals the stock decoder on the whole canvas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from frieze.cluster.bands import mark
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, Canvas
from frieze.renderer.autoencoders import decoding
from frieze.renderer.models.family import Tail
from tolerances import CONTROL, EXACT_FLOAT64

CANVAS = Canvas(frames=1, height=16, width=6)
BANDS = (Band(0, 4), Band(4, 12), Band(12, 16))
WHOLE = (Band(0, 16),)


def tiny_vae() -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    for parameter in vae.parameters():
        nn.init.normal_(parameter, std=0.3, mean=0.1 if parameter.ndim == 1 else 0.0)
    return vae.double().eval()


def split_model(vae: AutoencoderKL) -> Any:
    """The decoder without its tail, and the tail, as a family hands them over."""
    marks = mark(vae, lambda name, _: name == "decoder.mid_block.attentions.0")
    tail = Tail(vae.decoder.conv_norm_out, vae.decoder.conv_act, vae.decoder.conv_out)
    for name in ("conv_norm_out", "conv_act", "conv_out"):
        setattr(vae.decoder, name, nn.Identity())
    return SimpleNamespace(
        features=lambda z: vae.decode(z.squeeze(2), return_dict=False)[0],
        tail=tail,
        decoder_marks=(marks,),
    )


def rows_of(comm: Comm, model: Any, latents: Tensor, bands: tuple[Band, ...], rows: int) -> Any:
    """What decode yields on one rank."""
    band = bands[comm.rank]
    with torch.no_grad():
        return list(
            decoding.decode(
                model,
                latents[:, :, None, band.start : band.stop],
                bands,
                CANVAS,
                comm,
                rows_per_block=rows,
            )
        )


@pytest.mark.parametrize("rows", [3, 8, 32])
@pytest.mark.parametrize("bands", [WHOLE, BANDS], ids=["1 rank", "3 ranks"])
def test_streamed_rows_equal_the_stock_decoder(bands: tuple[Band, ...], rows: int) -> None:
    latents = torch.randn(1, 4, 16, 6, dtype=torch.float64)
    with torch.no_grad():
        whole = tiny_vae().decode(latents).sample[0].numpy()
    model = split_model(tiny_vae())
    parts = run_threads(rows_of, len(bands), model, latents, bands, rows)
    found = [piece for part in parts for piece in part]
    assert {piece.frame for piece in found} == {0}
    pieces = sorted((piece.row, piece.pixels_BCTHW[0, :, 0].numpy()) for piece in found)
    assert next(first for first, _ in pieces) == 0
    got = np.concatenate([piece for _, piece in pieces], axis=1)
    assert np.abs(got - whole).max() <= EXACT_FLOAT64


def test_control_bands_decoded_alone_are_wrong() -> None:
    latents = torch.randn(1, 4, 16, 6, dtype=torch.float64)
    with torch.no_grad():
        whole = tiny_vae().decode(latents).sample[0].numpy()
        alone = tiny_vae().decode(latents[..., :4, :]).sample[0].numpy()
    assert np.abs(alone - whole[:, :8]).max() > CONTROL


def test_pixels_are_rounded_as_diffusers_rounds_them() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]).expand(1, 3, 1, 6)
    eight = decoding.quantise(values, 8)
    assert eight.dtype == np.uint8
    assert eight[0, :, 0].tolist() == [0, 0, 128, 191, 255, 255]
    sixteen = decoding.quantise(values, 16)
    assert sixteen.dtype == np.uint16
    assert sixteen[0, :, 0].tolist() == [0, 0, 32768, 49151, 65535, 65535]
