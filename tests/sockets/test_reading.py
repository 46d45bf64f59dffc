"""Qt's reading verbs: they see what has arrived, the kernel's part too, and never wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.networks import Network, Virtual
from tests.sockets.arrivals import bytes_arrived, unread_bytes, until
from tests.sockets.pairs import connection
from trioqt import ErrorKind, SocketError, SocketOption, SocketState, TcpServer, TcpSocket

# ---- what has arrived is seen without waiting --------------------------------------------------


OVER_TLS = True


async def test_read_takes_what_the_kernel_holds(network: Network) -> None:
    """Nobody has waited for the bytes; they are there, so ``read`` has them."""
    async with connection(network) as pair:
        before = pair.sock.read(100)
        await pair.arrive(b"hello world")

        first, rest, nothing = pair.sock.read(5), pair.sock.read(100), pair.sock.read(100)

        assert (before, first, rest, nothing) == (b"", b"hello", b" world", b"")


async def test_bytes_available_counts_what_the_kernel_holds(network: Network) -> None:
    """The count grows by arriving and shrinks by reading, and asking twice changes nothing."""
    async with connection(network) as pair:
        counts = [pair.sock.bytes_available()]
        await pair.arrive(b"abc")
        counts += [pair.sock.bytes_available(), pair.sock.bytes_available()]
        await pair.arrive(b"de")
        counts.append(pair.sock.bytes_available())
        pair.sock.read(4)
        counts.append(pair.sock.bytes_available())

        assert counts == [0, 3, 3, 5, 1]


async def test_at_end_says_if_there_is_nothing_to_read_now(network: Network) -> None:
    """As in Qt: "at end" is said of the moment, and more may come."""
    async with connection(network) as pair:
        ends = [pair.sock.at_end()]
        await pair.arrive(b"a")
        ends.append(pair.sock.at_end())
        pair.sock.read_all()
        ends.append(pair.sock.at_end())

        assert ends == [True, False, True]


async def test_peek_leaves_the_bytes_where_they_are(network: Network) -> None:
    """Peeking any number of times reads nothing, and sees on what arrived meanwhile."""
    async with connection(network) as pair:
        nothing = pair.sock.peek(3)
        await pair.arrive(b"abc")
        first = [pair.sock.peek(0), pair.sock.peek(2), pair.sock.peek(100)]
        await pair.arrive(b"def")
        second = pair.sock.peek(100)

        assert (nothing, first, second) == (b"", [b"", b"ab", b"abc"], b"abcdef")
        assert pair.sock.read_all() == b"abcdef"


async def test_skip_drops_bytes_and_counts_them(network: Network) -> None:
    """It drops what is there and no more than asked, and says how much that was."""
    async with connection(network) as pair:
        await pair.arrive(b"abcdef")

        assert (pair.sock.skip(0), pair.sock.skip(2), pair.sock.read(1), pair.sock.skip(100), pair.sock.skip(100)) == (
            0,
            2,
            b"c",
            3,
            0,
        )


async def test_read_all_empties_the_kernel_and_the_buffer(network: Network) -> None:
    """Some bytes are in the buffer and some with the system: one call takes all."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        pair.sock.peek(1)
        await pair.arrive(b"def")

        assert (pair.sock.read_all(), pair.sock.read_all()) == (b"abcdef", b"")


async def test_read_takes_more_than_one_block(network: Network) -> None:
    """Without a limit on the buffer, a read is as large as it was asked to be."""
    data = bytes(range(256)) * 1000
    async with connection(network, read_buffer_size=0) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.peer.send, data)
        await until(lambda: pair.sock.bytes_available() == len(data))

        assert (pair.sock.read(100_000), pair.sock.read(10**12)) == (data[:100_000], data[100_000:])


async def test_get_char_takes_one_byte(network: Network) -> None:
    """One byte a call, and none when there is none."""
    async with connection(network) as pair:
        await pair.arrive(b"ab")

        assert [pair.sock.get_char() for _ in range(3)] == [b"a", b"b", b""]


