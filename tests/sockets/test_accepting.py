"""How a server accepts: its limits, Qt's pending connections, and what it does when accepting fails."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.networks import Loopback, Network, RawPeer, this_network
from tests.sockets.arrivals import accept_queue, open_descriptors
from trioqt import (
    AcceptError,
    ErrorKind,
    NewConnection,
    SocketError,
    SocketState,
    TcpServer,
    TcpSocket,
)
from trioqt.links.native import NativeListener
from trioqt.sockets.tcp_server import ENDED_BEFORE_ACCEPT
from trioqt.testing import VirtualNetwork

ROOT = Path(__file__).parents[2]


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until it is so: what is waited for here is the kernel's, and sure to come."""
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, "it never came"
        await trio.lowlevel.checkpoint()


async def echo(sock: TcpSocket) -> None:
    """Everything back."""
    async for chunk in sock:
        await sock.send_all(chunk)


async def ask(client: RawPeer) -> bool:
    """Does an echo server answer?"""
    await client.send(b"?")
    return await client.receive(1) == b"?"


class FailingAccept:
    """Between a server and the kernel: fails as it is told, then does what the kernel does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures: list[int] = []  # still to come; 0: none this time
        self.for_ever = 0
        self.fired: list[float] = []  # when it failed
        self.tries = 0
        really_accept = NativeListener.try_accept

        def try_accept(listener: NativeListener) -> Any:
            self.tries += 1
            number = self.for_ever or (self.failures.pop(0) if self.failures else 0)
            if number:
                self.fired.append(trio.current_time())
                raise OSError(number, os.strerror(number))
            return really_accept(listener)

        monkeypatch.setattr(NativeListener, "try_accept", try_accept)


@pytest.fixture
def failing_accept(monkeypatch: pytest.MonkeyPatch) -> FailingAccept:
    """A system whose accept fails."""
    return FailingAccept(monkeypatch)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for two thousand sockets, where the system's usual bound is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"this system allows {hard} descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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


# ---- Limits --------------------------------------------------------------------------------------


async def test_no_more_than_max_connections_are_ever_open(network: Network) -> None:
    """Fifty clients at once and room for three: never a fourth, and every client is served in the end."""
    now = most = served = 0
    counts = set()

    async def handler(sock: TcpSocket) -> None:
        nonlocal now, most, served
        now += 1
        most = max(most, now)
        counts.add(server.connection_count())
        await echo(sock)
        counts.add(server.connection_count())
        now -= 1
        served += 1

    async def client() -> None:
        with await network.raw_connect(server.server_port()) as peer:
            answered.append(await ask(peer))

    answered: list[bool] = []
    async with trio.open_nursery() as nursery, TcpServer(max_connections=3) as server:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        async with trio.open_nursery() as clients:
            for _ in range(50):
                clients.start_soon(client)
        await until(lambda: served == 50)
        await until(lambda: server.connection_count() == 0)

    assert (most, max(counts)) == (3, 3)
    assert answered == [True] * 50


async def by_abort(sock: TcpSocket, client: RawPeer) -> None:
    """Twice: one slot is free, not two."""
    sock.abort()
    sock.abort()


async def by_disconnecting(sock: TcpSocket, client: RawPeer) -> None:
    """In order."""
    await sock.disconnect_from_host()
    await sock.disconnect_from_host()


async def by_aclose(sock: TcpSocket, client: RawPeer) -> None:
    """For good."""
    await sock.aclose()
    await sock.aclose()


async def by_a_cancelled_aclose(sock: TcpSocket, client: RawPeer) -> None:
    """Ended all the same."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await sock.aclose()
    assert scope.cancelled_caught


async def by_a_block(sock: TcpSocket, client: RawPeer) -> None:
    """Entered and left."""
    async with sock:
        pass
    sock.abort()


async def by_an_exception(sock: TcpSocket, client: RawPeer) -> None:
    """Out of its block."""
    with pytest.raises(ValueError):
        async with sock:
            raise ValueError


async def by_cancellation(sock: TcpSocket, client: RawPeer) -> None:
    """Of its block."""
    with trio.CancelScope() as scope:
        async with sock:
            scope.cancel()
            await trio.sleep_forever()


