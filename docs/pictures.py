"""The pictures of the documentation, drawn from the code: ``python docs/pictures.py`` writes them all.

They are narrow, so that a phone shows them in their own size, and bring a dark look for readers who want that.
A test draws them again and compares.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from pathlib import Path
from unittest import mock

import trio
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for tests/lessons.py

from tests.lessons import LESSONS, lesson, play  # noqa: E402
from trioqt import TcpServer, TcpSocket  # noqa: E402
from trioqt.cli import terminal  # noqa: E402
from trioqt.cli.demo import make_clients, run_demo  # noqa: E402
from trioqt.cli.demo_display import LiveDisplay, summarize  # noqa: E402
from trioqt.core.socket_state import SocketState  # noqa: E402
from trioqt.core.states import TRANSITIONS  # noqa: E402
from trioqt.testing import VirtualNetwork, simulate  # noqa: E402
from trioqt.testing.network.ladder import STYLE  # noqa: E402
from trioqt.testing.simulation.task_tree import children_of, main_tasks  # noqa: E402

FOLDER = ROOT / "docs" / "_static" / "pictures"

WIDTH = 420
LINE = 18
"""From one line of text to the next."""


class Sheet:
    """What is drawn on: boxes, arrows and texts, each where it is told."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float) -> None:
        self._parts.append(f'<rect class="box" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7"/>')

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        """A box with nothing in it but what is drawn later."""
        self._parts.append(f'<rect class="frame" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7"/>')

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> None:
        looks = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text{looks} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def line(self, *points: tuple[float, float], arrow: bool = True) -> None:
        """From point to point; at the last one a head."""
        d = "L".join(f"{x:g} {y:g}" for x, y in points)
        self._parts.append(f'<path class="way" d="M{d}"/>')
        if arrow:
            (x1, y1), (x2, y2) = points[-2:]
            sides = f"l{-8 if x2 > x1 else 8} -4v8z" if y1 == y2 else f"l-4 {-8 if y2 > y1 else 8}h8z"
            self._parts.append(f'<path class="head" d="M{x2:g} {y2:g}{sides}"/>')

    def svg(self, height: float) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="trioqt" viewBox="0 0 {WIDTH} {height:g}"'
            f' width="{WIDTH}" role="img">'
        )
        paper = f'<rect class="paper" width="{WIDTH}" height="{height:g}"/>'
        looks = f"<style>{STYLE}{BOXES}</style>"
        return "\n".join([head, f"<title>{escape(self._title)}</title>", looks, paper, *self._parts, "</svg>\n"])


BOXES = """.trioqt .box{fill:var(--box);stroke:var(--way);stroke-width:1.5}
.trioqt .frame{fill:none;stroke:var(--faint)}
.trioqt text{font-size:13px}
"""

# ---- the states --------------------------------------------------------------------------------

# From top to bottom.  UNCONNECTED stands at both ends, so that every arrow goes down; a state that is added to the
# table and not here stops the drawing.
ORDER = (
    *(SocketState.UNCONNECTED, SocketState.LISTENING, SocketState.BOUND, SocketState.HOST_LOOKUP),
    *(SocketState.CONNECTING, SocketState.CONNECTED, SocketState.CLOSING, SocketState.UNCONNECTED),
)
LEFT, RIGHT = 146, 272
"""The edges of the boxes."""
RAIL = 406
"""Where all goes down that ends a connection."""


