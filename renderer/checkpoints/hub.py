"""The door to the model hub: a snapshot of a repository, safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

FACTS = ["*.json", "*.txt", "*.model", "*.jinja"]
WEIGHTS = ("diffusion_pytorch_model", "model")
UNUSED = ["safety_checker/*"]


def snapshot(model: str, revision: str | None = None, variant: str | None = None) -> Path:
    """The local folder of a hub id at a branch, tag or commit, fetched unless it is cached.

    With a variant a part's plain weights are fetched only where it has none of the variant.
    Raises `ModelError`.
    """
    folder = _fetched(model, revision, [*FACTS, *_weights("*", variant)])
    if variant is not None:
        parts = [path.parent for path in sorted(folder.glob("*/config.json"))]
        bare = [part.name for part in parts if not any(part.glob(f"*.{variant}[.-]*safetensors"))]
        plain = [pattern for name in bare for pattern in _weights(name, None)]
        folder = _fetched(model, revision, plain) if plain else folder
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"{model} at the hub is no model in diffusers layout: no model_index.json")
    return folder


def _weights(part: str, variant: str | None) -> list[str]:
    """Names of whole and sharded weights; the last is how variants' shards were named before."""
    if variant is None:
        return [
            f"{part}/{name}{end}"
            for name in WEIGHTS
            for end in (".safetensors", "-*-of-*.safetensors")
        ]
    ends = (
        f".{variant}.safetensors",
        f".{variant}-*-of-*.safetensors",
        f"-*-of-*.{variant}.safetensors",
    )
    return [f"{part}/{name}{end}" for name in WEIGHTS for end in ends]


def _fetched(model: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    where = f"{model!r}" if revision is None else f"{model!r} at revision {revision!r}"
    try:
        return Path(
            snapshot_download(
                model, revision=revision, allow_patterns=list(patterns), ignore_patterns=UNUSED
            )
        )
    except errors.GatedRepoError:
        raise ModelError(f"{where} is gated; accept its terms on the hub and log in") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(f"no folder {model!r}, and the hub has no such model") from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"the hub has no {where}; a branch, tag or commit works") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise ModelError(
            f"no folder {model!r}; the hub cannot be reached and its cache has no {where}: "
            "fetch it once with a connection, or give a folder"
        ) from None
    # HTTPError is the HTTP library's own, whichever the hub's client uses.
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:  # type: ignore[attr-defined]
        why = first_line(error)
        raise ModelError(f"no folder {model!r}, and the hub gave none: {why}") from None
