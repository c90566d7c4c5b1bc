"""InfGen in a render: latents that lie in bands on many ranks become each rank's rows of a picture.

The latent and its exact decode are small, and every rank gets them whole; then each draws its own
rows alone, block by block, and no rank waits for another.
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from frieze.cluster.comm import Comm, Like
from frieze.cluster.layout import Band, Canvas
from frieze.kernels import bicubic

from ..checkpoints.decoder import DecoderFacts
from ..errors import ModelError
from ..files.library_errors import as_model_error
from ..models import finite
from ..models.family import Model
from .decoding import Fault, Piece, decode
from .infgen_positions import Window

# The network is a diffusers module, and diffusers takes seconds to import: drivers, and workers
# without such a decoder before their model, do without.
if TYPE_CHECKING:
    from .infgen_network import InfGenDecoder, Latent


@dataclass(frozen=True)
class Anchor:
    """A picture or clip of `size` that is enlarged as it is, not by its latents' decode.

    `read` gives rows of a frame, [B, 3, h, W] in [-1, 1].
    """

    size: tuple[int, int]
    read: Callable[[int, range], Tensor]


def nothing_done(frame: int, row: int) -> bool:
    """Every block is to be drawn."""
    return False


@dataclass(frozen=True)
class Enlargement:
    """What is drawn of an enlarged picture: its size, the rows of this rank, its noise.

    `temporal` are the frames that a latent frame stands for. Of what `is_done` says is there,
    by frame and first row of a block, nothing is drawn. `anchor` is what is enlarged, None for
    the latents' decode.
    """

    size: tuple[int, int]
    rows: Band
    rows_per_block: int
    seed: int
    temporal: int = 1
    is_done: Callable[[int, int], bool] = nothing_done
    anchor: Anchor | None = None


def load(facts: DecoderFacts, dtype: torch.dtype, device: torch.device) -> InfGenDecoder:
    """The network in eval mode; raises `ModelError` for weights that are damaged or not its own."""
    from .infgen_network import InfGenDecoder

    folder = Path(facts.folder)
    with as_model_error(folder, "be loaded"):
        network, info = InfGenDecoder.from_pretrained(
            folder,
            torch_dtype=torch.promote_types(dtype, torch.float32),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{folder} lacks {len(missing)} weights, {missing[0]} first; fetch the decoder anew"
        )
    for weight in network.parameters():  # directions of positions keep their digits
        weight.data = weight.data.to(dtype)
    finite.check_weights(network, folder)
    return network.to(device).eval().requires_grad_(False)


def enlarged(
    network: InfGenDecoder,
    model: Model,
    x_BCTHW: Tensor,
    bands: tuple[Band, ...],
    canvas: Canvas,
    comm: Comm,
    asked: Enlargement,
    *,
    fault: Fault | None = None,
) -> Iterator[Piece]:
    """Yield this rank's rows of the enlarged picture or clip, block by block, frame by frame.

    Collective up to the first piece; then each rank works alone. Raises what `fault` makes of the
    name of what is not finite.
    """
    anchor = asked.anchor or decoded(model, x_BCTHW, bands, canvas, comm, fault)
    x_BCTHW = _gathered(comm, x_BCTHW, [band.rows for band in bands])
    for frame in range((canvas.frames - 1) * asked.temporal + 1):
        starts = range(asked.rows.start, asked.rows.stop, asked.rows_per_block)
        missing = [row for row in starts if not asked.is_done(frame, row)]
        if not missing:
            continue
        z_BCHW = x_BCTHW[:, :, (frame + asked.temporal - 1) // asked.temporal]
        whole = Window.whole(asked.size, canvas.wraps)
        around = network.asked(whole) if canvas.wraps else None
        known = None if asked.anchor else latent(network, z_BCHW, anchor, frame, tokens=around)
        for row in missing:
            rows = range(row, min(row + asked.rows_per_block, asked.rows.stop))
            window = Window(asked.size, rows, range(asked.size[1]), canvas.wraps)
            if asked.anchor:  # of any size: no more of it is held than is asked
                known = latent(network, z_BCHW, anchor, frame, window)
            assert known is not None
            pixels_BCHW = network.draw(known, window, seed=asked.seed, frame=frame)
            if fault and not finite.is_finite([pixels_BCHW]):
                raise fault("the decoded pixels")
            yield Piece(frame, row, pixels_BCHW.unsqueeze(2))


def decoded(
    model: Model,
    x_BCTHW: Tensor,
    bands: tuple[Band, ...],
    canvas: Canvas,
    comm: Comm,
    fault: Fault | None = None,
) -> Anchor:
    """The exact decode of the canvas' latents, whole on all ranks.

    It is at least float32, whatever the autoencoder's precision.
    """
    factor = model.facts.latent.downscale
    rows = canvas.height * factor  # more than any band has: a piece for each group of frames
    pieces = decode(model, x_BCTHW, bands, canvas, comm, rows_per_block=rows, fault=fault)
    own = torch.cat([piece.pixels_BCTHW for piece in pieces], dim=2)
    own = own.to(torch.promote_types(own.dtype, torch.float32))
    scale = Fraction(own.shape[-2], bands[comm.rank].rows)
    pixels_BCTHW = _gathered(comm, own, [band.scaled(scale).rows for band in bands])

    def read(frame: int, rows: range) -> Tensor:
        return pixels_BCTHW[:, :, frame, rows.start : rows.stop]

    return Anchor((pixels_BCTHW.shape[-2], pixels_BCTHW.shape[-1]), read)


def _gathered(comm: Comm, own: Tensor, rows: list[int]) -> Tensor:
    """All ranks' rows, in their order."""
    like = Like.of(own)
    return torch.cat(comm.all_gather(own, [like.with_size(-2, n) for n in rows]), dim=-2)


@torch.no_grad()
def latent(
    network: InfGenDecoder,
    z_BCHW: Tensor,
    anchor: Anchor,
    frame: int,
    window: Window | None = None,
    tokens: Window | None = None,
) -> Latent:
    """What the network knows of a frame, by its latents; of a window, what drawing it asks.

    Where sides meet, `tokens` are all that any window asks, on both sides of them.
    """
    if window is None:
        return network.latent(z_BCHW, anchor.read(frame, range(anchor.size[0])), tokens)
    from .infgen_network import AROUND, PATCH

    height = anchor.size[0]
    tokens = network.asked(window)
    rows = bicubic.source_rows(tokens.times(PATCH).rows, height, window.size[0])
    around = AROUND - 1  # what the contrast at those rows is measured over
    held = range(max(0, rows.start - around), min(height, rows.stop + around))
    known = network.latent(z_BCHW, anchor.read(frame, held), tokens)
    return dataclasses.replace(known, first=held.start, height=height)
