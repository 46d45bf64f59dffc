"""Ports that nobody can take away from a test while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trioqt import TcpSocket

__all__ = ["be_refused", "refusing_port"]


@asynccontextmanager
async def refusing_port() -> AsyncIterator[int]:
    """A port of 127.0.0.1 at which nobody listens: it is held, so nobody can begin to, nor connect from it."""
    with trio.socket.socket() as holder:
        await holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        yield port


async def be_refused(sock: TcpSocket) -> None:
    """Connect to where nobody listens."""
    async with refusing_port() as port:
        await sock.connect_to_host("127.0.0.1", port)
