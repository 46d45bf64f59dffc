"""A pool of connections: ``python docs/howto/pool.py``."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import trio

from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


class Pool:
    """At most ``size`` connections to one server, which are used again and again."""

    def __init__(self, host: str, port: int, size: int) -> None:
        self._host, self._port = host, port
        self._idle: deque[TcpSocket] = deque()
        self._places = trio.CapacityLimiter(size)
        self._nursery_manager = trio.open_nursery()

    async def __aenter__(self) -> Self:
        self._nursery = await self._nursery_manager.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        while self._idle:
            self._idle.pop().abort()
        return await self._nursery_manager.__aexit__(exc_type, exc, traceback)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[TcpSocket]:
        """One of them, for the block alone; it goes back if the block ends well."""
        async with self._places:
            sock = self._take_idle() or await self._connect()
            try:
                yield sock
            except BaseException:
                sock.abort(reset=True)  # who knows what half of an answer is in it
                raise
            self._idle.append(sock)

    def _take_idle(self) -> TcpSocket | None:
        while self._idle:
            sock = self._idle.pop()  # the one used last: its peer is most likely to be there
            if not sock.peer_has_finished() and not sock.bytes_available():
                return sock
            sock.abort()
        return None

    async def _connect(self) -> TcpSocket:
        sock = TcpSocket(self._nursery)  # its parent is the pool's nursery, not a block
        await sock.connect_to_host(self._host, self._port)
        return sock


async def echo(sock: TcpSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(line)


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1", 4000)
        await nursery.start(server.serve, echo)

        async def ask(pool: Pool, number: int) -> None:
            async with pool.connection() as sock:
                await sock.send_all(b"%d\n" % number)
                assert await sock.receive_line() == b"%d\n" % number
                await trio.sleep(1)

        async with Pool("127.0.0.1", 4000, size=3) as pool:
            async with trio.open_nursery() as clients:
                for number in range(12):
                    clients.start_soon(ask, pool, number)
            print("12 requests,", server.connection_count(), "connections,", trio.current_time(), "seconds")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main)
