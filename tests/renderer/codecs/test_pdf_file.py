"""Objects of a PDF: numbers and texts as its readers take them, and where a file ends."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pypdf
import pytest

from contracts.export import make_store, picture
from frieze.renderer.codecs import pdf_file
from frieze.renderer.codecs.output import Output
from frieze.renderer.codecs.pdf_file import PdfFile, number, reference, string
from frieze.renderer.errors import ExportError
from frieze.renderer.exports import pdf


def test_numbers_have_no_exponent_and_texts_are_unicode() -> None:
    assert [number(each) for each in (0, 1e-9, 0.5, 72, 1234567.25, -3.1)] == [
        *("0", "0", "0.5", "72", "1234567.25", "-3.1")
    ]
    assert string("a(b\\") == "<6128625c>"
    assert bytes.fromhex(string("漢")[1:-1]).decode("utf-16") == "漢"


def test_a_stream_of_unknown_length_is_whole_to_a_strict_reader() -> None:
    file = io.BytesIO()
    made = PdfFile(file)
    stream = made.add_stream({"Type": "/Parts"}, (bytes([each]) * 1000 for each in range(9)))
    pages = made.add({"Type": "/Pages", "Kids": "[]", "Count": "0"})
    root = {"Type": "/Catalog", "Pages": reference(pages), "Parts": reference(stream)}
    made.end(made.add(root), made.add({"Title": string("a")}))
    found = pypdf.PdfReader(file, strict=True).trailer["/Root"]["/Parts"]  # type: ignore[index]
    assert found.get_data() == b"".join(bytes([each]) * 1000 for each in range(9))


def test_a_file_that_no_table_could_index_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    monkeypatch.setattr(pdf_file, "MOST_BYTES", 2000)
    with pytest.raises(ExportError, match=r"use jpeg compression, or \.tif"):
        pdf.export(Output.of(store.path, tmp_path / "a.pdf"))
    assert os.listdir(tmp_path) == ["a.zarr"]
