"""Connections between three hosts, and what of a fault can be seen."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from trioqt.testing import VirtualNetwork

Socket = trio.socket.SocketType
_opened: list[Socket] = []
# One way, in seconds; sums of it are exact.
LATENCY = 0.125


@asynccontextmanager
async def network() -> AsyncIterator[VirtualNetwork]:
    """With what these tests call alice, bob and server, an eighth of a second apart; closes their sockets."""
    async with VirtualNetwork(latency=LATENCY) as net:
        for name in ("alice", "bob", "server"):
            with net.host(name):
                pass
        yield net
        for sock in _opened:
            sock.close()
        _opened.clear()


def opened(type_: int = socket.SOCK_STREAM) -> Socket:
    """A socket that is closed when the test is over."""
    _opened.append(trio.socket.socket(type=type_))
    return _opened[-1]


async def accept(listener: Socket) -> Socket:
    """The next connection, closed when the test is over."""
    sock, _ = await listener.accept()
    _opened.append(sock)
    return sock


async def listen(net: VirtualNetwork, host: str = "server", port: int = 4000) -> Socket:
    """A listening socket on a host."""
    with net.host(host):
        sock = opened()
        await sock.bind(("0.0.0.0", port))
        sock.listen()
    return sock


async def connected(net: VirtualNetwork, listener: Socket, source: str = "alice") -> tuple[Socket, Socket]:
    """A new connection: the client's socket, the server's."""
    with net.host(source):
        client = opened()
        await client.connect(("server", listener.getsockname()[1]))
    await trio.sleep(LATENCY)
    return client, await accept(listener)


async def udp(net: VirtualNetwork, host: str, port: int) -> Socket:
    """A bound UDP socket on a host."""
    with net.host(host):
        sock = opened(socket.SOCK_DGRAM)
        await sock.bind(("0.0.0.0", port))
    return sock


async def failure(call: Callable[..., Awaitable[object]], *args: Any) -> str:
    """The name of the error number with which a call fails."""
    with pytest.raises(OSError) as caught:
        await call(*args)
    number = caught.value.errno
    assert number is not None
    return errno.errorcode[number]


async def everything(sock: Socket, wait: float) -> list[bytes]:
    """What comes within so many seconds."""
    got = []
    with trio.move_on_after(wait):
        while True:
            got.append(await sock.recv(65536))
    return got


def events(net: VirtualNetwork, *kinds: str) -> list[str]:
    """What has happened, without times and ports."""
    return [
        " ".join(filter(None, (event.kind, event.source.partition(":")[0], event.target.partition(":")[0], event.note)))
        for event in net.trace()
        if event.kind in kinds
    ]


def times(net: VirtualNetwork, kind: str, note: str = "") -> list[float]:
    """When it has happened."""
    return [event.time for event in net.trace() if event.kind == kind and note in event.note]


async def ping(alice: Socket, server: Socket) -> float:
    """How long a datagram takes there and back."""
    started = trio.current_time()
    await alice.sendto(b"?", ("server", 6))
    await server.recv(1)
    await server.sendto(b"!", ("alice", 5))
    await alice.recv(1)
    return trio.current_time() - started


async def look_up(net: VirtualNetwork, host: str, name: str) -> str:
    """The address of a name, or the name of the error."""
    with net.host(host):
        try:
            found = await trio.socket.getaddrinfo(name, 1, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            return next(key for key in ("EAI_AGAIN", "EAI_NONAME") if getattr(socket, key) == exc.errno)
    return str(found[0][4][0])
