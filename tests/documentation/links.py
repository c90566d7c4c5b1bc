"""What the links of a built site lead to: pages and anchors that are there, and no other host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself; what a reader follows may lead anywhere.
FETCHED = {"src", "srcset", "data", "poster"}


@dataclass
class Page(HTMLParser):
    """A page's anchors, what it links to, and what it has a browser fetch."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in FETCHED or (name == "href" and tag == "link"):
                self.fetched.append(value or "")
            elif name == "href":
                self.links.append(value or "")


def read(folder: Path) -> dict[Path, Page]:
    """Every page of a site."""
    pages = {}
    for file in sorted(folder.rglob("*.html")):
        pages[file] = page = Page()
        page.feed(file.read_text(encoding="utf-8"))
    return pages


def broken(folder: Path) -> Iterator[str]:
    """Links of a site that lead to no file or no anchor of it."""
    pages = read(folder)
    for file, page in pages.items():
        for link in (*page.links, *page.fetched):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            goal = Path(os.path.normpath(file.parent / unquote(parts.path))) if parts.path else file
            anchors = pages[goal].anchors if goal in pages else set()
            if not goal.is_file():
                yield f"{file.relative_to(folder)}: no file at {link}"
            elif parts.fragment and goal in pages and unquote(parts.fragment) not in anchors:
                yield f"{file.relative_to(folder)}: no anchor at {link}"


def foreign(folder: Path) -> Iterator[str]:
    """What pages and their styles have a browser fetch from other hosts."""
    for file, page in read(folder).items():
        for link in page.fetched:
            if urlsplit(link).netloc:
                yield f"{file.relative_to(folder)}: fetches {link}"
    for file in sorted(folder.rglob("*.css")):
        text = file.read_text(encoding="utf-8")
        for sign in ("url(http", "url(//", 'url("http', "@import"):
            if sign in text:
                yield f"{file.relative_to(folder)}: has {sign}"
