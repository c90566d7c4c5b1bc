"""Jobs on somebody's Ray cluster: sent over HTTP to its head, followed, and their end told.

Whatever Ray's job server or its client say is raised as `JobError`, one line with what would work.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .session import REACH_SECONDS, TOKEN

# Between looks at a job; a long log is fetched less often, for it always comes whole.
POLL_SECONDS, MOST_SECONDS, BYTES_PER_SECOND = 1.0, 10.0, 200_000
# How long the head may be away (restarted, say) before a job is no longer followed.
PATIENCE_SECONDS = 60.0
# The first of these that is set is where the cluster is, as for `ray job`.
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
# They tell of every upload.
TALKATIVE = ("dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging")


class JobError(RuntimeError):
    """The cluster cannot be reached, refuses us, or does not take the job."""


@dataclass(frozen=True)
class RayJob:
    """What to run; `modules` are folders of packages to import, `folder` is where it starts."""

    entrypoint: str
    submission_id: str
    modules: tuple[Path, ...] = ()
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    num_cpus: float | None = None


@dataclass(frozen=True)
class End:
    """How a job ended: Ray's word for it, its exit code if it had one, and Ray's explanation."""

    status: str
    exit_code: int | None
    message: str


class JobServer:
    """The job server of a cluster's head.

    `address` is http://HEAD:8265, or what `ray.init` takes; without one the environment is
    asked as `ray job` asks it, then this machine. Raises `JobError`.
    """

    def __init__(self, address: str | None = None) -> None:
        named = address or next(filter(None, map(os.environ.get, ADDRESS_VARIABLES)), None)
        self.address = named or "http://127.0.0.1:8265"
        _reach(self.address)
        with self._one_line_errors(), _asking(named):
            from ray.job_submission import JobSubmissionClient

            for module in TALKATIVE:
                logging.getLogger(f"ray.{module}").setLevel(logging.ERROR)
            self._client = JobSubmissionClient(named)
            self.address = str(self._client.get_address())

    def submit(self, job: RayJob) -> None:
        """Upload what the job needs and start it."""
        environment: dict[str, Any] = {"env_vars": dict(job.environment)}
        if job.modules:
            environment["py_modules"] = [str(module) for module in job.modules]
        if job.folder is not None:
            environment["working_dir"] = str(job.folder)
        with self._one_line_errors(job.submission_id):
            self._client.submit_job(
                entrypoint=job.entrypoint,
                submission_id=job.submission_id,
                runtime_env=environment,
                metadata=dict(job.metadata),
                entrypoint_num_cpus=job.num_cpus,
            )

    def follow(self, submission_id: str, write: Callable[[str], object]) -> End:
        """Hand on the job's log as it grows; returns when the job has ended."""
        seen, heard = 0, time.monotonic()
        while True:
            try:
                # First whether it has ended, then the log: so the last words are not missed.
                end = self.end(submission_id)
                log = self._log(submission_id, ended=end is not None)
                heard = time.monotonic()
            except JobError as error:
                if time.monotonic() - heard > PATIENCE_SECONDS:
                    raise JobError(f"job {submission_id!r} may go on, unseen: {error}") from error
                time.sleep(POLL_SECONDS)
                continue
            if log[seen:]:
                write(log[seen:])
            if end is not None:
                return end
            seen = max(seen, len(log))
            time.sleep(min(POLL_SECONDS + seen / BYTES_PER_SECOND, MOST_SECONDS))

    def end(self, submission_id: str) -> End | None:
        """How the job ended, or None while it has not."""
        with self._one_line_errors(submission_id):
            info = self._client.get_job_info(submission_id)
        if not info.status.is_terminal():
            return None
        return End(str(info.status.value), info.driver_exit_code, info.message or "")

    def about(self, submission_id: str) -> tuple[str, Mapping[str, str]]:
        """Ray's word for how a job stands, and the metadata it was sent with."""
        with self._one_line_errors(submission_id):
            info = self._client.get_job_info(submission_id)
        return str(info.status.value), info.metadata or {}

    def _log(self, submission_id: str, *, ended: bool) -> str:
        try:
            with self._one_line_errors(submission_id):
                return str(self._client.get_job_logs(submission_id))
        except JobError:
            if ended:  # it lay on a node that is gone
                return ""
            raise

    @contextmanager
    def _one_line_errors(self, submission_id: str = "") -> Iterator[None]:
        """What Ray's client raises, as one line."""
        from ray.exceptions import AuthenticationError, RayError

        try:
            yield
        except AuthenticationError as error:
            unknown = str(error).startswith("Authentication failed")
            asks = "does not know this token" if unknown else "wants a token"
            raise JobError(f"the cluster at {self.address} {asks}; {TOKEN}") from None
        except OSError as error:
            raise JobError(_unreachable(self.address, error)) from None
        except (RayError, RuntimeError, ValueError) as error:
            raise JobError(self._explained(str(error), submission_id)) from None

    def _explained(self, error: str, submission_id: str) -> str:
        """The sentence of a server's answer that says what is wrong, and what would work."""
        if "already exists" in error:
            return (
                f"job {submission_id!r} is on the cluster already; choose another --submission-id, "
                f"or follow it: ray job logs --follow {submission_id}"
            )
        if "No available agent" in error:
            return (
                f"no node of the cluster at {self.address} takes jobs yet; try again, and if its "
                "head shares a machine, give it a --dashboard-agent-listen-port of its own"
            )
        lines = [line.strip() for line in error.strip().splitlines() if line.strip()]
        reason = re.sub(r"^\w*(Error|Exception): ", "", lines[-1]) if lines else "no reason given"
        return f"the cluster at {self.address} refuses: {reason.rstrip('.')}"


@contextmanager
def _asking(address: str | None) -> Iterator[None]:
    """An address that was given wins over the environment, where Ray would look first."""
    variable = ADDRESS_VARIABLES[0]
    before = os.environ.get(variable)
    if address is not None:
        os.environ[variable] = address
    try:
        yield
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before


def _reach(address: str) -> None:
    """Refuses an address where nobody answers: Ray's client would wait for minutes."""
    if address == "auto":
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        if parts.scheme not in ("http", "https", "") or not (parts.hostname and port):
            raise ValueError("not an address of one")
        socket.create_connection((parts.hostname, port), timeout=REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise JobError(_unreachable(address, error)) from None


def _unreachable(address: str, error: Exception) -> str:
    return (
        f"no Ray dashboard at {address} ({error}); give --address http://HEAD:8265 of a head that "
        "runs one"
    )
