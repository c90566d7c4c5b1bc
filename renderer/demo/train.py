"""Train, export and judge the demo model: `python -m frieze.renderer.demo.train COMMAND --help`.

Order: vae, bank, transformer, decoder, export, evaluate; trainings resume from the work folder.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from tqdm import tqdm

from . import oracle, scenes
from .models import new_text, new_transformer
from .parallel import launch
from .train_transformer import TEXT_TOKENS, Model, Plan, fill_bank, train_transformer
from .train_vae import WHOLE, pictures, psnr, train_decoder, train_vae

CHECKPOINT = Path(__file__).parent / "checkpoint"
KEPT = ("README.md",)
# Chosen by the oracle: more steps at high noise, where the number of suns is decided.
SHIFT = 3.0
COMMANDS = ("vae", "bank", "transformer", "decoder", "export", "evaluate")


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
    fresh = checkpoint.with_name("checkpoint.new")
    pipeline.to(torch.float16).save_pretrained(fresh, safe_serialization=True)
    hints = {"training_size": WHOLE, "square": True, "max_sequence_length": TEXT_TOKENS}
    (fresh / "frieze.json").write_text(json.dumps(hints, indent=2) + "\n")
    if (folder / "training_log.csv").exists():
        shutil.copy(folder / "training_log.csv", fresh)
    for name in KEPT:
        if (checkpoint / name).exists():
            shutil.copy(checkpoint / name, fresh)
    for path in fresh.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    old = checkpoint.with_name("checkpoint.old")
    if checkpoint.exists():
        checkpoint.rename(old)
    fresh.rename(checkpoint)
    shutil.rmtree(old, ignore_errors=True)
    print(f"exported step {saved['step']} to {checkpoint}")


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


def draw(
    pipeline: FluxPipeline, prompts: list[str], steps: int, seed: int, text_tokens: int
) -> np.ndarray:
    """Draw one picture a prompt at the training size with stock diffusers: uint8 (B, H, W, 3)."""
    images = pipeline(
        prompts,
        height=WHOLE,
        width=WHOLE,
        num_inference_steps=steps,
        max_sequence_length=text_tokens,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images
    return (images * 255).round().astype(np.uint8)


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--work", type=Path, default=Path("demo-training"))
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--number", type=int, help="pictures in the bank, or prompts to judge")
    parser.add_argument("--steps", type=int, default=24, help="denoising steps to judge with")
    parser.add_argument("--text-tokens", type=int, default=TEXT_TOKENS)
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    if chosen.command == "vae":
        launch(train_vae, chosen.work, chosen.ranks, chosen.minutes)
    elif chosen.command == "decoder":
        launch(train_decoder, chosen.work, chosen.ranks, chosen.minutes)
    elif chosen.command == "bank":
        launch(fill_bank, chosen.work, chosen.ranks, chosen.number or 8000)
    elif chosen.command == "transformer":
        launch(train_transformer, chosen.work, chosen.ranks, Plan(minutes=chosen.minutes))
    elif chosen.command == "export":
        export(chosen.work, chosen.checkpoint)
    else:
        number = chosen.number or 200
        print(
            json.dumps(
                evaluate(chosen.checkpoint, number, chosen.steps, text_tokens=chosen.text_tokens)
            )
        )


if __name__ == "__main__":
    main()
