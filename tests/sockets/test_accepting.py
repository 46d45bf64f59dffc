"""How a server accepts: Qt's pending connections, `accept`, `async for`, and connections from elsewhere."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network
from tests.sockets.arrivals import accept_queue, until
from trioqt import ErrorKind, NewConnection, SocketError, SocketState, TcpServer, TcpSocket

OVER_TLS = True

# ---- Qt's way: pending connections ---------------------------------------------------------------


async def test_pending_connections_are_taken_oldest_first(network: Network) -> None:
    """``wait_for_new_connection`` and ``next_pending_connection``, as a Qt program has them."""
    async with TcpServer() as server:
        await server.listen(network.host)
        nothing = (server.has_pending_connections(), server.next_pending_connection())
        clients = []
        for number in range(3):
            clients.append(await network.raw_connect(server.server_port()))
            await until(lambda count=number + 1: server.connection_count() == count)  # type: ignore[misc]
            await trio.testing.wait_all_tasks_blocked()  # over TLS, for the handshake
        await server.wait_for_new_connection()  # at once: one is pending
        taken = []
        while server.has_pending_connections():
            sock = server.next_pending_connection()
            assert sock is not None
            taken.append(sock)

        assert nothing == (False, None)
        assert [sock.peer_port() for sock in taken] == [client.sock.getsockname()[1] for client in clients]
        assert [sock.state() for sock in taken] == [SocketState.CONNECTED] * 3
        assert (server.has_pending_connections(), server.next_pending_connection()) == (False, None)
        assert server.connection_count() == 3
        for sock, client in zip(taken, clients, strict=True):
            await sock.send_all(b"hello")  # it works at once, without being entered
            assert await client.receive(5) == b"hello"
            client.close()


async def test_a_task_waits_until_a_connection_is_pending(network: Network, nursery: trio.Nursery) -> None:
    """Waiting takes nothing, so any number of tasks may."""
    woken: list[bool] = []

    async def wait() -> None:
        await server.wait_for_new_connection()
        woken.append(server.has_pending_connections())

    async with TcpServer() as server:
        await server.listen(network.host)
        for _ in range(3):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        before = list(woken)
        with await network.raw_connect(server.server_port()):
            await until(lambda: len(woken) == 3)

        assert (before, woken) == ([], [True] * 3)
        assert server.next_pending_connection() is not None


async def test_accept_waits_for_a_connection_and_takes_it(network: Network) -> None:
    """trio's way: the same queue, in one call."""
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            sock = await server.accept()
            await client.send(b"hello")

            assert await sock.receive_exactly(5) == b"hello"
            assert not server.has_pending_connections()


async def test_entering_a_taken_connection_sets_when_it_ends(network: Network) -> None:
    """Its block ends it, before the server's does, and its slot is free."""
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            async with await server.accept() as sock:
                sock.write(b"goodbye")
                inside = server.connection_count()

            assert (inside, server.connection_count()) == (1, 0)
            assert await client.receive_to_end() == b"goodbye"


async def test_a_cancelled_accept_loses_no_connection(network: Network) -> None:
    """Law 6, at every step of a connection's way in: either accept returned it, or it is there for the next one."""
    taken_anyway = []
    async with TcpServer() as server:
        await server.listen(network.host)
        for steps in range(-1, 10):
            got: list[TcpSocket] = []

            async def accept(got: list[TcpSocket] = got) -> None:
                got.append(await server.accept())

            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(accept)
                    server.pause_accepting()
                    client = await network.raw_connect(server.server_port())
                    await until(lambda: accept_queue(server) == 1)
                    await trio.testing.wait_all_tasks_blocked()
                    if steps < 0:
                        scope.cancel()
                    server.resume_accepting()
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            taken_anyway.append(bool(got))
            sock = got[0] if got else await server.accept()

            assert sock.peer_port() == client.sock.getsockname()[1]
            assert not server.has_pending_connections()
            client.close()
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.accept()

    assert scope.cancelled_caught
    assert set(taken_anyway) == {True, False}  # both did happen


