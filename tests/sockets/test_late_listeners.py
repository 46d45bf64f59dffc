"""Subscribing late is never too late, and a full buffer is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.networks import Network, RawPeer
from tests.sockets.arrivals import bytes_arrived, finish_arrived, reset_arrived, unread_bytes, until
from tests.sockets.onlooker import look_on
from trioqt import (
    BytesWritten,
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    Event,
    NewConnection,
    ReadChannelFinished,
    ReadyRead,
    SocketError,
    SocketState,
    StateChanged,
    TcpServer,
    TcpSocket,
)
from trioqt.testing import SignalSpy

OVER_TLS = True

CLOSING, UNCONNECTED = StateChanged(SocketState.CLOSING), StateChanged(SocketState.UNCONNECTED)
FULL = ErrorOccurred(ErrorKind.LIMIT_EXCEEDED, "the read buffer is full: 8 bytes")


@attrs.frozen
class Connection:
    """A socket of ours and the scripted peer at its other end."""

    sock: TcpSocket
    peer: RawPeer

    async def arrive(self, data: bytes) -> None:
        """``data`` is sent by the peer, and is with us when this returns."""
        await self.peer.send(data)
        await bytes_arrived(self.sock, len(data))


@asynccontextmanager
async def connection(network: Network, **options: Any) -> AsyncIterator[Connection]:
    """A connected socket that nobody watches; aborted at the end of the block."""
    async with trio.open_nursery() as nursery:
        sock, peer = await network.connected(nursery, **options)
        try:
            yield Connection(sock, peer)
        finally:
            sock.abort()
            peer.close()
            nursery.cancel_scope.cancel()


def lost(message: str = "the peer closed the connection") -> list[Event]:
    """What tells that the peer has ended it."""
    error = ErrorOccurred(ErrorKind.REMOTE_HOST_CLOSED, message)
    return [error, CLOSING, UNCONNECTED, ReadChannelFinished(), Disconnected()]


async def heard(events: AsyncIterator[Event]) -> list[Event]:
    """What comes until everybody waits."""
    seen: list[Event] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                async for event in events:
                    seen.append(event)

            await trio.testing.wait_all_tasks_blocked(0.01)
            scope.cancel()
    return seen


# ---- An accepted connection that nobody has taken ------------------------------------------------

Take = Callable[[TcpServer[TcpSocket]], Awaitable[TcpSocket]]


async def by_next_pending_connection(server: TcpServer[TcpSocket]) -> TcpSocket:
    sock = server.next_pending_connection()
    assert sock is not None
    return sock


async def by_accept(server: TcpServer[TcpSocket]) -> TcpSocket:
    return await server.accept()


async def by_iterating(server: TcpServer[TcpSocket]) -> TcpSocket:
    return await anext(aiter(server))


TAKES = {"next_pending_connection": by_next_pending_connection, "accept": by_accept, "async for": by_iterating}
every_take = pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)

Doing = Callable[[RawPeer], Awaitable[None]]


async def stays(peer: RawPeer) -> None:
    await peer.send(b"abc\n")


async def leaves(peer: RawPeer) -> None:
    await peer.send(b"abc\n")
    peer.close()


async def resets(peer: RawPeer) -> None:
    await peer.send(b"abc\n")
    peer.reset()


RESET = "the connection was lost: Connection reset by peer"
MEANWHILE: dict[tuple[Doing, bool], list[Event]] = {
    (stays, True): [ReadyRead()],
    (stays, False): [ReadyRead()],
    (leaves, True): [ReadyRead(), ReadChannelFinished()],
    (leaves, False): [ReadyRead(), *lost()],
    (resets, True): [ReadyRead(), *lost(RESET)],
    (resets, False): [ReadyRead(), *lost(RESET)],
}
every_meanwhile = pytest.mark.parametrize(
    ("doing", "half_open"), MEANWHILE, ids=[f"{doing.__name__}-{half_open}" for doing, half_open in MEANWHILE]
)


@every_take
@every_meanwhile
@pytest.mark.parametrize("observed", [False, True], ids=["", "observed"])
async def test_what_a_peer_did_before_its_connection_was_taken_is_told_afterwards(
    network: Network, take: Take, doing: Doing, half_open: bool, observed: bool
) -> None:
    """Qt's pattern: NewConnection, nextPendingConnection, connect to the signals.  First ReadyRead, then the end.

    Without ``half_open`` it used to be told to nobody, and who subscribed then waited for ever.  Somebody who listens
    from the socket's making on, a log for one, hears it at once, and makes no difference for who comes later.
    """

    def make() -> TcpSocket:
        sock = TcpSocket(half_open=half_open)
        if observed:
            look_on(sock)
        return sock

    async with TcpServer(make) as server, server.events(NewConnection) as arrivals:
        await server.listen(network.host)
        peer = await network.raw_connect(server.server_port())
        await doing(peer)
        await anext(arrivals)
        await trio.testing.wait_all_tasks_blocked(0.01)
        counted = server.connection_count()
        sock = await take(server)
        looked_on = bool(sock._subscriptions)
        async with sock.events() as events:
            told = await heard(events)
        left = sock.read_all()
        peer.close()

    ended = looked_on and Disconnected() in MEANWHILE[doing, half_open]
    assert (counted, told, left) == (0 if ended else 1, MEANWHILE[doing, half_open], b"abc\n")


@pytest.mark.plain("a client speaks before it is accepted")
@every_meanwhile
async def test_a_handler_that_subscribes_first_is_told_everything(
    network: Network, doing: Doing, half_open: bool
) -> None:
    """Inside ``serve`` too: thirty of thirty.  A third of them used to miss ReadyRead."""
    told: list[list[Event]] = []

    async def handler(sock: TcpSocket) -> None:
        async with sock.events() as events:
            heard_here: list[Event] = []
            told.append(heard_here)
            async for event in events:
                heard_here.append(event)

    expected = [MEANWHILE[doing, half_open]] * 30
    async with TcpServer(lambda: TcpSocket(half_open=half_open)) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        server.pause_accepting()
        await nursery.start(server.serve, handler)
        peers = []
        for _ in range(30):
            peer = await network.raw_connect(server.server_port())
            await doing(peer)
            peers.append(peer)
        server.resume_accepting()
        await until(lambda: sum(map(len, told)) >= sum(map(len, expected)))
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
        for peer in peers:
            peer.close()

    assert told == expected


@pytest.mark.unwatched("it counts tasks, or what the system holds")
@pytest.mark.parametrize("half_open", [True, False])
async def test_nobody_watches_a_connection_that_waits_to_be_taken(network: Network, half_open: bool) -> None:
    """It has no task, and what its peer sends stays with the system; from when it is taken on it is read ahead."""
    size = network.on_the_wire(3)
    async with TcpServer(lambda: TcpSocket(half_open=half_open)) as server:
        await server.listen(network.host)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        with await network.raw_connect(server.server_port()) as peer:
            await server.wait_for_new_connection()
            sock = server._pending[0]
            await peer.send(b"abc")
            await trio.testing.wait_all_tasks_blocked(0.01)
            pending = (trio.lowlevel.current_statistics().tasks_living - before, unread_bytes(sock.socket_descriptor()))
            server.next_pending_connection()
            await until(lambda: unread_bytes(sock.socket_descriptor()) == (size if half_open else 0))
            await trio.testing.wait_all_tasks_blocked(0.01)
            taken = trio.lowlevel.current_statistics().tasks_living - before

    assert (pending, taken) == ((0, size), 0 if half_open else 1)


async def test_who_watches_a_connection_that_was_added_goes_on(network: Network) -> None:
    """``add_pending_connection`` gets a socket that its program has held; who listens to it is not cut off."""
    async with connection(network) as pair, TcpServer() as server, pair.sock.events() as events:
        server.add_pending_connection(pair.sock)
        await pair.peer.send(b"abc")
        told = await heard(events)

        assert (told, server.next_pending_connection()) == ([ReadyRead()], pair.sock)


# ---- A subscription begins with what is so -------------------------------------------------------


@pytest.mark.parametrize("asked", [False, True], ids=["", "bytes_available() before"])
async def test_bytes_that_nobody_has_seen_are_told_first(network: Network, asked: bool) -> None:
    """With the system or in the buffer, and before anything that happens after the entry."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        if asked:
            assert (pair.sock.bytes_available(), pair.sock.can_read_line(), pair.sock.at_end()) == (3, False, False)
        async with pair.sock.events() as events:
            pair.sock.write(b"x")
            told = await heard(events)

        assert (told, pair.sock.read_all()) == ([ReadyRead(), BytesWritten(1)], b"abc")


