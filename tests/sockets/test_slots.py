"""Every open connection has a slot, of which there are so many; every end of it frees that once."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.networks import Loopback, Network, RawPeer, this_network
from tests.sockets.arrivals import accept_queue, until
from tests.sockets.echoing import ask, echo
from trioqt import SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork

OVER_TLS = True

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
    network: Network,
    nursery: trio.Nursery,
    handler_failures: Callable[[], list[Exception]],
    way_out: Callable[[TcpSocket, RawPeer], Any],
) -> None:
    """The same under ``serve``, whatever the handler did to its socket, and after a bug too."""
    await serve_one_by_one(network, nursery, way_out)

    assert [type(bug) for bug in handler_failures()] == [LookupError]


# Loopback: a descriptor is handed over.
async def test_a_handler_that_adopts_a_descriptor_frees_its_slot_once(
    network: Loopback, nursery: trio.Nursery, handler_failures: Callable[[], list[Exception]]
) -> None:
    """It is the handler's end that counts."""
    await serve_one_by_one(network, nursery, by_another_descriptor)

    assert [type(bug) for bug in handler_failures()] == [LookupError]


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
        await nursery.start(server.serve, handler)
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


@pytest.mark.plain("its clients are bare sockets")
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


# ---- The same as a model -------------------------------------------------------------------------


STEPS = st.one_of(
    st.just(("connect", 0)),
    st.tuples(st.sampled_from(["abort", "disconnect", "cancelled close", "reset", "pending reset"]), st.integers(0, 9)),
    st.just(("take", 0)),
    st.just(("pause", 0)),
    st.just(("resume", 0)),
    st.tuples(st.just("pending limit"), st.integers(0, 4)),
)


@pytest.mark.unwatched("an end frees its slot as soon as it is known")
@settings(max_examples=60, deadline=None)
@given(limit=st.integers(1, 4), steps=st.lists(STEPS, min_size=4, max_size=25))
def test_slots_are_what_a_list_of_clients_says(limit: int, steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order: as many are accepted as there is room for, oldest first, and no more."""
    trio.run(run_model, limit, steps)


@pytest.mark.unwatched("an end frees its slot as soon as it is known")
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
