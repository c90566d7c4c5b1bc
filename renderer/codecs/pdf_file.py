"""Objects of a PDF, written one after another to a file that never lies in memory.

The container is small (ISO 32000-1:2008, section 7): objects with numbers, a table of where each
begins, and a trailer. A stream is handed over in parts, and its length is an object of its own that
follows it. Libraries that make PDFs take each stream as one value: at 16384 x 16384 pixels img2pdf
0.6 held 2970 MB, pikepdf 10 as much as the file and its parts in it, 2330 MB, reportlab 5 10800 MB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import BinaryIO

from ..errors import ExportError

# 1.6: pages larger than 200 inches; what PDF/X-4 is made of.
HEADER = b"%PDF-1.6\n%\xe2\xe3\xcf\xd3\n"
MOST_BYTES = 10**10 - 1  # a place in the table has ten digits


class PdfFile:
    """A PDF that is being written; values of dictionaries are texts of PDF, as `name` makes them.

    Raises `ExportError` beyond 10 GB, where classic tables end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: list[int | None] = []
        self._size = 0
        self._digest = hashlib.md5(usedforsecurity=False)
        self._write(HEADER)

    def reserve(self) -> int:
        """The number of an object that is written later."""
        self._places.append(None)
        return len(self._places)

    def add(self, value: Mapping[str, str] | str, number: int | None = None) -> int:
        """Write an object; returns its number."""
        number = self.reserve() if number is None else number
        self._begin(number)
        self._write(f"{_text(value)}\nendobj\n".encode("latin-1"))
        return number

    def add_stream(
        self, about: Mapping[str, str], parts: Iterable[bytes], number: int | None = None
    ) -> int:
        """Write a stream in parts, as they come; returns its number."""
        number = self.reserve() if number is None else number
        length = self.reserve()
        self._begin(number)
        self._write(f"{_text({**about, 'Length': reference(length)})}\nstream\n".encode("latin-1"))
        start = self._size
        for part in parts:
            self._write(part)
        size = self._size - start
        self._write(b"\nendstream\nendobj\n")
        self.add(str(size), length)
        return number

    def end(self, root: int, info: int) -> None:
        """Write the table and the trailer; the file's identifier is a digest of its bytes."""
        identifier, start = f"<{self._digest.hexdigest()}>", self._size
        lines = [b"xref\n", f"0 {len(self._places) + 1}\n".encode(), b"0000000000 65535 f \n"]
        for place in self._places:
            assert place is not None
            lines.append(f"{place:010d} 00000 n \n".encode())
        self._write(b"".join(lines))
        trailer = {
            "Size": str(len(self._places) + 1),
            "Root": reference(root),
            "Info": reference(info),
            "ID": f"[{identifier} {identifier}]",
        }
        self._write(f"trailer\n{_text(trailer)}\nstartxref\n{start}\n%%EOF\n".encode("latin-1"))

    def _begin(self, number: int) -> None:
        self._places[number - 1] = self._size
        self._write(f"{number} 0 obj\n".encode())

    def _write(self, data: bytes) -> None:
        if self._size + len(data) > MOST_BYTES:
            raise ExportError(
                f"a PDF of more than {MOST_BYTES / 1e9:.0f} GB; use jpeg compression, or .tif"
            )
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)


def reference(number: int) -> str:
    """A reference to an object."""
    return f"{number} 0 R"


def number(value: float) -> str:
    """A number without an exponent, to a millionth."""
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def box(left: float, bottom: float, right: float, top: float) -> str:
    """A rectangle."""
    return f"[{' '.join(map(number, (left, bottom, right, top)))}]"


def string(text: str) -> str:
    """A text, in UTF-16 where it is not ASCII (section 7.9.2.2)."""
    data = text.encode("ascii") if text.isascii() else b"\xfe\xff" + text.encode("utf-16-be")
    return f"<{data.hex()}>"


def _text(value: Mapping[str, str] | str) -> str:
    if isinstance(value, str):
        return value
    return f"<< {' '.join(f'/{name} {item}' for name, item in value.items())} >>"
