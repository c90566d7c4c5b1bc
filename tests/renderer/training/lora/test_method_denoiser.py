"""The loss that a LoRA is trained by is that of diffusers' own network, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpoints import build
from checkpoints.stock import load
from frieze.renderer.checkpoints.checkpoint import describe, load_family
from frieze.renderer.planning.plan import plan
from frieze.renderer.sampling.noise_levels import NoiseLevel
from frieze.renderer.spec.render_spec import parse
from frieze.renderer.training.lora.method_denoiser import MethodDenoiser
from frieze.renderer.worker.prompt_encoding import encoded
from tolerances import CONTROL

TEXT, TIME, GUIDANCE = "a red sun", 0.7, 3.5


def test_the_loss_is_that_of_the_stock_transformer(tmp_path: Path) -> None:
    folder = build("flux", tmp_path / "model")
    asked = {"model": str(folder), "height": 64, "width": 96, "method": "none"}
    drawn = plan(parse(asked))
    facts = describe(str(folder))
    denoiser = MethodDenoiser(
        drawn, load_family("flux").load(facts, drawn.spec, torch.device("cpu"))
    )
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(denoiser.shape, generator=generator) for _ in range(2))
    tensors = encoded(facts, drawn.spec, (TEXT,), 1)[TEXT].halves[0]
    level = NoiseLevel(TIME * 1000, 1 - TIME, TIME)
    found = denoiser.learn(x0, noise, level, tensors, weight=1.0, embedded=GUIDANCE)

    pipeline = load(folder, {})
    embeds, pooled, text_ids = pipeline.encode_prompt(TEXT, None)
    batch, channels, _, height, width = denoiser.shape
    x = ((1 - TIME) * x0 + TIME * noise).squeeze(2)
    with torch.no_grad():
        velocity = pipeline.transformer(
            hidden_states=pipeline._pack_latents(x, batch, channels, height, width),
            timestep=torch.tensor([TIME]),
            guidance=torch.tensor([GUIDANCE]),
            pooled_projections=pooled,
            encoder_hidden_states=embeds,
            txt_ids=text_ids,
            img_ids=pipeline._prepare_latent_image_ids(
                batch, height // 2, width // 2, torch.device("cpu"), torch.float32
            ),
            return_dict=False,
        )[0]
    target = pipeline._pack_latents((noise - x0).squeeze(2), batch, channels, height, width)
    true = float((velocity - target).square().mean())
    assert found == pytest.approx(true, rel=1e-4)
    other = denoiser.learn(x0, noise, level, tensors, weight=1.0, embedded=1.0)  # the control
    assert abs(other - true) > CONTROL * true
