"""Whole messages: ``receive_message``, the block of ``transaction``, and ``receive_until`` with several delimiters."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.certificates import Contexts
from tests.networks import Network
from tests.sockets.pairs import connection
from trioqt import (
    DataStream,
    DataStreamError,
    DataStreamVersion,
    ErrorKind,
    Incomplete,
    ReadyRead,
    SocketError,
    SslServer,
    SslSocket,
    TcpServer,
    TcpSocket,
)
from trioqt.core.buffers import Delimiters, ReadBuffer

NAME = "peer.example"  # in the certificates
LIMIT = ErrorKind.LIMIT_EXCEEDED


@attrs.frozen
class Pair:
    """A socket, and who sends to it."""

    sock: TcpSocket
    send: Callable[[bytes], Awaitable[None]]


@asynccontextmanager
async def pair_over(medium: str, network: Network, tls: Contexts) -> AsyncIterator[Pair]:
    """TCP, TLS, or a trio stream."""
    if medium == "stream":
        ours, theirs = trio.testing.memory_stream_pair()
        async with TcpSocket.from_stream(ours) as sock:
            yield Pair(sock, theirs.send_all)
            sock.abort()
        return
    server: TcpServer[Any] = SslServer(tls.server) if medium == "tls" else TcpServer()
    client = SslSocket(context=tls.client) if medium == "tls" else TcpSocket()
    async with server, client:
        await server.listen(network.host)
        async with trio.open_nursery() as nursery:
            accepted: list[TcpSocket] = []

            async def accept() -> None:
                accepted.append(await server.accept())

            nursery.start_soon(accept)
            if isinstance(client, SslSocket):
                await client.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
            else:
                await client.connect_to_host(network.host, server.server_port())
        async with accepted[0] as sock:
            yield Pair(client, sock.send_all)
            client.abort()


every_medium = pytest.mark.parametrize("medium", ["tcp", "tls", "stream"])
watched_or_not = pytest.mark.parametrize("watched", [False, True], ids=["unwatched", "watched"])


async def refusal(call: Callable[[], Awaitable[object]]) -> tuple[ErrorKind, str]:
    with pytest.raises(SocketError) as caught:
        await call()
    return caught.value.kind, caught.value.message


# ---- transaction -------------------------------------------------------------------------------


@every_medium
@watched_or_not
async def test_a_transaction_is_not_bound_by_the_read_buffer(
    network: Network, tls: Contexts, medium: str, watched: bool
) -> None:
    """100,000 bytes in one, and then 100,000 more, where the buffer holds 64 KiB; given up, all are there again."""
    data = bytes(range(250)) * 800
    async with pair_over(medium, network, tls) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.send, data)
        async with pair.sock.events(ReadyRead) if watched else nullcontext():
            with pytest.raises(LookupError):
                async with pair.sock.transaction():
                    given_up = [await pair.sock.receive_exactly(100_000) for _ in range(2)]
                    raise LookupError
            async with pair.sock.transaction():
                taken = [await pair.sock.receive_exactly(100_000) for _ in range(2)]

    assert given_up == taken == [data[:100_000], data[100_000:]]


@every_medium
async def test_a_transaction_that_is_cancelled_gives_everything_back(
    network: Network, tls: Contexts, medium: str, autojump_clock: trio.testing.MockClock
) -> None:
    """By whatever verb it was read in the block."""
    async with pair_over(medium, network, tls) as pair:
        await pair.send(b"line\n1234rest;more")
        with trio.move_on_after(1) as scope:
            async with pair.sock.transaction():
                taken = [
                    await pair.sock.receive_line(),
                    await pair.sock.receive_exactly(4),
                    await pair.sock.receive_until(b";"),
                    await pair.sock.receive_some(2),
                    pair.sock.read(2),
                ]
                await pair.sock.receive_exactly(1)
        rest = pair.sock.read_all()

    assert scope.cancelled_caught
    assert taken == [b"line\n", b"1234", b"rest;", b"mo", b"re"]
    assert rest == b"line\n1234rest;more"


async def test_what_a_transaction_has_received_is_gone_after_it(network: Network) -> None:
    """And nothing of it is held."""
    async with connection(network) as pair:
        await pair.arrive(b"one two")
        async with pair.sock.transaction():
            one = await pair.sock.receive_exactly(4)
        started = pair.sock.is_transaction_started()
        two = pair.sock.read_all()

    assert (one, started, two) == (b"one ", False, b"two")


async def test_each_receive_in_a_transaction_is_told_its_bound(network: Network) -> None:
    """As soon as it is known, whatever is in the buffer; and after the block all is readable."""
    async with connection(network) as pair:
        await pair.arrive(b"0123456789\nabcdef")
        sock = pair.sock
        told = []
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: sock.receive_exactly(6),
            lambda: sock.receive_line(),
            lambda: sock.receive_until(b"\n"),
            lambda: sock.receive_until((b"\n", b";")),
            lambda: sock.receive_message(lambda stream: stream.read_raw_data(6)),
        ]
        for call in calls:
            with pytest.raises(LookupError):
                async with sock.transaction(8):
                    await sock.receive_exactly(3)
                    told.append(await refusal(call))
                    assert await sock.receive_some() == b"34567"
                    told.append(await refusal(sock.receive_some))
                    assert await sock.receive_exactly(0) == b""
                    raise LookupError
        rest = sock.read_all()

    assert [kind for kind, _ in told] == [LIMIT] * 10
    assert [message for _, message in told[::2]] == [
        "the transaction may take 5 more bytes, not 6; its max_bytes is 8",
        "5 bytes arrived without b'\\n', and the transaction may take no more",
        "5 bytes arrived without b'\\n', and the transaction may take no more",
        "5 bytes arrived without b'\\n' or b';', and the transaction may take no more",
        "a message needs 6 bytes, and may have 5",
    ]
    assert {message for _, message in told[1::2]} == {"the transaction is full: its max_bytes is 8"}
    assert rest == b"0123456789\nabcdef"


@watched_or_not
async def test_a_transaction_reads_no_more_ahead_than_the_buffer_may(network: Network, watched: bool) -> None:
    """What it has taken counts against its own bound, what nobody has asked for against read_buffer_size."""
    async with connection(network, read_buffer_size=100) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.peer.send, b"x" * 2000)
        async with pair.sock.events(ReadyRead) if watched else nullcontext():
            async with pair.sock.transaction(1000):
                await pair.sock.receive_exactly(500)
                await trio.testing.wait_all_tasks_blocked()
                ahead = pair.sock.bytes_available()
                with pytest.raises(LookupError):
                    raise LookupError
                assert await refusal(lambda: pair.sock.receive_exactly(501)) == (
                    LIMIT,
                    "the transaction may take 500 more bytes, not 501; its max_bytes is 1000",
                )
                assert await pair.sock.receive_exactly(500) == b"x" * 500
                assert (await refusal(pair.sock.wait_for_ready_read))[0] is LIMIT

    assert ahead <= 100


async def test_a_transaction_in_a_transaction_is_refused(network: Network) -> None:
    """Whichever way either was begun; the outer one is not touched."""
    async with connection(network) as pair:
        sock = pair.sock
        await pair.arrive(b"abc")

        async def enter() -> None:
            async with sock.transaction():
                raise AssertionError

        told = []
        async with sock.transaction():
            assert await sock.receive_exactly(1) == b"a"
            told.append(await refusal(enter))
            with pytest.raises(SocketError) as caught:
                sock.start_transaction()
            told.append((caught.value.kind, caught.value.message))
            assert await sock.receive_exactly(1) == b"b"
        sock.start_transaction()
        assert await sock.receive_exactly(1) == b"c"
        told.append(await refusal(enter))
        sock.rollback_transaction()
        assert sock.read_all() == b"c"

    assert told == [(ErrorKind.OPERATION, "cannot start a transaction in a transaction")] * 3


async def test_a_transaction_may_be_ended_before_its_block(network: Network) -> None:
    """Then the block's end has nothing to do, and what is read after it is not its."""
    async with connection(network) as pair:
        await pair.arrive(b"abcdef")
        with pytest.raises(LookupError):
            async with pair.sock.transaction():
                await pair.sock.receive_exactly(1)
                pair.sock.commit_transaction()
                await pair.sock.receive_exactly(1)
                raise LookupError
        async with pair.sock.transaction():
            await pair.sock.receive_exactly(1)
            pair.sock.rollback_transaction()
            again = await pair.sock.receive_exactly(1)
            pair.sock.start_transaction()  # another one, which is not the block's to end
            await pair.sock.receive_exactly(1)
        pair.sock.rollback_transaction()
        rest = pair.sock.read_all()

    assert (again, rest) == (b"c", b"def")


