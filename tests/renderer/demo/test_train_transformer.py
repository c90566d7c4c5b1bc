"""The demo's transformer in training: times, dropped texts, norms of queries and keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxAttention

from frieze.renderer.demo.models import new_text, new_transformer
from frieze.renderer.demo.train_transformer import SIDE, TEXT_TOKENS, Model, Plan, _loss

PROMPTS = ["a red sun over blue mountains at dusk", "a white moon over green mountains at night"]


def moved(model: Model) -> Model:
    """Its gates and last layer open, so that the text reaches the output."""
    torch.manual_seed(0)
    for weight in model.transformer.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    return model.requires_grad_(False)


def test_queries_and_keys_are_normalised_in_every_attention() -> None:
    layers = [layer for layer in new_transformer().modules() if isinstance(layer, FluxAttention)]
    assert len(layers) == 5
    for layer in layers:
        norms = [layer.norm_q, layer.norm_k]
        norms += [layer.norm_added_q, layer.norm_added_k] if layer.added_kv_proj_dim else []
        assert all(isinstance(norm, torch.nn.RMSNorm) for norm in norms)


def test_a_dropped_text_is_not_seen() -> None:
    model = moved(Model(new_transformer(), new_text()))
    x_BLC = torch.randn(2, SIDE * SIDE, 64, generator=torch.Generator().manual_seed(1))
    x_BLC[1] = x_BLC[0]
    t_B = torch.full((2,), 0.5)
    u_EB = torch.tensor([[0.1, 0.1], [0.1, 0.1]])
    with_texts = model(x_BLC, t_B, PROMPTS, TEXT_TOKENS, (0.0, u_EB))
    without = model(x_BLC, t_B, PROMPTS, TEXT_TOKENS, (0.464, u_EB))
    assert torch.equal(with_texts, model(x_BLC, t_B, PROMPTS, TEXT_TOKENS))
    torch.testing.assert_close(without[0], without[1])
    assert not torch.allclose(with_texts[0], with_texts[1], atol=1e-4)  # the control


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # of autocast
@torch.enable_grad()
def test_a_step_has_gradients_for_all_but_what_was_dropped() -> None:
    model = Model(new_transformer(), new_text())
    bank_NLC = torch.randn(4, SIDE * SIDE, 64)
    for share, learns in ((0.0, True), (1.0, False)):
        torch.manual_seed(0)
        moved(model).requires_grad_(True).zero_grad()
        plan = Plan(minutes=1, text_dropout=share)
        _loss(model, bank_NLC, np.random.default_rng(0), plan, batch=1, step=0).backward()
        assert all(bool(w.grad.any()) for w in model.transformer.proj_out.parameters())
        grads = [w.grad for half in (model.clip, model.t5) for w in half.parameters()]
        assert any(grad is not None and bool(grad.any()) for grad in grads) is learns
