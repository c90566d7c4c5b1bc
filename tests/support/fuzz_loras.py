"""LoRA files for `fuzzing`: other names, shapes, types and values, and files that were spoilt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import save
from torch import Tensor

from frieze.renderer.checkpoints import lora
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.checkpoints.facts import ModelFacts
from frieze.renderer.models import lora_loading
from frieze.renderer.planning import meta_render
from frieze.renderer.spec.lora_refs import LoraRef
from frieze.renderer.spec.render_spec import RenderSpec
from support.fuzz_models import originals
from support.fuzz_values import seldom, texts
from support.shared import kept

# Layers that each checkpoint has, by its own names and by those of its trainers.
LAYERS = {
    "flux": (
        "transformer.transformer_blocks.0.attn.to_q",
        "transformer.single_transformer_blocks.0.attn.to_k",
        "lora_unet_double_blocks_0_img_attn_qkv",
        "lora_transformer_transformer_blocks_0_attn_to_v",
        "text_encoder.encoder.layers.0.self_attn.q_proj",
        "double_blocks.0.img_attn.norm.query_norm",
    ),
    "sd15": (
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
    ),
    "wan22": (
        "diffusion_model.blocks.0.self_attn.q",
        "diffusion_model.blocks.1.cross_attn.norm_k",
        "diffusion_model.blocks.0.ffn.0",
        "diffusion_model.head.head",
        "blocks.0.self_attn.q",
        "lora_unet_blocks_0_self_attn_q",
        "transformer.blocks.0.attn1.to_q",
    ),
}
ENDINGS = (
    *(".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight", ".alpha"),
    *(".lora.down.weight", ".lora.up.weight", ".diff", ".diff_b", ".dora_scale", ".bias", ""),
    *(".lora_B.bias", ".lokr_w1", ".hada_w1_a", ".lora_A.default.weight"),
)
SHAPES = [(), (0,), (1,), (32,), (2, 32), (32, 2), (2, 48), (2, 32, 1, 1), (32, 2, 1, 1), (1, 1, 1)]
TYPES = [
    *(torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn),
]
VALUES = [0.0, 1.0, -0.5, 1e-30, 3e4, float("nan"), float("inf")]


def files() -> SearchStrategy[tuple[str, str, bytes]]:
    """A checkpoint's name, how its file is given, and the bytes of that."""

    def of(name: str) -> SearchStrategy[tuple[str, str, bytes]]:
        tensor = st.tuples(*map(st.sampled_from, (SHAPES, TYPES, VALUES)))
        key = st.tuples(st.sampled_from(LAYERS[name]), st.sampled_from(ENDINGS)).map("".join)
        loose = st.dictionaries(seldom(texts(), key), tensor.map(_tensor), max_size=4)
        whole = st.lists(st.sampled_from(LAYERS[name]), max_size=3).map(_pairs)
        both = st.tuples(whole, seldom(loose, st.just({}))).map(lambda two: {**two[0], **two[1]})
        written = st.one_of(both, loose).map(_bytes)
        spoilt = st.tuples(written, st.integers(0, 400), st.binary(max_size=2)).map(
            lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
        )
        content = st.one_of(written, written, written, spoilt, st.binary(max_size=40))
        entry = seldom(st.sampled_from(["=nan", "=1e400", "=", "=x"]), st.sampled_from(["", "=2"]))
        return st.tuples(st.just(name), entry, content)

    return st.sampled_from(sorted(LAYERS)).flatmap(of)


def _tensor(parts: tuple[tuple[int, ...], torch.dtype, float]) -> Tensor:
    shape, dtype, value = parts
    is_whole = dtype in (torch.int8, torch.int64, torch.bool)
    return torch.full(shape, 1.0 if is_whole else value).to(dtype)


def _pairs(layers: list[str]) -> dict[str, Tensor]:
    kohya = {name: name.startswith("lora_") for name in layers}
    downs = {f"{n}.{'lora_down' if kohya[n] else 'lora_A'}.weight": (2, 32) for n in layers}
    ups = {f"{n}.{'lora_up' if kohya[n] else 'lora_B'}.weight": (32, 2) for n in layers}
    return {name: torch.ones(shape) for name, shape in (downs | ups).items()}


def _bytes(tensors: dict[str, Tensor]) -> bytes:
    def is_text(name: str) -> bool:
        return not any("\ud800" <= letter <= "\udfff" for letter in name)

    kept_ones = {name: x.clone() for name, x in tensors.items() if is_text(name)}
    return bytes(save(kept_ones))


@kept
def networks(folder: Path) -> dict[str, tuple[ModelFacts, Any, Any]]:
    """By checkpoint its facts, its denoiser without weights and its pipeline's class."""
    import diffusers

    found = {}
    for name in LAYERS:
        facts = describe(str(originals(folder)[name]))
        _, parts = meta_render.skeleton(facts, RenderSpec(model=facts.folder))
        found[name] = (facts, parts[0].module, getattr(diffusers, facts.pipeline))
    return found


def on_lora(folder: Path) -> Callable[[tuple[str, str, bytes]], object]:
    """What a plan does with the file."""

    def act(example: tuple[str, str, bytes]) -> object:
        name, weight, content = example
        facts, denoiser, pipeline_class = networks(folder)[name]
        path = folder / "a.safetensors"
        path.write_bytes(content)
        loras = [LoraRef.parse(f"{path}{weight}")]
        lora.check(loras, facts)
        lora_loading.check(denoiser, pipeline_class, loras, Path(facts.folder))
        return lora.summary(loras)

    return act
