"""What two tasks do to one socket, and what is collected, must not depend on whose turn came first."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network, RawPeer
from tests.sockets.arrivals import bytes_arrived, reset_arrived
from trioqt import ErrorKind, SocketError, SocketState, TcpServer, TcpSocket

OVER_TLS = True


@pytest.mark.parametrize("again", range(8))
async def test_what_had_arrived_is_kept_when_another_task_disconnects(
    network: Network, nursery: trio.Nursery, again: int
) -> None:
    """Law 5: the task that waited takes what it gets, and all the rest can be read after; none is dropped."""
    sock, peer = await network.connected(nursery)
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await sock.receive_some(100))

    with peer:
        async with trio.open_nursery() as receivers:
            receivers.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(b"x" * 50_000)
            peer.finish()
            await sock.disconnect_from_host()
        while rest := sock.read_all():
            got.append(rest)

    assert b"".join(got) == b"x" * 50_000


async def test_a_disconnect_is_no_mistake_of_another_task(network: Network, nursery: trio.Nursery) -> None:
    """A reader between two steps cannot know: it gets what a waiting one gets, and ``serve`` does not call it a bug."""
    sock, peer = await network.connected(nursery)
    ended, errors = trio.Event(), list[Exception]()

    async def use() -> None:
        await ended.wait()
        for call in (sock.receive_some, sock.receive_line, sock.wait_for_ready_read):
            try:
                await call()
            except (SocketError, trio.ClosedResourceError) as exc:
                errors.append(exc)

    with peer:
        async with trio.open_nursery() as users:
            users.start_soon(use)
            await sock.disconnect_from_host()
            ended.set()
        with pytest.raises(SocketError) as mine:
            sock.write(b"x")

    assert [type(error) for error in errors] == [trio.ClosedResourceError] * 3
    assert mine.value.kind is ErrorKind.OPERATION


async def test_no_transaction_starts_while_another_task_receives(network: Network, nursery: trio.Nursery) -> None:
    """What that task has in hand already could not be brought back."""
    sock, peer = await network.connected(nursery)

    with peer, trio.CancelScope() as scope:
        async with trio.open_nursery() as receivers:
            receivers.start_soon(sock.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                sock.start_transaction()
            scope.cancel()
    sock.abort()

    assert scope.cancelled_caught


async def corked(network: Network, nursery: trio.Nursery) -> tuple[TcpSocket, RawPeer]:
    """A socket that has collected an answer, because a line is still to be read."""
    sock, peer = await network.connected(nursery)
    await peer.send(b"a\nb\n")
    await bytes_arrived(sock, 4)
    assert await sock.receive_line() == b"a\n"
    assert sock.write(b"answer\n") == 7
    assert sock._corked
    return sock, peer


# Loopback: a descriptor is handed over.
async def test_collected_answers_go_out_before_another_descriptor_takes_over(
    network: Loopback, nursery: trio.Nursery
) -> None:
    """The kernel would have taken them, so they are not unsent bytes that may be dropped."""
    sock, peer = await corked(network, nursery)

    with peer, await network.raw_listener() as listener:
        other = socket.create_connection((network.host, listener.port))
        sock.set_socket_descriptor(other.detach())

        assert await peer.receive(7) == b"answer\n"
        sock.abort()


async def test_an_abort_ends_it_here_whatever_the_collected_answers_meet(
    network: Network, nursery: trio.Nursery
) -> None:
    """The reset that they run into is not told: the end was made here, and unread bytes are dropped."""
    sock, peer = await corked(network, nursery)
    peer.reset()
    await reset_arrived(sock)

    sock.abort()

    assert (sock.state(), sock.error(), sock.bytes_available()) == (SocketState.UNCONNECTED, None, 0)
    with pytest.raises(trio.ClosedResourceError):
        sock.write(b"x")


# Loopback: a descriptor is handed over.
async def test_a_slot_stays_taken_when_its_socket_adopts_another_connection(
    network: Loopback, nursery: trio.Nursery
) -> None:
    """A slot is free when its socket is UNCONNECTED or closed, and it is neither."""
    counts = []
    async with TcpServer(max_connections=1) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()), await network.raw_listener() as listener:
            sock = await server.accept()
            sock.set_socket_descriptor(socket.create_connection((network.host, listener.port)).detach())
            counts.append(server.connection_count())
            sock.abort()
            counts.append(server.connection_count())

    assert counts == [1, 0]
