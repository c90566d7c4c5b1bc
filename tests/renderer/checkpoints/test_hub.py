"""The hub's door: which files are asked for, and what is said when there are none."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from frieze.renderer.checkpoints import hub
from frieze.renderer.errors import ModelError

REPOSITORY = (
    *("README.md", "model_index.json", "all_in_one.safetensors"),
    *("transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"),
    "transformer/diffusion_pytorch_model.fp16.safetensors",
    *("text_encoder/config.json", "text_encoder/pytorch_model.bin"),
    *(f"text_encoder/model-0000{i}-of-00002.safetensors" for i in (1, 2)),
    "text_encoder/model.safetensors.index.json",
    *(f"text_encoder/model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)),
    *("vae/config.json", "vae/diffusion_pytorch_model.safetensors"),
    *("tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/spiece.model"),
    *("safety_checker/config.json", "safety_checker/model.safetensors"),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """A hub with one repository; the list is what was asked of it."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(model: str, **options: Any) -> str:
        calls.append(options)
        for name in REPOSITORY:
            wanted = any(fnmatch.fnmatch(name, p) for p in options["allow_patterns"])
            if wanted and not any(fnmatch.fnmatch(name, p) for p in options["ignore_patterns"]):
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def fetched(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*.*") if p.is_file()}


def test_only_what_a_part_is_loaded_from_is_fetched(asked: list[dict[str, Any]]) -> None:
    files = fetched(hub.snapshot("owner/name", "v1"))
    left_out = {name for name in REPOSITORY if name.endswith((".md", ".bin"))}
    left_out |= {name for name in REPOSITORY if "fp16" in name or "safety" in name}
    assert files == set(REPOSITORY) - left_out - {"all_in_one.safetensors"}
    assert [call["revision"] for call in asked] == ["v1"]


def test_a_variant_replaces_the_plain_weights_where_there_is_one(asked: list[Any]) -> None:
    files = fetched(hub.snapshot("owner/name", variant="fp16"))
    assert {name for name in files if name.endswith(".safetensors")} == {
        "transformer/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.fp16-00001-of-00002.safetensors",
        "text_encoder/model.fp16-00002-of-00002.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub's cache, and no connection."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_offline_the_cache_serves_the_revision_asked_for(cache: Path) -> None:
    for name, commit in (("main", "a" * 40), ("old", "b" * 40)):
        snapshot = cache / "models--owner--name" / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "model_index.json").write_text("{}")
        reference = cache / "models--owner--name" / "refs" / name
        reference.parent.mkdir(exist_ok=True)
        reference.write_text(commit)
    assert hub.snapshot("owner/name").name == "a" * 40
    assert hub.snapshot("owner/name", "old").name == "b" * 40


@pytest.mark.parametrize("revision", [None, "v9"])
def test_offline_and_not_in_the_cache_is_said_in_one_line(
    cache: Path, revision: str | None
) -> None:
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        hub.snapshot("owner/name", revision)
    assert "owner/name" in str(caught.value)
    assert (revision or "") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_diffusers_model_is_refused(cache: Path) -> None:
    snapshot = cache / "models--owner--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (cache / "models--owner--name" / "refs").mkdir()
    (cache / "models--owner--name" / "refs" / "main").write_text("a" * 40)
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        hub.snapshot("owner/name")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("GatedRepoError", "is gated; accept its terms"),
        ("RepositoryNotFoundError", "the hub has no such model"),
        ("RevisionNotFoundError", "no 'owner/name' at revision 'v9'"),
        ("HfHubHTTPError", "the hub gave none: too busy"),
    ],
)
def test_the_hubs_own_refusals_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, kind: str, says: str
) -> None:
    response = SimpleNamespace(headers={}, request=None)

    def snapshot_download(*_: Any, **__: Any) -> str:
        raise getattr(huggingface_hub.errors, kind)("too busy\nby far", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match=says):
        hub.snapshot("owner/name", "v9")
