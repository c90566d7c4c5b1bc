"""Find a model folder, and describe it by the family that serves it."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from .. import plugins
from ..errors import ModelError
from . import hub
from .configs import check_sizes, index_of
from .facts import ModelFacts
from .shipped import SHIPPED
from .weight_files import check_parts


def find(model: str, revision: str | None = None, variant: str | None = None) -> Path:
    """The folder of a model: a shipped one, a path, or a hub id at a revision."""
    if model in SHIPPED:
        return SHIPPED[model]
    folder = Path(os.path.expanduser(model))
    if os.path.isdir(folder):
        return folder
    if os.path.exists(folder):
        raise ModelError(f"model {model!r} is a file; a folder in diffusers layout works")
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ModelError(f"no model folder at {model!r}; {' and '.join(SHIPPED)} ship with Frieze")
    return hub.snapshot(model, revision, variant)


def describe(model: str, revision: str | None = None, variant: str | None = None) -> ModelFacts:
    """Facts of a model by name; raises `ModelError` when no family can serve it safely."""
    folder = find(model, revision, variant)
    index = index_of(folder)
    pipeline = index.pipeline
    check_parts(folder, index)
    served: dict[str, str] = {}
    for name in family_names():
        served |= dict.fromkeys(load_family(name).pipelines, name)
    if pipeline not in served:
        known = ", ".join(sorted(served))
        raise ModelError(f"{folder} holds a {pipeline or 'nameless'} model; Frieze knows {known}")
    check_sizes(folder)
    facts = load_family(served[pipeline]).describe(folder)
    assert isinstance(facts, ModelFacts)
    if facts.training_size < facts.latent.unit:
        raise ModelError(
            f"{folder} was trained at {facts.training_size} pixels, by its configs, which is less "
            f"than the {facts.latent.unit} of one patch; fetch the model anew"
        )
    return facts


def family_names() -> tuple[str, ...]:
    """The families in the folder."""
    return plugins.names("families")


def load_family(name: str) -> ModuleType:
    """The module of a family."""
    return plugins.load("families", name)