async def test_unget_char_puts_a_byte_in_front(network: Network) -> None:
    """The byte need not be one that was read; it is the next one to be read, before and after more arrives."""
    async with connection(network) as pair:
        pair.sock.unget_char(b"x")
        await pair.arrive(b"bc\n")
        pair.sock.unget_char(b"\n")

        assert (pair.sock.bytes_available(), pair.sock.read_line(), pair.sock.read_line()) == (5, b"\n", b"xbc\n")


async def test_a_byte_is_put_back_where_a_connection_was_begun_and_not_before(network: Network) -> None:
    """A connection that begins drops what is unread, so the byte would be lost; one that has ended leaves it."""

    def outcome(sock: TcpSocket) -> object:
        try:
            sock.unget_char(b"x")
        except SocketError as error:
            return error.kind
        except trio.ClosedResourceError:
            return "closed"
        return sock.read_all()

    async with TcpSocket() as sock:
        fresh = outcome(sock)
        await sock.bind(network.host)
        bound = outcome(sock)
        sock.abort()
        with await network.raw_listener() as listener:
            port = listener.port
            await sock.connect_to_host(network.host, port)
            connected = outcome(sock)
            await sock.disconnect_from_host()
        ended = outcome(sock)
        sock.abort()
        with pytest.raises(SocketError):
            await sock.connect_to_host(network.host, port)
        refused = outcome(sock)

    assert (fresh, bound) == (ErrorKind.OPERATION, ErrorKind.OPERATION)
    assert (connected, ended, refused) == (b"x", b"x", b"x")


async def test_after_an_abort_no_byte_is_put_back(network: Network) -> None:
    """Nothing is left, and nothing comes that it could stand in front of."""
    async with connection(network) as pair:
        pair.sock.abort()

        with pytest.raises(trio.ClosedResourceError, match="cannot unget"):
            pair.sock.unget_char(b"x")

        assert pair.sock.bytes_available() == 0


async def test_an_ungot_byte_is_received_before_what_the_kernel_holds(network: Network) -> None:
    """The waiting verbs read the same sequence of bytes as the others."""
    async with connection(network) as pair:
        await pair.arrive(b"bc")
        pair.sock.unget_char(b"a")

        received = await pair.sock.receive_exactly(2)
        pair.sock.unget_char(b"z")

        assert (received, await pair.sock.receive_some()) == (b"ab", b"zc")


# ---- lines -------------------------------------------------------------------------------------


async def test_can_read_line_is_true_from_the_newline_on(network: Network) -> None:
    """Half a line is no line; the newline may come alone, and the next half line is none either."""
    async with connection(network) as pair:
        answers = [pair.sock.can_read_line()]
        for piece in (b"half", b" a line", b"\n", b"next"):
            await pair.arrive(piece)
            answers.append(pair.sock.can_read_line())
        pair.sock.read_line()
        answers.append(pair.sock.can_read_line())

        assert answers == [False, False, False, True, True, False]


# fmt: off
LINES: list[tuple[bytes, list[int], list[bytes]]] = [
    (b"one\ntwo\n",   [100, 100, 100], [b"one\n", b"two\n", b""]),
    (b"\n\n",         [100, 100, 100], [b"\n", b"\n", b""]),
    (b"one\ntw",      [100, 100, 100], [b"one\n", b"tw", b""]),      # without a newline yet, what there is
    (b"one\r\ntwo\n", [100, 100],      [b"one\r\n", b"two\n"]),
    (b"abcd\ne\n",    [4, 4, 4],       [b"abcd", b"\n", b"e\n"]),    # the newline just beyond the limit
    (b"abc\ne\n",     [4, 4, 4],       [b"abc\n", b"e\n", b""]),     # at it
    (b"ab\ne\n",      [4, 4, 4],       [b"ab\n", b"e\n", b""]),      # before it
    (b"abcdef",       [4, 4, 4],       [b"abcd", b"ef", b""]),
    (b"ab\n",         [1, 1, 1],       [b"a", b"b", b"\n"]),
]
# fmt: on


@pytest.mark.parametrize(("arrived", "limits", "lines"), LINES)
async def test_read_line_takes_a_line_or_what_there_is(
    network: Network, arrived: bytes, limits: list[int], lines: list[bytes]
) -> None:
    """A line has its newline, and at most the limit of it is taken; Qt's limit counts one more."""
    async with connection(network) as pair:
        await pair.arrive(arrived)

        assert [pair.sock.read_line(limit) for limit in limits] == lines


