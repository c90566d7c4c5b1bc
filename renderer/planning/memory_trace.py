"""A model run for its memory: its own modules on meta tensors, on one rank of a phantom world.

Nothing is computed and nothing is held, yet every tensor that a worker would make is made, with
its halos, its keys and values on their way around the ring and its merges, and counted while it
lives. Equal layers are run three times and then stood in for by the shapes of their results.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from frieze.cluster.attention import Unmodified
from frieze.cluster.bands import band_mode, conv_shape
from frieze.cluster.comm import axis_comms, phantom
from frieze.cluster.layout import Band, Canvas, Mesh
from frieze.kernels.live_bytes import LiveBytes, Peak
from frieze.kernels.meta_attention import tracing
from frieze.kernels.meta_results import MetaResults
from frieze.kernels.operator_workspace import workspace

from ..autoencoders.decoding import decode
from ..checkpoints import lora, weight_files
from ..checkpoints.checkpoint import load_family
from ..checkpoints.facts import ModelFacts
from ..extrapolation.network_hooks import hook_method
from ..extrapolation.skip_filter import free_u
from ..files.library_errors import as_model_error
from ..models import loading
from ..models.device import device_type
from ..models.family import BandPlace, Guidance, Model
from ..models.meta_models import Skeleton, shorten, skeletons, treated
from ..models.positions import RotaryAxis
from ..models.regional_prompts import RegionalPrompts
from ..sampling import solvers
from .estimate import Estimate
from .step_kinds import HeaviestWindows, StepKind, step_kinds

if TYPE_CHECKING:
    from ..extrapolation.method import Method
    from ..spec.render_spec import RenderSpec
    from .stage_plan import StagePlan

META = torch.device("meta")
NUM_FRAME_GROUPS = 3  # after which a causal decoder holds no more than before
NUM_PIECES = 2


def estimate(
    facts: ModelFacts,
    spec: RenderSpec,
    stages: Sequence[StagePlan],
    mesh: Mesh,
    *,
    guidance: Guidance,
    method: Method,
    rows_per_block: int,
) -> Estimate:
    """What the render of a plan needs on each device; raises `ModelError` for a config that fails.

    A device of the spec's kind need not be there.
    """
    with as_model_error(Path(facts.folder), "be run as its configs say"):
        return MemoryTrace(facts, spec, mesh, guidance, method).estimate(stages, rows_per_block)


def axes(facts: ModelFacts, spec: RenderSpec, place: BandPlace) -> tuple[RotaryAxis, ...]:
    """The rotary axes of a model, without its weights."""
    return skeleton(facts, spec)[0].axes(place)


class MemoryTrace:
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
        self.solver = solvers.solver(facts.schedule)
        needs_image = facts.takes_image and not facts.image_optional
        self.animates = needs_image or spec.image is not None

    def estimate(self, stages: Sequence[StagePlan], rows_per_block: int) -> Estimate:
        """The most that any stage needs on the worker with the tallest band."""
        drawn = [stage for stage in stages if stage.num_steps]
        kinds = {id(stage): self.step_kinds(index, stage) for index, stage in enumerate(drawn)}
        forms = [frozenset(kind.form for kind in kinds[id(stage)]) for stage in drawn]
        denoise = max(
            (
                self.denoise(stage, rank, kind)
                for stage in _largest(drawn, forms)
                for kind in kinds[id(stage)]
                for rank in self.heaviest(stage.bands)
            ),
            key=_size,
            default=Peak(),
        )
        pairs = [pair for pair in itertools.pairwise(stages) if pair[1].enlarge == "pixels"]
        downscale = self.facts.latent.downscale
        drawn_pairs = [pair for pair in pairs if pair[0].num_steps]
        painted = _largest([before for before, after in drawn_pairs if after.num_steps])
        enlarged = [before for before, after in drawn_pairs if not after.num_steps]
        starts_from = self.spec.init or self.spec.upscale
        encoded = [stage for _, stage in pairs] + list(stages[: starts_from is not None])
        decode = [
            # What was encoded is enlarged as it is.
            *(self.decode(stage, rows_per_block) for stage in stages[-1:] if stage.num_steps),
            *(self.decode(s, s.align * downscale) for s in painted),
            *(self.decode(s, s.canvas.height * downscale) for s in enlarged),
        ]
        encode = [self.encode(stage) for stage in _largest(encoded)]
        if self.animates:
            encode += [self.animate(stage) for stage in _largest(stages)]
        parts = [part for part in self.parts if drawn or part.subfolder == "vae"]
        return Estimate(
            weights=sum(part.weight_bytes for part in parts),
            denoise=denoise.num_bytes + max(part.cast_bytes for part in parts),
            in_flight=denoise.parts.get("in flight", 0),
            decode=max(map(_size, decode), default=0),
            encode=max(map(_size, encode), default=0),
            text=text_bytes(self.facts, self.spec) if drawn else 0,
            host=self._noise_bytes(stages[-1].canvas),
            parts={part.subfolder: part.weight_bytes for part in parts},
        )

    def step_kinds(self, index: int, stage: StagePlan) -> tuple[StepKind, ...]:
        """The kinds of steps of a stage."""
        marks = self.model.denoiser_marks(stage.levels[0])
        layers = [name for each in marks if not each.local for name in each.names]
        return step_kinds(self.method, self.facts, self.spec.seed, index, stage, layers)

    def heaviest(self, bands: Sequence[Band]) -> set[int]:
        """The ranks that may hold most: by the rows of their band, and by their heads."""
        ulysses = self.mesh.ulysses
        groups = [bands[i : i + ulysses] for i in range(0, len(bands), ulysses)]
        spans = [Band(group[0].start, group[-1].stop) for group in groups]
        # Where heads do not share out evenly, the first rank of a group has more of them.
        return {tallest(bands), tallest(spans) * ulysses}

    @torch.no_grad()
    def denoise(self, stage: StagePlan, rank: int, kind: StepKind) -> Peak:
        """Peak of one step of a kind on the rank that draws this band."""
        band = stage.bands[rank]
        windows = HeaviestWindows(kind, self._asked(stage, rank)) if kind.is_windowed else None
        with self._watched() as live, conv_shape(kind.shape), treated(kind.alike):
            comm = phantom(rank, self.mesh.world_size, receiving=lambda: live.part("in flight"))
            comms = axis_comms(comm, self.mesh)
            pair = comm.group(self.mesh.group(rank, "guidance"))
            with live.part("state"):
                x, history, halves = self.state(stage, band)
                edits = [self._text() for _ in stage.edits]
                told = RegionalPrompts(stage.prompts, _shares(stage))
            index = min(self.solver.num_history, stage.num_steps - 1)
            level = stage.levels[index]

            def x0() -> Tensor:
                place = BandPlace(band, stage.canvas, self.positions)
                texts = [halves[0], *edits]
                asked = [(told.joined(texts), told.place(place, texts))]
                asked += [(tensors, place) for tensors in halves[1:]]
                clean = []
                for tensors, where in asked[: 1 if pair.size > 1 else None]:
                    modifier = windows or (Unmodified() if where.texts else None)
                    with (
                        band_mode(comms, stage.bands, canvas=stage.canvas, modifier=modifier),
                        free_u(self.method.skips, comms.world, stage.bands),
                    ):
                        each = self.model.denoised(x, level, tensors, where, self.guidance)
                    clean.append(each)
                if pair.size > 1:
                    clean = pair.all_gather(clean[0])
                if len(clean) == 1:
                    return clean[0]
                return self.model.guided(x, level, clean[0], clean[1], self.guidance)

            draw = (lambda: torch.empty_like(x)) if self.solver.needs_noise else None
            self.solver.step(index, stage.levels, x, x0(), history, draw)
        return live.peak

    def _asked(self, stage: StagePlan, rank: int) -> Band:
        """The rows whose queries a rank asks: those of its Ulysses group."""
        first = rank - rank % self.mesh.ulysses
        return Band(stage.bands[first].start, stage.bands[first + self.mesh.ulysses - 1].stop)

    @torch.no_grad()
    def decode(self, stage: StagePlan, rows_per_block: int, rank: int | None = None) -> Peak:
        """Peak of decoding a share: pictures to their first pieces, clips to three groups."""
        rank = tallest(stage.shares) if rank is None else rank
        with self._watched() as live:
            with live.part("state"):
                state = self.state(stage, stage.shares[rank])
            comm = phantom(rank, len(stage.shares), receiving=lambda: live.part("in flight"))
            pieces = decode(
                self.model,
                state[0],
                stage.shares,
                stage.canvas,
                comm,
                rows_per_block=rows_per_block,
            )
            frames: set[int] = set()
            for index, piece in enumerate(pieces, start=1):
                frames.add(piece.frame)
                if self.model.tail is not None and index == NUM_PIECES:
                    break
                if len(frames) > NUM_FRAME_GROUPS:
                    break
        return live.peak

    @torch.no_grad()
    def encode(self, stage: StagePlan, rank: int | None = None) -> Peak:
        """Peak of encoding a share of a picture or clip; one of pictures takes each frame."""
        return self._encoding(stage, rank, self._num_frames(stage) if self.facts.video else 1)

    @torch.no_grad()
    def animate(self, stage: StagePlan, rank: int | None = None) -> Peak:
        """Peak of making a share's conditioning of a first frame."""
        return self._encoding(stage, rank, None)

    def _encoding(self, stage: StagePlan, rank: int | None, num_frames: int | None) -> Peak:
        """Of so many frames, or of a first one."""
        rank = tallest(stage.shares) if rank is None else rank
        share = stage.shares[rank]
        with self._watched() as live:
            comm = phantom(rank, len(stage.shares), receiving=lambda: live.part("in flight"))
            pixels = self._pixels(stage, share, num_frames or 1)
            with band_mode(comm, stage.shares, canvas=stage.canvas):
                if num_frames:
                    self.model.encoded(pixels)
                else:
                    self.model.image_condition(
                        pixels, BandPlace(share, stage.canvas, self.positions)
                    )
        return live.peak

    @contextlib.contextmanager
    def _watched(self) -> Iterator[LiveBytes]:
        """A count of all but the weights, which layers that cast them replace and bring back."""
        live = LiveBytes(workspace, self.results)
        if self.spec.storage_dtype is not None:
            live.adopt(x for part in self.parts for x in part.module.parameters())
        with live, tracing(self.kind):
            yield live

    def state(
        self, stage: StagePlan, band: Band
    ) -> tuple[Tensor, tuple[Tensor, ...], list[dict[str, Tensor]]]:
        """Latents, the solver's memory, and the conditioning of every half."""
        canvas = stage.canvas
        shape = (1, self.facts.latent.channels, canvas.frames, band.rows, canvas.width)
        x = torch.empty(shape, device=META)
        history = tuple(torch.empty_like(x) for _ in range(self.solver.num_history))
        image = {name: torch.empty_like(x) for name, x in self._image(stage, band).items()}
        halves = [self._text() for _ in range(self.guidance.num_halves)]
        return x, history, [half | image for half in halves]

    def _text(self) -> dict[str, Tensor]:
        """What one encoded prompt is."""
        shapes = load_family(self.facts.family).text_shapes(self.facts, self.spec)
        dtype = getattr(torch, self.spec.dtype)
        return {n: torch.empty(shape, dtype=dtype, device=META) for n, shape in shapes.items()}

    def _image(self, stage: StagePlan, band: Band) -> Mapping[str, Tensor]:
        """What a first frame adds for a band; its making is not counted here."""
        if not self.animates:
            return {}
        place = BandPlace(band, stage.canvas, self.positions)
        with _disable_current_modes(), tracing(self.kind):
            return self.model.image_condition(self._pixels(stage, band, 1), place)

    def _pixels(self, stage: StagePlan, band: Band, num_frames: int) -> Tensor:
        downscale = self.facts.latent.downscale
        rows, columns = band.rows * downscale, stage.canvas.width * downscale
        return torch.empty((1, 3, num_frames, rows, columns), device=META)

    def _num_frames(self, stage: StagePlan) -> int:
        return (stage.canvas.frames - 1) * self.facts.latent.temporal + 1

    def _noise_bytes(self, canvas: Canvas) -> int:
        cells = self.facts.latent.channels * canvas.frames * canvas.height * canvas.width
        size = 4 if self.facts.float32_noise else getattr(torch, self.spec.dtype).itemsize
        return cells * size


