"""Causal autoencoders: the clip of stock diffusers, on any bands, in memory that does not grow.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.bands import BandMode, Marks
from frieze.cluster.comm import Comm, run_threads, solo
from frieze.cluster.layout import Band, Canvas
from frieze.renderer.autoencoders import decoding
from frieze.renderer.autoencoders.video_vae import CausalVAE
from support.live_bytes import LiveBytes
from support.shared import kept
from tolerances import CASTS_TO_FLOAT32, CONTROL, EXACT_FLOAT64

CUTS = [(Band(0, 6),), (Band(0, 4), Band(4, 6)), (Band(0, 1), Band(1, 4), Band(4, 6))]
# Three bands have a middle one, which has all that two have.
QUICK_CUTS = [pytest.param(cut, marks=pytest.mark.slow if len(cut) == 2 else []) for cut in CUTS]
HEIGHT, WIDTH = 6, 6
SIZES: dict[str, Any] = {"z_dim": 4, "num_res_blocks": 1, "dim_mult": [1, 2, 2, 2]}
STATISTICS = {"latents_mean": [0.5, -0.25, 0.0, 1.0], "latents_std": [2.0, 0.5, 1.5, 3.0]}


def wan() -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=8, **SIZES, **STATISTICS)


def wan22() -> Any:
    """Wan 2.2's residual autoencoder of 2 x 2 patches."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=8,
        **SIZES,
        **STATISTICS,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )


def qwen() -> Any:
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(base_dim=8, **SIZES, **STATISTICS)


KINDS = {kind.__name__: kind for kind in (wan, wan22, qwen)}


@kept
def autoencoder(kind: str) -> CausalVAE:
    """In float64, with pixels well inside what it clamps to."""
    torch.manual_seed(0)
    vae = KINDS[kind]().to(torch.float64).eval()
    for parameter in vae.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    vae.decoder.conv_out.weight.data.mul_(0.5)
    return CausalVAE(vae)


def downscale(kind: str) -> int:
    return 16 if kind == "wan22" else 8


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def latents(num_frames: int = 3) -> Tensor:
    return drawn(1, 4, num_frames, HEIGHT, WIDTH)


def pixels(kind: str, num_frames: int = 9) -> Tensor:
    scale = downscale(kind)
    return drawn(1, 3, num_frames, HEIGHT * scale, WIDTH * scale).clamp(-1, 1)


def decoded(model: CausalVAE, x_BCTHW: Tensor) -> Tensor:
    return torch.cat([thunk() for thunk in model.frames(x_BCTHW)], dim=2)


def raw(model: CausalVAE, x_BCTHW: Tensor) -> Tensor:
    """Latents as the autoencoder itself scales them, by the formula of the model card."""
    config = model.vae.config
    mean, std = (torch.tensor(v).double() for v in (config.latents_mean, config.latents_std))
    return x_BCTHW * std.view(1, -1, 1, 1, 1) + mean.view(1, -1, 1, 1, 1)


def on_bands(
    work: Callable[[Tensor], Tensor], x: Tensor, bands: Sequence[Band], marks: Sequence[Marks]
) -> Tensor:
    """`work` of every band of x, on threads that share one model."""
    canvas = Canvas(3, HEIGHT, WIDTH)
    scale = x.shape[-2] // HEIGHT

    def rank(comm: Comm) -> Tensor:
        own = bands[comm.rank].scaled(scale)
        with BandMode(comm, bands, marks=marks, canvas=canvas), torch.no_grad():
            return work(x[..., own.start : own.stop, :])

    return torch.cat(run_threads(rank, len(bands)), dim=-2)


