"""LoRA files on loaded parts: equal to the stock pipeline's, and nothing is left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from checkpoints import build
from frieze.renderer import RenderSpec
from frieze.renderer.checkpoints import lora
from frieze.renderer.checkpoints.checkpoint import describe, load_family
from frieze.renderer.errors import ModelError
from frieze.renderer.models import loading
from frieze.renderer.planning import meta_render
from frieze.renderer.spec.lora_refs import LoraRef
from support.parts import Layout, error, facts, spec
from support.shared import Once
from tolerances import CONTROL, LORA

Asked = Callable[..., Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A tiny checkpoint by its name, built once."""
    once = Once()
    return lambda name: once(name, lambda: build(name, tmp_path_factory.mktemp(name) / "model"))


@pytest.fixture(params=["flux", "sd15"])
def layout(request: pytest.FixtureRequest) -> Layout:
    return Layout(request.param)


@pytest.fixture
def files(folders: Asked, tmp_path: Path) -> Callable[[Layout], tuple[Path, Path]]:
    """Two LoRA files for a layout, written by its pipeline; the first changes text encoders too."""

    def of(layout: Layout) -> tuple[Path, Path]:
        targets = ["to_q", "to_v", *(["conv1"] if layout.part == "unet" else [])]
        return (
            write(layout, folders(layout.name), tmp_path / "first", targets, seed=1, text=True),
            write(layout, folders(layout.name), tmp_path / "second", ["to_k", "to_v"], seed=2),
        )

    return of


def write(
    layout: Layout, folder: Path, out: Path, targets: list[str], seed: int, text: bool = False
) -> Path:
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(seed)
    network = layout.kind.from_pretrained(folder / layout.part)
    network.add_adapter(adapter(targets))
    layers = {f"{layout.part}_lora_layers": get_peft_model_state_dict(network)}
    pipeline = loading.text_pipeline(layout.pipeline, facts(folder), spec())
    for part in layout.pipeline._lora_loadable_modules:
        if text and part.startswith("text"):
            getattr(pipeline, part).add_adapter(adapter(["q_proj", "out_proj"]))
            layers[f"{part}_lora_layers"] = get_peft_model_state_dict(getattr(pipeline, part))
    layout.pipeline.save_lora_weights(out, **layers)
    return out / "pytorch_lora_weights.safetensors"


def adapter(targets: list[str]) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False)