def _shares(stage: StagePlan) -> Tensor:
    """Those of each prompt in each latent cell; a single prompt needs none."""
    sides = (stage.canvas.height, stage.canvas.width) if stage.edits else (0, 0)
    return torch.empty((len(stage.prompts), *sides), dtype=torch.float64, device=META)


def _largest(
    stages: Sequence[StagePlan], forms: Sequence[frozenset[Hashable]] | None = None
) -> list[StagePlan]:
    """The stages that no other exceeds on every side: the others need no more than that one.

    Nor one whose steps have other `forms`, unless it is less than half as large.
    """
    extents = [
        (s.canvas.frames, *(b.rows for b in s.bands), s.canvas.width, len(s.edits)) for s in stages
    ]

    def is_within(one: int, other: int) -> bool:
        if forms and not forms[one] <= forms[other]:
            large, small = (stages[n].canvas.height * stages[n].canvas.width for n in (other, one))
            if 2 * small > large:
                return False
        if extents[one] == extents[other]:
            return one > other
        return all(a <= b for a, b in zip(extents[one], extents[other], strict=True))

    numbers = range(len(stages))
    return [stages[n] for n in numbers if not any(is_within(n, m) for m in numbers if m != n)]


def tallest(bands: Sequence[Band]) -> int:
    """The band with most rows, and of those one with neighbours on both sides."""
    last = len(bands) - 1
    return max(range(len(bands)), key=lambda i: (bands[i].rows, 0 < i < last))