async def by_a_reset_found_while_reading(sock: TcpSocket, client: RawPeer) -> None:
    """The peer is gone, and a call found it out."""
    client.reset()
    with pytest.raises(SocketError):
        await sock.receive_some()
    sock.abort()


async def by_a_reset_found_while_writing(sock: TcpSocket, client: RawPeer) -> None:
    """Likewise."""
    client.reset()
    with pytest.raises(SocketError):
        await sock.send_all(b"x")
        await sock.send_all(b"x")
    sock.abort()


async def by_a_reset_seen_by_a_watcher(sock: TcpSocket, client: RawPeer) -> None:
    """No call was made: somebody listened."""
    async with sock.events():
        client.reset()
        await sock.wait_for_disconnected()


async def by_another_descriptor(sock: TcpSocket, client: RawPeer) -> None:
    """The accepted connection is replaced by one that the server did not accept."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sock.set_socket_descriptor(socket.create_connection(listener.getsockname()).detach())
        sock.abort()


async def by_going_elsewhere(sock: TcpSocket, client: RawPeer) -> None:
    """Disconnected, and connected to somebody else."""
    network = this_network()
    with await network.raw_listener() as listener:
        await sock.disconnect_from_host()
        await sock.connect_to_host(network.host, listener.port)
        sock.abort()


WAYS_OUT = [
    by_abort,
    by_disconnecting,
    by_aclose,
    by_a_cancelled_aclose,
    by_a_block,
    by_an_exception,
    by_cancellation,
    by_a_reset_found_while_reading,
    by_a_reset_found_while_writing,
    by_a_reset_seen_by_a_watcher,
    by_going_elsewhere,
]


@pytest.mark.parametrize("way_out", WAYS_OUT)
async def test_every_end_of_a_connection_frees_its_slot_once(
    network: Network, way_out: Callable[[TcpSocket, RawPeer], Any]
) -> None:
    """One slot and three clients: the end of the first lets the second in, and not the third."""
    await let_in_one_by_one(network, way_out)


# Loopback: a descriptor is handed over.
async def test_adopting_a_descriptor_frees_the_slot_once_when_that_ends(network: Loopback) -> None:
    """The same by way of a connection that the server did not accept."""
    await let_in_one_by_one(network, by_another_descriptor)


async def let_in_one_by_one(network: Network, way_out: Callable[[TcpSocket, RawPeer], Any]) -> None:
    async with TcpServer(max_connections=1) as server:
        await server.listen(network.host)
        clients = [await network.raw_connect(server.server_port()) for _ in range(3)]
        sock = await server.accept()
        await until(lambda: accept_queue(server) == 2)
        full = (server.connection_count(), server.has_pending_connections())
        await way_out(sock, clients[0])
        second = await server.accept()
        await trio.testing.wait_all_tasks_blocked()

        assert full == (1, False)
        assert second.peer_port() == clients[1].sock.getsockname()[1]
        assert (server.connection_count(), server.has_pending_connections(), accept_queue(server)) == (1, False, 1)
        await way_out(second, clients[1])
        third = await server.accept()
        assert third.peer_port() == clients[2].sock.getsockname()[1]
        assert server.connection_count() == 1
    for client in clients:
        client.close()


@pytest.mark.parametrize("way_out", WAYS_OUT)
async def test_every_end_of_a_handler_frees_its_slot_once(
    network: Network, nursery: trio.Nursery, way_out: Callable[[TcpSocket, RawPeer], Any]
) -> None:
    """The same under ``serve(isolate=True)``, whatever the handler did to its socket, and after a bug too."""
    await serve_one_by_one(network, nursery, way_out)


# Loopback: a descriptor is handed over.
async def test_a_handler_that_adopts_a_descriptor_frees_its_slot_once(network: Loopback, nursery: trio.Nursery) -> None:
    """It is the handler's end that counts."""
    await serve_one_by_one(network, nursery, by_another_descriptor)


