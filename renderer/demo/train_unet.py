"""Train the demo's UNet: Stable Diffusion's layout, scenes at 128 pixels, one sun in each.

Autoencoder and CLIP are those of the demo's checkpoint, frozen; v-prediction (Salimans & Ho, arXiv
2202.00512) on SDXL's betas, in float32: bfloat16 takes ten times as long on a CPU
without the instructions. Convolutions know no place, and so a canvas larger than trained gets a sun
for every trained picture that fits: what HiDiffusion and CineScale are for.
Shape legend: B batch, C H W latent channels, rows, columns, T E text tokens, features, N bank.
"""

import copy
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from ..training.loop import TrainingState, append_row, cosine, follow, warmed_up
from ..training.timesteps import LogitNormal
from . import oracle, scenes
from .models import new_schedule, new_unet
from .parallel import agree, backward
from .train_transformer import COLUMNS, bank_seed
from .train_vae import pictures

SIDE = 128
CELLS = SIDE // 8
BANK = 2400
EMA_KEEP = 0.998
DROPPED = 0.1
GUIDANCE, STEPS = 3.0, 15
# Of t/1000: more at high noise, where the layout is decided.
TIMESTEPS = LogitNormal(mean=0.4)


@dataclass(frozen=True)
class UNetPlan:
    """How long and how fast to train; `minutes` of one rank's CPU time over all resumptions."""

    parts: Path
    minutes: float
    batch: int = 32
    rate: float = 2e-3
    judge_every: int = 200


