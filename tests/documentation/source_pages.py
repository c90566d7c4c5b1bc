"""Pages that are files of the tree: README by its sections, Markdown, presets, configs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from documentation import command_pages
from documentation.markdown import code, page, prose, slug, toctree
from frieze.renderer import plugins
from frieze.renderer.spec.presets import preset_names

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#:\s]+)\)")
FENCED = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<![\[`])`([^`\n]+)`(?![`\]])")  # that is no link already
FIRST_CELL = re.compile(r"^\|[^|\n]*\|", re.MULTILINE)
PICTURES = {".png", ".jpg", ".jpeg", ".svg", ".webp"}
LANGUAGES = {".yaml": "yaml", ".sh": "bash", ".outline": "python", "": "docker"}
RESULTS = PurePosixPath("tests/bench/results")
WHOLE = {"CONTRIBUTING.md": "contributing", "CHANGELOG.md": "changelog"}


def path_of(file: PurePosixPath) -> str:
    """The page of a Markdown file, as `results/quality`."""
    if file.is_relative_to(RESULTS):
        return f"results/{file.stem}"
    return WHOLE.get(str(file), slug(str(file.with_suffix(""))))


def pages(root: Path) -> dict[str, str]:
    made = {**_guide(root), **_results(root)}
    made |= {name: _markdown(root, PurePosixPath(file)) for file, name in WHOLE.items()}
    for file in _linked(root):
        made.setdefault(path_of(file), _alone(_markdown(root, file)))
    made["presets/index"] = _presets(root)
    made["files"] = _files(root)
    return made


def introduction(root: Path) -> str:
    """What the README says before its first section."""
    text = (root / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    return _relinked(root, PurePosixPath("README.md"), text.partition("\n")[2].strip())


def guide(root: Path) -> list[str]:
    """The README's sections, as pages in their order."""
    return [f"guide/{slug(title)}" for title, _ in _sections(root)]


def pictures(root: Path, text: str) -> Iterator[Path]:
    """Pictures that a page shows, from the root."""
    for shown in re.findall(r"\]\(/pictures/([^)]+)\)", text):
        yield root / shown


def _sections(root: Path) -> list[tuple[str, str]]:
    text = (root / "README.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def _guide(root: Path) -> dict[str, str]:
    readme = PurePosixPath("README.md")
    return {
        f"guide/{slug(title)}": page(
            f"# {title}",
            named(_relinked(root, readme, re.sub(r"^###", "##", text, flags=re.M))).strip(),
        )
        for title, text in _sections(root)
    }


def named(text: str) -> str:
    """With links from what has a page: commands, presets, and plugins where a table lists them."""
    pages = {f"frieze {w}": f"/{command_pages.path_of(w)}.md" for w, _ in command_pages.commands()}
    pages |= {name: f"#preset-{name}" for name in preset_names() if "-" in name}
    plugin = {n: f"/{kind}/{n}.md" for kind in ("families", "methods") for n in plugins.names(kind)}

    def linked(text: str, known: dict[str, str]) -> str:
        return SPAN.sub(lambda m: f"[{m[0]}]({known[m[1]]})" if m[1] in known else m[0], text)

    parts = FENCED.split(text)
    for i in range(0, len(parts), 2):
        parts[i] = linked(FIRST_CELL.sub(lambda row: linked(row[0], plugin), parts[i]), pages)
    return "".join(parts)


def _markdown(root: Path, file: PurePosixPath) -> str:
    return _relinked(root, file, (root / file).read_text(encoding="utf-8"))


def _results(root: Path) -> dict[str, str]:
    files = sorted((root / RESULTS).glob("*.md"))
    made = {f"results/{file.stem}": _markdown(root, RESULTS / file.name) for file in files}
    links = "\n".join(
        f"- [{text.partition(chr(10))[0].lstrip('# ')}](/{path}.md)" for path, text in made.items()
    )
    told = "Each table says which command wrote it, and on what."
    below = toctree(PurePosixPath(path).name for path in made)
    return {**made, "results/index": page("# Results", told, links, below)}


def _linked(root: Path) -> Iterator[PurePosixPath]:
    """Markdown files that others link to."""
    for file in (PurePosixPath("README.md"), *map(PurePosixPath, WHOLE)):
        for _, _, target in LINK.findall((root / file).read_text(encoding="utf-8")):
            if target.endswith(".md") and target != "README.md":
                yield PurePosixPath(os.path.normpath(file.parent / target))


def _alone(text: str) -> str:
    """A page that is in no list, a model card's for one, whose front matter is not Sphinx's."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return f"---\norphan: true\n---\n\n{text.lstrip()}"


def _relinked(root: Path, file: PurePosixPath, text: str) -> str:
    """Links of a file, which lead to others of the tree, as links between pages."""

    def link(match: re.Match[str]) -> str:
        shown, words, target = match.groups()
        goal = PurePosixPath(os.path.normpath(file.parent / target))
        if goal.suffix in PICTURES:
            return f"{shown}[{words}](/pictures/{goal})"
        if goal.suffix == ".md":
            return f"[{words}](/{'index' if str(goal) == 'README.md' else path_of(goal)}.md)"
        if goal.parts[0] == "configs":
            return f"[{words}](#{label(root, goal)})"
        return f"`{goal}`"

    parts = FENCED.split(text)
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


# Files of configs


def label(root: Path, file: PurePosixPath) -> str:
    """Where a file of configs is shown, or the folder that it lies in."""
    is_shown = (root / file).is_dir() or file.suffix in LANGUAGES
    return slug(str(file if is_shown else file.parent))


def _files(root: Path) -> str:
    """Folders of configs with their files; those that are data or have pages are named alone."""
    parts = ["# Configuration files", "All of them lie in `configs`, and in the installed package."]
    for folder in sorted(path for path in (root / "configs").iterdir() if path.is_dir()):
        place = folder.relative_to(root).as_posix()
        parts += [f"({slug(place)})=", f"## {place}"]
        if folder.name == "presets":
            parts.append("[Presets](/presets/index.md) have a page.")
            continue
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = file.relative_to(root).as_posix()
            if file.suffix not in LANGUAGES:
                parts.append(f"`{name}`")
                continue
            text = file.read_text(encoding="utf-8")
            parts += [f"({slug(name)})=", f"### {file.name}", code(text, LANGUAGES[file.suffix])]
    return page(*parts)


def _presets(root: Path) -> str:
    """Every preset: the comment that says its source, and its fields."""
    parts = [
        "# Presets",
        "`frieze render --preset NAME` begins with one; flags override.",
    ]
    for name in preset_names():
        text = (root / "configs" / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
        head = re.match(r"(?:#.*\n)*", text)
        said = re.sub(r"^# ?", "", head[0] if head else "", flags=re.MULTILINE)
        fields = text[head.end() if head else 0 :]
        parts += [f"(preset-{name})=", f"## {name}", prose(said), code(fields, "yaml")]
    return page(*parts)
