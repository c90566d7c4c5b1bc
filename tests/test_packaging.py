"""The wheel and the editable install: what they hold, and that top-level `kernels` stays free."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
FOLDERS = ("renderer", "cluster", "kernels", "configs")
# Code that a user's process meets: `demo` trains, `__main__` and `doctor` are run, not imported.
IMPORTED = (
    "frieze.renderer",
    "frieze.renderer.cli.app",
    "frieze.renderer.spec.render_spec",
    "frieze.cluster.layout",
    "frieze.kernels.reference",
)

# Packages that come with another, which is the one to declare.
PARTS = {"botocore": "boto3", "pydantic_core": "pydantic", "tokenizers": "transformers"}


def run_python(code: str, *paths: Path, cwd: Path) -> str:
    """What the code prints in a fresh interpreter with these folders first on sys.path."""
    path = os.pathsep.join(str(p) for p in paths)
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for setuptools leaves its scratch folders beside the sources."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, tree]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed into."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index"]
    command += ["--quiet", "--target", str(target), str(wheel)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return target


@pytest.fixture
def hub_kernels(tmp_path: Path) -> Path:
    """A folder with a stand-in for Hugging Face's `kernels`, a regular top-level package."""
    package = tmp_path / "hub" / "kernels"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("owner = 'hub'\n")
    return package.parent


def test_wheel_holds_every_source_file_and_nothing_else(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    own = {name for name in held if not re.match(r"frieze-[^/]+\.dist-info/", name)}
    files = (file for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.is_file())
    there = {f"frieze/{file.relative_to(ROOT).as_posix()}" for file in files}
    shipped = {name for name in there if "__pycache__" not in name and not name.endswith(".png")}
    assert sorted(own - shipped) == []
    assert sorted(shipped - own) == []
    assert "frieze/renderer/py.typed" in own


def test_wheel_declares_the_console_script(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel)
    (name,) = (n for n in files.namelist() if n.endswith("entry_points.txt"))
    assert "frieze = frieze.renderer.__main__:main" in files.read(name).decode()
    assert any(n.endswith("licenses/LICENSE") for n in files.namelist())


def place_of(module: str) -> str:
    """Code that prints the module's file; what begins with torch is found, not imported."""
    if module.startswith("frieze.kernels"):
        return f"from importlib.util import find_spec; print(find_spec('{module}').origin)"
    return f"import {module} as m; print(m.__file__)"


@pytest.mark.parametrize("module", IMPORTED)
def test_wheel_imports(installed: Path, tmp_path: Path, module: str) -> None:
    code = place_of(module)
    assert Path(run_python(code, installed, cwd=tmp_path)).is_relative_to(installed)


@pytest.mark.parametrize("module", IMPORTED)
def test_editable_install_imports_the_sources(tmp_path: Path, module: str) -> None:
    assert Path(run_python(place_of(module), cwd=tmp_path)).is_relative_to(ROOT)


def test_wheel_finds_its_presets_and_plugins(installed: Path, tmp_path: Path) -> None:
    code = (
        "from frieze.renderer import plugins; import frieze.renderer as r;"
        "from frieze.renderer.spec import presets, render_spec as spec;"
        "spec.parse(presets.preset('demo'));"
        "print(r.__file__, *(n for k in plugins.KINDS for n in plugins.names(k)))"
    )
    file, *names = run_python(code, installed, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed)
    assert {"flux", "pi", "tiff", "bands"} <= set(names)


def test_nothing_of_ours_lies_at_top_level(installed: Path) -> None:
    there = {entry.name for entry in installed.iterdir()}
    assert {name for name in there if not name.endswith(".dist-info")} <= {"frieze", "bin"}


OWNER = (
    "from importlib.util import find_spec; assert find_spec('frieze.kernels.reference');"
    "import kernels; print(kernels.owner)"
)


def test_top_level_kernels_stays_free_beside_the_wheel(
    installed: Path, hub_kernels: Path, tmp_path: Path
) -> None:
    assert run_python(OWNER, installed, hub_kernels, cwd=tmp_path) == "hub"


def test_top_level_kernels_stays_free_in_the_checkout(hub_kernels: Path, tmp_path: Path) -> None:
    """The root comes first, as in a worker started from it; a regular package still wins."""
    for cwd in (tmp_path, ROOT):
        assert run_python(OWNER, ROOT, ROOT / "tests", hub_kernels, cwd=cwd) == "hub"


def test_a_kernels_package_of_ours_would_hide_it(hub_kernels: Path, tmp_path: Path) -> None:
    """The control: this is what `kernels/__init__.py` would do."""
    ours = tmp_path / "checkout" / "kernels"
    ours.mkdir(parents=True)
    (ours / "__init__.py").touch()
    code = "import kernels; print(hasattr(kernels, 'owner'))"
    assert run_python(code, ours.parent, hub_kernels, cwd=tmp_path) == "False"


def test_constraints_pin_every_direct_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    wanted = [Requirement(line) for group in groups for line in group]
    for version in ("3.11", "3.12", "3.13"):
        python = {"python_version": version, "python_full_version": f"{version}.0"}
        pinned = {normal(p.name): p for p in pins if not p.marker or p.marker.evaluate(python)}
        for requirement in wanted:
            pin = pinned.get(normal(requirement.name))
            assert pin, f"{requirement.name} has no pin for Python {version}"
            (exact,) = pin.specifier
            assert exact.operator == "=="
            assert exact.version in requirement.specifier, f"{pin} is outside {requirement}"
        assert pinned.keys() == {normal(requirement.name) for requirement in wanted}


def test_packages_are_the_folders_with_code() -> None:
    folders = {path.parent.relative_to(ROOT) for path in sources()} | {Path("configs")}
    names = {"frieze." + folder.as_posix().replace("/", ".") for folder in folders}
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(names)


def test_every_import_is_a_declared_dependency() -> None:
    extras = PROJECT["optional-dependencies"]
    optional = (extras[name] for name in sorted(extras.keys() - {"bench", "dev", "docs"}))
    lines = [*PROJECT["dependencies"], *itertools.chain(*optional)]
    declared = {normal(Requirement(line).name) for line in lines}
    shipped_by = metadata.packages_distributions()
    for path in sources():
        for top in imported_packages(path.read_text(encoding="utf-8")):
            ships = {normal(name) for name in shipped_by.get(PARTS.get(top, top), [top])}
            assert ships & declared, f"{path} imports {top}, which pyproject.toml lacks"


def sources() -> list[Path]:
    return sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


def imported_packages(text: str) -> set[str]:
    """Third-party packages that a module imports, at top or lazily."""
    nodes = list(ast.walk(ast.parse(text)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    tops = {name.split(".")[0] for name in plain | named if name}
    return tops - sys.stdlib_module_names - {"frieze"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
