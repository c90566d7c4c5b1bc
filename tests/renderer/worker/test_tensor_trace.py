"""A digest is of a tensor's bits, wherever they lie; one bit changed is another digest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from frieze.cluster.layout import Band
from frieze.renderer.models.family import Conditioning
from frieze.renderer.worker.tensor_trace import DIGITS, TensorTrace, digest

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def nudged(x: Tensor) -> Tensor:
    """The last element moved by one unit in the last place."""
    moved = x.clone()
    moved[..., -1] = torch.nextafter(moved[..., -1], torch.tensor(9.0))
    return moved


def test_a_digest_is_the_same_however_a_tensor_is_laid_out() -> None:
    wide = torch.zeros(2, 3, 8)
    wide[..., ::2] = X
    for same in (X.clone(), X.transpose(0, 2).contiguous().transpose(0, 2), wide[..., ::2]):
        assert digest(same) == digest(X)
    assert len(digest(X)) == DIGITS


@pytest.mark.parametrize(
    "other",
    [nudged(X), X.double(), X.reshape(3, 2, 4), -X, X.to(torch.bfloat16), torch.zeros(0)],
    ids=["bit", "type", "shape", "sign", "bfloat16", "empty"],
)
def test_control_other_bits_types_and_shapes_have_other_digests(other: Tensor) -> None:
    assert digest(other) != digest(X)


def test_tensors_are_kept_by_name_until_they_are_asked_for() -> None:
    trace = TensorTrace(is_on=True)
    trace.take("latents", X, Band(0, 4))
    trace.take("latents", 2 * X)
    trace.take("ids", torch.arange(3))
    found = trace.taken()
    assert list(found) == ["latents", "latents #2", "ids"]
    assert found["latents"][:2] == [digest(X), [0, 4]]
    assert found["latents #2"][2] == pytest.approx(2 * found["latents"][2])
    assert found["ids"][2] is None
    assert trace.taken() == {}


def test_prompts_and_weights_are_named_by_what_they_are_and_nothing_of_them_is_told() -> None:
    trace, model = TensorTrace(is_on=True), nn.Module()
    model.network = nn.Linear(2, 2)
    halves = ({"embeds": X}, {"embeds": -X})
    trace.take_conditioning(Conditioning(halves), {"mask": X})
    trace.take_weights(type("Model", (), {"__init__": lambda m: setattr(m, "net", model)})())
    assert list(trace.taken()) == [
        "embeds of the prompt",
        "embeds of the negative prompt",
        "mask of the first frame",
        "weights of net",
    ]


def test_nothing_is_taken_unless_it_is_asked_for() -> None:
    trace = TensorTrace()
    trace.take("latents", X)
    trace.take_weights(nn.Linear(2, 2))
    trace.take_conditioning(Conditioning(({"embeds": X},)), {})
    assert trace.taken() == {}
