"""Work grows with what is done, and not with what is there: counted in calls, of Python's functions and of C's.

A test may not depend on speed, and what a call costs besides is counted elsewhere: bytes that are looked at and moved
in ``tests/core/test_buffers.py``, questions to the system in ``test_few_calls.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.networks import Network
from trioqt import TcpServer, TcpSocket

pytestmark = pytest.mark.unwatched("a task that watches does some of what is counted")


@attrs.define
class Calls:
    """How many there were."""

    count: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """All calls of this thread, whoever makes them: ours, trio's, the simulated network's."""
        before = sys.getprofile()

        def count(_frame: Any, event: str, _what: Any) -> None:
            if event in ("call", "c_call"):
                self.count += 1

        sys.setprofile(count)
        try:
            yield
        finally:
            sys.setprofile(before)


async def echo(sock: TcpSocket) -> None:
    """The busy connection's handler, and the idle ones'."""
    async for data in sock:
        sock.write(data)


async def test_a_busy_connection_costs_no_more_beside_idle_ones(network: Network, nursery: trio.Nursery) -> None:
    """A message there and back is as many calls beside five hundred that say nothing as beside none."""
    async with TcpServer() as server:
        await server.listen(network.host)
        nursery.start_soon(server.serve, echo)
        with await network.raw_connect(server.server_port()) as busy:

            async def calls_of_messages() -> int:
                calls = Calls()
                for _ in range(50):  # whatever is learned or made once
                    await busy.send(b"word")
                    assert await busy.receive(4) == b"word"
                with calls.counted():
                    for _ in range(200):
                        await busy.send(b"word")
                        assert await busy.receive(4) == b"word"
                return calls.count

            alone = await calls_of_messages()
            idle = [await network.raw_connect(server.server_port()) for _ in range(500)]
            while server.connection_count() < 501:
                await trio.lowlevel.checkpoint()
            beside = await calls_of_messages()
            for peer in idle:
                peer.close()

    assert alone > 200 * 10, "nothing was counted"
    assert beside <= alone * 1.1


async def calls_of_a_line(network: Network, size: int, read: Callable[[TcpSocket, int], Awaitable[bytes]]) -> int:
    """What it costs to receive a line of ``size`` bytes that come one by one, and are looked at one by one."""
    calls = Calls()
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as peer:
            sock = await server.accept()
            with calls.counted():
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def send() -> None:
                        for _ in range(size - 1):
                            await peer.send(b"x")
                            for _ in range(3):
                                await trio.lowlevel.checkpoint()
                        await peer.send(b"\n")

                    assert await read(sock, size) == b"x" * (size - 1) + b"\n"
    return calls.count


async def by_receive_line(sock: TcpSocket, size: int) -> bytes:
    """trio's verb."""
    return await sock.receive_line(max_bytes=size)


async def by_qts_verbs(sock: TcpSocket, size: int) -> bytes:
    """Qt's."""
    while not sock.can_read_line():
        assert await sock.wait_for_ready_read()
    return sock.read_line()


@pytest.mark.parametrize("read", [by_receive_line, by_qts_verbs])
async def test_a_line_in_single_bytes_costs_linear_work(
    network: Network, read: Callable[[TcpSocket, int], Awaitable[bytes]]
) -> None:
    """Four times the bytes are four times the calls; each byte is looked for once, however many came before."""
    short = await calls_of_a_line(network, 500, read)
    long = await calls_of_a_line(network, 2_000, read)

    assert short > 500, "nothing was counted"
    assert long <= 4 * 1.1 * short


async def test_writes_of_one_byte_cost_linear_work(network: Network) -> None:
    """To a peer that does not read until then: four times the writes are four times the calls, in and out again."""

    async def calls_of_writes(count: int) -> int:
        calls = Calls()
        async with TcpServer(lambda: TcpSocket(write_buffer_size=1 << 24)) as server:
            await server.listen(network.host)
            with await network.raw_connect(server.server_port()) as peer:
                sock = await server.accept()
                ahead = 0
                while not sock.bytes_to_write():  # until the system takes no more, and all that follows is queued
                    ahead += sock.write(bytes(1 << 16))
                await trio.lowlevel.checkpoint()
                with calls.counted():
                    for _ in range(count):
                        sock.write(b"x")
                    assert sock.bytes_to_write() >= count
                    assert await peer.receive(ahead + count) == bytes(ahead) + b"x" * count
                    await sock.wait_for_bytes_written()
        return calls.count

    few = await calls_of_writes(2_500)
    many = await calls_of_writes(10_000)

    assert few > 2_500, "nothing was counted"
    assert many <= 4 * 1.1 * few