async def test_another_task_cannot_receive_in_a_transaction(network: Network) -> None:
    """It would take bytes that the block may have to give back; and it cannot end it."""
    async with connection(network) as pair:
        sock = pair.sock
        await pair.arrive(b"line\n" * 3)
        busy: list[str] = []

        async def intrude(call: Callable[[], object]) -> None:
            with pytest.raises(trio.BusyResourceError, match="another task is in a transaction on this socket"):
                waits = call()
                assert isinstance(waits, Awaitable)
                await waits
            busy.append("busy")

        calls: list[Callable[[], object]] = [
            *(sock.receive_some, sock.receive_line, sock.lines().__anext__, sock.wait_for_ready_read),
            lambda: sock.receive_until(b"\n"),
            lambda: sock.receive_exactly(1),
            lambda: sock.receive_message(DataStream.read_bool),
            *(sock.commit_transaction, sock.rollback_transaction),
        ]
        async with sock.transaction():
            assert await sock.receive_line() == b"line\n"
            async with trio.open_nursery() as nursery:
                for call in calls:
                    nursery.start_soon(intrude, call)
            assert await sock.receive_line() == b"line\n"
        assert await sock.receive_line() == b"line\n"

    assert busy == ["busy"] * len(calls)


@watched_or_not
async def test_another_task_cannot_read_in_a_transaction(network: Network, watched: bool) -> None:
    """By a verb that does not wait: what it took would be there again, and come twice.  It may look."""
    async with connection(network) as pair:
        sock = pair.sock
        await pair.arrive(b"line\nline\nrest")
        calls: list[Callable[[], object]] = [
            *(sock.read_line, sock.read_all, sock.get_char),
            *(lambda: sock.read(1), lambda: sock.read_line(2), lambda: sock.skip(1)),
        ]
        looks: list[object] = []

        async def intrude() -> None:
            for call in calls:
                with pytest.raises(trio.BusyResourceError, match="another task is in a transaction on this socket"):
                    call()
            looks.extend((sock.peek(4), sock.bytes_available(), sock.can_read_line(), sock.at_end()))

        async with sock.events(ReadyRead) if watched else nullcontext():
            with pytest.raises(LookupError):
                async with sock.transaction():
                    taken = [await sock.receive_line()]
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(intrude)
                    taken += [call() for call in (sock.read_line, sock.get_char)]
                    raise LookupError
            rest = sock.read_all()

    assert taken == [b"line\n", b"line\n", b"r"]
    assert looks == [b"line", 9, True, False]
    assert rest == b"line\nline\nrest"


