"""What all commands share: tables, the signals that end them, failures in one line."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

import click
import trio
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trioqt.core.errors import SocketError, reason_of

__all__ = ["failures_told", "new_table", "plural", "print_table", "run_until_signal", "terminal"]

# 128 and the number of SIGPIPE, which not every system has.
READER_GONE = 141


def terminal() -> Console | None:
    """The terminal that stdout is; None if it is a file, a pipe, or a terminal that can only go on."""
    if not sys.stdout.isatty():
        return None
    console = Console(highlight=False, markup=False)
    return None if console.is_dumb_terminal else console


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Collection[int] = (),
    sections: bool = False,
    total: bool = False,
) -> None:
    """A table on stdout: with lines and colours on a terminal, else aligned columns.

    Args:
      numbers: The columns that are aligned to the right.
      sections: On a terminal, a line is drawn where the first column changes.
      total: The same before the last row.
    """
    console = terminal()
    if console is not None:
        table = new_table(columns, numbers)
        for row, following in zip(rows, [*rows[1:], rows[-1]], strict=True):
            ends = (sections and row[0] != following[0]) or (total and following is rows[-1])
            table.add_row(*(Text(cell) for cell in row), end_section=ends)
        console.print(table)
        return
    widths = [max(len(row[column]) for row in (columns, *rows)) for column in range(len(columns))]
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def new_table(columns: Sequence[str], numbers: Collection[int] = ()) -> Table:
    """An empty table as all commands draw it."""
    table = Table(box=box.ROUNDED, header_style="bold", border_style="dim")
    for number, column in enumerate(columns):
        # Folded, because rich's ellipsis is a character that an ASCII terminal does not have.
        style = "bold cyan" if number == 0 else ""
        table.add_column(column, style=style, justify="right" if number in numbers else "left", overflow="fold")
    return table


def plural(count: float, noun: str) -> str:
    """``1 client``, ``2 clients``."""
    return f"{count:,g} {noun}{'' if count == 1 else 's'}"


# ---- signals -------------------------------------------------------------------------------


def run_until_signal(main: Callable[[], Awaitable[int]]) -> int:
    """Run ``main`` in trio; SIGINT or SIGTERM cancels it.  Its exit status, or the one that tells of the signal.

    Raises:
      OSError: One has ended ``main``, bare where it came in a group.
      click.ClickException: Nobody reads stdout any more.  What was at work, and is cut short, says so.
    """
    try:
        return trio.run(_until_signal, main)
    except BrokenPipeError as exc:
        _give_up_stdout()
        raise click.ClickException("stdout was closed") from exc


async def _until_signal(main: Callable[[], Awaitable[int]]) -> int:
    status = 0
    failure: BaseException | None = None
    caught: int | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

        async def listen() -> None:
            nonlocal caught
            caught = await anext(signals)
            nursery.cancel_scope.cancel(reason="a signal")

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                status = await main()
                nursery.cancel_scope.cancel(reason="the command is done")
        except* OSError as group:
            failure = group
    if caught is not None:
        return 128 + caught
    if failure is None:
        return status
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    raise failure


# ---- failures ------------------------------------------------------------------------------


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Turn what the network or the system refuses into a line on stderr and status 1.

    What only prints ends without a word if nobody reads on, as ``head``, with the status of what SIGPIPE has ended.
    """
    try:
        yield
    except SocketError as exc:
        raise click.ClickException(str(exc)) from exc
    except OSError as exc:
        _give_up_stdout()
        if isinstance(exc, BrokenPipeError):
            raise click.exceptions.Exit(READER_GONE) from exc
        raise click.ClickException(reason_of(exc)) from exc


def _give_up_stdout() -> None:
    # What could not be written is still buffered, and the interpreter would try again at its exit, with a complaint of
    # its own and status 120.
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
