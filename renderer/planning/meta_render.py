"""A model without weights that draws: on meta tensors, on one rank of a phantom world.

Nothing is computed and nothing is held, yet every tensor that a worker would make is made, with
its halos, its keys and values on their way around the ring and its merges, for who counts them.
Equal layers are run three times and then stood in for by the shapes of their results.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from frieze.cluster.attention import Unmodified
from frieze.cluster.bands import band_mode, conv_shape
from frieze.cluster.comm import AxisComms, Comm, axis_comms, phantom
from frieze.cluster.layout import Band, Mesh, Tile
from frieze.kernels.flop_count import count_sent
from frieze.kernels.meta_attention import tracing
from frieze.kernels.meta_results import MetaResults

from ..autoencoders.decoding import Piece, decode
from ..checkpoints.checkpoint import load_family
from ..checkpoints.facts import ModelFacts
from ..extrapolation.network_hooks import hook_method
from ..extrapolation.skip_filter import free_u
from ..models import loading, strategies
from ..models.device import device_type
from ..models.family import CONTROL_TENSORS, BandPlace, Guidance, Model
from ..models.meta_models import Skeleton, shorten, skeletons, treated
from ..models.positions import RotaryAxis
from ..models.regional_prompts import RegionalPrompts
from ..sampling import solvers
from ..sampling.inpainting import Outside
from ..sampling.solver_step import SolverStep
from ..spec.networks import all_loras
from .step_kinds import StepKind, TurnedKeys, step_kinds

if TYPE_CHECKING:
    from frieze.cluster.attention.modifier import AttentionModifier
    from frieze.cluster.strategies import Tiling

    from ..extrapolation.method import Method
    from ..sampling.noise_levels import NoiseLevel
    from ..spec.render_spec import RenderSpec
    from .stage_plan import StagePlan

META = torch.device("meta")


def axes(facts: ModelFacts, spec: RenderSpec, place: BandPlace) -> tuple[RotaryAxis, ...]:
    """The rotary axes of a model, without its weights."""
    return skeleton(facts, spec)[0].axes(place)


class Meter(Protocol):
    """What counts while a model runs: memory, or work."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """What is made inside is of this part."""
        ...


class MetaRender:
    """A model without weights, and one worker's place among those that draw with it."""

    def __init__(
        self,
        facts: ModelFacts,
        spec: RenderSpec,
        mesh: Mesh,
        guidance: Guidance,
        method: Method,
    ) -> None:
        self.facts, self.spec, self.mesh = facts, spec, mesh
        self.guidance, self.method, self.positions = guidance, method, method.positions
        self.kind, self.results = device_type(spec.device), MetaResults()
        self.model, self.parts = skeleton(facts, spec)
        hook_method(self.model, method)
        needs_image = facts.takes_image and not facts.image_optional
        self.is_shown = needs_image or spec.image is not None or facts.inpaints
        self.stays = spec.inpaints and not facts.inpaints

    def step_kinds(self, index: int, stage: StagePlan) -> tuple[StepKind, ...]:
        """The kinds of steps of a stage."""
        marks = self.model.denoiser_marks(stage.levels[0])
        layers = [name for each in marks if not each.local for name in each.names]
        return step_kinds(self.method, self.facts, self.spec.seed, index, stage, layers)

    def step(
        self,
        stage: StagePlan,
        rank: int,
        kind: StepKind,
        windows: AttentionModifier | None,
        meter: Meter,
    ) -> None:
        """One step of a kind on the rank that draws this band, while `meter` counts."""
        band = stage.bands[rank]
        with conv_shape(kind.shape), treated(kind.alike):
            comm = _phantom(rank, self.mesh.world_size, meter)
            comms = axis_comms(comm, self.mesh)
            pair = comm.group(self.mesh.group(rank, "guidance"))
            with meter.part("state"):
                x, history, halves = self.state(stage, band)
                cached = self._cached(stage, band)
                edits = [self._text() for _ in stage.edits]
                outside = self._outside(x)
                told = RegionalPrompts(stage.prompts, _shares(stage))
            solver = solvers.solver(stage.schedule)
            index = min(solver.num_history, stage.num_steps - 1)
            level = stage.levels[index]
            turned = self._turned(BandPlace(band, stage.canvas, self.positions))

            def x0() -> Tensor:
                place = BandPlace(band, stage.canvas, self.positions)
                texts = [halves[0], *edits]
                asked = [(told.joined(texts), told.place(place, texts))]
                asked += [(tensors, place) for tensors in halves[1:]]
                clean = []
                for tensors, where in asked[: 1 if pair.size > 1 else None]:
                    if self.tiling(stage):
                        more = texts if where.texts else ()
                        parts = self._parts(tensors, where, more)
                        clean.append(self._of_tiles(x, level, parts, comms, stage.bands))
                        continue
                    modifier = windows or turned or (Unmodified() if where.texts else None)
                    with (
                        band_mode(comms, stage.bands, canvas=stage.canvas, modifier=modifier),
                        free_u(self.method.skips, comms.world, stage.bands),
                    ):
                        each = self.model.denoised(x, level, tensors, where, stage.guidance)
                    clean.append(each)
                if pair.size > 1:
                    clean = pair.all_gather(clean[0])
                if len(clean) == 1:
                    return clean[0]
                return self.model.guided(x, level, clean[0], clean[1], stage.guidance)

            draw = (lambda: torch.empty_like(x)) if solver.needs_noise else None
            moved, _ = solver.step(SolverStep(index, stage.levels, x, x0(), history, draw))
            if outside is not None:
                outside.kept(moved, level)
            del cached

    def tiling(self, stage: StagePlan) -> Tiling | None:
        """The tiles of a stage's step, None where the network is given the canvas."""
        return strategies.tiling(self.spec, self.facts, stage.canvas)

    def tiles_of(self, stage: StagePlan, rank: int) -> int:
        """How many batches of tiles a rank draws in a step."""
        tiling = self.tiling(stage)
        assert tiling is not None
        return -(-len(tiling.of_ranks(stage.bands)[rank]) // tiling.batch)

    def _parts(
        self,
        tensors: Mapping[str, Tensor],
        place: BandPlace,
        prompts: Sequence[Mapping[str, Tensor]] = (),
    ) -> strategies.CanvasParts:
        told = (self.model, self.guidance, tensors, place)
        return strategies.CanvasParts(*told, lambda part: None, prompts)

    def _of_tiles(
        self,
        x: Tensor,
        level: NoiseLevel,
        parts: strategies.CanvasParts,
        comms: AxisComms,
        bands: Sequence[Band],
    ) -> Tensor:
        """The strategy's own step, whose network runs on its first batch: others are like it."""
        ran: list[bool] = []

        def in_tiles(x_NCTHW: Tensor, at: Any, tiles: Sequence[Tile], is_placed: bool) -> Tensor:
            if ran:
                return torch.empty_like(x_NCTHW)
            ran.append(True)
            return parts.in_tiles(x_NCTHW, at, tiles, is_placed)

        return strategies.load_strategy(self.spec).predict(
            lambda x, at: x,
            x,
            level,
            comms,
            bands=bands,
            marks=(),
            modifier=None,
            step=strategies.strategy_step(
                self.facts, self.spec, 0, level, in_tiles, parts.of_canvas
            ),
        )

    def batch(self, stage: StagePlan, rank: int) -> None:
        """What each further batch of a rank's tiles asks of it, for all prompts."""
        tiling = self.tiling(stage)
        assert tiling is not None
        some = tiling.of_ranks(stage.bands)[rank][: tiling.batch]
        _, _, halves = self.state(stage, stage.bands[rank])
        place = BandPlace(stage.bands[rank], stage.canvas, self.positions)
        shape = (len(some), self.facts.latent.channels, stage.canvas.frames)
        x_NCTHW = torch.empty((*shape, tiling.height, tiling.width), device=META)
        for tensors in halves[: 1 if self.mesh.guidance > 1 else None]:
            parts = self._parts(tensors, place)
            parts.in_tiles(x_NCTHW, stage.levels[0], some, tiling.is_placed)

    def _turned(self, place: BandPlace) -> AttentionModifier | None:
        """What turns the keys of a canvas, if the method does."""
        policy = self.method.key_positions
        turns = None if policy is None else policy(self.model.axes(place))
        return None if turns is None else TurnedKeys(turns)

    def pieces(
        self, stage: StagePlan, rows_per_block: int, rank: int, meter: Meter
    ) -> Iterator[Piece]:
        """A share's pixels, decoded piece by piece while `meter` counts."""
        with meter.part("state"):
            state = self.state(stage, stage.shares[rank])
        comm = _phantom(rank, len(stage.shares), meter)
        work = (self.model, state[0], stage.shares, stage.canvas, comm)
        yield from decode(*work, rows_per_block=rows_per_block)

    def encoding(self, stage: StagePlan, rank: int, num_frames: int | None, meter: Meter) -> None:
        """A share's encoding of so many frames, or of what a network is shown; `meter` counts."""
        share, comm = stage.shares[rank], _phantom(rank, len(stage.shares), meter)
        with band_mode(comm, stage.shares, canvas=stage.canvas):
            if num_frames:
                self.model.encoded(self._pixels(stage, share, num_frames))
            else:
                self._condition(stage, share)

    def state(
        self, stage: StagePlan, band: Band
    ) -> tuple[Tensor, tuple[Tensor, ...], list[dict[str, Tensor]]]:
        """Latents, the solver's memory, and the conditioning of every half."""
        canvas = stage.canvas
        shape = (1, self.facts.latent.channels, canvas.frames, band.rows, canvas.width)
        x = torch.empty(shape, device=META)
        num_history = solvers.solver(stage.schedule).num_history
        history = tuple(torch.empty_like(x) for _ in range(num_history))
        image = {name: torch.empty_like(x) for name, x in self._image(stage, band).items()}
        halves = [self._text() for _ in range(stage.guidance.num_halves)]
        return x, history, [half | image for half in halves]

    def _cached(self, stage: StagePlan, band: Band) -> list[Tensor]:
        """What a step cache keeps: of each half evaluated here what the first block added and what
        the others did, the first one's output at a step that computes, and latents of all halves.
        """
        if self.spec.cache is None:
            return []
        canvas, latent, halves = stage.canvas, self.facts.latent, stage.guidance.num_halves
        cells = canvas.frames * band.rows * canvas.width
        tokens = (1, cells // latent.patch**2, self.facts.cost.hidden)
        dtype, here = getattr(torch, self.spec.dtype), max(1, halves // self.mesh.guidance)
        inputs = (1, latent.channels, canvas.frames, band.rows, canvas.width)
        return [
            *(torch.empty(tokens, dtype=dtype, device=META) for _ in range(2 * here + 1)),
            *(torch.empty(inputs, device=META) for _ in range(halves)),
        ]

    def _text(self) -> dict[str, Tensor]:
        """What one encoded prompt is."""
        shapes = load_family(self.facts.family).text_shapes(self.facts, self.spec)
        dtype = getattr(torch, self.spec.dtype)
        return {n: torch.empty(shape, dtype=dtype, device=META) for n, shape in shapes.items()}

    def _image(self, stage: StagePlan, band: Band) -> Mapping[str, Tensor]:
        """What a picture adds for a band; its making is not counted here."""
        if not self.is_shown:
            return self._control(stage, band)
        with _disable_current_modes(), tracing(self.kind):
            return self._condition(stage, band)

    def _control(self, stage: StagePlan, band: Band) -> Mapping[str, Tensor]:
        """What ControlNets follow."""
        if not self.spec.controlnet:
            return {}
        control, number = self.method.control, len(self.spec.control)
        if control and (size := control.size(stage.canvas)):
            height, width = size
            step, channels = self.facts.latent.downscale, self.facts.latent.channels
            return {
                "control": torch.empty(
                    (1, 3 * number, 1, height * step, width * step), device=META
                ),
                "control_latents": torch.empty((1, channels, 1, height, width), device=META),
            }
        latents = (1, number * self.facts.latent.channels, 1, band.rows, stage.canvas.width)
        seen = getattr(self.model, "control_sees", ("pixels",))
        found = {}
        if "latents" in seen:
            found[CONTROL_TENSORS["latents"]] = torch.empty(latents, device=META)
        if "pixels" in seen:
            found[CONTROL_TENSORS["pixels"]] = self._pixels(stage, band, 1, channels=3 * number)
        return found

    def _condition(self, stage: StagePlan, band: Band) -> Mapping[str, Tensor]:
        """Of a first frame, or of what is around a mask."""
        if self.facts.inpaints:
            return self.model.inpaint_condition(self._pixels(stage, band, 1, channels=4))
        place = BandPlace(band, stage.canvas, self.positions)
        return self.model.image_condition(self._pixels(stage, band, 1), place)

    def _outside(self, x_BCTHW: Tensor) -> Outside | None:
        """What stays of a picture that is redrawn in part."""
        if not self.stays:
            return None
        clean, noise = torch.empty_like(x_BCTHW), torch.empty_like(x_BCTHW)
        return Outside(clean, noise, torch.empty_like(x_BCTHW[:, :1]))

    def _pixels(
        self, stage: StagePlan, band: Band, num_frames: int, *, channels: int = 3
    ) -> Tensor:
        downscale = self.facts.latent.downscale
        rows, columns = band.rows * downscale, stage.canvas.width * downscale
        return torch.empty((1, channels, num_frames, rows, columns), device=META)

    def num_frames(self, stage: StagePlan) -> int:
        """Of a stage's clip."""
        return (stage.canvas.frames - 1) * self.facts.latent.temporal + 1


def _phantom(rank: int, size: int, meter: Meter) -> Comm:
    """A rank alone, whose messages `meter` counts."""
    return phantom(rank, size, receiving=lambda: meter.part("in flight"), sending=count_sent)


def _shares(stage: StagePlan) -> Tensor:
    """Those of each prompt in each latent cell; a single prompt needs none."""
    sides = (stage.canvas.height, stage.canvas.width) if stage.edits else (0, 0)
    return torch.empty((len(stage.prompts), *sides), dtype=torch.float64, device=META)


_SKELETONS: dict[tuple[Any, ...], tuple[Model, list[Skeleton]]] = {}


def skeleton(facts: ModelFacts, spec: RenderSpec) -> tuple[Model, list[Skeleton]]:
    """The model and its parts, the last one asked for at hand."""
    weights = (spec.dtype, spec.variant, spec.quantization, spec.storage_dtype)
    loras = (each.path for each in all_loras(spec))
    files = [*Path(facts.folder).glob("*/config.json"), *loras]
    times = tuple((file, file.stat().st_mtime_ns) for file in sorted(files))
    key = (
        facts.family,
        facts.folder,
        spec.lora,
        spec.lora_2,
        all_loras(spec),
        spec.controlnet,
        *weights,
        times,
    )
    found = _SKELETONS.get(key)
    if found is None:
        loading.libraries(facts)
        with skeletons() as parts:
            model = load_family(facts.family).load(facts, spec, META)
        for part in parts:
            shorten(part.module)
        found = (model, parts)
        _SKELETONS.clear()  # other threads may be here as well
        _SKELETONS[key] = found
    return found