async def test_a_transaction_begins_when_nobody_receives(network: Network) -> None:
    """Else that task's bytes would be in it."""
    async with connection(network) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.sock.receive_exactly, 1)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            async with pair.sock.transaction():
                raise AssertionError
        await pair.peer.send(b"x")

    assert not pair.sock.is_valid() or not pair.sock.is_transaction_started()


@pytest.mark.parametrize("end", ["abort", "abort elsewhere", "lost", "finish", "disconnect"])
async def test_a_transaction_whose_connection_ends_is_over_without_a_word(network: Network, end: str) -> None:
    """The block's own outcome goes out; what had arrived before a loss or a finish is given back."""
    async with connection(network) as pair:
        sock = pair.sock
        await pair.arrive(b"abcd")
        with pytest.raises(LookupError):
            async with sock.transaction():
                await sock.receive_exactly(2)
                if end == "abort":
                    sock.abort()
                elif end == "abort elsewhere":
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(abort, sock)
                elif end == "lost":
                    await pair.reset()
                elif end == "finish":
                    await pair.finish()
                else:
                    await pair.finish()
                    await sock.disconnect_from_host()
                raise LookupError
        rest = sock.read_all()
        async with sock.transaction() if end == "finish" else nullcontext():
            pass

    assert rest == (b"" if "abort" in end else b"abcd")


