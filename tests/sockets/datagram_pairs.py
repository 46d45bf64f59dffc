"""Datagram sockets for tests, and what they have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trioqt import HostAddress, NetworkDatagram, UdpSocket

__all__ = ["HOST", "bound", "bound_pair", "connected_pair", "drain_now"]

HOST = "127.0.0.1"


@asynccontextmanager
async def bound(host: HostAddress | str = HOST) -> AsyncIterator[UdpSocket]:
    """A socket with an address, in a block of its own."""
    async with UdpSocket() as sock:
        await sock.bind(host)
        yield sock


@asynccontextmanager
async def bound_pair() -> AsyncIterator[tuple[UdpSocket, UdpSocket]]:
    """Two of them."""
    async with bound() as first, bound() as second:
        yield first, second


@asynccontextmanager
async def connected_pair() -> AsyncIterator[tuple[UdpSocket, UdpSocket]]:
    """Two sockets, each the other's only peer."""
    async with bound_pair() as (first, second):
        await first.connect_to_host(HOST, second.local_port())
        await second.connect_to_host(HOST, first.local_port())
        yield first, second


def drain_now(sock: UdpSocket) -> list[NetworkDatagram]:
    """Everything that has arrived."""
    taken = []
    while (datagram := sock.read_datagram()) is not None:
        taken.append(datagram)
    return taken
