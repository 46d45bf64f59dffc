"""The networks that socket tests run on, and scripted peers on them.

A test takes its network from the ``network`` fixture and speaks to it only through this module, trio's sockets and
trioqt, so the same test will run on every network there is.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import attrs
import trio

from trioqt import TcpSocket

__all__ = ["Loopback", "RawListener", "RawPeer"]


@attrs.frozen
class RawPeer:
    """The other end, without any trioqt: a connected trio socket that does what a test tells it."""

    sock: trio.socket.SocketType

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        view = memoryview(data)
        while view:
            view = view[await self.sock.send(view) :]

    async def receive(self, count: int) -> bytes:
        """Exactly ``count`` bytes; fewer only at the end."""
        got = b""
        while len(got) < count:
            piece = await self.sock.recv(count - len(got))
            if not piece:
                break
            got += piece
        return got

    async def receive_to_end(self) -> bytes:
        """Everything up to a clean end.  Raises: ConnectionResetError at a reset."""
        got = bytearray()
        while piece := await self.sock.recv(65536):
            got += piece
        return bytes(got)

    def finish(self) -> None:
        """Send no more (FIN); receive on."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End it with a reset (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """An ordinary close."""
        self.sock.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()


@attrs.frozen
class RawListener:
    """A listening trio socket."""

    sock: trio.socket.SocketType

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.sock.getsockname()[1]
        return port

    async def accept(self) -> RawPeer:
        """The next connection."""
        sock, _ = await self.sock.accept()
        return RawPeer(sock)

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()

    def __enter__(self) -> RawListener:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()


@attrs.frozen
class Loopback:
    """The kernel's network, as far as it stays on this machine."""

    name: str = "loopback"
    host: str = "127.0.0.1"

    async def raw_listener(self, *, backlog: int = 100) -> RawListener:
        """A scripted server."""
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            await sock.bind((self.host, 0))
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return RawListener(sock)

    async def raw_connect(self, port: int) -> RawPeer:
        """A scripted client."""
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            await sock.connect((self.host, port))
        except BaseException:
            sock.close()
            raise
        return RawPeer(sock)

    async def unused_port(self) -> int:
        """A port that nobody listens on."""
        with await self.raw_listener() as listener:
            return listener.port

    async def connected(self, parent: trio.Nursery, **options: Any) -> tuple[TcpSocket, RawPeer]:
        """A connected socket of ours, its tasks in ``parent``, and a scripted peer."""
        sock = TcpSocket(parent, **options)
        with await self.raw_listener() as listener:
            await sock.connect_to_host(self.host, listener.port)
            return sock, await listener.accept()
