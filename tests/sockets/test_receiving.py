"""Trio's receiving verbs: they wait for what was asked for, and take that or nothing."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network
from tests.sockets.arrivals import unread_bytes
from tests.sockets.pairs import connection
from tests.sockets.turns import counted_steps
from trioqt import ErrorKind, SocketError, SocketState, TcpSocket

OVER_TLS = True

Call = Callable[[TcpSocket], Awaitable[object]]

# One of each verb that waits for bytes, asking for more than "abc".
# fmt: off
WAITS: dict[str, Call] = {
    "receive_some":        lambda sock: sock.receive_some(),
    "receive_line":        lambda sock: sock.receive_line(),
    "receive_until":       lambda sock: sock.receive_until(b"--"),
    "receive_exactly":     lambda sock: sock.receive_exactly(10),
    "receive_message":     lambda sock: sock.receive_message(lambda stream: stream.read_raw_data(10)),
    "lines":               lambda sock: anext(sock.lines()),
    "async for":           lambda sock: anext(sock),
    "wait_for_ready_read": lambda sock: sock.wait_for_ready_read(),
}
# fmt: on
every_wait = pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
# Those that take what is in the buffer without asking for their turn each time.
FROM_BUFFER = ("receive_line", "receive_until", "receive_exactly", "receive_message", "lines")


@asynccontextmanager
async def memory_sockets() -> AsyncIterator[tuple[TcpSocket, trio.StapledStream[Any, Any]]]:
    """A socket over memory, and the stream at its other end: no real network, so the clock may jump by itself."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as sock:
        try:
            yield sock, theirs
        finally:
            sock.abort()


async def refusal(call: Callable[[], Awaitable[object]]) -> tuple[ErrorKind, str]:
    """How the SocketError that ``call`` ends with describes itself."""
    with pytest.raises(SocketError) as refused:
        await call()
    return refused.value.kind, refused.value.message


# ---- what each verb waits for ------------------------------------------------------------------


async def test_receive_some_takes_what_is_there(network: Network) -> None:
    """One byte is enough; all that has arrived comes, or as much as was asked for."""
    async with connection(network) as pair:
        await pair.arrive(b"hello")
        everything = await pair.sock.receive_some()
        await pair.arrive(b"hello")
        pieces = [await pair.sock.receive_some(2), await pair.sock.receive_some(100)]

        assert (everything, pieces) == (b"hello", [b"he", b"llo"])


async def test_receive_some_waits_for_the_first_byte(network: Network) -> None:
    """It sleeps until something comes, and then has it."""
    got = []
    async with connection(network) as pair, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            got.append(await pair.sock.receive_some())

        await trio.testing.wait_all_tasks_blocked()
        before = list(got)
        await pair.peer.send(b"a")

    assert (before, got) == ([], [b"a"])


async def test_receive_some_takes_a_huge_limit_as_no_limit(network: Network) -> None:
    """A limit says how much is welcome, not how much memory to take beforehand."""
    async with connection(network) as pair:
        got = []
        for limit in (10**13, 2**80):
            await pair.arrive(b"a")
            got.append(await pair.sock.receive_some(limit))

        assert got == [b"a", b"a"]


async def test_receive_line_waits_for_the_newline(network: Network) -> None:
    """However the line is cut on its way, it comes whole, and the next begins behind its newline."""
    lines = []
    async with connection(network) as pair, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            for _ in range(4):
                lines.append(await pair.sock.receive_line())

        for piece in (b"he", b"l", b"lo", b"\n", b"two\nthr", b"ee\n\n"):
            await trio.testing.wait_all_tasks_blocked()
            await pair.peer.send(piece)

    assert lines == [b"hello\n", b"two\n", b"three\n", b"\n"]


