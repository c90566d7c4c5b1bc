"""Bad input at the command line: one line, exit code 2, and nothing written or lost."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from frieze.renderer import Event, RenderCancelledError, render
from frieze.renderer.checkpoints.checkpoint import describe, find
from frieze.renderer.errors import ModelError
from support import stores
from support.command_line import frieze, process, refused
from support.drawing import draw, pixels, small_spec

DRAW = ("render", "a red sun over blue mountains at dusk", "--size", "256x256", "--local")


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and what it holds."""
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def corrupt(folder: Path) -> Path:
    """A copy of the demo model whose transformer's weights were cut short."""
    model = Path(shutil.copytree(find("demo"), folder / "model"))
    weights = next((model / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-64])
    return model


def pickled(folder: Path) -> Path:
    """A copy of the demo model with its VAE as a pickle."""
    model = Path(shutil.copytree(find("demo"), folder / "model"))
    weights = next((model / "vae").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    return model


def rewritten(file: str, **values: object) -> Callable[[Path], Path]:
    """Makes a copy of the demo model in which a JSON file of a part holds this."""

    def spoil(folder: Path) -> Path:
        model = Path(shutil.copytree(find("demo"), folder / "model"))
        (model / file).write_text(json.dumps(values))
        return model

    return spoil


def sharded(*shards: object) -> Callable[[Path], Path]:
    """Makes a copy of the demo model whose VAE has an index that names these for weights."""
    return rewritten(
        "vae/diffusion_pytorch_model.safetensors.index.json",
        metadata={},
        weight_map={f"encoder.{number}": shard for number, shard in enumerate(shards)},
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--model", "./nowhere"), ("no model folder at './nowhere'", "demo and demo-unet ship")),
        (("--height", "250"), ("--size",)),
        (("--size", "250x256"), ("width 250", "the nearest that works is 256")),
        (("--workers", "20"), ("20 workers", "at most 16 workers")),
        (("--method", "magic"), ("no 'magic' in methods", "none", "pi")),
        (("--out", "a.bmp"), ("a.bmp", ".png", ".tif, .tiff", ".zarr")),
        (("--out", "no/such/folder/a.zarr"), ("no/such/folder",)),
        (("--also", "a.bmp"), ("a.bmp", ".png")),
        (("--ulysses", "2"), ("ulysses 2 does not divide 1",)),
        (("--seeed", "2"), ("--seed",)),
        (("--dtype", "int8"), ("int8", "float32")),
        (("--device", "meta"), ("device 'meta'", "cuda:0")),
        (("--out", "/"), ("'/'", "picture.zarr")),
        (("--out", "ä" * 130), ("a name of 260 bytes",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(frieze(*DRAW, *words), *parts)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_in_a_preset_names_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("promt: a red sun\n")
    refused(frieze("render", "--preset", "mine.yaml"), "'promt'", "'prompt'")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("spoilt", "part"),
    [
        (corrupt, "is corrupt"),
        (pickled, "is a pickle"),
        (sharded("a.safetensors", "shard.bin"), "names 'shard.bin' for weights"),
        (sharded("../unet/a.safetensors"), "names '../unet/a.safetensors'"),
        (sharded("/tmp/a.safetensors"), "names '/tmp/a.safetensors'"),
        (sharded("..", {"a": 1}), "names '..'"),
        (sharded({"a": 1}), "names"),
        (rewritten("vae/model.fp16.safetensors.index.json", weight_map=[]), "no weight_map"),
        (rewritten("text_encoder/adapter_config.json", peft_type="LORA"), "--lora"),
    ],
    ids=[*("cut", "pickle", "shard", "above", "absolute"), *("dots", "none", "list", "adapter")],
)
def test_weights_that_cannot_be_trusted_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: object, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert callable(spoilt)
    model = spoilt(tmp_path)
    refused(frieze(*DRAW, "--model", str(model)), part)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_pickles_that_are_not_loaded_are_nobodys_business(tmp_path: Path) -> None:
    model = pickled(tmp_path)
    with pytest.raises(ModelError, match="is a pickle"):
        describe(str(model))
    shutil.rmtree(model)
    model = sharded("diffusion_pytorch_model.safetensors")(tmp_path)
    index = model / "model_index.json"
    listed = json.loads(index.read_text()) | {"safety_checker": ["stable_diffusion", "Checker"]}
    index.write_text(json.dumps(listed | {"feature_extractor": [None, None]}))
    for name in ("checkpoint-500", "safety_checker", "feature_extractor"):
        (model / name).mkdir()
        (model / name / "pytorch_model.bin").write_bytes(b"not ours")
    assert describe(str(model)).family == describe("demo").family


def test_what_is_there_is_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    draw(out, num_inference_steps=1)
    (tmp_path / "a.png").write_text("somebody's")
    before = content(tmp_path)
    refused(frieze(*DRAW, "--out", str(out)), "a.zarr", "--overwrite")
    refused(frieze(*DRAW, "--out", str(tmp_path / "a.png")), "a.png", "--overwrite")
    assert content(tmp_path) == before
    draw(out, num_inference_steps=1, seed=8, overwrite=True)
    assert content(tmp_path) != before


def test_a_disk_too_full_for_the_plan_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 2**30 - 1000, 1000))
    refused(frieze(*DRAW, "--out", str(tmp_path / "a.zarr")), "free")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # Ray looks for it for ten seconds
def test_an_unreachable_cluster_leaves_nothing_behind(tmp_path: Path) -> None:
    # A process of its own: one that is connected to a Ray already goes on using that.
    words = ("render", "x", "--size", "256x256", "--address", "127.0.0.1:1")
    asked = process(*words, "--quiet", "--out", str(tmp_path / "a.zarr"))
    _, told = asked.communicate()
    assert asked.returncode == 2, told
    assert told.startswith("frieze: no Ray at '127.0.0.1:1'")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A store whose render was stopped after its first step."""
    import threading

    cancel = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "step":
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(small_spec(tmp_path / "a.zarr"), on_event=listen, cancel=cancel)
    return tmp_path / "a.zarr"


def test_a_store_that_is_corrupt_is_not_resumed(stopped: Path) -> None:
    (stopped / "frieze" / "run.json").write_text("{")
    before = content(stopped)
    refused(frieze("resume", str(stopped)), "a.zarr")
    assert content(stopped) == before


def test_a_store_begun_with_another_spec_is_not_resumed(stopped: Path) -> None:
    stores.rewritten(stopped, lambda about: about["run"]["spec"].update(seed=8))
    refused(frieze("resume", str(stopped)), "seed", "7", "8")


# What was taken once and is out of bounds today.
OLD = {
    "guidance_scale": 1e30,
    "num_inference_steps": 10**9,
    "fps": 1e300,
    "dpi": 1e12,
    "shift": 1e9,
}


def test_an_old_store_with_values_out_of_bounds_is_read_and_not_resumed(
    stopped: Path, tmp_path: Path
) -> None:
    for number, (field, value) in enumerate(OLD.items()):
        stores.rewritten(stopped, lambda a, f=field, v=value: a["run"]["spec"].update({f: v}))
        page = str(tmp_path / f"{number}.html")
        for words in (("status",), ("status", "--json"), ("verify",), ("report", page)):
            told = frieze(words[0], str(stopped), *words[1:])
            assert told.exit_code == 0, (field, words, told.output)
        refused(frieze("resume", str(stopped)), field)
        stores.rewritten(stopped, lambda a, f=field: a["run"]["spec"].pop(f))


def test_an_old_finished_store_with_values_out_of_bounds_is_exported(tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    draw(out, num_inference_steps=1)
    stores.rewritten(out, lambda about: about["run"]["spec"].update(OLD))
    for words in (("status", str(out)), ("verify", str(out)), ("report", str(out), f"{out}.html")):
        assert frieze(*words).exit_code == 0, words
    for name in ("a.png", "a.tif", "b.zarr"):
        told = frieze("export", str(out), str(tmp_path / name))
        assert told.exit_code == 0, (name, told.output)


def test_control_the_same_store_untouched_is_resumed(stopped: Path) -> None:
    assert frieze("resume", str(stopped)).exit_code == 0
    assert pixels(stopped).std() > 0
