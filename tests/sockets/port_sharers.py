"""A process that shares a port: ``python -m tests.sockets.port_sharers tcp|udp PORT REUSE``.

It prints its port once clients may come, answers each with its own process id, and ends with its standard input.
"""

from __future__ import annotations

import os
import socket
import sys

import trio

from trioqt import BindMode, SocketError, TcpServer, TcpSocket
from trioqt.core.options import bind_options
from trioqt.links.bind import bind_socket
from trioqt.links.connect import Target

ME = b"%d\n" % os.getpid()


async def answer(sock: TcpSocket) -> None:
    await sock.send_all(ME)


async def serve_connections(port: int, *, reuse: bool) -> None:
    async with TcpServer() as server:
        await server.listen("127.0.0.1", port, reuse_port=reuse)
        print(server.server_port(), flush=True)
        await server.serve(answer)


async def answer_datagrams(port: int, *, reuse: bool) -> None:
    mode = BindMode.REUSE_PORT if reuse else BindMode.DEFAULT_FOR_PLATFORM
    target = Target(socket.AF_INET, ("127.0.0.1", port))
    with await bind_socket(target, bind_options(mode, datagrams=True), socket_type=socket.SOCK_DGRAM) as sock:
        print(sock.getsockname()[1], flush=True)
        while True:
            _, sender = await sock.recvfrom(100)
            await sock.sendto(ME, sender)


async def main(kind: str, port: int, *, reuse: bool) -> None:
    async with trio.open_nursery() as nursery:
        try:
            serve = serve_connections if kind == "tcp" else answer_datagrams
            nursery.start_soon(lambda: serve(port, reuse=reuse))
            await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        finally:
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    try:
        trio.run(lambda: main(sys.argv[1], int(sys.argv[2]), reuse=sys.argv[3] == "reuse"))
    except* (SocketError, OSError) as group:
        error = group.exceptions[0]
        print(error.kind.name if isinstance(error, SocketError) else type(error).__name__, flush=True)
