"""What a worker's band of a stage starts from: noise, encoded pictures, latents of the last stage.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from frieze.cluster.bands import band_mode
from frieze.cluster.comm import Comm
from frieze.cluster.layout import Band
from frieze.kernels import bicubic

from ..autoencoders.infgen import Anchor
from ..extrapolation.guides import View
from ..models.family import CONTROL_TENSORS, BandPlace, Model
from ..planning.canvas_plan import CanvasPlan
from ..sampling.inpainting import Outside, cell_means
from ..sampling.solvers import stage_seed
from . import guidance_pair
from .stage_rows import StageRows
from .upsampling import Interpolation

COLOURS = 3  # channels of a picture; one that is redrawn in part has a further one


class Noise:
    """A stage's noise, drawn whole by every rank, so that who draws which rows changes nothing.

    Stage 0 draws what diffusers' pipelines draw from the same seed.
    """

    def __init__(self, plan: CanvasPlan, stage_index: int) -> None:
        facts, canvas = plan.facts, plan.stages[stage_index].canvas
        channels = facts.latent.channels
        self._shape_BCTHW = (1, channels, canvas.frames, canvas.height, canvas.width)
        self._dtype = torch.float32 if facts.float32_noise else getattr(torch, plan.spec.dtype)
        seed = stage_seed(plan.spec.seed, stage_index)
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, band: Band) -> Tensor:
        """A band's rows of the next noise, on the CPU."""
        whole = torch.randn(self._shape_BCTHW, generator=self._generator, dtype=self._dtype)
        return whole[..., band.start : band.stop, :].clone()


