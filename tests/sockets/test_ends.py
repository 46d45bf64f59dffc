"""How connections end: bytes first, then the end, then the error; told once, raised in every call, cleared by none."""

from __future__ import annotations

import errno
import functools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.networks import Network
from tests.sockets.arrivals import bytes_arrived, fill, finish_arrived, reset_arrived, tcp_state, until
from tests.sockets.pairs import connection
from tests.streams import OnlyStream
from trioqt import (
    BytesWritten,
    Connected,
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    Event,
    HostFound,
    ReadChannelFinished,
    ReadyRead,
    SocketError,
    SocketState,
    StateChanged,
    TcpSocket,
)

CLOSING, UNCONNECTED = StateChanged(SocketState.CLOSING), StateChanged(SocketState.UNCONNECTED)


OVER_TLS = True


async def all_of(events: AsyncIterator[Event], sock: TcpSocket) -> list[Event]:
    """Everything that was told, without the nudges; closes the socket, which ends the iteration."""
    await sock.aclose()
    return [event async for event in events if not isinstance(event, ReadyRead | BytesWritten)]


def lost(sock: TcpSocket) -> ErrorOccurred:
    """The event that tells why the connection was lost."""
    assert sock.error() is not None
    return ErrorOccurred(ErrorKind.REMOTE_HOST_CLOSED, sock.error_string())


async def failure(call: Callable[[], object]) -> SocketError:
    """The SocketError that ``call`` ends with."""
    with pytest.raises(SocketError) as raised:
        result = call()
        if isinstance(result, Awaitable):
            await result
    return raised.value


def reason(error: SocketError) -> tuple[ErrorKind, int | None, object]:
    """What an error says of its cause."""
    return error.kind, error.errno, type(error.__cause__)


RESET = (ErrorKind.REMOTE_HOST_CLOSED, errno.ECONNRESET, ConnectionResetError)
BROKEN_PIPE = (ErrorKind.REMOTE_HOST_CLOSED, errno.EPIPE, BrokenPipeError)

# Every call that needs the connection.
# fmt: off
CALLS: dict[str, Callable[[TcpSocket], object]] = {
    "write":                         lambda sock: sock.write(b"x"),
    "put_char":                      lambda sock: sock.put_char(b"x"),
    "send_all":                      lambda sock: sock.send_all(b"x"),
    "wait_send_all_might_not_block": lambda sock: sock.wait_send_all_might_not_block(),
    "wait_for_bytes_written":        lambda sock: sock.wait_for_bytes_written(),
    "send_eof":                      lambda sock: sock.send_eof(),
    "receive_some":                  lambda sock: sock.receive_some(),
    "receive_line":                  lambda sock: sock.receive_line(),
    "receive_until":                 lambda sock: sock.receive_until(b"-"),
    "receive_exactly":               lambda sock: sock.receive_exactly(1),
    "receive_message":               lambda sock: sock.receive_message(lambda stream: stream.read_raw_data(1)),
    "lines":                         lambda sock: anext(sock.lines()),
    "async for":                     lambda sock: anext(sock),
    "wait_for_ready_read":           lambda sock: sock.wait_for_ready_read(),
    "wait_for_connected":            lambda sock: sock.wait_for_connected(),
}
# fmt: on


# ---- the peer finishes -------------------------------------------------------------------------


async def test_the_peers_end_alone_is_no_error(network: Network) -> None:
    """With half_open, trio's way: one event, still CONNECTED, and what is queued or sent later still arrives."""
    async with connection(network) as pair, pair.sock.events() as events:
        accepted = await fill(pair.sock)
        await pair.peer.send(b"last words")
        pair.peer.finish()
        got = [await pair.sock.receive_some(), await pair.sock.receive_some()]
        state = pair.sock.state()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.sock.send_all, b"answer")
            received = await pair.peer.receive(accepted + 6)
        await pair.sock.disconnect_from_host()

        assert (got, state, pair.sock.error()) == ([b"last words", b""], SocketState.CONNECTED, None)
        assert received == bytes(accepted) + b"answer"
        assert await pair.peer.receive_to_end() == b""
        assert await all_of(events, pair.sock) == [ReadChannelFinished(), CLOSING, UNCONNECTED, Disconnected()]


