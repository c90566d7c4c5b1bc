"""spec + model facts + method -> CanvasPlan: bands, blocks, sigmas, bytes. Needs no torch.

What cannot be drawn is refused here, before any work, with what would work instead.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from frieze.cluster.layout import Band, Canvas, LayoutError, Mesh, cut

from .errors import PlanError
from .family import ModelFacts, describe
from .method import Method, Stage, load_method
from .sampling import alpha_for, flow_sigmas
from .spec import RenderSpec

GIB = 2**30
BLOCK_SIZES = (512, 256, 128, 64, 32, 16)
BYTES_OF = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class StagePlan:
    """One stage: its canvas in latent cells, its bands, and its sigmas."""

    canvas: Canvas
    bands: tuple[Band, ...]
    align: int
    sigmas: tuple[float, ...]
    shift: float
    start: float
    enlarge: str

    @property
    def num_steps(self) -> int:
        """Steps of this stage: sigma intervals."""
        return len(self.sigmas) - 1


@dataclass(frozen=True)
class Estimate:
    """Bytes on each device, by part, and bytes of the store."""

    weights: int
    denoise: int
    decode: int

    @property
    def bytes_per_device(self) -> int:
        """Weights stay; the denoiser's and the decoder's activations are never there together."""
        return self.weights + max(self.denoise, self.decode)


@dataclass(frozen=True)
class CanvasPlan:
    """Everything that is decided before work starts. `str(plan)` is the table `plan` prints."""

    spec: RenderSpec
    facts: ModelFacts
    method: Method
    stages: tuple[StagePlan, ...]
    mesh: Mesh
    block: tuple[int, int]
    estimate: Estimate

    @property
    def num_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.num_steps for stage in self.stages)

    @property
    def num_blocks(self) -> int:
        """Blocks of the finished picture."""
        rows, columns = self.block
        return -(-self.spec.height // rows) * -(-self.spec.width // columns)

    @property
    def painted(self) -> tuple[int, ...]:
        """Stages whose picture the next one enlarges; it is kept in the store."""
        later = enumerate(self.stages[1:])
        return tuple(index for index, stage in later if stage.enlarge == "pixels")

    def picture_array(self, stage_index: int) -> int:
        """Where, among the store's arrays, the picture of a stage lies: after all latents."""
        return len(self.stages) + self.painted.index(stage_index)

    def __str__(self) -> str:
        return "\n".join(_table(self))


def plan(spec: RenderSpec, *, block: int | None = None) -> CanvasPlan:
    """Decide bands, blocks and sigmas for a spec; raises `PlanError`, `ModelError`, `SpecError`.

    `block` fixes the block size in pixels, as a resumed store must.
    """
    facts = describe(spec.model)
    method = load_method(spec, facts)
    _check_request(spec, facts)
    mesh = _mesh(spec)
    size = block or spec.chunk or _block_size(spec, facts)
    _check_block(size, spec, facts)
    stages = tuple(
        _stage(stage, spec, facts, size, last=stage is method.stages[-1]) for stage in method.stages
    )
    made = CanvasPlan(
        spec=spec,
        facts=facts,
        method=method,
        stages=stages,
        mesh=mesh,
        block=(size, min(size, spec.width)),
        estimate=_estimate(spec, facts, stages),
    )
    _check_memory(made)
    return made


def _check_request(spec: RenderSpec, facts: ModelFacts) -> None:
    unit = facts.latent.unit
    for name, value in (("height", spec.height), ("width", spec.width)):
        if value % unit:
            near = max(unit, round(value / unit) * unit)
            raise PlanError(
                f"{name} {value} is no multiple of {unit}, which {facts.family} needs; "
                f"the nearest that works is {near}"
            )
    if spec.negative_prompt is not None and not facts.takes_negative_prompt:
        raise PlanError(
            f"negative_prompt {spec.negative_prompt!r}: {facts.family} is guided without one; "
            "leave it out"
        )
    length = spec.max_sequence_length
    if length is not None and length > 512:
        raise PlanError(f"max_sequence_length {length} is more than {facts.family} reads; use 512")


