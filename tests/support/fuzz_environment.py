"""Variables of the environment for `fuzzing`: those that Frieze reads, with values of any kind."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from frieze.renderer.errors import StoreError
from frieze.renderer.files import location, s3
from frieze.renderer.planning import devices
from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.terminal import error_lines
from support.fuzz_values import seldom, texts

VALUES = [
    *("", "0", "1", "true", "http://127.0.0.1:9", "http://[", "ftp://a", "http://a b", "://"),
    *("https://user:word@host/x?y#z", "us-east-1", "eu_nowhere", "127.0.0.1:6379", "auto", "~x"),
    *("/no/such/file", "/dev/null", "/"),
]
NAMES = (
    *location.VARIABLES,
    *("AWS_SHARED_CREDENTIALS_FILE", error_lines.TRACEBACK, "RAY_ADDRESS"),
)


def variables() -> SearchStrategy[dict[str, str]]:
    """Some of the variables, as a process can have them: no zero bytes, no half letters."""
    value = seldom(texts().filter(_is_possible), st.sampled_from(VALUES))
    return st.dictionaries(st.sampled_from(NAMES), value, min_size=1, max_size=4)


def _is_possible(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def on_environment(example: dict[str, str]) -> object:
    """What is decided by the environment before anything is called on."""
    with patch.dict("os.environ", example):
        error_lines._without_traceback(["render"])
        devices.on_cluster(RenderSpec())
        where = location.location("s3://bucket/a.zarr", StoreError)
        assert isinstance(where, location.S3Path)
        return s3.client(where.bucket, location.own_access())
