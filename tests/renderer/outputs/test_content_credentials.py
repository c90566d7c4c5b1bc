"""Signed Content Credentials, as C2PA's own reader finds them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import c2pa
import numpy as np
import pytest
import tifffile
from PIL import Image

from contracts.export import RUN, clip, make_store, picture
from frieze.renderer import Event, PlanError, RenderCancelledError, batch, render, resume
from frieze.renderer.errors import ExportError, SpecError
from frieze.renderer.outputs import exporting
from frieze.renderer.outputs.content_credentials import KINDS, Signing, check
from frieze.renderer.outputs.signer import PASSPHRASE, asked_for, signer
from frieze.renderer.store.layout import LatentArray, StoreLayout
from support.certificates import Authority
from support.command_line import frieze, refused
from support.drawing import small_spec, stop_after
from tolerances import AMPLE

UNTRUSTED = "signingCredential.untrusted"  # all that a reader has against an unknown authority
DEAD = "http://127.0.0.1:9/timestamps"  # where nothing listens


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture(scope="module")
def files(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate, and its key."""
    return authority.issue(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="module")
def signs(files: tuple[str, str]) -> Signing:
    return Signing(signer(*files))


def reader(path: Path, root: str | None = None) -> Any:
    """C2PA's reader of a file, which trusts a root if one is given."""
    trust = {} if root is None else {"trust": {"user_anchors": root}}
    context = c2pa.Context(c2pa.Settings.from_dict(trust)) if trust else None
    return c2pa.Reader(path, context=context)


def failures(found: Any) -> list[str]:
    return [each["code"] for each in found.get_validation_results()["activeManifest"]["failure"]]


def pixels(path: Path) -> np.ndarray:
    """As those decode them who did not write them."""
    if path.suffix in (".mp4", ".mov"):
        with av.open(str(path)) as file:
            return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            levels = file.series[0].levels
            assert len(levels) > 1
            return np.concatenate([level.asarray().ravel() for level in levels])
    return np.asarray(Image.open(path))


def test_options_that_let_a_format_take_a_picture_hold_for_signed_files_too(
    tmp_path: Path, signs: Signing
) -> None:
    alpha = (LatentArray("alpha", (1, 1, 1, 64, 64), chunk_rows=64),)
    store, out = (
        make_store(tmp_path / "a.zarr", picture(64, 64), (64, 64), alpha),
        tmp_path / "a.jpg",
    )
    with pytest.raises(ExportError, match=f"{out}: JPEG has no alpha"):
        exporting.export(store.path, out, overwrite=False, signing=signs)
    white = {"background": "white"}
    exporting.export(store.path, out, overwrite=False, signing=signs, options=white)
    with reader(out) as found:
        assert found.get_validation_state() == "Valid"