async def test_an_end_behind_unseen_bytes_is_told_behind_them(network: Network) -> None:
    """The peer has finished, or has reset, before anybody listened."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        pair.peer.finish()
        await finish_arrived(pair.sock)
        async with pair.sock.events() as events:
            finished = await heard(events)
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        pair.peer.reset()
        await reset_arrived(pair.sock)
        async with pair.sock.events() as events:
            reset = await heard(events)
        left = pair.sock.read_all()

    assert (finished, reset, left) == ([ReadyRead(), ReadChannelFinished()], [ReadyRead(), *lost(RESET)], b"abc")


async def see_by_reading(sock: TcpSocket) -> None:
    sock.read(1)


async def see_by_receiving(sock: TcpSocket) -> None:
    await sock.receive_some(1)


async def see_by_waiting(sock: TcpSocket) -> None:
    await sock.wait_for_ready_read()


@pytest.mark.parametrize("see", [see_by_reading, see_by_receiving, see_by_waiting])
async def test_bytes_that_were_seen_are_not_told(network: Network, see: Callable[[TcpSocket], Awaitable[None]]) -> None:
    """As ``wait_for_ready_read`` would wait; the next ones are."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        await see(pair.sock)
        async with pair.sock.events() as events:
            before = await heard(events)
            await pair.peer.send(b"d")
            after = await heard(events)

        assert (before, after) == ([], [ReadyRead()])


