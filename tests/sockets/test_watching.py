"""Watching changes nothing but how soon: the same programs with and without somebody who listens.

A subscription, a task in ``wait_for_disconnected`` and ``half_open=False`` make a socket read ahead.  What calls
return and raise, and what is sent, must be what it is without.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Network
from tests.sockets.arrivals import fill, finish_arrived, reset_arrived, unread_bytes, until
from tests.sockets.pairs import Connection, connection
from trioqt import (
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    ReadChannelFinished,
    ReadyRead,
    SocketError,
    SocketState,
    StateChanged,
    TcpServer,
    TcpSocket,
)

OVER_TLS = True


async def outcome_of(call: Callable[[], object]) -> object:
    """What ``call`` returns, or how it fails, in a form that can be compared."""
    try:
        result = call()
        return await result if isinstance(result, Awaitable) else result
    except SocketError as error:
        return error.kind, error.errno
    except (trio.ClosedResourceError, trio.BusyResourceError, trio.WouldBlock, StopAsyncIteration) as exc:
        return type(exc)


RESET = (ErrorKind.REMOTE_HOST_CLOSED, errno.ECONNRESET)
BROKEN_PIPE = (ErrorKind.REMOTE_HOST_CLOSED, errno.EPIPE)
LIMIT = (ErrorKind.LIMIT_EXCEEDED, None)
ENDED_EARLY = (ErrorKind.REMOTE_HOST_CLOSED, None)

# ---- the scenarios, each with what it must give ------------------------------------------------

Scenario = Callable[[Connection], AsyncIterator[object]]
SCENARIOS: dict[str, tuple[Scenario, list[object]]] = {}
HALF_OPEN_ONLY: set[str] = set()  # where the peer's end comes before calls that send, or that ask for the state


def gives(*expected: object, half_open_only: bool = False) -> Callable[[Scenario], Scenario]:
    """Enter a scenario in the list."""

    def enter(scenario: Scenario) -> Scenario:
        SCENARIOS[scenario.__name__] = scenario, list(expected)
        if half_open_only:
            HALF_OPEN_ONLY.add(scenario.__name__)
        return scenario

    return enter


@gives(b"one\n", b"two\n", b"thr", b"e", b"e\nfour\nfive", b"", b"")
async def pieces_of_every_kind(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"one\ntwo\nthr")
    yield await pair.sock.receive_line()
    yield pair.sock.read_line()
    yield await pair.sock.receive_exactly(3)
    await pair.arrive(b"ee\nfour\nfive")
    yield await pair.sock.receive_some(1)
    yield pair.sock.read_all()
    await pair.finish()
    yield await pair.sock.receive_some()
    yield await pair.sock.receive_line()


@gives(b"a", b"bc", b"d", b"efgh", 4, b"ij", b"kl", b"")
async def waiting_and_asking_by_turns(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"abcdefgh")
    yield await pair.sock.receive_some(1)
    yield pair.sock.read(2)
    yield await pair.sock.receive_some(1)
    yield await pair.sock.receive_some()
    await pair.arrive(b"ijkl")
    yield pair.sock.bytes_available()
    yield pair.sock.read(2)
    yield await pair.sock.receive_some(100)
    yield pair.sock.read_all()


@gives([b"one\n", b"\n", b"rest"], [], b"", False, ENDED_EARLY, ENDED_EARLY)
async def lines_to_the_end(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"one\n\nrest")
    await pair.finish()
    yield [line async for line in pair.sock.lines()]
    yield [line async for line in pair.sock.lines()]
    yield await pair.sock.receive_some()
    yield await pair.sock.wait_for_ready_read()
    yield await outcome_of(lambda: pair.sock.receive_exactly(1))
    yield await outcome_of(lambda: pair.sock.receive_until(b"x"))


@gives(True, "waits", b"a", "waits", b"bc", True, b"d", True, "waits", True, b"e", b"fgh", False)
async def ready_read(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"abc")
    yield await pair.sock.wait_for_ready_read()
    yield await waits_or(pair.sock.wait_for_ready_read)
    yield pair.sock.read(1)
    yield await waits_or(pair.sock.wait_for_ready_read)
    yield await pair.sock.receive_some()
    await pair.arrive(b"d")
    yield await pair.sock.wait_for_ready_read()
    yield await pair.sock.receive_some(1)
    await pair.arrive(b"efgh")
    yield await pair.sock.wait_for_ready_read()
    yield await waits_or(pair.sock.wait_for_ready_read)
    await pair.finish()
    yield pair.sock.bytes_available() == 4
    yield await pair.sock.receive_some(1)
    yield pair.sock.read_all()
    yield await pair.sock.wait_for_ready_read()


@gives(b"abc", "waits", b"defgh", "waits", b"i")
async def a_part_of_what_arrived(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"abcdefgh")
    yield await pair.sock.receive_some(3)
    yield await waits_or(pair.sock.wait_for_ready_read)
    yield pair.sock.read_all()
    yield await waits_or(pair.sock.receive_some)
    await pair.arrive(b"i")
    yield await pair.sock.receive_some(3)


@gives(True, b"one\n", True, "waits", b"two\n", True, b"th", True, True, "waits", b"ree\n")
async def what_waits_with_the_system_is_not_seen(pair: Connection) -> AsyncIterator[object]:
    """A call that the buffer answers has not looked further.  Who was watched waited for ever here."""
    await pair.arrive(b"one\n")
    yield pair.sock.can_read_line()
    await pair.arrive(b"two\n")
    yield await pair.sock.receive_line()
    yield await pair.sock.wait_for_ready_read()
    yield await waits_or(pair.sock.wait_for_ready_read)
    yield pair.sock.read_line()
    await pair.arrive(b"th")
    yield not pair.sock.can_read_line()
    await pair.arrive(b"ree\n")
    yield pair.sock.read(2)
    yield await pair.sock.wait_for_ready_read()
    yield pair.sock.can_read_line()
    yield await waits_or(pair.sock.wait_for_ready_read)
    yield pair.sock.read_line()


@gives(b"a", True, "waits", b"b", b"cd", "waits", b"ef", True, True, "waits", b"g", "waits", b"hi")
async def what_a_call_has_asked_for_is_seen(pair: Connection) -> AsyncIterator[object]:
    """By a question, a peek or a read that takes a part; each makes the same of what is in the buffer and behind it."""
    await pair.arrive(b"ab")
    yield pair.sock.read(1)
    await pair.arrive(b"cd")
    yield await pair.sock.wait_for_ready_read()
    yield await waits_or(pair.sock.wait_for_ready_read)
    yield pair.sock.peek(1)
    yield pair.sock.read(3)[1:]
    yield await waits_or(pair.sock.wait_for_ready_read)
    await pair.arrive(b"ef")
    pair.sock.bytes_available()
    await pair.arrive(b"ghi")
    yield pair.sock.peek(2)
    yield await pair.sock.wait_for_ready_read()
    pair.sock.skip(2)
    yield pair.sock.bytes_available() == 3
    yield await waits_or(pair.sock.wait_for_ready_read)
    yield pair.sock.get_char()
    yield await waits_or(pair.sock.wait_for_ready_read)
    yield pair.sock.read_all()


async def waits_or(call: Callable[[], Awaitable[object]]) -> object:
    """ "waits" if it does so, else what it returns."""
    result: object = "waits"
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                nonlocal result
                result = await call()
                scope.cancel()

            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    return result


@gives(LIMIT, LIMIT, b"0123456789\n", LIMIT, b"x")
async def limits(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"0123456789\nx")
    yield await outcome_of(lambda: pair.sock.receive_line(10))
    yield await outcome_of(lambda: pair.sock.receive_until(b"x", 5))
    yield await pair.sock.receive_line(11)
    yield await outcome_of(lambda: pair.sock.receive_line(1))
    yield pair.sock.read_all()


@gives(b"abcd", b"efgh", b"", LIMIT, b"abcd", LIMIT, 20)
async def transactions(pair: Connection) -> AsyncIterator[object]:
    pair.sock.set_read_buffer_size(8)
    await pair.arrive(b"abcdefghijklmnopqrst")
    await trio.testing.wait_all_tasks_blocked()
    pair.sock.start_transaction()
    yield pair.sock.read(4)
    yield pair.sock.read(100)
    yield pair.sock.read(100)
    pair.sock.rollback_transaction()
    pair.sock.start_transaction()
    pair.sock.read(4)
    yield await outcome_of(lambda: pair.sock.receive_exactly(6))
    pair.sock.rollback_transaction()
    pair.sock.start_transaction()
    yield await pair.sock.receive_some(4)
    await pair.sock.receive_some(4)
    yield await outcome_of(lambda: pair.sock.receive_some(4))
    pair.sock.rollback_transaction()
    yield len(await pair.sock.receive_exactly(20))


@gives(b"last words", RESET, RESET, RESET, RESET, RESET, b"", SocketState.UNCONNECTED)
async def a_reset_behind_bytes(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"last words")
    await pair.reset()
    yield await pair.sock.receive_some()
    yield await outcome_of(pair.sock.receive_some)
    yield await outcome_of(pair.sock.receive_line)
    yield await outcome_of(pair.sock.wait_for_ready_read)
    yield await outcome_of(lambda: pair.sock.write(b"x"))
    yield await outcome_of(lambda: pair.sock.send_all(b"x"))
    yield pair.sock.read_all()
    yield pair.sock.state()


@gives(RESET, b"last", b" words", RESET, None, SocketState.UNCONNECTED)
async def a_reset_and_then_a_write(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"last words")
    await pair.reset()
    yield await outcome_of(lambda: pair.sock.write(b"x"))
    yield await pair.sock.receive_some(4)
    yield pair.sock.read_all()
    yield await outcome_of(pair.sock.receive_some)
    yield await outcome_of(pair.sock.disconnect_from_host)
    yield pair.sock.state()


@gives(b"last words", b"", 1, BROKEN_PIPE, BROKEN_PIPE, BROKEN_PIPE, half_open_only=True)
async def a_broken_pipe(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"last words")
    pair.peer.close()
    await finish_arrived(pair.sock)
    yield await pair.sock.receive_some()
    yield await pair.sock.receive_some()
    yield pair.sock.write(b"x")
    await reset_arrived(pair.sock)
    yield await outcome_of(lambda: pair.sock.write(b"x"))
    yield await outcome_of(pair.sock.receive_some)
    yield await outcome_of(lambda: pair.sock.send_all(b"x"))


@gives(trio.WouldBlock, True, None, trio.ClosedResourceError, True, b"answer")
async def a_full_queue_and_half_close(pair: Connection) -> AsyncIterator[object]:
    accepted = await fill(pair.sock)
    yield await outcome_of(lambda: pair.sock.write(b"x"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.sock.send_all, b"message")
        yield await pair.peer.receive(accepted + 7) == bytes(accepted) + b"message"
    yield await pair.sock.send_eof()  # type: ignore[func-returns-value]
    yield await outcome_of(lambda: pair.sock.write(b"x"))
    yield await pair.peer.receive_to_end() == b""
    await pair.arrive(b"answer")
    yield await pair.sock.receive_some()


@gives(SocketState.CONNECTED, None, SocketState.UNCONNECTED, b"unread", (ErrorKind.OPERATION, None), True)
async def disconnecting(pair: Connection) -> AsyncIterator[object]:
    accepted = await fill(pair.sock)
    await pair.arrive(b"unread")
    yield pair.sock.state()
    async with trio.open_nursery() as nursery:
        received = []

        @nursery.start_soon
        async def _() -> None:
            received.append(await pair.peer.receive_to_end())
            pair.peer.finish()

        yield await outcome_of(pair.sock.disconnect_from_host)
    yield pair.sock.state()
    yield pair.sock.read_all()
    yield await outcome_of(pair.sock.receive_some)
    yield received == [bytes(accepted)]


@gives(b"", trio.ClosedResourceError, trio.ClosedResourceError, 0, ConnectionResetError)
async def aborting(pair: Connection) -> AsyncIterator[object]:
    await fill(pair.sock)
    await pair.arrive(b"unread")
    pair.sock.abort()
    yield pair.sock.read_all()
    yield await outcome_of(pair.sock.receive_some)
    yield await outcome_of(lambda: pair.sock.write(b"x"))
    yield pair.sock.bytes_to_write()
    with pytest.raises(ConnectionResetError) as reset:
        await pair.peer.receive_to_end()
    yield type(reset.value)


@gives(b"")
async def aborting_with_unread_bytes(pair: Connection) -> AsyncIterator[object]:
    """Wherever they wait, the peer sees an end; the system would reset for those that it holds."""
    await pair.arrive(bytes(20_000))
    pair.sock.abort()
    yield await pair.peer.receive_to_end()


@gives(b"rea", b"")
async def aborting_with_bytes_that_were_read_in_part(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"read")
    yield pair.sock.read(3)
    await pair.arrive(b"more")
    pair.sock.abort()
    yield await pair.peer.receive_to_end()


@gives(b"")
async def aborting_with_unread_bytes_and_the_peers_end(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(bytes(20_000))
    await pair.finish()
    pair.sock.abort()
    yield await pair.peer.receive_to_end()


@gives("waits", trio.BusyResourceError, b"half a line\n")
async def cancelled_and_busy(pair: Connection) -> AsyncIterator[object]:
    await pair.arrive(b"half ")
    yield await waits_or(pair.sock.receive_line)
    async with trio.open_nursery() as nursery:
        lines = []

        @nursery.start_soon
        async def _() -> None:
            lines.append(await pair.sock.receive_line())

        await trio.testing.wait_all_tasks_blocked()
        yield await outcome_of(pair.sock.receive_some)
        await pair.arrive(b"a line\n")
    yield lines[0]


def test_every_socket_of_these_tests_is_watched_if_that_was_asked_for(request: pytest.FixtureRequest) -> None:
    """``--watched`` is not without effect, and without it nobody watches."""
    ours, _ = trio.testing.memory_stream_pair()

    watched = [bool(sock._subscriptions) for sock in (TcpSocket(), TcpSocket.from_stream(ours))]

    assert watched == [bool(request.config.getoption("--watched"))] * 2


# ---- how they are run --------------------------------------------------------------------------


@asynccontextmanager
async def subscribed(sock: TcpSocket) -> AsyncIterator[None]:
    async with sock.events():
        await trio.testing.wait_all_tasks_blocked()
        yield


@asynccontextmanager
async def waited_for(sock: TcpSocket) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sock.wait_for_disconnected)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def on_and_off(sock: TcpSocket) -> AsyncIterator[None]:
    """Subscribed and not, changing with every turn of the scheduler."""

    async def change() -> None:
        while True:
            async with sock.events():
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def alone(sock: TcpSocket) -> AsyncIterator[None]:
    yield


WATCHERS = {"alone": alone, "subscribed": subscribed, "waited for": waited_for}


@pytest.mark.parametrize("watcher", WATCHERS.values(), ids=WATCHERS)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_watching_changes_nothing(network: Network, scenario: str, watcher: Callable[[TcpSocket], Any]) -> None:
    """What every call of the scenario gives is the same, whoever watches."""
    run, expected = SCENARIOS[scenario]
    async with connection(network) as pair, watcher(pair.sock):
        given = [item async for item in run(pair)]

    assert given == expected


@pytest.mark.parametrize("scenario", sorted(set(SCENARIOS) - HALF_OPEN_ONLY))
async def test_reading_ahead_without_half_open_changes_nothing(network: Network, scenario: str) -> None:
    """Such a socket always watches; until the peer's end, and for those who only receive, nothing else differs."""
    run, expected = SCENARIOS[scenario]
    async with connection(network, half_open=False) as pair:
        given = [item async for item in run(pair)]

    assert given == expected


