"""What a method cannot go with: models, attention, tiles, caches, sides that meet, masks, networks.

All raise `PlanError`.
"""

from __future__ import annotations

from ...checkpoints import controlnet
from ...checkpoints.facts import ModelFacts
from ...errors import PlanError
from ...extrapolation.guides import Detail, Resolution, View
from ...extrapolation.method import Method
from ...models.positions import trained
from ...spec.attend import KINDS, Attend
from ...spec.render_spec import RenderSpec
from ...spec.step_cache import step_cache


def check_method(spec: RenderSpec, facts: ModelFacts, method: Method) -> None:
    """A method that moves or weighs rotary positions does nothing where there are none."""
    if facts.rotary:
        return
    focus = method.focus
    measures = focus is not None and (focus.scale is not None or focus.constant is not None)
    weighs = method.gains is not None or measures
    if weighs or (method.positions is not trained and method.absolute is None):
        raise PlanError(
            f"method {spec.method!r} is for rotary positions, and {facts.family} has none; "
            "none, auto, pi, imax, hiflow and cinescale work with it, with a U-Net hidiffusion too"
        )


def check_attention(kind: Attend, spec: RenderSpec, facts: ModelFacts, method: Method) -> None:
    """Refuses what would draw something else than it says."""
    if kind == "full":
        return
    others = ", ".join(each for each in KINDS if each != "pooled")
    if method.decay is not None:
        raise PlanError(
            f"attend {kind}: method {spec.method!r} lets logits fade along the whole clip; use full"
        )
    if method.key_positions is not None:
        raise PlanError(
            f"attend {kind}: method {spec.method!r} counts the positions of keys for each tile of "
            "the canvas; use full"
        )
    if kind != "pooled":
        return
    if facts.attentions:
        raise PlanError(
            f"attend pooled: a U-Net ({facts.family}) has no positions, which pooling follows; use "
            f"{others}, or method hidiffusion or cinescale"
        )
    if not facts.rotary:
        raise PlanError(
            f"attend pooled: how far to pool follows from rotary positions, and {facts.family} "
            f"has learnt ones; use {others}"
        )
    if method.token_spacing is None:
        raise PlanError(
            f"attend pooled: method {spec.method!r} keeps neighbours as far apart as in training, "
            f"so that the keys of a block would cancel; use method auto or pi, or attend {others}"
        )


def check_tiles(spec: RenderSpec, method: Method) -> None:
    """Refuses what a canvas that is drawn in tiles cannot have: what looks at all of it."""
    whole = {
        "convolutions": method.convolutions is not None,
        "skips": method.skips is not None,
        "gains": method.needs_spectrum,
        "keys": method.key_positions is not None,
    }
    if any(whole.values()):
        raise PlanError(
            f"strategy {spec.strategy!r}: method {spec.method!r} changes the network by the size "
            "of the whole canvas, which tiles do not have; use auto, pi, hiflow, imax or none"
        )
    stages = spec.stages or ()
    asked = [text for text in (spec.attend, *(stage.attend for stage in stages)) if text]
    if asked:
        raise PlanError(
            f"attend {asked[0]}: with strategy {spec.strategy!r} each tile attends to itself; "
            "leave it out, or use strategy 'bands'"
        )
    if spec.ulysses > 1:
        raise PlanError(
            f"ulysses {spec.ulysses}: with strategy {spec.strategy!r} no two workers attend "
            "together; use 1"
        )
    if spec.image is not None:
        raise PlanError(
            f"image {spec.image!r}: strategy {spec.strategy!r} gives tiles no first frame; use "
            "strategy 'bands'"
        )
    if spec.cache:
        raise PlanError(
            f"cache {spec.cache}: with strategy {spec.strategy!r} tiles lie elsewhere at every "
            "step, so that nothing is reused; leave it out"
        )


