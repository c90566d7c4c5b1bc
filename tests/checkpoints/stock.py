"""What the stock pipeline draws: the reference of every family.

Pipelines keep latents in their own shapes: FLUX.1, FLUX.2 and Qwen-Image as tokens [B, S, D],
UNets, Stable Diffusion 3 and Z-Image as [B, C, H, W], Wan as [B, C, T, H, W]. All are compared as
the renderer saves them: [C, T, H, W], T = 1 for pictures, as they are after the last step, before
the autoencoder's scaling is undone. FLUX.2's have 2 x 2 patches as channels: [4 c, 1, H, W] where
a row is 16 pixels.

Shape suffixes: B batch, C channels, T frames, H rows, W columns, S tokens, D features.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from torch import Tensor

from support.shared import whole

# Which pipeline redraws a picture or a clip with the same checkpoint.
REDRAW = {
    "FluxPipeline": "FluxImg2ImgPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3Img2ImgPipeline",
    "QwenImagePipeline": "QwenImageImg2ImgPipeline",
    "StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLImg2ImgPipeline",
    "WanPipeline": "WanVideoToVideoPipeline",
    "ZImagePipeline": "ZImageImg2ImgPipeline",
}


# And which one redraws what a mask shows of one; a network that knows masks has its own.
INPAINT = {
    "Flux2KleinPipeline": "Flux2KleinInpaintPipeline",
    "FluxPipeline": "FluxInpaintPipeline",
    "QwenImagePipeline": "QwenImageInpaintPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3InpaintPipeline",
    "StableDiffusionPipeline": "StableDiffusionInpaintPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLInpaintPipeline",
    "ZImagePipeline": "ZImageInpaintPipeline",
}


def stock(checkpoint: Path, **arguments: Any) -> tuple[Tensor, np.ndarray]:
    """Final latents [C, T, H, W] and pixels [T, H, W, 3] in [0, 1] of the stock pipeline.

    `arguments` are fields of a RenderSpec; those that the pipeline has no name for are left out.
    `lora` names a file, `image` a first frame, `init` and `strength` a picture to redraw, which is
    encoded as the mode of its posterior as the renderer does, `mask` where.
    """
    with _quiet():
        return draw(_kept(checkpoint, arguments), arguments)


_LAST: dict[tuple[Any, ...], DiffusionPipeline] = {}


def _kept(checkpoint: Path, arguments: Mapping[str, Any]) -> DiffusionPipeline:
    """The pipeline that drew last, if these arguments ask for it again."""
    asked = (
        arguments.get(field) for field in ("dtype", "lora", "lora_2", "scheduler", "controlnet")
    )
    options = tuple(sorted(arguments.get("scheduler_options", {}).items()))
    key = (checkpoint, bool(arguments.get("init")), bool(arguments.get("mask")), *asked, options)
    if key not in _LAST:
        whole(f"the pipeline of {checkpoint.name}")
        _LAST.clear()
        _LAST[key] = load(checkpoint, arguments)
    return _LAST[key]


def load(checkpoint: Path, arguments: Mapping[str, Any]) -> DiffusionPipeline:
    """The pipeline that these arguments ask for."""
    name = pipeline_of(checkpoint)
    parts: dict[str, Any] = {}
    if folders := arguments.get("controlnet"):
        name = name.replace("Pipeline", "ControlNetPipeline")
        parts["controlnet"] = _controlnets(folders, arguments["control"])
    if arguments.get("mask"):
        name = INPAINT.get(name, name)
    elif arguments.get("init"):
        name = REDRAW[name]
    dtype = getattr(torch, arguments.get("dtype", "float32"))
    index = json.loads((checkpoint / "model_index.json").read_text())
    left_out = {part: None for part, kind in index.items() if kind == [None, None]}
    pipeline = getattr(diffusers, name).from_pretrained(
        checkpoint, dtype=dtype, **left_out, **parts
    )
    for field, options in {"lora": {}, "lora_2": {"load_into_transformer_2": True}}.items():
        if lora := arguments.get(field):
            path, _, weight = lora[0].partition("=")
            pipeline.load_lora_weights(path, adapter_name=field, **options)
            pipeline.set_adapters([field], [float(weight or 1)])
    config = pipeline.scheduler.config
    kind = getattr(diffusers, arguments.get("scheduler") or config["_class_name"])
    pipeline.scheduler = kind.from_config(config, **arguments.get("scheduler_options", {}))
    pipeline.set_progress_bar_config(disable=True)
    if name == "Flux2KleinInpaintPipeline":
        pipeline.prepare_image_latents = _no_references
    return pipeline


def _controlnets(folders: str | tuple[str, ...], pictures: str | tuple[str, ...]) -> Any:
    """One, or a list: of FLUX.1 one may follow several pictures, of U-Nets it is named again."""
    several = folders if isinstance(folders, tuple) else (folders,)
    kind = json.loads((Path(several[0]) / "config.json").read_text())["_class_name"]
    nets = [getattr(diffusers, kind).from_pretrained(folder) for folder in several]
    if not isinstance(pictures, tuple):
        return nets[0] if len(nets) == 1 else nets
    return nets * len(pictures) if len(nets) == 1 and kind == "ControlNetModel" else nets


# What is one value in a spec, or one for each ControlNet, which is a list in diffusers.
OF_CONTROLNETS = (
    "controlnet_conditioning_scale",
    "control_guidance_start",
    "control_guidance_end",
    "control_mode",
)


def _opened(name: str | tuple[str, ...]) -> Any:
    several = isinstance(name, tuple)
    return [_opened(each) for each in name] if several else Image.open(name).convert("RGB")


def _no_references(pictures: list[Tensor], *_: Any) -> tuple[Tensor, Tensor]:
    """FLUX.2's pipeline shows the network the whole given picture as further tokens; we do not."""
    return pictures[0].new_empty(1, 0, pictures[0].shape[1]), torch.empty(1, 0, 4)