@pytest.mark.parametrize("scenario", ["pieces_of_every_kind", "lines_to_the_end", "a_reset_behind_bytes", "limits"])
async def test_watching_by_fits_and_starts_changes_nothing(network: Network, scenario: str) -> None:
    """A subscription begins and ends at every turn: the reading is handed over each time, and no byte is lost."""
    run, expected = SCENARIOS[scenario]
    async with connection(network) as pair, on_and_off(pair.sock):
        given = [item async for item in run(pair)]

    assert given == expected


# ---- who reads ---------------------------------------------------------------------------------

# fmt: off
WAITS: dict[str, Callable[[TcpSocket], Awaitable[object]]] = {
    "receive_some":        lambda sock: sock.receive_some(),
    "receive_line":        lambda sock: sock.receive_line(),
    "receive_until":       lambda sock: sock.receive_until(b"--"),
    "receive_exactly":     lambda sock: sock.receive_exactly(3),
    "receive_message":     lambda sock: sock.receive_message(lambda stream: stream.read_raw_data(3)),
    "wait_for_ready_read": lambda sock: sock.wait_for_ready_read(),
}
# fmt: on
every_wait = pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
GOT = (b"a--\n", b"a--", True)


@every_wait
async def test_a_subscription_that_begins_under_a_waiting_task_takes_nothing_from_it(
    network: Network, wait: Callable[[TcpSocket], Awaitable[object]]
) -> None:
    """The task that waits goes on reading, and the listener hears of the bytes all the same."""
    async with connection(network) as pair, trio.open_nursery() as nursery:
        got = []

        @nursery.start_soon
        async def _() -> None:
            got.append(await wait(pair.sock))

        await trio.testing.wait_all_tasks_blocked()
        async with pair.sock.events() as events:
            await trio.testing.wait_all_tasks_blocked()
            await pair.arrive(b"a--\n")
            event = await anext(events)
            await trio.testing.wait_all_tasks_blocked()

        assert (len(got), got[0] in GOT, event) == (1, True, ReadyRead())


