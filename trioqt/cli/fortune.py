"""``trioqt serve fortune``: Qt's fortune server, to try a client on."""

from __future__ import annotations

import random

from trioqt.core.data_stream import DataStream
from trioqt.sockets.tcp_server import TcpServer
from trioqt.sockets.tcp_socket import TcpSocket

__all__ = ["FORTUNES", "tell_fortune"]

# Those of Qt's example.
FORTUNES = (
    "You've been leading a dog's life. Stay off the furniture.",
    "You've got to think about tomorrow.",
    "You will be surprised by a loud noise.",
    "You will feel hungry again in another hour.",
    "You might have mail.",
    "You cannot kill time without injuring eternity.",
    "Computers are not intelligent. They only think they are.",
)


async def tell_fortune(server: TcpServer[TcpSocket], sock: TcpSocket) -> None:
    """One of them, drawn; it goes out whole.

    Raises: SocketError, trio.ClosedResourceError: the client has gone.
    Cancelled: nothing is sent.
    """
    block = DataStream()
    block.write_q_string(random.choice(FORTUNES))
    await sock.send_all(block.data())
