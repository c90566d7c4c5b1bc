"""What every model family must hold to; run over each file in renderer/families/.

A family is drawn with tiny checkpoints of the layouts it serves (tests/checkpoints). The first
layout of a pipeline class meets the whole contract, the others the comparison with diffusers.
"""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
from contracts.gallery import (
    LAYOUTS,
    MASKED,
    Drawn,
    Gallery,
    differ,
    equal,
    grey_levels,
    run_isolated,
)
from frieze.renderer import (
    Event,
    ModelError,
    PlanError,
    RenderCancelledError,
    SpecError,
    plan,
    render,
    resume,
)
from frieze.renderer.checkpoints.checkpoint import describe, family_names, load_family
from frieze.renderer.models.positions import RotaryAxis, trained
from frieze.renderer.worker import prompt_encoding
from tolerances import GREY_LEVELS, HALF_LATENTS, STOCK_LATENTS

TAKE_IMAGES = ("wan-i2v", "wan22-i2v", "wan22-small")
# Of the first layouts: learnt or no positions.
NO_ROTARY = ("sd3", "sdxl", "sd15", "sd15-inpaint", "sdxl-inpaint")


def served() -> list[tuple[str, str]]:
    """(pipeline class, layout) of every family; the layout is "" where no checkpoint is made."""
    pairs = []
    for family in family_names():
        for pipeline in load_family(family).pipelines:
            names = [n for n in checkpoints.NAMES if checkpoints.PIPELINES[n] == pipeline]
            pairs += [(pipeline, name) for name in names or [""]]
    return pairs


def first_layouts() -> list[str]:
    """The layout of each pipeline class that meets the whole contract."""
    firsts: dict[str, str] = {}
    for pipeline, name in served():
        firsts.setdefault(pipeline, name)
    return [name for name in firsts.values() if name]


def equals_diffusers(gallery: Gallery, name: str, **ranks: int) -> None:
    equal(gallery.drawn(name, **ranks), gallery.stock(name))


def notices_seed_guidance_and_prompts(gallery: Gallery, name: str) -> None:
    arguments, stock = gallery.arguments(name), gallery.stock(name)
    scale = [field for field in LAYOUTS[name] if "scale" in field][-1]
    changes: list[dict[str, Any]] = [{"seed": 8}, {scale: arguments[scale] - 0.5}]
    changes += [{"negative_prompt": "blue"}] if arguments["negative_prompt"] else []
    for change in changes:
        differ(gallery.drawn(name, **change), stock)


def equals_diffusers_unguided_of_a_long_prompt(gallery: Gallery, name: str) -> None:
    """One half only, and more words than any text encoder takes."""
    cfg = describe(str(gallery.checkpoint(name))).guidance.cfg
    changes = {"negative_prompt": None, "prompt": "a red sun, " * 60}
    # Z-Image counts guidance from 0: what it calls 0 is 1 elsewhere.
    changes |= {cfg: 0.0 if name == "zimage" else 1.0} if cfg else {}
    equal(gallery.drawn(name, **changes), gallery.stock(name, **changes))


def leaves_defaults_to_the_pipeline(gallery: Gallery, name: str) -> None:
    """A spec of a prompt and a size draws what the pipeline draws of them."""
    fields = ("guidance_scale", "guidance_scale_2", "true_cfg_scale", "max_sequence_length")
    changes = dict.fromkeys(fields)
    guidance = describe(str(gallery.checkpoint(name))).guidance
    if guidance.cfg and guidance.defaults[guidance.cfg] == 1:  # off: a negative prompt is refused
        changes["negative_prompt"] = None
    equal(gallery.drawn(name, **changes), gallery.stock(name, **changes))


def draws_the_same_on_ranks(gallery: Gallery, name: str, **ranks: int) -> None:
    equal(gallery.drawn(name, **ranks), gallery.drawn(name))


