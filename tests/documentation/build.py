"""`make docs`: the site, from the sources of the product, into a folder; a warning is an error."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from documentation.links import broken, foreign
from documentation.pages import write
from frieze.renderer.errors import printable

HERE = Path(__file__).parent
MARK = "objects.inv"  # what Sphinx leaves in every site


def build(out: Path) -> list[str]:
    """The site in `out`, which it replaces; returns what is wrong, and then leaves `out` alone."""
    from sphinx.cmd.build import build_main

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".site-") as scratch:
        source, made = Path(scratch, "source"), Path(scratch, "site")
        write(source)
        words = ["-W", "--keep-going", "-q", "-c", str(HERE), "-d", f"{scratch}/doctrees"]
        if build_main([*words, str(source), str(made)]):
            return ["Sphinx had warnings"]
        if wrong := [*broken(made), *foreign(made)]:
            return wrong
        if out.exists():
            out.rename(Path(scratch, "before"))
        made.rename(out)
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("site"), help="default: site")
    out = parser.parse_args().out.absolute()
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file()):
        told = f"{printable(out)} is no site, and would be replaced; an empty folder works"
        print(told, file=sys.stderr)
        return 2
    try:
        wrong = build(out)
    except OSError as error:
        print(f"{printable(out)} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(printable(out / "index.html"))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