@pytest.mark.parametrize("suffix", [*(k for k in KINDS if k not in (".tiff", ".jpeg"))])
def test_a_signed_file_is_valid_and_the_same_picture(
    tmp_path: Path, authority: Authority, signs: Signing, suffix: str
) -> None:
    content = clip(2, 64, 96) if suffix in (".mp4", ".mov") else picture(300, 96)
    store = make_store(tmp_path / "a.zarr", content)
    plain, out = tmp_path / f"plain{suffix}", tmp_path / f"signed{suffix}"
    exporting.export(store.path, plain, overwrite=False)
    exporting.export(store.path, out, overwrite=False, signing=signs)
    with reader(out) as found:
        assert found.get_validation_state() == "Valid"
        assert failures(found) == [UNTRUSTED]
    (act,) = actions(out)
    assert act["action"] == "c2pa.created"
    assert act["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    told = act["parameters"]
    assert (told["model"], told["prompt"], told["seed"]) == ("demo", RUN["picture"]["prompt"], 7)
    assert "private" not in json.dumps(act)
    with reader(out, authority.text) as found:
        assert found.get_validation_state() == "Trusted"
    assert np.array_equal(pixels(out), pixels(plain))
    with pytest.raises(c2pa.C2paError):
        reader(plain)
    damaged = tmp_path / f"damaged{suffix}"
    data = bytearray(out.read_bytes())
    data[-40] ^= 1
    damaged.write_bytes(data)
    with reader(damaged) as found:  # the control
        assert found.get_validation_state() == "Invalid"
    assert {p.name for p in tmp_path.iterdir()} == {"a.zarr", plain.name, out.name, damaged.name}


# From one level of the pyramid to five.
@pytest.mark.parametrize("side", [256, 300, 600, 1100, 2100])
def test_a_signed_tiff_keeps_the_levels_of_its_pyramid(
    tmp_path: Path, signs: Signing, side: int
) -> None:
    store = make_store(tmp_path / "a.zarr", picture(side, 16))
    out = tmp_path / "signed.tif"
    exporting.export(store.path, out, overwrite=False, signing=signs)
    with reader(out) as found:
        assert found.get_validation_state() == "Valid"
        assert failures(found) == [UNTRUSTED]
    with tifffile.TiffFile(out) as file:
        found_levels = [level.asarray() for level in file.series[0].levels]
    layout = store.layout
    kept = 2 if layout.num_levels == 3 else layout.num_levels  # the library's limits
    assert len(found_levels) == kept
    for index, level_HWC in enumerate(found_levels):
        height = layout.levels[index].height
        assert np.array_equal(level_HWC, store.read_rows(0, height, index))


def test_every_kind_is_one_that_the_library_writes() -> None:
    assert set(KINDS.values()) <= set(c2pa.Builder.get_supported_mime_types())


def test_what_is_made_from_a_picture_names_it_as_its_parent(
    tmp_path: Path, files: tuple[str, str]
) -> None:
    given = tmp_path / "private" / "given.png"
    given.parent.mkdir()
    Image.fromarray(picture(128, 128)).save(given)
    tiny: dict[str, Any] = {"height": 128, "width": 128, "num_inference_steps": 2}
    tiny |= {"method": "none", "init": str(given)}
    render(small_spec(tmp_path / "a.png", **tiny), sign=files)
    assert [each["action"] for each in actions(tmp_path / "a.png")] == [
        *("c2pa.opened", "c2pa.edited")
    ]
    with reader(tmp_path / "a.png") as found:
        (parent,) = found.get_active_manifest()["ingredients"]
    assert (parent["title"], parent["relationship"]) == ("given.png", "parentOf")
    assert b"private" not in (tmp_path / "a.png").read_bytes()
    # One that the library cannot read, for its name says another format, is not named.
    (tmp_path / "b.jpg").write_bytes(given.read_bytes())
    render(small_spec(tmp_path / "c.png", **{**tiny, "init": str(tmp_path / "b.jpg")}), sign=files)
    assert [each["action"] for each in actions(tmp_path / "c.png")] == ["c2pa.created"]
    # A store may be a stranger's: what it says that it was made from is not read to be signed.
    frieze("export", str(tmp_path / "a.zarr"), str(tmp_path / "b.png"), "--sign", *files)
    (act,) = actions(tmp_path / "b.png")
    assert act["action"] == "c2pa.created"
    assert act["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")


def actions(path: Path) -> list[dict[str, Any]]:
    """What was done to a file, as its manifest says, which is valid."""
    with reader(path) as found:
        assert found.get_validation_state() == "Valid"
        all_told = found.get_active_manifest()["assertions"]
    (told,) = (each for each in all_told if each["label"] == "c2pa.actions.v2")
    done: list[dict[str, Any]] = told["data"]["actions"]
    return done


def test_what_was_to_be_signed_is_never_made_unsigned(
    tmp_path: Path, files: tuple[str, str]
) -> None:
    tiny: dict[str, Any] = {"height": 128, "width": 128, "num_inference_steps": 2, "method": "none"}
    spec, cancel = small_spec(tmp_path / "a.tif", **tiny), threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "step":
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(spec, sign=files, on_event=listen, cancel=cancel)
    with pytest.raises(ExportError, match="begun with --sign, and no store keeps"):
        render(spec, continued=True)
    notes: list[str] = []
    resume(tmp_path / "a.zarr", on_event=lambda event: notes.append(event.message or ""))
    assert any("a.tif is to be signed, and is not made; add --sign CERT KEY" in n for n in notes)
    assert not (tmp_path / "a.tif").exists()
    drawn = resume(tmp_path / "a.zarr", sign=files)
    assert drawn.outputs == (tmp_path / "a.zarr", tmp_path / "a.tif")
    (act,) = actions(tmp_path / "a.tif")
    assert act["parameters"]["seed"] == 7
    kept = b"".join(path.read_bytes() for path in (tmp_path / "a.zarr").rglob("*.json*"))
    assert b'"signed"' in kept
    assert not [name for name in files if name.encode() in kept]
    assert b"PRIVATE KEY" not in kept


def test_a_process_killed_between_export_and_signature_leaves_no_file(
    tmp_path: Path, signs: Signing
) -> None:
    store, out = make_store(tmp_path / "a.zarr", picture(64, 64)), tmp_path / "a.png"
    with socket.create_server(("127.0.0.1", 0)) as server:
        slow = f"http://127.0.0.1:{server.getsockname()[1]}/"  # answers nothing
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException):
                waits = Signing(dataclasses.replace(signs.signer, timestamp=slow))
                exporting.export(store.path, out, overwrite=False, signing=waits)
            os._exit(1)
        server.settimeout(AMPLE)
        with server.accept()[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    (left,) = (path for path in tmp_path.iterdir() if path != store.path)
    assert [path.name for path in left.rglob("unsigned/*")] == ["a.png"]
    exporting.export(store.path, out, overwrite=False, signing=signs)
    assert {path.name for path in tmp_path.iterdir()} == {"a.zarr", "a.png"}
    assert actions(out)


def test_a_signature_that_fails_leaves_what_was_there(tmp_path: Path, signs: Signing) -> None:
    store, out = make_store(tmp_path / "a.zarr", picture(64, 64)), tmp_path / "a.png"
    out.write_bytes(b"an older one")
    dead = Signing(dataclasses.replace(signs.signer, timestamp=DEAD))
    with pytest.raises(ExportError, match=r"a.png cannot be signed: .*frieze export") as caught:
        exporting.export(store.path, out, overwrite=True, signing=dead)
    assert "\n" not in str(caught.value)
    assert out.read_bytes() == b"an older one"
    assert {path.name for path in tmp_path.iterdir()} == {"a.zarr", "a.png"}


def test_a_certificate_that_expires_while_it_is_drawn_is_told_when_it_is_to_sign(
    tmp_path: Path, authority: Authority
) -> None:
    store, out = make_store(tmp_path / "a.zarr", picture(64, 64)), tmp_path / "a.png"
    signs = signer(*authority.issue(tmp_path, "short"))
    assert signs.until is not None
    assert timedelta() < signs.until - datetime.now(UTC) < timedelta(days=31)
    late = dataclasses.replace(signs, until=datetime.now(UTC) - timedelta(minutes=1))
    with pytest.raises(ExportError, match=r"cannot be signed: its certificate expired on") as told:
        exporting.export(store.path, out, overwrite=False, signing=Signing(late))
    assert "the store is whole, and frieze export" in str(told.value)
    assert not out.exists()
    exporting.export(store.path, out, overwrite=False, signing=Signing(signs))
    assert actions(out)


def test_what_cannot_sign_is_said_in_one_line(
    tmp_path: Path, authority: Authority, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = files
    other = authority.issue(tmp_path, "other", passphrase=b"open sesame")
    late = authority.issue(tmp_path, "late", days=(-9, -2))
    early = authority.issue(tmp_path, "early", days=(2, 9))
    soon, chained = authority.issue(tmp_path, "soon"), tmp_path / "chained.pem"
    chained.write_bytes(Path(soon[0]).read_bytes() + Path(late[0]).read_bytes())
    root = tmp_path / "root.pem"
    root.write_text(authority.text)
    (tmp_path / "no.pem").write_bytes(b"\x1b[2J no certificate")
    faults = {
        (certificate, str(tmp_path / "no.key")): "there is no file .*no.key; give the key in PEM",
        (str(tmp_path), key): "is a folder and no file; give the certificate in PEM",
        (str(tmp_path / "no.pem"), key): "holds no certificate",
        (certificate, str(tmp_path / "no.pem")): "holds no private key",
        (key, certificate): "is a key; the certificate comes first",
        (late[0], key): "is the key of another certificate than 'CN=late",
        late: "late.pem expired on 20",
        early: "early.pem is valid from 20",
        (str(chained), soon[1]): "the chain of .*chained.pem expired on 20",
        other: f"other.key is encrypted; put its passphrase into {PASSPHRASE}",
    }
    for pair, why in faults.items():
        with pytest.raises(SpecError, match=why) as caught:
            signer(*pair)
        assert "\n" not in str(caught.value)
        assert "\x1b" not in str(caught.value)
    monkeypatch.setenv(PASSPHRASE, "shut")
    with pytest.raises(SpecError, match=f"other.key does not open with what {PASSPHRASE} says"):
        signer(*other)
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    assert signer(*other).algorithm == "es256"
    assert signer(*files).algorithm == "es256"  # that needs none
    assert signer(*authority.issue(tmp_path, "curve", is_edwards=True)).algorithm == "ed25519"
    with pytest.raises(SpecError, match="nothing can be signed with a time stamp of"):
        signer(*files, DEAD)
    with pytest.raises(SpecError, match="'ftp://x' is no address"):
        signer(*files, "ftp://x")
    with pytest.raises(SpecError, match=r"--timestamp .* is for what is signed; add --sign"):
        asked_for(None, DEAD)


def test_what_holds_no_credentials_is_refused_before_any_work(
    tmp_path: Path, files: tuple[str, str], signs: Signing
) -> None:
    for out, also, why in (
        ("a.zarr", (), "a store holds no Content Credentials; add a file of .png"),
        ("a.mkv", (), "a.mkv: .mkv holds no Content Credentials; .png, .tif"),
        ("a.png", ("b.frames",), "b.frames: .frames holds no Content Credentials"),
    ):
        more = [word for name in also for word in ("--also", str(tmp_path / name))]
        words = ("a red sun", "--size", "64x64", "--local", "--out", str(tmp_path / out), *more)
        refused(frieze("render", *words, "--sign", *files), why)
    refused(frieze("render", "a red sun", "--sign", "no.pem", "no.key"), "there is no file no.pem")
    items = [{"prompt": "a red sun", "height": 128, "width": 128}]
    with pytest.raises(PlanError, match="a store holds no Content Credentials"):
        next(batch(items, out=tmp_path / "suns", local=True, sign=files))
    free = shutil.disk_usage(tmp_path).free
    wide = StoreLayout(1024, free // 4096, (1024, 1024), num_levels=1)
    with pytest.raises(ExportError, match=r"needs up to .* [kMG]?B and its disk has"):
        check((tmp_path / "a.png",), wide)
    check((tmp_path / "a.png",), StoreLayout(64, 64, (64, 64)))
    assert not list(tmp_path.iterdir())


def test_a_live_tiff_that_is_signed_later_is_made_from_the_store(
    tmp_path: Path, files: tuple[str, str]
) -> None:
    tiny: dict[str, Any] = {"height": 128, "width": 128, "num_inference_steps": 2, "method": "none"}
    stop_after(small_spec(tmp_path / "a.tif", **tiny), 1)
    assert (tmp_path / "a.tif.part").exists()
    resume(tmp_path / "a.zarr", sign=files)
    assert actions(tmp_path / "a.tif")
    assert {path.name for path in tmp_path.iterdir()} == {"a.zarr", "a.tif"}


def test_items_of_a_batch_are_signed(tmp_path: Path, files: tuple[str, str]) -> None:
    item = {"prompt": "a red sun", "height": 128, "width": 128, "num_inference_steps": 1}
    item |= {"method": "none", "out": "{name}.png", "name": "sun"}
    (result,) = batch([item], out=tmp_path, local=True, sign=files)
    assert result.state == "done", result.error
    assert actions(tmp_path / "sun.png")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(SpecError, match=r"--sign needs c2pa-python: pip install 'frieze\[prov"):
        signer("a.pem", "a.key")
