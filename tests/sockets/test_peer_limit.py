"""A server's ``max_connections_per_peer``: what one address may have at a time."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Network, RawPeer
from trioqt import AcceptError, ErrorKind, TcpServer, TcpSocket
from trioqt.sockets.peer_limit import PeerLimit
from trioqt.testing import VirtualNetwork

Clock = trio.testing.MockClock


async def knock(host: str, port: int, family: int = socket.AF_INET) -> RawPeer | None:
    """A client that the server has greeted; None if it was reset, which it may hear of while it still connects."""
    sock = trio.socket.socket(family)
    try:
        await sock.connect((host, port))
        if await RawPeer(sock).receive(5) == b"hello":
            return RawPeer(sock)
    except ConnectionResetError:
        pass
    except BaseException:
        sock.close()
        raise
    sock.close()
    return None


def close_all(clients: list[RawPeer | None]) -> list[bool]:
    """Which were served?"""
    for client in clients:
        if client is not None:
            client.close()
    return [client is not None for client in clients]


async def greet(sock: TcpSocket) -> None:
    await sock.send_all(b"hello")
    async for _ in sock:
        pass


async def test_one_more_than_the_limit_is_reset_and_a_place_is_free_again_at_an_end(network: Network) -> None:
    """Two of two are served, the third is not; when one has gone, another one is."""
    async with TcpServer(max_connections_per_peer=2) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        nursery.start_soon(server.serve, greet)
        port = server.server_port()
        clients = [await knock(network.host, port) for _ in range(3)]
        count = server.connection_count()
        assert clients[0] is not None
        clients[0].close()
        while server.connection_count() == 2:
            await trio.lowlevel.checkpoint()
        clients += [await knock(network.host, port) for _ in range(2)]
        served = close_all(clients)
        nursery.cancel_scope.cancel()

    assert served == [True, True, False, True, False]
    assert count == 2


async def test_each_address_has_its_own(autojump_clock: Clock) -> None:
    """Whoever takes all that one address may have takes nothing from others."""
    async with VirtualNetwork() as net, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await nursery.start(serve_on, TcpServer(max_connections_per_peer=1))
        clients = []
        for name in ("alice", "alice", "bob", "alice", "bob"):
            with net.host(name):
                clients.append(await knock(address.text, 4000))
        served = close_all(clients)
        nursery.cancel_scope.cancel()

    assert served == [True, False, True, False, False]


async def serve_on(server: TcpServer[TcpSocket], *, task_status: trio.TaskStatus[TcpServer[TcpSocket]]) -> None:
    async with server:
        await server.listen(port=4000)
        await server.serve(greet, task_status=task_status)


async def test_an_ipv4_mapped_address_is_the_same_peer(network: Network) -> None:
    """On a socket for both families IPv4 clients come as ::ffff:127.0.0.1, and ::1 is somebody else."""
    async with TcpServer(max_connections_per_peer=1) as server, trio.open_nursery() as nursery:
        await server.listen()
        nursery.start_soon(server.serve, greet)
        port = server.server_port()
        clients = [await knock(network.host, port) for _ in range(2)]
        clients.append(await knock("::1", port, socket.AF_INET6))
        limit = server._peer_limit
        assert limit is not None
        counts = dict(limit._counts)
        served = close_all(clients)
        nursery.cancel_scope.cancel()

    assert served == [True, False, True]
    assert counts == {"127.0.0.1": 1, "::1": 1}


def test_both_forms_of_an_address_are_counted_as_one() -> None:
    """And nothing else is taken for such a form."""
    limit = PeerLimit(2)
    socks = [object(), object(), object()]
    for sock, host in zip(socks, ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:1"), strict=True):
        limit.count(sock, host)

    reached = {host: limit.is_reached(host) for host in ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:1", "::1")}
    limit.forget(socks[0])
    limit.forget(socks[0])
    later = limit.is_reached("192.0.2.1")

    assert reached == {"192.0.2.1": True, "::ffff:192.0.2.1": True, "::ffff:1": False, "::1": False}
    assert later is False


async def test_pending_connections_count(network: Network) -> None:
    """Nobody has to have taken them."""
    async with TcpServer(max_connections_per_peer=1) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await server.wait_for_new_connection()
            second = await knock(network.host, server.server_port())
            count = server.connection_count()

    assert (second, count) == (None, 1)


async def test_no_place_is_lost_when_serve_is_cancelled(network: Network) -> None:
    """However often: the books say what is open."""
    async with TcpServer(max_connections_per_peer=3) as server:
        limit = server._peer_limit
        assert limit is not None
        for _ in range(5):
            await server.listen(network.host)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve, greet)
                clients = [await knock(network.host, server.server_port()) for _ in range(4)]
                nursery.cancel_scope.cancel()
            assert close_all(clients) == [True, True, True, False]
            assert (limit._counts, limit._hosts, server.connection_count()) == ({}, {}, 0)


async def test_a_factory_that_fails_costs_no_place(
    network: Network, handler_failures: Callable[[], list[Exception]]
) -> None:
    """What came to nothing is not counted."""
    bug = RuntimeError("out of order")

    def factory() -> Any:
        raise bug

    async with TcpServer(factory, max_connections_per_peer=1) as server:
        limit = server._peer_limit
        assert limit is not None
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            end = await client.receive_to_end()

        assert end == b""
        assert (limit._counts, limit._hosts) == ({}, {})
        assert handler_failures() == [bug]


async def test_a_refusal_is_told_and_logged_and_is_no_error_of_the_server(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who, and why; ``server_error()`` is for what goes wrong here."""
    async with VirtualNetwork(), TcpServer(max_connections_per_peer=1) as server, server.events(AcceptError) as events:
        await server.listen("127.0.0.1")
        with trio.socket.socket() as first, trio.socket.socket() as second:
            await first.connect(("127.0.0.1", server.server_port()))
            await trio.testing.wait_all_tasks_blocked()
            await second.bind(("127.0.0.1", 40_000))
            with pytest.raises(ConnectionResetError):
                await second.connect(("127.0.0.1", server.server_port()))
                await second.recv(1)
        event = await anext(events)
        error = server.server_error()

    message = "refused a connection from 127.0.0.1:40000, which has 1 already"
    assert event == AcceptError(ErrorKind.LIMIT_EXCEEDED, message)
    assert error is None
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.WARNING, message)]


async def test_a_storm_of_refusals_fills_no_disk(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Each is told; ten are logged, and the last says how many were left out."""
    async with VirtualNetwork():
        async with TcpServer(max_connections_per_peer=1) as server:
            await server.listen("127.0.0.1")
            with trio.socket.socket() as first:
                await first.connect(("127.0.0.1", server.server_port()))
                await trio.testing.wait_all_tasks_blocked()
                for _ in range(50):
                    with trio.socket.socket() as further, pytest.raises(ConnectionResetError):
                        await further.connect(("127.0.0.1", server.server_port()))
                        await further.recv(1)

    assert len(caplog.records) == 10
    assert "41" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), ("many", TypeError), (1.5, TypeError)])
def test_a_limit_is_at_least_one(value: Any, error: type[Exception]) -> None:
    """To refuse everybody there is ``close``."""
    with pytest.raises(error):
        TcpServer(max_connections_per_peer=value)
