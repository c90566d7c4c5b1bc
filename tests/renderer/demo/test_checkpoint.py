"""The shipped checkpoint loads in stock diffusers and draws what the prompt says."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from frieze.renderer.demo import oracle, train
from frieze.renderer.demo.train_vae import pictures, psnr

PROMPTS = [
    "a red sun over blue mountains at dusk",
    "a yellow sun over green mountains at day",
    "a white moon over purple mountains at night",
    "a pink sun over brown mountains at dawn",
]
PSNR_DB = 30.0


@pytest.fixture(scope="module")
def pipeline() -> FluxPipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = FluxPipeline.from_pretrained(train.CHECKPOINT, torch_dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_pictures_show_what_the_prompt_says(pipeline: FluxPipeline):
    drawn = train.draw(pipeline, PROMPTS, steps=12, seed=1, text_tokens=train.TEXT_TOKENS)
    right = [
        oracle.agrees(oracle.judge(picture), prompt)
        for picture, prompt in zip(drawn, PROMPTS, strict=True)
    ]
    assert sum(right) >= 3
    swapped = [
        oracle.agrees(oracle.judge(picture), prompt)
        for picture, prompt in zip(drawn, PROMPTS[::-1], strict=True)
    ]
    assert sum(swapped) == 0


@torch.no_grad()
def test_the_autoencoder_reconstructs_unseen_scenes(pipeline: FluxPipeline):
    x_BCHW = pictures([700_000 + seed for seed in range(4)])
    assert psnr(pipeline.vae, x_BCHW) >= PSNR_DB
    z_BCHW = pipeline.vae.encode(x_BCHW).latent_dist.mode()
    shuffled = z_BCHW.flatten(2)[..., torch.randperm(z_BCHW[0, 0].numel())].view_as(z_BCHW)
    error = (pipeline.vae.decode(shuffled).sample.clamp(-1, 1) - x_BCHW) / 2
    assert float(-10 * error.square().mean().log10()) < PSNR_DB - 10


def test_the_folder_is_small_safe_and_says_its_training_size():
    files = [path for path in train.CHECKPOINT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20 * 2**20
    pickles = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
    assert not [path for path in files if path.suffix in pickles]
    hints = json.loads(Path(train.CHECKPOINT, "frieze.json").read_text())
    assert hints == {"training_size": 256, "square": True, "max_sequence_length": 32}