async def abort(sock: TcpSocket) -> None:
    sock.abort()


async def test_wrong_arguments_of_a_transaction_are_refused(network: Network) -> None:
    """Before it is entered."""
    async with connection(network) as pair:
        with pytest.raises(ValueError, match="max_bytes must be at least 1"):
            pair.sock.transaction(0)
        with pytest.raises(TypeError):
            pair.sock.transaction(1.5)  # type: ignore[arg-type]
        pair.sock.abort()
    await pair.sock.aclose()
    with pytest.raises(trio.ClosedResourceError):
        pair.sock.transaction()


async def test_in_a_transaction_of_qts_verbs_the_bound_is_named(network: Network) -> None:
    """It is the read buffer's, or what one call asks for."""
    async with connection(network, read_buffer_size=10) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.peer.send, b"x" * 100)
        pair.sock.start_transaction()
        whole = await pair.sock.receive_exactly(30)
        told = await refusal(lambda: pair.sock.receive_exactly(10))
        pair.sock.rollback_transaction()

    assert whole == b"x" * 30
    assert told == (LIMIT, "the transaction holds 30 bytes, read_buffer_size is 10")


# ---- receive_message ---------------------------------------------------------------------------


def read_all_sorts(stream: DataStream) -> list[object]:
    return [stream.read_uint16(), stream.read_q_string(), stream.read_q_string_list(), stream.read_double()]


ALL_SORTS = [7, "héllo", ["a", "", "ü" * 50], 0.5]


def all_sorts() -> bytes:
    stream = DataStream()
    stream.write_uint16(7)
    stream.write_q_string("héllo")
    stream.write_q_string_list(["a", "", "ü" * 50])
    stream.write_double(0.5)
    return stream.data()


@every_medium
async def test_messages_come_whole_and_one_by_one(network: Network, tls: Contexts, medium: str) -> None:
    """However they are cut, and also if several came together; the rest is the next one's."""
    data = all_sorts()
    async with pair_over(medium, network, tls) as pair, trio.open_nursery() as nursery:

        async def send() -> None:
            for size in (1, 3, 7, len(data) - 1, len(data) + 1):
                for piece in range(0, 2 * len(data), size):
                    await pair.send((data + data)[piece : piece + size])

        nursery.start_soon(send)
        got = [await pair.sock.receive_message(read_all_sorts) for _ in range(10)]
        left = pair.sock.bytes_available()

    assert got == [ALL_SORTS] * 10
    assert left == 0


async def test_a_message_larger_than_the_read_buffer_comes(network: Network) -> None:
    """``max_bytes`` alone bounds it."""
    text = "x" * 500_000
    stream = DataStream()
    stream.write_q_string(text)
    async with connection(network) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.peer.send, stream.data())

        assert await pair.sock.receive_message(DataStream.read_q_string) == text


async def test_the_reader_is_called_as_seldom_as_it_can_be(network: Network) -> None:
    """Once with what there is, and again when as much is there as it asked for."""
    calls: list[int] = []

    def read(stream: DataStream) -> bytes | None:
        calls.append(len(stream.data()))
        return stream.read_q_byte_array()

    async with connection(network) as pair, trio.open_nursery() as nursery:
        await pair.arrive(b"\0\0\0\x0aab")

        async def send() -> None:
            for _ in range(4):
                await trio.testing.wait_all_tasks_blocked()
                await pair.peer.send(b"cd")

        nursery.start_soon(send)
        got = await pair.sock.receive_message(read)

    assert got == b"abcdcdcdcd"
    assert calls == [6, 14]


