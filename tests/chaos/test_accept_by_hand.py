"""A loop of ``accept`` that a program writes itself survives what ``serve`` survives."""

from __future__ import annotations

import trio
import trio.testing

from tests.sockets.arrivals import until
from trioqt import AcceptError, ErrorKind, TcpServer
from trioqt.testing import VirtualNetwork
from trioqt.testing.network.faults import DescriptorsExhausted


async def test_a_loop_written_by_hand_waits_while_there_are_no_descriptors(
    virtual_network: VirtualNetwork, autojump_clock: trio.testing.MockClock
) -> None:
    """``accept`` does not raise, since there is nothing that its caller could do; it is told, and returns once it can.

    Everywhere else this loop ends with the first EMFILE, and the server with it.
    """
    count = 5
    clients: list[trio.socket.SocketType] = []
    accepted = 0

    async with TcpServer() as server:
        with virtual_network.host("server") as address:
            await server.listen(address)
        with virtual_network.begin(DescriptorsExhausted("server")):
            async with server.events(AcceptError) as events:
                with virtual_network.host("client"):
                    for _ in range(count):
                        clients.append(trio.socket.socket())
                        await clients[-1].connect((str(address), server.server_port()))
                with trio.move_on_after(10) as scope:
                    await server.accept()
                event = await anext(events)
        while accepted < count:
            async with await server.accept():
                accepted += 1
        await until(lambda: server.connection_count() == 0)
    for client in clients:
        client.close()

    assert scope.cancelled_caught
    assert event.kind is ErrorKind.SOCKET_RESOURCE
    assert accepted == count