async def test_async_for_accepts_until_the_server_stops_listening(network: Network, nursery: trio.Nursery) -> None:
    """``async for sock in server``, ended by ``close()`` from another task while it waits."""
    accepted: list[int] = []
    over = trio.Event()

    async def accept_all() -> None:
        async for sock in server:
            accepted.append(sock.peer_port())
        over.set()

    async with TcpServer() as server:
        await server.listen(network.host)
        nursery.start_soon(accept_all)
        clients = [await network.raw_connect(server.server_port()) for _ in range(3)]
        await until(lambda: len(accepted) == 3)
        server.close()
        await over.wait()

        assert accepted == [client.sock.getsockname()[1] for client in clients]
        assert [sock async for sock in server] == []  # and from now on at once
        assert server.connection_count() == 3
    for client in clients:
        client.close()


async def test_a_cancelled_step_does_not_end_the_iteration(network: Network) -> None:
    """An iterator object, not a generator."""
    async with TcpServer() as server:
        await server.listen(network.host)
        connections = aiter(server)
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(connections)
        with await network.raw_connect(server.server_port()) as client:
            sock = await anext(connections)

            assert sock.peer_port() == client.sock.getsockname()[1]
        assert scope.cancelled_caught


async def test_whoever_waits_for_a_connection_is_woken_when_the_server_stops(
    network: Network, nursery: trio.Nursery
) -> None:
    """``accept`` and ``wait_for_new_connection`` alike, by ``close``, by ``aclose`` and by the end of the block."""
    outcomes: list[Counter[str]] = []
    async with TcpServer() as server:
        for end in (server.close, server.aclose):
            await server.listen(network.host)
            outcomes.append(await both_wait(server, nursery))
            result = end()
            if isinstance(result, Awaitable):
                await result
            await trio.testing.wait_all_tasks_blocked()
    async with TcpServer() as server:
        await server.listen(network.host)
        outcomes.append(await both_wait(server, nursery))
    await trio.testing.wait_all_tasks_blocked()

    assert outcomes == [{"closed": 2}] * 3


# Loopback: a descriptor is handed over, the only way to listen in one step.
async def test_whoever_waits_is_woken_though_the_server_listens_again_before_they_run(
    network: Loopback, nursery: trio.Nursery
) -> None:
    """They waited for the connections of the old listening, and the new one's is for whoever asks next."""
    with socket.socket() as handed:
        handed.bind((network.host, 0))
        handed.listen()
        with socket.create_connection(handed.getsockname()):
            async with TcpServer() as server:
                await server.listen(network.host)
                outcomes = await both_wait(server, nursery)
                server.close()
                server.set_socket_descriptor(handed.detach())
                await trio.testing.wait_all_tasks_blocked()

                assert outcomes == {"closed": 2}
                assert server.next_pending_connection() is not None


async def both_wait(server: TcpServer[TcpSocket], nursery: trio.Nursery) -> Counter[str]:
    """A task waits for a connection in each of the two ways; how the waiting ended, once it has."""
    outcomes: Counter[str] = Counter()

    async def wait(call: Callable[[], Any]) -> None:
        try:
            await call()
        except trio.ClosedResourceError:
            outcomes["closed"] += 1
        else:
            outcomes["accepted"] += 1

    nursery.start_soon(wait, server.accept)
    nursery.start_soon(wait, server.wait_for_new_connection)
    await trio.testing.wait_all_tasks_blocked()
    return outcomes


async def test_waiting_for_connections_needs_a_server_that_listens(network: Network) -> None:
    """OPERATION if it never did, closed if it has stopped, in every form of waiting."""
    async with TcpServer() as server:
        for call in (server.accept, server.wait_for_new_connection, aiter(server).__anext__):
            with pytest.raises(SocketError) as caught:
                await call()
            assert caught.value.kind is ErrorKind.OPERATION
        await server.listen(network.host)
        server.close()
        for call in (server.accept, server.wait_for_new_connection):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        with pytest.raises(StopAsyncIteration):
            await anext(aiter(server))


async def test_two_tasks_cannot_accept_at_once(network: Network, nursery: trio.Nursery) -> None:
    """The second one is told so; the first one goes on waiting."""
    got = []

    async def accept() -> None:
        got.append(await server.accept())

    async with TcpServer() as server:
        await server.listen(network.host)
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await server.accept()
        with await network.raw_connect(server.server_port()):
            await until(lambda: len(got) == 1)