def read_items(stream: DataStream) -> int:
    """One by one, so that nobody knows how many bytes are still to come."""
    return sum(stream.read_uint8() for _ in range(stream.read_uint32()))


async def test_a_long_message_of_items_is_not_read_from_the_beginning_for_each(network: Network) -> None:
    """It doubles with each try, where it is there; past the read buffer's bound too."""
    tries = 0

    def read(stream: DataStream) -> int:
        nonlocal tries
        tries += 1
        return read_items(stream)

    async with connection(network, read_buffer_size=1000) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.peer.send, (50_000).to_bytes(4, "big") + b"\1" * 50_000 + b"rest")
        got = await pair.sock.receive_message(read)
        rest = await pair.sock.receive_exactly(4)

    assert (got, rest) == (50_000, b"rest")
    assert tries < 30


def read_to_zero(stream: DataStream) -> int:
    """It looks at all there is, as what reads msgpack does."""
    data = stream.data()
    end = data.find(b"\0", 4)
    stream.skip_raw_data(end + 1 if end >= 0 else len(data) + 1)
    return end - 4


@pytest.mark.parametrize(("read_it", "count", "pause"), [(read_items, 20_000, 0.0198), (read_to_zero, 320_000, 0.004)])
async def test_a_peer_that_sends_item_by_item_cannot_keep_this_run_busy(
    autojump_clock: trio.testing.MockClock, read_it: Callable[[DataStream], int], count: int, pause: float
) -> None:
    """After a long try the next one waits as long as that took, and then all is read that came meanwhile."""
    times: list[float] = []

    def read(stream: DataStream) -> int:
        times.append(trio.current_time())
        return read_it(stream)

    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as sock, trio.open_nursery() as nursery:

        async def send() -> None:
            await theirs.send_all(count.to_bytes(4, "big") + b"\1" * (count - 100))
            for _ in range(100):
                await trio.sleep(0.001)
                await theirs.send_all(b"\1")
            await theirs.send_all(b"\0")

        nursery.start_soon(send)
        got = await sock.receive_message(read)
        sock.abort()

    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert got == count
    assert len(times) < 30
    assert min(pauses[1:-1]) > pause


async def test_a_message_that_is_too_long_is_told_at_once_and_stays(network: Network) -> None:
    """Not a byte of it has to come."""
    async with connection(network) as pair:
        await pair.arrive(b"\xff\xff\xff\xf0")
        told = [
            await refusal(lambda: pair.sock.receive_message(DataStream.read_q_byte_array)),
            await refusal(lambda: pair.sock.receive_message(DataStream.read_uint32, 3)),
        ]
        rest = pair.sock.read_all()

    assert told == [
        (LIMIT, "a message needs 4294967284 bytes, and may have 16777216"),
        (LIMIT, "a message needs 4 bytes, and may have 3"),
    ]
    assert rest == b"\xff\xff\xff\xf0"


def read_inner(stream: DataStream) -> int:
    block = DataStream(stream.read_q_byte_array() or b"")
    return block.read_uint32()


async def test_what_cannot_be_read_is_corrupt_data_and_stays(network: Network) -> None:
    """A stream in the message that ends too early too: no more bytes will come for that one."""

    def refuse(stream: DataStream) -> None:
        stream.read_uint8()
        raise DataStreamError("I do not like it")

    async with connection(network) as pair:
        await pair.arrive(b"\0\0\0\2\xd8\0")
        calls: list[Callable[[DataStream], object]] = [DataStream.read_q_string, read_inner, refuse]
        errors = []
        for read in calls:
            with pytest.raises(SocketError) as caught:
                await pair.sock.receive_message(read)
            errors.append(caught.value)
        rest = pair.sock.read_all()

    assert [error.kind for error in errors] == [ErrorKind.CORRUPT_DATA] * 3
    assert [type(error.__cause__) for error in errors] == [DataStreamError, Incomplete, DataStreamError]
    assert errors[2].message == "a message cannot be read: I do not like it"
    assert rest == b"\0\0\0\2\xd8\0"


