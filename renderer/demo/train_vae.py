"""Train the demo model's autoencoder: 16 latent channels, 8 pixels a latent, a million weights.

Shape legend: B batch, C channels, H, W pixels (x) or latent cells (z).
"""

import copy
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from ..training.loop import TrainingState, cosine, follow, warmed_up
from . import scenes
from .parallel import agree, backward

BATCH_OF_CROPS, CROP, WHOLE = 8, 64, 256
KL_WEIGHT = 1e-4
LEARNING_RATE = 2e-3
OPPONENT = torch.tensor([[0.6, 0.6, 0.6], [1.2, -1.2, 0.0], [0.7, 0.7, -1.4]])


def new_vae() -> AutoencoderKL:
    """Build the untrained autoencoder in FLUX's layout (16 channels, no quantisation convs).

    Few normalisation groups, since each removes its mean, and with it flat colour. It starts as a
    plain pass-through of the picture (residual branches zero, other convolutions unit impulses),
    so that colour is there from the first step.
    """
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=2,
        sample_size=WHOLE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    )
    ends = ("encoder.conv_out", "decoder.conv_in", "decoder.conv_out")
    for name, layer in vae.named_modules():
        if isinstance(layer, torch.nn.Conv2d) and name not in ends:
            if name.endswith("conv2"):
                torch.nn.init.zeros_(layer.weight)
            elif not name.endswith("conv1"):
                with torch.no_grad():
                    layer.weight.mul_(0.1).add_(torch.nn.init.dirac_(layer.weight.clone()))
    return vae


def pictures(seeds: list[int], side: int = WHOLE) -> Tensor:
    """Draw scenes at side x side as (B, 3, H, W) in [-1, 1]."""
    x_BHWC = np.stack([scenes.draw(scenes.scene_from(seed), side, side) for seed in seeds])
    return torch.from_numpy(x_BHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def crops(rng: np.random.Generator, batch: int) -> Tensor:
    """Draw random crops of scenes at 256 and 512 px, so that sharper edges are known too."""
    parts = []
    for seed in rng.integers(1 << 40, size=batch):
        side = int(rng.choice([256, 512], p=[0.75, 0.25]))
        top, left = rng.integers(side - CROP + 1, size=2)
        window = (int(top), int(left), CROP, CROP)
        parts.append(scenes.draw(scenes.scene_from(int(seed)), side, side, window))
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).float() / 127.5 - 1


def likeness(y_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """Distance of pictures: L1 + squared error + L1 of differences between neighbouring pixels.

    Taken in luma and two colour differences, the latter weighted up: they vary less and are what
    makes a sun red.
    """
    off = torch.einsum("dc,bchw->bdhw", OPPONENT, y_BCHW.float() - x_BCHW)
    edges = off.diff(dim=-1).abs().mean() + off.diff(dim=-2).abs().mean()
    return off.abs().mean() + 4 * off.square().mean() + edges


def loss_of(vae: AutoencoderKL, x_BCHW: Tensor, shrink: bool) -> Tensor:
    """Reconstruction + a little KL; with `shrink` half-size latents must decode to half size.

    The latter keeps latents meaningful under resampling (EQ-VAE, arXiv 2502.09509).
    """
    posterior = vae.encode(x_BCHW).latent_dist
    z_BCHW = posterior.sample()
    loss = likeness(vae.decode(z_BCHW).sample, x_BCHW)
    kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float())
    if shrink:
        half = F.avg_pool2d(z_BCHW, 2)
        loss = loss + 0.5 * likeness(vae.decode(half).sample, F.avg_pool2d(x_BCHW, 2))
    return loss + KL_WEIGHT * kl.mean()


@torch.no_grad()
def psnr(vae: AutoencoderKL, x_BCHW: Tensor) -> float:
    """Mean reconstruction PSNR in dB over pictures in [-1, 1]."""
    y_BCHW = vae.decode(vae.encode(x_BCHW).latent_dist.mode()).sample.clamp(-1, 1)
    error_B = ((y_BCHW - x_BCHW) / 2).square().flatten(1).mean(1)
    return float((-10 * error_B.log10()).mean())


