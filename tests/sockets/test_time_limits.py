"""A server's ``idle_limit`` and ``stall_limit``: connections on which no byte moves are ended, at the exact time."""

from __future__ import annotations

import contextlib
import functools
import math
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network, RawPeer
from trioqt import (
    ConnectionFinished,
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    Event,
    SocketError,
    SocketState,
    TcpServer,
    TcpSocket,
)
from trioqt.links.native import NativeLink
from trioqt.links.timed import TimedLink
from trioqt.sockets.time_limits import LOOKS_AT_ONCE, SWEEP_SIZE, TimeLimits
from trioqt.testing import VirtualNetwork

Clock = trio.testing.MockClock

# What the simulated kernels take of a connection whose client reads nothing: one buffer each.
KERNELS = 2 * 65536

IDLE = "the connection was lost: no byte moved for 10 s"
HALF = "the connection was lost: no byte moved for 3 s while the rest of what has begun is due"


@attrs.define
class Seen:
    """How each connection went, with the times."""

    handlers: list[tuple[float, ErrorKind, str]] = attrs.Factory(list)
    events: list[Event] = attrs.Factory(list)
    clients: list[float] = attrs.Factory(list)
    """When a client's connection was reset."""


@asynccontextmanager
async def serving(
    handler: Callable[[TcpSocket], Awaitable[object]], seen: Seen, **limits: Any
) -> AsyncIterator[TcpServer[TcpSocket]]:
    """A server on a simulated network without latency."""

    async def watched(sock: TcpSocket) -> None:
        try:
            await handler(sock)
        except SocketError as error:
            seen.handlers.append((trio.current_time(), error.kind, error.message))
            raise

    async with VirtualNetwork(), TcpServer(**limits) as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        nursery.start_soon(server.serve, watched)
        yield server
        nursery.cancel_scope.cancel()


async def client_of(server: TcpServer[TcpSocket]) -> RawPeer:
    sock = trio.socket.socket()
    await sock.connect(("127.0.0.1", server.server_port()))
    return RawPeer(sock)


async def until_reset(client: RawPeer, seen: Seen) -> None:
    """Listen until the connection is reset, and note when that was."""
    with client, pytest.raises(ConnectionResetError):
        await client.receive_to_end()
    seen.clients.append(trio.current_time())


async def says(client: RawPeer, *times: float) -> None:
    """One byte at each of these times, as far as there is a connection."""
    for when in times:
        await trio.sleep_until(when)
        try:
            await client.send(b"x")
        except OSError:
            return


async def receive_all(sock: TcpSocket) -> None:
    async for _ in sock:
        pass


# ---- idle -------------------------------------------------------------------------------------


async def test_an_idle_connection_fails_at_the_limit(autojump_clock: Clock) -> None:
    """The handler's call raises SOCKET_TIMEOUT, the failure is told, the peer sees a reset, the slot is free."""
    seen, finished = Seen(), list[ConnectionFinished]()

    async def handler(sock: TcpSocket) -> None:
        async with sock.events(ErrorOccurred, Disconnected) as events:
            try:
                await receive_all(sock)
            finally:
                seen.events.extend([await anext(events), await anext(events)])

    async with serving(handler, seen, idle_limit=10) as server, server.events(ConnectionFinished) as ends:
        with await client_of(server) as client:
            await until_reset(client, seen)
        count = server.connection_count()
        finished.append(await anext(ends))

    assert seen.handlers == [(10.0, ErrorKind.SOCKET_TIMEOUT, IDLE)]
    assert seen.clients == [10.0]
    assert seen.events == [ErrorOccurred(ErrorKind.SOCKET_TIMEOUT, IDLE), Disconnected()]
    assert count == 0
    assert [str(end.error) for end in finished] == [IDLE]