async def test_what_else_the_reader_raises_goes_out_and_nothing_is_taken(network: Network) -> None:
    """It is the reader's, so it is not touched."""

    def read(stream: DataStream) -> None:
        stream.read_uint8()
        raise LookupError("mine")

    async with connection(network) as pair:
        await pair.arrive(b"abc")
        with pytest.raises(LookupError, match="mine"):
            await pair.sock.receive_message(read)

        assert await pair.sock.receive_exactly(3) == b"abc"


async def test_a_message_that_the_end_cuts_off_is_told_with_what_came_of_it(network: Network) -> None:
    """And an end between two."""
    async with connection(network) as pair:
        await pair.arrive(b"\0\0\0\4ab")
        await pair.finish()
        cut_off = await refusal(lambda: pair.sock.receive_message(DataStream.read_q_byte_array))
        assert pair.sock.read_all() == b"\0\0\0\4ab"
        between = await refusal(lambda: pair.sock.receive_message(DataStream.read_q_byte_array))

    assert cut_off == (ErrorKind.REMOTE_HOST_CLOSED, "the peer finished after 6 bytes of a message")
    assert between == (ErrorKind.REMOTE_HOST_CLOSED, "the peer finished before a message")


async def test_a_reader_begins_each_time_as_the_first_time(network: Network) -> None:
    """The byte order that it sets in the middle is not there when it is tried again."""

    def read(stream: DataStream) -> tuple[int, int, int]:
        first = stream.read_uint16()
        stream.set_byte_order("little")
        return first, stream.read_uint16(), stream.version()

    async with connection(network) as pair, trio.open_nursery() as nursery:

        async def send() -> None:
            for byte in (b"\0", b"\1", b"\1", b"\0"):
                await pair.peer.send(byte)
                await trio.testing.wait_all_tasks_blocked()

        nursery.start_soon(send)
        got = await pair.sock.receive_message(read, version=DataStreamVersion.QT_6_7)

    assert got == (1, 1, 22)


async def test_wrong_arguments_of_receive_message_are_refused(network: Network) -> None:
    """Before anything is waited for."""
    async with connection(network) as pair:
        with pytest.raises(ValueError, match="max_bytes must be at least 1"):
            await pair.sock.receive_message(DataStream.read_bool, 0)
        with pytest.raises(ValueError, match="a version is between"):
            await pair.sock.receive_message(DataStream.read_bool, version=99)


async def test_a_reader_that_is_async_is_refused(network: Network) -> None:
    """It would never have been run; nothing is taken."""

    async def read(stream: DataStream) -> int:
        raise AssertionError

    async with connection(network) as pair:
        await pair.arrive(b"abc")
        with pytest.raises(TypeError, match="is an ordinary function"):
            _ = await pair.sock.receive_message(read)

        assert pair.sock.read_all() == b"abc"


# ---- several delimiters ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delimiters", "data", "pieces"),
    [
        ((b"\n", b"\r\n"), b"a\r\nb\nc\r\r\n", [b"a\r\n", b"b\n", b"c\r\r\n"]),
        ((b"\r", b"\n", b"\r\n"), b"a\rb\r\nc\n\r\r\n", [b"a\r", b"b\r\n", b"c\n", b"\r", b"\r\n"]),
        ((b"b", b"abc"), b"xabc.abb", [b"xabc", b".ab", b"b"]),
        ((b"ab", b"abab", b"b"), b"ababab.b", [b"abab", b"ab", b".b"]),
        ((b"aab", b"ab"), b"aaab", [b"aaab"]),
        ((b";",), b"a;b;", [b"a;", b"b;"]),
        ((b".*", b"[a]"), b"x.*y[a]", [b"x.*", b"y[a]"]),
    ],
)
async def test_the_first_delimiter_ends_it_and_the_longest_there_however_it_is_cut(
    network: Network, delimiters: tuple[bytes, ...], data: bytes, pieces: list[bytes]
) -> None:
    """Cut once at every place, and into single bytes; also in another order."""
    cuts = [[data[:cut], data[cut:]] for cut in range(1, len(data))]
    cuts.append([data[place : place + 1] for place in range(len(data))])
    for cut, order in itertools.product(cuts, (delimiters, delimiters[::-1])):
        async with connection(network) as pair, trio.open_nursery() as nursery:
            got: list[bytes] = []

            async def receive(sock: TcpSocket, order: tuple[bytes, ...] = order, got: list[bytes] = got) -> None:
                for _ in pieces:
                    got.append(await sock.receive_until(order))

            nursery.start_soon(receive, pair.sock)
            for piece in cut:
                await pair.arrive(piece)
                await trio.testing.wait_all_tasks_blocked()
            pair.peer.finish()

        assert got == pieces, cut