def states() -> str:
    """Which input leads from which state to which, without what leaves the state as it is."""
    sheet = Sheet("The states of a socket")
    ways: dict[tuple[int, int], list[str]] = defaultdict(list)
    bottom = len(ORDER) - 1
    for (start, happened), (following, _) in TRANSITIONS.items():
        if start is not following:
            target = bottom if following is SocketState.UNCONNECTED else ORDER.index(following)
            ways[ORDER.index(start), target].append(happened.name)
    straight = {way: labels for way, labels in ways.items() if way[1] == way[0] + 1}
    to_end = {start: labels for (start, end), labels in ways.items() if end == bottom and start != bottom - 1}
    # The farther a lane goes, the farther out it is, so that none is crossed by one of the same source.
    around = [way for way in sorted(ways) if way not in straight and way[1] != bottom]
    lanes = {target: 12 + 14 * number for number, target in enumerate(sorted({t for _, t in around}, reverse=True))}
    stubs = {start: sorted((t for s, t in around if s == start), reverse=True) for start in range(bottom)}

    tops, heights = [], []
    y = 14.0
    for row in range(len(ORDER)):
        height = max(36, LINE * len(to_end.get(row, ())) + 12, 2 * LINE * len(stubs.get(row, ())) + 8)
        tops.append(y)
        heights.append(height)
        y += height + LINE * len(straight.get((row, row + 1), ())) + 22
    for row, state in enumerate(ORDER):
        sheet.box(LEFT, tops[row], RIGHT - LEFT, heights[row])
        sheet.text((LEFT + RIGHT) / 2, tops[row] + heights[row] / 2 + 5, state.name, anchor="middle", kind="name")
    for (row, following), labels in straight.items():
        x = (LEFT + RIGHT) / 2
        sheet.line((x, tops[row] + heights[row]), (x, tops[following]))
        for number, label in enumerate(labels):
            sheet.text(x + 8, tops[row] + heights[row] + 20 + LINE * number, label)
    ends = {target: tops[target] + heights[target] - 10 for target in lanes}
    for start, targets in stubs.items():
        for number, target in enumerate(targets):
            y = tops[start] + 26 + 2 * LINE * number
            sheet.line((LEFT, y), (lanes[target], y), (lanes[target], ends[target]), (LEFT, ends[target]))
            for place, label in enumerate(ways[start, target]):
                sheet.text(LEFT - 6, y - 5 - LINE * place, label, anchor="end")
    last = tops[bottom] + heights[bottom] / 2
    for start, labels in to_end.items():
        y = tops[start] + heights[start] - 8
        sheet.line((RIGHT, y), (RAIL, y), (RAIL, last), (RIGHT, last))
        for number, label in enumerate(labels):
            sheet.text(RIGHT + 8, y - 5 - LINE * (len(labels) - 1 - number), label)
    return sheet.svg(tops[bottom] + heights[bottom] + 14)


# ---- the nursery tree --------------------------------------------------------------------------

# Whose nursery it is, and what the tasks in it do: those of this library in the words of docs/architecture.md.
OPENED_BY = ("async with TcpServer() as server:", "await server.serve(echo)")
WHAT_FOR = {
    "_accept_from": ("accepts connections", "one for each listening socket"),
    "_watch": ("reads ahead for a socket", "while somebody follows its events"),
    "echo": ("your handler, in its socket's block", "one for each connection"),
}


def nursery_tree() -> str:
    """The tasks of a server with three connections, as they were found in a run."""
    found: list[tuple[str, list[str]]] = []

    async def echo(sock: TcpSocket) -> None:
        async with sock.events():
            async for chunk in sock:
                await sock.send_all(chunk)

    async def program(net: VirtualNetwork) -> None:
        with net.host("server"):
            async with TcpServer() as server:
                await server.listen("10.0.0.2", 4000)
                await server.serve(echo)

    async def main(net: VirtualNetwork) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program, net)
            await trio.sleep(1)
            clients = [TcpSocket(nursery) for _ in range(3)]
            with net.host("client"):
                for client in clients:
                    await client.connect_to_host("10.0.0.2", 4000)
            await trio.sleep(1)
            (task,) = (task for task in children_of(main_tasks()[0]) if task.name.endswith("program"))
            for each, opened_by in zip(task.child_nurseries, OPENED_BY, strict=True):
                found.append((opened_by, sorted(task.name.rpartition(".")[2] for task in each.child_tasks)))
            for client in clients:
                client.abort()
            nursery.cancel_scope.cancel()

    simulate(main, seed=0)

    sheet = Sheet("The nursery tree of a server: its block, its handlers, their sockets")
    sheet.text(24, 34, "your task: main", kind="name")
    y = 50.0
    for opened_by, names in found:
        top = y
        sheet.text(40, y + 24, opened_by, kind="name")
        y += 38
        for name, count in Counter(names).items():
            sheet.box(40, y, WIDTH - 80, 3 * LINE + 12)
            sheet.text(54, y + 22, f"{name}{f'  x {count}' if count > 1 else ''}", kind="name")
            for number, line in enumerate(WHAT_FOR[name]):
                sheet.text(54, y + 22 + LINE * (number + 1), line)
            y += 3 * LINE + 24
        sheet.frame(26, top, WIDTH - 52, y - top)
        y += 14
    sheet.frame(10, 10, WIDTH - 20, y - 10)
    return sheet.svg(y + 10)


# ---- the two buffers ---------------------------------------------------------------------------