def train_vae(rank: int, ranks: int, folder: Path, minutes: float) -> None:
    """Train for a time on the CPU, resuming from folder/vae.pt; the EMA goes to folder/vae."""
    torch.manual_seed(0)
    vae = new_vae()
    ema = copy.deepcopy(vae).requires_grad_(False)
    optimiser = torch.optim.AdamW(vae.parameters(), LEARNING_RATE, betas=(0.9, 0.99))
    state, path = TrainingState(vae, ema, optimiser), folder / "vae.pt"
    step, spent = state.restore(path)
    torch.manual_seed(step * ranks + rank)
    unseen_BCHW, saved_at = pictures(list(range(16))), spent
    with tqdm(desc="vae", initial=step, mininterval=20, disable=rank > 0) as bar:
        while spent < minutes * 60:
            started = time.perf_counter()
            rng = np.random.default_rng((1, step, rank))
            x_BCHW = batch_of(rng, BATCH_OF_CROPS // ranks, step % 12 == 3)
            rate = LEARNING_RATE * cosine(spent / (minutes * 60))
            optimiser.param_groups[0]["lr"] = rate * warmed_up(step, 100)
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(vae, x_BCHW, shrink=step % 8 == 0)
            optimiser.zero_grad(set_to_none=True)
            mean_loss = backward(vae, loss)
            optimiser.step()
            follow(ema, vae, min(0.998, (step + 1) / (step + 20)))
            step, spent = step + 1, agree(spent + time.perf_counter() - started)
            bar.update()
            if rank == 0 and (spent - saved_at > 60 or spent >= minutes * 60):
                saved_at, quality = spent, psnr(ema, unseen_BCHW)
                print(step, f"{spent:.0f}s loss {mean_loss:.4f} psnr {quality:.2f}", flush=True)
                state.save(path, step, spent)
    if rank == 0:
        measure_latents(ema)
        ema.save_pretrained(folder / "vae")


def train_decoder(rank: int, ranks: int, folder: Path, minutes: float) -> None:
    """Sharpen the decoder of folder/vae with the encoder, and so every stored latent, unchanged."""
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    vae.encoder.requires_grad_(False)
    ema = copy.deepcopy(vae).requires_grad_(False)
    optimiser = torch.optim.AdamW(vae.decoder.parameters(), LEARNING_RATE / 2, betas=(0.9, 0.99))
    state, path = TrainingState(vae, ema, optimiser), folder / "decoder.pt"
    step, spent = state.restore(path)
    unseen_BCHW, saved_at = pictures(list(range(16))), spent
    with tqdm(desc="decoder", initial=step, mininterval=20, disable=rank > 0) as bar:
        while spent < minutes * 60:
            started = time.perf_counter()
            rng = np.random.default_rng((3, step, rank))
            x_BCHW = batch_of(rng, BATCH_OF_CROPS // ranks, step % 12 == 3)
            rate = LEARNING_RATE / 2 * cosine(spent / (minutes * 60))
            optimiser.param_groups[0]["lr"] = rate * warmed_up(step, 100)
            with torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    z_BCHW = vae.encode(x_BCHW).latent_dist.mode()
                loss = likeness(vae.decode(z_BCHW).sample, x_BCHW)
            optimiser.zero_grad(set_to_none=True)
            backward(vae, loss)
            optimiser.step()
            follow(ema, vae, min(0.998, (step + 1) / (step + 20)))
            step, spent = step + 1, agree(spent + time.perf_counter() - started)
            bar.update()
            if rank == 0 and (spent - saved_at > 60 or spent >= minutes * 60):
                saved_at = spent
                print(step, f"{spent:.0f}s psnr {psnr(ema, unseen_BCHW):.2f}", flush=True)
                state.save(path, step, spent)
                ema.save_pretrained(folder / "vae")


def batch_of(rng: np.random.Generator, number: int, whole: bool) -> Tensor:
    """Draw a batch of crops, or of fewer whole pictures at about the same cost."""
    if whole:
        return pictures([int(seed) for seed in rng.integers(1 << 40, size=max(1, number // 3))])
    return crops(rng, number)


@torch.no_grad()
def measure_latents(vae: AutoencoderKL) -> None:
    """Set shift and scale so that the latents of the training scenes have mean 0, deviation 1."""
    z_BCHW = torch.cat(
        [
            vae.encode(pictures([s + i for i in range(8)])).latent_dist.mode()
            for s in range(1000, 1064, 8)
        ]
    )
    vae.register_to_config(
        shift_factor=round(float(z_BCHW.mean()), 5),
        scaling_factor=round(1 / float(z_BCHW.std()), 5),
    )
