"""Who may ask: tokens, and, where there are none, this machine's own programs alone."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from ..connections.loopback import is_loopback
from ..errors import SpecError, StoreError
from ..files.folder import Folder
from ..files.operations import replace
from ..spec.values import ValuesError, file_text
from .api_error import ApiError

VARIABLE = "FRIEZE_TOKENS"
LEAST_LETTERS = 16
URL_SECONDS = 3600  # that an address of a picture works
KEY = "key"  # of the folder's own files: what addresses are signed with


def tokens(file: str | None) -> tuple[str, ...]:
    """Tokens of a file, a line each, and of the environment; raises `SpecError`."""
    found = re.split(r"[\s,]+", os.environ.get(VARIABLE, ""))
    where = VARIABLE
    if file is not None:
        where = f"--token-file {file}"
        try:
            lines = file_text(Path(file)).splitlines()
        except ValuesError as error:
            raise SpecError(f"{where}: {error}") from None
        found += [text for line in lines if (text := line.strip()) and not text.startswith("#")]
    kept = [token for token in found if token]
    if file is not None and not kept:
        raise SpecError(f"{where} holds no token; write one a line")
    for token in kept:
        if len(token) < LEAST_LETTERS or not re.fullmatch(r"[!-~]+", token):
            raise SpecError(
                f"{where}: a token of {len(token)} letters; {LEAST_LETTERS} or more of ASCII "
                "without spaces work"
            )
    return tuple(dict.fromkeys(kept))


def check_reach(host: str, found: Iterable[str]) -> None:
    """Raise `SpecError` for a server that others reach and that asks nobody who they are."""
    if not is_loopback(host) and not any(found):
        raise SpecError(
            f"--host {host} is reached from elsewhere; give tokens: --token-file FILE, or "
            f"{VARIABLE} in the environment"
        )


class Access:
    """Tells owners by their tokens, and signs addresses of pictures."""

    def __init__(self, found: Iterable[str], key: bytes) -> None:
        self._digests = [_digest(token.encode()) for token in found]
        self._key = key

    def owner(self, headers: Mapping[str, str]) -> str:
        """Whose request it is: "" where no token is asked for; raises `ApiError` 401 or 403."""
        if not self._digests:
            _check_own(headers)
            return ""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        digest = _digest(token.strip().encode("latin-1", "replace"))
        # All are compared, so that time tells nothing of which one is near.
        same = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != "bearer" or not any(same):
            raise ApiError(
                401,
                "no token of this server; send Authorization: Bearer TOKEN",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return digest.hex()[:16]

    def signature(self, file_id: str, expires: int) -> str:
        """Of an address that needs no token until then, in seconds since the epoch."""
        return hmac.new(self._key, f"{file_id} {expires}".encode(), "sha256").hexdigest()

    def is_signed(self, file_id: str, expires: str, signature: str) -> bool:
        """Whether an address is one of ours, and its time is not over."""
        if not re.fullmatch(r"[0-9]{1,12}", expires) or not signature.isascii():
            return False
        expected = self.signature(file_id, int(expires))
        return hmac.compare_digest(signature, expected) and int(expires) > time.time()


def key_of(folder: Path) -> bytes:
    """The key of a server's folder, made once; raises `StoreError`."""
    try:
        kept = Folder(folder).read(KEY)
        if kept is None or len(kept) != 32:
            kept = secrets.token_bytes(32)
            replace(folder / KEY, kept)
            os.chmod(folder / KEY, 0o600)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{folder / KEY} cannot be written: {error.strerror}") from None
    return kept


def _check_own(headers: Mapping[str, str]) -> None:
    """Pages of other sites that a browser here shows may not ask, nor names that lead here."""
    addresses = [f"//{headers.get('host', '')}", headers.get("origin", "//localhost")]
    try:
        names = [urlsplit(each).hostname for each in addresses]
    except ValueError:
        names = [None]
    if not all(name and is_loopback(name) for name in names):
        raise ApiError(403, "this server answers programs of its own machine", code="forbidden")


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
