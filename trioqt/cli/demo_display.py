"""What the demo looks like: a live table on a terminal, a line for each event elsewhere, and the summary."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Protocol

import attrs
import click
import trio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from trioqt.cli.demo_client import Client
from trioqt.cli.demo_kinds import KINDS
from trioqt.cli.terminal import new_table, plural, print_table

__all__ = ["Display", "LinesDisplay", "LiveDisplay", "summarize"]

# Ten pictures a second: an eye sees movement, and drawing takes a hundredth of the time.
PICTURE_PERIOD = 0.1

# As many as leave a terminal of 24 lines one to spare.
LINES = 8

# So many clients of a kind are drawn one by one.
MARKS = 24

PROBLEMS = 10
"""So many problems are listed."""

# What a client looks like: the mark, the same in ASCII, its colour, what it means.
# fmt: off
LOOKS = {
    "to come":   ("·", ".", "dim"),
    "connected": ("●", "o", "green"),
    "finished":  ("◐", "c", "yellow"),
    "in order":  ("✓", "v", "bold green"),
    "cancelled": ("○", "-", "bold blue"),
    "reset":     ("✗", "x", "bold magenta"),
    "failed":    ("!", "!", "bold red"),
}
# fmt: on


class Display(Protocol):
    """Shows the demo while it runs."""

    def begin(self, text: str) -> None:
        """Say what is going to happen."""

    def tell(self, client: Client, text: str) -> None:
        """Show what has happened to ``client``."""

    async def run(self) -> None:
        """Show it until cancelled."""


class LinesDisplay:
    """A line for each event."""

    def begin(self, text: str) -> None:
        self._started = trio.current_time()
        click.echo(text)

    def tell(self, client: Client, text: str) -> None:
        click.echo("  ".join(line(self._started, client, text)))

    async def run(self) -> None:
        await trio.sleep_forever()


@attrs.define(eq=False)
class LiveDisplay:
    """A table with a mark for each client, and below it the last events."""

    console: Console
    clients: Sequence[Client]
    _started: float = 0.0
    _lines: collections.deque[Text] = attrs.field(factory=lambda: collections.deque(maxlen=LINES))

    def begin(self, text: str) -> None:
        self._started = trio.current_time()
        self.console.print(Text(text, "bold"))

    def tell(self, client: Client, text: str) -> None:
        time, rest = line(self._started, client, text)
        parts = ((time, "dim"), "  ", self._mark(look(client)), " ", rest)
        self._lines.append(Text.assemble(*parts, no_wrap=True, overflow="crop"))

    async def run(self) -> None:
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self.picture(), refresh=True)
                await trio.sleep(PICTURE_PERIOD)

    def picture(self) -> Group:
        """How it stands."""
        table = new_table(("a client that ...", "", "sent", "back"), {2, 3})
        for kind, clients in by_kind(self.clients).items():
            marks = Text()
            for client in clients[:MARKS]:
                marks.append(*self._mark(look(client)))
            marks.append("" if len(clients) <= MARKS else f" and {len(clients) - MARKS} more", "dim")
            table.add_row(kind, marks, number(sum(c.sent for c in clients)), number(sum(c.back for c in clients)))
        legend = Text()
        for meaning in LOOKS:
            mark, style = self._mark(meaning)
            legend.append(f" {mark} ", style).append(f"{meaning} ", "dim")
        return Group(table, legend, Text(), *self._lines)

    def _mark(self, meaning: str) -> tuple[str, str]:
        mark, plain, style = LOOKS[meaning]
        return (plain if self.console.options.ascii_only else mark), style


def look(client: Client) -> str:
    """Which of ``LOOKS`` it has."""
    if client.problem:
        return "failed"
    if client.ending:
        return client.ending
    if client.sock.peer_name():  # it has come; what it has not yet is its ending
        return "finished" if client.has_finished else "connected"
    return "to come"


def line(started: float, client: Client, text: str) -> tuple[str, str]:
    """One event in words: when, and what."""
    return f"{trio.current_time() - started:6.2f}", f"#{client.number:<3} {client.kind:<12}  {text}"


def by_kind(clients: Sequence[Client]) -> dict[str, list[Client]]:
    """The kinds that occur, and who is of which."""
    groups = {kind: [client for client in clients if client.kind == kind] for kind in KINDS}
    return {kind: group for kind, group in groups.items() if group}


def number(count: int) -> str:
    return f"{count:,}"


# ---- the end -------------------------------------------------------------------------------


def summarize(
    clients: Sequence[Client], connections_open: int, descriptors_left: int | None, problems: Sequence[str]
) -> None:
    """Print what each kind did and how it ended, and the verdict."""
    rows = [row(kind, group, ending_of(group)) for kind, group in by_kind(clients).items()]
    rows.append(row("all", clients, ""))
    print_table(("a client that ...", "clients", "sent", "back", "how they ended"), rows, numbers={1, 2, 3}, total=True)
    click.echo(f"connections still open: {connections_open}")
    click.echo(f"descriptors left: {'unknown on this system' if descriptors_left is None else descriptors_left}")
    for problem in problems[:PROBLEMS]:
        click.echo(f"Error: {problem}", err=True)
    if len(problems) > PROBLEMS:
        click.echo(f"Error: and {len(problems) - PROBLEMS} more", err=True)
    if not problems:
        back = sum(client.back for client in clients)
        verdict = f"all is well: {back:,} bytes came back and were compared, none was lost, none was wrong"
        click.secho(verdict, fg="green", bold=True)


def row(name: str, clients: Sequence[Client], ended: str) -> list[str]:
    """A line of the summary."""
    sent, back = sum(client.sent for client in clients), sum(client.back for client in clients)
    return [name, number(len(clients)), number(sent), number(back), ended]


def ending_of(clients: Sequence[Client]) -> str:
    """How they ended, counted."""
    endings = collections.Counter(client.ending or "FAILED" for client in clients)
    text = ", ".join(f"{count} {ending}" for ending, count in endings.items())
    cuts = sum(client.cuts for client in clients)
    return f"{text}; {plural(cuts, 'call')} cancelled" if cuts else text
