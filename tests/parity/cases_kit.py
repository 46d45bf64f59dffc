"""What the parity cases are made of: where a case runs, how it says what happened, and what must come out.

A case is an async function that speaks to a network through trio alone and returns plain values.  Nothing here
knows which network that is.
"""

from __future__ import annotations

import errno
import inspect
import struct
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import attrs
import pytest
import trio
from trio import socket
from trio.testing import wait_all_tasks_blocked

__all__ = [
    "CASES",
    "RESET_ON_CLOSE",
    "Case",
    "Place",
    "Sock",
    "all_of",
    "attempt",
    "case",
    "drain",
    "pending_error",
    "until",
    "until_readable",
    "waits",
    "while_waiting",
]

Sock = trio.socket.SocketType
Body = TypeVar("Body", bound=Callable[..., Awaitable[object]])

RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# Linux has two names for 95; the manual pages speak of this one.
ERRNO_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}

# How long a loaded machine's kernel may take to carry a packet over loopback.
LOADED = 0.01


@attrs.frozen
class Case:
    """One case: what is done, and what both networks must say to it."""

    theme: str
    name: str
    expected: object
    body: Callable[[Place], Awaitable[object]]

    def __str__(self) -> str:
        return f"{self.theme}:{self.name}"


CASES: list[Case] = []


def case(expected: object) -> Callable[[Body], Body]:
    """Put the function below into the specification; it must return ``expected`` on every network."""

    def enter(body: Body) -> Body:
        theme = body.__module__.rpartition("cases_")[2]
        CASES.append(Case(theme, body.__name__, expected, body))
        return body

    return enter