@pytest.mark.parametrize("delimiter", [b"\0", b"\r\n", b"--end--", b"aab"])
async def test_receive_until_finds_a_delimiter_across_any_cut(network: Network, delimiter: bytes) -> None:
    """A delimiter whose bytes come one by one, or behind a false start, is still found where it is."""
    message = b"xy" + delimiter[:-1] + b"!" + b"aaab"[:3] + delimiter
    until = message.index(delimiter) + len(delimiter)
    async with connection(network) as pair:
        for cut in range(1, until):
            async with trio.open_nursery() as nursery:
                got = []

                @nursery.start_soon
                async def _() -> None:
                    got.append(await pair.sock.receive_until(delimiter))  # noqa: B023

                await pair.peer.send(message[:cut])
                await trio.testing.wait_all_tasks_blocked()
                await pair.peer.send(message[cut:until] + b"rest")

            assert (got, await pair.sock.receive_exactly(4)) == ([message[:until]], b"rest")


async def test_receive_exactly_of_no_bytes_needs_a_connection_as_any_other(network: Network) -> None:
    """None has been made, or this task has ended it."""
    async with TcpSocket() as sock, connection(network) as pair:
        refusals = [await refusal(lambda: sock.receive_exactly(0))]
        assert await pair.sock.receive_exactly(0) == b""
        await pair.sock.disconnect_from_host()
        refusals.append(await refusal(lambda: pair.sock.receive_exactly(0)))

    assert [kind for kind, _ in refusals] == [ErrorKind.OPERATION, ErrorKind.OPERATION]


async def test_receive_exactly_waits_for_all_of_it(network: Network) -> None:
    """Not a byte less, and what comes behind stays; more than the read-ahead bound is no trouble."""
    data = bytes(range(256)) * 2000
    async with connection(network, read_buffer_size=1000) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.peer.send, data)

        nothing = await pair.sock.receive_exactly(0)
        some = await pair.sock.receive_exactly(300_001)
        rest = await pair.sock.receive_exactly(len(data) - 300_001)

        assert (nothing, some, rest) == (b"", data[:300_001], data[300_001:])


@pytest.mark.once
async def test_a_line_of_a_million_single_bytes_arrives_whole(network: Network) -> None:
    """The search goes on where it ended; each byte costs the same however long the line has become."""
    size = 1 << (20 if isinstance(network, Loopback) else 16)  # a simulated network notes each packet: 10 us
    async with connection(network) as pair, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            # One in 256 waits, because a million awaits would take longer than all the rest.
            sent = 0
            while sent < size:
                try:
                    sent += pair.peer.send_now(b"x" if sent < size - 1 else b"\n")
                except BlockingIOError:
                    await trio.lowlevel.checkpoint()
                if sent % 256 == 0:
                    await trio.lowlevel.checkpoint()

        line = await pair.sock.receive_line(size)

        assert (len(line), line.count(b"x"), line[-1:]) == (size, size - 1, b"\n")


async def test_lines_goes_on_to_the_peers_end(network: Network) -> None:
    """Each line with its newline, the unended rest last, and then the iteration is over, and stays so."""
    async with connection(network) as pair:
        await pair.arrive(b"one\n\ntwo\nthe rest")
        pair.peer.finish()

        lines = pair.sock.lines()
        seen = [line async for line in lines]

        assert seen == [b"one\n", b"\n", b"two\n", b"the rest"]
        with pytest.raises(StopAsyncIteration):
            await anext(lines)


async def test_a_cancelled_step_does_not_end_lines(network: Network) -> None:
    """It is an iterator object, not a generator: the half line is still there, and the iteration goes on."""
    async with connection(network) as pair:
        await pair.arrive(b"half")
        lines = pair.sock.lines()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(anext, lines)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await pair.arrive(b" a line\n")

        assert await anext(lines) == b"half a line\n"
        assert scope.cancelled_caught


async def test_async_for_receives_to_the_peers_end(network: Network) -> None:
    """A socket is iterated as any trio stream: chunks as they come, until the peer finishes."""
    async with connection(network) as pair:
        chunks = []
        await pair.peer.send(b"first")
        async for chunk in pair.sock:
            chunks.append(chunk)
            if len(chunks) == 1:
                await pair.peer.send(b"second")
                pair.peer.finish()

        assert chunks == [b"first", b"second"]


# ---- the peer's end ----------------------------------------------------------------------------


