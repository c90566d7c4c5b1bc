"""The demo's own decoder: in half precision in its folder, found there, the same picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from frieze.renderer.autoencoders import infgen
from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.checkpoints.decoder import OWN
from frieze.renderer.checkpoints.decoder import describe as described
from frieze.renderer.checkpoints.shipped import SHIPPED
from frieze.renderer.demo import train
from frieze.renderer.driver.fingerprint import weights_digest
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.presets import preset
from frieze.renderer.spec.render_spec import parse
from support.decoders import saved
from support.drawing import small_spec
from tolerances import GREY_LEVELS

MOST_BYTES = 8 * 10**6
SIZE = (512, 512)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The demo without a decoder of its own."""
    without = shutil.ignore_patterns(OWN)
    return Path(shutil.copytree(SHIPPED["demo"], tmp_path / "model", ignore=without))


def drawn(network: InfGenDecoder) -> Tensor:
    """Grey levels of a part of a picture, from latents at random."""
    random = torch.Generator().manual_seed(1)
    z = torch.randn(1, 16, 32, 32, generator=random)
    picture = torch.randn(1, 3, 256, 256, generator=random) / 3
    window = Window(SIZE, range(256, 320), range(256, 320))
    made: Tensor = network.eval().draw(network.latent(z, picture), window, seed=3)
    return (made.clamp(-1, 1) + 1) * 127.5


def test_half_of_the_digits_are_enough(tmp_path: Path, model: Path) -> None:
    """The control keeps one digit, in eight bits."""
    own = saved(tmp_path / "own", width=96, depth=2, pixel_widths=(48, 80), heads=4, pooled=4)
    before = InfGenDecoder.from_pretrained(own)
    before.conv_out.weight.data *= 0.03  # residuals as large as those of a trained one
    before.save_pretrained(own)
    place = train.export_infgen(own, model)
    assert place == model / OWN
    (file,) = place.glob("*.safetensors")
    assert {each.dtype for each in load_file(file).values()} == {torch.float16}
    assert file.stat().st_size < MOST_BYTES
    assert json.loads((place / "config.json").read_text())["_name_or_path"] == ""
    known = described(OWN, describe(str(model)))
    loaded = infgen.load(known, torch.float32, torch.device("cpu"))
    assert {weight.dtype for weight in loaded.state_dict().values()} == {torch.float32}
    assert (drawn(loaded) - drawn(before)).abs().max() < GREY_LEVELS / 2
    for weight in before.parameters():
        weight.data = weight.data.to(torch.float8_e4m3fn).float()
    assert (drawn(loaded) - drawn(before)).abs().max() > GREY_LEVELS / 2


def test_it_is_found_and_its_model_is_the_one_that_it_was(tmp_path: Path, model: Path) -> None:
    """What was begun with the model before is gone on with."""
    before = weights_digest(model)
    for steps in (1, 2):  # another takes its place
        train.export_infgen(saved(tmp_path / "own", num_steps=steps), model)
    assert weights_digest(model) == before
    made = plan(small_spec("a.zarr", model=str(model), decoder=OWN, width=512, height=512))
    assert made.decoder is not None
    assert (made.decoder.folder, made.decoder.config.num_steps) == (str(model / OWN), 2)
    file = model / train.AUTOENCODER
    file.write_bytes(file.read_bytes()[:-1])  # the control: another autoencoder
    assert weights_digest(model) != before


def test_the_shipped_one_is_small_and_draws_the_poster_of_the_shipped_model() -> None:
    known = described(OWN, describe("demo"))
    assert known.weight_bytes < MOST_BYTES
    infgen.load(known, torch.float32, torch.device("cpu"))
    made = plan(parse(preset("demo")))
    assert (made.decoder, made.size(-1)) == (known, (256, 256))
    assert "InfGen from 256 x 256 px" in str(made)
