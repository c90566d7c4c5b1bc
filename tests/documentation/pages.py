"""All pages of the site as texts; nothing is listed that the product can be asked for."""

from __future__ import annotations

from pathlib import Path

from documentation import command_pages, plugin_pages, python_pages, source_pages
from documentation.markdown import page, toctree

ROOT = Path(__file__).resolve().parents[2]


def pages(root: Path = ROOT) -> dict[str, str]:
    """Markdown of every page, by its path without a suffix."""
    made = {
        "tutorial": (Path(__file__).with_name("tutorial.md")).read_text(encoding="utf-8"),
        **command_pages.pages(root),
        **plugin_pages.pages(root),
        **python_pages.pages(),
        **source_pages.pages(root),
    }
    return {"index": _index(root, made), **made}


def _index(root: Path, made: dict[str, str]) -> str:
    """The first page: the README's beginning, and everything in the sidebar."""
    kinds = [f"{kind}/index" for kind in plugin_pages.KINDS]
    starts = "Begin with the [tutorial](/tutorial.md), from the demo to a cluster; look at the "
    starts += "[gallery](/gallery.md) of methods; look up [commands](/commands/index.md), "
    starts += "[presets](/presets/index.md) and [names in Python](/python.md)."
    about, _, shown = source_pages.introduction(root).partition("\n\n")
    reference = ["commands/index", *kinds, "gallery", "presets/index", "files", "python"]
    return page(
        "# Frieze",
        about,
        starts,
        f"::::{{container}} poster\n{shown}\n::::",
        toctree(["tutorial", *source_pages.guide(root)], "Guide"),
        toctree(reference, "Reference"),
        toctree(["results/index", *source_pages.WHOLE.values()], "Project"),
    )


def write(folder: Path, root: Path = ROOT) -> None:
    """The pages and the pictures that they show, as sources of Sphinx."""
    for path, text in pages(root).items():
        file = folder / f"{path}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        for picture in source_pages.pictures(root, text):
            copy = folder / "pictures" / picture.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(picture.read_bytes())