@pytest.mark.parametrize("queued", [False, True])
async def test_without_half_open_the_peers_end_is_ours_too(network: Network, queued: bool) -> None:
    """Qt's way: the error first, while still CONNECTED, then the end; but what is queued is sent before."""
    async with connection(network, half_open=False) as pair, pair.sock.events() as events:
        accepted = await fill(pair.sock) if queued else 0
        await pair.peer.send(b"last words")
        pair.peer.finish()
        await until(lambda: pair.sock.state() is not SocketState.CONNECTED)
        state = pair.sock.state()
        received = await pair.peer.receive_to_end()
        await pair.sock.wait_for_disconnected()
        got = [await pair.sock.receive_some(), await pair.sock.receive_some()]
        errors = [await failure(lambda: pair.sock.write(b"x")) for _ in range(2)]

        assert not queued or state is SocketState.CLOSING
        assert received == bytes(accepted)
        assert got == [b"last words", b""]
        assert [reason(error) for error in errors] == [(ErrorKind.REMOTE_HOST_CLOSED, None, type(None))] * 2
        assert await all_of(events, pair.sock) == [
            lost(pair.sock),
            CLOSING,
            UNCONNECTED,
            ReadChannelFinished(),
            Disconnected(),
        ]


@pytest.mark.parametrize("end", ["disconnect_from_host", "aclose"])
async def test_an_end_that_meets_the_peers_waits_for_the_queue_all_the_same(network: Network, end: str) -> None:
    """With half_open=False, our call itself finds that the peer has finished: it still sends what is queued."""
    async with connection(network, half_open=False, read_buffer_size=3) as pair:
        accepted = await fill(pair.sock)
        await pair.peer.send(b"abc")
        await until(lambda: pair.sock.bytes_available() == 3)
        await pair.finish()
        read = pair.sock.read(3)
        states = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                await getattr(pair.sock, end)()
                states.append(pair.sock.state())

            received = await pair.peer.receive_to_end()

        assert (read, received, states) == (b"abc", bytes(accepted), [SocketState.UNCONNECTED])


async def test_both_ends_may_finish_in_either_order(network: Network) -> None:
    """Half-close both ways: each side hears the other to its end, and only our own end ends the connection."""
    for we_are_first in (True, False):
        async with connection(network) as pair, pair.sock.events() as events:
            if we_are_first:
                await pair.sock.send_eof()
                theirs = await pair.peer.receive_to_end()
                await pair.peer.send(b"abc")
                pair.peer.finish()
                ours = [chunk async for chunk in pair.sock]
            else:
                await pair.peer.send(b"abc")
                pair.peer.finish()
                ours = [chunk async for chunk in pair.sock]
                await pair.sock.send_all(b"def")
                await pair.sock.send_eof()
                theirs = await pair.peer.receive_to_end()
            state = pair.sock.state()

            assert (ours, theirs, state) == ([b"abc"], b"" if we_are_first else b"def", SocketState.CONNECTED)
            assert await all_of(events, pair.sock) == [ReadChannelFinished(), CLOSING, UNCONNECTED, Disconnected()]


# ---- the peer resets ---------------------------------------------------------------------------


@pytest.mark.unwatched("nobody knows of the reset before a call")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_reset_in_an_idle_moment_is_raised_by_the_next_call(
    network: Network, call: Callable[..., object]
) -> None:
    """Nobody watches, so nobody knows; the first call that needs the connection finds it, and so do all after."""
    async with connection(network) as pair:
        await pair.reset()
        before = pair.sock.state()
        pair.sock.bytes_available()

        errors = [await failure(lambda: call(pair.sock)) for _ in range(2)]

        assert (before, pair.sock.state()) == (SocketState.CONNECTED, SocketState.UNCONNECTED)
        assert [reason(error) for error in errors] == [RESET, RESET]
        assert (pair.sock.error(), pair.sock.error_string()) == (errors[0].kind, errors[0].message)


@pytest.mark.parametrize(
    "call",
    ["write", "send_all", "receive_some", "receive_line", "receive_exactly", "wait_for_ready_read"],
)
async def test_the_first_call_after_a_reset_finds_it_by_itself(network: Network, call: str) -> None:
    """Each of them asks the system, and raises what it says."""
    async with connection(network) as pair:
        await pair.reset()

        assert reason(await failure(lambda: CALLS[call](pair.sock))) == RESET
        assert pair.sock.state() is SocketState.UNCONNECTED


async def test_flush_raises_what_it_finds(network: Network) -> None:
    """It asks the system, and the answer is that the connection is gone: the queue is dropped, and the call raises."""
    async with connection(network) as pair:
        await pair.arrive(b"last words")
        await fill(pair.sock)
        pair.peer.reset()
        while tcp_state(pair.sock.socket_descriptor()) != "CLOSED":
            pass  # without a turn for the sending task, which would find it first
        error = await failure(pair.sock.flush)

        assert (reason(error), pair.sock.bytes_to_write(), pair.sock.flush()) == (RESET, 0, False)
        assert pair.sock.read_all() == b"last words"


