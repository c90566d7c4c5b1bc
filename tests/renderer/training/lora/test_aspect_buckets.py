"""Pictures of several shapes: which sizes they are learned at, and that they are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

from checkpoints.stock import load
from frieze.renderer.training.lora.aspect_buckets import MOST_RATIO, bucket, buckets
from support.command_line import frieze
from support.lora_trainings import apart, pictures, tiny_flux, train, words

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    ("size", "unit"), [((1024, 1024), 16), ((64, 96), 16), ((512, 2048), 8), ((48, 48), 32)]
)
def test_sizes_are_whole_units_of_about_one_area(size: tuple[int, int], unit: int) -> None:
    first, *others = buckets(size, unit)
    assert first == size
    area = math.prod(size)
    for rows, columns in others:
        assert rows % unit == columns % unit == 0
        assert max(rows, columns) <= MOST_RATIO * min(rows, columns)
        step = unit * max(1, round(math.sqrt(area) / 16 / unit))
        assert abs(rows * columns - area) <= rows * step / 2
    turned = {(columns, rows) for rows, columns in others}
    assert len(turned & set(others)) >= len(others) // 2


def test_a_picture_has_the_nearest_shape_that_it_covers() -> None:
    sizes = buckets((1024, 1024), 16)
    assert bucket(sizes, 3000, 3000) == (1024, 1024)
    rows, columns = bucket(sizes, 2000, 3000) or (0, 0)
    assert columns / rows == pytest.approx(1.5, rel=0.05)
    assert bucket(sizes, 3000, 2000) == (columns, rows)
    assert bucket(sizes, 9000, 900) == max(
        (each for each in sizes if each[1] <= 900), key=lambda each: each[0] / each[1]
    )
    assert bucket(sizes, 600, 600) is None


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_flux(tmp_path_factory.mktemp("flux") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two wide pictures, a high one, a square and one that is too small."""
    folder = tmp_path_factory.mktemp("pictures") / "data"
    pictures(folder, 2, (80, 112))
    for index, size in enumerate([(112, 80), (90, 90), (40, 60)]):
        for file in pictures(folder / f"more{index}", 1, size).iterdir():
            file.rename(folder / f"{size[0]}{file.suffix}")
    return folder


def test_pictures_of_several_shapes_are_learned_from(
    tmp_path: Path, flux: Path, data: Path
) -> None:
    out = tmp_path / "a.safetensors"
    shown = frieze(*words(flux, data, out), "--aspect-buckets")
    assert shown.exit_code == 0, shown.stderr
    assert "sizes: 96x64 of 2, 64x96 of 1, 80x80 of 1" in shown.stderr
    assert "left out: " in shown.stderr
    files = (tmp_path / "a.training" / "latents").iterdir()
    found = sorted(tuple(load_file(file)["latents"].shape[-2:]) for file in files)
    rows, columns = found[0]
    assert found == sorted([(rows, columns)] * 2 + [(columns, rows), (found[2][0],) * 2])
    assert columns * 2 == rows * 3
    load(flux, {}).load_lora_weights(str(out))
    (cropped,) = train(flux, data, tmp_path / "cropped.safetensors")
    assert apart(cropped, out) > 0  # the control


def test_one_that_was_stopped_goes_on_to_the_same_weights(
    tmp_path: Path, flux: Path, data: Path
) -> None:
    told = {"aspect_buckets": True, "ema": 0.9, "steps": 2}
    (whole,) = train(flux, data, tmp_path / "whole.safetensors", **told)
    out = tmp_path / "stopped.safetensors"

    def stop(event: object) -> None:
        if getattr(event, "stage", 0) == 2 and getattr(event, "step", 0) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(flux, data, out, **told, save_every=1, tell=stop)
    train(flux, data, out, **told, continued=True)
    assert apart(out, whole) == 0


def test_scenes_have_one_shape(tmp_path: Path) -> None:
    shown = frieze(*words("demo", "scenes", tmp_path / "out"), "--aspect-buckets")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "a folder of pictures works" in shown.stderr
    assert not (tmp_path / "out").exists()
