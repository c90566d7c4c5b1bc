"""What `frieze train lora` refuses: one line each, before any work; nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from checkpoints import build
from support.command_line import frieze
from support.lora_trainings import clips, pictures, words

SIZE = (80, 112)


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("flux", tmp_path_factory.mktemp("flux") / "model")


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wan", tmp_path_factory.mktemp("wan") / "model")


def refused(model: Path, data: Path | str, out: Path, **more: Any) -> str:
    """The one line that a training is refused with."""
    there = sorted(out.parent.rglob("*"))
    shown = frieze(*words(model, data, out, **more))
    assert (shown.exit_code, shown.stdout) == (2, ""), shown.stderr
    (line,) = shown.stderr.splitlines()
    assert sorted(out.parent.rglob("*")) == there
    return line


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            {"targets": "to_qq"},
            r"no layer of FluxTransformer2DModel is called 'to_qq'; the nearest are to_q,",
        ),
        ({"targets": "to_q,norm_q"}, "a RMSNorm, which takes no LoRA; the nearest that do are"),
        ({"method": "eaac"}, "method eaac measures a picture before it changes its attention"),
        ({"method": "ntkk"}, "'ntkk'"),
        ({"workers": 3}, "3 workers are more than the 2 examples of a batch; --batch 3 or fewer"),
        ({"width": 100}, "100"),
        ({"data": "nowhere"}, "nowhere"),
        ({"num_frames": 5}, "5"),
    ],
)
def test_what_a_model_cannot_be_trained_with(
    tmp_path: Path, flux: Path, wrong: dict[str, Any], told: str
) -> None:
    data = wrong.pop("data", "scenes")
    assert told in refused(flux, data, tmp_path / "out", **wrong)


def _without_captions(data: Path) -> str:
    (data / "1.txt").unlink()
    return "1 of 4 have no caption, 1.png first; a text 1.txt beside it, a metadata.jsonl"


def _smaller(data: Path) -> str:
    for path in data.glob("*.png"):
        Image.new("RGB", (64, 64)).save(path)
    return "0.png of 64x64 is smaller than 96x64; larger pictures or a smaller --size work; so it"


def _empty(data: Path) -> str:
    for path in data.glob("*.png"):
        path.unlink()
    return "holds 4 files, and no picture or clip that Frieze reads"


def _no_json(data: Path) -> str:
    (data / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "x"}\n{')
    return "metadata.jsonl, line 2: no JSON"


def _no_such_file(data: Path) -> str:
    (data / "metadata.jsonl").write_text('{"file_name": "9.png", "text": "x"}\n')
    return "metadata.jsonl, line 1: there is no '9.png'; a file of its folder works"


def _no_column(data: Path) -> str:
    (data / "metadata.jsonl").write_text('{"file_name": "0.png", "label": 3}\n')
    return "line 1: an object with file_name and text works, not one with 'file_name', 'label'"


def _no_text(data: Path) -> str:
    (data / "0.txt").write_bytes(b"\xff\xfe\x00")
    return "0.txt is no caption that can be read"


@pytest.mark.parametrize(
    "spoil",
    [_without_captions, _smaller, _empty, _no_json, _no_such_file, _no_column, _no_text],
    ids=lambda each: each.__name__,
)
def test_data_that_cannot_be_learned_from(
    tmp_path: Path, flux: Path, spoil: Callable[[Path], str]
) -> None:
    data = pictures(tmp_path / "data", 4, SIZE)
    told = spoil(data)
    assert told in refused(flux, data, tmp_path / "out")


def test_clips_of_another_length(tmp_path: Path, wan: Path) -> None:
    data = clips(tmp_path / "data", (5, 9))
    told = refused(wan, data, tmp_path / "out", num_frames=5)
    assert "1.gif is a clip of 9 frames, and clips of 5 frames are to be trained on" in told
    assert "--frames 9, or data of one length, works" in told
    told = refused(wan, data, tmp_path / "out")
    assert "0.gif is a clip of 5 frames, and pictures are to be trained on" in told
    still = pictures(tmp_path / "still", 1, SIZE)
    told = refused(wan, still, tmp_path / "out", num_frames=5)
    assert "0.png is a picture, and clips of 5 frames are to be trained on" in told


def test_places_that_are_taken(tmp_path: Path, flux: Path) -> None:
    data, out = pictures(tmp_path / "data", 1, SIZE), tmp_path / "a.safetensors"
    out.write_bytes(b"mine")
    assert "a.safetensors is there already; use another name" in refused(flux, data, out)
    assert out.read_bytes() == b"mine"
    assert "lies in the folder of pictures" in refused(flux, data, data / "out")
    (tmp_path / "full").mkdir()
    shutil.copy(out, tmp_path / "full" / "b")
    assert "holds something else than a training" in refused(flux, data, tmp_path / "full")
    for name in ("ink.pt", "ink.png"):
        told = refused(flux, data, tmp_path / name)
        assert f"{name} would be a folder by the name of a file; use another" in told
    work = tmp_path / "b.training"
    work.mkdir()
    (work / "recipe.json").write_text(json.dumps({"recipe": {"rank": 64}, "model": "x"}))
    begun = refused(flux, data, tmp_path / "b.safetensors")
    assert "has a training that was begun; --continue goes on with it" in begun


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("wan-i2v", "animates a first frame", marks=pytest.mark.slow),
        pytest.param("sd15-inpaint", "redraws a part of a picture", marks=pytest.mark.slow),
        ("flux-fill", "redraws a part of a picture"),
    ],
)
def test_a_model_that_needs_a_picture_is_not_trained_on_text(
    tmp_path: Path, name: str, told: str
) -> None:
    model = build(name, tmp_path / "model")
    assert f"{told}, and a LoRA is trained" in refused(model, "scenes", tmp_path / "out")
