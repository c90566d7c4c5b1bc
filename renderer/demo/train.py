"""Train, export and judge the demo models: `python -m frieze.renderer.demo.train COMMAND --help`.

Order: vae, bank, transformer, decoder, export, evaluate; then, with the exported autoencoder and
CLIP, unet, export --unet, evaluate --unet; and `frieze train decoder --data scenes --out FOLDER`,
infgen --work FOLDER. Trainings resume from the work folder.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusionPipeline,
)
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from ..autoencoders.infgen_network import InfGenDecoder
from ..checkpoints.decoder import OWN
from ..training.text_dropout import SD3_PROBABILITY
from . import oracle, scenes
from .models import new_schedule, new_text, new_transformer, new_unet
from .parallel import launch
from .train_transformer import TEXT_TOKENS, Model, Plan, fill_bank, train_transformer
from .train_unet import CELLS, GUIDANCE, SIDE, UNetPlan, load_vae, train_unet
from .train_vae import WHOLE, pictures, psnr, train_decoder, train_vae

CHECKPOINT = Path(__file__).parent / "checkpoint"
UNET_CHECKPOINT = Path(__file__).parent / "unet"
KEPT = ("README.md",)
# Chosen by the oracle: more steps at high noise, where the number of suns is decided.
SHIFT = 3.0
COMMANDS = ("vae", "bank", "transformer", "decoder", "unet", "export", "infgen", "evaluate")
AUTOENCODER = Path("vae", "diffusion_pytorch_model.safetensors")


def export(folder: Path, checkpoint: Path) -> None:
    """Write the averaged weights as a FLUX folder in half precision, swapped in whole."""
    saved = torch.load(folder / "transformer.pt", weights_only=True)
    model = Model(new_transformer(), new_text())
    model.load_state_dict(saved["ema"])
    text = model.text()
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    vae.register_to_config(_name_or_path="")  # not the path of the machine that trained it
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT, use_dynamic_shifting=False),
        vae=vae,
        text_encoder=text.text_encoder,
        tokenizer=text.tokenizer,
        text_encoder_2=text.text_encoder_2,
        tokenizer_2=text.tokenizer_2,
        transformer=model.transformer,
    )
    hints = {"training_size": WHOLE, "square": True, "max_sequence_length": TEXT_TOKENS}
    _replace(checkpoint, pipeline, hints, folder / "training_log.csv")
    print(f"exported step {saved['step']} to {checkpoint}")


def export_unet(folder: Path, checkpoint: Path, parts: Path) -> None:
    """Write the averaged UNet as a Stable Diffusion folder, with the other parts of `parts`."""
    saved = torch.load(folder / "unet.pt", weights_only=True)
    unet = new_unet(CELLS)
    unet.load_state_dict(saved["ema"])
    pipeline = StableDiffusionPipeline(
        vae=load_vae(parts),
        text_encoder=CLIPTextModel.from_pretrained(parts / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(parts / "tokenizer"),
        unet=unet,
        scheduler=new_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    hints = {"training_size": SIDE, "guidance_scale": GUIDANCE}
    _replace(checkpoint, pipeline, hints, folder / "unet_training_log.csv")
    print(f"exported step {saved['step']} to {checkpoint}")


def export_infgen(folder: Path, checkpoint: Path) -> Path:
    """Write a decoder of any size in half precision as the model's own; gives its folder."""
    network = InfGenDecoder.from_pretrained(folder)
    network.register_to_config(_name_or_path="")
    fresh, place = checkpoint / f"{OWN}.new", checkpoint / OWN
    for weight in [*network.parameters(), *network.buffers()]:
        weight.data = weight.data.half()
    network.save_pretrained(fresh)
    for path in [fresh, *fresh.iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(place, ignore_errors=True)
    return fresh.rename(place)


def _replace(
    checkpoint: Path, pipeline: DiffusionPipeline, hints: Mapping[str, object], log: Path
) -> None:
    """Write a pipeline in half precision beside a checkpoint, then put it in its place."""
    fresh = checkpoint.with_name(f"{checkpoint.name}.new")
    pipeline.to(torch.float16).save_pretrained(fresh, safe_serialization=True)
    (fresh / "frieze.json").write_text(json.dumps(dict(hints), indent=2) + "\n")
    if log.exists():
        shutil.copy(log, fresh / "training_log.csv")
    for name in KEPT:
        if (checkpoint / name).exists():
            shutil.copy(checkpoint / name, fresh)
    if (checkpoint / OWN).is_dir() and _same(checkpoint / AUTOENCODER, fresh / AUTOENCODER):
        shutil.copytree(checkpoint / OWN, fresh / OWN)  # it is for latents of this autoencoder
    for path in fresh.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    old = checkpoint.with_name(f"{checkpoint.name}.old")
    if checkpoint.exists():
        checkpoint.rename(old)
    fresh.rename(checkpoint)
    shutil.rmtree(old, ignore_errors=True)


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.read_bytes() == other.read_bytes()


def evaluate(
    checkpoint: Path, number: int, steps: int, batch: int = 20, text_tokens: int = TEXT_TOKENS
) -> dict[str, float]:
    """Judge pictures stock diffusers draws from prompts of unseen scenes, and the VAE's PSNR."""
    pipeline = FluxPipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [scenes.prompt_of(scenes.scene_from(500_000 + i)) for i in range(number)]
    drawn: list[np.ndarray] = []
    for first in tqdm(range(0, number, batch), desc="evaluate"):
        drawn += list(draw(pipeline, prompts[first : first + batch], steps, first, text_tokens))
    scores = oracle.score(drawn, prompts)
    with torch.no_grad():
        quality = psnr(pipeline.vae, pictures(list(range(600_000, 600_016))))
    details = [oracle.detail(picture) for picture in drawn]
    return {
        "one_sun": scores.one_sun,
        "colour": scores.colour,
        "landscape": scores.landscape,
        "detail": float(np.mean(details)),
        "vae_psnr": quality,
    }


def evaluate_unet(checkpoint: Path, number: int, steps: int, side: int) -> dict[str, float]:
    """Judge pictures stock diffusers draws at a size from prompts of unseen scenes."""
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [scenes.prompt_of(scenes.scene_from(500_000 + i)) for i in range(number)]
    drawn: list[np.ndarray] = []
    for first in tqdm(range(0, number, 4), desc="evaluate"):
        drawn += list(draw_unet(pipeline, prompts[first : first + 4], steps, first, side))
    scores = oracle.score(drawn, prompts)
    return {
        "suns": float(np.mean([oracle.judge(picture).suns for picture in drawn])),
        "one_sun": scores.one_sun,
        "colour": scores.colour,
        "landscape": scores.landscape,
        "detail": float(np.mean([oracle.detail(picture) for picture in drawn])),
    }


def draw_unet(
    pipeline: StableDiffusionPipeline, prompts: list[str], steps: int, seed: int, side: int = SIDE
) -> np.ndarray:
    """Draw one square picture a prompt with stock diffusers: uint8 (B, H, W, 3)."""
    return _draw(pipeline, prompts, steps, seed, side, guidance_scale=GUIDANCE)


def draw(
    pipeline: FluxPipeline, prompts: list[str], steps: int, seed: int, text_tokens: int
) -> np.ndarray:
    """Draw one picture a prompt at the training size with stock diffusers: uint8 (B, H, W, 3)."""
    return _draw(pipeline, prompts, steps, seed, WHOLE, max_sequence_length=text_tokens)


def _draw(
    pipeline: FluxPipeline | StableDiffusionPipeline,
    prompts: list[str],
    steps: int,
    seed: int,
    side: int,
    **options: Any,
) -> np.ndarray:
    images = pipeline(
        prompts,
        height=side,
        width=side,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **options,
    ).images
    return (images * 255).round().astype(np.uint8)


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--work", type=Path, default=Path("demo-training"))
    parser.add_argument("--unet", action="store_true", help="export or judge the UNet")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels the UNet is judged at")
    parser.add_argument("--checkpoint", type=Path, help="to write or to judge")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--number", type=int, help="pictures in the bank, or prompts to judge")
    parser.add_argument("--steps", type=int, default=24, help="denoising steps to judge with")
    parser.add_argument("--text-tokens", type=int, default=TEXT_TOKENS)
    dropout = f"share of texts each encoder is trained without; SD3's is {SD3_PROBABILITY:g}"
    parser.add_argument("--text-dropout", type=float, default=0.0, help=dropout)
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    if chosen.command == "vae":
        launch(train_vae, chosen.work, chosen.ranks, chosen.minutes)
    elif chosen.command == "decoder":
        launch(train_decoder, chosen.work, chosen.ranks, chosen.minutes)
    elif chosen.command == "bank":
        launch(fill_bank, chosen.work, chosen.ranks, chosen.number or 8000)
    elif chosen.command == "transformer":
        wish = Plan(minutes=chosen.minutes, text_dropout=chosen.text_dropout)
        launch(train_transformer, chosen.work, chosen.ranks, wish)
    elif chosen.command == "unet":
        plan = UNetPlan(parts=CHECKPOINT, minutes=chosen.minutes)
        launch(train_unet, chosen.work, chosen.ranks, plan)
    elif chosen.command == "infgen":
        print(export_infgen(chosen.work, chosen.checkpoint or CHECKPOINT))
    elif chosen.command == "export" and chosen.unet:
        export_unet(chosen.work, chosen.checkpoint or UNET_CHECKPOINT, CHECKPOINT)
    elif chosen.command == "export":
        export(chosen.work, chosen.checkpoint or CHECKPOINT)
    elif chosen.unet:
        folder, number = chosen.checkpoint or UNET_CHECKPOINT, chosen.number or 40
        print(json.dumps(evaluate_unet(folder, number, chosen.steps, chosen.side)))
    else:
        folder, number = chosen.checkpoint or CHECKPOINT, chosen.number or 200
        scores = evaluate(folder, number, chosen.steps, text_tokens=chosen.text_tokens)
        print(json.dumps(scores))


if __name__ == "__main__":
    main()