async def test_a_reset_is_told_in_qts_order_when_it_is_found_while_reading(network: Network) -> None:
    """The error while still CONNECTED, then CLOSING, UNCONNECTED, the end of reading, and Disconnected."""
    async with connection(network) as pair, pair.sock.events() as events:
        await pair.arrive(b"abc")
        await until(lambda: pair.sock.bytes_available() == 3)
        pair.peer.reset()
        await pair.sock.wait_for_disconnected()

        assert pair.sock.read_all() == b"abc"
        assert await all_of(events, pair.sock) == [
            lost(pair.sock),
            CLOSING,
            UNCONNECTED,
            ReadChannelFinished(),
            Disconnected(),
        ]


async def test_a_reset_is_told_in_qts_order_when_it_is_found_while_writing(network: Network) -> None:
    """As for reading, without CLOSING in between."""
    async with connection(network, read_buffer_size=3) as pair, pair.sock.events() as events:
        await pair.arrive(b"abcdef")  # the watcher stands by, because the buffer is full
        await until(lambda: pair.sock.bytes_available() == 3)
        await pair.reset()
        error = await failure(lambda: pair.sock.write(b"x"))

        assert (reason(error), pair.sock.read_all()) == (RESET, b"abcdef")
        assert await all_of(events, pair.sock) == [
            lost(pair.sock),
            UNCONNECTED,
            ReadChannelFinished(),
            Disconnected(),
        ]


async def test_after_a_reset_found_by_a_send_there_are_bytes_and_then_the_error(network: Network) -> None:
    """The kernel reports a reset once, to the send, and an end to the next read: that is no end, and is not told."""
    async with connection(network) as pair:
        await pair.arrive(b"one\ntwo\nthr")
        await pair.reset()
        sent = await failure(lambda: pair.sock.send_all(b"x"))

        got = [await pair.sock.receive_line(), await pair.sock.receive_some(4)]
        refused = [
            await failure(pair.sock.receive_line),
            await failure(lambda: pair.sock.receive_exactly(4)),
            await failure(lambda: pair.sock.receive_until(b"x")),
        ]
        got.append(await pair.sock.receive_exactly(3))
        refused += [await failure(pair.sock.receive_some), await failure(pair.sock.wait_for_ready_read)]

        assert got == [b"one\n", b"two\n", b"thr"]
        assert [reason(error) for error in (sent, *refused)] == [RESET] * 6


async def test_after_a_broken_pipe_there_are_bytes_the_end_and_then_the_error(network: Network) -> None:
    """The peer had finished before it was gone, so its end is told, once; then comes what a send found."""
    async with connection(network) as pair:
        await pair.arrive(b"one\ntwo")
        pair.peer.close()
        await finish_arrived(pair.sock)
        pair.sock.write(b"this is answered with a reset")
        await reset_arrived(pair.sock)
        sent = await failure(lambda: pair.sock.write(b"x"))

        got = [await pair.sock.receive_line(), await pair.sock.receive_line(), await pair.sock.receive_line()]
        refused = [await failure(functools.partial(call, pair.sock)) for call in CALLS.values()]

        assert got == [b"one\n", b"two", b""]
        assert [reason(error) for error in (sent, *refused)] == [BROKEN_PIPE] * (1 + len(CALLS))


async def test_a_broken_pipe_is_told_once_by_wait_for_ready_read_too(network: Network) -> None:
    """False for the end, then the failure."""
    async with connection(network) as pair:
        pair.peer.close()
        await finish_arrived(pair.sock)
        pair.sock.write(b"this is answered with a reset")
        await reset_arrived(pair.sock)
        sent = await failure(lambda: pair.sock.write(b"x"))

        assert await pair.sock.wait_for_ready_read() is False
        refused = [await failure(pair.sock.wait_for_ready_read), await failure(pair.sock.receive_some)]
        assert [reason(error) for error in (sent, *refused)] == [BROKEN_PIPE] * 3


async def test_a_reset_wakes_everybody_who_waits(network: Network) -> None:
    """The one that reads, the one that sends, those that wait for the queue: all raise the same failure."""
    async with connection(network) as pair:
        await fill(pair.sock)
        errors: dict[str, SocketError] = {}
        async with trio.open_nursery() as nursery:

            async def wait(name: str) -> None:
                errors[name] = await failure(lambda: CALLS[name](pair.sock))

            names = ["receive_line", "send_all", "wait_for_bytes_written"]
            for name in names:
                nursery.start_soon(wait, name)
            nursery.start_soon(pair.sock.wait_for_disconnected)
            await pair.peer.send(b"half a line")
            await trio.testing.wait_all_tasks_blocked()
            pair.peer.reset()

        assert {name: reason(error) for name, error in errors.items()} == dict.fromkeys(names, RESET)
        assert len({id(error) for error in errors.values()}) == 3
        assert (pair.sock.bytes_to_write(), pair.sock.read_all()) == (0, b"half a line")