async def test_after_the_peers_end_every_verb_says_so(network: Network) -> None:
    """What ends with nothing says nothing, again and again; what was to be complete raises, and takes nothing."""
    async with connection(network) as pair:
        await pair.arrive(b"line\nrest")
        pair.peer.finish()
        line = await pair.sock.receive_line()

        incomplete = [
            await refusal(lambda: pair.sock.receive_exactly(5)),
            await refusal(lambda: pair.sock.receive_until(b"\n")),
        ]
        rest = await pair.sock.receive_line()
        ends = [
            await pair.sock.receive_line(),
            await pair.sock.receive_some(),
            await pair.sock.receive_exactly(0),
            await pair.sock.wait_for_ready_read(),
            [line async for line in pair.sock.lines()],
            [chunk async for chunk in pair.sock],
        ]

        assert (line, rest) == (b"line\n", b"rest")
        assert incomplete == [
            (ErrorKind.REMOTE_HOST_CLOSED, "the peer finished after 4 of 5 bytes"),
            (ErrorKind.REMOTE_HOST_CLOSED, "the peer finished before b'\\n'"),
        ]
        assert ends == [b"", b"", b"", False, [], []]
        assert (pair.sock.state(), pair.sock.error()) == (SocketState.CONNECTED, None)


@every_wait
async def test_every_wait_ends_with_the_peers_end(network: Network, wait: Call) -> None:
    """A task that waits for more learns that no more will come."""
    async with connection(network) as pair:
        outcomes = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                try:
                    outcomes.append(await wait(pair.sock))
                except (SocketError, StopAsyncIteration) as exc:
                    outcomes.append(exc.kind if isinstance(exc, SocketError) else "stop")

            await trio.testing.wait_all_tasks_blocked()
            pair.peer.finish()

        expected = {
            "receive_some": b"",
            "receive_line": b"",
            "receive_until": ErrorKind.REMOTE_HOST_CLOSED,
            "receive_exactly": ErrorKind.REMOTE_HOST_CLOSED,
            "receive_message": ErrorKind.REMOTE_HOST_CLOSED,
            "lines": "stop",
            "async for": "stop",
            "wait_for_ready_read": False,
        }
        assert outcomes == [next(expected[name] for name, call in WAITS.items() if call is wait)]


# ---- limits ------------------------------------------------------------------------------------


# fmt: off
LIMITS: list[tuple[bytes, int, bytes | None]] = [
    (b"abc\n",    5, b"abc\n"),
    (b"abc\n",    4, b"abc\n"),
    (b"abc\n",    3, None),
    (b"abc",      4, b"abc"),  # the peer finishes behind it
    (b"abc",      3, None),
    (b"\nabc",    1, b"\n"),
    (b"a\n",      1, None),
    (b"abcdefgh", 3, None),
]
# fmt: on


@pytest.mark.parametrize(("arrived", "limit", "got"), LIMITS)
async def test_a_line_longer_than_the_limit_is_refused_and_stays(
    network: Network, arrived: bytes, limit: int, got: bytes | None
) -> None:
    """Up to the limit a line comes; beyond it the call raises, nothing is lost, and reading can go on otherwise."""
    async with connection(network) as pair:
        await pair.arrive(arrived)
        pair.peer.finish()

        if got is None:
            refused = [await refusal(lambda: pair.sock.receive_line(limit)) for _ in range(2)]
            assert refused == [(ErrorKind.LIMIT_EXCEEDED, f"{limit} bytes arrived without b'\\n'")] * 2
            assert pair.sock.read_all() == arrived
        else:
            assert (await pair.sock.receive_line(limit), pair.sock.read_all()) == (got, arrived[len(got) :])
        assert pair.sock.error() is None


async def test_the_limit_of_lines_and_until_holds_too(network: Network) -> None:
    """The delimiter counts; a limit that a longer call grants, a shorter one has not used up."""
    async with connection(network) as pair:
        await pair.arrive(b"0123456--")

        refused = [
            await refusal(lambda: pair.sock.receive_until(b"--", 8)),
            await refusal(lambda: anext(pair.sock.lines(9))),
        ]

        assert refused == [
            (ErrorKind.LIMIT_EXCEEDED, "8 bytes arrived without b'--'"),
            (ErrorKind.LIMIT_EXCEEDED, "9 bytes arrived without b'\\n'"),
        ]
        assert await pair.sock.receive_until(b"--", 9) == b"0123456--"


