"""A handler that gives everything back, and a client that finds out whether it does."""

from __future__ import annotations

from tests.networks import RawPeer
from trioqt import TcpSocket

__all__ = ["ask", "echo"]


async def echo(sock: TcpSocket) -> None:
    """Everything back."""
    async for chunk in sock:
        await sock.send_all(chunk)


async def ask(client: RawPeer) -> bool:
    """Does an echo server answer?"""
    await client.send(b"?")
    return await client.receive(1) == b"?"
