"""Formats of the API for a picture that they cannot all hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from frieze.renderer.server.api_error import ApiError
from frieze.renderer.server.submission import check_format
from frieze.renderer.store.layout import StoreLayout


@pytest.mark.parametrize(
    ("size", "suffix", "part"),
    [
        ((64, 20_000), ".webp", "WebP ends at 16383 pixels a side, and the picture is 20000x64; "),
        ((64, 70_000), ".jpg", "JPEG ends at 65500 pixels a side, and the picture is 70000x64; "),
    ],
)
def test_a_format_that_is_too_small_names_those_of_the_api(
    tmp_path: Path, size: tuple[int, int], suffix: str, part: str
) -> None:
    layout = StoreLayout(*size, (64, 512))
    check_format(tmp_path / "0.png", layout)
    with pytest.raises(ApiError) as refused:
        check_format(tmp_path / f"0{suffix}", layout)
    error = refused.value.body["error"]
    formats = "png or tiff works" if suffix == ".jpg" else "png or jpeg or tiff works"
    assert (error["message"], error["param"]) == (
        f"output_format: {part}{formats}",
        "output_format",
    )
