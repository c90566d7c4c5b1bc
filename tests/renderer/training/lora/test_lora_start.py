"""Trainings that go on from a LoRA, and averages of factors: what is written, and after a kill."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.command_line import frieze
from support.forkserver import Program
from support.lora_trainings import apart, changes, pictures, strayed, tiny_flux, train, words
from tolerances import AMPLE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
GONE_ON = {"ema": 0.5, "caption_dropout": 0.5, "steps": 3}


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_flux(tmp_path_factory.mktemp("flux") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("pictures") / "data", 2)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, flux: Path, data: Path) -> Path:
    """A LoRA of other layers and another rank than those of a recipe that names none."""
    out = tmp_path_factory.mktemp("first") / "first.safetensors"
    train(flux, data, out, steps=1, rank=3, alpha=6.0, targets="to_k,to_out.0")
    return out


def gone_on(model: Path, data: Path, start: Path, out: Path, **more: Any) -> Path:
    """Trained from a LoRA; its rank is not told."""
    (file,) = train(model, data, out, start=str(start), rank=16, **GONE_ON | more)
    return file


def test_it_begins_with_what_the_file_adds(
    tmp_path: Path, flux: Path, data: Path, first: Path
) -> None:
    """With its rank, scale and layers: steps so small that they change next to nothing."""
    still = gone_on(flux, data, first, tmp_path / "still.safetensors", rate=1e-12, ema=None)
    told, kept = changes(first), changes(still)
    assert told.keys() == kept.keys()
    for name, change in told.items():
        assert float((kept[name] - change).norm() / change.norm()) < 1e-4
    assert {v.shape[0] for n, v in load_file(still).items() if "lora_A" in n} == {3}
    moved = gone_on(flux, data, first, tmp_path / "moved.safetensors")
    assert strayed(first, moved) > 1e-3  # the control


KILLED = """
import os, signal, sys
from pathlib import Path
from support.lora_trainings import train
model, data, start, out = sys.argv[1:]
def listen(event):
    if event.kind == "step" and (event.stage, event.step) == (2, 2):
        os.kill(os.getpid(), signal.SIGKILL)
train(model, data, Path(out), start=start, rank=16, save_every=1, tell=listen, ema=0.5,
      caption_dropout=0.5, steps=3)
"""


@pytest.mark.slow  # test_lora_run.py has one without a start and an average
def test_one_that_was_killed_goes_on_to_the_same_average(
    tmp_path: Path, flux: Path, data: Path, first: Path
) -> None:
    whole = gone_on(flux, data, first, tmp_path / "whole.safetensors")
    out = tmp_path / "killed.safetensors"
    run = Program(KILLED, str(flux), str(data), str(first), str(out))
    run.communicate(timeout=AMPLE)
    assert run.returncode == -signal.SIGKILL
    assert apart(out, whole) > 0  # the control
    gone_on(flux, data, first, out, continued=True)
    assert apart(out, whole) == 0


def test_an_average_is_written_and_lags(tmp_path: Path, flux: Path, data: Path) -> None:
    """Of each step so much stays, less in the first ones."""
    (file,) = train(flux, data, tmp_path / "2.safetensors", steps=2, ema=0.9)
    work = torch.load(tmp_path / "2.training" / "training.pt", weights_only=True)
    (factors,) = work["factors"]
    written = load_file(file)
    last = {f"transformer.{name}": value for name, value in factors.items()}
    assert last.keys() == written.keys()
    assert any(not torch.equal(written[name], last[name]) for name in written)
    plain = train(flux, data, tmp_path / "plain.safetensors", steps=2)
    assert all(torch.equal(load_file(plain[0])[name], last[name]) for name in last)


def refusal(model: Path, data: Path, out: Path, **more: Any) -> str:
    shown = frieze(*words(model, data, out, **more))
    assert (shown.exit_code, shown.stdout) == (2, ""), shown.stderr
    (line,) = shown.stderr.splitlines()
    assert not out.exists()
    return line


def test_what_cannot_be_gone_on_from(tmp_path: Path, flux: Path, data: Path, first: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other.safetensors"
    save_file({"transformer.no.such.lora_A.weight": torch.zeros(2, 2)}, other)
    empty = tmp_path / "empty.safetensors"
    save_file({}, empty)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"{")
    for start, told in {
        str(tmp_path / "none.safetensors"): "start ",
        str(tmp_path): "a .safetensors file of a LoRA works",
        str(other): "other.safetensors",
        str(empty): "empty.safetensors",
        str(broken): "broken.safetensors",
    }.items():
        assert told in refusal(flux, data, out, start=start, rank=16)
    told = refusal(flux, data, out, start=str(first))
    assert "start and rank both given" in told
    assert "leave out rank" in told
    for ema in ("1", "-0.1", "much"):
        assert "ema" in refusal(flux, data, out, ema=ema)
