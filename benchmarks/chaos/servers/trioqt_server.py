"""trioqt: a handler that catches nothing, and what the options of the case ask of TcpServer or SslServer."""

from __future__ import annotations

import math
import sys
from typing import Any

import trio

from benchmarks.chaos.servers.common import BLOCK, Bug, Options, read_options, ready
from trioqt import ConnectionFinished, SslServer, TcpServer, TcpSocket, stop_on_signals

# For a thousand at once on a machine that is busy otherwise, in seconds; asyncio's, where ours is 5.
HANDSHAKE_TIMEOUT = 60.0


class Program:
    """One server and its handler."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.context = options.context()
        self.seen = 0

    async def handle(self, sock: TcpSocket) -> None:
        try:
            await self.answer_all(sock)
        finally:
            if self.options.goodbye:
                await sock.send_all(b"BYE\n")

    async def answer_all(self, sock: TcpSocket) -> None:
        while True:
            with trio.fail_after(self.options.patience):
                line = await sock.receive_line()
            if not line or not await self.answer(sock, line):
                return

    async def answer(self, sock: TcpSocket, line: bytes) -> bool:
        match line.split():
            case [b"ECHO", word]:
                await sock.send_all(word + b"\n")
            case [b"SLEEP", seconds]:
                await sock.send_all(b"BEGUN\n")
                await trio.sleep(float(seconds))
                await sock.send_all(b"DONE\n")
            case [b"SEND", count]:
                await send(sock, int(count))
            case [b"LAST", seconds, count]:
                await trio.sleep(float(seconds))
                await send(sock, int(count))
                return False
            case [b"UPSTREAM", port]:
                async with await trio.open_tcp_stream("127.0.0.1", int(port)):
                    await sock.send_all(b"CONNECTED\n")
            case [b"SEEN"]:
                await sock.send_all(b"%d\n" % self.seen)
            case [b"RAISE"]:
                raise Bug
            case _:
                await sock.send_all(b"WHAT\n")
        return True

    async def monitor(self, server: TcpServer[TcpSocket], *, task_status: trio.TaskStatus[None]) -> None:
        """As in examples/isolate_and_limit.py."""
        async with server.events(ConnectionFinished) as endings:
            task_status.started()
            async for _ in endings:
                self.seen += 1

    async def main(self) -> None:
        limits: dict[str, Any] = {} if math.isinf(self.options.stall) else {"stall_limit": self.options.stall}
        if self.context is not None:
            limits["handshake_timeout"] = HANDSHAKE_TIMEOUT
        async with TcpServer(**limits) if self.context is None else SslServer(self.context, **limits) as server:
            await server.listen("127.0.0.1", self.options.port)
            if self.options.grace is None and not self.options.monitor:
                ready(self.options, server.server_port())
                await server.serve(self.handle)
                return
            async with trio.open_nursery() as nursery:
                if self.options.monitor:
                    await nursery.start(self.monitor, server)
                if self.options.grace is not None:
                    await nursery.start(stop_on_signals, server, self.options.grace)
                ready(self.options, server.server_port())
                await server.serve(self.handle)


async def send(sock: TcpSocket, count: int) -> None:
    while count > 0:
        await sock.send_all(BLOCK[:count])
        count -= len(BLOCK)


if __name__ == "__main__":
    options = read_options()
    try:
        trio.run(Program(options).main)
    except KeyboardInterrupt:
        sys.exit(130)
