"""What a decoder of any size changes in a plan: what is denoised, and who decodes which rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from frieze.cluster.layout import Band, Canvas, LayoutError, Mesh, cut

from ..checkpoints import decoder
from ..checkpoints.decoder import OWN, PIXELS_A_TOKEN, DecoderFacts
from ..checkpoints.facts import ModelFacts
from ..errors import PlanError
from ..extrapolation.guides import HELD_BY
from ..inputs.sources import Source
from ..models.family import Guidance
from ..sampling.frame_windows import FrameWindow
from ..sampling.noise_levels import NoiseLevel, Table
from ..spec.render_spec import RenderSpec
from .checks.bands import TooManyWorkersError
from .checks.model import check_frames, check_sides
from .stage_plan import StagePlan, stage_bands

NO_NOISE = Table((NoiseLevel(0.0, 1.0, 0.0),), 0.0, None)  # levels of a stage without steps
MOST_CHUNKS = 64  # of a stage's latents, from top to bottom
ROUNDING = 1e-9  # of a logarithm: an enlargement by just the largest takes one round


def described(spec: RenderSpec, facts: ModelFacts) -> DecoderFacts | None:
    """The spec's decoder of any size, None where the autoencoder decodes; raises `ModelError`."""
    if spec.decoder is not None:
        return decoder.describe(spec.decoder, facts)
    if not spec.denoises:
        raise PlanError(
            f"upscale {spec.upscale!r}: what enlarges it is missing; give a decoder, a folder or "
            f"{OWN!r} for the model's own, or a creativity to redraw it"
        )
    return None


def drawn(spec: RenderSpec, facts: ModelFacts, size: tuple[int, int] = (0, 0)) -> RenderSpec:
    """The spec of what is denoised: the same shape at the trained size, or smaller if asked.

    What redraws a picture of a larger `size` has its area.

    Sides are whole units of the model, so the shape is the asked one's as nearly as they allow.
    """
    if spec.decoder is None:
        return spec
    unit = facts.latent.unit
    side = max(facts.training_size, math.sqrt(math.prod(size)))
    scale = min(1.0, side / math.sqrt(spec.height * spec.width))
    height, width = (
        max(1, round(side * scale / unit)) * unit for side in (spec.height, spec.width)
    )
    return spec.model_copy(update={"height": height, "width": width})


def check(asked: RenderSpec, drawn: RenderSpec, unit: int) -> None:
    """The picture is of whole tokens of the decoder; what is denoised has a row for each worker.

    `PlanError` names the nearest that works.
    """
    _check_tokens(asked)
    most = drawn.height // unit
    if asked.most_workers > most:
        raise TooManyWorkersError(
            f"{asked.most_workers} workers are more than the {most} rows of tokens of the "
            f"{drawn.width}x{drawn.height} picture that the decoder enlarges",
            most,
        )


def _check_tokens(asked: RenderSpec) -> None:
    for name, value in (("height", asked.height), ("width", asked.width)):
        if value % PIXELS_A_TOKEN:
            near = max(1, round(value / PIXELS_A_TOKEN)) * PIXELS_A_TOKEN
            raise PlanError(
                f"{name} {value} is no multiple of {PIXELS_A_TOKEN}, which the decoder needs; "
                f"the nearest that works is {near}"
            )


def check_redraw(spec: RenderSpec, source: Source, facts: ModelFacts) -> None:
    """A redraw starts from its own picture alone, in a size that is one for it and the model.

    `PlanError` names what would work.
    """
    for name in ("init", "image", "mask", "edit", "control", "stages"):
        if getattr(spec, name):
            raise PlanError(
                f"{name} does not go with upscale {spec.upscale!r}, which is redrawn whole and "
                "from itself; leave it out"
            )
    if facts.takes_image and not facts.image_optional:
        raise PlanError(
            f"upscale {spec.upscale!r}: {facts.pipeline} animates a first frame and redraws "
            "nothing; use a model without one"
        )
    if spec.num_frames > 1 and not facts.video:
        raise PlanError(
            f"upscale {spec.upscale!r} is a clip, and {facts.family} would redraw its frames one "
            "by one, each otherwise; use a model of clips, --with infgen, or --frames 1"
        )
    unit = PIXELS_A_TOKEN if spec.decoder is not None else facts.latent.unit
    check_enlargement(spec, source, facts, unit)


def check_given(spec: RenderSpec) -> None:
    """What says how a picture is redrawn has one to be redrawn; raises `PlanError`."""
    for name in ("creativity", "guide"):
        value = getattr(spec, name)
        if value is not None and not spec.redraws:
            needed = "upscale" if spec.upscale is None else "creativity"
            raise PlanError(f"{name} {value}: nothing is redrawn; give {needed}, or leave it out")


def redrawn(spec: RenderSpec, source: Source, windows: Sequence[FrameWindow]) -> list[str]:
    """What a plan says of a redraw: of what, how freely, held by what, a clip in how many parts."""
    held = spec.guide or HELD_BY
    lines = [
        f"redraws   {source.path}, {source.width} x {source.height} px, creativity "
        f"{spec.creativity:g}, held by {'nothing' if held == 'none' else held}"
    ]
    if len(windows) > 1:
        lines.append(f"          in {len(windows)} windows of {windows[0].stop} latent frames")
    return lines