def pipeline_of(checkpoint: Path) -> str:
    """The class name in model_index.json."""
    return json.loads((checkpoint / "model_index.json").read_text())["_class_name"]


def draw(pipeline: DiffusionPipeline, arguments: Mapping[str, Any]) -> tuple[Tensor, np.ndarray]:
    """Run a pipeline; listen to its last step for the latents."""
    steps: list[Tensor] = []

    def listen(_: Any, index: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        steps.append(tensors["latents"].clone())
        return {}

    accepted = inspect.signature(pipeline.__call__).parameters
    known = {k: v for k, v in _inputs(arguments).items() if k in accepted and v is not None}
    with mock.patch.object(DiagonalGaussianDistribution, "sample", _mode), _unspoilt_text():
        result = pipeline(**known, callback_on_step_end=listen, output_type="np")
    pixels = result.frames[0] if hasattr(result, "frames") else result.images
    shape = (arguments["height"], arguments["width"])
    return comparable(pipeline, steps[-1], *shape).float(), np.asarray(pixels)


def comparable(pipeline: DiffusionPipeline, latents: Tensor, height: int, width: int) -> Tensor:
    """A pipeline's own latents as [C, T, H, W]; `height` and `width` are pixels."""
    if type(pipeline).__name__.startswith("Flux2"):
        rows = height // (2 * pipeline.vae_scale_factor)
        return latents[0].T.unflatten(1, (1, rows, -1))
    if latents.ndim == 3:
        latents = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    return latents[0] if latents.ndim == 5 else latents[0].unsqueeze(1)


def _inputs(arguments: Mapping[str, Any]) -> dict[str, Any]:
    inputs = dict(arguments)
    inputs["generator"] = torch.Generator("cpu").manual_seed(inputs.get("seed", 0))
    first = inputs.get("init") or inputs.get("image") or inputs.get("control")
    if first:
        inputs["image"] = _opened(first)
        inputs["video"] = [inputs["image"]] * inputs.get("num_frames", 1)
    if inputs.get("control"):
        inputs["control_image"] = _opened(inputs["control"])
    for name in OF_CONTROLNETS:
        if isinstance(inputs.get(name), tuple):
            inputs[name] = list(inputs[name])
    if inputs.get("mask"):
        inputs["mask_image"] = Image.open(inputs["mask"])
    return inputs


def _mode(posterior: DiagonalGaussianDistribution, generator: Any = None) -> Tensor:
    return posterior.mode()


@contextmanager
def _unspoilt_text() -> Iterator[None]:
    # Wan's other pipelines call ftfy whether it is installed or not; it changes no plain text.
    with ExitStack() as stack:
        for name in ("pipeline_wan_i2v", "pipeline_wan_video2video"):
            path = f"diffusers.pipelines.wan.{name}.ftfy"
            stack.enter_context(mock.patch(path, SimpleNamespace(fix_text=str), create=True))
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of diffusers, which is not what is tested
        yield
