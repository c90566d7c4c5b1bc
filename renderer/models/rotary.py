"""Rotary positions of a band's image tokens, as angles (RoPE, arXiv 2104.09864).

Families differ in where they count from and in how their networks take angles; which angle a
position means is the method's to say.
Shape suffixes: B batch, C channels, S tokens, T frames, H W token rows and columns, F angles of one
axis, A of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .positions import RotaryAxis

if TYPE_CHECKING:
    from ..checkpoints.facts import ModelFacts
    from .family import BandPlace


def picture_axes(
    facts: ModelFacts, place: BandPlace, dims: Sequence[int], theta: float
) -> tuple[RotaryAxis, RotaryAxis, RotaryAxis]:
    """Frame, row and column axis of a picture; lengths are those of the whole canvas.

    The frame axis is as long as it was trained, so that no method stretches it.
    """
    latent, canvas = facts.latent, place.canvas
    trained = facts.training_size // latent.unit
    frame, row, column = dims[:3]
    return (
        RotaryAxis("frame", frame, theta, 1, 1),
        RotaryAxis("row", row, theta, trained, canvas.height // latent.patch),
        RotaryAxis("column", column, theta, trained, canvas.width // latent.patch),
    )


def band_angles(
    place: BandPlace,
    axes: Sequence[RotaryAxis],
    sigma: float,
    device: torch.device,
    *,
    frame: int = 0,
    centred: bool = False,
) -> Tensor:
    """Angles of the band's or tile's tokens, row by row, float64 [S, A]: frame, row, column.

    Positions count from 0, or `centred` from -(length - length // 2).
    """
    _, row, column = axes
    patch = place.canvas.height // row.length
    top, left = (length - length // 2 if centred else 0 for length in (row.length, column.length))
    positions = (
        torch.full((1,), frame, device=device),
        torch.arange(place.band.start // patch, place.band.stop // patch, device=device) - top,
        torch.arange(place.across.start // patch, place.across.stop // patch, device=device) - left,
    )
    frame_TF, row_HF, column_WF = (
        place.positions(axis, position, sigma)
        for axis, position in zip(axes, positions, strict=True)
    )
    num_rows, num_columns = len(row_HF), len(column_WF)
    return torch.cat(
        [
            frame_TF.expand(num_rows * num_columns, -1),
            row_HF.repeat_interleave(num_columns, dim=0),
            column_WF.repeat(num_rows, 1),
        ],
        dim=1,
    )


def turns(angle_SA: Tensor) -> Tensor:
    """exp(i angle), complex64: what networks that rotate complex numbers multiply by."""
    return torch.polar(torch.ones_like(angle_SA), angle_SA).to(torch.complex64)


class TurnRope(nn.Module):
    """Qwen-Image's rotary tables for given angles: complex turns of image and of text tokens."""

    def forward(self, angles: tuple[Tensor, Tensor], **_: Any) -> tuple[Tensor, Tensor]:
        image_SA, text_LA = angles
        return turns(image_SA), turns(text_LA)


class AngleRope(nn.Module):
    """A rotary table in diffusers' place, for given angles: (cos, sin), each twice, float32."""

    def forward(self, angle_SA: Tensor) -> tuple[Tensor, Tensor]:
        cos_SA, sin_SA = angle_SA.cos().float(), angle_SA.sin().float()
        return cos_SA.repeat_interleave(2, dim=1), sin_SA.repeat_interleave(2, dim=1)


def clip_angles(
    place: BandPlace, axes: Sequence[RotaryAxis], sigma: float, device: torch.device
) -> list[Tensor]:
    """Angles of a clip's frames, and of the band's rows and columns, float64, each [number, F].

    `axes` are frame, row and column; positions count from 0.
    """
    frame, row, _ = axes
    patch = place.canvas.height // row.length
    spans = (
        (0, frame.length),
        (place.band.start // patch, place.band.stop // patch),
        (place.across.start // patch, place.across.stop // patch),
    )
    return [
        place.positions(axis, torch.arange(*span, device=device), sigma)
        for axis, span in zip(axes, spans, strict=True)
    ]


class ClipRope(nn.Module):
    """A rotary table in diffusers' place, for video: (cos, sin), each [1, S, 1, A], float32.

    `angles` gives those of the thread's frames, rows and columns, for the device of the latents.
    """

    def __init__(self, angles: Callable[[torch.device], Sequence[Tensor]]) -> None:
        super().__init__()
        self.angles = angles

    def forward(self, x_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        axes = self.angles(x_BCTHW.device)
        return _spread([axis.cos() for axis in axes]), _spread([axis.sin() for axis in axes])


def _spread(tables: Sequence[Tensor]) -> Tensor:
    """Each axis' table [number, F], every value twice, over all tokens: [1, S, 1, A]."""
    frames, rows, columns = (table.float().repeat_interleave(2, dim=1) for table in tables)
    grid = (len(frames), len(rows), len(columns), -1)
    spread = [frames[:, None, None].expand(grid), rows[:, None].expand(grid), columns.expand(grid)]
    return torch.cat(spread, dim=-1).flatten(0, 2)[None, :, None]
