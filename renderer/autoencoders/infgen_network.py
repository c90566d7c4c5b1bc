"""InfGen's decoder (arXiv 2509.10441): a picture of any size from one latent.

The picture is the exact decode at the latent's own size, enlarged by bicubic interpolation, plus
a residual that the network makes; at its initialisation the residual is zero. The paper's mask
tokens, positions and cross-attention are its coarsest level; width, depth and the rest are ours,
for the paper does not tell them. Residuals are drawn as rectified flow from noise, in one step or
a few, the network's output being the clean residual.
Shape suffixes: B batch, C channels, H rows, W columns (h, w: of a window).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from frieze.kernels import bicubic
from frieze.kernels.coordinate_noise import noise

from .infgen_layers import (
    Block,
    Cells,
    ChannelNorm,
    CrossAttention,
    PooledBlock,
    ResidualConvolutions,
    TrunkBlock,
)
from .infgen_positions import INPE, OCTAVES, Window, in_cells, neighbours, waves

PATCH = 8  # pixels a token
BOX = 9  # pixels over which the contrast of an input is normalised
AROUND = 7  # pixels of the exact decode over which its contrast is measured
FLAT = 0.03  # contrasts below it are not raised to 1
MODES = ("window", "global")
_TIME_WAVES = 8


@dataclass(frozen=True)
class Latent:
    """What is known of a picture before its size: cells for attention, and its exact decode.

    `contrast_B1HW` is how much the decode differs around each of its pixels. Both may be rows from
    `first` on, of `height` in all.
    """

    cells: Cells
    picture_B3HW: Tensor
    contrast_B1HW: Tensor
    first: int = 0
    height: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the whole picture."""
        return self.height or self.picture_B3HW.shape[-2], self.picture_B3HW.shape[-1]

    def enlarged(self, x_BCHW: Tensor, window: Window) -> Tensor:
        """Of one of them, a window of pixels."""
        place, held = (window.size, window.rows, window.columns), (self.first, self.size[0])
        first, height = held
        return bicubic.enlarge(x_BCHW, *place, first=first, height=height, wraps=window.wraps)


