"""InfGen on bands: the rows of any number of ranks are those of one."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, Canvas
from frieze.renderer.autoencoders import infgen
from frieze.renderer.autoencoders.decoding import Piece
from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.checkpoints.decoder import DecoderConfig, DecoderFacts
from frieze.renderer.errors import FriezeError, ModelError
from support.decoders import decoder, saved
from tolerances import CONTROL, EXACT_FLOAT64

CANVAS = Canvas(frames=1, height=12, width=8)
SIZE = (384, 64)  # taller than the network reaches, so that bands are drawn apart
# Rows of latents of each rank, and of the picture in pixels: unequal both, and not alike.
CUTS: list[tuple[list[int], list[int]]] = [
    ([12], [384]),
    ([4, 8], [128, 256]),
    ([2, 6, 4], [256, 64, 64]),
    ([4, 2, 2, 2, 2], [64, 64, 128, 64, 64]),
]


def bands(rows: list[int]) -> tuple[Band, ...]:
    ends = torch.tensor([0, *rows]).cumsum(0).tolist()
    return tuple(Band(a, b) for a, b in itertools.pairwise(ends))


class Nearest:
    """An autoencoder whose decode of a cell is 8 x 8 pixels of three of its channels, by frames."""

    tail = None
    decoder_marks = ()
    facts = SimpleNamespace(latent=SimpleNamespace(downscale=8))

    def __init__(self, temporal: int = 1) -> None:
        self.temporal = temporal

    def frames(self, x_BCTHW: Tensor) -> Any:
        def group(index: int) -> Tensor:
            frame = x_BCTHW[:, :3, index : index + 1] / 3
            large = frame.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)
            return large.expand(-1, -1, self.temporal if index else 1, -1, -1)

        return [lambda index=index: group(index) for index in range(x_BCTHW.shape[2])]


def latents(frames: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(1, 4, frames, 12, 8, generator=generator, dtype=torch.float64)


def rows_of(
    comm: Comm, network: InfGenDecoder, held: list[int], drawn: list[int], **asked: Any
) -> list[Piece]:
    """What one rank yields."""
    all_bands, x_BCTHW = bands(held), latents()
    band = all_bands[comm.rank]
    wish = {"size": SIZE, "rows_per_block": 64, "seed": 5} | asked
    with torch.no_grad():
        own, model = x_BCTHW[..., band.start : band.stop, :], Nearest()
        rows = bands(drawn)[comm.rank]
        enlargement = infgen.Enlargement(rows=rows, **wish)
        work = (network, model, own, all_bands, CANVAS, comm, enlargement)
        return list(infgen.enlarged(*work))


def _rows_of(work: tuple[Any, ...], asked: dict[str, Any], comm: Comm) -> list[Piece]:
    return rows_of(comm, *work, **asked)


def joined(parts: list[list[Piece]]) -> Tensor:
    pieces = sorted((piece for part in parts for piece in part), key=lambda piece: piece.row)
    return torch.cat([piece.pixels_BCTHW for piece in pieces], dim=3)


# Two steps take what one takes, and their own.
options = pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=pytest.mark.slow), {"mode": "global"}, {"num_steps": 2}],
    ids=str,
)


@options
def test_any_number_of_ranks_draws_the_same(options: dict[str, Any]) -> None:
    network = decoder(**options)
    picture = latents()[:, :3, 0].repeat_interleave(8, dim=2).repeat_interleave(8, dim=3) / 3
    with torch.no_grad():
        known = network.latent(latents()[:, :, 0], picture)
        expected = network.draw(known, Window.whole(SIZE), seed=5)
    for held, drawn in CUTS:
        found = joined(run_threads(rows_of, len(held), network, held, drawn))[:, :, 0]
        assert float((found - expected).abs().max()) < EXACT_FLOAT64


LARGER = (96, 60)  # of what is enlarged: not of whole cells


def anchor(first: int = 0) -> infgen.Anchor:
    """A picture of which rows are read as they are asked for; `first` is a row that is none."""
    generator = torch.Generator().manual_seed(4)
    whole = torch.rand(1, 3, *LARGER, generator=generator, dtype=torch.float64) * 2 - 1
    return infgen.Anchor(
        LARGER, lambda frame, rows: whole.roll(-first, 2)[:, :, rows.start : rows.stop]
    )


@options
def test_a_picture_that_is_read_row_by_row_is_enlarged_the_same(options: dict[str, Any]) -> None:
    """By any number of ranks, in blocks of any size; the control reads a row too far."""
    network, given = decoder(**options), anchor()
    with torch.no_grad():
        known = network.latent(latents()[:, :, 0], given.read(0, range(LARGER[0])))
        expected = network.draw(known, Window.whole(SIZE), seed=5)
    for (held, drawn), rows_per_block in zip(CUTS, (128, 64, 64, 128), strict=True):
        work = (network, held, drawn)
        asked = {"anchor": given, "rows_per_block": rows_per_block}
        ranks = functools.partial(_rows_of, work, asked)
        found = joined(run_threads(ranks, len(held)))[:, :, 0]
        assert float((found - expected).abs().max()) < EXACT_FLOAT64
    (wrong,) = run_threads(lambda comm: rows_of(comm, network, *CUTS[0], anchor=anchor(1)), 1)
    assert float((joined([wrong])[:, :, 0] - expected).abs().max()) > CONTROL


def test_control_a_rank_that_knows_its_own_latents_alone_draws_another_picture() -> None:
    network, x_BCTHW = decoder(), latents()
    picture = x_BCTHW[:, :3, 0].repeat_interleave(8, dim=2).repeat_interleave(8, dim=3) / 3
    with torch.no_grad():
        whole = network.draw(network.latent(x_BCTHW[:, :, 0], picture), Window.whole(SIZE), seed=5)
        alone = network.latent(x_BCTHW[:, :, 0, :4], picture[:, :, :32])
        top = network.draw(alone, Window.whole((128, 64)), seed=5)
    assert float((top - whole[:, :, :128]).abs().max()) > CONTROL


def test_blocks_that_are_there_are_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[range] = []
    network, draw = decoder(), InfGenDecoder.draw

    def counted(self: InfGenDecoder, latent: Any, window: Window, **options: Any) -> Tensor:
        asked.append(window.rows)
        return draw(self, latent, window, **options)

    monkeypatch.setattr(InfGenDecoder, "draw", counted)
    (all_there,) = run_threads(rows_of, 1, network, [12], [384])
    assert [piece.row for piece in all_there] == [0, 64, 128, 192, 256, 320]
    asked.clear()
    missing = (64, 320)
    is_done = lambda frame, row: row not in missing  # noqa: E731  a field of the record
    (pieces,) = run_threads(lambda comm: rows_of(comm, network, [12], [384], is_done=is_done), 1)
    assert [rows.start for rows in asked] == [piece.row for piece in pieces] == list(missing)
    for piece in pieces:
        (same,) = (other for other in all_there if other.row == piece.row)
        assert torch.equal(piece.pixels_BCTHW, same.pixels_BCTHW)


def test_a_clip_is_drawn_frame_by_frame() -> None:
    """Of 3 latent frames, 1 + 4 + 4 frames; each has its latent frame, decode and noise."""
    network, x_BCTHW = decoder(), latents(frames=3)
    canvas = Canvas(frames=3, height=12, width=8)

    def drawn(comm: Comm) -> list[Piece]:
        asked = infgen.Enlargement((96, 64), Band(0, 96), 96, 5, temporal=4)
        model = Nearest(temporal=4)
        with torch.no_grad():
            work = (network, model, x_BCTHW, bands([12]), canvas, comm, asked)
            return list(infgen.enlarged(*work))

    (pieces,) = run_threads(drawn, 1)
    assert [piece.frame for piece in pieces] == list(range(9))
    for frame, latent_frame in ((0, 0), (1, 1), (4, 1), (5, 2), (8, 2)):
        z_BCHW = x_BCTHW[:, :, latent_frame]
        picture = z_BCHW[:, :3].repeat_interleave(8, dim=2).repeat_interleave(8, dim=3) / 3
        with torch.no_grad():
            known = network.latent(z_BCHW, picture)
            expected = network.draw(known, Window.whole((96, 64)), seed=5, frame=frame)
        assert torch.equal(pieces[frame].pixels_BCTHW[:, :, 0], expected)


def test_what_is_not_finite_is_an_error() -> None:
    network = decoder()
    torch.nn.init.constant_(network.conv_out.bias, torch.inf)

    def drawn(comm: Comm) -> list[Piece]:
        asked = infgen.Enlargement(SIZE, Band(0, 384), 64, 5)
        work = (network, Nearest(), latents(), bands([12]), CANVAS, comm, asked)
        return list(infgen.enlarged(*work, fault=lambda what: FriezeError(f"{what} is not")))

    with pytest.raises(FriezeError, match="the decoded pixels is not"):
        run_threads(drawn, 1)


def facts(folder: Path) -> DecoderFacts:
    config = DecoderConfig.model_validate(json.loads((folder / "config.json").read_text()))
    return DecoderFacts(str(folder), config, 0)


def test_a_folder_is_loaded_and_what_is_not_its_own_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "decoder")
    network = infgen.load(facts(folder), torch.bfloat16, torch.device("cpu"))
    assert not network.training
    assert {weight.dtype for weight in network.parameters()} == {torch.bfloat16}
    config = json.loads((folder / "config.json").read_text())
    for changes, message in (({"depth": 2}, "lacks .* weights"), ({"width": 64}, "cannot be load")):
        (folder / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ModelError, match=message):
            infgen.load(facts(folder), torch.float32, torch.device("cpu"))