async def test_an_error_is_told_once_to_each_subscriber(network: Network) -> None:
    """However many calls raise it."""
    async with connection(network) as pair:
        async with pair.sock.events(ErrorOccurred) as first, pair.sock.events(ErrorOccurred, Disconnected) as second:
            pair.peer.reset()
            await pair.sock.wait_for_disconnected()
            for call in CALLS.values():
                await failure(functools.partial(call, pair.sock))
            await pair.sock.disconnect_from_host()
            told = lost(pair.sock)

            assert await all_of(first, pair.sock) == [told]
            assert await all_of(second, pair.sock) == [told, Disconnected()]


async def test_a_failure_lasts_until_connect_to_host_begins_anew(network: Network) -> None:
    """abort() and disconnect_from_host() do not clear it; a new attempt does, whatever becomes of it."""
    async with connection(network) as pair:
        await pair.arrive(b"old")
        await pair.reset()
        errors = [await failure(lambda: pair.sock.write(b"x"))]
        await pair.sock.disconnect_from_host()
        errors.append(await failure(lambda: pair.sock.write(b"x")))
        pair.sock.abort()
        errors.append(await failure(lambda: pair.sock.write(b"x")))
        with await network.raw_listener() as listener:
            await pair.sock.connect_to_host(network.host, listener.port)
            with await listener.accept() as peer:
                after = (pair.sock.error(), pair.sock.error_string(), pair.sock.read_all())
                await pair.sock.send_all(b"new")
                await peer.send(b"also new")

                assert [reason(error) for error in errors] == [RESET] * 3
                assert after == (None, "", b"")
                assert (await peer.receive(3), await pair.sock.receive_some()) == (b"new", b"also new")


# ---- abort -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "waiting",
    [
        *("receive_some", "receive_line", "receive_until", "receive_exactly", "receive_message"),
        *("lines", "async for"),
        *("wait_for_ready_read", "send_all", "wait_send_all_might_not_block", "wait_for_bytes_written", "send_eof"),
    ],
)
@pytest.mark.parametrize("watched", [False, True])
async def test_abort_wakes_whoever_waits(network: Network, waiting: str, watched: bool) -> None:
    """From another task: the waiting one learns that it was ended here."""
    async with connection(network) as pair:
        await fill(pair.sock)
        async with trio.open_nursery() as nursery:
            woken = []

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await CALLS[waiting](pair.sock)  # type: ignore[misc]
                woken.append(waiting)

            async def watch() -> None:
                await pair.sock.wait_for_disconnected()
                woken.append("disconnected")

            nursery.start_soon(wait)
            if watched:
                nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            before = list(woken)
            pair.sock.abort()
            state = pair.sock.state()

        assert (before, state) == ([], SocketState.UNCONNECTED)
        assert sorted(woken) == sorted([waiting] + ["disconnected"] * watched)


async def test_abort_tells_the_peer_if_bytes_were_dropped(network: Network) -> None:
    """With an empty queue the peer sees the end; with a queue it sees a reset, never a clean end."""
    async with connection(network) as pair, pair.sock.events() as events:
        await pair.sock.send_all(b"all of it")
        pair.sock.abort()
        clean = await pair.peer.receive_to_end()
        told = await all_of(events, pair.sock)
    async with connection(network) as pair:
        await fill(pair.sock)
        pair.sock.abort()
        queued = pair.sock.bytes_to_write()

        with pytest.raises(ConnectionResetError):
            await pair.peer.receive_to_end()

        assert (clean, queued) == (b"all of it", 0)
        assert told == [UNCONNECTED, ReadChannelFinished(), Disconnected()]


