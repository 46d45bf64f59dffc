"""A socket of ours, connected, and a scripted peer at its other end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from tests.networks import Network, RawPeer, this_network
from tests.sockets.arrivals import finish_arrived, reset_arrived, until
from trioqt import SocketState, TcpSocket

__all__ = ["Connection", "connection"]


@attrs.frozen
class Connection:
    """A socket of ours and the scripted peer at its other end."""

    sock: TcpSocket
    peer: RawPeer

    async def arrive(self, data: bytes) -> None:
        """``data`` is sent, and acknowledged by the system on our side, when this returns; read or not."""
        await self.peer.send(data)
        descriptor, network = self.peer.sock.fileno(), this_network()
        await until(lambda: network.unacknowledged_bytes(descriptor) == 0)

    async def finish(self) -> None:
        """The peer finishes, and our system knows."""
        self.peer.finish()
        if self.sock.socket_descriptor() != -1:
            await finish_arrived(self.sock)

    async def reset(self) -> None:
        """The peer resets, and our system knows."""
        self.peer.reset()
        await until_reset(self.sock)


async def until_reset(sock: TcpSocket) -> None:
    """Until the system, or the socket itself, knows of the reset."""
    with trio.move_on_after(1e9) as scope:
        async with trio.open_nursery() as nursery:

            async def told() -> None:
                await until(lambda: sock.state() is SocketState.UNCONNECTED)
                scope.cancel()

            nursery.start_soon(told)
            try:
                await reset_arrived(sock)
            except OSError:  # the descriptor is closed: it was told
                await trio.sleep_forever()
            scope.cancel()


@asynccontextmanager
async def connection(network: Network, **options: Any) -> AsyncIterator[Connection]:
    """A connected socket that nobody watches; aborted at the end of the block."""
    async with trio.open_nursery() as nursery:
        sock, peer = await network.connected(nursery, **options)
        try:
            yield Connection(sock, peer)
        finally:
            sock.abort()
            peer.close()
            nursery.cancel_scope.cancel()