@pytest.mark.plain("it counts what the system holds")
async def test_a_waiting_line_reads_no_further_than_its_limit(network: Network) -> None:
    """The read-ahead bound is small, so the limit bounds what is taken in; the rest slows the peer."""
    async with connection(network, read_buffer_size=10) as pair:
        await pair.arrive(b"x" * 1000)

        refused = await refusal(lambda: pair.sock.receive_line(100))

        assert refused == (ErrorKind.LIMIT_EXCEEDED, "100 bytes arrived without b'\\n'")
        assert unread_bytes(pair.sock.socket_descriptor()) == 900


# ---- wait_for_ready_read -----------------------------------------------------------------------


async def test_ready_read_means_bytes_that_were_not_seen(network: Network) -> None:
    """Bytes are seen once a read, or this call, returned after they had arrived; then it waits for others."""
    async with connection(network) as pair:
        answers: list[object] = []

        async def would_wait() -> bool:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pair.sock.wait_for_ready_read)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            return scope.cancelled_caught

        answers.append(await would_wait())
        await pair.arrive(b"half ")
        answers += [await pair.sock.wait_for_ready_read(), await would_wait()]  # said once, though nobody read
        await pair.arrive(b"a line")
        answers += [pair.sock.can_read_line(), await pair.sock.wait_for_ready_read(), await would_wait()]
        await pair.arrive(b", more")
        answers += [pair.sock.read(17), await would_wait(), pair.sock.read(100)]
        await pair.arrive(b"again")
        answers += [pair.sock.read(1), await would_wait(), pair.sock.read(100)]  # the read could have had all
        await pair.arrive(b"again")
        answers += [await pair.sock.receive_some(1), await would_wait(), pair.sock.read(100)]
        await pair.arrive(b"again")
        answers += [await pair.sock.receive_exactly(1), await would_wait(), pair.sock.read(100)]
        await pair.arrive(b"again")
        answers += [pair.sock.bytes_available(), await pair.sock.wait_for_ready_read(), await would_wait()]

        assert answers == [
            *(True, True, True),
            *(False, True, True),
            *(b"half a line, more", True, b""),
            *(b"a", True, b"gain"),
            *(b"a", True, b"gain"),
            *(b"a", True, b"gain"),
            *(5, True, True),
        ]


async def test_no_wake_up_is_lost_between_two_waits(network: Network) -> None:
    """Bytes that come while the task does something else are found by the next wait, which does not sleep."""
    async with connection(network) as pair:
        await pair.arrive(b"a")
        first = await pair.sock.wait_for_ready_read()
        pair.sock.read_all()
        await pair.arrive(b"b")
        second = await pair.sock.wait_for_ready_read()

        assert (first, second, pair.sock.read_all()) == (True, True, b"b")


async def test_a_line_loop_with_ready_read_neither_spins_nor_sleeps(network: Network) -> None:
    """Qt's loop, ``while not canReadLine: waitForReadyRead``: one wake-up for each arrival, however many it takes."""
    wakes, lines = [0], list[bytes]()
    async with connection(network) as pair, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            while len(lines) < 2:
                while not pair.sock.can_read_line():
                    assert await pair.sock.wait_for_ready_read()
                    wakes[0] += 1
                lines.append(pair.sock.read_line())

        for piece in (b"ha", b"lf", b" a line\nand", b" more", b"\n"):
            await trio.testing.wait_all_tasks_blocked()
            await pair.peer.send(piece)

    assert lines == [b"half a line\n", b"and more\n"]
    assert wakes == [5]


async def test_ready_read_says_when_no_more_can_come_in(network: Network) -> None:
    """The buffer is full and its bytes were seen: waiting would be for ever, so it raises; a read makes room."""
    async with connection(network, read_buffer_size=4) as pair:
        await pair.arrive(b"abcdefgh")
        first = await pair.sock.wait_for_ready_read()
        refused = await refusal(pair.sock.wait_for_ready_read)
        taken = pair.sock.read(1)

        assert (first, refused, taken) == (True, (ErrorKind.LIMIT_EXCEEDED, "the read buffer is full: 4 bytes"), b"a")
        assert (await pair.sock.wait_for_ready_read(), pair.sock.read_all()) == (True, b"bcde")


