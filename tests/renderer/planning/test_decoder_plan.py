"""A decoder of any size in a plan: what is denoised, who decodes what, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from frieze.kernels.live_bytes import LiveBytes
from frieze.renderer.autoencoders import infgen
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.errors import FriezeError
from frieze.renderer.planning import memory_check
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.plan import plan
from support.decoders import saved
from support.drawing import small_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("decoder"))


def planned(folder: Path, width: int, height: int, **fields: Any) -> CanvasPlan:
    return plan(small_spec("x.zarr", width=width, height=height, decoder=str(folder), **fields))


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((1024, 1024), (256, 256)),
        ((1000, 520), (352, 192)),  # whole units of 16, as nearly the shape as they allow
        ((128, 96), (128, 96)),  # no larger than asked
        ((2048, 512), (512, 128)),
    ],
)
def test_the_canvas_is_of_the_trained_size_and_the_asked_shape(
    folder: Path, size: tuple[int, int], drawn: tuple[int, int]
) -> None:
    made = planned(folder, *size)
    assert made.size(-1) == (drawn[1], drawn[0])
    assert (made.spec.width, made.spec.height) == size
    assert f"InfGen from {drawn[0]} x {drawn[1]} px" in str(made)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_each_worker_decodes_whole_blocks(folder: Path, workers: int) -> None:
    made = planned(folder, 512, 1000, workers=workers, chunk=64)
    assert len(made.decoded) == len(made.stages[-1].shares) == workers
    assert [band.start for band in made.decoded] == [0, *(b.stop for b in made.decoded[:-1])]
    assert made.decoded[-1].stop == 1000
    assert all(band.start % 64 == 0 and band.rows for band in made.decoded)


def test_without_one_nothing_changes(folder: Path) -> None:
    made = plan(small_spec("x.zarr", width=512, height=512))
    assert made.decoder is None
    assert made.decoded == ()
    assert made.size(-1) == (512, 512)


def test_its_memory_and_operations_are_counted(folder: Path) -> None:
    made = planned(folder, 512, 512)
    assert made.decoder is not None
    with_it, without = made.estimate, plan(small_spec("x.zarr", width=256, height=256)).estimate
    network = infgen.load(made.decoder, torch.float32, torch.device("cpu"))
    weights = sum(x.numel() * 4 for x in network.state_dict().values())
    assert with_it.weights - without.weights == weights
    assert with_it.decoder_flops > 1e9
    assert "TFLOP by the decoder" in str(made)
    assert memory_check.MARGIN * memory_check.roughly(made) >= with_it.bytes_per_device
    start = (512 - made.block[0]) // 2
    window = Window((512, 512), range(start, start + made.block[0]), range(512))
    with torch.no_grad(), LiveBytes() as live:
        known = network.latent(torch.randn(1, 16, 32, 32), torch.randn(1, 3, 256, 256))
        network.draw(known, window, seed=0)
    assert live.peak.num_bytes <= with_it.decode
    assert with_it.decode < 2 * max(live.peak.num_bytes, without.decode)


def changed(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return spoil


def as_pickle(folder: Path) -> None:
    torch.save({}, folder / "diffusion_pytorch_model.bin")
    (folder / "diffusion_pytorch_model.safetensors").unlink()


def cut_short(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def without_weights(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (changed(latent_channels=4), "for latents of 4 channels, .* have 16 channels"),
        (changed(scaling_factor=0.18215), "scale 0.18215 .*: use a decoder that was trained for"),
        (changed(_class_name="AutoencoderKL"), "holds 'AutoencoderKL'; InfGenDecoder works"),
        (changed(mode="local"), "mode is 'local'"),
        (changed(width=10**9), "width is 1000000000"),
        (changed(heads=3), "width 32 is no 3 equal heads"),
        (changed(kernel=4), "kernel 4 .* odd ones work"),
        (as_pickle, "is a pickle and may run code; convert the weights to .safetensors"),
        (cut_short, "is corrupt"),
        (without_config, "config.json is missing"),
        (without_weights, "holds no .safetensors"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(saved(tmp_path / "decoder"))
    with pytest.raises(FriezeError, match=message) as caught:
        _ = planned(tmp_path / "decoder", 512, 512).estimate
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 1001}, "width 1001 is no multiple of 8, .*; the nearest that works is 1000"),
        ({"decoder": "/nowhere"}, "decoder '/nowhere': /nowhere is not there"),
        ({"decoder": __file__}, "is a file; a folder of an InfGen decoder works"),
        ({"decoder": "infgen"}, "has no decoder of its own"),
        ({"workers": 17, "chunk": 16}, "more than the 16 rows of tokens .*; use at most 16"),
    ],
)
def test_what_cannot_be_drawn_with_it_is_refused(
    folder: Path, fields: dict[str, Any], message: str
) -> None:
    asked = {"decoder": str(folder), "width": 1024, "height": 1024} | fields
    with pytest.raises(FriezeError, match=message):
        plan(small_spec("x.zarr", **asked))


def test_a_models_own_is_found(tmp_path: Path, folder: Path) -> None:
    model = Path(describe("demo").folder)
    for part in model.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "infgen").symlink_to(folder)
    spec = small_spec("x.zarr", model=str(tmp_path), decoder="infgen", width=512, height=512)
    made = plan(spec)
    assert made.decoder is not None
    assert made.decoder.folder == str(tmp_path / "infgen")