async def test_read_line_finds_the_newline_behind_what_an_earlier_search_has_seen(network: Network) -> None:
    """A search goes on where the last one ended, and nothing that changes the buffer in between confuses it."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        before = pair.sock.can_read_line()
        skipped = pair.sock.skip(2)
        await pair.arrive(b"d\ne")
        line = pair.sock.read_line()
        no_line = pair.sock.can_read_line()
        pair.sock.unget_char(b"\n")

        assert (before, skipped, line, no_line) == (False, 2, b"cd\n", False)
        assert (pair.sock.can_read_line(), pair.sock.read_line(), pair.sock.read_line()) == (True, b"\n", b"e")


@pytest.mark.parametrize("size", [65536, 65537, 100_000, 3_000_000])
async def test_a_line_that_was_seen_comes_whole(network: Network, size: int) -> None:
    """``while can_read_line(): read_line()``, with no limit on the buffer as in Qt; lines used to be cut at 64 KiB."""
    line = b"x" * (size - 1) + b"\n"
    lines: list[bytes] = []
    async with connection(network, read_buffer_size=0) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.peer.send, line + b"\n" + line + b"rest")
        while sum(map(len, lines)) < 2 * size + 1:
            assert await pair.sock.wait_for_ready_read()
            while pair.sock.can_read_line():
                lines.append(pair.sock.read_line())

        assert lines == [line, b"\n", line]
        assert await pair.sock.receive_exactly(4) == b"rest"


async def test_a_line_that_grows_without_a_limit_is_found_by_asking_alone(network: Network) -> None:
    """Each question takes a megabyte more from the system, however much there is already."""
    line = bytes(3_000_000) + b"\n"
    async with connection(network, read_buffer_size=0) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.peer.send, line)
        await until(pair.sock.can_read_line)

        assert pair.sock.read_line() == line


async def test_a_line_longer_than_the_bound_of_the_buffer_comes_whole_too(network: Network) -> None:
    """A receive that gave up may have read on past the bound; then the line is there, and is not cut."""
    async with connection(network, read_buffer_size=8) as pair:
        await pair.arrive(b"0123456789abc\n.")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.sock.receive_exactly, 100)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

        assert pair.sock.can_read_line()
        assert (pair.sock.read_line(5), pair.sock.read_line(), pair.sock.read_line()) == (b"01234", b"56789abc\n", b".")


# ---- transactions ------------------------------------------------------------------------------


async def test_a_rollback_brings_back_what_was_read(network: Network) -> None:
    """By whatever verb it was read, also what arrived after the transaction began."""
    async with connection(network) as pair:
        await pair.arrive(b"one\ntwo\n")
        pair.sock.read(1)
        pair.sock.start_transaction()
        read = [pair.sock.read_line(), pair.sock.get_char(), pair.sock.skip(1)]
        await pair.arrive(b"three\n")
        read += [pair.sock.read_all(), pair.sock.bytes_available()]

        pair.sock.rollback_transaction()

        assert read == [b"ne\n", b"t", 1, b"o\nthree\n", 0]
        assert (pair.sock.bytes_available(), pair.sock.can_read_line()) == (13, True)
        assert pair.sock.read_all() == b"ne\ntwo\nthree\n"


async def test_a_commit_lets_go_of_what_was_read(network: Network) -> None:
    """After it, only what was unread is left, and a new transaction begins there."""
    async with connection(network) as pair:
        await pair.arrive(b"abcdef")
        pair.sock.start_transaction()
        pair.sock.read(2)
        pair.sock.commit_transaction()
        pair.sock.start_transaction()
        second = pair.sock.read(2)
        pair.sock.rollback_transaction()

        assert (second, pair.sock.read_all()) == (b"cd", b"cdef")


async def test_what_is_received_in_a_transaction_comes_back_too(network: Network) -> None:
    """The waiting verbs take part: a parser may wait for more, give up, and begin anew."""
    async with connection(network) as pair:
        pair.sock.start_transaction()
        await pair.arrive(b"some line\nexact")
        received = [
            await pair.sock.receive_some(4),
            await pair.sock.receive_line(),
            await pair.sock.receive_exactly(2),
            await pair.sock.receive_until(b"c"),
        ]

        pair.sock.rollback_transaction()

        assert received == [b"some", b" line\n", b"ex", b"ac"]
        assert await pair.sock.receive_some() == b"some line\nexact"


async def test_bytes_of_a_transaction_count_against_the_buffer_bound(network: Network) -> None:
    """What a rollback would bring back is still held, so it takes room; a commit gives the room back."""
    async with connection(network, read_buffer_size=10) as pair:
        await pair.arrive(b"0123456789abcdefghij")
        pair.sock.start_transaction()
        in_transaction = [pair.sock.read(4), pair.sock.read(100), pair.sock.read(100), pair.sock.bytes_available()]
        pair.sock.rollback_transaction()
        available = pair.sock.bytes_available()
        pair.sock.start_transaction()
        pair.sock.read(10)
        pair.sock.commit_transaction()

        assert in_transaction == [b"0123", b"456789", b"", 0]
        assert (available, pair.sock.read_all()) == (10, b"abcdefghij")


async def test_a_wait_in_a_transaction_that_holds_all_the_room_fails(network: Network) -> None:
    """Nothing more can come in, so waiting would be for ever; nothing is lost by the refusal."""
    async with connection(network, read_buffer_size=10) as pair:
        await pair.arrive(b"0123456789abcdefghij")
        pair.sock.start_transaction()
        received = [await pair.sock.receive_some(4) for _ in range(3)]

        kinds = []
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: pair.sock.receive_some(4),
            lambda: pair.sock.receive_exactly(4),
            pair.sock.wait_for_ready_read,
        ]
        for call in calls:
            with pytest.raises(SocketError) as refused:
                await call()
            kinds.append(refused.value.kind)
        pair.sock.rollback_transaction()

        assert received == [b"0123", b"4567", b"89"]
        assert kinds == [ErrorKind.LIMIT_EXCEEDED] * 3
        assert await pair.sock.receive_exactly(20) == b"0123456789abcdefghij"


async def test_transactions_do_not_nest(network: Network) -> None:
    """A second start, and an end without a start, are refused and change nothing."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        refused = []

        def refuses(call: Callable[[], None]) -> None:
            with pytest.raises(SocketError) as refusal:
                call()
            refused.append((refusal.value.kind, refusal.value.message))

        refuses(pair.sock.commit_transaction)
        refuses(pair.sock.rollback_transaction)
        pair.sock.start_transaction()
        pair.sock.read(1)
        refuses(pair.sock.start_transaction)
        refuses(lambda: pair.sock.unget_char(b"x"))
        pair.sock.rollback_transaction()

        assert refused == [
            (ErrorKind.OPERATION, "cannot commit outside of a transaction"),
            (ErrorKind.OPERATION, "cannot roll back outside of a transaction"),
            (ErrorKind.OPERATION, "cannot start a transaction in a transaction"),
            (ErrorKind.OPERATION, "cannot unget in a transaction"),
        ]
        assert pair.sock.read_all() == b"abc"


