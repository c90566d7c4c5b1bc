"""The page needs nothing but its server, and sets every text as text."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from frieze.renderer.viewer.access import POLICY
from frieze.renderer.viewer.server import FILES, file

OWN = ("page.html", "page.css", "page.js", "canvas.js")
# Addresses in OpenSeadragon: names of formats, its licence, and a server that only its source of
# street maps asks. Nothing of them is loaded, and the policy would refuse it.
KNOWN = re.compile(
    r"https?://(openseadragon\.github\.io|iiif\.io/api/image|library\.stanford\.edu/iiif"
    r"|schemas\.microsoft\.com/deepzoom|tile\.openstreetmap\.org)"
)


def text(name: str) -> str:
    return file(name).decode()


@pytest.mark.parametrize("name", OWN)
def test_no_address_outside_is_named(name: str) -> None:
    outside = re.compile(r"(\w+:)?//[\w.-]+\.\w+|@import|url\(", re.IGNORECASE)
    assert outside.findall(text(name)) == []
    assert outside.findall("see http://a.example") != []


def test_what_openseadragon_names_is_known() -> None:
    script = text("openseadragon.min.js")
    assert script.startswith("//! openseadragon 6.1.1\n")
    addresses = re.findall(r"https?://[^\s\"'`)]+", script)
    assert [each for each in addresses if not KNOWN.match(each)] == []
    assert "BSD" in text("openseadragon-license.txt") or "Redistribution" in text(
        "openseadragon-license.txt"
    )


def test_every_file_of_the_page_is_served() -> None:
    held = {
        each.name for each in resources.files("frieze.renderer.viewer").joinpath("page").iterdir()
    }
    assert held == {own for own, _ in FILES.values()}
    named = re.findall(r'(?:src|href)="([^"#]+)"', text("page.html"))
    assert {name for name in named if name != "data:,"} <= set(FILES)


def test_the_page_states_the_servers_policy() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text("page.html"))
    # What a page cannot say of itself: who may frame it.
    assert f"{policy}; frame-ancestors 'none'" == POLICY
    assert "unsafe" not in POLICY


@pytest.mark.parametrize("name", ["page.js", "canvas.js"])
def test_no_text_becomes_markup_or_code(name: str) -> None:
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|srcdoc"
    assert re.findall(unsafe, text(name)) == []
    assert re.search(r"<script>|style=|onclick", text("page.html")) is None