async def test_ready_read_of_a_lost_connection(network: Network) -> None:
    """Bytes in front of the reset first; then the failure, every time."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        await pair.reset()

        ready = await pair.sock.wait_for_ready_read()
        refused = [await refusal(pair.sock.wait_for_ready_read) for _ in range(2)]

        assert ready
        assert [kind for kind, _ in refused] == [ErrorKind.REMOTE_HOST_CLOSED] * 2
        assert (pair.sock.read_all(), pair.sock.read_all()) == (b"abc", b"")


async def test_a_cancelled_ready_read_has_seen_nothing(network: Network) -> None:
    """What came in the same moment as the cancellation is news to the next wait."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        pair.sock.bytes_available()
        with trio.CancelScope() as scope:
            scope.cancel()
            await pair.sock.wait_for_ready_read()

        assert scope.cancelled_caught
        assert (await pair.sock.wait_for_ready_read(), pair.sock.read_all()) == (True, b"abc")


# ---- cancellation and turns --------------------------------------------------------------------


@every_wait
async def test_a_cancelled_wait_took_nothing(network: Network, wait: Call) -> None:
    """Half of what was asked for is there; the cancelled call leaves it, and the socket is free at once."""
    async with connection(network) as pair:
        if wait is not WAITS["receive_some"] and wait is not WAITS["async for"]:
            await pair.arrive(b"abc")
            await pair.sock.wait_for_ready_read()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, pair.sock)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        left = pair.sock.bytes_available()
        await pair.arrive(b"def\n")

        assert scope.cancelled_caught
        assert await pair.sock.receive_line() == b"abcdef\n"[3 - left :]


@every_wait
async def test_every_call_looks_for_cancellation(network: Network, wait: Call) -> None:
    """Also one that could be answered from the buffer at once: it is cancelled instead, and took nothing."""
    arrived = b"abcdefghij--\n"
    async with connection(network) as pair:
        await pair.arrive(arrived)
        pair.sock.bytes_available()

        for _ in range(3):
            with trio.CancelScope() as scope:
                scope.cancel()
                await wait(pair.sock)
            assert scope.cancelled_caught

        assert pair.sock.read_all() == arrived


async def test_the_verbs_of_trios_interface_are_always_checkpoints(network: Network) -> None:
    """``receive_some`` and ``async for`` let other tasks run, whether they have to wait or not."""
    async with connection(network) as pair:
        await pair.arrive(b"abcdef")
        with trio.testing.assert_checkpoints():
            await pair.sock.receive_some(1)
        with trio.testing.assert_checkpoints():
            await pair.sock.receive_some()
        await pair.arrive(b"ghi")
        with trio.testing.assert_checkpoints():
            await pair.sock.receive_some()
        await pair.arrive(b"ghi")
        with trio.testing.assert_checkpoints():
            await anext(pair.sock)
        pair.peer.finish()
        for _ in range(3):
            with trio.testing.assert_checkpoints():
                assert await pair.sock.receive_some() == b""
        pair.sock.abort()
        with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await pair.sock.receive_some()


@pytest.mark.parametrize("verb", FROM_BUFFER)
async def test_a_task_that_is_answered_from_the_buffer_gives_others_their_turn(
    autojump_clock: trio.testing.MockClock, verb: str
) -> None:
    """At least after every 64 answers, though no time passes; so a busy peer cannot starve the rest."""
    record = b"a" * 8 + b"-\n"
    receive: dict[str, Call] = {
        "receive_line": lambda sock: sock.receive_line(),
        "receive_until": lambda sock: sock.receive_until(b"\n"),
        "receive_exactly": lambda sock: sock.receive_exactly(len(record)),
        "receive_message": lambda sock: sock.receive_message(lambda stream: stream.read_raw_data(len(record))),
        "lines": lambda sock: anext(sock.lines()),
    }
    answers_in_a_step = []

    async with memory_sockets() as (sock, theirs):
        await theirs.send_all(record * 1000)
        with counted_steps() as steps:
            for _ in range(1000):
                before = steps[0]
                assert await receive[verb](sock) == record
                if steps[0] != before:
                    answers_in_a_step.append(0)
                answers_in_a_step[-1] += 1

    assert max(answers_in_a_step) == 64