# ---- the bound ---------------------------------------------------------------------------------


@pytest.mark.plain("it counts what the system holds")
async def test_nothing_is_read_beyond_the_bound(network: Network) -> None:
    """The buffer takes what it may, the kernel keeps the rest, and every read makes room for as much more."""
    data = bytes(range(100))
    async with connection(network, read_buffer_size=7) as pair:
        await pair.arrive(data)
        left = []
        counts = []
        got = b""
        for size in (0, 1, 3, 7, 100):
            counts.append(pair.sock.bytes_available())
            left.append(unread_bytes(pair.sock.socket_descriptor()))
            got += pair.sock.read(size)

        assert counts == [7, 7, 7, 7, 7]
        assert left == [93, 93, 92, 89, 82]
        assert (got, data[: len(got)]) == (data[:18], data[:18])


@pytest.mark.plain("it counts what the system holds")
async def test_the_bound_is_exact_when_watching_and_asking_take_turns(network: Network) -> None:
    """A subscription reads ahead, then ends, then calls ask the kernel: never is more held than the bound."""
    data = bytes(range(256)) * 4
    async with connection(network, read_buffer_size=100) as pair:
        await pair.arrive(data)
        descriptor = pair.sock.socket_descriptor()
        got, held = b"", []

        def note() -> None:
            held.append(len(data) - len(got) - unread_bytes(descriptor))

        for turn in range(10):
            async with pair.sock.events():
                await trio.testing.wait_all_tasks_blocked()
                note()
                got += pair.sock.read(turn * 3)
                await trio.testing.wait_all_tasks_blocked()
                note()
            pair.sock.bytes_available()
            note()
            got += pair.sock.read(turn * 5)
            pair.sock.peek(1000)
            note()

        assert set(held) <= set(range(101))
        assert max(held) == 100
        assert got == data[: len(got)]


