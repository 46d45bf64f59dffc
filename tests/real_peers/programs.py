"""A real peer's process, as a test holds it: its output line by line, and gone when the test is over."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

__all__ = ["ROOT", "Output", "Program", "random_bytes", "run_to_its_end", "running"]

ROOT = Path(__file__).parents[2]


class Output:
    """What a program says on stdout or stderr."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""

    async def line(self) -> str:
        """Wait for a line, without its newline.  Raises: EOFError if the program ended first."""
        while b"\n" not in self._rest:
            piece = await self._stream.receive_some()
            if not piece:
                raise EOFError(f"the program ended; its last words: {self._rest!r}")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def line_with(self, text: str) -> str:
        """Wait for a line that contains ``text``; those before it are dropped."""
        while text not in (line := await self.line()):
            pass
        return line

    async def some(self) -> bytes:
        """Wait for any bytes; ``b""`` once the program has closed its end."""
        if not self._rest:
            return bytes(await self._stream.receive_some())
        taken, self._rest = self._rest, b""
        return taken

    async def everything(self) -> bytes:
        """Wait for the end, and give all that came before it."""
        pieces = []
        while piece := await self.some():
            pieces.append(piece)
        return b"".join(pieces)


@attrs.frozen
class Program:
    """A peer that runs."""

    process: trio.Process
    out: Output
    err: Output
    stdin: trio.abc.SendStream

    async def say(self, *lines: str) -> None:
        """Write lines to its stdin."""
        await self.stdin.send_all("".join(f"{line}\n" for line in lines).encode())

    def kill(self) -> None:
        """End it with SIGKILL, and whatever it started: they get no chance to say goodbye."""
        os.killpg(self.process.pid, signal.SIGKILL)


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[Program]:
    """Start a program with pipes to it; at the end of the block it is killed if it still runs, and reaped."""
    # In a group of its own, so that what socat starts ends with it.
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=ROOT,
    )
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    program = Program(process, Output(stdout), Output(stderr), stdin)
    try:
        yield program
    finally:
        if process.returncode is None:
            program.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (stdin, stdout, stderr):
                await trio.aclose_forcefully(stream)


async def run_to_its_end(*command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a program with ``stdin``; its status and its whole output."""
    return await trio.run_process(command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False, cwd=ROOT)


def random_bytes(size: int) -> bytes:
    """``size`` bytes in which nothing repeats, so that nothing can be lost, doubled or swapped unseen."""
    return random.Random(size).randbytes(size)