def check_cache(spec: RenderSpec, facts: ModelFacts, method: Method, stages: list[int]) -> None:
    """Refuses a step cache where there is nothing that it could reuse; `stages` count steps."""
    if spec.cache is None:
        return
    asked, guide, ends = f"cache {spec.cache}", method.guide, step_cache(spec.cache).ends
    if facts.num_blocks < 2:
        what = "a U-Net" if facts.attentions else facts.family
        raise PlanError(
            f"{asked}: {what} ({facts.pipeline}) has no run of blocks behind a first one; it works "
            "with flux, flux2, sd3, qwen, zimage and wan; leave it out"
        )
    if spec.strategy != "bands":
        raise PlanError(f"{asked}: strategy {spec.strategy!r} runs the network in parts; use bands")
    if spec.redraws and spec.num_frames > max(1, facts.training_frames):
        raise PlanError(
            f"{asked}: a clip of more than {facts.training_frames} frames is redrawn in windows of "
            "frames, each of which changes otherwise; leave it out"
        )
    if isinstance(guide, Resolution) and guide.is_on and guide.half_token:
        raise PlanError(
            f"{asked}: method {spec.method!r} moves all tokens by half of one at every other step; "
            "use half_token false, or another method"
        )
    if not any(steps > 2 * ends for steps in stages):
        raise PlanError(
            f"{asked}: of at most {max(stages, default=0)} steps a stage {ends} at each end are "
            "computed anyway; use more steps, or leave it out"
        )


def check_wrap(spec: RenderSpec, facts: ModelFacts, method: Method) -> None:
    """Refuses a canvas without edges to what knows where its edges are."""
    if spec.wrap is None:
        return
    given = [name for name in ("init", "image", "upscale", "control") if getattr(spec, name)]
    whole, why = (method.convolutions, method.key_positions, method.skips), ""
    texts = (spec.attend, *(stage.attend for stage in spec.stages or ()))
    attends = [text for text in texts if text not in (None, "full", "pooled")]
    is_windowed = method.windows is not None and spec.method != "auto" and not any(texts)
    if not facts.rotary and not facts.attentions:
        why = f"{facts.family} has learnt positions; use a model with rotary ones, or a U-Net"
    elif given:
        why = f"{given[0]} {_first(getattr(spec, given[0]))!r} ends at its edges; leave it out"
    elif spec.strategy != "bands":
        why = f"strategy {spec.strategy!r} ends at its tiles' edges; use bands"
    elif method.guide is not None:
        why = f"method {spec.method!r} is guided by what ends at its edges; use auto, pi or none"
    elif attends:
        why = f"attend {attends[0]} ends at windows' edges; use full or pooled"
    elif any(part is not None for part in whole) or method.needs_spectrum or is_windowed:
        why = f"method {spec.method!r} looks at parts of the canvas; use auto, pi or none"
    if why:
        raise PlanError(f"wrap {spec.wrap}: {why}")


def _first(value: str | tuple[str, ...]) -> str:
    """A file's name, the first of several."""
    return value if isinstance(value, str) else value[0]


def check_mask(spec: RenderSpec, method: Method) -> None:
    """A mask without a picture to redraw is for a method that guides its regions differently."""
    if spec.mask is not None and spec.init is None and not isinstance(method.guide, Detail):
        raise PlanError(
            f"mask {spec.mask!r}: method {spec.method!r} treats all regions alike; leave it out, "
            "use cinescale, or give an init to redraw there"
        )


def check_control(spec: RenderSpec, facts: ModelFacts, method: Method) -> None:
    """A ControlNet of the model's family, and what it goes with."""
    controlnet.check(spec, facts)
    if not spec.controlnet:
        return
    is_unfit = method.convolutions is not None and method.control is None
    changes = is_unfit or isinstance(method.guide, Resolution | View)
    for name, value in {"method": spec.method if changes else None, "cache": spec.cache}.items():
        if value is not None:
            raise PlanError(f"{name} {value!r} changes which features a controlnet's are added to")
    if spec.strategy != "bands":
        raise PlanError(f"strategy {spec.strategy!r} shows a controlnet no picture; use bands")
    if spec.edit and facts.family == "flux":
        raise PlanError(
            f"edit {spec.edit[0].prompt!r}: a ControlNet of {facts.family} is told one prompt for "
            "the whole canvas; leave one of both out"
        )


def check_edits(spec: RenderSpec, num_stages: int) -> None:
    """Edits act in a stage that there is."""
    if spec.edit_stage > num_stages:
        there = f"{num_stages} stages; 1 to {num_stages} work" if num_stages > 1 else "one stage"
        raise PlanError(f"edit_stage {spec.edit_stage}: the render has {there}")
