"""Of two that write to one name, one is refused: on every kind of file system."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from frieze.renderer.errors import ExportError
from frieze.renderer.files import atomic

LACKING = [(), ("link",), ("renameat2",), ("link", "renameat2")]


def write(kind: str, path: Path, text: str, *, overwrite: bool, meanwhile: Any = None) -> None:
    """A whole file or folder with a text; `meanwhile` happens before it has its name."""
    if kind == "file":
        with atomic.whole_file(path, overwrite=overwrite, error=ExportError) as part:
            part.write_text(text)
            if meanwhile:
                meanwhile()
    else:
        with atomic.whole_folder(
            path, overwrite=overwrite, is_ours=lambda _: True, error=ExportError
        ) as part:
            (part / "text").write_text(text)
            if meanwhile:
                meanwhile()


def text_of(path: Path) -> str:
    return (path / "text" if path.is_dir() else path).read_text()


@pytest.fixture(params=LACKING, ids=lambda lacking: "-".join(("without", *lacking)))
def lacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links, or without renames that refuse or exchange."""

    def no(number: int) -> Any:
        def fail(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        return fail

    if "link" in request.param:
        monkeypatch.setattr(os, "link", no(errno.EPERM))
    if "renameat2" in request.param:
        monkeypatch.setattr(atomic, "renameat2", no(errno.EINVAL))


@pytest.mark.usefixtures("lacking")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_second_of_two_is_refused_and_the_first_is_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    with pytest.raises(ExportError, match=r"a\.tif appeared meanwhile; use --overwrite"):
        write(
            *(kind, path, "second"),
            overwrite=False,
            meanwhile=lambda: write(kind, path, "first", overwrite=False),
        )
    assert text_of(path) == "first"
    write(
        *(kind, path, "third"),
        overwrite=True,
        meanwhile=lambda: write(kind, path, "fourth", overwrite=True),
    )
    assert text_of(path) == "third", "control: who overwrites is not refused"
    assert os.listdir(tmp_path) == ["a.tif"]


@pytest.mark.usefixtures("lacking")
@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_meanwhile_and_is_of_another_kind_stays(
    tmp_path: Path, kind: str, overwrite: bool
) -> None:
    path, other = tmp_path / "a.tif", "folder" if kind == "file" else "file"
    with pytest.raises(ExportError):
        write(
            *(kind, path, "second"),
            overwrite=overwrite,
            meanwhile=lambda: write(other, path, "first", overwrite=False),
        )
    assert text_of(path) == "first"
    assert os.listdir(tmp_path) == ["a.tif"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_that_leads_nowhere_is_refused_before_any_work(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.tif").symlink_to(tmp_path / "nowhere")
    begun: list[bool] = []
    with pytest.raises(ExportError):
        write(
            *(kind, tmp_path / "a.tif", "text"),
            overwrite=False,
            meanwhile=lambda: begun.append(True),
        )
    assert not begun
    assert os.path.islink(tmp_path / "a.tif")


def test_a_name_that_was_given_by_a_process_killed_after_it_is_no_strangers(
    tmp_path: Path,
) -> None:
    part, path = tmp_path / "a.tif.part", tmp_path / "a.tif"
    part.write_text("whole")
    os.link(part, path)
    atomic.place_file(part, path, overwrite=False, error=ExportError)
    assert os.listdir(tmp_path) == ["a.tif"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_what_a_library_wrote_has_the_mode_of_a_new_file(tmp_path: Path, mask: int) -> None:
    part, path = tmp_path / "part" / "a.safetensors", tmp_path / "a.safetensors"
    part.parent.mkdir()
    save_file({"x": torch.zeros(2)}, part)
    part.chmod(0o600)
    before = os.umask(mask)
    try:
        atomic.finish(part, path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert [each.name for each in part.parent.iterdir()] == []
    assert load_file(path)["x"].tolist() == [0, 0]
