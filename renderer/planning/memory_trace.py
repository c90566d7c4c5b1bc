"""What a model needs of memory: the tensors of `meta_render.py`, counted while they live."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from frieze.cluster.layout import Band, Canvas, Mesh
from frieze.kernels.live_bytes import LiveBytes, Peak
from frieze.kernels.meta_attention import tracing
from frieze.kernels.operator_workspace import workspace

from ..checkpoints import weight_files
from ..checkpoints.facts import ModelFacts
from ..files.library_errors import as_model_error
from ..models.family import Guidance
from .estimate import Estimate
from .meta_render import MetaRender
from .step_kinds import HeaviestWindows, StepKind

if TYPE_CHECKING:
    from ..extrapolation.method import Method
    from ..spec.render_spec import RenderSpec
    from .stage_plan import StagePlan

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


class MemoryTrace(MetaRender):
    """What one worker holds, of those that draw with a model without weights."""

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
                for rank in self._heaviest(stage)
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
        encoded += drawn if self.stays else []
        decode = [
            # What was encoded is enlarged as it is.
            *(self.decode(stage, rows_per_block) for stage in stages[-1:] if stage.num_steps),
            *(self.decode(s, s.align * downscale) for s in painted),
            *(self.decode(s, s.canvas.height * downscale) for s in enlarged),
        ]
        encode = [self.encode(stage) for stage in _largest(encoded)]
        if self.is_shown:
            encode += [self.animate(stage) for stage in _largest(stages)]
        parts = [part for part in self.parts if drawn or part.subfolder == "vae"]
        return Estimate(
            weights=sum(part.weight_bytes for part in parts),
            denoise=denoise.num_bytes + max(part.cast_bytes for part in parts),
            in_flight=denoise.parts.get("in flight", 0),
            decode=max(map(_size, decode), default=0),
            encode=max(map(_size, encode), default=0),
            text=text_bytes(self.facts, self.spec) if drawn else 0,
            host=self._noise_bytes(stages[-1].canvas) + sum(part.host_bytes for part in parts),
            parts={part.subfolder: part.weight_bytes for part in parts},
        )

    def _heaviest(self, stage: StagePlan) -> set[int]:
        """The ranks that may hold most in a step; the last one, where there are tiles, as well."""
        found = self.heaviest(stage.bands)
        return found | {len(stage.bands) - 1} if self.tiling(stage) else found

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
        windows = HeaviestWindows(kind, self._asked(stage, rank)) if kind.is_windowed else None
        with self._live_bytes() as live:
            self.step(stage, rank, kind, windows, live)
        return live.peak

    def _asked(self, stage: StagePlan, rank: int) -> Band:
        """The rows whose queries a rank asks: those of its Ulysses group."""
        first = rank - rank % self.mesh.ulysses
        return Band(stage.bands[first].start, stage.bands[first + self.mesh.ulysses - 1].stop)

    @torch.no_grad()
    def decode(self, stage: StagePlan, rows_per_block: int, rank: int | None = None) -> Peak:
        """Peak of decoding a share: pictures to their first pieces, clips to three groups."""
        rank = tallest(stage.shares) if rank is None else rank
        with self._live_bytes() as live:
            frames: set[int] = set()
            pieces = self.pieces(stage, rows_per_block, rank, live)
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
        return self._encoding(stage, rank, self.num_frames(stage) if self.facts.video else 1)

    @torch.no_grad()
    def animate(self, stage: StagePlan, rank: int | None = None) -> Peak:
        """Peak of making a share's conditioning of a first frame."""
        return self._encoding(stage, rank, None)

    def _encoding(self, stage: StagePlan, rank: int | None, num_frames: int | None) -> Peak:
        """Of so many frames, or of a first one."""
        rank = tallest(stage.shares) if rank is None else rank
        with self._live_bytes() as live:
            self.encoding(stage, rank, num_frames, live)
        return live.peak

    @contextlib.contextmanager
    def _live_bytes(self) -> Iterator[LiveBytes]:
        """A count of all but the weights, which layers that cast them replace and bring back."""
        live = LiveBytes(workspace, self.results)
        if self.spec.storage_dtype is not None:
            live.adopt(x for part in self.parts for x in part.module.parameters())
        with live, tracing(self.kind):
            yield live

    def _noise_bytes(self, canvas: Canvas) -> int:
        cells = self.facts.latent.channels * canvas.frames * canvas.height * canvas.width
        size = 4 if self.facts.float32_noise else getattr(torch, self.spec.dtype).itemsize
        return cells * size


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