@pytest.mark.parametrize("end", ["lost", "disconnected", "the peer's end, then lost"])
async def test_abort_leaves_nothing_whatever_came_before(network: Network, end: str) -> None:
    """No unread byte, no end of the peer's, no valid socket; the reason why it was lost stays."""
    async with connection(network) as pair:
        await pair.arrive(b"unread")
        if end == "disconnected":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.peer.end_in_answer)
                await pair.sock.disconnect_from_host()
        else:
            if end != "lost":
                pair.peer.finish()
                assert await pair.sock.receive_some(2) == b"un"
                await finish_arrived(pair.sock)
                assert pair.sock.read(2) == b"re"
            pair.peer.reset()
            await reset_arrived(pair.sock)
            await failure(lambda: (pair.sock.write(b"x"), pair.sock.flush()))
        left = pair.sock.bytes_available(), pair.sock.is_valid()

        pair.sock.abort()

        assert left[0] > 0
        assert left[1]
        assert (pair.sock.bytes_available(), pair.sock.read_all(), pair.sock.is_valid()) == (0, b"", False)
        if end == "disconnected":
            assert (await failure(pair.sock.receive_some)).kind is ErrorKind.OPERATION
        else:
            assert (await failure(pair.sock.receive_some)).kind is ErrorKind.REMOTE_HOST_CLOSED
            assert pair.sock.error() is ErrorKind.REMOTE_HOST_CLOSED


async def test_abort_works_when_cancelled_and_again_and_again(network: Network) -> None:
    """It never waits and never fails, in no state."""
    async with connection(network) as pair:
        with trio.CancelScope() as scope:
            scope.cancel()
            pair.sock.abort()
            pair.sock.abort()
            state = pair.sock.state()
            TcpSocket().abort()
            await trio.lowlevel.checkpoint()

        assert (state, scope.cancelled_caught) == (SocketState.UNCONNECTED, True)
        assert await pair.peer.receive_to_end() == b""


# ---- disconnect_from_host ----------------------------------------------------------------------


async def test_disconnecting_sends_the_queue_and_then_ends(network: Network) -> None:
    """The peer gets every byte, then a clean end; meanwhile the state is CLOSING."""
    async with connection(network) as pair, pair.sock.events() as events:
        accepted = await fill(pair.sock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.sock.disconnect_from_host)
            await trio.testing.wait_all_tasks_blocked()
            state = pair.sock.state()
            received = await pair.peer.receive_to_end()

        assert (state, pair.sock.state()) == (SocketState.CLOSING, SocketState.UNCONNECTED)
        assert received == bytes(accepted)
        assert await all_of(events, pair.sock) == [CLOSING, UNCONNECTED, ReadChannelFinished(), Disconnected()]


async def test_disconnecting_again_has_no_effect(network: Network) -> None:
    """Nor has it before there was a connection; nothing is told."""
    async with TcpSocket() as sock, sock.events() as events:
        await sock.disconnect_from_host()
        assert await all_of(events, sock) == []
    async with connection(network) as pair:
        await pair.sock.disconnect_from_host()
        async with pair.sock.events() as events:
            with trio.testing.assert_checkpoints():
                await pair.sock.disconnect_from_host()
            assert await all_of(events, pair.sock) == []


async def test_the_last_answer_arrives_though_the_peer_sends_on(network: Network) -> None:
    """A close over unread bytes would reset the connection and take the answer with it; so it lets the peer finish."""
    request = bytes(1_000_000)
    async with connection(network) as pair, trio.open_nursery() as nursery:
        answers = []

        @nursery.start_soon
        async def _() -> None:
            await pair.peer.send(request)
            answers.append(await pair.peer.receive_to_end())
            pair.peer.close()

        await bytes_arrived(pair.sock, 50_000)
        await pair.sock.send_all(b"413 too large\n")
        await pair.sock.disconnect_from_host()

    assert answers == [b"413 too large\n"]


async def test_lingering_takes_a_second_at_most(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """A peer that neither reads nor finishes does not hold us."""
    async with connection(network) as pair:
        await pair.arrive(b"unread")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.sock.disconnect_from_host)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.99)
            await trio.testing.wait_all_tasks_blocked()
            states = [pair.sock.state()]
            await pair.peer.send(b"and more")
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.02)
        states.append(pair.sock.state())

        assert states == [SocketState.CLOSING, SocketState.UNCONNECTED]
        assert pair.sock.read_all() == b"unread"
        assert await pair.peer.receive_to_end() == b""


@pytest.mark.parametrize("meanwhile", ["nothing", "receive_some", "receive_line", "wait_for_ready_read", "watched"])
async def test_without_unread_bytes_there_is_no_lingering(
    network: Network, mock_clock: trio.testing.MockClock, meanwhile: str
) -> None:
    """The clock stands still and the peer stays silent, so any wait would be for ever; a task that waits to receive
    is no unread byte."""
    async with connection(network) as pair, trio.open_nursery() as nursery:
        woken = []

        async def wait() -> None:
            if meanwhile == "watched":
                await pair.sock.wait_for_disconnected()
            elif meanwhile != "nothing":
                with pytest.raises(trio.ClosedResourceError):
                    await CALLS[meanwhile](pair.sock)  # type: ignore[misc]
            woken.append(meanwhile)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await pair.sock.disconnect_from_host()
        await trio.testing.wait_all_tasks_blocked()

        assert (pair.sock.state(), woken) == (SocketState.UNCONNECTED, [meanwhile])
        assert await pair.peer.receive_to_end() == b""


