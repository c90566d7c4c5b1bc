"""The command that shows stores in a browser: view."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from ..terminal.text import remark, result
from .options import completions
from .options.arguments import Json, Overwrite
from .options.tls import Certificate, CertificateKey, tls_context


def view(
    place: Annotated[
        str,
        typer.Argument(
            metavar="[STORE|FOLDER]",
            help="a store, a folder of stores or of a batch, or s3://bucket/name",
            autocompletion=completions.stores,
        ),
    ] = ".",
    host: Annotated[
        str,
        typer.Option(
            help="name or address to listen on; default: this machine's own, others ask a token"
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="port to listen on; default: 8484, or any that is free")
    ] = None,
    token: Annotated[
        bool,
        typer.Option("--token", help="ask a token here too, on a machine that others use as well"),
    ] = False,
    certificate: Certificate = None,
    key: CertificateKey = None,
    opens: Annotated[
        bool,
        typer.Option(
            "--open/--no-open", help="open the page in a browser here; default: print its address"
        ),
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="write the page and all finished pictures for a web server; default: serve them",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Show renders in a browser while they are drawn: deep zoom, progress, comparisons.

    Nothing is written into a store, and no request leaves this machine. Ctrl-C ends it.
    """
    from ..connections.loopback import is_loopback
    from ..viewer import server
    from ..viewer.entries import Collection

    collection = Collection(place)
    if export is not None:
        from ..viewer.site import write

        path = write(collection, export, overwrite=overwrite)
        result(jsonlib.dumps({"event": "result", "path": str(path)}) if json else str(path))
        return
    secret = server.new_token() if token or not is_loopback(host) else None
    tls = tls_context(certificate, key)
    listener = server.listening(host, port)
    address = server.address(host, listener, secret, tls)
    result(jsonlib.dumps({"event": "view", "url": address}) if json else address)
    if not collection.stores and not collection.batches:
        remark(f"no store is in {place} yet; renders appear as they begin")
    if opens:
        server.open_page(address)
    server.serve(server.application(collection, host=host, token=secret), listener, tls)