@pytest.mark.plain("it counts what the system holds")
@pytest.mark.parametrize("watched", [False, True])
async def test_raising_the_bound_of_a_full_buffer_lets_more_in(network: Network, watched: bool) -> None:
    """Whoever reads ahead goes on at once; lowering it below what is held drops nothing and lets nothing in."""
    async with connection(network, read_buffer_size=10) as pair, maybe_watched(pair.sock, watched):
        await pair.peer.send(bytes(range(50)))
        await bytes_arrived(pair.sock, 50 if not watched else 40)
        left = []

        async def note(size: int | None) -> None:
            if size is not None:
                pair.sock.set_read_buffer_size(size)
            await trio.testing.wait_all_tasks_blocked()
            left.append((pair.sock.bytes_available(), unread_bytes(pair.sock.socket_descriptor())))

        await note(None)
        await note(30)
        await note(5)
        taken = pair.sock.read(26)
        await note(None)
        await note(0)

        assert left == [(10, 40), (30, 20), (30, 20), (5, 19), (24, 0)]
        assert (taken, pair.sock.read_all()) == (bytes(range(26)), bytes(range(26, 50)))
        assert pair.sock.read_buffer_size() == 0


@asynccontextmanager
async def maybe_watched(sock: TcpSocket, watched: bool) -> AsyncIterator[None]:
    """With or without somebody who listens to the socket."""
    if not watched:
        yield
        return
    async with sock.events():
        await trio.testing.wait_all_tasks_blocked()
        yield


@pytest.mark.plain("it counts what the system holds")
async def test_lowering_the_bound_under_a_waiting_reader_holds_at_once(network: Network) -> None:
    """``wait_for_ready_read`` began with much room; what comes after the room has shrunk obeys the new bound."""
    async with connection(network) as pair:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.sock.wait_for_ready_read)
            await trio.testing.wait_all_tasks_blocked()
            pair.sock.set_read_buffer_size(10)
            await pair.peer.send(bytes(50))

        assert (pair.sock.bytes_available(), unread_bytes(pair.sock.socket_descriptor())) == (10, 40)


@pytest.mark.plain("it counts what the system holds")
async def test_a_waiting_verb_may_read_on_up_to_its_own_limit(network: Network) -> None:
    """The bound is for reading ahead: who asks for more than that gets it, and no more than asked is taken in."""
    data = bytes(range(100))
    async with connection(network, read_buffer_size=10) as pair:
        await pair.arrive(data)

        received = await pair.sock.receive_exactly(50)

        assert received == data[:50]
        assert unread_bytes(pair.sock.socket_descriptor()) == 50
        assert (await pair.sock.receive_until(data[70:71]), pair.sock.read_all()) == (data[50:71], data[71:100])


@pytest.mark.parametrize("watched", [False, True])
async def test_without_a_bound_everything_is_read(network: Network, watched: bool) -> None:
    """0 is Qt's default: no limit."""
    async with connection(network, read_buffer_size=0) as pair, maybe_watched(pair.sock, watched):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.peer.send, bytes(300_000))
            await until(lambda: pair.sock.bytes_available() == 300_000)

        assert unread_bytes(pair.sock.socket_descriptor()) == 0
        assert len(pair.sock.read_all()) == 300_000


# ---- after an end ------------------------------------------------------------------------------