@pytest.fixture
def _stock() -> Iterator[None]:
    """The stock pipeline warns of the second LoRA."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def stock(layout: Layout, folder: Path, files: tuple[Path, ...], weights: list[float]) -> Any:
    pipeline = layout.pipeline.from_pretrained(folder)
    names = [f"file{number}" for number, _ in enumerate(files)]
    for name, file in zip(names, files, strict=True):
        pipeline.load_lora_weights(file, adapter_name=name)
    pipeline.set_adapters(names, weights)
    return pipeline


@pytest.mark.usefixtures("_stock")
def test_two_loras_with_weights_are_the_stock_pipelines(
    folders: Asked, layout: Layout, files: Asked
) -> None:
    folder, (first, second) = folders(layout.name), files(layout)
    theirs = layout.run(getattr(stock(layout, folder, (first, second), [0.7, -0.3]), layout.part))
    ours = layout.load(folder, spec(lora=(f"{first}=0.7", f"{second}=-0.3")))
    assert error(layout.run(ours), theirs) < LORA
    assert not [name for name, _ in ours.named_modules() if "lora" in name]
    control = layout.load(folder, spec(lora=(f"{first}=0.7", f"{second}=-0.2")))
    assert error(layout.run(control), theirs) > CONTROL


@pytest.mark.usefixtures("_stock")
# Of one encoder a LoRA in kohya's names tells, below.
@pytest.mark.parametrize("name", [pytest.param("sd15", marks=pytest.mark.slow), "sdxl"])
def test_text_encoders_take_their_part_of_a_lora(folders: Asked, files: Asked, name: str) -> None:
    layout = Layout(name)
    folder, (first, second) = folders(name), files(layout)
    theirs = stock(layout, folder, (first, second), [0.7, -0.3])
    asked = spec(lora=(f"{first}=0.7", f"{second}=-0.3"))
    ours = loading.text_pipeline(layout.pipeline, facts(folder), asked)
    plain = loading.text_pipeline(layout.pipeline, facts(folder), spec())
    ids = torch.arange(7)[None]
    parts = [p for p in layout.pipeline._lora_loadable_modules if p.startswith("text")]
    assert parts
    for part in parts:
        expected = getattr(theirs, part)(ids)[0]
        assert error(getattr(ours, part)(ids)[0], expected) < LORA
        assert error(getattr(plain, part)(ids)[0], expected) > CONTROL


def test_a_lora_in_kohyas_names_is_the_same_lora(
    folders: Asked, files: Asked, tmp_path: Path
) -> None:
    layout = Layout("sd15")
    folder, (first, _) = folders("sd15"), files(layout)
    renamed: dict[str, Tensor] = {}
    for key, value in load_file(first).items():
        path, factor = key.removesuffix(".weight").rsplit(".", 1)
        part, _, path = path.partition(".")
        path = path if part == "unet" else f"text_model.{path.removeprefix('text_model.')}"
        stem = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[part] + path.replace(".", "_")
        renamed[f"{stem}.lora_{'down' if factor == 'lora_A' else 'up'}.weight"] = value
        renamed[f"{stem}.alpha"] = torch.tensor(1.0)  # of rank 2: half as strong
    kohya = tmp_path / "kohya.safetensors"
    save_file(renamed, kohya)
    same = ((f"{kohya}=1.4",), (f"{first}=0.7",), ())
    ours, theirs, plain = (layout.run(layout.load(folder, spec(lora=lora))) for lora in same)
    assert error(ours, theirs) < LORA
    assert error(plain, theirs) > CONTROL
    ids = torch.arange(7)[None]
    pipelines = [loading.text_pipeline(layout.pipeline, facts(folder), spec(lora=x)) for x in same]
    ours, theirs, plain = (pipeline.text_encoder(ids)[0] for pipeline in pipelines)
    assert error(ours, theirs) < LORA
    assert error(plain, theirs) > CONTROL


def test_float8_weights_keep_a_lora_beside_them(
    folders: Asked, layout: Layout, files: Asked
) -> None:
    folder, (first, _) = folders(layout.name), files(layout)
    ours = layout.load(folder, spec(lora=(f"{first}",), storage_dtype="float8_e4m3fn"))
    kinds = {p.dtype for name, p in ours.named_parameters() if "lora_" in name}
    assert kinds == {torch.float32}
    stored = {p.dtype for name, p in ours.named_parameters() if "base_layer.weight" in name}
    assert stored == {torch.float8_e4m3fn}
    # The same LoRA, in full precision, on weights that were rounded to float8 once.
    rounded = layout.load(folder, spec(storage_dtype="float8_e4m3fn"))
    exact = layout.load(folder, spec())
    for name, weight in exact.named_parameters():
        weight.copy_(rounded.get_parameter(name).float())
    loading.add_loras(exact, layout.pipeline, facts(folder), spec(lora=(f"{first}",)))
    assert error(layout.run(ours), layout.run(exact)) < LORA
    assert error(layout.run(ours), layout.run(rounded)) > CONTROL


def test_a_lora_of_another_family_is_refused_at_loading_too(folders: Asked, files: Asked) -> None:
    first, _ = files(Layout("sd15"))
    with pytest.raises(ModelError, match="was made for Stable Diffusion's UNet"):
        Layout("flux").load(folders("flux"), spec(lora=(f"{first}",)))


def test_what_would_be_left_out_is_refused(
    folders: Asked, files: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flux = Layout("flux")
    first, _ = files(flux)
    weights = load_file(first)
    monkeypatch.setattr(loading.lora, "check", lambda *_: None)  # as with names of a trainer

    def changed(old: str, new: str) -> str:
        path = tmp_path / "changed.safetensors"
        save_file({key.replace(old, new): value for key, value in weights.items()}, path)
        return str(path)

    for old, new, says in (
        ("single_transformer_blocks.0", "single_transformer_blocks.7", "tensors fit a layer"),
        ("transformer.single", "single", "in no part that takes a LoRA"),
    ):
        with pytest.raises(ModelError, match=says):
            flux.load(folders("flux"), spec(lora=(changed(old, new),)))
    asked = spec(lora=(changed("text_encoder.", "text_encoder.no."),))
    with pytest.raises(ModelError, match=r"tensors fit a layer|cannot be applied"):
        loading.text_pipeline(flux.pipeline, facts(folders("flux")), asked)


# ---- nothing is left out without a word


def trained(module: str, width_in: int = 32, width_out: int = 32) -> dict[str, Tensor]:
    """One layer's factors in the names of Wan's trainers, of rank 2."""
    return {
        f"diffusion_model.{module}.lora_down.weight": torch.ones(2, width_in),
        f"diffusion_model.{module}.lora_up.weight": torch.ones(width_out, 2),
    }


def wan_file(path: Path, **extra: Tensor) -> str:
    """A LoRA of the tiny Wan's attentions, and what is named besides."""
    layers = [f"blocks.{b}.{a}_attn.{n}" for b in (0, 1) for a in ("self", "cross") for n in "qkvo"]
    tensors = {key: value for layer in layers for key, value in trained(layer).items()}
    save_file(tensors | {name.replace("__", "."): value for name, value in extra.items()}, path)
    return str(path)


