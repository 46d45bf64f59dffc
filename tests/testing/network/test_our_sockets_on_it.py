"""TcpSocket and TcpServer between hosts that are some way apart.

On one host without latency every test of tests/sockets runs; here is what only distance shows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trioqt import (
    Connected,
    ErrorKind,
    HostAddress,
    SocketError,
    SocketState,
    StateChanged,
    TcpServer,
    TcpSocket,
)
from trioqt.testing import Crash, SignalSpy, VirtualNetwork, expect


async def echo(sock: TcpSocket) -> None:
    async for data in sock:
        await sock.send_all(data)


@asynccontextmanager
async def echo_server(net: VirtualNetwork, host: str = "server") -> AsyncIterator[TcpServer[TcpSocket]]:
    with net.host(host):
        async with TcpServer() as server, trio.open_nursery() as nursery:
            await server.listen(host, 4000)
            await nursery.start(server.serve, echo)
            with net.host("default"):
                yield server
            nursery.cancel_scope.cancel()


async def test_round_trip(autojump_clock: trio.testing.MockClock) -> None:
    """Connect, one line there and back: four crossings of a 0.5 s link are two virtual seconds."""
    async with VirtualNetwork(latency=0.5) as net, echo_server(net):
        with net.host("alice"):
            started = trio.current_time()
            sock = TcpSocket()
            async with SignalSpy(sock, StateChanged) as spy, sock:
                await sock.connect_to_host("server", 4000)
                await sock.send_all(b"hello\n")
                assert await sock.receive_line() == b"hello\n"

            assert trio.current_time() - started == 2.0
            assert [event.state.name for event in spy] == [
                "HOST_LOOKUP",
                "CONNECTING",
                "CONNECTED",
                "CLOSING",
                "UNCONNECTED",
            ]


async def test_the_next_address_is_tried_after_a_quarter_of_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """RFC 8305: the first is cut off and answers never, the second within a round trip."""
    async with VirtualNetwork(latency=0.125) as net, echo_server(net, "second"):
        with net.host("first"):
            pass
        net.set_name("service", "10.0.0.3", "10.0.0.2")
        with net.host("alice"), net.partition("alice", "first"):
            async with TcpSocket() as sock:
                await sock.connect_to_host("service", 4000)
                seen = trio.current_time(), sock.peer_address()

    assert seen == (0.5, HostAddress("10.0.0.2"))


async def test_what_was_sent_is_kept_until_a_short_partition_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """The socket tells nothing, because TCP does not."""
    async with VirtualNetwork(latency=0.25) as net, echo_server(net):
        with net.host("alice"):
            async with TcpSocket() as sock:
                await sock.connect_to_host("server", 4000)
                async with SignalSpy(sock, StateChanged) as spy:
                    with net.partition("alice", "server"):
                        await sock.send_all(b"line\n")
                        await trio.sleep(3)
                    line = await sock.receive_line()
                    recorded = list(spy)

    assert (line, recorded) == (b"line\n", [])


async def test_a_server_that_was_started_again_resets_its_old_connections(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The peer hears of the crash when it says something, and then it is told as Qt tells it."""
    async with VirtualNetwork(latency=0.25) as net, trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[TcpServer[TcpSocket]]) -> None:
            async with TcpServer() as server:
                await server.listen("server", 4000)
                await server.serve(echo, task_status=task_status)

        with net.host("server"):
            pass
        await nursery.start(net.run_on, "server", serve)
        with net.host("alice"):
            async with TcpSocket() as sock:
                await sock.connect_to_host("server", 4000)
                with net.begin(Crash("server")):
                    await trio.sleep(10)
                await sock.send_all(b"still there?\n")
                with pytest.raises(SocketError) as caught:
                    await sock.receive_line()
                state = sock.state()
                async with expect(sock, Connected):
                    await sock.connect_to_host("server", 4000)
                await sock.send_all(b"again\n")
                answer = await sock.receive_line()
        nursery.cancel_scope.cancel()

    assert (caught.value.kind, state, answer) == (
        ErrorKind.REMOTE_HOST_CLOSED,
        SocketState.UNCONNECTED,
        b"again\n",
    )


async def test_a_name_that_nobody_has_is_told_as_such(autojump_clock: trio.testing.MockClock) -> None:
    """And a name server that is silent costs ten seconds."""
    async with VirtualNetwork(name_latency=0.5) as net:
        async with TcpSocket() as sock:
            with pytest.raises(SocketError) as unknown:
                await sock.connect_to_host("nowhere", 4000)
            seen = [trio.current_time()]
            with net.pause("default"), pytest.raises(SocketError) as silent:
                await sock.connect_to_host("nowhere", 4000)
            seen.append(trio.current_time())

    assert (unknown.value.kind, silent.value.kind, seen) == (
        ErrorKind.HOST_NOT_FOUND,
        ErrorKind.HOST_NOT_FOUND,
        [0.5, 10.5],
    )
