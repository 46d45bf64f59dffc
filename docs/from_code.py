"""What the documentation takes from the code itself, so that it cannot fall behind: tables, and a drawing.

The tables are Markdown, which docs/blocks.py writes into the pages; the drawing is a directive.
"""

from __future__ import annotations

import ast
import enum
import errno
import functools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from docs import qt_names
from trioqt.core import errors, events
from trioqt.core.addresses import NetworkLayerProtocol
from trioqt.core.errors import ERRNO_KINDS, ErrorKind
from trioqt.core.options import BindMode, SocketOption, SocketType
from trioqt.core.socket_state import SocketState
from trioqt.core.states import TRANSITIONS, Input, Told
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


# Where the states stand in the drawing.  Only this is not in the table; a state without a place stops the build.
PLACES = {
    SocketState.BOUND: (105, 150),
    SocketState.HOST_LOOKUP: (345, 150),
    SocketState.CONNECTING: (625, 150),
    SocketState.CONNECTED: (905, 150),
    SocketState.CLOSING: (1195, 150),
    SocketState.UNCONNECTED: (690, 390),
    SocketState.LISTENING: (625, 520),
}
ROW = PLACES[SocketState.BOUND][1]
WIDTH, HEIGHT = 1380, 550
HALF_HEIGHT = 22
LINE = 21  # from one label to the next


def half_width(state: SocketState) -> int:
    return 665 if state is SocketState.UNCONNECTED else 80


class Drawing:
    """The table as an SVG: which input leads from which state to which."""

    def __init__(self) -> None:
        self.arrows: dict[tuple[SocketState, SocketState], list[Input]] = defaultdict(list)
        for (start, happened), (following, _) in TRANSITIONS.items():
            if start is not following:
                self.arrows[start, following].append(happened)

    def svg(self) -> str:
        parts = [*map(self.box, SocketState)]
        for (start, following), inputs in self.arrows.items():
            parts += self.arrow(start, following, [happened.name for happened in inputs])
        return (
            f'<svg class="states" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="The states of a socket">'
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9"'
            ' orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="currentColor"/></marker></defs>'
            f"{''.join(parts)}</svg>"
        )

    def box(self, state: SocketState) -> str:
        x, y = PLACES[state]
        half = half_width(state)
        return (
            f'<rect x="{x - half}" y="{y - HALF_HEIGHT}" width="{2 * half}" height="{2 * HALF_HEIGHT}" rx="8"/>'
            f'<text class="state" x="{x}" y="{y + 7}" text-anchor="middle">{state.name}</text>'
        )

    def arrow(self, start: SocketState, following: SocketState, labels: list[str]) -> Iterator[str]:
        (x1, y1), (x2, y2) = PLACES[start], PLACES[following]
        if y1 != y2:
            yield from self.upright(start, following, labels)
        elif 0 < x2 - x1 < 300:
            left, right = x1 + half_width(start), x2 - half_width(following)
            yield self.path(f"M{left} {y1}H{right}")
            yield from self.labels((left + right) / 2, y1 - 9 - LINE * (len(labels) - 1), labels, "middle")
        else:
            # Over the others.  The farther it goes, the higher, so that two arcs from one state stay apart.
            top = ROW - HALF_HEIGHT
            height = 0.13 * abs(x2 - x1)
            yield self.path(f"M{x1} {top}C{x1} {top - height} {x2} {top - height} {x2} {top}")
            yield from self.labels((x1 + x2) / 2, top - 0.75 * height - 6, labels, "middle")

    def upright(self, start: SocketState, following: SocketState, labels: list[str]) -> Iterator[str]:
        """Between the long box and one above or below it: what leaves the long box left, what enters it right."""
        outward = start is SocketState.UNCONNECTED
        x, y = PLACES[following if outward else start]
        long = PLACES[SocketState.UNCONNECTED][1]
        sign = 1 if y < long else -1
        short_end, long_end = y + sign * HALF_HEIGHT, long - sign * HALF_HEIGHT
        x += -40 if outward else 40
        yield self.path(f"M{x} {long_end}V{short_end}" if outward else f"M{x} {short_end}V{long_end}")
        # Left labels stand low and right ones high, so that neighbours do not run into each other.
        if y > long:
            first = (short_end + long_end) / 2 + 5
        elif outward:
            first = long_end - 14 - LINE * (len(labels) - 1)
        else:
            first = short_end + 28
        yield from self.labels(x + (-8 if outward else 8), first, labels, "end" if outward else "start")

    def path(self, d: str) -> str:
        return f'<path d="{d}" marker-end="url(#tip)"/>'

    def labels(self, x: float, y: float, labels: list[str], anchor: str) -> Iterator[str]:
        for at, label in enumerate(labels):
            yield f'<text x="{x:g}" y="{y + at * LINE:g}" text-anchor="{anchor}">{label}</text>'


class TransitionDrawing(SphinxDirective):
    """The drawing, in the page itself, so that it has the page's colours."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(__file__)
        return [nodes.raw("", Drawing().svg(), format="html")]


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


# ---- all of them ---------------------------------------------------------------------------

TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "transitions": transitions,
    "error-kinds": error_kinds,
    "event-classes": event_classes,
    "files": files,
    "faithfulness": faithfulness,
    "qt-names": qt_names.counted,
    "qt-enumerators": functools.partial(qt_enumerators, "QAbstractSocket"),
    "qt-local-enumerators": functools.partial(qt_enumerators, "QLocalSocket"),
}


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("transition-drawing", TransitionDrawing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
