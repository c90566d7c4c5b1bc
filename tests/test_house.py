"""The house: few modules at the root, small packages with a purpose, and no circle of imports."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("renderer", "cluster", "kernels")
PLUGINS = {
    *("renderer/families", "renderer/methods", "renderer/exports", "renderer/watermarks"),
    "cluster/strategies",
}
MOST_AT_ROOT, MOST_IN_PACKAGE = 7, 16


def packages() -> dict[str, list[Path]]:
    """Files of each folder of the product, by the folder's path from the root."""
    files: dict[str, list[Path]] = defaultdict(list)
    for top in TOPS:
        for file in sorted((ROOT / top).rglob("*.py")):
            files[file.parent.relative_to(ROOT).as_posix()].append(file)
    return files


def modules() -> dict[str, Path]:
    """Files of the product by dotted name, a package by its own."""
    found = {}
    for files in packages().values():
        for file in files:
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(name: str, text: str, known: Mapping[str, object]) -> Iterator[str]:
    """Our modules that a module imports anywhere: at run time, for types alone, in a function."""
    is_package = known.get(name, "") == "package"
    parent = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = parent[: len(parent) - node.level + 1] + (node.module or "").split(".")
            names = [".".join(filter(None, ["frieze", *base, a.name])) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for dotted in names:
            parts = dotted.split(".")
            if parts[0] != "frieze":
                continue
            while len(parts) > 1 and ".".join(parts[1:]) not in known:
                parts.pop()
            if len(parts) > 1 and (target := ".".join(parts[1:])) != name:
                yield target


def graph(texts: Mapping[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """{module: modules that it imports} of {module: (text, whether it is a package)}."""
    known = {name: "package" if is_package else "module" for name, (_, is_package) in texts.items()}
    return {name: set(imported(name, text, known)) for name, (text, _) in texts.items()}


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other, the first one again at the end; none where none do."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    """Packages' faces and the public one count: what they show must not need them."""
    texts = {
        name: (file.read_text(encoding="utf-8"), file.name == "__init__.py")
        for name, file in modules().items()
    }
    assert circle(graph(texts)) == []


@pytest.mark.parametrize(
    "line",
    [
        "from ..a.one import f",
        "def f():\n    from frieze.a import one",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from frieze.a.one import T",
    ],
)
def test_control_a_circle_shows_even_of_types(line: str) -> None:
    texts = {
        "a": ("", True),
        "b": ("", True),
        "a.one": ("from frieze.b.two import g", False),
        "b.two": (line, False),
    }
    assert set(circle(graph(texts))) == {"a.one", "b.two"}
    assert circle(graph(texts | {"b.two": ("import frieze.b", False)})) == []


def test_the_root_of_the_renderer_is_its_face() -> None:
    names = [file.name for file in packages()["renderer"]]
    assert len(names) <= MOST_AT_ROOT, names


def test_no_package_is_a_heap() -> None:
    large = {
        folder: len(files)
        for folder, files in packages().items()
        if folder not in PLUGINS and len(files) > MOST_IN_PACKAGE
    }
    assert not large


def test_a_package_states_its_purpose_and_nothing_else() -> None:
    """Faces excepted, and plugins' contracts, which lie in the package of their plugins."""
    faces = {
        "renderer",
        "cluster/comm",
        "cluster/attention",
        "cluster/bands",
        "cluster/fleet",
        *PLUGINS,
    }
    for folder, files in packages().items():
        if folder == "kernels" or folder in faces:
            continue
        (face,) = (file for file in files if file.name == "__init__.py")
        (purpose,) = ast.parse(face.read_text(encoding="utf-8")).body
        assert isinstance(purpose, ast.Expr), folder


def test_a_face_hides_no_module_behind_a_name() -> None:
    """`from .threads import threads` would put a function where the module is looked for."""
    for folder, files in packages().items():
        names = {file.stem for file in files}
        for file in files:
            if file.name == "__init__.py":
                tree = ast.parse(file.read_text(encoding="utf-8"))
                walk = ast.walk(tree)
                nodes = [node for node in walk if isinstance(node, ast.ImportFrom) and node.module]
                shown = {alias.asname or alias.name for node in nodes for alias in node.names}
                assert not shown & names, f"{folder}: {shown & names}"