def _mesh(spec: RenderSpec) -> Mesh:
    if spec.park is not None and not spec.local:
        raise PlanError(f"park {spec.park!r} is for bands of one process; use it with --local")
    if spec.workers % spec.ulysses:
        raise PlanError(
            f"ulysses {spec.ulysses} does not divide {spec.workers} workers; "
            f"use one of {[n for n in range(1, spec.workers + 1) if spec.workers % n == 0]}"
        )
    return Mesh(ring=spec.workers // spec.ulysses, ulysses=spec.ulysses)


def _block_size(spec: RenderSpec, facts: ModelFacts) -> int:
    """The largest block that leaves a row of blocks to each worker, and four rows in all."""
    wanted = max(4, spec.workers)
    unit = facts.latent.unit
    sizes = [size for size in BLOCK_SIZES if size % unit == 0] or [unit]
    for size in sizes:
        if spec.height // size >= wanted:
            return size
    return sizes[-1]


def _check_block(size: int, spec: RenderSpec, facts: ModelFacts) -> None:
    unit = facts.latent.unit
    if size % unit or size & (size - 1):
        raise PlanError(f"chunk {size} does not work; a power of two from {unit} to 512 does")
    rows = spec.height // size
    if spec.workers > rows:
        raise PlanError(
            f"{spec.workers} workers are more than the {rows} rows of {size}-pixel blocks in a "
            f"height of {spec.height}; use at most {rows} workers"
            + (" or a smaller chunk" if size > unit else "")
        )


def _stage(
    stage: Stage, spec: RenderSpec, facts: ModelFacts, block: int, *, last: bool
) -> StagePlan:
    unit, latent = facts.latent.unit, facts.latent
    if last and stage.scale != 1.0:
        raise PlanError(f"the last stage has scale {stage.scale}; the picture itself is scale 1")
    height, width = (
        max(1, round(side * stage.scale / unit)) * latent.patch
        for side in (spec.height, spec.width)
    )
    canvas = Canvas(frames=1, height=height, width=width)
    # Rows that are saved together: the picture's blocks at the end, at most 64 files before.
    patch_rows = latent.patch * max(1, height // (64 * latent.patch))
    align = block // latent.downscale if last else patch_rows
    try:
        bands = cut(height, spec.workers, align=align)
    except LayoutError as error:
        raise PlanError(f"a stage of {height * latent.downscale} rows: {error}") from None
    tokens = (height // latent.patch) * (width // latent.patch)
    shift = stage.shift or spec.shift or _shift(facts, tokens)
    sigmas = flow_sigmas(stage.steps or spec.num_inference_steps, shift, stage.start)
    return StagePlan(canvas, bands, align, sigmas, shift, stage.start, stage.enlarge)


def _shift(facts: ModelFacts, tokens: int) -> float:
    trained = (facts.training_size // facts.latent.unit) ** 2
    return alpha_for(facts.schedule, tokens, trained)


def _estimate(spec: RenderSpec, facts: ModelFacts, stages: tuple[StagePlan, ...]) -> Estimate:
    """Peak bytes per device (specs: about 20 live [S, hidden] tensors in a DiT block and two K/V
    blocks in flight; three live full-resolution tensors in the decoder's last block)."""
    size = BYTES_OF[spec.dtype]
    parts = facts.cost.weight_bytes
    weights = sum(parts[name] for name in ("transformer", "vae") if name in parts)
    patch, downscale = facts.latent.patch, facts.latent.downscale
    denoise = decode = 0
    for stage in stages:
        rows = max(band.rows for band in stage.bands)
        tokens = rows * stage.canvas.width // patch**2
        in_flight = 4 if spec.workers > 1 else 0
        denoise = max(denoise, (20 + in_flight) * tokens * facts.cost.hidden * size)
        pixels = rows * stage.canvas.width * downscale**2
        decode = pixels * (3 * facts.cost.decoder_channels * size + 8)
    return Estimate(weights, denoise, decode)


def _check_memory(made: CanvasPlan) -> None:
    """Refuse what this machine's memory cannot hold; a cluster's devices are not ours to see."""
    spec = made.spec
    if spec.address is not None or spec.device.startswith("cuda"):
        return
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shares = 1 if spec.local else spec.workers
    needed = made.estimate.bytes_per_device * spec.workers
    if spec.local:
        needed -= made.estimate.weights * (spec.workers - 1)
    if spec.park == "disk":
        needed = made.estimate.bytes_per_device
    if needed > available:
        raise PlanError(
            f"{spec.width}x{spec.height} {made.facts.family} on {spec.workers} workers needs "
            f"{needed / GIB:.1f} GiB of this machine's memory (it has {available / GIB:.1f}); "
            f"a cluster (--address) with {needed / shares / GIB:.1f} GiB on each of {shares} "
            "nodes would do, --local --park disk with more --workers, or a smaller picture"
        )


def _table(made: CanvasPlan) -> list[str]:
    spec, latent = made.spec, made.facts.latent
    lines = [
        f"picture   {spec.width} x {spec.height} px, {spec.bits} bit, seed {spec.seed}",
        f"model     {made.facts.family}, trained at {made.facts.training_size} px "
        f"({made.facts.folder})",
        f"method    {spec.method}",
        f"workers   {spec.workers} (ring {made.mesh.ring} x ulysses {made.mesh.ulysses})",
        f"blocks    {made.num_blocks} of {made.block[1]} x {made.block[0]} px",
    ]
    for number, stage in enumerate(made.stages, 1):
        width, height = (
            stage.canvas.width * latent.downscale,
            stage.canvas.height * latent.downscale,
        )
        rows = " + ".join(str(band.rows * latent.downscale) for band in stage.bands)
        lines.append(
            f"stage {number}   {width} x {height} px, {stage.num_steps} steps from sigma "
            f"{stage.start:g}, shift {stage.shift:.3g}, bands of {rows} rows"
        )
    part = made.estimate
    lines.append(
        f"memory    {part.bytes_per_device / GIB:.2f} GiB per worker: weights "
        f"{part.weights / GIB:.2f}, denoising {part.denoise / GIB:.2f}, "
        f"decoding {part.decode / GIB:.2f}"
    )
    return lines
