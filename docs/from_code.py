"""What the documentation takes from the code itself, so that it cannot fall behind: tables.

They are Markdown, which docs/blocks.py writes into the pages.  The pictures are files, and pictures.py writes them.
"""

from __future__ import annotations

import ast
import enum
import errno
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
from sphinx.pycode import ModuleAnalyzer

from docs import qt_names
from trioqt.core import errors, events
from trioqt.core.addresses import NetworkLayerProtocol
from trioqt.core.errors import ERRNO_KINDS, ErrorKind
from trioqt.core.options import BindMode, SocketOption, SocketType
from trioqt.core.socket_state import SocketState
from trioqt.core.states import TRANSITIONS, Told
from trioqt.core.tls import PauseMode

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


# ---- Qt's names --------------------------------------------------------------------------------

# Qt's enumerations, and what they are called here.
ENUMERATIONS: dict[str, type[enum.Enum]] = {
    "SocketState": SocketState,
    "SocketError": ErrorKind,
    "SocketOption": SocketOption,
    "SocketType": SocketType,
    "NetworkLayerProtocol": NetworkLayerProtocol,
    "BindFlag": BindMode,
    "PauseMode": PauseMode,
    "LocalSocketError": ErrorKind,
    "LocalSocketState": SocketState,
}


def qt_enumerators(owner: str) -> Iterator[str]:
    """Each enumerator that Qt's documentation speaks of, and ours with the same number."""
    yield "| Qt | trioqt | difference |"
    yield "| --- | --- | --- |"
    for name in qt_names.names():
        if name.kind == "enumerators" and name.owner == owner:
            ours = ENUMERATIONS[name.name.partition(".")[0]](name.number)
            [spelled] = [key for key, member in type(ours).__members__.items() if member is ours]
            yield f"| `{name.name}` | `{type(ours).__name__}.{spelled}` | {name.number} in both |"


# ---- the README and the examples ---------------------------------------------------------------

ROOT = PACKAGE.parent


def what_it_has() -> Iterator[str]:
    """The README's table."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What it has")[2].partition("\n## ")[0]
    yield from (line for line in section.splitlines() if line.startswith("|"))


def examples() -> Iterator[str]:
    """Each with its docstring and its text; of a folder of several files, what each file is."""
    folder = ROOT / "examples"
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        module = ast.parse(text)
        code = "\n".join(text.splitlines()[module.body[0].end_lineno or 0 :]).strip()
        said = (ast.get_docstring(module) or "").replace("``", "`")
        yield f"\n## {path.name}\n\n{said}\n\n```python\n{code}\n```"
    for sub in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "lessons"):
        files = [path for path in sorted(sub.rglob("*.py")) if ast.get_docstring(ast.parse(path.read_text()))]
        if files:
            yield f"\n## {sub.name}/\n"
        for path in files:
            first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
            yield f"- `{path.relative_to(sub)}`: {' '.join(first.split())}".replace("``", "`")


# ---- all of them ---------------------------------------------------------------------------

TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "transitions": transitions,
    "error-kinds": error_kinds,
    "event-classes": event_classes,
    "files": files,
    "faithfulness": faithfulness,
    "what-it-has": what_it_has,
    "examples": examples,
    "qt-names": qt_names.counted,
    "qt-enumerators": functools.partial(qt_enumerators, "QAbstractSocket"),
    "qt-local-enumerators": functools.partial(qt_enumerators, "QLocalSocket"),
}
