"""Flags of commands that serve: the certificate, and its key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ...terminal.text import remark

if TYPE_CHECKING:
    import ssl

Certificate = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="PEM of a certificate with its chain, for https; default: http"
    ),
]
CertificateKey = Annotated[
    str | None,
    typer.Option("--key", metavar="FILE", help="PEM of the certificate's key; default: none"),
]


def tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS as asked for, with a remark where clients will refuse it; raises `SpecError`."""
    from ...connections.certificate import fault, server_context

    context = server_context(certificate, key)
    if context is not None and certificate is not None and (why := fault(context, certificate)):
        remark(f"--certificate {certificate} {why}")
    return context
