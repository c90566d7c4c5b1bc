"""The hooks that a method's convolutions and skips need on a network that many renders share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frieze.cluster.bands import hook_convolutions

from .skip_filter import hook_skips, skip_sites

if TYPE_CHECKING:
    from .method import Method


def hook_method(model: Any, method: Method) -> None:
    """Hook what `conv_shape` and `free_u` will change of a model's U-Net, each layer once.

    Outside these the hooks do nothing. AttributeError names a layer that the network lacks.
    """
    if (convolutions := method.convolutions) is not None:
        hook_convolutions(model.unet, convolutions.layers, convolutions.pools)
    if method.skips is not None:
        hook_skips(model.unet, skip_sites(model.unet))
