"""What the documentation takes from the code itself, so that it cannot fall behind: tables.

They are Markdown, which docs/blocks.py writes into the pages.  The pictures are files, and pictures.py writes them.
"""

from __future__ import annotations

import ast
import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
from sphinx.pycode import ModuleAnalyzer

from trioqt.core import errors, events
from trioqt.core.errors import ERRNO_KINDS, ErrorKind
from trioqt.core.socket_state import SocketState
from trioqt.core.states import TRANSITIONS, Told

PACKAGE = Path(errors.__file__).parents[1]


# ---- states ------------------------------------------------------------------------------------


def told_text(told: tuple[Told, ...]) -> str:
    names = (f"*{thing.name}*" if isinstance(thing, SocketState) else f"`{thing.__name__}`" for thing in told)
    return ", ".join(names) or "nothing"


def transitions() -> Iterator[str]:
    """All rows of TRANSITIONS, by state."""
    for state in SocketState:
        rows = [(happened, *row) for (start, happened), row in TRANSITIONS.items() if start is state]
        yield f"\n**{state.name}**\n"
        yield "| what happens | next state | told, in this order |"
        yield "| --- | --- | --- |"
        for happened, following, told in rows:
            name = "" if following is state else following.name
            yield f"| `{happened.name}`: {happened.value} | {name} | {told_text(told)} |"


# ---- errors ------------------------------------------------------------------------------------


def error_kinds() -> Iterator[str]:
    """Every ErrorKind with its docstring and the system's errors that it stands for."""
    docs = ModuleAnalyzer.for_module(errors.__name__).find_attr_docs()
    yield "| kind | number | when | from |"
    yield "| --- | --- | --- | --- |"
    for kind in ErrorKind:
        text = " ".join(docs["ErrorKind", kind.name]).strip()
        numbers = sorted(number for number, other in ERRNO_KINDS.items() if other is kind)
        names = ", ".join(f"`{errno.errorcode[number]}`" for number in numbers)
        yield f"| `{kind.name}` | {kind.value} | {text} | {names} |"


# ---- events ------------------------------------------------------------------------------------


def event_classes() -> Iterator[str]:
    """Every event class: fact or nudge, what it carries, what it says."""
    yield "| event | kind | means |"
    yield "| --- | --- | --- |"
    for name in events.__all__:
        kind = getattr(events, name)
        if name in ("Event", "Nudge"):
            continue
        fields = ", ".join(field.name for field in attrs.fields(kind))
        text = " ".join((kind.__doc__ or "").split())
        is_nudge = issubclass(kind, events.Nudge)
        text = text.replace("Nudge. ", "").replace("Fact. ", "").replace("Nudge; merged", "Merged")
        yield f"| `{name}({fields})` | {'nudge' if is_nudge else 'fact'} | {text} |"


# ---- files -------------------------------------------------------------------------------------


def files() -> Iterator[str]:
    """Every file of the package with the first line of its docstring."""
    yield "| file | what it knows |"
    yield "| --- | --- |"
    folders = ["", "core", "links", "sockets", "testing", "cli"]
    folders += sorted({path.parent.name for path in PACKAGE.glob("*/*.py")} - set(folders))
    for folder in folders:
        for path in sorted((PACKAGE / folder).glob("*.py")):
            doc = ast.get_docstring(ast.parse(path.read_text())) or ""
            first = " ".join(doc.partition("\n\n")[0].split())
            yield f"| `{path.relative_to(PACKAGE)}` | {first} |"


# ---- conformance -------------------------------------------------------------------------------


def faithfulness() -> Iterator[str]:
    """Qt beside trioqt: every scenario is run for it."""
    command = [sys.executable, "-m", "tests.conformance", "--table"]
    done = subprocess.run(command, cwd=PACKAGE.parent, check=True, stdout=subprocess.PIPE, text=True)
    yield from done.stdout.splitlines()


# ---- all of them ---------------------------------------------------------------------------

TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "transitions": transitions,
    "error-kinds": error_kinds,
    "event-classes": event_classes,
    "files": files,
    "faithfulness": faithfulness,
}