def needs_the_band_mode(gallery: Gallery, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gallery.drawn(name)
    for module in ("frieze.cluster.strategies.bands", "frieze.renderer.autoencoders.decoding"):
        monkeypatch.setattr(f"{module}.band_mode", lambda *a, **k: nullcontext())
    differ(gallery.fresh(name, workers=2), whole)


def wears_a_lora(gallery: Gallery, name: str) -> None:
    half = {"lora": (f"{gallery.lora(name)}=0.5",)}
    worn = gallery.drawn(name, **half, workers=2)
    equal(worn, gallery.stock(name, **half))
    differ(worn, gallery.stock(name))


def weighs_a_lora(gallery: Gallery, name: str) -> None:
    half = gallery.drawn(name, lora=(f"{gallery.lora(name)}=0.5",), workers=2)
    differ(half, gallery.stock(name, lora=(gallery.lora(name),)))


def gives_its_second_expert_a_lora_of_its_own(gallery: Gallery, name: str) -> None:
    second = {"lora_2": (f"{gallery.lora(name)}=0.5",)}
    if describe(str(gallery.checkpoint(name))).num_experts == 1:
        with pytest.raises(PlanError, match="lora_2"):
            gallery.fresh(name, **second)
        return
    worn = gallery.drawn(name, **second, workers=2)
    equal(worn, gallery.stock(name, **second))
    differ(worn, gallery.drawn(name, lora=second["lora_2"]))


def follows_a_controlnet(gallery: Gallery, name: str) -> None:
    """Its tiny ControlNet's features count as in diffusers, on one rank and on three."""
    fields = {"controlnet": gallery.controlnet(name), "control": gallery.picture(name)}
    fields |= {"controlnet_conditioning_scale": 0.8}
    expected = gallery.stock(name, **fields)
    equal(gallery.drawn(name, **fields), expected)
    equal(gallery.drawn(name, **fields, workers=3), expected)
    differ(gallery.drawn(name, **fields | {"controlnet_conditioning_scale": 0.7}), expected)


def takes_no_other_controlnet(gallery: Gallery, name: str, other: str) -> None:
    """One that was made for another layout's network is refused in one line."""
    fields = {"controlnet": gallery.controlnet(other), "control": gallery.picture(name)}
    with pytest.raises(ModelError, match=r"takes|made for another model") as error:
        plan(gallery.spec(name, **fields))
    assert "\n" not in str(error.value)


def redraws_a_picture(gallery: Gallery, name: str) -> None:
    # 2.4 steps: some pipelines round up, others down.
    init = {"init": gallery.picture(name), "strength": 0.6, "num_inference_steps": 4}
    redrawn = gallery.drawn(name, **init, workers=2)
    differ(redrawn, gallery.drawn(name, num_inference_steps=4))
    from checkpoints.stock import REDRAW

    # Diffusers' PNDM, begun midway, passes over a level.
    is_stock = checkpoints.PIPELINES[name] in REDRAW and name != "sd15"
    equal(redrawn, gallery.stock(name, **init) if is_stock else gallery.drawn(name, **init))


def redraws_a_part_of_a_picture(gallery: Gallery, name: str) -> None:
    """What a mask shows, as the family's pipeline for that does; other pixels stay."""
    from checkpoints.stock import INPAINT

    asked = gallery.masked(name) | {"strength": 0.6, "num_inference_steps": 4}
    drawn, pipeline = gallery.drawn(name, **asked, workers=2), checkpoints.PIPELINES[name]
    # Diffusers' PNDM, begun midway, passes over a level.
    is_stock = (pipeline in INPAINT or name in MASKED) and "sd15" not in name
    # Its pipeline for Stable Diffusion 3 decodes without the shift: latents are compared.
    stock = gallery.stock(name, **asked) if is_stock else gallery.drawn(name, **asked)
    assert run_isolated(drawn, stock) <= STOCK_LATENTS
    if pipeline != "StableDiffusion3Pipeline":
        assert grey_levels(drawn, stock) <= GREY_LEVELS
    differ(drawn, gallery.drawn(name, **asked | {"mask": gallery.grey(name)}))
    if name not in MASKED:
        whole = {key: asked[key] for key in ("init", "strength", "num_inference_steps")}
        differ(drawn, gallery.drawn(name, **whole))


def tells_parts_of_a_picture_other_prompts(gallery: Gallery, name: str) -> None:
    """A mask that is the same grey everywhere, so that three prompts have a share in each token."""
    grey = gallery.grey(name)
    edits = (f"{grey}=a white moon", f"{grey}=snow")
    edited = gallery.drawn(name, edit=edits)
    equal(gallery.drawn(name, edit=edits, workers=3), edited)
    differ(edited, gallery.drawn(name))
    # The picture's own prompt in its parts is as good as none.
    own = gallery.arguments(name)["prompt"]
    equal(gallery.drawn(name, edit=(f"{grey}={own}",), workers=2), gallery.drawn(name))


def splits_guidance_over_ranks(gallery: Gallery, name: str) -> None:
    split = {"workers": 4, "guidance_ranks": 2}
    if describe(str(gallery.checkpoint(name))).guidance.cfg:
        equal(gallery.drawn(name, **split), gallery.drawn(name))
        return
    with pytest.raises(PlanError, match="guidance_ranks 2"):
        gallery.fresh(name, **split)


def draws_a_cascade_on_ranks(gallery: Gallery, name: str) -> None:
    """A quarter of the picture first, enlarged as pixels: decoder and encoder are used."""
    half = {"scale": 0.5, "steps": 2}
    cascade = {"stages": (half, {"scale": 1.0, "start": 0.6, "steps": 2}), "height": 128}
    cascade |= {"height": 256, "width": 128} if gallery.arguments(name)["height"] > 112 else {}
    one = gallery.fresh(name, **cascade)
    equal(gallery.fresh(name, **cascade, workers=3), one)


def takes_positions_from_the_method(
    gallery: Gallery, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that squeezes positions changes what rotary angles give, on ranks alike."""
    asked: set[str] = set()
    plain = gallery.drawn(name)

    def squeezed(axis: RotaryAxis, position_S: torch.Tensor, sigma: float) -> torch.Tensor:
        asked.add(axis.name)
        return trained(axis, position_S.double() / 2, sigma)

    monkeypatch.setattr("frieze.renderer.methods.pi.interpolated", squeezed)
    one = gallery.fresh(name, method="pi")
    equal(gallery.fresh(name, method="pi", workers=3), one)
    assert bool(asked) == (name not in NO_ROTARY)
    (differ if asked else equal)(one, plain)


def resumes_where_it_stopped(gallery: Gallery, name: str) -> None:
    """Solvers that look back find their history in the store."""
    # Of four steps the third looks back; of the last one nothing but x0 remains.
    steps = {"num_inference_steps": 4}
    undisturbed, path = gallery.drawn(name, **steps), gallery.folder / f"{name}-stopped.zarr"
    cancel, seen = threading.Event(), []

    def listen(event: Event) -> None:
        seen.append(event.kind)
        if seen.count("step") == 2:
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(gallery.spec(name, out=str(path), **steps), on_event=listen, cancel=cancel)
    resume(path)
    resumed = gallery.opened(name, path)
    assert np.array_equal(resumed.pixels_THWC, undisturbed.pixels_THWC)
    assert torch.equal(resumed.latents_CTHW, undisturbed.latents_CTHW)


def stays_close_in_half_precision(gallery: Gallery, name: str) -> None:
    half = {"dtype": "bfloat16"}
    drawn = gallery.drawn(name, **half, workers=3)
    stock, limit = gallery.stock(name, **half), HALF_LATENTS
    if torch.cuda.is_available():  # diffusers draws on the processor, which rounds elsewhere
        limit = max(limit, typical(stock, gallery.drawn(name)))
    assert typical(drawn, stock) <= limit
    assert typical(gallery.drawn(name, seed=8), drawn) > 5 * HALF_LATENTS


def rounds_alike_on_ranks(gallery: Gallery, name: str) -> None:
    half = {"dtype": "bfloat16"}
    assert typical(gallery.drawn(name, **half, workers=3), gallery.drawn(name, **half)) <= (
        HALF_LATENTS
    )


def tells_what_its_encoders_do_not_read(gallery: Gallery, name: str) -> None:
    """Each tokenizer says where it cuts a prompt too long for it, and nothing of a short one."""
    folder = gallery.checkpoint(name)
    tokenizers = {path.name for path in folder.glob("tokenizer*")}
    long = "a red sun, " * 200 + "a moon"
    made = plan(gallery.spec(name, prompt=long, negative_prompt=None))
    cuts = prompt_encoding.encode_prompts(made, None)[long].cuts
    assert {cut.tokenizer for cut in cuts} == tokenizers
    for cut in cuts:
        assert long.endswith(cut.text)
        assert 0 < len(cut.text) <= len(long)
        assert str(cut).startswith(f"{cut.tokenizer} reads {cut.limit} tokens of the prompt; cut")
    made = plan(gallery.spec(name, prompt="a sun", negative_prompt=None))
    if name != "flux2-dev":  # a text of its own comes before every prompt, longer than it reads
        assert prompt_encoding.encode_prompts(made, None)["a sun"].cuts == ()


def refuses_a_sequence_length_that_means_nothing(gallery: Gallery, name: str) -> None:
    facts, asked = describe(str(gallery.checkpoint(name))), {"max_sequence_length": 77}
    if not facts.fixed_sequence_length:
        assert plan(gallery.spec(name, **asked)).spec.max_sequence_length == 77
        return
    with pytest.raises(PlanError, match=r"max_sequence_length 77: .* read 77 tokens, no more"):
        plan(gallery.spec(name, **asked))


def refuses_a_tokenizer_without_its_vocabulary(gallery: Gallery, name: str, folder: Path) -> None:
    for part in sorted(path.name for path in gallery.checkpoint(name).glob("tokenizer*")):
        model = Path(shutil.copytree(gallery.checkpoint(name), folder / part))
        for file in ("tokenizer.json", "vocab.json", "merges.txt"):
            (model / part / file).unlink(missing_ok=True)
        made = plan(gallery.spec(name, model=str(model)))
        with pytest.raises(ModelError, match=rf"{part}( has a vocabulary|.*cannot be loaded)"):
            prompt_encoding.encode_prompts(made, None)


def upcasts_an_autoencoder_that_says_so(gallery: Gallery, name: str) -> None:
    """`force_upcast` of its config: float16 would overflow in it, bfloat16 would not."""
    folder = gallery.checkpoint(name)
    facts, states = describe(str(folder)), json.loads((folder / "vae" / "config.json").read_text())
    for dtype in ("float16", "bfloat16"):
        asked = gallery.spec(name, dtype=dtype)
        model = load_family(facts.family).load(facts, asked, torch.device("cpu"))
        plain = torch.float32 if facts.family == "wan" else getattr(torch, dtype)
        upcast = dtype == "float16" and states.get("force_upcast")
        assert model.vae.dtype == (torch.float32 if upcast else plain)


def typical(a: Drawn, b: Drawn) -> float:
    """Root mean square difference of latents, relative to that of b."""
    return float((a.latents_CTHW - b.latents_CTHW).norm() / b.latents_CTHW.norm())


def describes_without_making_modules(
    gallery: Gallery, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = gallery.checkpoint(name)

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("describe() made a torch module")

    monkeypatch.setattr("torch.nn.Module.__init__", refuse)
    facts = describe(str(folder))
    assert (facts.folder, facts.pipeline) == (str(folder), checkpoints.PIPELINES[name])


def describes_the_latents(gallery: Gallery, name: str) -> None:
    facts = describe(str(gallery.checkpoint(name)))
    arguments, latent = gallery.arguments(name), facts.latent
    frames = arguments.get("num_frames", 1)
    cells = (arguments[side] // latent.downscale for side in ("height", "width"))
    shape = (latent.channels, latent.frames(frames), *cells)
    assert shape == tuple(gallery.stock(name).latents_CTHW.shape)
    assert facts.video == (frames > 1)
    assert facts.takes_image == (name in TAKE_IMAGES)


def refuses_what_it_cannot_draw(gallery: Gallery, name: str) -> None:
    facts = describe(str(gallery.checkpoint(name)))
    unit = facts.latent.unit
    refused: list[tuple[dict[str, Any], str]] = [({"height": unit * 4 + 1}, f"{unit * 4}")]
    if facts.video:
        refused += [({"num_frames": 4}, "5")]
    else:
        refused += [({"num_frames": 5}, "num_frames|frames")]
    refused += (
        [({"image": None}, "image")] if facts.takes_image else [({"image": "a.png"}, "image")]
    )
    before = set(gallery.folder.iterdir())
    for changes, part in refused:
        with pytest.raises((SpecError, PlanError), match=part):
            render(gallery.spec(name, out=str(gallery.folder / "refused.zarr"), **changes))
    assert set(gallery.folder.iterdir()) == before


def names_the_file_that_is_missing(gallery: Gallery, name: str, folder: Path) -> None:
    """Every config.json of a network that is taken away is named, by its part of the model."""
    checkpoint = gallery.checkpoint(name)
    part = "unet" if (checkpoint / "unet").is_dir() else "transformer"
    for missing in (f"{part}/config.json", "vae/config.json", "scheduler/scheduler_config.json"):
        bare = folder / missing.replace("/", "-")
        for path in checkpoint.rglob("*"):
            if path.is_file() and str(path.relative_to(checkpoint)) != missing:
                target = bare / path.relative_to(checkpoint)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path)
        with pytest.raises(ModelError, match=missing.split("/")[1]):
            describe(str(bare))
