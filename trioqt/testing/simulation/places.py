"""How a place in a source file is written for whoever reads a report: one spelling for all of them."""

from __future__ import annotations

import os

__all__ = ["place", "short_path"]


def short_path(path: str) -> str:
    """``path`` as one types it from here, or whole if it is elsewhere."""
    prefix = os.getcwd() + os.sep
    return path.removeprefix(prefix)


def place(path: str, line: int, function: str) -> str:
    """``tests/test_echo.py:12 in echo``."""
    return f"{short_path(path)}:{line} in {function}"
