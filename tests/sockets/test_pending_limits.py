"""How many connections may wait to be taken, and pausing: the others wait in the kernel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.networks import Network
from tests.sockets.arrivals import accept_queue, until
from tests.sockets.echoing import ask, echo
from trioqt import TcpServer, TcpSocket

OVER_TLS = True


async def test_thirty_connections_wait_unless_told_otherwise(network: Network) -> None:
    """Qt's default; a higher limit has no effect before one is taken, as in Qt, and a lower one drops nothing."""
    async with TcpServer() as server:
        await server.listen(network.host)
        clients = [await network.raw_connect(server.server_port()) for _ in range(35)]
        await until(lambda: (server.connection_count(), accept_queue(server)) == (30, 5))
        await trio.testing.wait_all_tasks_blocked()
        by_default = server.connection_count()
        server.set_max_pending_connections(32)
        await trio.testing.wait_all_tasks_blocked()
        raised = server.connection_count()
        assert server.next_pending_connection() is not None
        await until(lambda: (server.connection_count(), accept_queue(server)) == (33, 2))
        await trio.testing.wait_all_tasks_blocked()
        after_one = server.connection_count()
        server.set_max_pending_connections(1)
        await trio.testing.wait_all_tasks_blocked()
        lowered = server.connection_count()
        taken = 1
        while server.next_pending_connection() is not None:
            taken += 1
        await until(lambda: (server.connection_count(), accept_queue(server)) == (34, 1))

        assert (by_default, raised, after_one, lowered, taken) == (30, 30, 33, 33, 33)
        assert server.max_pending_connections() == 1
    for client in clients:
        client.close()


async def take_one(server: TcpServer[TcpSocket], nursery: trio.Nursery) -> None:
    assert server.next_pending_connection() is not None


async def accept_one(server: TcpServer[TcpSocket], nursery: trio.Nursery) -> None:
    await server.accept()


async def resume(server: TcpServer[TcpSocket], nursery: trio.Nursery) -> None:
    server.resume_accepting()


async def serve_all(server: TcpServer[TcpSocket], nursery: trio.Nursery) -> None:
    await nursery.start(server.serve, echo)


async def listen_anew(server: TcpServer[TcpSocket], nursery: trio.Nursery) -> None:
    port = server.server_port()
    server.close()
    await server.listen("127.0.0.1", port)


@pytest.mark.parametrize("way", [take_one, accept_one, resume, serve_all, listen_anew])
@pytest.mark.parametrize("lowered", [False, True])
async def test_a_full_server_accepts_again_when_one_is_taken_or_when_it_is_told_to(
    network: Network,
    nursery: trio.Nursery,
    way: Callable[[TcpServer[TcpSocket], trio.Nursery], Awaitable[None]],
    lowered: bool,
) -> None:
    """S-021: raising the limit is not enough, whether it was reached or lowered to what is pending."""
    async with TcpServer() as server:
        server.set_max_pending_connections(5 if lowered else 1)
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await server.wait_for_new_connection()
            server.set_max_pending_connections(1)
            with await network.raw_connect(server.server_port()) as second:
                await until(lambda: accept_queue(server) == 1)
                server.set_max_pending_connections(10)
                await trio.testing.wait_all_tasks_blocked()
                full = server.connection_count(), accept_queue(server)
                await way(server, nursery)
                if way is listen_anew:  # which ends those that the kernel held
                    second.close()
                    with await network.raw_connect(server.server_port()):
                        await until(lambda: server.connection_count() == 1)
                else:
                    await until(lambda: (server.connection_count(), accept_queue(server)) == (2, 0))

        assert full == (1, 1)


async def test_a_server_that_was_full_before_it_served_is_not_full_after(network: Network) -> None:
    """``serve`` takes what is pending, too; and it does not take that rest with it when it is cancelled."""
    async with TcpServer() as server:
        server.set_max_pending_connections(1)
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await server.wait_for_new_connection()
            async with trio.open_nursery() as serving:
                await serving.start(server.serve, echo)
                serving.cancel_scope.cancel()
            await server.listen(network.host)
            with await network.raw_connect(server.server_port()):
                await server.wait_for_new_connection()

                assert server.connection_count() == 1


async def test_with_room_for_none_connections_wait_in_the_kernel(network: Network, nursery: trio.Nursery) -> None:
    """0 pending connections: none is accepted, until there is room or somebody serves."""
    async with TcpServer() as server:
        server.set_max_pending_connections(0)
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as first:
            await until(lambda: accept_queue(server) == 1)
            await trio.testing.wait_all_tasks_blocked()
            none = (server.connection_count(), accept_queue(server))
            server.set_max_pending_connections(1)
            await server.accept()
            server.set_max_pending_connections(0)
            await nursery.start(server.serve, echo)
            with await network.raw_connect(server.server_port()) as second:
                assert await ask(second)  # straight to its handler

        assert none == (0, 1)
        first.close()


async def test_a_wrong_pending_limit_is_refused() -> None:
    """Negative or no number; the limit is what it was."""
    server = TcpServer()
    with pytest.raises(ValueError):
        server.set_max_pending_connections(-1)
    with pytest.raises(TypeError):
        server.set_max_pending_connections("3")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        server.set_max_pending_connections(1.5)  # type: ignore[arg-type]

    assert server.max_pending_connections() == 30


@pytest.mark.parametrize("serving", [False, True])
async def test_a_paused_server_leaves_connections_to_the_kernel(
    network: Network, nursery: trio.Nursery, serving: bool
) -> None:
    """Paused before it listens or while it does: it is reached, and nobody is accepted until it resumes."""
    async with TcpServer() as server:
        server.pause_accepting()
        server.pause_accepting()
        await server.listen(network.host)
        if serving:
            await nursery.start(server.serve, echo)
        clients = []
        counts = []
        for _ in range(2):
            clients.append(await network.raw_connect(server.server_port()))
            await until(lambda: accept_queue(server) == 1)
            await trio.testing.wait_all_tasks_blocked()
            counts.append((server.is_listening(), server.connection_count(), accept_queue(server)))
            server.resume_accepting()
            server.resume_accepting()
            await until(lambda: accept_queue(server) == 0)
            if serving:
                assert await ask(clients[-1])
            counts.append((server.is_listening(), server.connection_count(), accept_queue(server)))
            server.pause_accepting()

        assert counts == [(True, 0, 1), (True, 1, 0), (True, 1, 1), (True, 2, 0)]
    for client in clients:
        client.close()


async def test_a_pause_ends_when_the_server_stops_listening(network: Network) -> None:
    """As in Qt: listening anew, it accepts."""
    async with TcpServer() as server:
        await server.listen(network.host)
        server.pause_accepting()
        server.close()
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            accepted = await server.accept()

        assert accepted.peer_name() == ""
        assert server.connection_count() == 1


async def test_a_pause_from_before_the_server_listens_holds(network: Network) -> None:
    """S-035: Qt crashes."""
    async with TcpServer() as server:
        server.pause_accepting()
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await until(lambda: accept_queue(server) == 1)
            await trio.testing.wait_all_tasks_blocked()
            paused = server.connection_count()
            server.resume_accepting()
            await server.accept()

        assert paused == 0