def distance(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_stock_diffusers(kind: str) -> None:
    model = autoencoder(kind)
    with torch.no_grad():
        stock = model.vae.decode(raw(model, latents())).sample
        assert 0.01 < float(stock.abs().max()) < 1.0
        assert distance(decoded(model, latents()), stock) <= EXACT_FLOAT64


@pytest.mark.parametrize("kind", KINDS)
def test_encoded_is_stock_diffusers(kind: str) -> None:
    model = autoencoder(kind)
    with torch.no_grad():
        stock = model.vae.encode(pixels(kind)).latent_dist.mode()
        assert distance(raw(model, model.encoded(pixels(kind))), stock) <= EXACT_FLOAT64


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_latent_frame_is_one_frame_and_later_ones_four(kind: str) -> None:
    thunks = autoencoder(kind).frames(latents())
    with torch.no_grad():
        assert [thunk().shape[2] for thunk in thunks] == [1, 4, 4]


def test_an_infinity_is_found_and_not_clamped_away() -> None:
    model = autoencoder.__wrapped__("wan")
    model.vae.decoder.conv_out.bias.data[0] = float("inf")

    def pieces(fault: decoding.Fault | None) -> list[decoding.Piece]:
        work = (model, latents(), CUTS[0], Canvas(3, HEIGHT, WIDTH), solo())
        return list(decoding.decode(*work, rows_per_block=8, fault=fault))

    with torch.no_grad(), pytest.raises(ArithmeticError, match="the decoded pixels"):
        pieces(ArithmeticError)
    with torch.no_grad():
        assert float(pieces(None)[0].pixels_BCTHW.max()) == float("inf")


@pytest.mark.parametrize("bands", QUICK_CUTS, ids=lambda bands: str(len(bands)))
@pytest.mark.parametrize("kind", KINDS)
def test_bands_decode_what_one_process_decodes(kind: str, bands: tuple[Band, ...]) -> None:
    model = autoencoder(kind)
    with torch.no_grad():
        whole = decoded(model, latents())
    parts = on_bands(lambda x: decoded(model, x), latents(), bands, model.decoder_marks)
    assert distance(parts, whole) <= CASTS_TO_FLOAT32


@pytest.mark.parametrize("bands", QUICK_CUTS, ids=lambda bands: str(len(bands)))
@pytest.mark.parametrize("kind", KINDS)
def test_bands_encode_what_one_process_encodes(kind: str, bands: tuple[Band, ...]) -> None:
    model = autoencoder(kind)
    with torch.no_grad():
        whole = model.encoded(pixels(kind))
    parts = on_bands(model.encoded, pixels(kind), bands, model.encoder_marks)
    assert distance(parts, whole) <= EXACT_FLOAT64


@pytest.mark.parametrize("kind", KINDS)
def test_bands_without_the_mode_are_wrong(kind: str) -> None:
    """The control of the two tests above."""
    model = autoencoder(kind)
    scale = downscale(kind)
    with torch.no_grad():
        whole, whole_latents = decoded(model, latents()), model.encoded(pixels(kind))
        own = [latents()[..., b.start : b.stop, :] for b in CUTS[2]]
        frames = [decoded(model, x) for x in own]
        rows = [b.scaled(scale) for b in CUTS[2]]
        modes = [model.encoded(pixels(kind)[..., b.start : b.stop, :]) for b in rows]
    assert distance(torch.cat(frames, dim=-2), whole) > CONTROL
    assert distance(torch.cat(modes, dim=-2), whole_latents) > CONTROL


def test_each_frame_may_have_a_mode_of_its_own() -> None:
    model, bands = autoencoder("wan"), CUTS[2]
    with torch.no_grad():
        whole = decoded(model, latents())

    def rank(comm: Comm) -> Tensor:
        band, groups = bands[comm.rank], []
        for thunk in model.frames(latents()[..., band.start : band.stop, :]):
            with torch.no_grad(), BandMode(comm, bands, marks=model.decoder_marks):
                groups.append(thunk())
        return torch.cat(groups, dim=2)

    parts = torch.cat(run_threads(rank, len(bands)), dim=-2)
    assert distance(parts, whole) <= CASTS_TO_FLOAT32


def test_two_clips_can_be_decoded_in_turn() -> None:
    """No state lies on the module: two decodes that take turns do not meet."""
    model = autoencoder("wan")
    ours, theirs = latents(), -latents()
    with torch.no_grad():
        pairs = zip(model.frames(ours), model.frames(theirs), strict=True)
        groups = [(one(), other()) for one, other in pairs]
        for x, mixed in zip((ours, theirs), zip(*groups, strict=True), strict=True):
            assert distance(torch.cat(mixed, dim=2), decoded(model, x)) <= EXACT_FLOAT64


def peak(work: Callable[[], Any]) -> int:
    with torch.no_grad(), LiveBytes() as live:
        work()
    return live.peak


def test_memory_of_decoding_does_not_grow_with_the_clip() -> None:
    model = autoencoder("wan")

    def stream(x_BCTHW: Tensor) -> None:
        for thunk in model.frames(x_BCTHW):
            thunk()

    short, long = latents(3), latents(9)  # 9 and 33 frames
    assert peak(lambda: stream(long)) <= 1.05 * peak(lambda: stream(short))
    assert peak(lambda: model.vae.decode(long)) > 1.15 * peak(lambda: model.vae.decode(short))


def test_encoding_groups_needs_no_memory_for_the_clip() -> None:
    model = autoencoder("wan")
    first, empty = pixels("wan", 1), torch.zeros(1, 3, 4, HEIGHT * 8, WIDTH * 8).double()
    clip = torch.cat([first, *[empty] * 2], dim=2)
    with torch.no_grad():
        groups = model.encoded_groups([first, *[empty] * 2])
        assert distance(groups, model.encoded(clip)) <= EXACT_FLOAT64
    short, long = (peak(lambda n=n: model.encoded_groups([first, *[empty] * n])) for n in (4, 16))
    assert long <= 1.1 * short