@every_wait
@pytest.mark.parametrize("watcher", [subscribed, waited_for])
async def test_a_watch_that_ends_under_a_waiting_task_hands_the_reading_over(
    network: Network,
    wait: Callable[[TcpSocket], Awaitable[object]],
    watcher: Callable[[TcpSocket], Any],
) -> None:
    """The task had relied on the watcher to read; now it reads itself."""
    async with connection(network) as pair, trio.open_nursery() as nursery:
        got = []
        async with watcher(pair.sock):

            @nursery.start_soon
            async def _() -> None:
                got.append(await wait(pair.sock))

            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        await pair.peer.send(b"a--\n")
        await until(lambda: bool(got))

        assert (len(got), got[0] in GOT) == (1, True)


@every_wait
async def test_a_cancelled_task_hands_the_reading_to_the_watcher(
    network: Network, wait: Callable[[TcpSocket], Awaitable[object]]
) -> None:
    """It was reading when the watch began, so the watcher stood by; now the watcher learns of what comes."""
    async with connection(network) as pair:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, pair.sock)
            await trio.testing.wait_all_tasks_blocked()
            async with pair.sock.events() as events:
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                    await pair.peer.send(b"a--\n")
                    event = await anext(events)

        assert (event, unread_bytes(pair.sock.socket_descriptor())) == (ReadyRead(), 0)
        assert pair.sock.read_all() == b"a--\n"