class InfGenDecoder(ModelMixin, ConfigMixin):
    """The network. `mode` is `window` or `global`, the cells that a place of the canvas asks.

    `window` and `pooled` are the sides of what `window` asks; `depth` 0 leaves a plain U-Net.
    `palette` colours a token are laid on its pixels, each as far as a mask says, beside what a
    pixel has of its own; 0 leaves that away.
    `gain` over the decode's contrast and `least_contrast` makes residuals of faint edges as large
    as those of strong ones, and about as large as noise. `scaling_factor` and `shift_factor` are
    of the latents it was trained on, `largest_scale` the largest enlargement, beyond which it is
    used again on what it made, and `num_steps` those that it is drawn with.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        width: int = 128,
        depth: int = 4,
        trunk_depth: int = 2,
        heads: int = 4,
        mode: str = "window",
        window: int = 5,
        pooled: int = 4,
        kernel: int = 5,
        palette: int = 4,
        pixel_widths: tuple[int, int] = (32, 64),
        noise_channels: int = 8,
        directions: int = 128,
        direction_scale: float = 10.0,
        contrast: bool = True,
        gain: float = 1.5,
        least_contrast: float = 0.05,
        num_steps: int = 4,
        largest_scale: float = 8.0,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} of an InfGen decoder; {' and '.join(MODES)} work")
        if kernel % 2 == 0:
            raise ValueError(f"kernel {kernel} of an InfGen decoder has no middle; odd ones work")
        self._add_trunk(latent_channels, width, trunk_depth, kernel, directions, direction_scale)
        self.pooled_trunk = nn.ModuleList(
            PooledBlock(width, heads) for _ in range(trunk_depth if mode == "window" else 0)
        )
        self._add_tokens(width, noise_channels)
        self.blocks = nn.ModuleList(
            Block(width, width, CrossAttention(width, heads, mode, window), kernel)
            for _ in range(depth)
        )
        self._add_pixels(width, *pixel_widths, 9 if contrast else 6, palette)

    def _add_trunk(
        self, channels: int, width: int, depth: int, kernel: int, directions: int, scale: float
    ) -> None:
        self.latent_in = nn.Conv2d(channels, width, 1)
        self.position = INPE(width, directions, scale)
        self.trunk = nn.ModuleList(TrunkBlock(width, kernel) for _ in range(depth))

    def _add_tokens(self, width: int, noise_channels: int) -> None:
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.offset = nn.Linear(4 * OCTAVES, width)
        self.noise_in = nn.Conv2d(noise_channels, width, 1)
        self.time_embedding = nn.Sequential(
            nn.Linear(2 * _TIME_WAVES + 2, width), nn.SiLU(), nn.Linear(width, width)
        )

    def _add_pixels(self, width: int, half: int, quarter: int, inputs: int, palette: int) -> None:
        """Both sides of the U-Net, named by the size of their maps; the last layer is zero."""
        self.half_in = nn.Conv2d(4 * inputs, half, 3, padding=1)
        self.half_down = ResidualConvolutions(half, width)
        self.quarter_in = nn.Conv2d(4 * half, quarter, 1)
        self.quarter_down = ResidualConvolutions(quarter, width)
        self.token_in = nn.Conv2d(4 * quarter, width, 1)
        self.token_out = nn.Conv2d(width, 4 * quarter, 1)
        self.quarter_up = ResidualConvolutions(quarter, width)
        self.quarter_out = nn.Conv2d(quarter, 4 * half, 1)
        self.half_up = ResidualConvolutions(half, width)
        self.norm_out = ChannelNorm(half)
        if palette:
            self.palette_out = nn.Conv2d(width, 3 * palette, 1)
        self.conv_out = nn.Conv2d(half, 4 * (3 + palette), 3, padding=1)
        for weight in self.conv_out.parameters():
            nn.init.zeros_(weight)

    @property
    def reach(self) -> int:
        """Tokens around a place that its residual depends on, at one noise level."""
        contrast = 2 * (BOX // 2) if self.config.contrast else 0
        ends = 2 * (1 + ResidualConvolutions.reach) * 2  # pixels, at half size, down and up
        quarters = 2 * ResidualConvolutions.reach * 4
        pixels = contrast + ends + quarters
        return -(-pixels // PATCH) + self.config.depth * (self.config.kernel // 2)

    def latent(self, z_BCHW: Tensor, picture_B3HW: Tensor, near: Window | None = None) -> Latent:
        """Take up latents, as the denoiser scales them, and their exact decode in [-1, 1].

        What tokens outside `near` would ask of them is left out.
        """
        z_BCHW = z_BCHW.to(self.dtype)
        wraps = near.wraps if near else ""
        whole = Window.whole((z_BCHW.shape[-2], z_BCHW.shape[-1]), wraps)
        pooled_BCHW = self.latent_in(F.adaptive_avg_pool2d(z_BCHW, self.config.pooled))
        pooled_CHW = self.position(Window.whole((self.config.pooled,) * 2)).permute(2, 0, 1)
        for block in self.pooled_trunk:
            pooled_BCHW = block(pooled_BCHW, pooled_CHW)
        own = whole if near is None else self._cells(whole, near)
        some = own.grown(len(self.trunk) * (self.config.kernel // 2))
        x_BCHW = _as_convolved(self.latent_in(some.taken(z_BCHW)))
        for trunk in self.trunk:
            x_BCHW = trunk(x_BCHW)
        x_BCHW = own.of(some, x_BCHW)
        position_CHW = self.position(own).permute(2, 0, 1)
        means = (each.flatten(2) for each in (pooled_BCHW, pooled_BCHW + pooled_CHW))
        cells = Cells(own, x_BCHW, x_BCHW + position_CHW, *means)
        return Latent(cells, picture_B3HW, _deviation(picture_B3HW, wraps))

    def _cells(self, whole: Window, near: Window) -> Window:
        """Those that tokens of a window ask; all, if each of them does."""
        if self.config.mode == "global":
            return whole
        asked = [
            neighbours(at, cells, self.config.window, wraps=side in near.wraps)[0]
            for side, at, cells in zip("yx", _in_cells(near, whole.size), whole.size, strict=True)
        ]
        rows, columns = (range(int(n.min()), int(n.max()) + 1) for n in asked)
        return Window(whole.size, rows, columns, near.wraps)

    def forward(
        self, latent: Latent, tokens: Window, noisy_B3hw: Tensor, time_B: Tensor, seed: int = 0
    ) -> Tensor:
        """The clean residual at a noise level, [B, 3, h, w] over the tokens' pixels.

        Its outer `reach` tokens that are not the canvas' own border are not the whole's.
        """
        embedding_BC = self._embedding(latent, tokens, time_B)
        half_BCHW = self.half_in(F.pixel_unshuffle(self._inputs(latent, tokens, noisy_B3hw), 2))
        half_BCHW = self.half_down(half_BCHW, embedding_BC)
        quarter_BCHW = self.quarter_in(F.pixel_unshuffle(half_BCHW, 2))
        quarter_BCHW = self.quarter_down(quarter_BCHW, embedding_BC)
        x_BCHW = self.token_in(F.pixel_unshuffle(quarter_BCHW, 2))
        x_BCHW = x_BCHW + self._tokens(latent, tokens, seed)
        for block in self.blocks:
            x_BCHW = block(x_BCHW, latent.cells, tokens, embedding_BC)
        quarter_BCHW = quarter_BCHW + F.pixel_shuffle(self.token_out(x_BCHW), 2)
        quarter_BCHW = self.quarter_up(quarter_BCHW, embedding_BC)
        half_BCHW = half_BCHW + F.pixel_shuffle(self.quarter_out(quarter_BCHW), 2)
        half_BCHW = self.half_up(half_BCHW, embedding_BC)
        out = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(half_BCHW))), 2)
        return self._mixed(out, x_BCHW).to(noisy_B3hw.dtype)

    def _mixed(self, out_BChw: Tensor, x_BCHW: Tensor) -> Tensor:
        """Each pixel's own residual, and its tokens' colours by its masks: [B, 3, h, w]."""
        own_B3hw, masks_BNhw = out_BChw[:, :3], out_BChw[:, 3:]
        if not self.config.palette:
            return own_B3hw
        colours = F.interpolate(self.palette_out(x_BCHW), scale_factor=PATCH, mode="bilinear")
        colours_BN3hw = colours.unflatten(1, (-1, 3))
        return own_B3hw + (masks_BNhw[:, :, None] * colours_BN3hw).sum(dim=1)

    def enlarged(self, latent: Latent, window: Window) -> Tensor:
        """The exact decode at the size of a window of pixels: where the residual starts from."""
        return latent.enlarged(latent.picture_B3HW, window)

    def asked(self, window: Window, steps: int | None = None) -> Window:
        """The tokens that a window of pixels needs so many steps before the end."""
        steps = self.config.num_steps if steps is None else steps
        return window.covered(PATCH).grown(self.reach * steps)

    @torch.no_grad()
    def draw(
        self,
        latent: Latent,
        window: Window,
        *,
        seed: int,
        frame: int = 0,
        num_steps: int | None = None,
    ) -> Tensor:
        """Pixels [B, 3, h, w] of a window of the canvas, in about [-1, 1].

        Whatever the window, they are the whole's: more is drawn around it, as far as each of the
        steps reaches. Raises ValueError for a canvas whose sides are no multiples of `PATCH`.
        """
        check_size(window.size)
        steps = num_steps or self.config.num_steps
        levels = [1 - step / steps for step in range(steps + 1)]
        spans = [self.asked(window, left) for left in range(steps, -1, -1)]
        batch, like = len(latent.picture_B3HW), latent.picture_B3HW
        own = seed + (frame << 32)
        r = _noise(spans[0].times(PATCH), 3, own, 0, like).expand(batch, -1, -1, -1)
        for (level, after), (span, inner) in zip(
            itertools.pairwise(levels), itertools.pairwise(spans), strict=True
        ):
            time_B = torch.full((batch,), level, dtype=torch.float64, device=r.device)
            clean = self(latent, span, r, time_B, own)
            place = inner.times(PATCH)
            clean, r = (place.of(span.times(PATCH), each) for each in (clean, r))
            r = clean + after / level * (r - clean)
        residual = window.of(spans[-1].times(PATCH), r)
        return self.enlarged(latent, window) + residual / self.gains(latent, window)

    def gains(self, latent: Latent, window: Window) -> Tensor:
        """What residuals are multiplied by over a window of pixels, [B, 1, h, w]."""
        contrast_B1hw = latent.enlarged(latent.contrast_B1HW, window)
        # Bicubic interpolation swings below what it goes through.
        gains: Tensor = self.config.gain / (contrast_B1hw.clamp(min=0) + self.config.least_contrast)
        return gains

    def _inputs(self, latent: Latent, tokens: Window, noisy_B3hw: Tensor) -> Tensor:
        """What is known of the pixels: the noisy residual, the enlarged decode, its contrast."""
        low_B3hw = self.enlarged(latent, tokens.times(PATCH))
        parts = [noisy_B3hw, low_B3hw]
        if self.config.contrast:
            parts.append(contrast(low_B3hw))
        return _as_convolved(torch.cat([part.to(self.dtype) for part in parts], dim=1))

    def _tokens(self, latent: Latent, tokens: Window, seed: int) -> Tensor:
        """Mask tokens [1, C, H, W]: one vector, where they are, and noise of their own."""
        position_HWC = self.position(tokens)
        far_HN, far_WN = (
            waves(at - at.round()).to(position_HWC)
            for at in _in_cells(tokens, latent.cells.window.size)
        )
        rows, columns = tokens.shape
        pairs = [far_HN[:, None].expand(-1, columns, -1), far_WN.expand(rows, -1, -1)]
        token_HWC = self.mask_token + position_HWC + self.offset(torch.cat(pairs, dim=-1))
        noise_1CHW = _noise(tokens, self.config.noise_channels, seed, 1, position_HWC)
        return token_HWC.permute(2, 0, 1) + self.noise_in(noise_1CHW)

    def _embedding(self, latent: Latent, tokens: Window, time_B: Tensor) -> Tensor:
        """Noise level and log2 of the enlargement, embedded: [B, C]."""
        octave = math.pi / 2 * 2.0 ** torch.arange(_TIME_WAVES, device=time_B.device)
        angles_BN = time_B[:, None] * octave
        scale_2 = torch.tensor(
            [
                math.log2(side * PATCH / low)
                for side, low in zip(tokens.size, latent.size, strict=True)
            ],
            device=time_B.device,
        )
        parts = [angles_BN.sin(), angles_BN.cos(), scale_2.expand(len(time_B), 2)]
        embedding_BC: Tensor = self.time_embedding(torch.cat(parts, dim=1).to(self.dtype))
        return embedding_BC


def _in_cells(window: Window, size: tuple[int, int]) -> list[Tensor]:
    """Where a window's rows and columns lie between so many cells."""
    parts = zip((window.rows, window.columns), window.size, size, strict=True)
    return [in_cells(part, most, cells) for part, most, cells in parts]