async def test_bytes_in_front_of_the_peers_end_can_be_read(network: Network) -> None:
    """The end is found behind the bytes, and takes nothing away."""
    async with connection(network, read_buffer_size=4) as pair:
        await pair.arrive(b"last words")
        await pair.finish()

        got = [pair.sock.read(3), pair.sock.read(100), pair.sock.read(100), pair.sock.read(100)]

        assert got == [b"las", b"t wo", b"rds", b""]
        assert (pair.sock.state(), pair.sock.error(), pair.sock.at_end()) == (SocketState.CONNECTED, None, True)


async def test_bytes_in_front_of_a_reset_can_be_read(network: Network) -> None:
    """The reset came before anybody had read; sync verbs tell it by state() and error(), and give all bytes."""
    async with connection(network, read_buffer_size=4) as pair:
        await pair.arrive(b"last words")
        await pair.reset()

        got = [pair.sock.read(3), pair.sock.read(100), pair.sock.read(100), pair.sock.read(100)]

        assert b"".join(got) == b"last words"
        assert (got[0], got[-1]) == (b"las", b"")
        assert (pair.sock.state(), pair.sock.error()) == (SocketState.UNCONNECTED, ErrorKind.REMOTE_HOST_CLOSED)


async def test_bytes_in_front_of_a_failed_write_can_be_read(network: Network) -> None:
    """The write finds the reset first; everything that had arrived is saved, more than the bound if need be."""
    async with connection(network, read_buffer_size=4) as pair:
        await pair.arrive(b"last words\nand more")
        await pair.reset()

        with pytest.raises(SocketError) as lost:
            pair.sock.write(b"x")

        assert lost.value.kind is ErrorKind.REMOTE_HOST_CLOSED
        assert (pair.sock.bytes_available(), pair.sock.can_read_line()) == (19, True)
        assert (pair.sock.peek(4), pair.sock.read_line()) == (b"last", b"last words\n")
        assert pair.sock.read_all() == b"and more"


@pytest.mark.parametrize("buffered", [0, 4])
async def test_bytes_that_had_arrived_can_be_read_after_disconnecting(network: Network, buffered: int) -> None:
    """Our own end is an end too: what was in the buffer or with the kernel stays, however small the buffer."""
    async with connection(network, read_buffer_size=4) as pair:
        await pair.arrive(b"last words")
        pair.sock.peek(buffered)
        await pair.finish()

        await pair.sock.disconnect_from_host()

        assert pair.sock.state() is SocketState.UNCONNECTED
        assert (pair.sock.bytes_available(), pair.sock.read(4), pair.sock.read_all()) == (10, b"last", b" words")
        assert await pair.peer.receive_to_end() == b""