async def test_a_task_that_is_slow_between_answers_gives_others_their_turn(mock_clock: trio.testing.MockClock) -> None:
    """After a millisecond it does not matter how few the answers were."""
    steps_after = []

    async with memory_sockets() as (sock, theirs):
        await theirs.send_all(b"line\n" * 10)
        await sock.receive_line()
        with counted_steps() as steps:
            for slowness in (0, 0.0009, 0.0002, 0, 1):
                mock_clock.jump(slowness)
                await sock.receive_line()
                steps_after.append(steps[0])

    assert steps_after == [0, 0, 1, 1, 2]


# ---- several tasks -----------------------------------------------------------------------------


@every_wait
@pytest.mark.parametrize("second", WAITS.values(), ids=WAITS)
async def test_one_task_at_a_time_may_receive(network: Network, wait: Call, second: Call) -> None:
    """The second is refused at once and disturbs nothing; after the first is cancelled the way is free at once."""
    async with connection(network) as pair:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, pair.sock)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await second(pair.sock)
                scope.cancel()
        await pair.arrive(b"0123456789--\n")

        assert await second(pair.sock) in (b"0123456789--\n", b"0123456789--", b"0123456789", True)


async def test_another_task_may_read_while_one_waits(network: Network) -> None:
    """What the waiting task has gathered can be looked at and taken; it goes on waiting for the rest of its line."""
    async with connection(network) as pair:
        seen, lines = [], []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                lines.append(await pair.sock.receive_line())

            await trio.testing.wait_all_tasks_blocked()
            seen += [pair.sock.bytes_available(), pair.sock.read(1), pair.sock.can_read_line()]
            await pair.peer.send(b"abc")
            await trio.testing.wait_all_tasks_blocked()
            seen += [pair.sock.bytes_available(), pair.sock.peek(10), pair.sock.can_read_line(), pair.sock.read(2)]
            await pair.peer.send(b"d\nrest")

        assert seen == [0, b"", False, 3, b"abc", False, b"ab"]
        assert (lines, pair.sock.read_all()) == ([b"cd\n"], b"rest")


@pytest.mark.unwatched("what was read ahead can be looked at")
async def test_asking_the_system_steals_no_wake_up_from_a_waiting_task(network: Network) -> None:
    """Another task polls like mad at the very moment the bytes come; the one that waits still gets them."""
    async with connection(network) as pair:
        got: list[bytes] = []
        polled = set()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                got.append(await pair.sock.receive_some())

            await trio.testing.wait_all_tasks_blocked()
            pair.peer.send_now(b"abc")
            while unread_bytes(pair.sock.socket_descriptor()) < 3:
                pass  # without a turn for the task that waits
            while not got:
                polled.add(pair.sock.bytes_available())
                pair.sock.peek(1)
                pair.sock.can_read_line()
                await trio.lowlevel.checkpoint()

        assert got == [b"abc"]
        assert polled == {0}


async def test_nothing_is_put_back_under_a_waiting_task(network: Network) -> None:
    """It would not hear of it, and might sleep beside its line; so the call is refused, and has changed nothing."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        pair.sock.start_transaction()
        pair.sock.read(1)
        lines: list[bytes] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                lines.append(await pair.sock.receive_line())

            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                pair.sock.rollback_transaction()
            pair.sock.commit_transaction()
            with pytest.raises(trio.BusyResourceError):
                pair.sock.unget_char(b"\n")
            await pair.peer.send(b"d\n")

        assert lines == [b"bcd\n"]


# ---- in the wrong state ------------------------------------------------------------------------


@every_wait
async def test_receiving_without_a_connection_is_a_mistake(network: Network, wait: Call) -> None:
    """It says what was attempted in which state: never connected, outside of the block, and disconnected."""
    refused = []
    async with TcpSocket() as sock:
        refused.append(await refusal(lambda: wait(sock)))
    outside = TcpSocket()
    refused.append(await refusal(lambda: wait(outside)))
    async with connection(network) as pair:
        await pair.sock.disconnect_from_host()
        refused.append(await refusal(lambda: wait(pair.sock)))

    assert refused == [
        (ErrorKind.OPERATION, "cannot receive while unconnected"),
        (ErrorKind.OPERATION, "cannot receive outside of the socket's `async with` block"),
        (ErrorKind.OPERATION, "cannot receive while unconnected"),
    ]


@every_wait
@pytest.mark.parametrize("peer_finished", [False, True])
async def test_receiving_on_a_closed_socket(network: Network, wait: Call, peer_finished: bool) -> None:
    """Whatever the peer had done before, and whatever was unread: it is closed."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        if peer_finished:
            await pair.finish()
            await pair.sock.receive_exactly(3)
            await pair.sock.receive_some()
        else:
            pair.peer.close()
        await pair.sock.aclose()

        with pytest.raises(trio.ClosedResourceError):
            await wait(pair.sock)


