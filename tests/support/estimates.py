"""A render's estimate at one step on stated bands, by the worker's own code without its fleet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frieze.cluster.comm import Comm, axis_comms, run_threads
from frieze.cluster.layout import Band, Mesh
from frieze.renderer import RenderSpec
from frieze.renderer.checkpoints.checkpoint import load_family
from frieze.renderer.checkpoints.facts import LatentSpec
from frieze.renderer.extrapolation.network_hooks import hook_method
from frieze.renderer.models.family import Conditioning
from frieze.renderer.models.regional_prompts import RegionalPrompts
from frieze.renderer.planning.canvas_plan import CanvasPlan
from frieze.renderer.planning.plan import plan
from frieze.renderer.worker.network import Network
from frieze.renderer.worker.stage_guides import Grid
from frieze.renderer.worker.tensor_trace import TensorTrace
from tolerances import AMPLE

from .denoising import noise
from .shared import kept


@kept
def loaded(folder: Path, dtype: torch.dtype) -> Any:
    """The model of a checkpoint, all of it in one precision."""
    spec = RenderSpec(prompt="x", model=str(folder), dtype="float32")
    facts = plan(spec.model_copy(update={"height": 128, "width": 128})).facts
    model: Any = load_family(facts.family).load(facts, spec, torch.device("cpu"))
    for held in vars(model).values():
        for part in held if isinstance(held, list) else [held]:
            if isinstance(part, nn.Module):
                part.to(dtype)
    return model


def bands_of(latent: LatentSpec, rows: Sequence[int]) -> list[Band]:
    """Bands of so many rows of tokens each."""
    edges = accumulate((latent.patch * each for each in rows), initial=0)
    return [Band(*pair) for pair in pairwise(edges)]


def planned(folder: Path, bands: Sequence[Band], mesh: Mesh, **fields: Any) -> CanvasPlan:
    """The plan of a picture, with its last stage cut into these bands."""
    made = plan(RenderSpec(prompt="x", model=str(folder), dtype="float32", **fields))
    *before, last = made.stages
    assert bands[-1].stop == last.canvas.height
    stage = dataclasses.replace(last, bands=tuple(bands), shares=tuple(bands))
    return dataclasses.replace(made, stages=(*before, stage), mesh=mesh)


def start(made: CanvasPlan, dtype: torch.dtype) -> Tensor:
    """The last stage's canvas, of noise."""
    canvas = made.stages[-1].canvas
    shape = (1, made.facts.latent.channels, canvas.frames, canvas.height, canvas.width)
    return noise(*shape).to(dtype)


def network(comm: Comm, made: CanvasPlan, dtype: torch.dtype, folder: Path) -> Network:
    """The last stage's network on this rank, with text that is noise."""
    model, index = loaded(folder, dtype), len(made.stages) - 1
    stage = made.stages[-1]
    hook_method(model, made.method)
    return Network(
        made,
        index,
        model,
        axis_comms(comm, made.mesh),
        None,
        conditioning={
            stage.prompt: Conditioning(
                tuple(_tensors(made, dtype, 2 + half) for half in range(made.guidance.num_halves))
            )
        },
        image={},
        edits=RegionalPrompts.of(stage.prompts, None),
        trace=TensorTrace(),
    )


def estimate(comm: Comm, made: CanvasPlan, step: int, x: Tensor, folder: Path) -> Tensor:
    """This rank's rows of x0 at a step of the last stage, guided, from the canvas x."""
    stage = made.stages[-1]
    band, grid = stage.bands[comm.rank], Grid(stage.canvas, stage.bands)
    with torch.no_grad():
        own = x[..., band.start : band.stop, :]
        return network(comm, made, x.dtype, folder).predict(own, step, grid)


def _tensors(made: CanvasPlan, dtype: torch.dtype, seed: int) -> Mapping[str, Tensor]:
    """Encoded text of one half of the guidance."""
    shapes = load_family(made.facts.family).text_shapes(made.facts, made.spec)
    return {name: noise(*shape, seed=seed).to(dtype) for name, shape in shapes.items()}


def on_threads(made: CanvasPlan, step: int, dtype: torch.dtype, folder: Path) -> Tensor:
    """The whole canvas' estimate, by ranks that are threads."""
    loaded(folder, dtype)
    num_ranks, x = len(made.stages[-1].bands), start(made, dtype)
    ranks = run_threads(estimate, num_ranks, made, step, x, folder, timeout=AMPLE)
    return torch.cat(ranks, dim=-2)
