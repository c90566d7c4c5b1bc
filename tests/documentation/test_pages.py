"""The pages of the site as texts: one for all there is, and links that lead to them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import frieze.renderer
from documentation import command_pages, plugin_pages
from documentation.links import broken, foreign
from documentation.pages import ROOT, pages
from documentation.source_pages import named
from frieze.renderer import plugins
from frieze.renderer.cli.options.completions import option_schemas
from frieze.renderer.spec.presets import preset_names
from support.command_line import parsed

LINK = re.compile(r"\]\(([^)\s]+)\)")
LABEL = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def unmet(made: dict[str, str]) -> Iterator[str]:
    """Links within the site to pages, labels and pictures that are not there."""
    labels = {label for text in made.values() for label in LABEL.findall(text)}
    for name, text in made.items():
        prose = re.sub(r"^(`{3,}).*?^\1$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
        for link in LINK.findall(prose):
            if link.startswith("#"):
                known = link[1:] in labels
            elif link.startswith("/pictures/"):
                known = (ROOT / link.removeprefix("/pictures/")).is_file()
            else:
                known = link.startswith("https://") or link.strip("/").removesuffix(".md") in made
            if not known:
                yield f"{name}: {link}"


def test_every_command_has_a_page_with_its_options(made: dict[str, str]) -> None:
    found = dict(command_pages.commands())
    assert {"render", "train lora"} <= found.keys()
    for words, command in found.items():
        text = made[command_pages.path_of(words)]
        assert f"# frieze {words}\n" in text
        assert f"(/{command_pages.path_of(words)}.md)" in made["commands/index"]
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert parameter.opts[0] in text, (words, parameter.opts)


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_plugin_has_a_page_with_its_options(made: dict[str, str], kind: str) -> None:
    for name in plugins.names(kind):
        text = made[f"{kind}/{name}"]
        assert f"(/{kind}/{name}.md)" in made[f"{kind}/index"]
        assert all(f"`{option}`\n: " in text for option in option_schemas(kind, name))


def test_every_method_that_was_drawn_shows_its_picture(made: dict[str, str]) -> None:
    drawn = plugin_pages.pictures(ROOT)
    assert len(drawn) > 10
    for name in drawn:
        picture = f"/pictures/{plugin_pages.GALLERY}/{name}.jpg"
        assert picture in made[f"methods/{name}"]
        assert f"({picture})](/methods/{name}.md)" in made["gallery"]
    size = sum(file.stat().st_size for file in (ROOT / plugin_pages.GALLERY).iterdir())
    assert size < 600_000


def test_presets_public_names_results_and_guide_are_there(made: dict[str, str]) -> None:
    assert all(f"\n## {name}\n" in made["presets/index"] for name in preset_names())
    assert all(f"\n## {name}\n" in made["python"] for name in frieze.renderer.__all__)
    for file in (ROOT / "tests" / "bench" / "results").glob("*.md"):
        assert f"(/results/{file.stem}.md)" in made["results/index"]
    titles = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert titles == [made[p].splitlines()[0][2:] for p in made if p.startswith("guide/")]


def test_the_guide_links_to_what_it_names(made: dict[str, str]) -> None:
    assert "[`rdfc`](/methods/rdfc.md)" in made["guide/beyond-the-trained-size"]
    assert "[`frieze plan`](/commands/plan.md)" in made["guide/models"]
    text = "`frieze plan` [`frieze plan`](x)\n```sh\n`frieze plan`\n```\n`frieze` ``frieze plan``"
    assert named(text) == text.replace("`frieze plan`", "[`frieze plan`](/commands/plan.md)", 1)


def test_links_between_pages_lead_somewhere(made: dict[str, str]) -> None:
    assert sum(len(LINK.findall(text)) for text in made.values()) > 200
    assert list(unmet(made)) == []
    assert list(unmet({**made, "python": "[a](/no.md) [b](#no) `[c](/d.md)`"})) == [
        "python: /no.md",
        "python: #no",
    ]


def test_every_page_is_in_the_sidebar(made: dict[str, str]) -> None:
    named = set()
    for path, text in made.items():
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            below = [line for line in tree.splitlines() if line and not line.startswith(":")]
            named |= {str(Path(path).parent / name) for name in below}
    orphans = {path for path, text in made.items() if text.startswith("---\norphan: true")}
    assert made.keys() - named - orphans == {"index"}
    assert named <= made.keys()


def test_commands_of_the_tutorial_and_of_plugins_are_taken(made: dict[str, str]) -> None:
    kinds = tuple(f"{kind}/" for kind in plugins.KINDS)
    texts = [text for path, text in made.items() if path.startswith(("tutorial", *kinds))]
    lines = [
        shlex.split(line, comments=True)[1:]
        for block in re.findall(r"```sh\n(.*?)```", "".join(texts), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("frieze ")
    ]
    assert len(lines) > 40
    for words in lines:
        parsed(words)
    with pytest.raises(Exception, match="sise"):
        parsed(["render", "x", "--sise", "3"])


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#x">1</a><a href="b.html#y">2</a><a href="c.html">3</a>'
        '<a href="https://example.org">4</a><img src="//example.org/p.png">'
    )
    (tmp_path / "b.html").write_text('<p id="x">')
    assert list(broken(tmp_path)) == ["a.html: no anchor at b.html#y", "a.html: no file at c.html"]
    assert list(foreign(tmp_path)) == ["a.html: fetches //example.org/p.png"]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    script, path = (
        ROOT / "tests" / "documentation" / "build.py",
        {"PYTHONPATH": str(ROOT / "tests")},
    )
    command = [sys.executable, str(script), str(tmp_path / "site")]
    run = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    built = {file.relative_to(tmp_path / "site") for file in (tmp_path / "site").rglob("*.html")}
    assert {Path(f"{path}.html") for path in pages()} <= built