@every_wait
async def test_receiving_on_an_aborted_socket(network: Network, wait: Call) -> None:
    """What was unread is dropped; every call says that the connection was ended here."""
    async with connection(network) as pair:
        await pair.arrive(b"0123456789--\n")
        pair.sock.peek(3)
        pair.sock.abort()

        with pytest.raises(trio.ClosedResourceError):
            await wait(pair.sock)


@every_wait
async def test_a_failure_is_raised_by_every_receiving_call(network: Network, wait: Call) -> None:
    """With the system's error as its cause, and the same each time; a new exception, so tracebacks do not pile up."""
    async with connection(network) as pair:
        await pair.reset()

        errors = []
        for _ in range(2):
            with pytest.raises(SocketError) as lost:
                await wait(pair.sock)
            errors.append(lost.value)

        assert errors[0] is not errors[1]
        for error in errors:
            assert (error.kind, error.message) == (pair.sock.error(), pair.sock.error_string())
            assert isinstance(error.__cause__, ConnectionResetError)
            assert error.errno == error.__cause__.errno


# ---- mistakes ----------------------------------------------------------------------------------

# fmt: off
BAD_CALLS: list[tuple[type[Exception], Call]] = [
    (TypeError,  lambda sock: sock.receive_some(1.5)),            # type: ignore[arg-type]
    (TypeError,  lambda sock: sock.receive_some("1")),            # type: ignore[arg-type]
    (ValueError, lambda sock: sock.receive_some(0)),
    (ValueError, lambda sock: sock.receive_some(-1)),
    (TypeError,  lambda sock: sock.receive_line(1.5)),            # type: ignore[arg-type]
    (TypeError,  lambda sock: sock.receive_line(None)),           # type: ignore[arg-type]
    (ValueError, lambda sock: sock.receive_line(0)),
    (ValueError, lambda sock: sock.receive_line(-1)),
    (TypeError,  lambda sock: sock.receive_line(math.inf)),       # type: ignore[arg-type]
    (TypeError,  lambda sock: sock.receive_until("\n")),          # type: ignore[arg-type]
    (TypeError,  lambda sock: sock.receive_until(10)),            # type: ignore[arg-type]
    (TypeError,  lambda sock: sock.receive_until(None)),          # type: ignore[arg-type]
    (ValueError, lambda sock: sock.receive_until(b"")),
    (ValueError, lambda sock: sock.receive_until(b"abc", 2)),
    (TypeError,  lambda sock: sock.receive_exactly(1.5)),         # type: ignore[arg-type]
    (TypeError,  lambda sock: sock.receive_exactly(None)),        # type: ignore[arg-type]
    (ValueError, lambda sock: sock.receive_exactly(-1)),
]
# fmt: on


async def test_wrong_arguments_are_refused_before_anything_is_touched(network: Network) -> None:
    """Wrong types and sizes raise at once, without waiting for bytes, and the next call works."""
    async with connection(network) as pair:
        for kind, call in BAD_CALLS:
            with pytest.raises(kind) as refused:
                await call(pair.sock)
            assert type(refused.value) is kind
        await pair.arrive(b"abc\n")

        assert await pair.sock.receive_line() == b"abc\n"
