"""`frieze train lora`: what comes out, who loads it, going on after a kill, workers."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import NAMES, build
from checkpoints.stock import load
from frieze.renderer.checkpoints.checkpoint import describe
from support.command_line import frieze
from support.forkserver import Program
from support.lora_trainings import apart, changes, clips, pictures, strayed, tiny_flux, train, words
from tolerances import AMPLE, CONTROL, STRAYED

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CAPTION = "a red sun over blue mountains at dusk"


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_flux(tmp_path_factory.mktemp("flux") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("pictures") / "data")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, flux: Path, data: Path) -> Path:
    """Trained in one go, by the command."""
    out = tmp_path_factory.mktemp("whole") / "style.safetensors"
    shown = frieze(*words(flux, data, out))
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout == f"{out}\n"
    assert "latents and captions of 4 pictures" in shown.stderr
    return out


def test_diffusers_and_render_load_what_was_trained(
    tmp_path: Path, flux: Path, whole: Path
) -> None:
    _is_loaded_by_diffusers(flux, whole)
    drawn = []
    for number, lora in enumerate(([], ["--lora", str(whole)])):  # the first: the control
        out = tmp_path / f"{number}.png"
        asked = ("x", "--model", str(flux), "--size", "96x64", "--num-inference-steps", "1")
        shown = frieze("render", *asked, *lora, "--out", str(out))
        assert shown.exit_code == 0, shown.stderr
        drawn.append(np.asarray(Image.open(out)).astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() > 0


def _is_loaded_by_diffusers(model: Path, file: Path, *, second: bool = False) -> None:
    """A pipeline adds to its weights what the file says, all of it."""
    pipeline, plain = load(model, {}), load(model, {})
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    if second:
        part = "transformer_2"
        pipeline.load_lora_weights(str(file), load_into_transformer_2=True)
    else:
        pipeline.load_lora_weights(str(file))
    network = getattr(pipeline, part)
    network.fuse_lora()
    network.unload_lora()
    weights, before = network.state_dict(), getattr(plain, part).state_dict()
    told = changes(file)
    assert told
    for name, change in told.items():
        found = (weights[f"{name}.weight"] - before[f"{name}.weight"]).flatten(1)
        assert float(change.norm()) > 0
        assert float((found - change).norm() / change.norm()) < 1e-4
    changed = {n for n in weights if not torch.equal(weights[n], before[n])}
    assert changed == {f"{name}.weight" for name in told}


def test_a_clip_is_learned_from(tmp_path: Path) -> None:
    model = build("wan", tmp_path / "model")
    data = clips(tmp_path / "data", (5, 5))
    (file,) = train(model, data, tmp_path / "out", num_frames=5, method="riflex", steps=2)
    assert file == tmp_path / "out" / "pytorch_lora_weights.safetensors"
    _is_loaded_by_diffusers(model, file)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if not n.endswith(("i2v", "-inpaint", "-fill"))])
def test_diffusers_loads_what_every_family_learned(tmp_path: Path, data: Path, name: str) -> None:
    model = build(name, tmp_path / "model")
    is_video = name.startswith("wan")
    seen = clips(tmp_path / "data", (5,)) if is_video else data
    told = {"num_frames": 5 if is_video else 1, "steps": 2, "method": "none", "batch": 4}
    first, *second = train(model, seen, tmp_path / "out", **told)
    _is_loaded_by_diffusers(model, first)
    assert len(second) == (name == "wan22")
    for file in second:
        _is_loaded_by_diffusers(model, file, second=True)


def test_the_demo_learns_its_scenes(tmp_path: Path) -> None:
    out, sizes = tmp_path / "out", {"height": 320, "width": 320}
    told = {"pictures": 2, "steps": 1, "batch": 1, "sample_prompt": (CAPTION,), "sample_steps": 1}
    (file,) = train("demo", "scenes", out, **sizes, **told)
    _is_loaded_by_diffusers(Path(describe("demo").folder), file)
    with Image.open(out / "training" / "samples" / "000001-1.png") as sample:
        assert sample.size == (320, 320)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from support.lora_trainings import train
model, data, out = sys.argv[1:]
def listen(event):
    if event.kind == "step" and (event.stage, event.step) == (2, 2):
        os.kill(os.getpid(), signal.SIGKILL)
train(model, data, Path(out), save_every=1, tell=listen)
"""


def test_one_that_was_killed_goes_on_to_the_same_weights(
    tmp_path: Path, flux: Path, data: Path, whole: Path
) -> None:
    out = tmp_path / "style.safetensors"
    run = Program(KILLED, str(flux), str(data), str(out))
    run.communicate(timeout=AMPLE)
    assert run.returncode == -signal.SIGKILL
    assert apart(out, whole) > 0  # the control
    steps: list[int] = []

    def listen(event: object) -> None:
        if getattr(event, "stage", 0) == 2:
            steps.append(event.step)  # type: ignore[attr-defined]

    train(flux, data, out, continued=True, tell=listen)
    assert steps == [1, 2, 3]  # it went on, and did not begin again
    assert apart(out, whole) == 0
    log = (tmp_path / "style.training" / "log.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in log[1:]] == [["lora", "1"], ["lora", "3"]]


def test_workers_share_a_batch(tmp_path: Path, flux: Path, data: Path, whole: Path) -> None:
    """Two with an example each of two make the steps of one with both."""
    (two,) = train(flux, data, tmp_path / "two.safetensors", workers=2, local=True)
    assert strayed(whole, two) < STRAYED
    (less,) = train(flux, data, tmp_path / "less.safetensors", batch=1)  # the control
    assert strayed(whole, less) > 10 * STRAYED


@pytest.mark.slow
@pytest.mark.ray
def test_ray_workers_share_a_batch(
    tmp_path: Path, flux: Path, data: Path, whole: Path, ray_cluster: int
) -> None:
    (two,) = train(flux, data, tmp_path / "two.safetensors", workers=2, wait=AMPLE)
    assert strayed(whole, two) < STRAYED


def test_layers_that_run_twice_learn_the_same(tmp_path: Path, flux: Path, data: Path) -> None:
    """Also where a method changes their attention, which a second run must find as it was."""
    asked = {"method": "yarn", "steps": 2}
    (plain,) = train(flux, data, tmp_path / "plain.safetensors", **asked)
    (twice,) = train(flux, data, tmp_path / "twice.safetensors", checkpointing=True, **asked)
    assert apart(twice, plain) == 0
    (other,) = train(flux, data, tmp_path / "other.safetensors", **asked | {"method": "none"})
    assert apart(other, plain) > CONTROL


def test_the_record_of_a_training_is_what_it_was_asked(whole: Path) -> None:
    recipe = json.loads((whole.with_suffix(".training") / "recipe.json").read_text())["recipe"]
    assert (recipe["method"], recipe["width"], recipe["rank"]) == ("ntk", 96, 2)
