"""Stores are made whole, replaced with care, and opened or refused with one clear line."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import zarr

from contracts.export import RUN, make_store, picture
from frieze.renderer.errors import FingerprintError, StoreError
from frieze.renderer.files.atomic import _aside
from frieze.renderer.store import arrays
from frieze.renderer.store.layout import LatentArray, StoreLayout
from frieze.renderer.store.store import Store
from support.stores import aged, flipped, rewritten

LATENTS = (LatentArray("0", (2, 4, 1, 24, 10), 8), LatentArray("1", (2, 4, 1, 50, 20), 16))


def one_line(caught: pytest.ExceptionInfo[StoreError]) -> str:
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


def create(path: Path, *, overwrite: bool = False) -> Store:
    return Store.create(
        path, StoreLayout(64, 64, (32, 32)), fingerprint="new", run=RUN, overwrite=overwrite
    )


def test_a_store_is_replaced_only_when_told(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    with pytest.raises(StoreError, match="already there"):
        create(tmp_path / "a.zarr")
    assert Store.open(tmp_path / "a.zarr").is_complete
    assert not create(tmp_path / "a.zarr", overwrite=True).is_complete
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_strangers_folder_or_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "b.zarr").write_text("a file")
    for name, why in (("a.zarr", "did not make"), ("b.zarr", "is a file")):
        with pytest.raises(StoreError, match=why) as caught:
            create(tmp_path / name, overwrite=True)
        one_line(caught)
    (tmp_path / "c.zarr").mkdir()
    create(tmp_path / "c.zarr", overwrite=True)


def test_places_that_cannot_hold_a_store_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "nowhere" / "a.zarr", Path("/proc/a.zarr")):
        with pytest.raises(StoreError) as caught:
            create(path)
        one_line(caught)
    usage = namedtuple("usage", "total used free")(10, 10, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match="free"):
        create(tmp_path / "a.zarr")
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StoreError, match="cannot be written"):
        create(tmp_path / "a.zarr")


def test_a_crash_while_replacing_leaves_the_old_store(tmp_path: Path) -> None:
    old = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    os.replace(old.path, _aside(old.path))
    assert Store.open(tmp_path / "a.zarr").is_complete
    shutil.copytree(old.path, _aside(old.path))
    create(tmp_path / "a.zarr", overwrite=True)
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_an_error_while_creating_leaves_the_old_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("frieze.renderer.store.store.write_documents", fail)
    with pytest.raises(StoreError, match="No space"):
        create(tmp_path / "a.zarr", overwrite=True)
    assert Store.open(tmp_path / "a.zarr").is_complete
    assert os.listdir(tmp_path) == ["a.zarr"]


def damage_json(path: Path) -> None:
    (path / "frieze" / "run.json").write_text('{"format": ')


def damage_format(path: Path) -> None:
    (path / "frieze" / "run.json").write_text('{"format": "other"}')


def damage_pickle(path: Path) -> None:
    (path / "frieze" / "run.json").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")


def damage_layout(path: Path) -> None:
    about = json.loads((path / "frieze" / "run.json").read_text())
    about["layout"]["surprise"] = 1
    (path / "frieze" / "run.json").write_text(json.dumps(about))


def damage_array(path: Path) -> None:
    shutil.rmtree(path / "0")


def damage_root(path: Path) -> None:
    (path / "zarr.json").write_text("{")


def damage_metadata(path: Path) -> None:
    text = (path / "0" / "zarr.json").read_text()
    (path / "0" / "zarr.json").write_text(text[: len(text) // 2])


def damage_codec(path: Path) -> None:
    about = json.loads((path / "0" / "zarr.json").read_text())
    (sharding,) = about["codecs"]
    sharding["configuration"]["codecs"][1] = {"name": "gzip", "configuration": {"level": 1}}
    (path / "0" / "zarr.json").write_text(json.dumps(about))


def test_only_codecs_of_our_own_are_run(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    damage_codec(store.path)
    assert zarr.open_array(store.path / "0").shape == (3, 64, 64), "control"
    document = json.loads((store.path / "0" / "zarr.json").read_text())
    rewritten(store.path, lambda about: about["documents"].update({"0/zarr.json": document}))
    with pytest.raises(StoreError, match="coded with gzip"):
        Store.open(store.path)
    aged(store.path)
    with pytest.raises(StoreError, match="coded with gzip"):
        Store.open(store.path)


def damage_shape(path: Path) -> None:
    text = (path / "0" / "zarr.json").read_text()
    (path / "0" / "zarr.json").write_text(text.replace("64", "96"))


@pytest.mark.parametrize(
    "damage",
    [
        damage_json,
        damage_format,
        damage_pickle,
        damage_layout,
        damage_array,
        damage_root,
        damage_metadata,
        damage_codec,
        damage_shape,
    ],
)
def test_a_damaged_store_is_one_clear_error(tmp_path: Path, damage: object) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), latents=LATENTS)
    assert callable(damage)
    damage(store.path)
    with pytest.raises(StoreError, match="is damaged") as caught:
        Store.open(store.path)
    one_line(caught)


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "half.zarr" / "frieze").mkdir(parents=True)
    (tmp_path / "foreign.zarr").mkdir()
    (tmp_path / "file.zarr").write_text("")
    for name, why in (
        ("half", "half made"),
        ("foreign", "no Frieze store"),
        ("file", "no store"),
        ("absent", "no store"),
    ):
        with pytest.raises(StoreError, match=why) as caught:
            Store.open(tmp_path / f"{name}.zarr")
        one_line(caught)
    create(tmp_path / "half.zarr", overwrite=True)


def test_a_lost_or_torn_block_is_an_error_not_black(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    shard = store.path / "0" / "c" / "0" / "1" / "0"
    whole = shard.read_bytes()
    for damaged in (whole[:-5], whole[:5], b""):
        shard.write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged") as caught:
            list(store.in_order())
        one_line(caught)
    if_filled = zarr.open_array(store.path / "0")[:, 32:, :32]
    assert if_filled.max() == 0, "control: zarr itself says nothing"
    shard.unlink()
    with pytest.raises(StoreError, match="missing"):
        list(store.in_order())


@pytest.mark.parametrize("name", ["0/c/0/1/0", "frieze/latents/1/c/0/0/0/2/0"])
def test_every_flipped_bit_is_seen_and_by_other_software_too(tmp_path: Path, name: str) -> None:
    import tensorstore

    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), latents=LATENTS)
    store.save_latents(1, 0, slice(0, 50), np.ones((4, 1, 50, 20), "f4"))
    file, array = store.path / name, str(store.path / name.partition("/c/")[0])
    whole = file.read_bytes()

    def by_tensorstore() -> object:
        kept = {"driver": "file", "path": array}
        return tensorstore.open({"driver": "zarr3", "kvstore": kept}).result()[0].read().result()

    by_tensorstore()
    for position in range(0, len(whole), len(whole) // 9):
        flipped(file, position)
        with pytest.raises(StoreError, match="damaged"):
            store.read_rows(32, 64) if name[0] == "0" else store.load_latents(1, 0, slice(32, 50))
        with pytest.raises(ValueError, match=r"Digest mismatch|Error reading"):
            by_tensorstore()
        with pytest.raises(ValueError, match="checksum do not match"):
            zarr.open_array(array)[0]
        file.write_bytes(whole)


def test_a_store_from_before_checksums_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "PIXEL_CODECS", arrays.PIXEL_CODECS[:1])
    monkeypatch.setattr(arrays, "LATENT_CODECS", None)
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), latents=LATENTS)
    store.save_latents(1, 0, slice(0, 50), np.ones((4, 1, 50, 20), "f4"))
    again = Store.open(aged(store.path))
    np.testing.assert_array_equal(again.read_rows(0, 64), picture(64, 64))
    file = store.path / "frieze/latents/1/c/0/0/0/2/0"
    flipped(file, 3)
    assert again.load_latents(1, 0, slice(32, 33))[0, 0, 0, 0] != 1, "control: unnoticed"
    for damaged in (b"", file.read_bytes()[:-4]):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            again.load_latents(1, 0, slice(32, 50))


def test_a_resume_that_does_not_fit_says_what_differs(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    store.check_fingerprint("f", {"picture": {"seed": 8}})
    with pytest.raises(FingerprintError) as caught:
        store.check_fingerprint(
            "g", {"picture": {**RUN["picture"], "seed": 8}, "weights": "abc", "version": "2"}
        )
    text = one_line(caught)
    assert "picture.seed: 7 in the store, 8 asked for" in text
    assert 'version: "0.1.0" in the store, "2" asked for' in text
    assert "prompt" not in text
    assert "weights" not in text
