"""Certificates of an authority that nobody knows, made here, for what is signed in tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ORGANIZATION = "Tests of Frieze"


@dataclass(frozen=True)
class Authority:
    """A root certificate, and its key."""

    root: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls) -> Authority:
        """One that is valid for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            _builder("root", key.public_key(), "root", (-400, 3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(is_authority=True), critical=True)
        )
        return cls(made.sign(key, hashes.SHA256()), key)

    @property
    def text(self) -> str:
        """The root in PEM."""
        return self.root.public_bytes(pem.Encoding.PEM).decode()

    def issue(
        self,
        folder: Path,
        name: str = "signer",
        *,
        days: tuple[float, float] = (-1, 30),
        passphrase: bytes | None = None,
        is_edwards: bool = False,
        host: str | None = None,
    ) -> tuple[str, str]:
        """Files of a certificate with its chain, and of its key; valid from and to these days.

        It is for signing, or for a server of that name.
        """
        use = ExtendedKeyUsageOID.SERVER_AUTH if host else ExtendedKeyUsageOID.EMAIL_PROTECTION
        key = (
            ed25519.Ed25519PrivateKey.generate()
            if is_edwards
            else ec.generate_private_key(ec.SECP256R1())
        )
        own = (
            _builder(name, key.public_key(), "root", days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(host or name)]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        lock = pem.BestAvailableEncryption(passphrase) if passphrase else pem.NoEncryption()
        certificate, secret = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(own.public_bytes(pem.Encoding.PEM) + self.text.encode())
        secret.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, lock))
        return str(certificate), str(secret)


def _builder(
    name: str,
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
    issuer: str,
    days: tuple[float, float],
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(name: str) -> x509.Name:
    pairs = ((NameOID.ORGANIZATION_NAME, ORGANIZATION), (NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in pairs])


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