@pytest.mark.unwatched("it is about the system's buffer")
async def test_however_much_had_arrived_it_can_be_read_after_disconnecting(network: Network) -> None:
    """Receiving fast has made the system's buffer large; what it holds when we stop is all there after our end."""
    received = bytearray()
    async with connection(network) as pair:
        if isinstance(network, Virtual):  # whose buffers do not grow by themselves
            pair.sock.set_socket_option(SocketOption.RECEIVE_BUFFER_SIZE, 200_000)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                while True:
                    await pair.peer.send(bytes(range(250)) * 1000)

            while len(received) < 30_000_000:
                received += await pair.sock.receive_some()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        pair.peer.finish()
        held = unread_bytes(pair.sock.socket_descriptor())
        before = len(received)

        await pair.sock.disconnect_from_host()
        received += pair.sock.read_all()

        assert held > 65536
        assert len(received) >= before + held
        assert bytes(received) == (bytes(range(250)) * (len(received) // 250 + 1))[: len(received)]


async def test_a_transaction_outlives_the_connection(network: Network) -> None:
    """What it read before the peer reset can be brought back after."""
    async with connection(network) as pair:
        await pair.arrive(b"abcdef")
        pair.sock.start_transaction()
        pair.sock.read(3)
        await pair.reset()
        pair.sock.bytes_available()
        state = pair.sock.state()

        pair.sock.rollback_transaction()

        assert (state, pair.sock.read_all()) == (SocketState.UNCONNECTED, b"abcdef")


async def test_abort_drops_unread_bytes(network: Network) -> None:
    """They are gone, an open transaction with them, and reading finds nothing rather than failing."""
    async with connection(network) as pair:
        await pair.arrive(b"abc")
        pair.sock.start_transaction()
        pair.sock.read(1)

        pair.sock.abort()

        assert (pair.sock.bytes_available(), pair.sock.read(10), pair.sock.read_line(), pair.sock.at_end()) == (
            0,
            b"",
            b"",
            True,
        )
        with pytest.raises(SocketError) as refused:
            pair.sock.rollback_transaction()
        assert refused.value.kind is ErrorKind.OPERATION


async def test_a_closed_socket_gives_no_bytes(network: Network) -> None:
    """After its block every call that would read raises; asking how much there is says: none."""
    calls: list[Callable[[TcpSocket], object]] = [
        lambda sock: sock.read(1),
        lambda sock: sock.read_all(),
        lambda sock: sock.read_line(),
        lambda sock: sock.peek(1),
        lambda sock: sock.skip(1),
        lambda sock: sock.get_char(),
        lambda sock: sock.unget_char(b"a"),
        lambda sock: sock.start_transaction(),
        lambda sock: sock.commit_transaction(),
        lambda sock: sock.rollback_transaction(),
    ]
    async with connection(network) as pair:
        await pair.arrive(b"abc\n")
        pair.sock.peek(4)
        pair.peer.finish()
        await pair.sock.aclose()

        raised = []
        for call in calls:
            with pytest.raises(trio.ClosedResourceError) as closed:
                call(pair.sock)
            raised.append(type(closed.value))

        assert raised == [trio.ClosedResourceError] * len(calls)
        assert (pair.sock.bytes_available(), pair.sock.can_read_line()) == (0, False)


@pytest.mark.unwatched("its task holds the nursery")
async def test_a_socket_whose_nursery_has_ended_gives_no_bytes(network: Network) -> None:
    """Such a socket is closed, even if nobody closed it."""
    async with trio.open_nursery() as nursery:
        sock, peer = await network.connected(nursery)
        await peer.send(b"abc")
        await bytes_arrived(sock, 3)

    with peer, pytest.raises(trio.ClosedResourceError):
        sock.read(3)

    assert sock.state() is SocketState.UNCONNECTED


async def test_over_a_stream_there_is_what_has_been_received_so_far() -> None:
    """A stream cannot be asked without waiting: reading sees what a wait, or a watcher, has brought."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as sock:
        await theirs.send_all(b"abc\ndef")
        unasked = (sock.bytes_available(), sock.read(1), sock.at_end())
        line = await sock.receive_line()
        after = (sock.bytes_available(), sock.read(1))
        async with sock.events():
            await theirs.send_all(b"ghi\n")
            await trio.testing.wait_all_tasks_blocked()
            watched = (sock.can_read_line(), sock.read_all())

        assert (unasked, line, after, watched) == ((0, b"", True), b"abc\n", (3, b"d"), (True, b"efghi\n"))
        sock.abort()


async def test_a_socket_that_never_connected_has_nothing_to_read() -> None:
    """Reading before there is a connection is no mistake: nothing has arrived."""
    async with TcpSocket() as sock:
        assert (sock.read(1), sock.read_all(), sock.read_line(), sock.peek(1), sock.skip(1), sock.get_char()) == (
            b"",
            b"",
            b"",
            b"",
            0,
            b"",
        )
        assert (sock.bytes_available(), sock.can_read_line(), sock.at_end()) == (0, False, True)


# ---- mistakes ----------------------------------------------------------------------------------

# fmt: off
BAD_CALLS: list[tuple[type[Exception], Callable[[TcpSocket], object]]] = [
    (TypeError,  lambda sock: sock.read(1.5)),                   # type: ignore[arg-type]
    (TypeError,  lambda sock: sock.read("1")),                   # type: ignore[arg-type]
    (TypeError,  lambda sock: sock.read(None)),                  # type: ignore[arg-type]
    (ValueError, lambda sock: sock.read(-1)),
    (TypeError,  lambda sock: sock.peek(1.5)),                   # type: ignore[arg-type]
    (ValueError, lambda sock: sock.peek(-1)),
    (TypeError,  lambda sock: sock.skip(1.5)),                   # type: ignore[arg-type]
    (ValueError, lambda sock: sock.skip(-1)),
    (TypeError,  lambda sock: sock.read_line(1.5)),              # type: ignore[arg-type]
    (ValueError, lambda sock: sock.read_line(0)),
    (ValueError, lambda sock: sock.read_line(-1)),
    (TypeError,  lambda sock: sock.unget_char("a")),             # type: ignore[arg-type]
    (TypeError,  lambda sock: sock.unget_char(97)),              # type: ignore[arg-type]
    (ValueError, lambda sock: sock.unget_char(b"")),
    (ValueError, lambda sock: sock.unget_char(b"ab")),
    (TypeError,  lambda sock: sock.set_read_buffer_size(1.5)),   # type: ignore[arg-type]
    (TypeError,  lambda sock: sock.set_read_buffer_size(None)),  # type: ignore[arg-type]
    (ValueError, lambda sock: sock.set_read_buffer_size(-1)),
    (TypeError,  lambda sock: sock.lines(1.5)),                  # type: ignore[arg-type]
    (ValueError, lambda sock: sock.lines(0)),
]
# fmt: on


async def test_wrong_arguments_are_refused_before_anything_is_touched(network: Network) -> None:
    """Wrong types and negative sizes raise, and every byte is still there."""
    async with connection(network) as pair:
        await pair.arrive(b"abc\n")

        for kind, call in BAD_CALLS:
            with pytest.raises(kind) as refused:
                call(pair.sock)
            assert type(refused.value) is kind

        assert (pair.sock.read_buffer_size(), pair.sock.read_all()) == (65536, b"abc\n")


# ---- Lines that were split off together ----------------------------------------------------------


async def test_lines_that_were_split_off_together_are_still_bytes_to_every_other_verb(network: Network) -> None:
    """A block of lines is split once; what is read, put back or brought back between them is what had come."""
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as peer:
            sock = await server.accept()
            block = b"".join(b"line %d\n" % number for number in range(12))
            await peer.send(block + b"rest")
            assert [await sock.receive_line(), sock.read_line()] == [b"line 0\n", b"line 1\n"]
            assert (sock.bytes_available(), sock.peek(9)) == (len(block) + 4 - 14, b"line 2\nli")
            assert [sock.read(3), sock.read_line(), await sock.receive_line()] == [b"lin", b"e 2\n", b"line 3\n"]
            assert sock.can_read_line()
            sock.unget_char(b"!")
            assert [sock.can_read_line(), sock.read_line(), sock.read_line()] == [True, b"!line 4\n", b"line 5\n"]
            sock.start_transaction()
            assert [sock.read_line(), await sock.receive_line()] == [b"line 6\n", b"line 7\n"]
            sock.rollback_transaction()
            assert [sock.read_line(4), sock.read_line()] == [b"line", b" 6\n"]
            assert await sock.receive_until(b" 8") == b"line 7\nline 8"
            assert [sock.read_line(), await sock.receive_line()] == [b"\n", b"line 9\n"]
            with pytest.raises(SocketError) as refused:
                await sock.receive_line(max_bytes=6)
            assert refused.value.kind is ErrorKind.LIMIT_EXCEEDED
            assert [await sock.receive_line(max_bytes=8), sock.read_line()] == [b"line 10\n", b"line 11\n"]
            assert (sock.can_read_line(), sock.read_all()) == (False, b"rest")


async def test_a_line_that_was_split_off_is_not_taken_by_who_is_cancelled(network: Network) -> None:
    """Each looks for cancellation, the steps of ``lines`` too, and those that are there already."""
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as peer:
            sock = await server.accept()
            await peer.send(b"a\nb\nc\nd\ne\n")
            seen = [await sock.receive_line(), await sock.receive_line()]
            with trio.CancelScope() as scope:
                scope.cancel()
                seen.append(await sock.receive_line())
            lines = sock.lines()
            with trio.CancelScope() as other:
                async for line in lines:
                    seen.append(line)
                    other.cancel()
            seen += [await anext(lines), await anext(lines)]

    assert (scope.cancelled_caught, other.cancelled_caught) == (True, True)
    assert seen == [b"a\n", b"b\n", b"c\n", b"d\n", b"e\n"]
