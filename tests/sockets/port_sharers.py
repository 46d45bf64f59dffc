"""A process that shares a port: ``python -m tests.sockets.port_sharers tcp|udp PORT REUSE``.

It prints its port once clients may come, answers each with its own process id, and ends with its standard input.
"""

from __future__ import annotations

import os
import sys

import trio

from trioqt import BindMode, SocketError, TcpServer, TcpSocket, UdpSocket

ME = b"%d\n" % os.getpid()


async def answer(sock: TcpSocket) -> None:
    await sock.send_all(ME)


async def serve_connections(port: int, *, reuse: bool) -> None:
    async with TcpServer() as server:
        await server.listen("127.0.0.1", port, reuse_port=reuse)
        print(server.server_port(), flush=True)
        await server.serve(answer)


async def answer_datagrams(port: int, *, reuse: bool) -> None:
    async with UdpSocket() as sock:
        await sock.bind("127.0.0.1", port, BindMode.REUSE_PORT if reuse else BindMode.DEFAULT_FOR_PLATFORM)
        print(sock.local_port(), flush=True)
        async for datagram in sock:
            await sock.send_datagram(datagram.make_reply(ME))


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
