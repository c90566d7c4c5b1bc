"""The door to S3: clients, made once for each bucket, and their errors as one line.

Credentials and endpoints are those of the standard AWS_* variables; a profile, and all that the
AWS tools keep in files, is boto3's business.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

from ..errors import StoreError, first_line
from .location import Access, S3Path, own_access

PATIENCE = timedelta(seconds=180)  # for a write in the middle of a render
QUICK = timedelta(seconds=12)  # for the first look, before any work
# Where machines and containers of Amazon ask for credentials: tried when nothing else is set.
_ENDPOINT = re.compile(r"https?://[\w.:\[\]-]+(/[^?#\s]*)?", re.IGNORECASE)
METADATA = ("169.254.169.254", "169.254.170.2", "/latest/api/token", "/latest/meta-data")


def client(bucket: str, access: Access | None = None, *, is_quick: bool = False) -> Any:
    """obstore's client of a bucket; raises `StoreError` where its settings are wrong."""
    own = own_access()
    return _client(bucket, own if access is None else access, is_quick, access not in (None, own))


@lru_cache(maxsize=16)
def _client(bucket: str, access: Access, is_quick: bool, is_foreign: bool) -> Any:
    """A client is a pool of connections: one for all that a process does with a bucket."""
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    given = dict(access)
    endpoint = given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL") or ""
    if endpoint and not _ENDPOINT.fullmatch(endpoint):
        raise StoreError(f"AWS_ENDPOINT_URL {endpoint!r} is no URL; use one as http://host:9000")
    options: dict[str, Any] = {
        "client_options": {
            "allow_http": endpoint.lower().startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=30 if is_quick else 300),
        },
        "retry_config": {
            "max_retries": 2 if is_quick else 10,
            "retry_timeout": QUICK if is_quick else PATIENCE,
        },
    }
    if provider := _provider(given, is_foreign):
        options["credential_provider"] = provider
    hidden = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
    config = {name.lower(): value for name, value in given.items() if name not in hidden}
    try:
        return S3Store(bucket, config=config, **options)
    except (BaseError, ValueError) as error:
        raise StoreError(
            f"s3://{bucket}: {first_line(error)[:200]}; check the AWS_* settings"
        ) from None


def _provider(given: dict[str, str], is_foreign: bool) -> Any:
    """Where credentials come from, unless obstore finds them itself in the environment."""
    if "AWS_ACCESS_KEY_ID" in given and is_foreign:
        # Whole, or not at all: a token of this host's own would not fit another's key.
        keys = {
            "access_key_id": given["AWS_ACCESS_KEY_ID"],
            "secret_access_key": given.get("AWS_SECRET_ACCESS_KEY", ""),
            "token": given.get("AWS_SESSION_TOKEN"),
            "expires_at": None,
        }
        return lambda: keys
    if "AWS_ACCESS_KEY_ID" in given:
        return None
    profile = given.get("AWS_PROFILE")
    return _from_files(profile) if profile or os.path.isfile(_credentials_file()) else None


def _from_files(profile: str | None) -> Any:
    """boto3's credentials; None where there is no need of it, and no boto3."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        if profile is None:
            return None
        raise StoreError(
            f"AWS_PROFILE {profile!r} needs boto3 (pip install 'frieze[aws]'); or set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    try:
        return Boto3CredentialProvider(boto3.Session(profile_name=profile))
    except (BotoCoreError, ValueError) as error:
        raise StoreError(f"AWS_PROFILE {profile!r}: {error}; check ~/.aws") from None


def _credentials_file() -> str:
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    return os.path.expanduser(named)


@contextmanager
def told(where: S3Path) -> Iterator[None]:
    """Errors of the client as `StoreError` of one line, which holds no credentials."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise  # an answer, for those who asked
    except (BaseError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
            raise
        raise StoreError(f"{where}: {_reason(error, where)}") from None


def _reason(error: BaseException, where: S3Path) -> str:
    """What went wrong and what would work, from the text of an error."""
    text = str(error)
    found = re.search(r"<Code>(\w+)</Code>", text)
    code = found[1] if found else ""
    endpoint = re.search(r"(?:GET|PUT|HEAD|POST|DELETE) (https?://[^/\s]+)", text)
    server = endpoint[1] if endpoint else "the server"
    if any(host in text for host in METADATA):
        return (
            "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE "
            "(with boto3)"
        )
    if code == "NoSuchBucket":
        return f"there is no bucket {where.bucket!r} at {server}; make it first"
    if "403 Forbidden" in text or "401 Unauthorized" in text or "Token" in code:
        return (
            f"no permission ({code or 'refused'}); check the credentials, and that they may "
            "list, read, write and delete there"
        )
    if "redirect" in text or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return "the bucket is in another region; set AWS_REGION to it"
    if "HTTP error" in text:
        return f"{server} cannot be reached; check AWS_ENDPOINT_URL and the network"
    return f"{code or first_line(error)[:200]} from {server}"