@dataclass(frozen=True)
class StageStart:
    """`sharing` are all ranks in the order of their shares, `pair` those of one band, if there are.

    All ranks of a canvas call every method together.
    """

    saved: StageRows
    model: Model
    sharing: Comm
    pair: Comm | None

    def clean(self, slot: int | None) -> Tensor | None:
        """The clean latents that the stage starts from; None for noise alone.

        `slot` is where the last stage's lie.
        """
        saved, plan = self.saved, self.saved.plan
        if (anchor := saved.anchor() or saved.redrawn()) is not None:
            return self._of_band(self._encoded_anchor(anchor))
        index = saved.stage_index - 1
        if index < 0 and plan.inpaint is not None:  # all noise, where nothing of it is to count
            return None if plan.spec.strength == 1 else self._encoded("0-init", 0)
        if index < 0:
            return self._encoded("init", 0) if "init" in plan.sources else None
        assert slot is not None
        if isinstance(plan.method.guide, View):
            return saved.placed(plan.method.guide, slot)
        enlarge = plan.stages[saved.stage_index].enlarge
        if enlarge == "pixels":
            return self._encoded(f"{index}-picture", index)
        mode: Interpolation = "bilinear" if enlarge == "latents_linear" else "bicubic"
        latents = saved.read(index, index, slot, saved.band, 1, mode)
        return latents[:, : plan.facts.latent.channels]

    def outside(self, noise_BCTHW: Tensor, clean_BCTHW: Tensor | None) -> Outside | None:
        """What stays in this stage of a picture that is redrawn in part; None where there is none.

        `noise` is the stage's first, `clean` the picture's latents where they were made before.
        """
        plan, index = self.saved.plan, self.saved.stage_index
        if plan.inpaint is None or plan.facts.inpaints or plan.enlarges(index):
            return None
        latent, array = plan.facts.latent, f"{index}-init"
        drawn_B1THW = self._pixels(array, index)[:, COLOURS:]
        drawn_B1THW = self._of_band(cell_means(drawn_B1THW, latent.downscale, latent.temporal))
        clean_BCTHW = self._encoded(array, index) if clean_BCTHW is None else clean_BCTHW
        return Outside(clean_BCTHW, noise_BCTHW, drawn_B1THW)

    def image_condition(self, place: BandPlace) -> Mapping[str, Tensor]:
        """What a first frame, or what is around a mask, adds to the conditioning of this band."""
        saved, plan, index = self.saved, self.saved.plan, self.saved.stage_index
        if plan.enlarges(index):
            return {}
        if "image" in plan.sources:
            frame, own = self._pixels(f"{index}-image", index), replace(place, band=saved.share)
            made = self._in_encoder(lambda: self.model.image_condition(frame, own))
        elif plan.facts.inpaints:
            pixels = self._pixels(f"{index}-init", index)
            made = self._in_encoder(lambda: self.model.inpaint_condition(pixels))
        else:
            return {}
        return {name: self._of_band(tensor) for name, tensor in made.items()}

    def control(self) -> Mapping[str, Tensor]:
        """The band's rows of the pictures that ControlNets follow, as these see them."""
        saved, plan = self.saved, self.saved.plan
        index = saved.stage_index
        if not plan.spec.control or plan.enlarges(index):
            return {}
        control, name = plan.method.control, f"{index}-control"
        if control and (size := control.size(plan.stages[index].canvas)):
            return {CONTROL_TENSORS["pixels"]: saved.reduced(name, size)}
        rows, found = saved.band.scaled(plan.facts.latent.downscale), {}
        seen = getattr(self.model, "control_sees", ("pixels",))
        if "latents" in seen:
            pictures = self._pixels(name, index).split(COLOURS, dim=1)
            encoded = (functools.partial(self.model.encoded, each) for each in pictures)
            latents = torch.cat([self._in_encoder(work) for work in encoded], dim=1)
            found[CONTROL_TENSORS["latents"]] = self._of_band(latents)
        if "pixels" in seen:
            found[CONTROL_TENSORS["pixels"]] = saved.read(plan.array(name), index, 0, rows)
        return found

    def _encoded(self, array: str, source_index: int) -> Tensor:
        """A stored picture at a stage's size, enlarged to this stage's and encoded: latents."""
        pixels = self._pixels(array, source_index)[:, :COLOURS]
        return self._of_band(self._in_encoder(lambda: self.model.encoded(pixels)))

    def _encoded_anchor(self, anchor: Anchor) -> Tensor:
        """The share's latents of what is enlarged or redrawn; of a clip each frame may be alone."""
        saved, plan = self.saved, self.saved.plan
        num_frames, size = plan.spec.num_frames, plan.size(saved.stage_index)
        share = saved.share.scaled(plan.facts.latent.downscale)
        rows = range(share.start, share.stop)
        held = bicubic.source_rows(rows, anchor.size[0], size[0])

        def pixels(frame: int) -> Tensor:
            picture_BCHW = anchor.read(frame, held)
            place = (size, rows, range(size[1]))
            height = anchor.size[0]
            whole = bicubic.enlarge(picture_BCHW, *place, first=held.start, height=height)
            return whole.unsqueeze(2)

        each = num_frames if plan.facts.video else 1
        latents = []
        for first in range(0, num_frames, each):
            some = torch.cat([pixels(first + index) for index in range(each)], dim=2)
            latents.append(self._in_encoder(functools.partial(self.model.encoded, some)))
        return torch.cat(latents, dim=2)

    def _pixels(self, array: str, source_index: int) -> Tensor:
        """The share's rows of a stored picture, enlarged to this stage's size."""
        saved = self.saved
        share = saved.share.scaled(saved.plan.facts.latent.downscale)
        return saved.read(saved.plan.array(array), source_index, 0, share, None)

    def _in_encoder(self, work: Callable[[], Any]) -> Any:
        stage, marks = self.saved.plan.stages[self.saved.stage_index], self.model.encoder_marks
        with band_mode(self.sharing, stage.shares, marks=marks, canvas=stage.canvas):
            return work()

    def _of_band(self, share_BCTHW: Tensor) -> Tensor:
        """The band's rows, of which the ranks of a pair hold a share each."""
        stage = self.saved.plan.stages[self.saved.stage_index]
        return guidance_pair.whole(self.pair, share_BCTHW, self.saved.band, stage.shares)
