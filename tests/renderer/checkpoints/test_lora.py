"""LoRA files: which are refused from their headers alone."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from frieze.renderer.checkpoints import lora
from frieze.renderer.errors import ModelError
from frieze.renderer.spec.lora_refs import LoraRef

RANK = 2


def write(path: Path, tensors: dict[str, tuple[int, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ones(shape, dtype=np.float32) for name, shape in tensors.items()}, path)
    return path


def factors(module: str, width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
    down, up = (RANK, width_in), (width_out, RANK)
    return {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}


def kohya(module: str, width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
    down, up = (RANK, width_in), (width_out, RANK)
    return {
        f"{module}.lora_down.weight": down,
        f"{module}.lora_up.weight": up,
        f"{module}.alpha": (),
    }


@pytest.fixture
def flux(tmp_path: Path) -> Any:
    """Facts of a model with one layer, whose weights are in two files."""
    part = tmp_path / "model" / "transformer"
    write(part / "one.safetensors", {"transformer_blocks.0.attn.to_q.weight": (8, 8)})
    write(part / "two.safetensors", {"x_embedder.weight": (8, 6)})
    (part / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    return SimpleNamespace(folder=str(tmp_path / "model"), family="flux")


@pytest.fixture
def unet(tmp_path: Path) -> Any:
    part = tmp_path / "model" / "unet"
    write(part / "one.safetensors", {"down_blocks.0.attentions.0.to_q.weight": (8, 8)})
    (part / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    return SimpleNamespace(folder=str(tmp_path / "model"), family="unet")


def check(path: Path, facts: Any) -> None:
    lora.check([LoraRef(str(path), str(path))], facts)


def test_a_lora_that_fits_is_taken(flux: Any, tmp_path: Path) -> None:
    fits = factors("transformer.transformer_blocks.0.attn.to_q", 8, 8)
    check(write(tmp_path / "a.safetensors", fits), flux)
    check(write(tmp_path / "b.safetensors", kohya("lora_unet_double_blocks_0_qkv", 8, 24)), flux)
    narrow = factors("transformer.x_embedder", 4, 8)
    check(write(tmp_path / "c.safetensors", narrow), flux)


@pytest.mark.parametrize(
    ("module", "widths", "fault"),
    [
        ("transformer.transformer_blocks.0.attn.to_q", (16, 8), r"\[8, 8\], its change \[2, 16\]"),
        ("transformer.transformer_blocks.0.attn.to_q", (8, 16), r"\[8, 8\], its change \[16, 2\]"),
        ("transformer.transformer_blocks.1.attn.to_q", (8, 8), "there is no transformer.trans"),
        ("transformer.x_embedder", (12, 8), r"its change \[2, 12\]"),
    ],
)
def test_a_lora_of_another_size_is_refused(
    flux: Any, tmp_path: Path, module: str, widths: tuple[int, int], fault: str
) -> None:
    path = write(tmp_path / "a.safetensors", factors(module, *widths))
    with pytest.raises(ModelError, match=fault) as caught:
        check(path, flux)
    assert str(path) in str(caught.value)
    assert f"{flux.folder} is flux" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "maker"),
    [
        ("unet.down_blocks.0.attentions.0.to_q", "Stable Diffusion's UNet"),
        ("lora_unet_input_blocks_4_1_proj_in", "Stable Diffusion's UNet"),
        ("transformer.blocks.0.attn1.to_q", "Wan"),
        ("diffusion_model.blocks.0.self_attn.q", "Wan"),
        ("transformer.transformer_blocks.0.img_mlp.net.2", "Qwen-Image"),
        ("transformer.layers.0.attention.to_q", "Z-Image"),
    ],
)
def test_a_lora_of_another_family_is_refused_by_both_names(
    flux: Any, tmp_path: Path, module: str, maker: str
) -> None:
    path = write(tmp_path / "a.safetensors", factors(module, 8, 8))
    with pytest.raises(ModelError, match=f"was made for {maker}; .* is flux"):
        check(path, flux)


def test_a_flux_lora_is_refused_by_a_unet(unet: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", kohya("lora_unet_double_blocks_0_img_attn", 8, 8))
    with pytest.raises(ModelError, match=r"was made for FLUX; .* is unet"):
        check(path, unet)


def test_kohyas_names_of_a_unet_are_compared_in_shape(unet: Any, tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_0_attentions_0_to_q"
    check(write(tmp_path / "a.safetensors", kohya(name, 8, 8)), unet)
    with pytest.raises(ModelError, match=r"its change \[2, 16\]"):
        check(write(tmp_path / "b.safetensors", kohya(name, 16, 8)), unet)


def test_text_encoders_are_not_taken_for_a_family(flux: Any, tmp_path: Path) -> None:
    text = factors("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", 8, 8)
    check(write(tmp_path / "a.safetensors", text), flux)


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        ({"transformer_blocks.0.attn.to_q.weight": (8, 8)}, "is no LoRA"),
        ({"lora_unet_double_blocks_0_qkv.dora_scale": (8,)}, "is a DoRA"),
    ],
)
def test_what_is_no_lora_is_refused(
    flux: Any, tmp_path: Path, tensors: dict[str, tuple[int, ...]], fault: str
) -> None:
    with pytest.raises(ModelError, match=fault):
        check(write(tmp_path / "a.safetensors", tensors), flux)


def test_a_pickle_is_refused_unread(flux: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(ModelError, match="may run code"):
        check(path, flux)
    path.rename(tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="is corrupt"):
        check(tmp_path / "a.safetensors", flux)
    with pytest.raises(ModelError, match="no LoRA file"):
        check(path, flux)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(ModelError, match=r"a\.png is no LoRA; the path of a \.safetensors"):
        check(tmp_path / "a.png", flux)


def test_a_quantised_models_packed_shapes_are_not_compared(flux: Any, tmp_path: Path) -> None:
    config = Path(flux.folder) / "transformer" / "config.json"
    config.write_text('{"_class_name": "FluxTransformer2DModel", "quantization_config": {}}')
    check(write(tmp_path / "a.safetensors", factors("transformer.proj_out", 8, 8)), flux)


def test_identity_is_of_bytes_and_weights_not_of_paths(tmp_path: Path) -> None:
    first = write(tmp_path / "a.safetensors", factors("transformer.x", 8, 8))
    same = write(tmp_path / "elsewhere" / "b.safetensors", factors("transformer.x", 8, 8))
    other = write(tmp_path / "c.safetensors", factors("transformer.x", 8, 9))

    def digest(path: Path, weight: float = 1.0) -> list[dict[str, Any]]:
        return lora.identity([LoraRef("", str(path), weight)])

    assert digest(first) == digest(same)
    assert digest(first) != digest(other)
    assert digest(first) != digest(first, 0.5)


def test_reading_headers_needs_no_torch() -> None:
    code = "import sys, frieze.renderer.checkpoints.lora; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
