"""Who signs Content Credentials: a certificate with its chain, and the private key to it.

All that can be wrong with them shows here, before any work: files, passphrase, dates, and what the
C2PA library itself refuses, for a tiny picture is signed. What is read stays in this process's
memory: no store, log or worker gets a key or where it lies.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SpecError, reason, shown
from ..input_files import fault

if TYPE_CHECKING:
    from cryptography import x509

INSTALL = "pip install 'frieze[provenance]'"
PASSPHRASE = "FRIEZE_SIGN_PASSPHRASE"
MOST_BYTES = 2**20  # of a file of certificates, or of a key
MAKE = "as `openssl` writes them, -----BEGIN ...-----"
# What is signed at once is hashed and copied in memory up to here, and beyond in a temporary file.
MEMORY_MIB = 64


@dataclass(frozen=True)
class Signer:
    """A chain of certificates in PEM, the signer's first, its key, and a time stamp's authority.

    `algorithm` is C2PA's name of the signature: es256, es384, es512, ps256 or ed25519.
    """

    chain: bytes
    key: bytes = field(repr=False)  # PEM, no longer encrypted
    algorithm: str
    timestamp: str | None = None
    until: datetime | None = None  # when the first of the chain expires

    def sign(
        self, manifest: dict[str, Any], kind: str, source: Any, target: Any, *more: Any
    ) -> None:
        """Write `source`, a file of the media type `kind`, to `target` with a signed manifest.

        `more` are (description, media type, file) of what it was made from. Raises the library's
        own errors, which `refusals` gives, and where a certificate has expired since it was read:
        a render takes its time, and who verifies would call what is signed then invalid.
        """
        until = self.until
        if until is not None and datetime.now(UTC) > until:
            raise ValueError(f"its certificate expired on {until:%Y-%m-%d %H:%M} UTC; renew it")
        c2pa = library()
        own: dict[str, Any] = {"core": {"backing_store_memory_threshold_in_mb": MEMORY_MIB}}
        # A thumbnail would need the whole picture in memory; who reads the file has it all.
        own |= {"builder": {"thumbnail": {"enabled": False}}}
        # A picture that was handed in has nobody called on.
        quiet = ("verify_after_sign", "remote_manifest_fetch", "ocsp_fetch")
        own |= {"verify": dict.fromkeys(quiet, False)}
        info = c2pa.C2paSignerInfo(
            self.algorithm.encode(),
            self.chain,
            self.key,
            None if self.timestamp is None else self.timestamp.encode(),
        )
        with (
            c2pa.Context(c2pa.Settings.from_dict(own)) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(manifest, context) as builder,
        ):
            for about, media_type, file in more:
                builder.add_ingredient(about, media_type, file)
            builder.sign(signer, kind, source, target)


def asked_for(sign: tuple[str, str] | None, timestamp: str | None) -> Signer | None:
    """The signer of a certificate and its key, as paths; None where nothing is to be signed."""
    if sign is not None:
        return signer(*sign, timestamp)
    if timestamp is not None:
        raise SpecError(
            f"--timestamp {shown(timestamp)} is for what is signed; add --sign CERT KEY"
        )
    return None


def signer(certificate: str, key: str, timestamp: str | None = None) -> Signer:
    """The signer of two files in PEM; raises `SpecError` where a file could not be signed so.

    An encrypted key is opened with the passphrase in the environment's FRIEZE_SIGN_PASSPHRASE. With
    `timestamp`, the address of an RFC 3161 authority, that is asked for one at once.
    """
    library()
    chain, secret = _read(certificate, "certificate"), _read(key, "key")
    leaf, *others = _certificates(certificate, chain)
    opened, algorithm = _opened(key, secret, leaf)
    for each in (leaf, *others):
        _check_dates(certificate, each, "" if each is leaf else "the chain of ")
    if timestamp is not None and not re.fullmatch(r"https?://[!-~]+", timestamp):
        raise SpecError(f"--timestamp {shown(timestamp)} is no address; http://HOST/PATH works")
    until = min(each.not_valid_after_utc for each in (leaf, *others))
    made = Signer(chain, opened, algorithm, timestamp, until)
    try:
        made.sign({"claim_generator_info": [{"name": "frieze"}]}, "image/png", *_tiny())
    except refusals() as error:
        about = f"with a time stamp of {timestamp}" if timestamp else f"with {certificate}"
        raise SpecError(
            f"nothing can be signed {about}: {reason(error, 300)}; C2PA wants a certificate of an "
            "authority, for emailProtection or documentSigning and digitalSignature"
            + ("" if timestamp is None else ", and an authority that answers")
        ) from error
    return made


def library() -> Any:
    """The c2pa package; raises `SpecError` where it is not installed."""
    try:
        import c2pa  # type: ignore[import-untyped]
    except ImportError:
        raise SpecError(f"--sign needs c2pa-python: {INSTALL}; or leave --sign out") from None
    return c2pa


def refusals() -> tuple[type[Exception], ...]:
    """What the library raises."""
    error: type[Exception] = library().C2paError
    return (error, OSError, ValueError)


def _read(path: str, what: str) -> bytes:
    if (why := fault(path)) is not None:
        raise SpecError(f"--sign: {why}; give the {what} in PEM")
    if os.path.getsize(path) > MOST_BYTES:
        raise SpecError(f"--sign: {path} is too large for a {what} in PEM")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SpecError(f"--sign: {path} cannot be read: {error.strerror}") from error


def _certificates(path: str, chain: bytes) -> list[x509.Certificate]:
    """The signer's own certificate, and then its authorities'."""
    from cryptography import x509

    if b"PRIVATE KEY-----" in chain and b"BEGIN CERTIFICATE" not in chain:
        raise SpecError(f"--sign: {path} is a key; the certificate comes first: --sign CERT KEY")
    try:
        return x509.load_pem_x509_certificates(chain)
    except (ValueError, TypeError) as error:
        raise SpecError(
            f"--sign: {path} holds no certificate that can be read; PEM works, {MAKE}"
        ) from error


def _opened(path: str, secret: bytes, leaf: x509.Certificate) -> tuple[bytes, str]:
    """The key in PEM, no longer encrypted, and its algorithm; raises unless it is `leaf`'s."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as pem

    passphrase = os.environ.get(PASSPHRASE) or None
    try:
        key = pem.load_pem_private_key(secret, passphrase.encode() if passphrase else None)
    except TypeError:  # one is missing, or one too many
        if passphrase is None:
            raise SpecError(
                f"--sign: {path} is encrypted; put its passphrase into {PASSPHRASE}"
            ) from None
        key = pem.load_pem_private_key(secret, None)
    except (ValueError, UnsupportedAlgorithm) as error:
        if passphrase is not None and b"ENCRYPTED" in secret:
            raise SpecError(f"--sign: {path} does not open with what {PASSPHRASE} says") from None
        raise SpecError(
            f"--sign: {path} holds no private key that can be read; PEM works, {MAKE}"
        ) from error
    plain = (pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*plain) != leaf.public_key().public_bytes(*plain):
        name = leaf.subject.rfc4514_string()
        raise SpecError(f"--sign: {path} is the key of another certificate than {shown(name)}")
    opened = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    return opened, _algorithm(path, key)


def _algorithm(path: str, key: Any) -> str:
    """C2PA's name of the signature that a key makes."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in curves:
        return curves[key.curve.name]
    raise SpecError(
        f"--sign: C2PA knows no signatures of the key {path}; P-256, P-384, P-521, Ed25519 and RSA "
        "of 2048 bits and more work"
    )


def _check_dates(path: str, each: x509.Certificate, of: str) -> None:
    now = datetime.now(UTC)
    if now > each.not_valid_after_utc:
        day = f"{each.not_valid_after_utc:%Y-%m-%d}"
        raise SpecError(f"--sign: {of}{path} expired on {day}; renew it")
    if now < each.not_valid_before_utc:
        raise SpecError(f"--sign: {of}{path} is valid from {each.not_valid_before_utc:%Y-%m-%d} on")


def _tiny() -> tuple[io.BytesIO, io.BytesIO]:
    """A picture to sign, and where to."""
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (1, 1)).save(picture, "PNG")
    picture.seek(0)
    return picture, io.BytesIO()
