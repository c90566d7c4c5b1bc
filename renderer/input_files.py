"""Files that users name: what is wrong with one that cannot be read, found out without opening it.

A FIFO, a device or a socket is never opened: that may wait for ever.
"""

from __future__ import annotations

import os
import stat

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def fault(path: str | os.PathLike[str]) -> str | None:
    """Why no file can be read at a path, as a clause that names it; None where one can."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            return f"{path} is {KINDS.get(stat.S_IFMT(mode), 'something else')} and no file"
        if not os.access(path, os.R_OK):
            return f"{path} cannot be read: no permission"
    except FileNotFoundError:
        if os.path.islink(path):
            return f"{path} is a link to {os.readlink(path)}, where there is no file"
        return f"there is no file {path}"
    except ValueError as error:  # a NUL, or what no name can be encoded from
        return f"{str(path)!r} is no name of a file: {error}"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    return None
