"""Peers that are gone: some say so, some do not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.networks import Network
from tests.sockets.arrivals import until
from trioqt import ConnectionFinished, ErrorKind, SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork

OVER_TLS = True


async def test_two_sends_at_most_find_a_dead_peer(network: Network, nursery: trio.Nursery) -> None:
    """Who only writes hears of it too, and does not fill a queue that nobody will empty."""
    sock, peer = await network.connected(nursery)
    peer.reset()
    sends = 0
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(2):
            await sock.send_all(bytes(500_000))
            sends += 1

    assert sends <= 1
    assert sock.bytes_to_write() == 0


async def test_a_hundred_peers_that_vanish_without_a_word_are_noticed(
    virtual_network: VirtualNetwork, autojump_clock: trio.testing.MockClock
) -> None:
    """A host loses its power, and no FIN and no reset ever comes: keep-alive finds out, and the slots are free again.

    After 60 idle seconds it asks, and after six answers that do not come, ten seconds apart, it gives up.
    """
    ended: list[tuple[object, float]] = []

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_line()

    async with TcpServer() as server, trio.open_nursery() as nursery:
        with virtual_network.host("server") as address:
            await server.listen(address)
            await nursery.start(server.serve, handler)
        with virtual_network.host("clients"):
            clients = []
            for _ in range(100):
                clients.append(trio.socket.socket())
                await clients[-1].connect((str(address), server.server_port()))
        await until(lambda: server.connection_count() == 100)
        async with server.events(ConnectionFinished) as endings:
            with virtual_network.crash("clients"):
                began = trio.current_time()
                with trio.move_on_after(3600):
                    for _ in range(100):
                        error = (await anext(endings)).error
                        kind = error.kind if isinstance(error, SocketError) else error
                        ended.append((kind, round(trio.current_time() - began)))
        left = server.connection_count()
        for client in clients:
            client.close()
        nursery.cancel_scope.cancel()

    assert ended == [(ErrorKind.SOCKET_TIMEOUT, 120)] * 100
    assert left == 0


async def test_a_hundred_that_dribble_are_cut_and_others_do_not_feel_it(
    virtual_network: VirtualNetwork, autojump_clock: trio.testing.MockClock
) -> None:
    """A byte every two seconds holds a handler for as long as one likes, unless a limit says how long is too long."""
    ended: list[object] = []

    async def handler(sock: TcpSocket) -> None:
        async for line in sock.lines():
            await sock.send_all(line)

    async def dribble(client: trio.socket.SocketType) -> None:
        with client:
            for byte in b"hello":
                try:
                    await client.send(bytes([byte]))
                except (ConnectionResetError, BrokenPipeError):
                    return
                await trio.sleep(2)

    async with TcpServer(stall_limit=1) as server, trio.open_nursery() as nursery:
        with virtual_network.host("server") as address:
            await server.listen(address)
            await nursery.start(server.serve, handler)
        async with server.events(ConnectionFinished) as endings:
            with virtual_network.host("clients"):
                for _ in range(100):
                    client = trio.socket.socket()
                    await client.connect((str(address), server.server_port()))
                    nursery.start_soon(dribble, client)
                good = trio.socket.socket()
                await good.connect((str(address), server.server_port()))
            answers = 0
            for _ in range(20):
                await good.send(b"hello\n")
                if await good.recv(100) == b"hello\n":
                    answers += 1
                await trio.sleep(0.5)
            with trio.move_on_after(10):
                for _ in range(100):
                    error = (await anext(endings)).error
                    ended.append(error.kind if isinstance(error, SocketError) else error)
            good.close()
        nursery.cancel_scope.cancel()

    assert ended == [ErrorKind.SOCKET_TIMEOUT] * 100
    assert answers == 20
