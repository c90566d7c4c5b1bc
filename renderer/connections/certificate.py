"""The certificate that a server shows: read and tried before anybody is answered."""

from __future__ import annotations

import ssl
from pathlib import Path

from ..errors import SpecError, shown

ROUNDS = 8  # of a handshake, which takes two
# What OpenSSL calls the key of another certificate, of the same kind and of another one.
OTHERS_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
EXPIRED, NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED and _NOT_YET_VALID of OpenSSL


def server_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS 1.2 and later by a certificate with its chain, and its key, both in PEM; None for none.

    Raises `SpecError` where they do not work, or not together.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        given, missing = (
            ("--key", "--certificate") if certificate is None else ("--certificate", "--key")
        )
        raise SpecError(f"{given} alone makes no TLS; give {missing} FILE as well")
    for flag, file in (("--certificate", certificate), ("--key", key)):
        try:
            if not Path(file).is_file():
                raise OSError("there is no such file")
            with open(file, "rb") as opened:
                opened.read(1)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise SpecError(f"{flag} {shown(file)} cannot be read: {why}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except (ssl.SSLError, OSError):
        raise SpecError(
            f"--certificate {shown(certificate)} holds no certificate in PEM, which begins with "
            "-----BEGIN CERTIFICATE-----"
        ) from None
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Password:
        raise SpecError(
            f"--key {shown(key)} is encrypted; openssl pkey -in KEY -out FILE writes one that works"
        ) from None
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", "") in OTHERS_KEY:
            raise SpecError(
                f"--key {shown(key)} is not that of --certificate {shown(certificate)}"
            ) from None
        raise SpecError(
            f"--key {shown(key)} holds no private key in PEM that works: "
            f"{getattr(error, 'reason', None) or error}"
        ) from None
    return context


def fault(context: ssl.SSLContext, certificate: str) -> str | None:
    """ "has expired" or "is not valid yet" of a certificate, None for one of today.

    Told by OpenSSL itself, in a handshake in memory with a client that trusts this one alone.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(certificate)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(back, there)
    server = context.wrap_bio(there, back, server_side=True)
    for side in (client, server) * ROUNDS:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            told = {EXPIRED: "has expired", NOT_YET: "is not valid yet"}
            return told.get(error.verify_code, f"is refused by clients: {error.verify_message}")
        except ssl.SSLError:
            return None
    return None


class _Password(Exception):
    """A key asks for one, and OpenSSL would ask at the terminal."""


def _no_password() -> str:
    raise _Password
