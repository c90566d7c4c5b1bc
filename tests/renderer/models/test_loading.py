"""Parts of checkpoints as asked for: precision, variant, float8; and what is refused."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from checkpoints import build
from frieze.renderer import RenderSpec, plan
from frieze.renderer.errors import ModelError, PlanError, SpecError
from frieze.renderer.models import loading, quantization
from support.forkserver import Program
from support.parts import Layout, error, facts, spec
from support.shared import Once
from tolerances import AMPLE, FLOAT8

Asked = Callable[..., Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A tiny checkpoint by its name, built once."""
    once = Once()
    return lambda name: once(name, lambda: build(name, tmp_path_factory.mktemp(name) / "model"))


@pytest.fixture(params=["flux", "sd15"])
def layout(request: pytest.FixtureRequest) -> Layout:
    return Layout(request.param)


# ---- precision, variants, what is missing


def test_a_part_has_the_precision_asked_for(folders: Asked) -> None:
    flux = Layout("flux")
    for name in ("float32", "bfloat16"):
        module = flux.load(folders("flux"), spec(dtype=name))
        assert {p.dtype for p in module.parameters()} == {loading.dtype_of(name)}
        assert not module.training


def test_libraries_are_quiet_before_a_pipeline_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers
    from transformers.utils import logging as notes

    found: list[int] = []

    def imported(_: object, name: str) -> None:
        assert name == "AnyPipeline"
        found.append(notes.get_verbosity())

    notes.set_verbosity_warning()
    monkeypatch.setattr(type(diffusers), "__getattr__", imported)
    loading.libraries(cast("Any", SimpleNamespace(pipeline="AnyPipeline")))
    assert found == [notes.ERROR]