class Text:
    """All sentences of the grammar and the empty one, each encoded once as the pipeline would."""

    @torch.no_grad()
    def __init__(self, parts: Path) -> None:
        tokenizer = CLIPTokenizer.from_pretrained(parts / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(parts / "text_encoder", dtype=torch.float32)
        named = itertools.product(scenes.SUNS, scenes.MOUNTAINS, scenes.SKIES)
        prompts = ["", *(scenes.prompt_of(scenes.Scene(*names)) for names in named)]
        ids = tokenizer(
            prompts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        self._rows = {prompt: row for row, prompt in enumerate(prompts)}
        self._embeds_PTE = encoder(ids)[0]

    def __call__(self, prompts: list[str]) -> Tensor:
        """Embeddings (B, T, E)."""
        return self._embeds_PTE[[self._rows[prompt] for prompt in prompts]]


def load_vae(parts: Path) -> AutoencoderKL:
    """The demo's autoencoder without its shift, which Stable Diffusion's pipeline leaves out."""
    vae = AutoencoderKL.from_pretrained(parts / "vae", torch_dtype=torch.float32).eval()
    vae.register_to_config(shift_factor=None, sample_size=SIDE, _name_or_path="")
    return vae.requires_grad_(False)


@torch.no_grad()
def _bank(parts: Path, path: Path, rank: int, ranks: int) -> Tensor:
    """Latents (N, C, H, W) of this rank's share of the scenes, in half; kept in a file."""
    if not path.exists():
        vae, encoded = load_vae(parts), []
        seeds = [bank_seed(index) for index in range(rank, BANK, ranks)]
        for first in tqdm(range(0, len(seeds), 16), desc="bank", disable=rank > 0):
            posterior = vae.encode(pictures(seeds[first : first + 16], SIDE)).latent_dist
            encoded.append((posterior.mode() * vae.config.scaling_factor).half())
        torch.save(torch.cat(encoded), path)
    return torch.load(path, weights_only=True)


def train_unet(rank: int, ranks: int, folder: Path, plan: UNetPlan) -> None:
    """Run one rank of the training, resuming from folder/unet.pt; rank 0 saves and logs."""
    torch.manual_seed(0)
    unet, text, kept_T = new_unet(CELLS), Text(plan.parts), new_schedule().alphas_cumprod
    ema = copy.deepcopy(unet).requires_grad_(False)
    optimiser = torch.optim.AdamW(unet.parameters(), plan.rate, (0.9, 0.98), weight_decay=0.01)
    state, path = TrainingState(unet, ema, optimiser), folder / "unet.pt"
    step, spent = state.restore(path)
    bank_NCHW = _bank(plan.parts, folder / f"unet-bank-{rank}-of-{ranks}.pt", rank, ranks)
    losses: list[float] = []
    with tqdm(desc="unet", initial=step, mininterval=20, disable=rank > 0) as bar:
        while spent < plan.minutes * 60:
            started = time.process_time()
            rate = optimiser.param_groups[0]["lr"] = _rate(plan, step, spent)
            rng = np.random.default_rng((4, step, rank))
            chosen = rng.integers(len(bank_NCHW), size=plan.batch // ranks)
            prompts = [_prompt(rng, int(index) * ranks + rank) for index in chosen]
            x0_BCHW = bank_NCHW[torch.from_numpy(chosen)].float()
            loss = _loss(unet, kept_T, x0_BCHW, text(prompts), rng)
            optimiser.zero_grad(set_to_none=True)
            losses.append(backward(unet, loss))
            optimiser.step()
            step += 1
            bar.update()
            if rank == 0:
                follow(ema, unet, min(EMA_KEEP, (step + 1) / (step + 20)))
                if step % 50 == 0:
                    state.save(path, step, spent)
                if step % plan.judge_every == 0:
                    figures = (step, round(spent), f"{np.mean(losses):.4f}", f"{rate:.2e}")
                    _log(folder, ema, text, load_vae(plan.parts), figures)
                    losses.clear()
            spent = agree(spent + time.process_time() - started)
    if rank == 0:
        state.save(path, step, spent)


def _prompt(rng: np.random.Generator, index: int) -> str:
    """A bank picture's sentence, or now and then none, for classifier-free guidance."""
    return "" if rng.random() < DROPPED else scenes.prompt_of(scenes.scene_from(bank_seed(index)))


def _loss(
    unet: UNet2DConditionModel,
    kept_T: Tensor,
    x0_BCHW: Tensor,
    text_BTE: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    """Squared error of the velocity at a logit-normal time; `kept_T` is alpha-bar by timestep."""
    noise_BCHW = torch.from_numpy(rng.standard_normal(x0_BCHW.shape, np.float32))
    time_B = TIMESTEPS.quantile(torch.from_numpy(rng.random(len(x0_BCHW))))
    t_B = (1000 * time_B).long().clamp(max=999)
    signal_B111, noise_B111 = (
        x.sqrt()[:, None, None, None] for x in (kept_T[t_B], 1 - kept_T[t_B])
    )
    xt_BCHW = signal_B111 * x0_BCHW + noise_B111 * noise_BCHW
    velocity_BCHW = unet(xt_BCHW, t_B, encoder_hidden_states=text_BTE, return_dict=False)[0]
    target_BCHW = signal_B111 * noise_BCHW - noise_B111 * x0_BCHW
    return (velocity_BCHW - target_BCHW).square().mean()


def _rate(plan: UNetPlan, step: int, spent: float) -> float:
    """Warm up over 100 steps, hold, and fall by a cosine over the last half of the time."""
    part = spent / (plan.minutes * 60)
    return plan.rate * warmed_up(step, 100) * cosine(part, held=0.5)


@torch.no_grad()
def sample(unet: UNet2DConditionModel, text: Text, prompts: list[str], seed: int) -> Tensor:
    """Draw latents (B, C, H, W) of the trained size by Euler steps under guidance."""
    schedule, random = new_schedule(), torch.Generator().manual_seed(seed)
    schedule.set_timesteps(STEPS)
    x_BCHW = torch.randn(len(prompts), unet.config.in_channels, CELLS, CELLS, generator=random)
    x_BCHW = x_BCHW * schedule.init_noise_sigma
    both_BTE = text([""] * len(prompts) + prompts)
    for t in schedule.timesteps:
        input_BCHW = schedule.scale_model_input(torch.cat([x_BCHW] * 2), t)
        answers = unet(input_BCHW, t, both_BTE, return_dict=False)[0]
        negative_BCHW, positive_BCHW = answers.chunk(2)
        velocity_BCHW = torch.lerp(negative_BCHW, positive_BCHW, GUIDANCE)
        x_BCHW = schedule.step(velocity_BCHW, t, x_BCHW, return_dict=False)[0]
    return x_BCHW


def _log(
    folder: Path,
    ema: UNet2DConditionModel,
    text: Text,
    vae: AutoencoderKL,
    figures: tuple[object, ...],
) -> None:
    """Judge 16 pictures of the averaged model; append to the log and keep a contact sheet."""
    prompts = [scenes.prompt_of(scenes.scene_from(seed)) for seed in range(16)]
    with torch.no_grad():
        x_BCHW = vae.decode(sample(ema, text, prompts, 1) / vae.config.scaling_factor).sample
    x_BCHW = ((x_BCHW / 2 + 0.5).clamp(0, 1) * 255).round().byte()
    images_BHWC = x_BCHW.permute(0, 2, 3, 1).numpy()
    scores = oracle.score(images_BHWC, prompts)
    sheet = images_BHWC.reshape(2, 8, SIDE, SIDE, 3).swapaxes(1, 2).reshape(2 * SIDE, -1, 3)
    Image.fromarray(sheet).save(folder / "unet-samples.png")
    row = [*figures, scores.one_sun, scores.colour, scores.landscape]
    append_row(folder / "unet_training_log.csv", COLUMNS, row)
    print(*figures, scores, flush=True)