@pytest.mark.parametrize("ending", ["finish", "close", "reset"])
async def test_what_a_peer_sent_before_it_left_is_there_when_it_is_taken(network: Network, ending: str) -> None:
    """Bytes first, then the end, then the error, also for a connection that nobody had taken yet."""
    async with TcpServer() as server:
        await server.listen(network.host)
        client = await network.raw_connect(server.server_port())
        await client.send(b"last words")
        await server.wait_for_new_connection()
        getattr(client, ending)()
        sock = server.next_pending_connection()
        assert sock is not None
        got = await sock.receive_exactly(10)
        if ending == "reset":
            with pytest.raises(SocketError) as caught:
                await sock.receive_some()
            assert caught.value.kind is ErrorKind.REMOTE_HOST_CLOSED
        else:
            assert await sock.receive_some() == b""
        client.close()

    assert got == b"last words"


async def test_one_nudge_stands_for_all_connections_that_wait(network: Network) -> None:
    """NewConnection says "look": who looks takes all, so a slow listener needs no second one."""
    server = TcpServer()
    async with server.events() as events:
        async with server:
            await server.listen(network.host)
            clients = [await network.raw_connect(server.server_port()) for _ in range(3)]
            await until(lambda: server.connection_count() == 3)
            first = await anext(events)
            clients += [await network.raw_connect(server.server_port()) for _ in range(2)]
            await until(lambda: server.connection_count() == 5)
        rest = [event async for event in events]
    for client in clients:
        client.close()

    assert (first, rest) == (NewConnection(), [NewConnection()])


# ---- Connections from elsewhere ------------------------------------------------------------------


async def test_an_added_connection_waits_like_any_other(network: Network, nursery: trio.Nursery) -> None:
    """Qt's addPendingConnection: no limit is asked, a waiting accept gets it, and close aborts it."""
    pairs = [trio.testing.memory_stream_pair() for _ in range(4)]
    socks = [TcpSocket.from_stream(ours, nursery) for ours, _ in pairs]
    got = []

    async def accept() -> None:
        got.append(await server.accept())

    async with TcpServer(max_connections=1) as server, server.events() as events:
        server.set_max_pending_connections(1)
        server.add_pending_connection(socks[0])  # before it listens
        before = (server.has_pending_connections(), server.next_pending_connection())
        await server.listen(network.host)
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        for sock in socks[1:]:
            server.add_pending_connection(sock)
        await trio.testing.wait_all_tasks_blocked()

        assert before == (True, socks[0])
        assert got == [socks[1]]
        assert await anext(events) == NewConnection()
        assert server.connection_count() == 0  # those that were accepted are counted, and no other
        with pytest.raises(TypeError):
            server.add_pending_connection("a socket")  # type: ignore[arg-type]
        server.close()
        assert [sock.state() for sock in socks] == [SocketState.CONNECTED] * 2 + [SocketState.UNCONNECTED] * 2
    assert await pairs[3][1].receive_some() == b""


async def test_nothing_can_be_added_to_a_closed_server() -> None:
    """Nobody would ever take it, and nothing would ever end it."""
    ours, _ = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as sock:
        async with TcpServer() as server:
            await server.aclose()
            with pytest.raises(trio.ClosedResourceError):
                server.add_pending_connection(sock)

        assert sock.state() is SocketState.CONNECTED
        assert not server.has_pending_connections()


async def test_a_closed_socket_cannot_be_added(network: Network) -> None:
    """Who took it would have nothing, and could not know why."""
    async with TcpSocket() as sock:
        pass
    async with TcpServer() as server:
        await server.listen(network.host)
        with pytest.raises(trio.ClosedResourceError, match="cannot add the connection: the socket is closed"):
            server.add_pending_connection(sock)

        assert not server.has_pending_connections()


# ---- With trio's own server loop -----------------------------------------------------------------


async def test_trio_serve_listeners_works_on_a_server(network: Network, nursery: trio.Nursery) -> None:
    """It is a ``trio.abc.Listener``.  That loop closes forcefully, so its handler waits for its bytes to be written."""
    data = bytes(10_000_000)

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_exactly(1)
        sock.write(data)
        await sock.wait_for_bytes_written()

    async with TcpServer() as server:
        await server.listen(network.host)
        await nursery.start(trio.serve_listeners, handler, [server])
        got = []
        for _ in range(2):
            with await network.raw_connect(server.server_port()) as client:
                await client.send(b"x")
                got.append(len(await client.receive_to_end()))
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()

        assert got == [len(data)] * 2
        assert server.connection_count() == 0
        assert not server.is_listening()  # it enters the listener, so its end is the listener's aclose
