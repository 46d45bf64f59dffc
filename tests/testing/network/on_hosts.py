"""Sockets on the hosts of a network that a test has made."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable

import attrs
import trio
import trio.testing

from trioqt.testing import VirtualNetwork


def name_hosts(net: VirtualNetwork, *names: str) -> None:
    """They get their addresses in this order."""
    for name in names:
        with net.host(name):
            pass


async def listening(port: int = 4000, host: str = "0.0.0.0", backlog: int = 10) -> trio.socket.SocketType:
    sock = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await sock.bind((host, port))
    sock.listen(backlog)
    return sock


async def connected(address: object, port: int = 4000) -> trio.socket.SocketType:
    host = str(address)
    sock = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    await sock.connect((host, port))
    return sock


async def datagrams(port: int = 0, host: str = "0.0.0.0") -> trio.socket.SocketType:
    sock = trio.socket.socket(type=socket.SOCK_DGRAM)
    await sock.bind((host, port))
    return sock


@attrs.frozen
class Pair:
    """A connection between two hosts."""

    client: trio.socket.SocketType
    server: trio.socket.SocketType

    def close(self) -> None:
        self.client.close()
        self.server.close()


async def pair(net: VirtualNetwork, client: str = "client", server: str = "server", port: int = 4000) -> Pair:
    with net.host(server) as address:
        listener = await listening(port)
    with net.host(client):
        sock = await connected(address, port)
    accepted, _ = await listener.accept()
    listener.close()
    return Pair(sock, accepted)


async def receive_all(sock: trio.socket.SocketType, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        got += await sock.recv(count - len(got))
    return bytes(got)


async def errno_of(call: Callable[..., Awaitable[object]], *args: object) -> str:
    try:
        await call(*args)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return "ok"


def kinds(net: VirtualNetwork) -> list[str]:
    return [event.kind for event in net.trace()]
