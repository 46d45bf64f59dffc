"""How many of Qt's names have a counterpart: ``python -m docs.qt_names``.

Which names there are is in tests/qt_names.json: every method, signal, enumeration and enumerator of these classes that
Qt's documentation of QTcpServer and QAbstractSocket speaks of.  What each has become is in the tables of
docs/topics/from-qt.md, in the section of its class or of one that the class inherits from.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

__all__ = ["NAMES", "NOT_OFFERED", "PAGE", "QtName", "Row", "counted", "names", "rows"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "topics" / "from-qt.md"
NAMES = ROOT / "tests" / "qt_names.json"
NOT_OFFERED = "not offered"


@attrs.frozen
class QtName:
    owner: str
    """The class."""
    kind: str
    """``methods``, ``signals``, ``enumerations`` or ``enumerators``."""
    name: str
    """An enumerator's has that of its enumeration in front."""
    number: int | None = None
    """An enumerator's."""


@attrs.frozen
class Row:
    """A row of a table of the page."""

    classes: tuple[str, ...]
    """Those in the heading above it."""
    qt: tuple[str, ...]
    ours: str
    difference: str


def names() -> list[QtName]:
    """Those that the documentation speaks of."""
    found = []
    for owner, members in json.loads(NAMES.read_text(encoding="utf-8")).items():
        for kind in ("methods", "signals"):
            found += [QtName(owner, kind, name) for name in members[kind]]
        for enumeration, numbers in members["enums"].items():
            found.append(QtName(owner, "enumerations", enumeration))
            for name, number in numbers.items():
                found.append(QtName(owner, "enumerators", f"{enumeration}.{name}", number))
    return found


def rows() -> list[Row]:
    """All of them, in the page's order."""
    found = []
    classes: tuple[str, ...] = ()
    inside = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            classes = tuple(re.findall(r"\bQ\w+", line))
        inside = line.startswith("|") and (inside or line.startswith("| Qt |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if inside and len(cells) == 3 and cells[0] != "Qt" and set(cells[0]) != {"-"}:
            found.append(Row(classes, tuple(re.findall(r"`([^`]+)`", cells[0])), cells[1], cells[2]))
    return found


def row_of(name: QtName, table: list[Row]) -> Row | None:
    """In the section of its class, or else of the nearest that this inherits from."""
    inherits = json.loads(NAMES.read_text(encoding="utf-8"))[name.owner]["inherits"]
    for owner in (name.owner, *inherits):
        for row in table:
            if owner in row.classes and name.name in row.qt:
                return row
    return None


def counted() -> Iterator[str]:
    """For each class how many have a counterpart, as a table of Markdown."""
    table = rows()
    yield "| class | names | with a counterpart | not offered |"
    yield "| --- | ---: | ---: | ---: |"
    total = [0, 0, 0]
    for owner in json.loads(NAMES.read_text(encoding="utf-8")):
        found = [row_of(name, table) for name in names() if name.owner == owner]
        offered = sum(row is not None and row.ours != NOT_OFFERED for row in found)
        refused = sum(row is not None and row.ours == NOT_OFFERED for row in found)
        yield f"| {owner} | {len(found)} | {offered} | {refused} |"
        total = [total[0] + len(found), total[1] + offered, total[2] + refused]
    yield "| **all** | " + " | ".join(f"**{count}**" for count in total) + " |"


def main() -> int:
    """Print the counts, and what is not offered and why.  The status is 1 if a name has no row."""
    print(*counted(), sep="\n")
    table = rows()
    missing = []
    print()
    for name in names():
        row = row_of(name, table)
        if row is None:
            missing.append(f"{name.owner}.{name.name}")
        elif row.ours == NOT_OFFERED:
            print(f"{name.owner}.{name.name}: {row.difference}")
    for each in missing:
        print(f"{each} has no row in {PAGE.relative_to(ROOT)}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