async def test_the_watcher_reads_on_when_another_subscription_begins_at_once(network: Network) -> None:
    """One listener leaves and another comes in the same step: the reading goes on for the new one."""
    async with connection(network) as pair:
        first = pair.sock.events()
        await first.__aenter__()
        await trio.testing.wait_all_tasks_blocked()
        second = pair.sock.events()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                await first.__aexit__(None, None, None)

            events = await second.__aenter__()
        await pair.peer.send(b"abc")

        assert await anext(events) == ReadyRead()
        assert pair.sock.read_all() == b"abc"
        await second.__aexit__(None, None, None)


@pytest.mark.plain("it counts what the system holds")
async def test_reading_ahead_stops_at_the_bound_and_goes_on_when_there_is_room(network: Network) -> None:
    """What the bound does not admit stays with the system, which slows the peer; each read lets in as much again."""
    data = bytes(range(256)) * 4
    async with connection(network, read_buffer_size=100) as pair, pair.sock.events() as events:
        await pair.peer.send(data)
        descriptor = pair.sock.socket_descriptor()
        got, left = b"", []
        for size in (0, 30, 100, 1):
            got += pair.sock.read(size)
            await until(lambda: unread_bytes(descriptor) + len(got) + 100 == len(data))  # noqa: B023
            await trio.testing.wait_all_tasks_blocked()
            left.append(unread_bytes(descriptor))
        got += await pair.sock.receive_exactly(300)
        await trio.testing.wait_all_tasks_blocked()
        left.append(unread_bytes(descriptor))
        event = await anext(events)

        assert left == [1024 - 100, 1024 - 130, 1024 - 230, 1024 - 231, 1024 - 531]
        assert (got, event) == (data[:431], ReadyRead())


