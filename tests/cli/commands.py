"""The command ``trioqt`` as its users run it, in a process of its own, with pipes or with a terminal; or called."""

from __future__ import annotations

import contextlib
import inspect
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Sequence
from typing import Any

import attrs
import trio
from click.testing import CliRunner, Result

from trioqt.cli import commands

__all__ = [
    "Ended",
    "Terminal",
    "call_trioqt",
    "events_of",
    "on_terminal",
    "read_line",
    "read_rest",
    "run_trioqt",
    "running_trioqt",
]

# A warning in the process is a traceback on its stderr, which the tests would see.
TRIOQT = (sys.executable, "-W", "error", "-m", "trioqt")

# No test waits so long unless it fails; a loaded machine takes some seconds to start a Python.
LIMIT = 60.0

# Before click 8.2 stderr was mixed into stdout, unless told.
APART: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def call_trioqt(*arguments: str) -> Result:
    """Run it here, to its end."""
    return CliRunner(**APART).invoke(commands, arguments)


@attrs.frozen
class Ended:
    """How a process ended and what it wrote."""

    status: int
    out: bytes
    err: bytes


async def run_trioqt(*arguments: str, stdin: bytes = b"", command: Sequence[str] = TRIOQT) -> Ended:
    """Run it to its end."""
    with trio.fail_after(LIMIT):
        done = await trio.run_process(
            [*command, *arguments], stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
        )
    return Ended(done.returncode, done.stdout, done.stderr)


@contextlib.asynccontextmanager
async def running_trioqt(
    *arguments: str, stdout: int = subprocess.PIPE, command: Sequence[str] = TRIOQT
) -> AsyncIterator[trio.Process]:
    """Run it with pipes; it is killed if the block leaves it running."""
    process = await trio.lowlevel.open_process(
        [*command, *arguments], stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE
    )
    try:
        with trio.fail_after(LIMIT):
            yield process
    finally:
        await _end(process)


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            process.kill()
        await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


async def read_line(stream: trio.abc.ReceiveStream | None) -> bytes:
    """The next line; what there was if the stream ends before that."""
    assert stream is not None
    line = b""
    while not line.endswith(b"\n") and (char := await stream.receive_some(1)):
        line += char
    return line


async def read_rest(stream: trio.abc.ReceiveStream | None) -> bytes:
    """All that comes until the end."""
    assert stream is not None
    return b"".join([chunk async for chunk in stream])


def events_of(err: bytes) -> list[str]:
    """The lines of ``connect``'s stderr, each without its time, which must be there on all but an error's."""
    lines = []
    for line in err.decode().splitlines():
        if not line.startswith("Error: "):
            assert re.match(r"\d\d:\d\d:\d\d\.\d\d\d  [A-Z]", line), line
            line = line[14:]
        lines.append(line)
    return lines


# ---- on a terminal -------------------------------------------------------------------------


@attrs.define
class Terminal:
    """A process on a terminal of its own, which also shows what it writes to stderr."""

    process: trio.Process
    master: int
    _written: bytearray = attrs.Factory(bytearray)

    @property
    def shown(self) -> str:
        """All that it has been told to show, colours and movements of the cursor included."""
        return self._written.decode(errors="replace")

    async def show(self, text: str) -> None:
        """Wait until ``text`` is shown."""
        while text not in self.shown:
            assert await self._read(), f"{text!r} was not shown: {self.shown!r}"

    async def show_all(self) -> None:
        """Wait until the process has closed the terminal."""
        while await self._read():
            pass

    async def type(self, text: str) -> None:
        """Press keys."""
        await trio.lowlevel.wait_writable(self.master)
        os.write(self.master, text.encode())

    async def _read(self) -> bool:
        await trio.lowlevel.wait_readable(self.master)
        try:
            self._written += os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        return True


# Make stdin the terminal whose Ctrl-C is ours, then become the command.  Not by a preexec_fn: that is not safe while
# there are threads.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextlib.asynccontextmanager
async def on_terminal(*arguments: str, ascii_only: bool = False) -> AsyncIterator[Terminal]:
    """Run it on a terminal of 100 columns and 30 lines, in which Ctrl-C works; a narrower one if it is ASCII only."""
    master, slave = pty.openpty()
    try:
        termios.tcsetwinsize(slave, (30, 60 if ascii_only else 100))
        environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
        environment |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "ascii" if ascii_only else "utf-8"}
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", TAKE_TERMINAL, *TRIOQT, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        slave = -1
        try:
            with trio.fail_after(LIMIT):
                yield Terminal(process, master)
        finally:
            await _end(process)
    finally:
        os.close(master)
        if slave != -1:
            os.close(slave)