@pytest.mark.unwatched("a task that waits on the link takes what comes after our end")
@pytest.mark.parametrize("waiting", [False, True])
async def test_bytes_that_come_while_the_queue_goes_out_count_as_unread(
    network: Network, mock_clock: trio.testing.MockClock, waiting: bool
) -> None:
    """Closing over them would reset the connection; and a task that waited is told before they come."""
    async with connection(network) as pair, trio.open_nursery() as nursery:
        accepted = await fill(pair.sock)

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await pair.sock.receive_line()

        if waiting:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(pair.sock.disconnect_from_host)
        await trio.testing.wait_all_tasks_blocked()
        await pair.peer.send(b"half a line")
        await trio.testing.wait_all_tasks_blocked()
        received = await pair.peer.receive_to_end()
        state = pair.sock.state()
        pair.peer.finish()
        await pair.sock.wait_for_disconnected()

        assert (received, state) == (bytes(accepted), SocketState.CLOSING)
        assert pair.sock.read_all() == b""


@pytest.mark.parametrize(
    "call",
    [
        *("receive_some", "receive_line", "receive_exactly", "receive_message", "wait_for_ready_read"),
        *("send_all", "wait_send_all_might_not_block", "send_eof"),
    ],
)
@pytest.mark.parametrize("end", ["disconnect_from_host", "abort"])
async def test_a_call_that_began_before_the_end_was_no_mistake(network: Network, call: str, end: str) -> None:
    """Another task ends the connection while the call takes its first turn: that is ClosedResourceError, not OPERATION,
    which would be a bug of the program."""
    for _ in range(8):  # whoever comes to its turn first
        async with connection(network) as pair, trio.open_nursery() as nursery:
            if call in ("send_all", "wait_send_all_might_not_block", "send_eof"):
                await fill(pair.sock)
            nursery.start_soon(in_the_next_turn, pair.sock, end)
            await trio.lowlevel.checkpoint()
            assert pair.sock.state() is SocketState.CONNECTED

            with pytest.raises(trio.ClosedResourceError):
                await CALLS[call](pair.sock)  # type: ignore[misc]

            if end != "abort":
                await pair.peer.receive_to_end()


async def in_the_next_turn(sock: TcpSocket, end: str) -> None:
    """End the connection, a turn after this was called."""
    if end == "abort":
        await trio.lowlevel.checkpoint()
        sock.abort()
    else:
        await sock.disconnect_from_host()


async def test_a_second_disconnect_joins_the_first(network: Network) -> None:
    """Both return when it is done; so does closing, which ends the socket as well."""
    async with connection(network) as pair:
        accepted = await fill(pair.sock)
        done = []
        async with trio.open_nursery() as nursery:

            async def end(name: str, call: Callable[[], Awaitable[None]]) -> None:
                await call()
                done.append((name, pair.sock.state()))

            nursery.start_soon(end, "first", pair.sock.disconnect_from_host)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(end, "second", pair.sock.disconnect_from_host)
            nursery.start_soon(end, "third", pair.sock.aclose)
            await trio.testing.wait_all_tasks_blocked()
            early = list(done)
            received = await pair.peer.receive_to_end()

        assert (early, received) == ([], bytes(accepted))
        assert sorted(done) == [(name, SocketState.UNCONNECTED) for name in ("first", "second", "third")]


@pytest.mark.parametrize("end", ["disconnect_from_host", "aclose"])
@pytest.mark.parametrize("joined", [False, True])
async def test_a_cancelled_end_is_an_abort(network: Network, end: str, joined: bool) -> None:
    """The connection has ended, and the peer does not take what it has for the whole."""
    async with connection(network) as pair:
        await fill(pair.sock)
        others = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                if joined:
                    with pytest.raises(trio.ClosedResourceError):
                        await pair.sock.disconnect_from_host()
                    others.append("told")

            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(getattr(pair.sock, end))
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            state = pair.sock.state()

        assert (scope.cancelled_caught, state, others) == (True, SocketState.UNCONNECTED, ["told"] * joined)
        with pytest.raises(ConnectionResetError):
            await pair.peer.receive_to_end()


