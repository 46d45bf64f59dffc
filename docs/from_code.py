"""What the documentation takes from the code itself, so that it cannot fall behind: tables and an output.

The directives for tables take no argument and write Markdown, which the page that holds them goes on to parse.
The pictures are files, and pictures.py writes them.
"""

from __future__ import annotations

import ast
import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from trioqt.core import errors, events
from trioqt.core.errors import ERRNO_KINDS, ErrorKind
from trioqt.core.socket_state import SocketState
from trioqt.core.states import TRANSITIONS, Told

PACKAGE = Path(errors.__file__).parents[1]


class FromCode(SphinxDirective):
    """Parses what ``markdown`` gives."""

    def markdown(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(__file__)
        for path in PACKAGE.rglob("*.py"):
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes("\n".join(self.markdown()))


# ---- states ------------------------------------------------------------------------------------


def told_text(told: tuple[Told, ...]) -> str:
    names = (f"*{thing.name}*" if isinstance(thing, SocketState) else f"`{thing.__name__}`" for thing in told)
    return ", ".join(names) or "nothing"


class TransitionTable(FromCode):
    """All rows of TRANSITIONS, by state."""

    def markdown(self) -> Iterator[str]:
        for state in SocketState:
            rows = [(happened, *row) for (start, happened), row in TRANSITIONS.items() if start is state]
            yield f"\n**{state.name}**\n"
            yield "| what happens | next state | told, in this order |"
            yield "| --- | --- | --- |"
            for happened, following, told in rows:
                name = "" if following is state else following.name
                yield f"| `{happened.name}`: {happened.value} | {name} | {told_text(told)} |"


# ---- errors ------------------------------------------------------------------------------------


class ErrorKinds(FromCode):
    """Every ErrorKind with its docstring and the system's errors that it stands for."""

    def markdown(self) -> Iterator[str]:
        docs = ModuleAnalyzer.for_module(errors.__name__).find_attr_docs()
        yield "| kind | number | when | from |"
        yield "| --- | --- | --- | --- |"
        for kind in ErrorKind:
            text = " ".join(docs["ErrorKind", kind.name]).strip()
            numbers = sorted(number for number, other in ERRNO_KINDS.items() if other is kind)
            names = ", ".join(f"`{errno.errorcode[number]}`" for number in numbers)
            yield f"| `{kind.name}` | {kind.value} | {text} | {names} |"


# ---- events ------------------------------------------------------------------------------------


class Events(FromCode):
    """Every event class: fact or nudge, what it carries, what it says."""

    def markdown(self) -> Iterator[str]:
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


class Files(FromCode):
    """Every file of the package with the first line of its docstring."""

    def markdown(self) -> Iterator[str]:
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


class Faithfulness(FromCode):
    """Qt beside trioqt: every scenario is run for it."""

    def markdown(self) -> Iterator[str]:
        command = [sys.executable, "-m", "tests.conformance", "--table"]
        done = subprocess.run(command, cwd=PACKAGE.parent, check=True, stdout=subprocess.PIPE, text=True)
        yield from done.stdout.splitlines()


# ---- output ------------------------------------------------------------------------------------


class OutputOf(SphinxDirective):
    """What a program of the repository prints, run as from its root."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        root = Path(__file__).parents[1]
        self.env.note_dependency(__file__)
        self.env.note_dependency(str(root / self.arguments[0]))
        done = subprocess.run(
            [sys.executable, self.arguments[0]], cwd=root, check=True, stdout=subprocess.PIPE, text=True
        )
        return [nodes.literal_block(done.stdout, done.stdout, language="text")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("transition-table", TransitionTable)
    app.add_directive("error-kinds", ErrorKinds)
    app.add_directive("event-classes", Events)
    app.add_directive("files", Files)
    app.add_directive("faithfulness", Faithfulness)
    app.add_directive("output-of", OutputOf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
