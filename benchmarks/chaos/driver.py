"""The driver's side: servers as processes that are looked at from outside, and clients that behave or do not.

Everything is loopback, and every wait has a bound.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from benchmarks.chaos.encrypted import ClientTls, Trust

__all__ = [
    "BITE",
    "SERVERS",
    "Client",
    "LOST",
    "DidNotStartError",
    "FaultDidNotFireError",
    "GoodClients",
    "MissingError",
    "Server",
    "good_clients",
    "resets_sent",
    "start_server",
    "until",
]

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]

# What a client gives a server at most for one answer, in seconds, and what the driver gives a process to start or end.
# A loaded machine takes some seconds to start a Python.
BITE = 10.0
PATIENCE = 60.0

SERVERS: dict[str, tuple[str, ...]] = {
    "trioqt": ("trioqt_server",),
    "trio": ("trio_server",),
    "asyncio": ("asyncio_server",),
    "Qt": ("qt_server",),
    "trio-bare": ("trio_server", "--bare"),
}

# As servers/common.py writes it.
RECORD = b"\x1e"

# What a client meets whose answer does not come.
LOST = (OSError, trio.BrokenResourceError, trio.TooSlowError)


class MissingError(Exception):
    """This server cannot take part: something that it needs is not there."""


class DidNotStartError(Exception):
    """A server ended before it listened."""


class FaultDidNotFireError(Exception):
    """The case would have shown nothing: what was to go wrong did not."""


# -- servers ----------------------------------------------------------------------------------------


@attrs.define
class Server:
    """A process that listens, seen from outside."""

    name: str
    process: trio.Process
    port: int
    log: Path
    trust: Trust | None = None  # it speaks TLS

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def status(self) -> int | None:
        """How it ended, or None."""
        return self.process.poll()

    def descriptors(self) -> int:
        """How many it has open; 0 if it has ended."""
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            return 0

    def cpu_seconds(self) -> float:
        """What it has used."""
        try:
            # clock_getcpuclockid(3), which Python lacks: the scheduler's clock (2) of a process.
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return 0.0

    def forget_peak(self) -> None:
        """Let ``peak_memory`` begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def memory(self, what: str = "VmRSS") -> int:
        """Resident bytes, now or (``VmHWM``) at most; 0 if it has ended."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(what)), 0)

    def queued_by_kernel(self) -> int:
        """Bytes that the kernel holds for the server's clients, who have not taken them."""
        total = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, _, queues, *_ = line.split()
            if int(local.rpartition(":")[2], 16) == self.port:
                total += int(queues.partition(":")[0], 16)
        return total

    def log_records(self) -> int:
        """How many records it has logged, and lines that it wrote past its log."""
        text = self.log.read_bytes()
        before, *records = text.split(RECORD)
        return len(records) + before.count(b"\n")

    def log_lines(self) -> int:
        """How many lines that were."""
        return self.log.read_bytes().count(b"\n")

    def logged(self, words: str) -> int:
        """How often these words stand in its log."""
        return self.log.read_bytes().count(words.encode())

    async def settle(self, baseline: int, seconds: float = 5.0) -> int:
        """How many more descriptors than ``baseline`` it has, once it has no more, or after so many seconds."""
        await until(lambda: self.descriptors() <= baseline, seconds)
        return max(0, self.descriptors() - baseline)

    async def ended(self, seconds: float) -> int | None:
        """Its status, or None if it has not ended after so many seconds."""
        with trio.move_on_after(seconds):
            return await self.process.wait()
        return None

    def stop(self) -> None:
        """Let it stand still until ``go_on``: what happens meanwhile, happens in one of its turns."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def connect(self, *, receive_buffer: int | None = None) -> Client:
        """A client, which speaks TLS if the server does.  Raises: OSError."""
        context = None if self.trust is None else self.trust.context
        return await Client.connect(self.port, context=context, receive_buffer=receive_buffer)

    async def answers(self) -> bool:
        """Does it answer a new client?"""
        try:
            with trio.fail_after(BITE):
                with await self.connect() as client:
                    return await client.ask("ECHO hello") == b"hello\n"
        except LOST:
            return False


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until it is so, but no longer; is it?"""
    with trio.move_on_after(seconds):
        while not condition():  # noqa: ASYNC110 -- what is waited for is another process's doing
            await trio.sleep(0.01)
    return condition()


