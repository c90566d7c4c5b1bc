"""A decoder of any size in a plan: what is denoised, who decodes what, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from frieze.kernels.flop_count import flop_count
from frieze.kernels.live_bytes import LiveBytes
from frieze.renderer.autoencoders import infgen
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.errors import FriezeError
from frieze.renderer.planning import decoder_memory, memory_check
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.estimate import fits
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.render_spec import parse
from frieze.renderer.worker import model_cache
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


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_known_of_the_latent_costs_once_a_worker(folder: Path, workers: int) -> None:
    made = planned(folder, 512, 512, chunk=64, workers=workers)
    assert made.decoder is not None
    network = decoder_memory.skeleton(made.decoder, torch.float32)
    window = Window((512, 512), range(192, 256), range(512))
    z, low = (torch.empty(shape, device="meta") for shape in [(1, 16, 32, 32), (1, 3, 256, 256)])
    with torch.no_grad(), flop_count() as count:
        known = network.latent(z, low)
        once = count.total
        network.draw(known, window, seed=0)
    each = count.total - once
    assert once > 0
    assert made.estimate.decoder_flops == workers * once + 8 * each
    assert made.estimate.encoder_flops == 0


def test_what_attention_of_rounds_costs_is_counted_and_told(tmp_path: Path) -> None:
    """It grows with the square of a picture's cells; bytes do not, and still may be too many."""
    own, source = saved(tmp_path / "decoder", largest_scale=2.0), picture(tmp_path)
    channels = 64
    made = planned(own, 256, 368, upscale=str(source), num_frames=2)
    first, second = 12 * 8, 23 * 16
    flops = [4 * cells**2 * channels for cells in (first, second)]
    assert made.estimate.attention_flops == 2 * sum(flops)
    assert made.estimate.encoder_flops > 2 * sum(flops)
    assert f"{made.estimate.attention_flops / made.estimate.encoder_flops:.2f} of them" in str(made)
    larger = planned(own, 1024, 1472, upscale=str(picture(tmp_path, 256, 368)))
    assert larger.estimate.attention_flops > 15**2 * sum(flops)
    assert larger.estimate.encode < 20 * made.estimate.encode
    heaviest = dataclasses.replace(larger.estimate, decode=0)
    assert "encoding needs" in str(fits(heaviest, heaviest.weights + heaviest.encode))
    assert fits(heaviest, 2 * (heaviest.weights + heaviest.encode)) is None


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
        ({"decoder": "infgen", "model": "demo-unet"}, "has no decoder of its own"),
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
        if part.name != "infgen":
            (tmp_path / part.name).symlink_to(part)
    (tmp_path / "infgen").symlink_to(folder)
    spec = small_spec("x.zarr", model=str(tmp_path), decoder="infgen", width=512, height=512)
    made = plan(spec)
    assert made.decoder is not None
    assert made.decoder.folder == str(tmp_path / "infgen")


def picture(folder: Path, width: int = 64, height: int = 92) -> Path:
    path = folder / f"{width}x{height}.png"
    Image.new("RGB", (width, height), "red").save(path)
    return path


@pytest.mark.parametrize(
    ("from_size", "size", "way"),
    [
        (None, (1024, 1024), "256 x 256"),
        (None, (2048, 2048), "256 x 256"),  # by just the largest scale
        (None, (4096, 4096), "256 x 256, then from 1024 x 1024"),
        ((64, 92), (128, 184), "64 x 92"),
        ((64, 92), (1024, 1472), "64 x 92, then from 256 x 368"),
        ((30, 20), (8640, 5760), "30 x 20, then from 200 x 136, then from 1312 x 872"),
    ],
)
def test_beyond_the_largest_scale_it_enlarges_what_it_made(
    tmp_path: Path,
    folder: Path,
    from_size: tuple[int, int] | None,
    size: tuple[int, int],
    way: str,
) -> None:
    fields = {} if from_size is None else {"upscale": str(picture(tmp_path, *from_size))}
    made = planned(folder, *size, **fields)
    assert f"InfGen from {way}" in str(made)
    assert [stage.num_steps for stage in made.stages[made.num_denoised :]] == [0] * (
        len(made.stages) - made.num_denoised
    )
    assert made.num_denoised == (from_size is None)
    sizes = [each for _, each, _ in made.enlargements]
    assert sizes[-1] == (size[1], size[0])
    steps = zip(
        [made.size(0) if from_size is None else from_size[::-1], *sizes], sizes, strict=False
    )
    assert all(after[0] / before[0] <= 8.2 for before, after in steps)