async def test_of_several_delimiters_none_comes(network: Network) -> None:
    """The bounds are those of one."""
    async with connection(network) as pair:
        await pair.arrive(b"0123456789")
        told = [
            await refusal(lambda: pair.sock.receive_until((b"\n", b"\r\n"), 8)),
            await refusal(lambda: pair.sock.receive_until((b"9", b"x"), 9)),
        ]
        assert await pair.sock.receive_until((b"9", b"x"), 10) == b"0123456789"
        await pair.arrive(b"rest\r")
        await pair.finish()
        told.append(await refusal(lambda: pair.sock.receive_until((b"\n", b"\r\n"))))
        rest = pair.sock.read_all()

    assert told == [
        (LIMIT, "8 bytes arrived without b'\\r\\n' or b'\\n'"),
        (LIMIT, "9 bytes arrived without b'9' or b'x'"),
        (ErrorKind.REMOTE_HOST_CLOSED, "the peer finished before b'\\r\\n' or b'\\n'"),
    ]
    assert rest == b"rest\r"


@pytest.mark.parametrize("end", ["finish", "reset"])
async def test_a_delimiter_that_might_have_been_a_longer_one_comes_at_the_end(network: Network, end: str) -> None:
    """No more bytes will come, so it is the shorter one: bytes first, then the end, then the error."""
    async with connection(network) as pair:
        await pair.arrive(b"line\r")
        with trio.move_on_after(0):
            await pair.sock.receive_until((b"\r", b"\r\n"))
        await (pair.finish() if end == "finish" else pair.reset())

        assert await pair.sock.receive_until((b"\r", b"\r\n")) == b"line\r"


async def test_wrong_delimiters_are_refused(network: Network) -> None:
    """None, an empty one, one that is longer than may be read, and what is no tuple of bytes."""
    async with connection(network) as pair:
        wrong: list[tuple[type[Exception], Any]] = [
            (ValueError, ()),
            (ValueError, (b"a", b"")),
            (ValueError, (b"a", b"abc")),
            (TypeError, (b"a", "b")),
            (TypeError, [b"a"]),
        ]
        for error, delimiters in wrong:
            with pytest.raises(error):
                await pair.sock.receive_until(delimiters, 2)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4),
    st.text("abc", max_size=12),
    st.lists(st.integers(0, 12)),
)
def test_any_delimiters_are_found_as_a_regular_expression_finds_them(
    texts: list[str], text: str, cuts: list[int]
) -> None:
    """Leftmost, then longest, in bytes that come in any pieces."""
    data = text.encode()
    several = tuple(word.encode() for word in texts)
    longest_first = sorted(several, key=len, reverse=True)
    expected = []
    rest = data
    while found := re.search(b"|".join(map(re.escape, longest_first)), rest):
        expected.append(rest[: found.end()])
        rest = rest[found.end() :]

    buffer, delimiters, got = ReadBuffer(), Delimiters(several), []
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for begin, end in itertools.pairwise(places):
        buffer.append(data[begin:end])
        while (piece := buffer.take_through_any(delimiters, 100, final=False)) is not None:
            got.append(piece)
    while (piece := buffer.take_through_any(delimiters, 100, final=True)) is not None:
        got.append(piece)

    assert got == expected
    assert buffer.peek(100) == rest