async def test_an_end_that_was_cancelled_before_it_began_is_an_abort_too(network: Network) -> None:
    """Ending is the exception to the rule that what is cancelled did not happen."""
    for end in ("disconnect_from_host", "aclose"):
        async with connection(network) as pair:
            with trio.CancelScope() as scope:
                scope.cancel()
                await getattr(pair.sock, end)()

            assert (scope.cancelled_caught, pair.sock.state()) == (True, SocketState.UNCONNECTED)
            assert await pair.peer.receive_to_end() == b""


async def test_a_disconnect_that_loses_queued_bytes_raises(network: Network) -> None:
    """Each task that was ending it is told, though a third one has been told already."""
    for _ in range(5):  # in whatever order they come to their turn
        async with connection(network) as pair:
            await fill(pair.sock)
            errors = []
            async with trio.open_nursery() as nursery:

                async def wait(call: Callable[[], Awaitable[None]]) -> None:
                    errors.append(await failure(call))  # noqa: B023

                nursery.start_soon(wait, pair.sock.wait_for_bytes_written)
                nursery.start_soon(wait, pair.sock.disconnect_from_host)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(wait, pair.sock.disconnect_from_host)
                await trio.testing.wait_all_tasks_blocked()
                pair.peer.reset()

            assert [reason(error) for error in errors] == [RESET] * 3
            await pair.sock.aclose()  # has no more to say


async def test_a_close_that_loses_queued_bytes_raises_and_closes(network: Network) -> None:
    """Somebody must be told, and the socket is closed all the same."""
    async with connection(network) as pair:
        await fill(pair.sock)
        errors = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                errors.append(await failure(pair.sock.aclose))

            await trio.testing.wait_all_tasks_blocked()
            pair.peer.reset()

        assert [reason(error) for error in errors] == [RESET]
        with pytest.raises(trio.ClosedResourceError):
            pair.sock.write(b"x")
        await pair.sock.aclose()


async def test_a_disconnect_of_a_lost_connection_has_nothing_to_say(network: Network) -> None:
    """No queued byte was lost, and UNCONNECTED is what was wanted."""
    async with connection(network) as pair:
        await pair.reset()

        await pair.sock.disconnect_from_host()

        assert (pair.sock.state(), pair.sock.error()) == (SocketState.UNCONNECTED, ErrorKind.REMOTE_HOST_CLOSED)


async def test_disconnecting_after_finishing_both_ways_is_quick(
    network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """Nothing can arrive any more, so unread bytes are no reason to wait."""
    async with connection(network) as pair:
        await pair.arrive(b"unread")
        await pair.finish()
        await pair.sock.send_eof()

        await pair.sock.disconnect_from_host()

        assert (pair.sock.state(), pair.sock.read_all()) == (SocketState.UNCONNECTED, b"unread")


class FailingGoodbye(OnlyStream):
    """A stream whose orderly end fails, as TLS over a connection that is gone."""

    def __init__(self, below: trio.abc.Stream) -> None:
        super().__init__(below)
        self.said = 0

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.below)
        self.said += 1
        raise trio.BrokenResourceError("no goodbye")


@pytest.mark.parametrize("end", ["disconnect_from_host", "aclose"])
async def test_a_stream_whose_goodbye_fails_has_ended_all_the_same(end: str) -> None:
    """Everything that was queued had been sent, so there is nothing to tell."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = FailingGoodbye(ours)
    async with TcpSocket.from_stream(stream) as sock:
        async with sock.events() as events:
            await sock.send_all(b"all of it")
            await getattr(sock, end)()

            assert (sock.state(), sock.error(), stream.said) == (SocketState.UNCONNECTED, None, 1)
            assert await theirs.receive_some() == b"all of it"
            assert await all_of(events, sock) == [CLOSING, UNCONNECTED, ReadChannelFinished(), Disconnected()]


@pytest.mark.parametrize("watched", [False, True])
async def test_the_last_words_of_a_stream_that_takes_no_more_can_be_read(watched: bool) -> None:
    """A stream cannot be asked what it has, so it is heard out: the bytes, the end, and then what the send found."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as sock, trio.open_nursery() as nursery:
        if watched:
            nursery.start_soon(sock.wait_for_disconnected)
            await trio.testing.wait_all_tasks_blocked()
        await theirs.send_all(b"last words")
        await theirs.aclose()
        await sock.send_all(b"for nobody")
        error = await failure(sock.wait_for_bytes_written)
        got = [await sock.receive_some(), await sock.receive_some()]
        later = await failure(sock.receive_some)

        assert (error.kind, error.message) == (later.kind, later.message)
        assert (got, error.kind) == ([b"last words", b""], ErrorKind.REMOTE_HOST_CLOSED)
        assert isinstance(error.__cause__, trio.BrokenResourceError)
        assert sock.state() is SocketState.UNCONNECTED