async def test_a_second_listener_begins_with_what_is_so_too(network: Network) -> None:
    """However late it comes; and bytes that were left by a connection that has ended are bytes."""
    async with connection(network) as pair, pair.sock.events() as first:
        await pair.peer.send(b"abc")
        heard_first = await heard(first)
        async with pair.sock.events() as second:
            heard_second = await heard(second)
        pair.peer.reset()
        await pair.sock.wait_for_disconnected()
        async with pair.sock.events() as third, pair.sock.events(Disconnected) as fourth:
            heard_late = (await heard(third), await heard(fourth))

        assert (heard_first, heard_second, heard_late) == ([ReadyRead()], [ReadyRead()], ([ReadyRead()], []))


async def test_a_spy_begins_as_a_subscription_does(network: Network) -> None:
    """It is one."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        async with SignalSpy(pair.sock) as spy:
            at_once = list(spy)

        assert at_once == [ReadyRead()]


@pytest.mark.parametrize("listen", ["events", "spy"])
async def test_entering_subscribes_before_others_have_their_turn(network: Network, listen: str) -> None:
    """What happens while the entry lets other tasks run is heard."""
    for _ in range(10):  # whoever of the two comes first
        async with connection(network) as pair, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                pair.sock.abort()

            if listen == "spy":
                async with SignalSpy(pair.sock) as spy:
                    await trio.testing.wait_all_tasks_blocked()
                    told = list(spy)
            else:
                async with pair.sock.events() as events:
                    told = await heard(events)

        assert told == [UNCONNECTED, ReadChannelFinished(), Disconnected()]


# ---- A full buffer -------------------------------------------------------------------------------


def message_of(sock: TcpSocket, size: int) -> bytes | None:
    """A message of that size, or nothing taken."""
    sock.start_transaction()
    message = sock.read(size)
    if len(message) == size:
        sock.commit_transaction()
        return message
    sock.rollback_transaction()
    return None


LOOKS: dict[str, Callable[[TcpSocket], object]] = {
    "can_read_line": lambda sock: sock.can_read_line() and sock.read_line(),
    "transaction": lambda sock: message_of(sock, 12),
    "bytes_available": lambda sock: sock.bytes_available() >= 12 and sock.read(12),
    "peek": lambda sock: len(sock.peek(12)) == 12 and sock.read(12),
    "nothing": lambda sock: None,
}
every_look = pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)


@every_look
async def test_a_message_larger_than_the_buffer_is_told(network: Network, look: Callable[[TcpSocket], object]) -> None:
    """In event style: the buffer is full, seen, and nothing was taken.  It used to hang, and hid the peer's end.

    Told once; the connection stays, and once bytes are taken it goes on.
    """
    told: list[Event] = []
    async with connection(network, read_buffer_size=8) as pair, trio.open_nursery() as nursery:
        async with pair.sock.events() as events:

            @nursery.start_soon
            async def _() -> None:
                async for event in events:
                    told.append(event)
                    look(pair.sock)

            await pair.peer.send(b"0123456789\n.")
            pair.peer.finish()
            await trio.testing.wait_all_tasks_blocked(0.01)
            stalled = (list(told), pair.sock.state(), pair.sock.error(), pair.sock.error_string())
            taken = pair.sock.read(8)
            await trio.testing.wait_all_tasks_blocked(0.01)
            left = pair.sock.read_all()
            nursery.cancel_scope.cancel()

    assert stalled == ([ReadyRead(), FULL], SocketState.CONNECTED, FULL.kind, FULL.message)
    assert told == [ReadyRead(), FULL, ReadyRead(), ReadChannelFinished()]
    assert taken + left in (b"0123456789\n.", b"01234567.")


async def test_each_standstill_is_told_once(network: Network) -> None:
    """Who takes a little, and lets it fill up again, is told again; who only looks on is not."""
    async with connection(network, read_buffer_size=8) as pair, pair.sock.events() as events:
        await pair.peer.send(bytes(100))
        told = [await heard(events) for _ in range(3)]
        pair.sock.read(3)
        told += [await heard(events) for _ in range(2)]
        pair.sock.set_read_buffer_size(9)
        told += [await heard(events)]

        again = ErrorOccurred(ErrorKind.LIMIT_EXCEEDED, "the read buffer is full: 9 bytes")
        assert told == [[ReadyRead(), FULL], [], [], [ReadyRead(), FULL], [], [ReadyRead(), again]]


async def test_a_listener_that_still_works_on_what_came_is_not_hurried(network: Network) -> None:
    """Another one that only counts what comes has seen the buffer full; but the one that reads has not done yet."""
    async with connection(network, read_buffer_size=8) as pair:
        async with pair.sock.events() as counting, pair.sock.events() as reading:
            told: list[Event] = []
            await pair.peer.send(bytes(12))
            assert await anext(reading) == ReadyRead()
            told += await heard(counting)
            early = pair.sock.error()
            taken = pair.sock.read(8)
            told += await heard(counting)
            told += await heard(reading)

    assert (early, len(taken), told) == (None, 8, [ReadyRead(), ReadyRead(), ReadyRead()])


@pytest.mark.parametrize("reader", ["receive_exactly", "spy", "other kinds", "unlimited", "finished"])
async def test_what_is_no_standstill_is_not_told(network: Network, reader: str) -> None:
    """A task that receives reads on past the bound; a spy, and who asked for other events, do not look at bytes."""
    size = 0 if reader == "unlimited" else 8
    async with connection(network, read_buffer_size=size) as pair, trio.open_nursery() as nursery:
        async with SignalSpy(pair.sock, ErrorOccurred) as spy, pair.sock.events(Disconnected, ErrorOccurred) as others:
            if reader == "receive_exactly":
                nursery.start_soon(pair.sock.receive_exactly, 20)
            if reader in ("receive_exactly", "unlimited", "finished"):
                listener = await pair.sock.events().__aenter__()
            await pair.peer.send(bytes(8 if reader == "finished" else 12))
            if reader == "finished":
                pair.peer.finish()
                await finish_arrived(pair.sock)
                pair.sock.set_read_buffer_size(9)
                await trio.testing.wait_all_tasks_blocked(0.01)
                pair.sock.set_read_buffer_size(8)
            if reader in ("receive_exactly", "unlimited", "finished"):
                await heard(listener)
            told = await heard(others)
            nursery.cancel_scope.cancel()
            await trio.lowlevel.cancel_shielded_checkpoint()

        assert (told, list(spy), pair.sock.error()) == ([], [], None)


async def test_a_full_buffer_is_told_as_waiting_for_bytes_raises_it(network: Network) -> None:
    """The same words; and who waits so has no need of events."""
    async with connection(network, read_buffer_size=8) as pair:
        await pair.arrive(bytes(12))
        assert await pair.sock.wait_for_ready_read()
        with pytest.raises(SocketError) as refused:
            await pair.sock.wait_for_ready_read()
        async with pair.sock.events() as events:
            told = await heard(events)

    assert told == [FULL]
    assert (refused.value.kind, refused.value.message) == (FULL.kind, FULL.message)