def test_bytes_of_an_upscale_are_of_what_it_loads_and_reads(tmp_path: Path, folder: Path) -> None:
    """No denoiser, no text encoder; of the picture no more than a block asks."""
    own = str(picture(tmp_path, 640, 960))
    small, large = (
        planned(folder, 1280, 1920, upscale=own, num_frames=1, chunk=chunk) for chunk in (64, 256)
    )
    assert small.estimate.text == small.estimate.denoise == 0
    assert set(small.estimate.parts) == {"vae", "decoder"}
    assert small.estimate.decode < large.estimate.decode
    assert memory_check.MARGIN * memory_check.roughly(large) >= large.estimate.bytes_per_device
    other = plan(small_spec("x.zarr"))
    assert model_cache.weights(small) != model_cache.weights(other), "an upscale's has no denoiser"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 250}, "width 250 is no multiple of 8, .* the nearest that works is 248"),
        ({"width": 32, "height": 48}, "32x48 would be smaller; a larger size .* as 128x184"),
        ({"width": 256, "height": 256}, "has another shape, .*; 256x368 works"),
        ({"width": 256, "height": 360}, "has another shape, .*; 256x368 works"),
        ({"width": 64, "height": 200}, "has another shape, .*; 128x184 works"),  # no larger one
        ({"decoder": None}, "what enlarges it is missing; give a decoder, a folder or 'infgen'"),
        ({"init": "a.png"}, "init is for what is denoised, .*; leave it out"),
        ({"stages": [{}]}, "stages is for what is denoised"),
        ({"workers": 13, "chunk": 16}, "13 workers are more than the 12 rows .*; use at most 12"),
        ({"upscale": "/nowhere.png"}, "there is no file /nowhere.png"),
        ({"upscale": __file__}, "is neither a picture nor a clip"),
        ({"decoder": "infgen", "model": "demo-unet"}, "has no decoder of its own"),
    ],
)
def test_an_upscale_that_cannot_be_is_refused(
    tmp_path: Path, folder: Path, fields: dict[str, Any], message: str
) -> None:
    asked = {"decoder": str(folder), "width": 256, "height": 368}
    asked |= {"upscale": str(picture(tmp_path))}
    with pytest.raises(FriezeError, match=message) as caught:
        plan(small_spec("x.zarr", **asked | fields))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 512, "height": 730}, "height 730 is no multiple of 16, .* works is 736"),
        ({"width": 48, "height": 64}, "and 48x64 would be smaller; a larger size .* as 128x192"),
        ({"width": 512, "height": 512}, "has another shape, .*; 512x736 works"),
        ({"creativity": 1.5}, "creativity = 1.5: .* less than or equal to 1"),
        ({"creativity": -0.1}, "creativity = -0.1: .* greater than or equal to 0"),
        ({"guide": "strong"}, "guide = 'strong': .* 'hiflow', 'low-band', 'detail' or 'none'"),
        ({"init": "a.png"}, "init does not go with upscale .* leave it out"),
        ({"mask": "a.png"}, "mask does not go with upscale"),
        ({"stages": [{}]}, "stages does not go with upscale"),
        ({"creativity": None, "guide": "detail"}, "what enlarges it is missing; .* a creativity"),
        (
            {"creativity": None, "guide": "detail", "decoder": "infgen"},
            "guide detail: nothing is redrawn; give creativity, or leave it out",
        ),
        ({"upscale": None}, "creativity 0.5: nothing is redrawn; give upscale, or leave it out"),
        ({"num_frames": 5}, "is a clip, and flux would redraw its frames one by one"),
        ({"attend": "pooled", "model": "demo-unet"}, "attend pooled: a U-Net"),
    ],
)
def test_a_redraw_that_cannot_be_is_refused(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    asked = {"upscale": str(picture(tmp_path)), "creativity": 0.5, "width": 512, "height": 736}
    with pytest.raises(FriezeError, match=message) as caught:
        plan(parse({"out": str(tmp_path / "x.zarr"), "local": True} | asked | fields))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "x.zarr").exists()


def test_a_picture_without_a_cell_is_refused(tmp_path: Path, folder: Path) -> None:
    own = str(picture(tmp_path, 6, 9))
    with pytest.raises(FriezeError, match="is 6x9 pixels; from 8x8 on there is a latent"):
        planned(folder, 48, 72, upscale=own)
