"""The places of a BigTIFF's SubIFDs, as numbers of 32 bits.

C2PA's library reads them so wherever there is more than one (c2pa-python 0.38.1), whatever their
type says, and looks elsewhere for two of them, which BigTIFF keeps in the tag itself.
TIFF, revision 6.0, section 2; BigTIFF: tags of 20 bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

SUBIFDS = 330
IFD, IFD8 = 13, 18  # types of a value: a place in the file, of four and of eight bytes
MOST_PLACE = 2**32 - 1
_HEADER, _COUNT, _ENTRY = struct.Struct("<4sHHQ"), struct.Struct("<Q"), struct.Struct("<HHQQ")


def narrow_subifds(path: Path, most: int = MOST_PLACE) -> None:
    """Let a little-endian BigTIFF's first page name its SubIFDs by 32 bits each, in place.

    Of two, and where one lies beyond `most`, the first alone is named. What is no such file, or has
    fewer than two of them, stays as it is.
    """
    with path.open("r+b") as file:
        start = _HEADER.unpack(file.read(_HEADER.size).ljust(_HEADER.size))
        if start[:3] != (b"II\x2b\0", 8, 0):
            return
        file.seek(start[3])
        for _ in range(*_COUNT.unpack(file.read(_COUNT.size))):
            entry = file.tell()
            tag, kind, count, place = _ENTRY.unpack(file.read(_ENTRY.size))
            if (tag, kind) != (SUBIFDS, IFD8) or count < 2:
                continue
            file.seek(place)
            places = struct.unpack(f"<{count}Q", file.read(8 * count))
            if count == 2 or max(places) > most:
                changed = _ENTRY.pack(SUBIFDS, IFD8, 1, places[0])
            else:
                changed = _ENTRY.pack(SUBIFDS, IFD, count, place)
                file.seek(place)
                file.write(struct.pack(f"<{count}I", *places))
            file.seek(entry)
            file.write(changed)
            return