@asynccontextmanager
async def start_server(name: str, *arguments: str, trust: Trust | None = None) -> AsyncIterator[Server]:
    """A server that listens; killed at the end.  With ``trust`` it speaks TLS.

    Raises: MissingError.
    """
    module, *more = SERVERS[name]
    spoken = () if trust is None else trust.arguments()
    command = [sys.executable, "-m", f"benchmarks.chaos.servers.{module}", *more, *spoken, *arguments]
    with tempfile.NamedTemporaryFile(prefix="chaos-", suffix=".log") as log:
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=log.file, cwd=ROOT)
        assert process.stdout is not None
        try:
            said = b""
            with trio.fail_after(PATIENCE):
                while not said.endswith(b"\n"):
                    if not (more_said := await process.stdout.receive_some()):
                        break
                    said += more_said
            match said.decode().split():
                case ["listening", port]:
                    yield Server(name, process, int(port), Path(log.name), trust)
                case ["missing", *what]:
                    raise MissingError(" ".join(what))
                case _:
                    last_words = os.pread(log.fileno(), 100_000, 0).decode().strip().rpartition("\n")[2]
                    raise DidNotStartError(f"{name} did not start: {last_words}")
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()


# -- clients ----------------------------------------------------------------------------------------


@attrs.define
class Client:
    """One connection of the driver, on a bare socket, or with TLS over it."""

    sock: trio.socket.SocketType
    tls: ClientTls | None = None
    buffer: bytearray = attrs.field(factory=bytearray)

    @classmethod
    async def connect(
        cls, port: int, *, context: ssl.SSLContext | None = None, receive_buffer: int | None = None
    ) -> Client:
        """With a context it begins TLS with what it says or hears first.  Raises: OSError."""
        sock = trio.socket.socket()
        try:
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await sock.connect((HOST, port))
        except BaseException:
            sock.close()
            raise
        return cls(sock, None if context is None else ClientTls(sock, context))

    async def begin(self) -> None:
        """Be encrypted, if that is to come.  Raises: one of LOST."""
        if self.tls is not None:
            await self.tls.shake_hands()

    async def say(self, line: str) -> None:
        """Raises: one of LOST."""
        await self.send(line.encode() + b"\n")

    async def send(self, data: bytes) -> None:
        """Raises: one of LOST."""
        if self.tls is not None:
            await self.tls.send(data)
            return
        view = memoryview(data)
        while view:
            view = view[await self.sock.send(view) :]

    async def receive(self) -> bytes:
        """What comes next; empty at the end.  Raises: one of LOST."""
        return await (self.sock.recv(1 << 20) if self.tls is None else self.tls.receive())

    async def line(self) -> bytes:
        """A whole line, or nothing at the end.  Raises: one of LOST."""
        while b"\n" not in self.buffer:
            if not (chunk := await self.receive()):
                return b""
            self.buffer += chunk
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer[:] = rest
        return line + b"\n"

    async def ask(self, line: str) -> bytes:
        """Raises: one of LOST."""
        await self.say(line)
        return await self.line()

    async def rest(self) -> tuple[int, str]:
        """How many bytes come until the end, and if that is an ``end``, a ``reset``, or does not come: ``open``."""
        count = len(self.buffer)
        self.buffer.clear()
        try:
            with trio.fail_after(BITE):
                while chunk := await self.receive():
                    count += len(chunk)
        except trio.TooSlowError:
            return count, "open"
        except (OSError, trio.BrokenResourceError):
            return count, "reset"
        return count, "end"

    async def finish(self) -> None:
        """Send no more (over TLS a close_notify, and FIN), receive on.  Raises: OSError."""
        if self.tls is not None:
            await self.tls.finish()
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End it with a reset (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.tls is not None:
            self.tls.say_goodbye()
        self.sock.close()


@attrs.define
class GoodClients:
    """Clients that ask and wait for their answers, again and again, while something goes wrong beside them."""

    count: int
    answered: int = 0  # clients all of whose questions were answered
    questions: int = 0
    worst: float = 0.0  # the longest that one has waited for an answer
    stopping: bool = False

    async def run(self, server: Server) -> None:
        """Be one of them."""
        try:
            with await server.connect() as client:
                while True:
                    last = self.stopping
                    word = f"word-{self.questions}"
                    self.questions += 1
                    asked = trio.current_time()
                    with trio.fail_after(BITE):
                        answer = await client.ask(f"ECHO {word}")
                    if answer != f"{word}\n".encode():
                        return
                    self.worst = max(self.worst, trio.current_time() - asked)
                    if last:
                        self.answered += 1
                        return
                    await trio.sleep(0.02)
        except LOST:
            return


@asynccontextmanager
async def good_clients(server: Server, count: int) -> AsyncIterator[GoodClients]:
    """They begin before the block and ask on during it; each asks once more after it."""
    good = GoodClients(count)
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(good.run, server)
        await until(lambda: good.questions >= count, BITE)
        yield good
        good.stopping = True


def resets_sent() -> int:
    """How many segments with RST this machine's kernel has sent, ever."""
    rows = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")]
    return int(dict(zip(*rows, strict=True))["OutRsts"])
