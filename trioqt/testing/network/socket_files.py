"""The files of AF_UNIX names, for those who look at them: a server sets their mode, or takes away what is left of them.

The name is its host's, and whoever connects needs no file.  It is made in the real file system, which hosts share;
where that does not take one, nobody has one to look at.
"""

from __future__ import annotations

import contextlib
import os
import stat

from trioqt.links.interrupts import protected

__all__ = ["SocketFiles"]


@protected
class SocketFiles:
    """Those of one network."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[int, int]] = {}  # | path | device, inode |

    def make(self, path: str) -> None:
        """As the kernel's bind() does, if there is none yet."""
        path = os.path.abspath(path)
        with contextlib.suppress(OSError, AttributeError):  # no folder, or not allowed; or Windows
            os.mknod(path, stat.S_IFSOCK | 0o777)
            if (found := _identity(path)) is not None:
                self._made[path] = found

    def is_unlinked(self, path: str) -> bool:
        """Has a program taken away the file that was made for it?"""
        path = os.path.abspath(path)
        made = self._made.get(path)
        return made is not None and _identity(path) != made

    def remove(self) -> None:
        """All that are still there."""
        while self._made:
            path, made = self._made.popitem()
            if _identity(path) == made:
                with contextlib.suppress(OSError):
                    os.unlink(path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