@pytest.mark.parametrize(("when", "end"), [(9.999, 9.999 + 10), (10.0, 20.0), (10.001, 10.0)])
@pytest.mark.parametrize("listened_to", [False, True])
async def test_a_byte_at_the_limit_is_in_time(
    autojump_clock: Clock, when: float, end: float, listened_to: bool
) -> None:
    """Just before it, and exactly then, it counts; after it there is no connection.  With or without a watcher."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        if listened_to:
            async with sock.events(Disconnected):
                await receive_all(sock)
        else:
            await receive_all(sock)

    async with serving(handler, seen, idle_limit=10) as server:
        with await client_of(server) as client:
            await says(client, when)
            await trio.sleep_until(50)

    assert seen.handlers == [(end, ErrorKind.SOCKET_TIMEOUT, IDLE)]


async def test_what_the_server_sends_is_movement_too(autojump_clock: Clock) -> None:
    """A server that sends every 9 s to a client that only listens keeps it."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        for _ in range(5):
            await trio.sleep(9)
            await sock.send_all(b"tick")
        await receive_all(sock)

    async with serving(handler, seen, idle_limit=10) as server:
        with await client_of(server) as client:
            await until_reset(client, seen)

    assert seen.clients == [55.0]


@pytest.mark.parametrize("listened_to", [False, True])
@pytest.mark.parametrize("size", [65536, 1], ids=["room", "a full buffer"])
async def test_bytes_that_nobody_reads_count_at_the_time_they_came(
    autojump_clock: Clock, listened_to: bool, size: int
) -> None:
    """The handler is at something else, and the client sends up to 12: it is idle from then on, not earlier."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        if listened_to:
            async with sock.events(Disconnected):
                await trio.sleep(100)
        else:
            await trio.sleep(100)
        await receive_all(sock)

    factory = functools.partial(TcpSocket, read_buffer_size=size)
    async with serving(handler, seen, idle_limit=10, socket_factory=factory) as server:
        with await client_of(server) as client:
            await says(client, 5, 7, 12)
            await until_reset(client, seen)
            left = server.connection_count()
            await trio.sleep_until(200)

    assert seen.clients == [22.0]
    assert left == 0
    assert seen.handlers == [(100.0, ErrorKind.SOCKET_TIMEOUT, IDLE)]


@pytest.mark.unwatched("what is read ahead has moved when it came")
async def test_who_begins_to_receive_at_the_limit_gets_what_has_come(autojump_clock: Clock) -> None:
    """A line was whole at 5, and each of 50 handlers asks for it at that very moment, in whatever order tasks run."""
    seen, lines = Seen(), Counter[bytes]()

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_line()
        await trio.sleep(10)
        async for line in sock.lines():
            lines[line] += 1

    async def speak(client: RawPeer) -> None:
        await trio.sleep_until(1)
        await client.send(b"one\ntw")
        await trio.sleep_until(5)
        await client.send(b"o\n")

    with contextlib.ExitStack() as clients:
        async with serving(handler, seen, idle_limit=10) as server, trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(speak, clients.enter_context(await client_of(server)))
            await trio.sleep_until(50)

    assert lines == {b"two\n": 50}
    assert seen.handlers == [(21.0, ErrorKind.SOCKET_TIMEOUT, IDLE)] * 50


async def test_what_had_come_before_the_limit_can_still_be_read(autojump_clock: Clock) -> None:
    """Bytes first, then the failure."""
    seen, heard = Seen(), list[bytes]()

    async def handler(sock: TcpSocket) -> None:
        await trio.sleep(100)
        heard.append(await sock.receive_line())
        await sock.receive_line()

    async with serving(handler, seen, idle_limit=10) as server:
        with await client_of(server) as client:
            await client.send(b"hello\nand")
            await trio.sleep_until(200)

    assert heard == [b"hello\n"]
    assert seen.handlers == [(100.0, ErrorKind.SOCKET_TIMEOUT, IDLE)]


async def test_the_end_of_what_a_peer_sends_is_no_byte(autojump_clock: Clock) -> None:
    """It finishes at 5, and the answer does not come until 10: the connection was idle from the beginning."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        await receive_all(sock)
        await trio.sleep(20)
        await sock.send_all(b"too late")

    async with serving(handler, seen, idle_limit=10) as server:
        with await client_of(server) as client:
            await trio.sleep_until(5)
            client.finish()
            await until_reset(client, seen)
            await trio.sleep_until(50)

    assert seen.clients == [10.0]
    assert seen.handlers == [(25.0, ErrorKind.SOCKET_TIMEOUT, IDLE)]