async def test_a_listener_hears_of_each_arrival_and_then_of_the_end(network: Network) -> None:
    """Without any call on the socket: it reads ahead for its listeners, and its state is up to date."""
    async with connection(network) as pair, pair.sock.events() as events:
        heard = []
        for data in (b"abc", b"def"):
            await pair.peer.send(data)
            heard.append(await anext(events))
        pair.peer.reset()
        async for event in events:
            heard.append(event)
            if event == Disconnected():
                break

        assert heard == [
            ReadyRead(),
            ReadyRead(),
            ErrorOccurred(ErrorKind.REMOTE_HOST_CLOSED, pair.sock.error_string()),
            StateChanged(SocketState.CLOSING),
            StateChanged(SocketState.UNCONNECTED),
            ReadChannelFinished(),
            Disconnected(),
        ]
        assert pair.sock.read_all() == b"abcdef"


async def test_a_full_buffer_and_a_waiting_task_do_not_wait_for_each_other(network: Network) -> None:
    """The watcher stands still because the buffer is full; who asks for more than the bound reads on by itself."""
    async with connection(network, read_buffer_size=4) as pair, pair.sock.events():
        await pair.arrive(b"0123456789\nabcdefgh")
        await trio.testing.wait_all_tasks_blocked()

        assert await pair.sock.receive_line() == b"0123456789\n"
        assert await pair.sock.receive_exactly(8) == b"abcdefgh"


