"""Prompts to conditioning; the encoders are freed again."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.checkpoint import load_family
from ..errors import FriezeError
from ..files.library_errors import as_model_error
from ..models import finite, loading, truncation
from ..models.family import Conditioning
from ..planning import weight_names
from .model_cache import device_of, weights
from .precision import exactly

if TYPE_CHECKING:
    import numpy as np

    from ..checkpoints.facts import ModelFacts
    from ..planning.canvas_plan import CanvasPlan
    from ..spec.render_spec import RenderSpec


def encode_prompts(plan: CanvasPlan, image: np.ndarray | None) -> dict[str, Conditioning]:
    """By prompt: it and its negative, on the CPU; the text encoders live for this call only.

    `image` [H, W, 3] in [0, 1] is the first frame, for models that animate one.
    """
    with loading.kept_encoders():
        return _encoded(plan, image)


def encode_many(
    asked: Sequence[tuple[CanvasPlan, np.ndarray | None]],
) -> list[dict[str, Conditioning] | FriezeError]:
    """`encode_prompts` of each; plans of the same weights that follow each other load them once.

    What a plan's prompts were refused with stands in their place.
    """
    found: list[dict[str, Conditioning] | FriezeError] = []
    for _, alike in itertools.groupby(asked, key=lambda each: weights(each[0])):
        with loading.kept_encoders():
            for plan, image in alike:
                try:
                    found.append(_encoded(plan, image))
                except FriezeError as error:
                    found.append(error)
    return found


def _encoded(plan: CanvasPlan, image: np.ndarray | None) -> dict[str, Conditioning]:
    return encoded(plan.facts, plan.spec, plan.prompts, plan.num_halves, image)


@exactly
def encoded(
    facts: ModelFacts,
    spec: RenderSpec,
    prompts: Sequence[str],
    halves: int,
    image: np.ndarray | None = None,
) -> dict[str, Conditioning]:
    """By prompt: it and, of two halves, the spec's negative one, on the CPU.

    Inside `loading.kept_encoders` the encoders are loaded once for all calls.
    """
    loading.libraries(facts)
    remarks = weight_names.check(facts, spec)  # before any weight is read

    def one(prompt: str) -> Conditioning:
        folder = Path(facts.folder)
        with truncation.calls() as calls, as_model_error(folder, "encode the prompt"):
            found: Conditioning = load_family(facts.family).encode(
                facts,
                spec.model_copy(update={"prompt": prompt}),
                device_of(spec),
                halves,
                image,
            )
        if not all(finite.is_finite(half.values()) for half in found.halves):
            raise finite.error("what the text encoders make of it", "the prompt", spec)
        cuts = truncation.cuts(calls, prompt, spec.negative_prompt)
        return dataclasses.replace(found.on("cpu"), cuts=cuts, remarks=remarks)

    return {prompt: one(prompt) for prompt in prompts}