async def serve_one_by_one(
    network: Network, nursery: trio.Nursery, way_out: Callable[[TcpSocket, RawPeer], Any]
) -> None:
    clients: list[RawPeer] = []
    by_port: dict[int, RawPeer] = {}
    most = 0

    async def handler(sock: TcpSocket) -> None:
        nonlocal most
        most = max(most, server.connection_count())
        port = sock.peer_port()
        await sock.send_all(b"?")
        if await sock.receive_exactly(1) == b"b":
            raise LookupError("a bug")
        await way_out(sock, by_port[port])

    async with TcpServer(max_connections=1) as server:
        server.pause_accepting()
        await server.listen(network.host)
        await nursery.start(functools.partial(server.serve, handler, isolate=True))
        clients += [await network.raw_connect(server.server_port()) for _ in range(4)]
        by_port.update((client.sock.getsockname()[1], client) for client in clients)
        await until(lambda: accept_queue(server) == 4)
        server.resume_accepting()
        for waiting, client in zip((3, 2, 1, 0), clients, strict=True):
            asked = await client.receive(1)
            await trio.testing.wait_all_tasks_blocked()
            assert (asked, server.connection_count(), accept_queue(server)) == (b"?", 1, waiting)
            await client.send(b"b" if waiting == 1 else b"x")
        await until(lambda: server.connection_count() == 0)
        for client in clients:
            client.close()

    assert most == 1


async def test_a_peer_that_finishes_frees_the_slot_of_a_socket_that_is_not_half_open(network: Network) -> None:
    """``half_open=False``: such a socket ends by itself, so its slot is free without any call."""
    async with TcpServer(lambda: TcpSocket(half_open=False), max_connections=1) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as first:
            await server.accept()
            with await network.raw_connect(server.server_port()) as second:
                first.finish()
                sock = await server.accept()

                assert sock.peer_port() == second.sock.getsockname()[1]
                assert server.connection_count() == 1


async def test_a_connection_that_was_taken_and_forgotten_keeps_its_slot(network: Network) -> None:
    """It is open until somebody ends it, even if its peer left: the block does at last."""
    async with TcpServer(max_connections=1) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await server.wait_for_new_connection()
            server.next_pending_connection()
        with await network.raw_connect(server.server_port()) as second:
            await until(lambda: accept_queue(server) == 1)
            await trio.testing.wait_all_tasks_blocked()
            counts = (server.connection_count(), server.has_pending_connections(), accept_queue(server))
            await server.aclose()
            with pytest.raises(ConnectionResetError):  # the kernel's queue goes with the listening socket
                await second.receive_to_end()

    assert counts == (1, False, 1)
    assert server.connection_count() == 0


async def test_pending_connections_count_and_free_their_slots_when_close_aborts_them(network: Network) -> None:
    """They are open, so they count; after ``close`` all slots are free for the next listening."""
    async with TcpServer(max_connections=2) as server:
        for _ in range(2):
            await server.listen(network.host)
            clients = [await network.raw_connect(server.server_port()) for _ in range(3)]
            await until(lambda: server.connection_count() == 2)
            await until(lambda: accept_queue(server) == 1)
            await trio.testing.wait_all_tasks_blocked()
            full = server.connection_count()
            server.close()
            for client in clients:
                client.close()

            assert (full, server.connection_count()) == (2, 0)


async def test_one_limit_for_all_addresses(network: Network) -> None:
    """Two listening sockets, one count: ``max_connections`` is the server's."""

    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.1", "127.0.0.2")
            ]

        async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Resolver())
    async with TcpServer(max_connections=3) as server:
        server.pause_accepting()
        await server.listen("both")
        clients = []
        for _ in range(4):
            for address in ("127.0.0.1", "127.0.0.2"):
                sock = trio.socket.socket()
                await sock.connect((address, server.server_port()))
                clients.append(RawPeer(sock))
        server.resume_accepting()
        await until(lambda: server.connection_count() == 3)
        await trio.testing.wait_all_tasks_blocked()
        counts = [server.connection_count()]
        for _ in range(8):
            sock_ = await server.accept()
            counts.append(server.connection_count())
            sock_.abort()
        await trio.testing.wait_all_tasks_blocked()

        assert max(counts) == 3
        assert server.connection_count() == 0
    for client in clients:
        client.close()


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
    """``serve`` takes what is pending, too."""
    async with TcpServer() as server:
        server.set_max_pending_connections(1)
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await server.wait_for_new_connection()
            async with trio.open_nursery() as serving:
                await serving.start(server.serve, echo)
                serving.cancel_scope.cancel()
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


