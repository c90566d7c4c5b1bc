"""The scale in use, for every way in which a family is guided; what does not fit is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from frieze.renderer.checkpoints.facts import GuidanceFacts, ModelFacts
from frieze.renderer.errors import PlanError
from frieze.renderer.planning.checks.model import check_experts
from frieze.renderer.planning.guidance_scales import (
    check_guidance,
    check_stage_guidance,
    guidance_scales,
)
from frieze.renderer.spec.render_spec import RenderSpec


@dataclass(frozen=True)
class Facts:
    """What of a checkpoint decides its guidance."""

    guidance: GuidanceFacts
    num_experts: int = 1
    family: str = "flux"
    pipeline: str = "FluxPipeline"


PLAIN = Facts(GuidanceFacts("guidance_scale", defaults={"guidance_scale": 7.5}))
# Its scale is added to 1: 0 is no guidance.
ADDED = Facts(GuidanceFacts("guidance_scale", defaults={"guidance_scale": 5.0}, neutral=0.0))
TOLD = Facts(GuidanceFacts("true_cfg_scale", True, {"guidance_scale": 3.5}))
NONE = Facts(GuidanceFacts())
FOG: dict[str, Any] = {"negative_prompt": "fog"}


def asked(facts: Facts, **fields: Any) -> tuple[RenderSpec, ModelFacts]:
    return RenderSpec(prompt="a", **fields), cast(ModelFacts, facts)


@pytest.mark.parametrize(
    ("facts", "fields", "scale", "embedded"),
    [
        (PLAIN, {}, 7.5, 0.0),
        (PLAIN, FOG, 7.5, 0.0),
        (PLAIN, {"guidance_scale": 2.0}, 2.0, 0.0),
        (PLAIN, {"guidance_scale": 1.0}, 1.0, 0.0),
        (PLAIN, {"guidance_scale": 0.5}, 1.0, 0.0),
        (ADDED, {}, 6.0, 0.0),
        (ADDED, {"guidance_scale": 0.0}, 1.0, 0.0),
        (TOLD, {}, 1.0, 3.5),
        (TOLD, {"guidance_scale": 2.0}, 1.0, 2.0),
        (TOLD, {"true_cfg_scale": 4.0}, 1.0, 3.5),  # nothing to be guided away from
        (TOLD, {"true_cfg_scale": 4.0, **FOG}, 4.0, 3.5),
        (NONE, {}, 1.0, 0.0),
        (NONE, {"guidance_scale": 9.0}, 1.0, 0.0),
    ],
)
def test_the_scale_is_the_given_one_or_the_pipelines_and_1_without_guidance(
    facts: Facts, fields: dict[str, Any], scale: float, embedded: float
) -> None:
    spec, known = asked(facts, **fields)
    check_guidance(spec, known)
    found = guidance_scales(spec, known)
    assert (found.scale, found.embedded) == (scale, embedded)
    assert found.num_halves == (1 if scale == 1 else 2)


def test_a_stage_has_its_own_scale() -> None:
    spec, known = asked(PLAIN)
    check_stage_guidance({"guidance_scale": 3.0}, spec, known)
    check_stage_guidance({}, spec, known)
    assert guidance_scales(spec, known, {"guidance_scale": 3.0}).scale == 3.0
    assert guidance_scales(spec, known, {}) == guidance_scales(spec, known)
    check_stage_guidance({"guidance_scale": 1.0}, spec, known)
    paired = spec.model_copy(update={"guidance_ranks": 2})
    with pytest.raises(PlanError, match="guidance_scale 1 evaluates 1 prompts and the render 2"):
        check_stage_guidance({"guidance_scale": 1.0}, paired, known)


@pytest.mark.parametrize(
    ("facts", "fields", "text"),
    [
        (PLAIN, {"true_cfg_scale": 2.0}, "true_cfg_scale 2: flux has none; use guidance_scale"),
        (PLAIN, {"guidance_scale": 1.0, **FOG}, "raise guidance_scale above 1, or leave it out"),
        (ADDED, {"guidance_scale": 0.0, **FOG}, "raise guidance_scale above 0, or leave it out"),
        (TOLD, FOG, "'fog': flux is guided without one; raise true_cfg_scale above 1, or"),
        (NONE, FOG, "'fog': flux is guided without one; leave it out"),
        (PLAIN, {"guidance_scale_2": 2.5}, "guidance_scale_2 2.5: FluxPipeline here has one"),
        (PLAIN, {"lora_2": ("a", "b")}, "lora_2 a b: FluxPipeline here .* expert; use lora$"),
    ],
)
def test_what_would_be_ignored_is_refused(facts: Facts, fields: dict[str, Any], text: str) -> None:
    spec, known = asked(facts, **fields)

    def check() -> None:
        check_guidance(spec, known)
        check_experts(spec, known)

    with pytest.raises(PlanError, match=text):
        check()


def test_two_experts_take_what_is_given_for_the_second() -> None:
    spec, known = asked(Facts(PLAIN.guidance, num_experts=2), guidance_scale_2=2.5, lora_2=("a",))
    check_experts(spec, known)
    assert guidance_scales(spec, known).scale_2 == 2.5
