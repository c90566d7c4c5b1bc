"""A real S3 server on this machine for tests: moto on a port of its own, with one bucket."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from frieze.renderer.files import lease as leases

BUCKET = "pictures"
SECRET = "a-secret-that-no-log-may-show"


class S3Server:
    """A server on a free port; `variables` are what a process needs to reach it."""

    def __init__(self) -> None:
        self._port = 0
        self.start()

    def start(self) -> None:
        """Serve, on the port of the last time; what was put is kept by this process."""
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()
        host, self._port = self._server.get_host_and_port()
        self.url = f"http://{host}:{self._port}"

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.stop()

    @property
    def variables(self) -> dict[str, str]:
        """The standard variables of the AWS tools."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    @contextmanager
    def strict(self) -> Iterator[None]:
        """Only known keys are served meanwhile, and the tests' is not one."""
        self._ask("POST", "/moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            self._ask("POST", "/moto-api/reset-auth", b"inf")

    def make_bucket(self) -> None:
        """The bucket that all tests share, each with an address of its own."""
        self._ask("PUT", f"/{BUCKET}", b"")

    def _ask(self, method: str, path: str, data: bytes) -> None:
        plain = {"Content-Type": "text/plain"}
        request = urllib.request.Request(self.url + path, data, plain, method=method)
        urllib.request.urlopen(request).close()


@contextmanager
def without_variables() -> Iterator[None]:
    """No AWS_* variable in this process, and the old ones again afterwards."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(before)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """Starts the server; this process and those that it starts reach it by the variables."""
    found = S3Server()
    found.make_bucket()
    with without_variables():
        os.environ |= found.variables
        yield found
        for lease in leases.held().values():
            leases.release(lease.bucket)
    found.stop()
