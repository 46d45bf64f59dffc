"""``trioqt serve chat``: what one client says, the others hear.

How that is done in few lines is ``examples/chat_server.py``; this one says who speaks, and stops in order.
"""

from __future__ import annotations

import trio

from trioqt.core.addresses import location
from trioqt.core.errors import SocketError
from trioqt.sockets.tcp_server import TcpServer
from trioqt.sockets.tcp_socket import TcpSocket

__all__ = ["Chat"]

# Bytes, with its end.
MAX_LINE = 1000


class Chat:
    """A room; ``talk`` is what each member's task does."""

    def __init__(self) -> None:
        self._members: set[TcpSocket] = set()

    async def talk(self, server: TcpServer[TcpSocket], sock: TcpSocket) -> None:
        """Tell the others what this member says, until it finishes or the server drains; then what it has said by then.

        Raises: SocketError, trio.ClosedResourceError: the member has gone, was cut off, or says too long a line.
        Cancelled: it is a member no more.
        """
        name = f"{location(sock.peer_address(), sock.peer_port())}: ".encode()
        self._members.add(sock)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop, server, nursery.cancel_scope)
                async for line in sock.lines(MAX_LINE):
                    self._tell(sock, name + line)
                nursery.cancel_scope.cancel()
            while sock.can_read_line():
                self._tell(sock, name + sock.read_line(MAX_LINE))
        finally:
            self._members.discard(sock)

    async def _stop(self, server: TcpServer[TcpSocket], scope: trio.CancelScope) -> None:
        await server.wait_for_draining()
        scope.cancel(reason="the server drains")

    def _tell(self, speaker: TcpSocket, line: bytes) -> None:
        if not line.endswith(b"\n"):  # its last words
            line += b"\n"
        for member in self._members - {speaker}:
            try:
                member.write(line)
            except trio.WouldBlock:
                member.abort(reset=True)  # it does not read; its own task ends by this
            except (SocketError, trio.ClosedResourceError):
                pass  # it has gone, which its own task finds too