def test_a_variant_is_taken_where_a_part_has_it(folders: Asked, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    folder = tmp_path / "model"
    shutil.copytree(folders("flux"), folder)
    plain = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    zeros = {key: torch.zeros_like(value) for key, value in load_file(plain).items()}
    save_file(zeros, plain.with_suffix(".fp16.safetensors"))
    assert any(p.any() for p in Layout("flux").load(folder, spec()).parameters())
    asked = spec(variant="fp16")
    assert not any(p.any() for p in Layout("flux").load(folder, asked).parameters())
    assert loading.component(AutoencoderKL, facts(folder), "vae", asked) is not None
    assert loading.text_pipeline(Layout("flux").pipeline, facts(folder), asked).vae is None
    with pytest.raises(ModelError, match="no 'fp61' weights"):
        Layout("flux").load(folder, spec(variant="fp61"))


def test_a_plan_knows_which_variants_are_there(folders: Asked, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders("flux"), folder)

    def planned(**fields: Any) -> Any:
        return plan(RenderSpec(model=str(folder), height=64, width=64, **fields))

    planned()
    with pytest.raises(ModelError, match="no 'fp61' weights; drop --variant"):
        planned(variant="fp61")
    for file in list(folder.rglob("*.safetensors")):
        file.rename(file.with_suffix(".fp16.safetensors"))
    with pytest.raises(ModelError, match="holds fp16 weights only; use --variant fp16"):
        planned()
    planned(variant="fp16")


def test_a_checkpoint_that_lacks_a_weight_is_refused(folders: Asked, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders("flux"), folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights.pop("x_embedder.bias")
    save_file(weights, file)
    with pytest.raises(ModelError, match=r"lacks 1 weights, x_embedder\.bias first"):
        Layout("flux").load(folder, spec())


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"transformer.*cannot be loaded|config\.json is missing"):
        Layout("flux").load(tmp_path, spec())


def test_the_text_pipeline_holds_nothing_that_draws(folders: Asked) -> None:
    from diffusers import StableDiffusion3Pipeline

    pipeline = loading.text_pipeline(StableDiffusion3Pipeline, facts(folders("sd3-no-t5")), spec())
    assert pipeline.transformer is None
    assert pipeline.vae is None
    assert pipeline.text_encoder_3 is None
    assert pipeline.text_encoder_2 is not None


def test_encoders_are_loaded_once_where_they_are_kept(folders: Asked) -> None:
    from diffusers import StableDiffusionPipeline

    def load(**fields: Any) -> Any:
        model = facts(folders("sd15"))
        return loading.text_pipeline(StableDiffusionPipeline, model, spec(**fields))

    with loading.kept_encoders():
        first = load()
        assert load() is first
        assert load(dtype="bfloat16") is not first
        assert load() is first
    assert load() is not first


# ---- float8 and quantised


@pytest.mark.parametrize("storage", ["float8_e4m3fn", "float8_e5m2"])
def test_layers_are_stored_as_float8_and_compute_near_the_same(
    folders: Asked, layout: Layout, storage: str
) -> None:
    folder = folders(layout.name)
    plain, cast = layout.load(folder, spec()), layout.load(folder, spec(storage_dtype=storage))
    stored = sum(p.numel() for p in cast.parameters() if p.dtype is getattr(torch, storage))
    assert stored > 0.7 * sum(p.numel() for p in cast.parameters())
    assert cast.dtype is torch.float32
    wrong = error(layout.run(cast), layout.run(plain))
    assert 0 < wrong < (FLOAT8 if storage.endswith("fn") else 2 * FLOAT8)
    assert stored == sum(p.numel() for p in cast.parameters() if p.dtype is getattr(torch, storage))


class Waiting(nn.Conv2d):
    """A convolution that waits inside its forward, as one on bands does for its neighbours."""

    entered, go = threading.Semaphore(0), threading.Semaphore(0)

    def forward(self, x: Tensor) -> Tensor:
        self.entered.release()
        assert self.go.acquire(timeout=AMPLE)
        return super().forward(x)


def test_a_float8_layer_stays_cast_while_any_thread_is_inside() -> None:
    from diffusers import ModelMixin

    class One(ModelMixin):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Waiting(2, 2, 1)

    module, x, done = One(), torch.ones(1, 2, 3, 3), []
    quantization.store_as(module, "float8_e4m3fn", torch.float32)
    runs = [threading.Thread(target=lambda: done.append(module.conv(x))) for _ in range(2)]
    for run in runs:
        run.start()
        assert Waiting.entered.acquire(timeout=AMPLE)
    Waiting.go.release(2)
    for run in runs:
        run.join(AMPLE)
    assert len(done) == 2
    assert torch.equal(*done)
    assert module.conv.weight.dtype is torch.float8_e4m3fn


@pytest.mark.parametrize(
    ("fields", "device", "kind", "says"),
    [
        ({"quantization": "int3"}, "cpu", SpecError, "there are: bnb-8bit"),
        (
            {"quantization": "torchao-int8", "storage_dtype": "float8_e4m3fn"},
            "cpu",
            SpecError,
            "give one",
        ),
        ({"quantization": "bnb-4bit"}, "cpu", PlanError, "needs a CUDA device, not 'cpu'"),
        ({"quantization": "bnb-4bit"}, "cuda", PlanError, "package bitsandbytes"),
        ({"quantization": "torchao-int8"}, "cpu", PlanError, "package torchao"),
    ],
)
def test_quantisation_that_cannot_be_had_is_refused(
    fields: dict[str, str],
    device: str,
    kind: type[Exception],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda package: None)
    with pytest.raises(kind, match=says) as caught:
        quantization.check(spec(**fields), device)
    assert "\n" not in str(caught.value)


def test_a_quantised_checkpoint_is_not_quantised_again(folders: Asked, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders("flux"), folder)
    config = folder / "transformer" / "config.json"
    theirs = '"quantization_config": {"quant_method": "torchao"}'
    config.write_text(config.read_text().replace("{", f"{{{theirs},", 1))
    with pytest.raises(ModelError, match=r"quantised already \(torchao\)"):
        Layout("flux").load(folder, spec(storage_dtype="float8_e4m3fn"))


# ---- once per node

READER = """
import os, sys, threading
from types import SimpleNamespace
from diffusers import FluxTransformer2DModel
from frieze.renderer.models import loading
facts = SimpleNamespace(folder=sys.argv[1])
spec = SimpleNamespace(dtype="float32", variant=None)
module = loading.component(FluxTransformer2DModel, facts, "transformer", spec).to("cpu")
total = sum(float(p.sum()) for p in module.parameters())
print(os.getpid(), flush=True)
threading.Event().wait()
"""


def test_processes_of_a_node_share_the_weights_pages(tmp_path: Path) -> None:
    from diffusers import FluxTransformer2DModel

    FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=12,
        joint_attention_dim=64,
        pooled_projection_dim=16,
        axes_dims_rope=(8, 12, 12),
    ).save_pretrained(tmp_path / "transformer")
    file = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    readers = [Program(READER, str(tmp_path)) for _ in range(2)]
    try:
        assert [int(reader.stdout.readline()) for reader in readers] == [r.pid for r in readers]
        for reader in readers:
            pages = mapped(reader.pid, file)
            assert pages["Rss"] * 1024 > 0.9 * file.stat().st_size
            assert pages["Anonymous"] == 0  # no page was copied
            assert pages["Pss"] < 0.6 * pages["Rss"]  # and two processes hold each
    finally:
        for reader in readers:
            reader.send_signal(signal.SIGKILL)
            reader.communicate()


def mapped(pid: int, file: Path) -> dict[str, int]:
    """KiB of a process's memory that is a view of the file, by kind."""
    pages: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name.split(" ")[0]:
            inside = line.endswith(str(file))
        elif inside and rest.endswith("kB"):
            pages[name] = pages.get(name, 0) + int(rest.split()[0])
    return pages
