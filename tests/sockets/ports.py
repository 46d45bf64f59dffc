"""Ports that nobody can take away from a test while it runs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from trioqt import TcpSocket

__all__ = ["be_refused", "refusing_port"]


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port of 127.0.0.1 at which nobody listens: it is held, so nobody can begin to, nor connect from it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        yield port


async def be_refused(sock: TcpSocket) -> None:
    """Connect to where nobody listens."""
    with refusing_port() as port:
        await sock.connect_to_host("127.0.0.1", port)