def check_upscale(spec: RenderSpec) -> None:
    """An upscale starts from its own picture, and nothing of it is denoised."""
    for name in (
        "init",
        "image",
        "mask",
        "resize_mask",
        "feather",
        "resamplings",
        "place",
        "edit",
        "controlnet",
        "control",
        "lora",
        "lora_2",
        "cache",
        "wrap",
        "stages",
    ):
        if getattr(spec, name):
            raise PlanError(
                f"{name} is for what is denoised, and of upscale {spec.upscale!r} nothing is; "
                "leave it out"
            )


def check_enlargement(
    spec: RenderSpec, source: Source, facts: ModelFacts, unit: int = PIXELS_A_TOKEN
) -> None:
    """The size asked for is of whole tokens, no smaller than the picture, and of its shape.

    A token is of `unit` pixels. `PlanError` names what would work.
    """
    if facts.video:  # other autoencoders take a clip picture by picture
        check_frames(spec, facts)
    if unit == PIXELS_A_TOKEN:
        _check_tokens(spec)
    else:
        check_sides(unit, spec, facts)
    rows, columns, what = source.height, source.width, f"upscale {source.path!r}"
    if min(rows, columns) < facts.latent.downscale:
        least = facts.latent.downscale
        raise PlanError(
            f"{what} is {columns}x{rows} pixels; from {least}x{least} on there is a latent of it"
        )
    if spec.height < rows or spec.width < columns:
        raise PlanError(
            f"{what} is {columns}x{rows} pixels, and {spec.width}x{spec.height} would be smaller; "
            f"a larger size works, as {_of_shape(2 * min(rows, columns), source, unit)}"
        )
    # The longer side may be rounded to whole tokens, up or down.
    apart = abs(spec.height * columns - spec.width * rows)
    if apart >= unit * min(rows, columns):
        side = min(spec.height, spec.width)
        larger = side if side > min(rows, columns) else 2 * min(rows, columns)
        raise PlanError(
            f"{what} is {columns}x{rows} pixels, and {spec.width}x{spec.height} has another shape, "
            f"which nothing is cut off for; {_of_shape(larger, source, unit)} works"
        )


def _of_shape(side: int, source: Source, unit: int) -> str:
    """A size of the picture's shape, its shorter side about so many pixels, as WIDTHxHEIGHT."""
    least, most = sorted(source.size)
    shorter = -(-max(side, least) // unit) * unit
    longer = -(-shorter * most // (least * unit)) * unit
    wide = source.width > source.height
    return f"{longer}x{shorter}" if wide else f"{shorter}x{longer}"


def check_wrap(spec: RenderSpec, decoder: DecoderFacts, num_rounds: int) -> None:
    """What is enlarged again is read by rows that end at its edges; raises `PlanError`."""
    if spec.wrap is not None and num_rounds:
        most = decoder.config.largest_scale
        raise PlanError(
            f"wrap {spec.wrap}: {spec.width}x{spec.height} takes the decoder {num_rounds + 1} "
            f"rounds, and what it enlarges again ends at its edges; use at most {most:g} times the "
            "size that is drawn"
        )


def enlarging(
    size: tuple[int, int],
    spec: RenderSpec,
    facts: ModelFacts,
    decoder: DecoderFacts,
    mesh: Mesh,
) -> tuple[StagePlan, ...]:
    """The stages that encode what the decoder made, for it to enlarge that again.

    From a picture of `size` to the one asked for it goes in as few equal enlargements as the
    decoder was trained for: L_n = Enc(I_n-1) (InfGen, arXiv 2509.10441, sec. 3.4).
    """
    target = (spec.height, spec.width)
    scale = max(large / small for large, small in zip(target, size, strict=True))
    most = decoder.config.largest_scale
    num_rounds = max(1, math.ceil(math.log(scale) / math.log(most) - ROUNDING))
    unit = math.lcm(PIXELS_A_TOKEN, facts.latent.downscale)
    found = []
    for done in range(1, num_rounds):
        height, width = (
            round(small * (large / small) ** (done / num_rounds) / unit) * unit
            for large, small in zip(target, size, strict=True)
        )
        found.append(encoding((height, width), spec, facts, mesh))
    return tuple(found)


def encoding(size: tuple[int, int], spec: RenderSpec, facts: ModelFacts, mesh: Mesh) -> StagePlan:
    """The stage without steps that encodes a picture of so many rows and columns.

    One that is no whole cells is enlarged by some pixels for that alone.
    """
    latent = facts.latent
    height, width = (-(-side // latent.downscale) for side in size)
    canvas = Canvas(latent.frames(spec.num_frames), height, width)
    align = max(1, height // MOST_CHUNKS)
    most = max(1, height // align)
    if spec.most_workers > most:
        raise TooManyWorkersError(
            f"{spec.most_workers} workers are more than the {most} rows that a latent of "
            f"{size[1]}x{size[0]} pixels is cut into",
            most,
        )
    shares = cut(height, spec.workers, align=align)
    return StagePlan(
        canvas=canvas,
        bands=stage_bands(shares, mesh),
        shares=shares,
        align=align,
        table=NO_NOISE,
        start=0.0,
        enlarge="pixels",
        prompt="",
        guidance=Guidance(),
        schedule=facts.schedule,
    )


def rows(spec: RenderSpec, block: int) -> tuple[Band, ...]:
    """The picture's rows of each worker, of whole blocks; raises `PlanError`."""
    try:
        return cut(spec.height, spec.workers, align=block)
    except LayoutError as error:
        raise PlanError(f"a picture of {spec.height} rows: {error}") from None