async def test_connections_that_nobody_has_taken_and_those_of_accept_are_limited_too(autojump_clock: Clock) -> None:
    """The limit belongs to the server, not to ``serve``."""
    async with VirtualNetwork(), TcpServer(idle_limit=10) as server:
        await server.listen("127.0.0.1")
        with await client_of(server) as first, await client_of(server):
            taken = await server.accept()
            await says(first, 4)
            await trio.sleep_until(9.5)
            before = (server.connection_count(), taken.state())
            await trio.sleep_until(12)
            pending = server.next_pending_connection()
            at_12 = (server.connection_count(), taken.state(), pending and (pending.state(), pending.error()))
            with pytest.raises(SocketError, match="no byte moved for 10 s"):
                await taken.receive_exactly(2)
            after = trio.current_time()

    assert before == (2, SocketState.CONNECTED)
    assert at_12 == (1, SocketState.CONNECTED, (SocketState.UNCONNECTED, ErrorKind.SOCKET_TIMEOUT))
    assert after == 14.0


# ---- stalled ----------------------------------------------------------------------------------


async def one_line(sock: TcpSocket) -> None:
    await sock.receive_line()


async def up_to_a_delimiter(sock: TcpSocket) -> None:
    await sock.receive_until(b"xyz")


async def so_many_bytes(sock: TcpSocket) -> None:
    await sock.receive_exactly(5)


async def all_lines(sock: TcpSocket) -> None:
    async for _ in sock.lines():
        pass


async def qts_verbs(sock: TcpSocket) -> None:
    while await sock.wait_for_ready_read():
        if sock.can_read_line():
            sock.read_line()


async def a_transaction(sock: TcpSocket) -> None:
    sock.start_transaction()
    await sock.receive_exactly(1)
    await sock.receive_exactly(4)


ITEMS = [one_line, up_to_a_delimiter, so_many_bytes, all_lines, qts_verbs, a_transaction]


@pytest.mark.parametrize("listened_to", [False, True])
@pytest.mark.parametrize("item", ITEMS)
async def test_half_of_something_is_waited_for_no_longer_than_the_limit(
    autojump_clock: Clock, item: Callable[[TcpSocket], Awaitable[None]], listened_to: bool
) -> None:
    """Its first byte comes at 20, which is early enough, and no more do."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        if listened_to:
            async with sock.events(Disconnected):
                await item(sock)
        else:
            await item(sock)

    async with serving(handler, seen, stall_limit=3) as server:
        with await client_of(server) as client:
            await says(client, 20)
            await until_reset(client, seen)

    assert seen.handlers == [(23.0, ErrorKind.SOCKET_TIMEOUT, HALF)]
    assert seen.clients == [23.0]


@pytest.mark.parametrize(("when", "end"), [(2.999, 2.999 + 3), (3.0, 6.0), (3.001, 3.0)])
async def test_a_byte_of_the_rest_at_the_limit_is_in_time(autojump_clock: Clock, when: float, end: float) -> None:
    """Just before it, and exactly then, it counts; after it there is no connection."""
    seen = Seen()

    async with serving(one_line, seen, stall_limit=3) as server:
        with await client_of(server) as client:
            await says(client, 0, when)
            await trio.sleep_until(50)

    assert seen.handlers == [(end, ErrorKind.SOCKET_TIMEOUT, HALF)]


async def test_silence_between_two_messages_is_no_stall(autojump_clock: Clock) -> None:
    """A client may think as long as it likes where it has begun nothing."""
    seen, lines = Seen(), list[tuple[float, bytes]]()

    async def handler(sock: TcpSocket) -> None:
        async for line in sock.lines():
            lines.append((trio.current_time(), line))

    async with serving(handler, seen, stall_limit=3) as server:
        with await client_of(server) as client:
            await client.send(b"one\n")
            await trio.sleep_until(1000)
            await client.send(b"two\n")
            await trio.sleep_until(2000)

    assert lines == [(0.0, b"one\n"), (1000.0, b"two\n")]
    assert seen.handlers == []


@pytest.mark.parametrize("listened_to", [False, True])
async def test_the_rest_is_due_from_when_somebody_waits_for_it(autojump_clock: Clock, listened_to: bool) -> None:
    """Half a line lies there since 0, but the handler asks for a line at 20."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        async def ask() -> None:
            await trio.sleep_until(20)
            await sock.receive_line()

        if listened_to:
            async with sock.events(Disconnected):
                await ask()
        else:
            sock.bytes_available()
            await ask()

    async with serving(handler, seen, stall_limit=3) as server:
        with await client_of(server) as client:
            await client.send(b"half")
            await until_reset(client, seen)

    assert seen.clients == [23.0]