def encoders(folder: Path, file: str) -> Any:
    """What encodes a prompt, loaded before anything is drawn."""
    from diffusers import WanPipeline

    return loading.text_pipeline(WanPipeline, facts(folder), spec(lora=(file,)))


ALPHA = {"diffusion_model__blocks__0__self_attn__q__alpha": torch.tensor(1.0)}
NORM = "diffusion_model__blocks__0__self_attn__norm_q__diff"
DOWN = "diffusion_model__blocks__1__self_attn__q__lora_down__weight"
UP = "diffusion_model__blocks__1__cross_attn__o__lora_up__weight"
NOBODY = "diffusion_model__blocks__0__self_attn__norm_z__diff"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"diffusion_model__odd__weight": torch.ones(32)}, r"cannot be applied .*odd\.weight"),
        ({NOBODY: torch.ones(32)}, r"norm_z\.diff, which names no weight of WanTransformer"),
        ({f"{NORM}_b": torch.ones(32)}, r"norm_q\.diff_b, which names no weight"),
        ({NORM: torch.ones(31)}, r"attn1\.norm_q\.weight is \[32\], its change \[31\]"),
        ({NORM: torch.full((32,), float("nan"))}, r"norm_q\.diff holds NaN or infinity"),
        ({DOWN: torch.full((2, 32), float("nan"))}, r"lora_down\.weight holds NaN or infinity"),
        ({UP: torch.full((32, 2), float("inf"))}, r"lora_up\.weight holds NaN or infinity"),
    ],
)
@pytest.mark.parametrize("second", [False, True])
def test_what_cannot_be_applied_is_refused_by_name_before_any_work(
    folders: Asked, tmp_path: Path, extra: dict[str, Tensor], says: str, second: bool
) -> None:
    name, field = ("wan22", "lora_2") if second else ("wan", "lora")
    asked = RenderSpec(**{field: (wan_file(tmp_path / "a.safetensors", **extra),)})
    with pytest.raises(ModelError, match=says) as caught:
        meta_render.skeleton(describe(str(folders(name))), asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extra", [{}, ALPHA, {NORM: torch.zeros(32)}], ids=["plain", "alpha", "0"])
def test_control_a_whole_file_and_zeros_that_change_nothing_are_taken(
    folders: Asked, tmp_path: Path, extra: dict[str, Tensor]
) -> None:
    file = wan_file(tmp_path / "a.safetensors", **extra)
    meta_render.skeleton(describe(str(folders("wan"))), RenderSpec(lora=(file,)))
    encoders(folders("wan"), file)


@pytest.mark.parametrize("second", [False, True])
def test_differences_of_weights_and_biases_are_added_as_by_hand(
    folders: Asked, tmp_path: Path, second: bool
) -> None:
    changes = {
        "blocks.0.self_attn.norm_q.diff": "blocks.0.attn1.norm_q.weight",
        "blocks.1.cross_attn.norm_k.diff": "blocks.1.attn2.norm_k.weight",
        "blocks.1.norm3.diff": "blocks.1.norm2.weight",
        "blocks.1.norm3.diff_b": "blocks.1.norm2.bias",
        "blocks.0.modulation.diff": "blocks.0.scale_shift_table",
        "head.modulation.diff": "scale_shift_table",
        "time_projection.1.diff_b": "condition_embedder.time_proj.bias",
    }
    folder, field = folders("wan22" if second else "wan"), "lora_2" if second else "lora"
    plain = wan_experts(folder, RenderSpec())[-1]
    factors_alone = wan_file(tmp_path / "b.safetensors")
    by_hand = wan_experts(folder, RenderSpec(**{field: (f"{factors_alone}=0.5",)}))[-1]
    torch.manual_seed(5)
    extra = {}
    for theirs, ours in changes.items():
        parameter = by_hand.get_parameter(ours)
        extra[f"diffusion_model.{theirs}"] = torch.randn(parameter.shape)
    file = wan_file(tmp_path / "a.safetensors", **extra)
    for theirs, ours in changes.items():
        by_hand.get_parameter(ours).data += 0.5 * extra[f"diffusion_model.{theirs}"]
    drawn = wan_experts(folder, RenderSpec(**{field: (f"{file}=0.5",)}))[-1]
    for name, parameter in by_hand.named_parameters():
        assert torch.equal(drawn.get_parameter(name), parameter), name
    other = wan_experts(folder, RenderSpec(**{field: (f"{file}=0.6",)}))[-1]  # the control
    for ours in changes.values():
        assert not torch.equal(other.get_parameter(ours), by_hand.get_parameter(ours)), ours
        assert not torch.equal(plain.get_parameter(ours), by_hand.get_parameter(ours)), ours
    told = lora.summary([LoraRef.parse(file)])
    assert told == [f"'a.safetensors' at 1: 16 layers, {len(changes)} weights by their differences"]


def wan_experts(folder: Path, asked: RenderSpec) -> list[Any]:
    found = describe(str(folder))
    return list(load_family("wan").load(found, asked, torch.device("cpu")).experts)


def test_a_difference_of_weights_in_few_bits_is_refused(folders: Asked, tmp_path: Path) -> None:
    norm = {"diffusion_model__blocks__0__norm3__diff": torch.ones(32)}
    asked = RenderSpec(
        lora=(wan_file(tmp_path / "a.safetensors", **norm),), storage_dtype="float8_e4m3fn"
    )
    plain = wan_experts(folders("wan"), RenderSpec(storage_dtype="float8_e4m3fn"))[0]
    drawn = wan_experts(folders("wan"), asked)[0]  # norms keep their precision
    assert torch.equal(drawn.blocks[0].norm2.weight, plain.blocks[0].norm2.weight + 1)
    linear = {"diffusion_model__blocks__0__ffn__0__diff": torch.ones(64, 32)}
    file = wan_file(tmp_path / "a.safetensors", **linear)
    with pytest.raises(
        ModelError, match=r"ffn\.0\.diff, a whole weight, which is stored as float8"
    ):
        wan_experts(folders("wan"), RenderSpec(lora=(file,), storage_dtype="float8_e4m3fn"))


def test_names_of_several_kinds_in_one_file_are_one_line(folders: Asked, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    ours = "lora_transformer_transformer_blocks_0_attn_to_v"
    theirs = "double_blocks.0.img_attn.norm.query_norm"
    factors = {"A": torch.ones(2, 32), "B": torch.ones(32, 2)}
    tensors = {f"{theirs}.lora_{name}.weight": value for name, value in factors.items()}
    for name, value in {"down": factors["A"], "up": factors["B"]}.items():
        tensors[f"{ours}.lora_{name}.weight"] = value.clone()
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"a\.safetensors cannot be applied"):
        meta_render.skeleton(describe(str(folders("flux"))), RenderSpec(lora=(str(path),)))


def test_a_scale_without_its_factors_is_one_line(folders: Asked, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    layer = "diffusion_model.blocks.0.ffn.0"
    save_file(
        {f"{layer}.alpha": torch.ones(()), f"{layer}.lora_up.weight": torch.ones(64, 2)}, path
    )
    with pytest.raises(ModelError, match=r"a\.safetensors cannot be applied"):
        meta_render.skeleton(describe(str(folders("wan"))), RenderSpec(lora=(str(path),)))


def test_what_is_applied_is_told(tmp_path: Path) -> None:
    path = wan_file(tmp_path / "a.safetensors", **ALPHA)
    assert lora.summary([LoraRef.parse(f"{path}=0.5")]) == ["'a.safetensors' at 0.5: 16 layers"]


def test_a_trainers_lora_of_another_width_names_the_layer_and_both_widths(
    folders: Asked, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_file(trained("blocks.0.self_attn.q", 48, 32), path)
    with pytest.raises(ModelError, match=r"blocks\.0\.attn1\.to_q is \[32, 32\].*\[2, 48\]"):
        encoders(folders("wan"), str(path))