# ---- The same as a model -------------------------------------------------------------------------

STEPS = st.one_of(
    st.just(("connect", 0)),
    st.tuples(st.sampled_from(["abort", "disconnect", "cancelled close", "reset", "pending reset"]), st.integers(0, 9)),
    st.just(("take", 0)),
    st.just(("pause", 0)),
    st.just(("resume", 0)),
    st.tuples(st.just("pending limit"), st.integers(0, 4)),
)


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(1, 4), steps=st.lists(STEPS, min_size=4, max_size=25))
def test_slots_are_what_a_list_of_clients_says(limit: int, steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order: as many are accepted as there is room for, oldest first, and no more."""
    trio.run(run_model, limit, steps)


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(1, 4), steps=st.lists(STEPS, min_size=4, max_size=25))
def test_slots_are_what_a_list_of_clients_says_on_a_simulated_network(limit: int, steps: list[tuple[str, int]]) -> None:
    """The same there."""

    async def run() -> None:
        async with VirtualNetwork():
            await run_model(limit, steps)

    trio.run(run)


class Client:
    """A scripted client of the model."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        self.port: int = peer.sock.getsockname()[1]
        self._is_reset = False

    def reset(self) -> None:
        """End it with a reset, once."""
        if not self._is_reset:
            self._is_reset = True
            self.peer.reset()


async def run_model(limit: int, steps: list[tuple[str, int]]) -> None:
    """Three queues: clients in the kernel's, clients pending, and clients taken, each with its socket."""
    network = this_network()
    clients: list[Client] = []
    kernel: list[Client] = []
    pending: list[Client] = []
    taken: list[tuple[Client, TcpSocket]] = []
    paused, full, max_pending = False, False, 30
    async with TcpServer(max_connections=limit) as server:
        await server.listen(network.host)
        for step, number in steps:
            match step:
                case "connect":
                    clients.append(Client(await network.raw_connect(server.server_port())))
                    kernel.append(clients[-1])
                case "pause":
                    server.pause_accepting()
                    paused = True
                case "resume":
                    server.resume_accepting()
                    paused = full = False
                case "pending limit":
                    server.set_max_pending_connections(number)
                    max_pending = number
                    full = full or 0 < len(pending) >= max_pending
                case "take":
                    sock = server.next_pending_connection()
                    assert (sock is not None) == bool(pending)
                    if sock is not None:
                        taken.append((pending.pop(0), sock))
                        full = False
                        assert sock.peer_port() == taken[-1][0].port
                case "pending reset":
                    if pending:
                        pending[number % len(pending)].reset()  # nobody looks, so it stays
                case way if taken:
                    client, sock = taken.pop(number % len(taken))
                    if way == "abort":
                        sock.abort()
                    elif way == "disconnect":
                        await sock.disconnect_from_host()
                    elif way == "reset":
                        client.reset()
                        with pytest.raises(SocketError):
                            await sock.receive_some()
                    else:
                        with trio.CancelScope() as scope:
                            scope.cancel()
                            await sock.aclose()
            while kernel and not (paused or full) and len(pending) + len(taken) < limit and len(pending) < max_pending:
                pending.append(kernel.pop(0))
                full = len(pending) == max_pending
            expected = (len(pending) + len(taken), len(kernel))
            await until(lambda expected=expected: (server.connection_count(), accept_queue(server)) == expected)  # type: ignore[misc]
            await trio.testing.wait_all_tasks_blocked()

            assert (server.connection_count(), accept_queue(server)) == expected
            assert server.has_pending_connections() == bool(pending)
    for client in clients:
        client.peer.close()


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


# ---- When accepting fails ------------------------------------------------------------------------

# accept(2) on Linux, "Error handling", and what POSIX, the BSDs and Windows say of a connection that has ended.
ENDED = [
    "ENETDOWN",
    "EPROTO",
    "ENOPROTOOPT",
    "EHOSTDOWN",
    "ENONET",
    "EHOSTUNREACH",
    "EOPNOTSUPP",
    "ENETUNREACH",
    "ECONNABORTED",
    "ECONNRESET",
    "ETIMEDOUT",
    "EPERM",
    "ENOTCONN",
]


def test_what_the_system_says_of_connections_that_ended_is_known() -> None:
    """The list above, and nothing that is ours to handle."""
    names = {getattr(errno, name) for name in ENDED if hasattr(errno, name)}
    assert names == ENDED_BEFORE_ACCEPT
    assert not ENDED_BEFORE_ACCEPT & {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@pytest.mark.parametrize("name", ENDED)
async def test_a_connection_that_ended_before_it_was_accepted_is_nobodys_business(
    network: Network,
    mock_clock: trio.testing.MockClock,
    failing_accept: FailingAccept,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """The next one is accepted without a pause (the clock stands), without an event, and without a record."""
    failing_accept.failures = [getattr(errno, name)] * 3
    async with TcpServer() as server, server.events() as events:
        server.pause_accepting()
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await until(lambda: accept_queue(server) == 1)
            server.resume_accepting()
            await server.accept()

        assert len(failing_accept.fired) == 3
        assert await anext(events) == NewConnection()
        assert (server.server_error(), server.error_string()) == (None, "")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EMFILE, ErrorKind.SOCKET_RESOURCE),
        (errno.ENFILE, ErrorKind.SOCKET_RESOURCE),
        (errno.ENOBUFS, ErrorKind.SOCKET_RESOURCE),
        (errno.ENOMEM, ErrorKind.SOCKET_RESOURCE),
        (10024, ErrorKind.UNKNOWN),  # WSAEMFILE, WSAENOBUFS: numbers that only a Windows Python knows by name
        (10055, ErrorKind.UNKNOWN),
        (errno.EIO, ErrorKind.UNKNOWN),
        (errno.EINVAL, ErrorKind.UNSUPPORTED_SOCKET_OPERATION),
    ],
    ids=["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "WSAEMFILE", "WSAENOBUFS", "EIO", "EINVAL"],
)
async def test_any_other_failure_is_told_and_tried_again_after_a_tenth_of_a_second(
    network: Network,
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
    failing_accept: FailingAccept,
    caplog: pytest.LogCaptureFixture,
    number: int,
    kind: ErrorKind,
) -> None:
    """P2: no busy loop, no silence; one record, one event, and the waiting client is served when it can be."""
    failing_accept.failures = [number]
    async with TcpServer() as server, server.events(AcceptError) as events:
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        with await network.raw_connect(server.server_port()) as client:
            event = await anext(events)
            await trio.testing.wait_all_tasks_blocked()
            waiting = (failing_accept.tries, server.connection_count())
            mock_clock.jump(0.09)
            await trio.testing.wait_all_tasks_blocked()
            still_waiting = (failing_accept.tries, server.connection_count())
            mock_clock.jump(0.02)
            answered = await ask(client)

    first, *later = [record for record in caplog.records if record.name == "trioqt.server"]
    assert failing_accept.fired == [0.0]
    assert event == AcceptError(kind, f"cannot accept: {os.strerror(number)}")
    assert waiting == still_waiting
    assert waiting[1] == 0
    assert answered
    assert (server.server_error(), server.error_string()) == (kind, f"cannot accept: {os.strerror(number)}")
    assert (first.levelno, later) == (logging.WARNING, [])


async def test_a_failure_that_lasts_is_logged_once_a_second_and_told_in_one_nudge(
    network: Network,
    mock_clock: trio.testing.MockClock,
    failing_accept: FailingAccept,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """asyncio wrote 127,128 lines here.  Three seconds at the limit: ten tries a second, one record in each."""
    failing_accept.for_ever = errno.EMFILE
    server = TcpServer()
    async with server.events(AcceptError) as events:
        async with server:
            await server.listen(network.host)
            with await network.raw_connect(server.server_port()):
                await until(lambda: bool(failing_accept.fired))
                for _ in range(24):
                    await trio.testing.wait_all_tasks_blocked()
                    mock_clock.jump(0.125)
                await trio.testing.wait_all_tasks_blocked()
                failing_accept.for_ever = 0
                mock_clock.jump(0.125)
                await server.accept()
        told = [event async for event in events]

    assert failing_accept.fired == [number * 0.125 for number in range(25)]
    assert told == [AcceptError(ErrorKind.SOCKET_RESOURCE, f"cannot accept: {os.strerror(errno.EMFILE)}")]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4  # at 0, 1, 2 and 3 seconds
    assert "0.1 s" in caplog.records[0].getMessage()


async def test_a_server_that_waits_to_try_again_can_be_closed_and_left(
    network: Network, mock_clock: trio.testing.MockClock, failing_accept: FailingAccept
) -> None:
    """The pause holds nobody up: the clock stands, and ``close``, listening anew and the exit go through."""
    failing_accept.for_ever = errno.EMFILE
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            await until(lambda: bool(failing_accept.fired))
            server.close()
            with pytest.raises(ConnectionResetError):
                await client.receive_to_end()
        failing_accept.for_ever = 0
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await server.accept()
        failing_accept.for_ever = errno.EMFILE
        with await network.raw_connect(server.server_port()) as client:
            await until(lambda: len(failing_accept.fired) == 2)
            started = trio.current_time()

    assert trio.current_time() == started


async def test_a_reset_before_it_was_accepted_harms_nobody(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Real resets, in the kernel's queue: those who came behind them are served, and what was said can be read."""
    heard = []

    async def handler(sock: TcpSocket) -> None:
        chunk = await sock.receive_some()
        heard.append(chunk)
        await sock.send_all(chunk)
        await echo(sock)

    async with TcpServer() as server:
        server.pause_accepting()
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        for number in range(5):
            client = await network.raw_connect(server.server_port())
            await client.send(b"bad %d" % number)
            await until(lambda count=number + 1: accept_queue(server) == count)  # type: ignore[misc]
            client.reset()
        with await network.raw_connect(server.server_port()) as good:
            server.resume_accepting()

            assert await ask(good)
            await until(lambda: server.connection_count() == 1)
        assert sorted(heard) == [b"?", b"bad 0", b"bad 1", b"bad 2", b"bad 3", b"bad 4"]
        assert server.server_error() is None
    assert caplog.records == []


async def test_good_clients_are_served_through_a_storm_of_resets(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Three hundred that reset at once or in mid-word, ten that stay: ten answers a head, not one line in the log."""
    ended = 0

    async def handler(sock: TcpSocket) -> None:
        nonlocal ended
        try:
            await echo(sock)
        finally:
            ended += 1

    async def bad(number: int) -> None:
        client = await network.raw_connect(server.server_port())
        if number % 3:
            await client.send(b"x" * number)
        if number % 3 == 2:
            await client.receive(1)
        client.reset()

    async def good() -> None:
        with await network.raw_connect(server.server_port()) as client:
            for _ in range(10):
                answers.append(await ask(client))

    answers: list[bool] = []
    before = open_descriptors()
    async with TcpServer() as server:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        async with trio.open_nursery() as clients:
            for number in range(300):
                clients.start_soon(bad, number)
                if number % 30 == 0:
                    clients.start_soon(good)
        await until(lambda: ended == 310)
        await until(lambda: server.connection_count() == 0)
    after = open_descriptors()

    assert answers == [True] * 100
    assert after == before
    assert caplog.records == []


async def test_a_thousand_at_once_are_accepted_in_batches(network: Network, many_descriptors: None) -> None:
    """64 in a step, then every other task gets its turn; so nobody is starved, neither clients nor handlers."""
    count = min(1000, network.longest_queue())
    steps: list[int] = []

    class Steps(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            steps.append(server.connection_count())

    turns = 0

    async def another_task() -> None:
        nonlocal turns
        while server.connection_count() < count:
            turns += 1
            await trio.lowlevel.checkpoint()

    clients: list[RawPeer] = []

    async def come() -> None:
        clients.append(await network.raw_connect(server.server_port()))

    async with trio.open_nursery() as nursery, TcpServer() as server:
        server.pause_accepting()
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        async with trio.open_nursery() as coming:
            for _ in range(count):
                coming.start_soon(come)
        await until(lambda: accept_queue(server) == count)
        instrument = Steps()
        trio.lowlevel.add_instrument(instrument)
        server.resume_accepting()
        await another_task()
        trio.lowlevel.remove_instrument(instrument)
        accepted = server.connection_count()
        for client in clients:
            client.close()
        nursery.cancel_scope.cancel()

    at_once = [later - earlier for earlier, later in zip([0, *steps], steps, strict=False)]
    assert accepted == count
    assert [size for size in at_once if size] == [64] * (count // 64) + ([count % 64] if count % 64 else [])
    assert turns >= count // 64


AT_THE_LIMIT = """
import functools, json, logging, os, resource, sys
import trio, trio.testing
from trioqt import AcceptError, ConnectionFinished, TcpServer
from trioqt.links.native import NativeListener

failed, logged = [], []
really_accept = NativeListener.try_accept

def try_accept(listener):
    try:
        return really_accept(listener)
    except BlockingIOError:
        raise
    except OSError as exc:
        failed.append((trio.current_time(), exc.errno))
        raise

NativeListener.try_accept = try_accept
class Records(logging.Handler):
    def emit(self, record):
        logged.append((trio.current_time(), record.levelname))
logging.getLogger("trioqt.server").addHandler(Records())

def say(thing):
    print(json.dumps(thing), flush=True)

async def echo(sock):
    async for chunk in sock:
        await sock.send_all(chunk)

async def main():
    clock = trio.lowlevel.current_clock()
    parent = trio.lowlevel.FdStream(os.dup(0))
    async with TcpServer() as server, server.events(AcceptError) as errors, server.events(ConnectionFinished) as ends:
        async with trio.open_nursery() as nursery:
            await server.listen("127.0.0.1")
            await nursery.start(server.serve, echo)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            say(server.server_port())
            error = await anext(errors)
            for _ in range(24):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(0.125)
            await trio.testing.wait_all_tasks_blocked()
            count = server.connection_count()
            say([count, error.kind.name, server.server_error().name, failed, logged])
            for _ in range(count):  # the parent's business
                assert (await anext(ends)).error is None
            failures = len(failed)
            clock.jump(0.125)
            await parent.receive_some()
            say([server.connection_count(), len(failed) - failures])
            nursery.cancel_scope.cancel()

trio.run(main, clock=trio.testing.MockClock())
"""


# Loopback: the server is a process of its own, with a limit of its own.
async def test_out_of_descriptors_is_survived_and_ends_by_itself(network: Loopback) -> None:
    """P2, with the kernel's own EMFILE: a server with 64 descriptors and 80 clients.

    At the limit it tries eight times a second of the test's clock (once each time the clock moves by more than the
    pause), writes one record a second, and serves those who are in.  When they have left, all others are accepted in
    one go, without any call.
    """
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", AT_THE_LIMIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = b""
    clients: list[RawPeer] = []
    try:

        async def hear() -> Any:
            nonlocal said
            assert process.stdout is not None
            while b"\n" not in said:
                chunk = await process.stdout.receive_some()
                assert chunk, "the server has died"
                said += chunk
            line, _, said = said.partition(b"\n")
            return json.loads(line)

        port = await hear()
        for _ in range(80):
            clients.append(await network.raw_connect(port))
            await clients[-1].send(b"1")
        count, told, kept, failed, logged = await hear()
        inside, waiting = clients[:count], clients[count:]
        answers = [await client.receive(1) for client in inside]
        for client in inside:
            await client.send(b"2")
        answers += [await client.receive(1) for client in inside]
        for client in inside:
            client.close()
        late_answers = [await client.receive(1) for client in waiting]
        await process.stdin.send_all(b"!")
        in_the_end, later_failures = await hear()
        status = await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()
        for client in clients:
            client.close()

    assert 40 < count < 64
    assert (told, kept) == ("SOCKET_RESOURCE", "SOCKET_RESOURCE")
    assert failed == [[number * 0.125, errno.EMFILE] for number in range(25)]
    assert logged == [[float(second), "WARNING"] for second in range(4)]
    assert answers == [b"1"] * count + [b"2"] * count
    assert late_answers == [b"1"] * (80 - count)
    assert (in_the_end, later_failures) == (80 - count, 0)
    assert status == 0