@attrs.define
class Place:
    """Where a case runs: a directory for AF_UNIX, sockets that are closed at the end, names for ports.

    ``moment`` is how long, in real seconds, the network may go on moving bytes when nobody does anything.
    """

    directory: str
    moment: float = 0.0
    has_ipv6: bool = True
    ports: dict[int, str] = attrs.field(factory=dict)
    closing: ExitStack = attrs.field(factory=ExitStack)

    def path(self, name: str) -> str:
        """Where an AF_UNIX socket called ``name`` lives."""
        return f"{self.directory}/{name}"

    def keep(self, sock: Sock) -> Sock:
        """Close ``sock`` when the case is over."""
        self.closing.callback(sock.close)
        return sock

    def new(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> Sock:
        """A new socket."""
        if family == socket.AF_INET6:
            self.needs_ipv6()
        return self.keep(socket.socket(family, kind))

    def needs_ipv6(self) -> None:
        """Skip the case where there is no IPv6; many a container has none."""
        if not self.has_ipv6:
            pytest.skip("this machine has no ::1")

    def tcp(self) -> Sock:
        """A new TCP socket for IPv4."""
        return self.new()

    def tcp6(self, *, v6only: bool = False) -> Sock:
        """A new TCP socket for IPv6."""
        sock = self.new(socket.AF_INET6)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        return sock

    def udp(self) -> Sock:
        """A new UDP socket for IPv4."""
        return self.new(kind=socket.SOCK_DGRAM)

    def unix(self) -> Sock:
        """A new AF_UNIX stream socket."""
        return self.new(socket.AF_UNIX)

    async def bound(self, address: str = "127.0.0.1", port: int = 0, *, kind: int = socket.SOCK_STREAM) -> Sock:
        """An IPv4 socket at ``address``."""
        sock = self.new(kind=kind)
        await sock.bind((address, port))
        return sock

    async def bound_udp(self, address: str = "127.0.0.1", port: int = 0) -> Sock:
        """A UDP socket at ``address``."""
        return await self.bound(address, port, kind=socket.SOCK_DGRAM)

    async def listener(self, address: str = "127.0.0.1", port: int = 0, *, backlog: int = 100) -> Sock:
        """A TCP socket that listens at ``address``."""
        sock = self.tcp6() if ":" in address else self.tcp()
        await sock.bind((address, port))
        sock.listen(backlog)
        return sock

    async def connect(self, listener: Sock) -> Sock:
        """A client of ``listener``."""
        client = self.new(listener.family)
        await client.connect(listener.getsockname())
        return client

    async def accept(self, listener: Sock) -> Sock:
        """The next connection of ``listener``."""
        return self.keep((await listener.accept())[0])

    async def pair(self, *, buffer: int | None = None) -> tuple[Sock, Sock]:
        """A connected client and its server, over TCP, with buffers of about ``buffer`` bytes."""
        listener, client = await self.bound(), self.tcp()
        if buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        listener.listen(1)
        await client.connect(listener.getsockname())
        server = await self.accept(listener)
        listener.close()
        return client, server

    async def unix_pair(self) -> tuple[Sock, Sock]:
        """A connected client and its server, over AF_UNIX, at the path "pair"."""
        listener, client = self.unix(), self.unix()
        await listener.bind(self.path("pair"))
        listener.listen(1)
        await client.connect(self.path("pair"))
        server = await self.accept(listener)
        listener.close()
        return client, server

    async def unused_port(self) -> int:
        """A TCP port of 127.0.0.1 that nobody listens on."""
        sock = await self.bound()
        port: int = sock.getsockname()[1]
        sock.close()
        return port

    async def fill(self, sock: Sock) -> int:
        """Send until nothing more goes in, not even after a moment; return how much did."""
        total = 0
        while (sent := await waits(sock.send, bytes(65536), cushion=0)) != "waits" or (
            sent := await waits(sock.send, b"1", cushion=self.moment)
        ) != "waits":
            total += sent
        return total

    def told(self, address: Any) -> Any:
        """``address`` with its port as "port A", "port B", in the order in which they were first told."""
        if not isinstance(address, tuple):
            return address.replace(self.directory, "DIR") if isinstance(address, str) else address
        host, port, *rest = address
        return (host, self.port_name(port), *rest)

    def port_name(self, port: int) -> object:
        """What ``port`` is called; 0 is 0."""
        return port and self.ports.setdefault(port, f"port {chr(ord('A') + len(self.ports))}")

    def ends(self, *socks: Sock) -> tuple[object, ...]:
        """Where each of ``socks`` is, and where its peer is."""
        return tuple((self.told(sock.getsockname()), self.told(sock.getpeername())) for sock in socks)


async def attempt(call: Callable[..., Any], *args: Any) -> Any:
    """What ``call`` gives: its result ("ok" for None), or the name of the errno or of the exception."""
    try:
        result = call(*args)
        if inspect.isawaitable(result):
            result = await result
    except socket.gaierror as exc:
        return next(name for name in vars(socket) if name.startswith("EAI_") and getattr(socket, name) == exc.errno)
    except OSError as exc:
        return ERRNO_NAMES[exc.errno] if exc.errno else "OSError"
    except (
        *(TypeError, ValueError, OverflowError),
        *(trio.BusyResourceError, trio.ClosedResourceError, trio.BrokenResourceError, trio.EndOfChannel),
    ) as exc:
        return type(exc).__name__
    return "ok" if result is None else result


def pending_error(sock: Sock) -> str | int:
    """The name of what SO_ERROR tells, or 0; reading clears it (socket(7))."""
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return error and ERRNO_NAMES[error]


async def all_of(*attempts: Awaitable[Any]) -> tuple[Any, ...]:
    """What ``attempts`` give, one after the other."""
    return tuple([await each for each in attempts])


async def waits(call: Callable[..., Any], *args: Any, cushion: float = LOADED) -> Any:
    """What ``call`` gives, or "waits" if it needs somebody else; then it is cancelled."""
    result: Any = "waits"

    async def run() -> None:
        nonlocal result
        result = await attempt(call, *args)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked(cushion)
        nursery.cancel_scope.cancel()
    return result


async def while_waiting(call: Callable[..., Any], *args: Any, then: Callable[[], Any]) -> Any:
    """What ``call`` gives if ``then`` happens while it waits."""
    result: Any = None

    async def run() -> None:
        nonlocal result
        result = await attempt(call, *args)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        assert result is None, f"it did not wait: {result}"
        done = then()
        if inspect.isawaitable(done):
            await done
    return result


async def drain(sock: Sock, count: int) -> int:
    """Receive ``count`` bytes, fewer at the end; return how many."""
    got = 0
    while got < count and (piece := await sock.recv(min(65536, count - got))):
        got += len(piece)
    return got


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds, for at most about a second; what a kernel does by itself takes a moment."""
    for _ in range(1000):
        if condition():
            return
        await wait_all_tasks_blocked(0.001)
    raise AssertionError("it does not happen")


async def until_readable(*socks: Sock) -> None:
    """Wait until something arrived at each of ``socks``, without taking it: data, the end or an error."""
    for sock in socks:
        await until(sock.is_readable)