# ---- wait_for_disconnected ---------------------------------------------------------------------


async def until_disconnected(sock: TcpSocket, end: Callable[[], object]) -> SocketState:
    """The state in which a task in wait_for_disconnected finds the socket after ``end``."""
    states = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await sock.wait_for_disconnected()
            states.append(sock.state())

        await trio.testing.wait_all_tasks_blocked()
        assert states == []
        result = end()
        if isinstance(result, Awaitable):
            await result
    return states[0]


@pytest.mark.parametrize("over", ["more", "end"])
async def test_a_limit_that_falls_while_somebody_waits_for_more_than_it_does_not_stop_him(
    network: Network, over: str
) -> None:
    """The watcher has no room any more for what comes next, so who waits for it reads it himself."""
    lines: list[bytes] = []
    async with connection(network) as pair, pair.sock.events(), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            lines.append(await pair.sock.receive_line())

        await trio.testing.wait_all_tasks_blocked()
        await pair.arrive(b"0123456789")
        await until(lambda: len(pair.sock._read_buffer) == 10)
        pair.sock.set_read_buffer_size(10)
        if over == "more":
            await pair.peer.send(b"ab\n")
        else:
            pair.peer.finish()

    assert lines == [b"0123456789ab\n" if over == "more" else b"0123456789"]


async def test_waiting_for_the_end_of_what_has_ended_returns_at_once(network: Network) -> None:
    """Before a connection and after one; it is a checkpoint all the same."""
    async with TcpSocket() as sock:
        with trio.testing.assert_checkpoints():
            await sock.wait_for_disconnected()
        closed = sock
    with trio.testing.assert_checkpoints():
        await closed.wait_for_disconnected()
    async with connection(network) as pair:
        await pair.sock.disconnect_from_host()
        with trio.testing.assert_checkpoints():
            await pair.sock.wait_for_disconnected()

        assert pair.sock.state() is SocketState.UNCONNECTED