def check_size(size: tuple[int, int]) -> None:
    """Raises ValueError that names the nearest sides that work."""
    for name, side in zip(("height", "width"), size, strict=True):
        if side % PATCH or side < PATCH:
            near = max(1, round(side / PATCH)) * PATCH
            raise ValueError(
                f"{name} {side} is no multiple of {PATCH}, which an InfGen decoder needs; "
                f"the nearest that works is {near}"
            )


def contrast(low_B3hw: Tensor) -> Tensor:
    """The picture less its means over boxes, by how much such differences are around."""
    apart = low_B3hw - _means(low_B3hw, BOX)
    return apart / (_means(apart.square(), BOX).sqrt() + FLAT)


def _deviation(picture_B3HW: Tensor, wraps: str = "") -> Tensor:
    """Standard deviations over boxes, of the channels together: [B, 1, H, W]."""
    if wraps:
        own = Window.whole((picture_B3HW.shape[-2], picture_B3HW.shape[-1]), wraps)
        wide = own.grown(AROUND - 1)
        return own.of(wide, _deviation(wide.taken(picture_B3HW)))
    apart_B3HW = picture_B3HW - _means(picture_B3HW, AROUND)
    return _means(apart_B3HW.square().mean(dim=1, keepdim=True), AROUND).sqrt()


def _means(x_BCHW: Tensor, box: int) -> Tensor:
    """Over the box around each pixel, as much of it as there is."""
    return F.avg_pool2d(x_BCHW, box, 1, box // 2, count_include_pad=False)


def _as_convolved(x_BCHW: Tensor) -> Tensor:
    """The same numbers, the channels of a place side by side: convolutions run twice as fast."""
    return x_BCHW.contiguous(memory_format=torch.channels_last)


def _noise(window: Window, channels: int, seed: int, stream: int, like: Tensor) -> Tensor:
    """Seeded noise [1, C, H, W] of a window, by its places on the canvas."""
    made_CHW = noise(
        seed,
        channels,
        window.rows,
        window.columns,
        stream=stream,
        around=window.size,
        device=like.device,
        dtype=like.dtype,
    )
    return made_CHW[None]