class Deaf(trio.abc.SendStream):
    """The sending half of a stream that takes nothing any more."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("deaf")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_stream_is_not_heard_out_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """A second at most, if it neither says anything nor ends; who waits to receive meanwhile is not disturbed."""
    theirs, incoming = trio.testing.memory_stream_one_way_pair()
    async with TcpSocket.from_stream(trio.StapledStream(Deaf(), incoming)) as sock, trio.open_nursery() as nursery:
        lines = []

        @nursery.start_soon
        async def _() -> None:
            lines.append(await sock.receive_line())
            with pytest.raises(SocketError):
                await sock.receive_line()

        started = trio.current_time()
        await sock.send_all(b"for nobody")
        await theirs.send_all(b"a line\nand half")
        error = await failure(sock.wait_for_bytes_written)

        assert (error.kind, trio.current_time() - started) == (ErrorKind.REMOTE_HOST_CLOSED, 1.0)
    assert lines == [b"a line\n"]


@pytest.mark.plain("TLS has more to tell")
async def test_a_whole_life_is_told_in_order(network: Network) -> None:
    """From the call of connect_to_host to the end, each thing once."""
    async with TcpSocket() as sock, sock.events() as events:
        with await network.raw_listener() as listener:
            await sock.connect_to_host(network.host, listener.port)
            with await listener.accept() as peer:
                await sock.send_all(b"question")
                assert await peer.receive(8) == b"question"
                await peer.send(b"answer")
                peer.finish()
                answer = await sock.receive_exactly(6)
                end = await sock.receive_some()
                await sock.disconnect_from_host()

        assert (answer, end) == (b"answer", b"")
        assert await all_of(events, sock) == [
            StateChanged(SocketState.HOST_LOOKUP),
            StateChanged(SocketState.CONNECTING),
            HostFound(),
            StateChanged(SocketState.CONNECTED),
            Connected(),
            ReadChannelFinished(),
            CLOSING,
            UNCONNECTED,
            Disconnected(),
        ]


# ---- asking without waiting --------------------------------------------------------------------


@pytest.mark.parametrize("end", ["finish", "reset", "close"])
@pytest.mark.parametrize("unread", [b"", b"unread", bytes(2000)], ids=len)
async def test_whether_the_peer_has_finished_can_be_asked(network: Network, end: str, unread: bytes) -> None:
    """As a pool must before it hands a connection out again.  It takes nothing: the bytes are there, then the end."""
    async with connection(network, read_buffer_size=1000) as pair:
        before = pair.sock.peer_has_finished()
        await pair.arrive(unread)
        still = pair.sock.peer_has_finished()
        getattr(pair.peer, end)()
        await (reset_arrived if end == "reset" else finish_arrived)(pair.sock)
        # Behind more than the buffer takes, the end is seen once there is room.
        hidden = pair.sock.peer_has_finished()
        pair.sock.set_read_buffer_size(0)
        after = pair.sock.peer_has_finished()

        assert (before, still, hidden, after) == (False, False, len(unread) < 1000, True)
        assert pair.sock.read_all() == unread


@pytest.mark.parametrize("half_open", [True, False])
async def test_whether_the_peer_has_finished_holds_until_the_next_connection(network: Network, half_open: bool) -> None:
    """Not before there is one, through its end, and of the next one anew; an attempt that fails has no peer."""
    with await network.raw_listener() as listener:
        sock = TcpSocket(half_open=half_open)
        answers = [sock.peer_has_finished()]
        async with sock:
            for _ in range(2):
                await sock.connect_to_host(network.host, listener.port)
                answers.append(sock.peer_has_finished())
                (await listener.accept()).close()
                await until(sock.peer_has_finished)
                await sock.disconnect_from_host()
                answers.append(sock.peer_has_finished())
            with pytest.raises(SocketError):
                await sock.connect_to_host(network.host, await network.unused_port())
            answers.append(sock.peer_has_finished())

    assert answers == [False, False, True, False, True, False]
    assert not sock.peer_has_finished()


async def test_whether_a_stream_has_finished_is_known_once_it_was_heard() -> None:
    """A stream cannot be asked without waiting; who waits on it, or watches, hears of the end."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as sock:
        await theirs.send_eof()
        asked = sock.peer_has_finished()
        async with sock.events(ReadChannelFinished) as events:
            await anext(events)

        assert (asked, sock.peer_has_finished()) == (False, True)