async def test_asking_anew_every_second_gives_no_new_limit(autojump_clock: Clock) -> None:
    """A handler may look round between two waits."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        while True:
            with trio.move_on_after(1):
                await sock.receive_line()

    async with serving(handler, seen, stall_limit=3) as server:
        with await client_of(server) as client:
            await client.send(b"half")
            await until_reset(client, seen)

    assert seen.clients == [3.0]


async def test_what_nobody_waits_for_is_not_due(autojump_clock: Clock) -> None:
    """The handler waits for a line until 1, does something else, and waits again from 10 on."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        with trio.move_on_after(1):
            await sock.receive_line()
        await trio.sleep_until(10)
        await sock.receive_line()

    async with serving(handler, seen, stall_limit=3) as server:
        with await client_of(server) as client:
            await client.send(b"half")
            await until_reset(client, seen)

    assert seen.clients == [13.0]


QUEUED = "the connection was lost: no byte moved for 3 s while {} bytes wait to be sent"


async def test_queued_bytes_that_the_peer_does_not_take_are_due(autojump_clock: Clock) -> None:
    """What the kernels take at once moves at 0, and then nothing does; the client takes some at 2, and no more."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        sock.write(bytes(4 * KERNELS))
        await sock.wait_for_bytes_written()

    async with serving(handler, seen, stall_limit=3) as server:
        with await client_of(server) as first, await client_of(server) as second:
            await trio.sleep_until(2)
            await second.receive(40_000)
            await trio.sleep_until(50)
            del first

    assert [(when, kind) for when, kind, _ in seen.handlers] == [
        (3.0, ErrorKind.SOCKET_TIMEOUT),
        (5.0, ErrorKind.SOCKET_TIMEOUT),
    ]
    assert seen.handlers[0][2] == QUEUED.format(f"{3 * KERNELS:,}")


async def test_they_are_due_from_when_they_were_queued(autojump_clock: Clock) -> None:
    """The kernels are full since 0, and nothing is due until the handler writes one byte more at 20."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        sock.write(bytes(KERNELS))
        await sock.wait_for_bytes_written()
        await trio.sleep_until(20)
        sock.write(b"x")
        sock.flush()
        await sock.wait_for_bytes_written()

    async with serving(handler, seen, stall_limit=3) as server:
        with await client_of(server):
            await trio.sleep_until(50)

    assert seen.handlers == [(23.0, ErrorKind.SOCKET_TIMEOUT, QUEUED.format(1))]


async def test_an_end_in_order_that_the_peer_does_not_take_is_stalled_too(autojump_clock: Clock) -> None:
    """``disconnect_from_host`` has no limit of its own."""
    seen = Seen()

    async def handler(sock: TcpSocket) -> None:
        sock.write(bytes(4 * KERNELS))
        await sock.disconnect_from_host()

    async with serving(handler, seen, stall_limit=3) as server:
        with await client_of(server):
            await trio.sleep_until(50)

    assert seen.handlers == [(3.0, ErrorKind.SOCKET_TIMEOUT, QUEUED.format(f"{3 * KERNELS:,}"))]


async def test_of_two_limits_the_earlier_one_counts(autojump_clock: Clock) -> None:
    """One client begins a line, the other one nothing."""
    seen = Seen()

    async with serving(one_line, seen, idle_limit=10, stall_limit=3) as server:
        with await client_of(server) as first, await client_of(server):
            await first.send(b"half")
            await trio.sleep_until(50)

    assert seen.handlers == [
        (3.0, ErrorKind.SOCKET_TIMEOUT, HALF),
        (10.0, ErrorKind.SOCKET_TIMEOUT, IDLE),
    ]


