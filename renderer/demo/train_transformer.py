"""Train the demo model's transformer and text encoders by rectified flow on a bank of latents.

x_t = (1 - t) x_0 + t eps with logit-normal t, target eps - x_0 (Esser et al., arXiv 2403.03206).
Queries and keys have an RMS norm each, which FLUX's layout brings with it (theirs: sec. 5.3.2).
Shape legend: B batch, L image tokens (16 x 16), T text tokens, C channels, N bank pictures.
"""

import copy
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..training.loop import TrainingState, append_row, cosine, follow, warmed_up
from ..training.text_dropout import kept
from ..training.timesteps import LogitNormal
from . import oracle, scenes
from .models import Text, embed, new_text, new_transformer
from .parallel import agree, backward
from .train_vae import WHOLE, pictures

SIDE = WHOLE // 16
TEXT_TOKENS, LONG_TEXT_TOKENS = 32, 128
EMA_KEEP = 0.998
# More at high noise, where the layout (one sun, and where) is decided.
TIMESTEPS = LogitNormal(mean=0.4)
# Weight of the rows in the loss, mean 1. The sun's few tokens lie in rows 2-7; a weight by row and
# not by content leaves the optimum where it is.
SKY_WEIGHT = torch.ones(SIDE).index_fill(0, torch.arange(1, 8), 2.5) / 1.65625
COLUMNS = ("step", "seconds", "loss", "rate", "one_sun", "colour", "landscape")


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train; `minutes` bounds the time spent over all resumptions.

    `text_dropout` is the share of texts that each encoder is trained without; SD3's is 0.464.
    """

    minutes: float
    batch: int = 32
    rate: float = 1.5e-3
    judge_every: int = 250
    text_dropout: float = 0.0


class Model(torch.nn.Module):
    """Transformer and both text encoders, so that one optimiser and one EMA hold them all."""

    def __init__(self, transformer: FluxTransformer2DModel, text: Text) -> None:
        super().__init__()
        self.transformer, self.clip, self.t5 = transformer, text.text_encoder, text.text_encoder_2
        self.tokenizers = (text.tokenizer, text.tokenizer_2)

    def text(self) -> Text:
        """Give the encoders with their tokenizers."""
        return Text(*self.tokenizers, self.clip, self.t5)

    def forward(
        self,
        x_BLC: Tensor,
        t_B: Tensor,
        prompts: list[str],
        length: int,
        dropout: tuple[float, Tensor] | None = None,
    ) -> Tensor:
        """Predict the velocity eps - x_0 at x_t, shape (B, L, C).

        `dropout` is what `kept` asks for: the probability, and a uniform number per encoder and
        text.
        """
        pooled_BC, text_BTC = embed(self.text(), prompts, length)
        if dropout is not None:
            pooled_BC, text_BTC = kept((pooled_BC, text_BTC), *dropout)
        velocity: Tensor = self.transformer(
            hidden_states=x_BLC,
            encoder_hidden_states=text_BTC,
            pooled_projections=pooled_BC,
            timestep=t_B,
            img_ids=FluxPipeline._prepare_latent_image_ids(1, SIDE, SIDE, "cpu", torch.float32),
            txt_ids=torch.zeros(length, 3),
            return_dict=False,
        )[0]
        return velocity


@torch.no_grad()
def fill_bank(rank: int, ranks: int, folder: Path, number: int) -> None:
    """Encode this rank's share of the scenes into folder/bank-RANK.pt: tokens (N, L, C), half."""
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    shares = np.array_split(np.arange(number), ranks)[rank]
    parts = []
    for share in tqdm(np.array_split(shares, len(shares) // 8), desc="bank", disable=rank > 0):
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pictures([bank_seed(int(index)) for index in share])).latent_dist
        z_BCHW = (posterior.mode().float() - vae.config.shift_factor) * vae.config.scaling_factor
        parts.append(FluxPipeline._pack_latents(z_BCHW, len(share), 16, 2 * SIDE, 2 * SIDE).half())
    torch.save(torch.cat(parts), folder / f"bank-{rank}.pt")


def _load_bank(folder: Path) -> Tensor:
    parts = sorted(folder.glob("bank-*.pt"), key=lambda path: int(path.stem.split("-")[1]))
    return torch.cat([torch.load(part, weights_only=True) for part in parts])


def bank_seed(index: int) -> int:
    """Give the scene seed behind an entry of the bank; smaller seeds stay unseen."""
    return 1_000_000 + index


def train_transformer(rank: int, ranks: int, folder: Path, plan: Plan) -> None:
    """Run one rank of the training, resuming from folder/transformer.pt; rank 0 saves and logs."""
    torch.manual_seed(0)
    model = Model(new_transformer(), new_text())
    ema = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), plan.rate, (0.9, 0.98), weight_decay=0.01)
    state, path = TrainingState(model, ema, optimiser), folder / "transformer.pt"
    step, spent = state.restore(path)
    bank_NLC = _load_bank(folder)
    losses: list[float] = []
    with tqdm(desc="transformer", initial=step, mininterval=20, disable=rank > 0) as bar:
        while spent < plan.minutes * 60:
            started = time.perf_counter()
            rate = _rate(plan, step, spent)
            for group in optimiser.param_groups:
                group["lr"] = rate
            rng = np.random.default_rng((2, step, rank))
            loss = _loss(model, bank_NLC, rng, plan, plan.batch // ranks, step)
            optimiser.zero_grad(set_to_none=True)
            losses.append(backward(model, loss))
            optimiser.step()
            step += 1
            bar.update()
            if rank == 0:
                follow(ema, model, min(EMA_KEEP, (step + 1) / (step + 20)))
                if step % 50 == 0:
                    state.save(path, step, spent)
                if step % plan.judge_every == 0:
                    _log(folder, ema, step, spent, float(np.mean(losses)), rate)
                    losses.clear()
            spent = agree(spent + time.perf_counter() - started)
    if rank == 0:
        state.save(path, step, spent)


def _loss(
    model: Model, bank_NLC: Tensor, rng: np.random.Generator, plan: Plan, batch: int, step: int
) -> Tensor:
    """Squared error of the velocity on a random batch; now and then with longer padded text."""
    chosen = rng.integers(len(bank_NLC), size=batch)
    prompts = [scenes.prompt_of(scenes.scene_from(bank_seed(int(index)))) for index in chosen]
    x0_BLC = bank_NLC[torch.from_numpy(chosen)].float()
    noise_BLC = torch.from_numpy(rng.standard_normal(x0_BLC.shape, np.float32))
    t_B = TIMESTEPS.quantile(torch.from_numpy(rng.random(batch))).float()
    dropout = (plan.text_dropout, torch.from_numpy(rng.random((2, batch))))
    xt_BLC = torch.lerp(x0_BLC, noise_BLC, t_B[:, None, None])
    length = LONG_TEXT_TOKENS if step % 8 == 7 else TEXT_TOKENS
    with torch.autocast("cpu", torch.bfloat16):
        velocity_BLC = model(xt_BLC, t_B, prompts, length, dropout)
    error_BLC = (velocity_BLC.float() - (noise_BLC - x0_BLC)).square()
    return (error_BLC.unflatten(1, (SIDE, SIDE)) * SKY_WEIGHT[:, None, None]).mean()


def _rate(plan: Plan, step: int, spent: float) -> float:
    """Warm up over 200 steps, hold, and fall by a cosine over the last half of the time."""
    part = spent / (plan.minutes * 60)
    return plan.rate * warmed_up(step, 200) * cosine(part, held=0.5)


@torch.no_grad()
def sample(model: Model, prompts: list[str], steps: int, seed: int) -> Tensor:
    """Draw tokens (B, L, C) by plain Euler steps from noise."""
    x_BLC = torch.randn(
        len(prompts), SIDE * SIDE, 64, generator=torch.Generator().manual_seed(seed)
    )
    times = torch.linspace(1, 0, steps + 1)
    for now, then in itertools.pairwise(times):
        with torch.autocast("cpu", torch.bfloat16):
            velocity_BLC = model(x_BLC, now.expand(len(prompts)), prompts, TEXT_TOKENS)
        x_BLC = x_BLC + (then - now) * velocity_BLC.float()
    return x_BLC


@torch.no_grad()
def to_pixels(vae: AutoencoderKL, tokens_BLC: Tensor) -> np.ndarray:
    """Decode normalised tokens of a square picture to uint8 (B, H, W, 3)."""
    z_BCHW = FluxPipeline._unpack_latents(tokens_BLC, WHOLE, WHOLE, 8)
    z_BCHW = z_BCHW / vae.config.scaling_factor + vae.config.shift_factor
    x_BCHW = (vae.decode(z_BCHW).sample / 2 + 0.5).clamp(0, 1) * 255
    return x_BCHW.round().byte().permute(0, 2, 3, 1).numpy()


def _log(
    folder: Path, ema: Model, step: int, spent: float, loss: float, rate: float, number: int = 24
) -> None:
    """Judge pictures of the averaged model; append to the log and keep a contact sheet."""
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    prompts = [scenes.prompt_of(scenes.scene_from(step + i)) for i in range(number)]
    images_BHWC = to_pixels(vae, sample(ema, prompts, 16, step))
    scores = oracle.score(images_BHWC, prompts)
    sheet = images_BHWC.reshape(3, number // 3, WHOLE, WHOLE, 3).swapaxes(1, 2)
    Image.fromarray(sheet.reshape(3 * WHOLE, -1, 3)).save(folder / "samples.png")
    figures = (scores.one_sun, scores.colour, scores.landscape)
    row = [step, round(spent), f"{loss:.4f}", f"{rate:.2e}", *figures]
    append_row(folder / "training_log.csv", COLUMNS, row)
    print(step, round(spent), f"{loss:.4f}", f"{rate:.2e}", scores, flush=True)