def two_buffers() -> str:
    """Where bytes wait between two programs, and who waits when it is full."""
    parameters = inspect.signature(TcpSocket).parameters
    write, read = (f"{parameters[name].default:,} bytes" for name in ("write_buffer_size", "read_buffer_size"))
    sheet = Sheet("The two buffers of a socket, and those of the systems")
    columns = (
        (20, ("write()", "send_all()"), ("the write queue", "write_buffer_size", write), SENDING, "the send buffer"),
        (
            220,
            ("read()", "receive_...()"),
            ("the read buffer", "read_buffer_size", read),
            READING,
            "the receive buffer",
        ),
    )
    sheet.box(10, 10, WIDTH - 20, 40)
    sheet.text(WIDTH / 2, 35, "your program", anchor="middle", kind="name")
    sheet.frame(10, 104, WIDTH - 20, 158)
    sheet.text(WIDTH / 2, 123, "your TcpSocket", anchor="middle", kind="name")
    sheet.frame(10, 298, WIDTH - 20, 84)
    sheet.text(WIDTH / 2, 317, "the system", anchor="middle", kind="name")
    sheet.box(10, 418, WIDTH - 20, 40)
    sheet.text(WIDTH / 2, 443, "the network, and the peer", anchor="middle", kind="name")
    for x, verbs, ours, full, systems in columns:
        reads = full is READING
        middle = x + 90
        for start, end in ((50, 134), (254, 328), (368, 418)):
            sheet.line(*((middle, y) for y in ((end, start) if reads else (start, end))))
        for number, line in enumerate(verbs):
            sheet.text(middle + (-8 if reads else 8), 74 + LINE * number, line, anchor="end" if reads else "start")
        sheet.box(x, 134, 180, 120)
        for number, line in enumerate(ours):
            sheet.text(middle, 156 + 20 * number, line, anchor="middle", kind="" if number else "name")
        for number, line in enumerate(full):
            sheet.text(middle, 224 + LINE * number, line, anchor="middle")
        sheet.box(x, 328, 180, 40)
        sheet.text(middle, 353, systems, anchor="middle", kind="name")
    return sheet.svg(468)


# What happens when a buffer of ours is full.
SENDING = ("full: send_all waits,", "write is refused")
READING = ("full: no more is read,", "and the peer must wait")

# ---- the demo ----------------------------------------------------------------------------------

CLIENTS, SECONDS, SEED = 50, 10.0, 7
SNAPSHOT = 5.5
"""In the middle: some have ended, and some have not."""


def demo() -> str:
    """What ``trioqt demo`` shows on a terminal: the table in the middle of a run, then the summary.

    It is played on a simulated network, so that it comes out the same each time.
    """
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="truecolor")

    async def main(net: VirtualNetwork) -> None:
        clients = make_clients(CLIENTS, SECONDS, SEED)
        display = LiveDisplay(console, clients)
        console.print(Text("$ trioqt demo"))
        display.begin(f"one server, {CLIENTS} clients, about {SECONDS:g} seconds, seed {SEED}")

        async def look() -> None:
            await trio.sleep(SNAPSHOT)
            console.print(display.picture())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            report = await run_demo(clients, SECONDS, tell=display.tell)
        console.print(Text("\n... a few seconds later\n", "dim"))
        on_it = mock.patch.object(terminal, "terminal", return_value=console)
        with on_it, contextlib.redirect_stdout(io.StringIO()) as out:
            summarize(clients, report.connections_open, report.descriptors_left, report.problems())
        *lines, verdict = out.getvalue().splitlines()
        console.print(Text("\n".join(lines)))
        console.print(Text(verdict, "bold green"))

    simulate(main, seed=0, virtual_time=None, steps=None)
    svg = console.export_svg(title="trioqt demo", unique_id="demo")
    # No fonts from elsewhere, which an <img> does not fetch.
    svg = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines())


# ---- all of them -------------------------------------------------------------------------------


def ladder_of(name: str) -> str:
    """What went over the network in a lesson."""
    return play(lesson(name)).picture


PICTURES: dict[str, Callable[[], str]] = {
    "states": states,
    "nursery_tree": nursery_tree,
    "two_buffers": two_buffers,
    "demo": demo,
    **{name: partial(ladder_of, name) for name in LESSONS},
}


def draw_all() -> Iterator[tuple[Path, str]]:
    """Every picture, and where it belongs."""
    for name, draw in PICTURES.items():
        yield FOLDER / f"{name}.svg", draw()


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, svg in draw_all():
        path.write_text(svg)