def text_bytes(facts: ModelFacts, spec: RenderSpec) -> int:
    """Bytes of the encoders' weights in the spec's precision, from the files' headers.

    A picture's encoder is float32.
    """
    folder = Path(facts.folder)
    sizes = {"text_encoder*": getattr(torch, spec.dtype).itemsize, "image_encoder": 4}
    return sum(
        size * _num_weights(file)
        for part, size in sizes.items()
        for file in folder.glob(f"{part}/*.safetensors")
    )


def _num_weights(file: Path) -> int:
    return sum(math.prod(shape) for shape in weight_files.shapes(file).values())


def _size(peak: Peak) -> int:
    return peak.num_bytes


_SKELETONS: dict[tuple[Any, ...], tuple[Model, list[Skeleton]]] = {}


def skeleton(facts: ModelFacts, spec: RenderSpec) -> tuple[Model, list[Skeleton]]:
    """The model and its parts, the last one asked for at hand."""
    weights = (spec.dtype, spec.variant, spec.quantization, spec.storage_dtype)
    entries = lora.parse(spec.lora + spec.lora_2)
    files = [*Path(facts.folder).glob("*/config.json"), *(each.path for each in entries)]
    times = tuple((file, file.stat().st_mtime_ns) for file in sorted(files))
    key = (facts.family, facts.folder, spec.lora, spec.lora_2, *weights, times)
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
