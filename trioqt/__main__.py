"""The command ``trioqt``, also as ``python -m trioqt``.

This module imports nothing but the standard library, so that it can say what to install.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; its exit status."""
    try:
        try:
            import click  # noqa: F401
            import rich  # noqa: F401
        except ModuleNotFoundError as exc:
            if exc.name not in ("click", "rich"):
                raise
            install = "pip install 'trioqt[cli]', or in a clone pip install -e '.[cli]'"
            print(f"trioqt: the command line needs click and rich: {install}", file=sys.stderr)
            return 1
        from trioqt.cli import run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