async def test_a_stall_longer_than_the_idle_limit_is_idle_first(autojump_clock: Clock) -> None:
    """They may be set either way round."""
    seen = Seen()

    async with serving(one_line, seen, idle_limit=10, stall_limit=30) as server:
        with await client_of(server) as client:
            await client.send(b"half")
            await trio.sleep_until(50)

    assert seen.handlers == [(10.0, ErrorKind.SOCKET_TIMEOUT, IDLE)]


@pytest.mark.once
async def test_a_thousand_dribblers_are_cut_while_others_are_answered(autojump_clock: Clock) -> None:
    """A byte every 5 s of a line that never ends, under a limit of 3 s; ten polite clients ask a thousand times."""
    seen, answered = Seen(), Counter[float]()

    async def handler(sock: TcpSocket) -> None:
        async for line in sock.lines():
            await sock.send_all(line)

    async def be_polite(server: TcpServer[TcpSocket]) -> None:
        with await client_of(server) as client:
            for second in range(100):
                await trio.sleep_until(second * 0.1)
                await client.send(b"ping\n")
                assert await client.receive(5) == b"ping\n"
                answered[trio.current_time() - second * 0.1] += 1

    async with serving(handler, seen, stall_limit=3) as server, trio.open_nursery() as nursery:
        for _ in range(1000):
            client = await client_of(server)
            nursery.start_soon(says, client, *range(0, 100, 5))
            nursery.start_soon(until_reset, client, seen)
        for _ in range(10):
            nursery.start_soon(be_polite, server)

    assert answered == {0.0: 1000}
    assert seen.clients == [3.0] * 1000
    assert seen.handlers == [(3.0, ErrorKind.SOCKET_TIMEOUT, HALF)] * 1000


# ---- what it costs ----------------------------------------------------------------------------


@pytest.mark.unwatched("it counts tasks, or what the system holds")
async def test_a_server_without_limits_has_ordinary_links_and_no_task(network: Network) -> None:
    """Nobody pays for what nobody has asked for."""
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            sock = await server.accept()
            assert type(sock._link) is NativeLink
            assert tasks_of(server) == ["Acceptor._accept_from"]


@pytest.mark.unwatched("it counts tasks, or what the system holds")
async def test_one_task_watches_while_there_are_connections(network: Network) -> None:
    """However many; and none before, between and after."""
    seen = list[list[str]]()
    async with TcpServer(idle_limit=60, stall_limit=60) as server:
        await server.listen(network.host)
        for _ in range(2):
            seen.append(tasks_of(server))
            with await network.raw_connect(server.server_port()), await network.raw_connect(server.server_port()):
                first, second = await server.accept(), await server.accept()
                assert (type(first._link), type(second._link)) == (TimedLink, TimedLink)
                seen.append(tasks_of(server))
                first.abort()
                await trio.testing.wait_all_tasks_blocked()
                seen.append(tasks_of(server))
                second.abort()
                await trio.testing.wait_all_tasks_blocked()

    accepting, watching = ["Acceptor._accept_from"], ["Acceptor._accept_from", "TimeLimits._run"]
    assert seen == [accepting, watching, watching] * 2


def tasks_of(server: TcpServer[TcpSocket]) -> list[str]:
    assert server._nursery is not None
    return sorted(task.name.split(".", 3)[-1] for task in server._nursery.child_tasks)


async def test_connections_that_come_and_go_leave_nothing_in_the_queue(autojump_clock: Clock) -> None:
    """Their entries are swept out long before their time comes."""
    async with VirtualNetwork(), TcpServer(idle_limit=1000) as server:
        await server.listen("127.0.0.1")
        limits = server._time_limits
        assert limits is not None
        with await client_of(server):
            kept = await server.accept()
            longest = 0
            for _ in range(10 * SWEEP_SIZE):
                with await client_of(server):
                    (await server.accept()).abort()
                longest = max(longest, len(limits._entries))
            assert kept.state() is SocketState.CONNECTED
            assert (longest, len(limits._watched)) == (SWEEP_SIZE + 2, 1)
            kept.abort()
        assert (limits._entries, limits._watched) == ([], {})