@pytest.mark.parametrize("reason", ["abort", "disconnect_from_host", "aclose", "reset"])
async def test_waiting_for_the_end_ends_with_it_whatever_the_reason(network: Network, reason: str) -> None:
    """Ours or the peer's; it does not raise, ``error()`` tells."""
    async with connection(network) as pair:
        ends: dict[str, Callable[[], object]] = {
            "abort": pair.sock.abort,
            "disconnect_from_host": pair.sock.disconnect_from_host,
            "aclose": pair.sock.aclose,
            "reset": pair.peer.reset,
        }

        state = await until_disconnected(pair.sock, ends[reason])

        assert state is SocketState.UNCONNECTED
        assert pair.sock.error() is (ErrorKind.REMOTE_HOST_CLOSED if reason == "reset" else None)


async def test_the_peers_end_alone_is_the_end_only_without_half_open(network: Network) -> None:
    """With half_open the socket is still CONNECTED, and waiting goes on until something else ends it."""
    async with connection(network, half_open=False) as pair:
        state = await until_disconnected(pair.sock, pair.peer.finish)
        assert (state, pair.sock.error()) == (SocketState.UNCONNECTED, ErrorKind.REMOTE_HOST_CLOSED)
    async with connection(network) as pair:

        async def finish_and_then_abort() -> None:
            pair.peer.finish()
            await finish_arrived(pair.sock)
            await trio.testing.wait_all_tasks_blocked()
            assert pair.sock.state() is SocketState.CONNECTED
            pair.sock.abort()

        assert await until_disconnected(pair.sock, finish_and_then_abort) is SocketState.UNCONNECTED


async def test_the_end_behind_a_full_buffer_is_noticed_once_that_is_read(network: Network) -> None:
    """Reading ahead goes only so far, so the reset is found when there is room again."""
    async with connection(network, read_buffer_size=4) as pair:
        got = []

        async def fill_reset_and_read() -> None:
            await pair.arrive(b"abcdefgh")
            await pair.reset()
            await trio.testing.wait_all_tasks_blocked()
            assert pair.sock.state() is SocketState.CONNECTED
            got.append(pair.sock.read(4))
            await trio.testing.wait_all_tasks_blocked()  # full again
            assert pair.sock.state() is SocketState.CONNECTED
            got.append(pair.sock.read(1))

        await until_disconnected(pair.sock, fill_reset_and_read)

        assert (pair.sock.error(), got) == (ErrorKind.REMOTE_HOST_CLOSED, [b"abcd", b"e"])
        assert pair.sock.read_all() == b"fgh"


async def test_waiting_for_the_end_of_an_attempt(network: Network) -> None:
    """While looking up or connecting it waits on: through the connection, or to the end of a failed attempt."""
    port = await network.unused_port()
    async with TcpSocket() as sock, trio.open_nursery() as nursery:
        states = []

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(SocketError):
                await sock.connect_to_host(network.host, port)

        await until(lambda: sock.state() is not SocketState.UNCONNECTED)
        states.append(sock.state())
        await sock.wait_for_disconnected()
        states.append(sock.state())

        assert states[0] in (SocketState.HOST_LOOKUP, SocketState.CONNECTING)
        assert (states[1], sock.error()) == (SocketState.UNCONNECTED, ErrorKind.CONNECTION_REFUSED)


async def test_waiting_for_the_end_of_a_bound_socket(network: Network) -> None:
    """BOUND is not UNCONNECTED."""
    async with TcpSocket() as sock:
        await sock.bind(network.host)

        assert await until_disconnected(sock, sock.abort) is SocketState.UNCONNECTED


