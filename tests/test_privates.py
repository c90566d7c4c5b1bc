"""No test overwrites what the product keeps to itself: it passes a clock, a storage, a number.

What a test may replace is public: a parameter, a module's constant or function, a library's call.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OWN = ("self", "cls")  # whose private names are a test's own


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def overwritten(text: str) -> Iterator[str]:
    """Private names of others that a test sets, deletes, or has replaced."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("setattr", "delattr", "setitem", "delitem"):
                yield from _named(node.args[:2])
        elif isinstance(node, ast.Attribute | ast.Subscript):
            target = node
            while isinstance(target, ast.Subscript):
                target = target.value  # type: ignore[assignment]
            is_set = isinstance(node.ctx, ast.Store | ast.Del)
            if not (is_set and isinstance(target, ast.Attribute) and is_private(target.attr)):
                continue
            if not (isinstance(target.value, ast.Name) and target.value.id in OWN):
                yield target.attr


def _named(arguments: list[ast.expr]) -> Iterator[str]:
    """Private names among an owner and a name, or in a dotted path."""
    for argument in arguments:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield from filter(is_private, argument.value.rpartition(".")[2:])
        elif isinstance(argument, ast.Attribute) and is_private(argument.attr):
            yield argument.attr


def test_no_test_overwrites_what_is_private() -> None:
    for file in sorted((ROOT / "tests").rglob("*.py")):
        assert list(overwritten(file.read_text())) == [], file.relative_to(ROOT)


def test_control_every_way_is_seen() -> None:
    ways = """
patch.setattr(upload, "_pieces", cut)
patch.setattr("frieze.renderer.outputs.upload._pieces", cut)
patch.setattr(upload.Sender, "_pieces", cut)
patch.setitem(model_cache._pieces, "a", cut)
lease._pieces = 1
lease._pieces["a"] = 1
del lease._pieces["a"]["b"]
lease.held._pieces += 1
"""
    assert list(overwritten(ways)) == ["_pieces"] * 8
    public = """
patch.setattr(upload, "PART_BYTES", 5)
patch.setattr("torch.nn.Module.__init__", refuse)
self._kept = lease.held()
lease.renewed = 0.0
print(lease._pieces)
"""
    assert list(overwritten(public)) == []