async def test_many_that_are_due_at_once_let_others_run_in_between(autojump_clock: Clock) -> None:
    """A storm of ends is no reason to stand still."""
    seen, counts = Seen(), list[int]()

    async def look(server: TcpServer[TcpSocket]) -> None:
        await trio.sleep_until(10)
        while server.connection_count():
            counts.append(server.connection_count())
            await trio.lowlevel.checkpoint()

    async with serving(receive_all, seen, idle_limit=10) as server, trio.open_nursery() as nursery:
        for _ in range(3 * LOOKS_AT_ONCE):
            nursery.start_soon(until_reset, await client_of(server), seen)
        nursery.start_soon(look, server)

    assert max(counts) == 3 * LOOKS_AT_ONCE
    assert LOOKS_AT_ONCE <= min(counts) <= 2 * LOOKS_AT_ONCE
    assert seen.clients == [10.0] * 3 * LOOKS_AT_ONCE


async def test_a_connection_that_replaces_an_accepted_one_is_not_watched(network: Loopback) -> None:
    """``set_socket_descriptor`` puts somebody else's in its place, which the server has not accepted."""
    async with TcpServer(idle_limit=60) as server:
        await server.listen(network.host)
        ours, theirs = await tcp_pair(network)
        with theirs, await network.raw_connect(server.server_port()):
            sock = await server.accept()
            sock.set_socket_descriptor(ours)
            limits = server._time_limits
            assert limits is not None
            await limits._look_at_due(math.inf)
            assert sock.state() is SocketState.CONNECTED
            assert limits._entries == []
            sock.abort()
            assert limits._watched == {}


async def tcp_pair(network: Loopback) -> tuple[int, RawPeer]:
    """A connected descriptor, and its peer."""
    with await network.raw_listener() as listener:
        below = socket.create_connection((network.host, listener.port))
        return below.detach(), await listener.accept()


# ---- what a system takes and tells --------------------------------------------------------------


async def test_the_kernel_tells_when_a_byte_came_that_nobody_read(network: Loopback) -> None:
    """Not when it was found, and never before what is known to have moved."""
    async with TcpServer(idle_limit=60) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            sock = await server.accept()
            link = sock._link
            assert isinstance(link, TimedLink)
            begun = trio.current_time()
            await client.send(b"x")
            while not sock.bytes_available():
                await trio.lowlevel.checkpoint()
            ended = trio.current_time()
            arrived = link.native().arrived_at(ended)
            link.moved_at = ended + 1000
            link.correct(ended + 2000)

    assert arrived is not None
    assert begun - 1 < arrived <= ended  # to a few milliseconds, by a clock of the kernel's
    assert link.moved_at == ended + 2000


async def test_one_look_ends_a_connection_whose_queue_nobody_takes(network: Network) -> None:
    """Linux would take more of it if it were asked, whatever the peer does: half of what may be unsent is free."""
    async with TcpServer(stall_limit=60) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            sock, limits = await server.accept(), server._time_limits
            assert limits is not None
            sock.write(bytes(10_000_000))
            await trio.testing.wait_all_tasks_blocked()
            link = sock._link
            assert isinstance(link, TimedLink)
            since = max(link.moved_at, link.queued_at)
            limits._look(sock, link, since + 59.9)
            before = sock.state()
            limits._look(sock, link, since + 60)

    assert (before, sock.error()) == (SocketState.CONNECTED, ErrorKind.SOCKET_TIMEOUT)


@pytest.mark.parametrize("limit", ["idle_limit", "stall_limit"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (math.nan, ValueError), ("5", TypeError), (True, TypeError)]
)
def test_a_limit_is_a_time(limit: str, value: Any, error: type[Exception]) -> None:
    """In seconds, and more than none."""
    with pytest.raises(error, match=limit):
        TcpServer(**{limit: value})


def test_for_ever_is_no_limit() -> None:
    """As in trio."""
    assert TcpServer(idle_limit=math.inf, stall_limit=None)._time_limits is None


def test_limits_say_what_they_are() -> None:
    """For reprs."""
    limits = [TimeLimits(300, None), TimeLimits(None, 0.5), TimeLimits(300, 2.5)]

    assert [str(limit) for limit in limits] == [
        "idle_limit 300 s",
        "stall_limit 0.5 s",
        "idle_limit 300 s, stall_limit 2.5 s",
    ]
