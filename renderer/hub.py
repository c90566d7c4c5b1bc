"""The door to the model hub: a snapshot of a repository, safetensors only."""

from __future__ import annotations

from pathlib import Path

from .errors import ModelError

PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]


def snapshot(model: str) -> Path:
    """The local folder of a hub id, fetched unless it is cached; raises `ModelError`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=PATTERNS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"no model folder {model!r}, and the hub gave none: {reason}") from None
