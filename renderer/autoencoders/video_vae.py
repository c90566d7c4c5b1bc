"""Causal video autoencoders (Wan, Qwen-Image), one latent frame at a time.

Their convolutions look back in time only, and diffusers keeps the frames they look back on in
attributes of the module. Here each call has caches of its own, so that one module serves many rank
threads, and the caches are all that outlives a frame: memory does not grow with the clip.

Shape suffixes: B batch, C channels, T frames, H rows of a band, W columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class CausalVAE:
    """A loaded AutoencoderKLWan or AutoencoderKLQwenImage, in whatever precision it has.

    Latents go in and come out as the denoiser knows them: (z - latents_mean) / latents_std. The
    first latent frame is one frame of pixels, every later one `temporal` of them.
    """

    tail = None

    def __init__(self, vae: Any) -> None:
        from frieze.cluster.bands import mark

        self.vae = vae
        self.temporal = 2 ** sum(vae.config.temperal_downsample)
        self.patch = vae.config.get("patch_size") or 1
        self.decoder_marks = (mark(vae.decoder, _is_attention),)
        self.encoder_marks = (mark(vae.encoder, _is_attention),)

    def frames(self, x_BCTHW: Tensor) -> Sequence[Callable[[], Tensor]]:
        """What gives the pixels [B, 3, 1 or `temporal`, H, W] of each latent frame.

        They lie in about [-1, 1], and are not clamped, which would hide an infinity. To be called
        in order, each once; each makes every attention of `decoder_marks`.
        """
        decoded = self._decoded(x_BCTHW)
        return [lambda: next(decoded)] * x_BCTHW.shape[2]

    def _decoded(self, x_BCTHW: Tensor) -> Iterator[Tensor]:
        caches = _Caches(self.vae.decoder)
        for index in range(x_BCTHW.shape[2]):
            yield self._frame(x_BCTHW[:, :, index : index + 1], caches, index == 0)

    def _frame(self, x_BCTHW: Tensor, caches: _Caches, is_first: bool) -> Tensor:
        # Wan 2.2's residual decoder alone asks which frame is the first.
        first = {"first_chunk": is_first} if self.vae.config.get("is_residual") else {}
        z_BCTHW = self.vae.post_quant_conv(self._raw(x_BCTHW))
        pixels_BCTHW = self.vae.decoder(z_BCTHW, **caches.arguments(), **first)
        return unpatchify(pixels_BCTHW, self.patch)

    def encoded(self, pixels_BCTHW: Tensor) -> Tensor:
        """The posterior's mode [B, C, T, H, W], in the pixels' precision."""
        starts = [0, *range(1, pixels_BCTHW.shape[2], self.temporal)]
        edges = itertools.pairwise([*starts, pixels_BCTHW.shape[2]])
        return self.encoded_groups(pixels_BCTHW[:, :, start:stop] for start, stop in edges)

    def encoded_groups(self, groups: Iterable[Tensor]) -> Tensor:
        """The same for pixels that come as groups of 1, `temporal`, `temporal`, ... frames."""
        import torch

        caches = _Caches(self.vae.encoder)
        modes = []
        for pixels_BCTHW in groups:
            patches_BCTHW = patchify(pixels_BCTHW.to(self.vae.dtype), self.patch)
            features_BCTHW = self.vae.encoder(patches_BCTHW, **caches.arguments())
            mean_BCTHW, _ = self.vae.quant_conv(features_BCTHW).chunk(2, dim=1)
            modes.append(mean_BCTHW.to(pixels_BCTHW.dtype))
        mode_BCTHW = torch.cat(modes, dim=2)
        mean, inverse_std = self._statistics(mode_BCTHW)
        return (mode_BCTHW - mean) * inverse_std

    def _raw(self, x_BCTHW: Tensor) -> Tensor:
        x_BCTHW = x_BCTHW.to(self.vae.dtype)
        mean, inverse_std = self._statistics(x_BCTHW)
        return x_BCTHW / inverse_std + mean

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation of each channel, [1, C, 1, 1, 1]."""
        import torch

        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(like)
            for values in (self.vae.config.latents_mean, self.vae.config.latents_std)
        )
        return mean, 1.0 / std


class _Caches:
    """What each causal convolution of one half has seen of the frames before."""

    def __init__(self, half: nn.Module) -> None:
        from torch import nn

        self.features = [None] * sum(isinstance(layer, nn.Conv3d) for layer in half.modules())

    def arguments(self) -> dict[str, Any]:
        """For one forward pass, which counts its convolutions from 0 in `feat_idx`."""
        return {"feat_cache": self.features, "feat_idx": [0]}


def _is_attention(name: str, layer: nn.Module) -> bool:
    """Attention within a frame, over rows and columns: the only layers that fuse their qkv."""
    return hasattr(layer, "to_qkv")


def patchify(pixels_BCTHW: Tensor, patch: int) -> Tensor:
    """Squares of `patch` pixels as channels, columns before rows: Wan 2.2's order."""
    if patch == 1:
        return pixels_BCTHW
    x = pixels_BCTHW.unflatten(4, (-1, patch)).unflatten(3, (-1, patch))
    return x.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def unpatchify(x_BCTHW: Tensor, patch: int) -> Tensor:
    """The inverse of `patchify`."""
    if patch == 1:
        return x_BCTHW
    x = x_BCTHW.unflatten(1, (-1, patch, patch))
    return x.permute(0, 1, 4, 5, 3, 6, 2).flatten(5, 6).flatten(3, 4)