@pytest.mark.unwatched("it counts tasks, or what the system holds")
async def test_a_cancelled_wait_for_the_end_leaves_no_trace(network: Network) -> None:
    """The connection goes on, and nothing is read ahead any more."""
    async with connection(network) as pair:
        for at_once in (True, False):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    if at_once:
                        scope.cancel()
                    nursery.start_soon(pair.sock.wait_for_disconnected)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        await pair.arrive(b"abc")
        await trio.testing.wait_all_tasks_blocked()

        assert unread_bytes(pair.sock.socket_descriptor()) == network.on_the_wire(3)
        assert (pair.sock.state(), await pair.sock.receive_some()) == (SocketState.CONNECTED, b"abc")


# ---- tasks -------------------------------------------------------------------------------------


def tasks() -> int:
    """How many tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living


async def note(counts: list[int], before: int) -> None:
    """Once all wait: how many tasks there are more than before."""
    await trio.testing.wait_all_tasks_blocked()
    counts.append(tasks() - before)


@pytest.mark.unwatched("it counts tasks, or what the system holds")
async def test_a_socket_that_nobody_watches_has_no_task(network: Network) -> None:
    """Connected in a nursery, entered as a block, or accepted: idle or used, none of them costs a task."""
    async with TcpServer() as server:
        await server.listen(network.host)
        await trio.testing.wait_all_tasks_blocked()
        before = tasks()
        async with trio.open_nursery() as nursery, TcpSocket() as entered:
            parented = TcpSocket(nursery)
            await parented.connect_to_host(network.host, server.server_port())
            await entered.connect_to_host(network.host, server.server_port())
            accepted = [await server.accept(), await server.accept()]
            await trio.testing.wait_all_tasks_blocked()
            idle = tasks()
            for sock in accepted:
                await sock.send_all(b"hello\n")
            got = [await parented.receive_line(), await entered.receive_line(), entered.bytes_available()]
            await trio.testing.wait_all_tasks_blocked()
            used = tasks()
            parented.abort()

            assert (idle - before, used - before, got) == (0, 0, [b"hello\n", b"hello\n", 0])


@pytest.mark.unwatched("it counts tasks, or what the system holds")
async def test_the_watching_task_lives_as_long_as_somebody_watches(network: Network) -> None:
    """One task, however many listen; none before, none after, and none after the end."""
    counts: list[int] = []
    async with connection(network) as pair:
        await trio.testing.wait_all_tasks_blocked()
        before = tasks()
        async with pair.sock.events():
            await note(counts, before)
            async with pair.sock.events():
                await note(counts, before)
            await note(counts, before)
        await note(counts, before)
        async with pair.sock.events():
            await pair.reset()
            await note(counts, before)

    assert counts == [1, 1, 1, 0, 0]


async def test_a_socket_that_ends_with_its_peer_has_one_task_until_then(network: Network) -> None:
    """half_open=False has to notice the peer's end by itself."""
    async with trio.open_nursery() as nursery:
        await trio.testing.wait_all_tasks_blocked()
        before = tasks()
        sock, peer = await network.connected(nursery, half_open=False)
        await trio.testing.wait_all_tasks_blocked()
        counts = [tasks() - before]
        with peer:
            peer.finish()
            await until(lambda: sock.state() is SocketState.UNCONNECTED)
            await trio.testing.wait_all_tasks_blocked()
            counts.append(tasks() - before)

    assert counts == [1, 0]


@pytest.mark.unwatched("it counts tasks, or what the system holds")
async def test_the_sending_task_lives_as_long_as_bytes_are_queued(network: Network) -> None:
    """What the system takes at once needs none; the last queued byte ends it, and so does an abort."""
    counts: list[int] = []
    async with connection(network) as pair:
        await trio.testing.wait_all_tasks_blocked()
        before = tasks()
        pair.sock.write(b"abc")
        await note(counts, before)
        accepted = 3 + await fill(pair.sock)
        await note(counts, before)
        await pair.peer.receive(accepted)
        await note(counts, before)
        await fill(pair.sock)
        await note(counts, before)
        pair.sock.abort()
        await note(counts, before)

    assert counts == [0, 1, 0, 1, 0]
