"""Qt's writing verbs, which queue, and trio's sending verbs, which wait: every message goes out whole or not at all."""

from __future__ import annotations

import array
import functools
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Network, RawPeer
from tests.sockets.arrivals import fill
from tests.sockets.pairs import Connection, connection
from tests.streams import OnlyStream
from trioqt import BytesWritten, ErrorKind, SocketError, SocketState, TcpSocket

OVER_TLS = True

Call = Callable[[TcpSocket], Awaitable[object]]

# The verbs of which one task at a time may be in one.
# fmt: off
SENDS: dict[str, Call] = {
    "send_all":                       lambda sock: sock.send_all(b"x"),
    "wait_send_all_might_not_block":  lambda sock: sock.wait_send_all_might_not_block(),
    "send_eof":                       lambda sock: sock.send_eof(),
}
# fmt: on
every_send = pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)


async def refusal(call: Callable[[], Awaitable[object]]) -> tuple[ErrorKind, str]:
    """How the SocketError that ``call`` ends with describes itself."""
    with pytest.raises(SocketError) as refused:
        await call()
    return refused.value.kind, refused.value.message


def numbered(size: int) -> bytes:
    """Bytes of which no stretch equals another one nearby, so a lost or doubled piece shows."""
    return struct.pack(f">{size // 4 + 1}I", *range(size // 4 + 1))[:size]


# ---- write -------------------------------------------------------------------------------------


async def test_write_hands_the_bytes_to_the_system_at_once(network: Network) -> None:
    """They arrive though our task never waits again, and nothing is queued."""
    async with connection(network) as pair:
        written = [pair.sock.write(b"hello "), pair.sock.write(b""), pair.sock.write(b"world")]
        queued = pair.sock.bytes_to_write()

        assert (written, queued) == ([6, 0, 5], 0)
        assert await pair.peer.receive(11) == b"hello world"


async def test_what_the_system_does_not_take_is_queued_and_sent_in_order(network: Network) -> None:
    """A message larger than all buffers on the way is taken whole, and goes out by itself as the peer reads."""
    first, second = numbered(10_000_000), b"and this"
    async with connection(network) as pair:
        written = pair.sock.write(first)
        queued = pair.sock.bytes_to_write()
        with pytest.raises(trio.WouldBlock):
            pair.sock.write(second)
        received = await pair.peer.receive(len(first) - 10_000)
        pair.sock.write(second)
        received += await pair.peer.receive(10_000 + len(second))

        assert written == len(first)
        assert 65536 < queued < len(first)
        assert received == first + second
        assert pair.sock.bytes_to_write() == 0


async def test_a_refused_write_took_nothing(network: Network) -> None:
    """At the mark ``write`` raises; what was queued is as it was, and not a byte of the refused message is sent."""
    async with connection(network) as pair:
        accepted = await fill(pair.sock)
        queued = pair.sock.bytes_to_write()
        for _ in range(3):
            with pytest.raises(trio.WouldBlock):
                pair.sock.write(b"refused")

        assert pair.sock.bytes_to_write() == queued
        assert await pair.peer.receive(accepted) == bytes(accepted)
        pair.sock.write(b"end")
        assert await pair.peer.receive(3) == b"end"


@pytest.mark.parametrize("size", [1, 1000, 65536])
async def test_the_queue_holds_at_most_its_size_and_one_message(network: Network, size: int) -> None:
    """Below the mark a message is taken whole, however large; from the mark on none is."""
    async with connection(network, write_buffer_size=size) as pair:
        message = bytes(300)
        pair.sock.write(bytes(20_000_000))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            pair.sock.write(message)
        await until_queued_below(pair, size)
        queued = []
        while True:
            before = pair.sock.bytes_to_write()
            try:
                pair.sock.write(message)
            except trio.WouldBlock:
                break
            queued.append((before, pair.sock.bytes_to_write()))

        assert before >= size
        assert all(before < size for before, _ in queued)
        assert all(after <= size - 1 + len(message) for _, after in queued)


async def until_queued_below(pair: Connection, size: int) -> None:
    """The peer reads just until the queue of ours is below ``size``."""
    while pair.sock.bytes_to_write() >= size:
        await pair.peer.sock.recv(65536)
        await trio.testing.wait_all_tasks_blocked()


async def test_messages_of_many_tasks_go_out_whole(network: Network) -> None:
    """Ten tasks write as they like, one of them with ``send_all``: no message stands inside another one."""
    tasks, messages = 10, 50
    async with connection(network, write_buffer_size=20_000) as pair, trio.open_nursery() as nursery:

        def message(task: int, number: int) -> bytes:
            size = (task * 7919 + number * 104_729) % 60_000
            return struct.pack(">III", task, number, size) + bytes([task]) * size

        async def send(task: int) -> None:
            for number in range(messages):
                if task == 0:
                    await pair.sock.send_all(message(task, number))
                    continue
                while True:
                    try:
                        pair.sock.write(message(task, number))
                        break
                    except trio.WouldBlock:
                        await trio.lowlevel.checkpoint()

        for task in range(tasks):
            nursery.start_soon(send, task)
        got = []
        for _ in range(tasks * messages):
            task, number, size = struct.unpack(">III", await pair.peer.receive(12))
            assert await pair.peer.receive(size) == bytes([task]) * size
            got.append((task, number))

        assert sorted(got) == [(task, number) for task in range(tasks) for number in range(messages)]
        assert [number for task, number in got if task == 0] == list(range(messages))


# fmt: off
MESSAGES: list[tuple[Callable[[], Any], bytes]] = [
    (lambda: bytearray(b"abcdef"),                                       b"abcdef"),
    (lambda: memoryview(bytearray(b"abcdef")),                           b"abcdef"),
    (lambda: memoryview(bytearray(b"abcdef"))[1:4],                      b"bcd"),
    (lambda: memoryview(bytearray(b"abcdef"))[::2],                      b"ace"),       # not contiguous
    (lambda: memoryview(bytearray(b"abcdef"))[::-1],                     b"fedcba"),
    (lambda: memoryview(bytearray(b"abcd")).cast("c"),                   b"abcd"),
    (lambda: memoryview(bytearray(b"abcd")).cast("b"),                   b"abcd"),
    (lambda: memoryview(array.array("H", [1, 258])),                     array.array("H", [1, 258]).tobytes()),
    (lambda: memoryview(bytearray(b"abcdef")).cast("B", (2, 3)),         b"abcdef"),    # two dimensions
    (lambda: memoryview(array.array("d", [0.5])),                        struct.pack("d", 0.5)),
    (lambda: memoryview(bytearray()),                                    b""),
]
# fmt: on


@pytest.mark.parametrize(("make", "sent"), MESSAGES)
async def test_any_bytes_can_be_written_and_changed_after(
    network: Network, make: Callable[[], Any], sent: bytes
) -> None:
    """The count is in bytes; what could not go out at once was copied, so the caller's memory is his again."""
    async with connection(network) as pair:
        data = make()
        at_once = pair.sock.write(data)
        overwrite(data)
        pair.sock.write(b"|end")
        received = await pair.peer.receive(len(sent) + 4)
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as sock:
        data = make()
        queued = (sock.write(data), sock.bytes_to_write())
        overwrite(data)
        sock.write(b"|end")
        await sock.send_eof()
        received_later = b"".join([bytes(chunk) async for chunk in theirs])

    assert (at_once, received) == (len(sent), sent + b"|end")
    assert (queued, received_later) == ((len(sent), len(sent)), sent + b"|end")


def overwrite(data: bytearray | memoryview) -> None:
    """Put other bytes where ``data`` has its own."""
    if isinstance(data, bytearray):
        data[:] = b"!" * len(data)
    elif data.nbytes:
        whole = data.obj
        memoryview(whole).cast("B")[:] = b"!" * memoryview(whole).nbytes


@pytest.mark.once
async def test_a_bytearray_is_the_callers_again_though_a_part_of_it_is_queued(network: Network) -> None:
    """No view of it is kept: it can be resized, and what it becomes is not sent."""
    sent = numbered(20_000_000)
    async with connection(network) as pair:
        data, small = bytearray(sent), bytearray(b"abc")
        pair.sock.write(data)
        queued = pair.sock.bytes_to_write()
        data[:] = b"!" * len(data)
        data.clear()
        received = await pair.peer.receive(len(sent))
        pair.sock.write(small)
        small.clear()

        assert 0 < queued < len(sent)
        assert received == sent
        assert await pair.peer.receive(3) == b"abc"


async def test_put_char_writes_one_byte(network: Network) -> None:
    """As ``write``, and nothing but one byte is accepted."""
    async with connection(network) as pair:
        pair.sock.put_char(b"a")
        pair.sock.put_char(b"b")
        for kind, bad in ((TypeError, "a"), (TypeError, 97), (TypeError, None), (ValueError, b""), (ValueError, b"ab")):
            with pytest.raises(kind):
                pair.sock.put_char(bad)  # type: ignore[arg-type]

        assert await pair.peer.receive(2) == b"ab"


async def test_what_is_no_bytes_is_refused_before_anything_is_touched(network: Network) -> None:
    """In any state: a wrong type is a mistake of the program whatever the socket is doing."""
    async with connection(network) as pair, TcpSocket() as unconnected:
        for bad in ("text", 5, None, [1, 2], 1.5, array.array("B", b"abc")):
            for sock in (pair.sock, unconnected):
                with pytest.raises(TypeError):
                    sock.write(bad)  # type: ignore[arg-type]
                with pytest.raises(TypeError):
                    await sock.send_all(bad)  # type: ignore[arg-type]
        pair.sock.write(b"end")

        assert await pair.peer.receive(3) == b"end"


async def test_answers_to_buffered_requests_arrive_without_another_call(network: Network) -> None:
    """While more requests are buffered, answers may be collected; as soon as the task waits for anything, they go."""
    async with connection(network) as pair:
        await pair.peer.send(b"one\ntwo\nthree\n")
        lines = [await pair.sock.receive_line() for _ in range(2)]
        pair.sock.write(b"answer one\n")
        pair.sock.write(b"answer two\n")

        assert await pair.peer.receive(22) == b"answer one\nanswer two\n"
        assert lines == [b"one\n", b"two\n"]


@pytest.mark.parametrize("finish", ["abort", "flush", "bytes_to_write", "aclose", "send_eof", "disconnect_from_host"])
async def test_answers_to_buffered_requests_are_never_dropped(network: Network, finish: str) -> None:
    """Collected or not, the system would have taken them; so whatever is called next, the peer gets them."""
    async with connection(network) as pair:
        await pair.peer.send(b"one\ntwo\nthree\n")
        await pair.sock.receive_line()
        pair.sock.write(b"answer one\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_at, pair.peer, 11)
            result = getattr(pair.sock, finish)()
            if isinstance(result, Awaitable):
                await result

        assert pair.sock.bytes_to_write() == 0


async def end_at(peer: RawPeer, count: int) -> None:
    """Read ``count`` bytes, then send no more."""
    assert await peer.receive(count) == b"answer one\n"
    peer.finish()


# ---- how much is queued ------------------------------------------------------------------------


async def test_flush_sends_what_the_system_takes_by_now(network: Network) -> None:
    """True if it took any; the task that sends the rest by itself goes on behind that, and nothing goes out twice."""
    data = numbered(10_000_000)
    async with connection(network) as pair:
        idle = pair.sock.flush()
        pair.sock.write(data)
        await trio.testing.wait_all_tasks_blocked()
        while pair.sock.flush():
            pass  # a system that calls itself full may take some more (Linux: half of unsent_limit)
        full = pair.sock.flush()
        received = bytearray()
        took = 0
        with pytest.raises(trio.WouldBlock):
            pair.sock.write(b"")
        while len(received) < len(data):
            # In one step, so the sending task waits on: the peer reads, the system has room, and flush uses it.
            while received_now := pair.peer.receive_now(200_000):
                received += received_now
                took += pair.sock.flush()
            await trio.lowlevel.checkpoint()

        assert (idle, full, took > 0) == (False, False, True)
        assert bytes(received) == data
        assert (pair.sock.bytes_to_write(), pair.sock.flush(), pair.peer.receive_now(200_000)) == (0, False, b"")


async def test_bytes_written_events_add_up_to_what_was_written(network: Network) -> None:
    """Sent at once, by the drainer or by flush: each byte is counted once, when the system took it."""
    async with connection(network) as pair, trio.open_nursery() as nursery:
        counted = [0]

        async def count(task_status: trio.TaskStatus[None]) -> None:
            async with pair.sock.events(BytesWritten) as events:
                task_status.started()
                async for event in events:
                    assert event.count > 0
                    counted[0] += event.count

        await nursery.start(count)
        total = pair.sock.write(b"abc") + pair.sock.write(numbered(5_000_000))
        await trio.testing.wait_all_tasks_blocked()
        early = (counted[0], total - pair.sock.bytes_to_write())
        pair.peer.receive_now(200_000)
        pair.sock.flush()
        nursery.start_soon(pair.peer.receive_to_end)
        await pair.sock.send_all(b"def")
        pair.sock.put_char(b"g")
        total += 4
        await pair.sock.wait_for_bytes_written()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

        assert early[0] == early[1] > 3
        assert counted[0] == total


async def test_wait_for_bytes_written_waits_for_all_of_them(network: Network) -> None:
    """Not for some, as in Qt: when it returns, the system has everything; with an empty queue it returns at once."""
    async with connection(network) as pair:
        await pair.sock.wait_for_bytes_written()
        size = pair.sock.write(bytes(20_000_000))
        async with trio.open_nursery() as nursery:
            queued = []

            @nursery.start_soon
            async def _() -> None:
                await pair.sock.wait_for_bytes_written()
                queued.append(pair.sock.bytes_to_write())

            before = pair.sock.bytes_to_write()
            received = 0
            while pair.sock.bytes_to_write() == before:  # how much the system has between the two is its own affair
                received += len(await pair.peer.receive(100_000))
                await trio.testing.wait_all_tasks_blocked()
            meanwhile = (list(queued), 0 < pair.sock.bytes_to_write() < before)
            await pair.peer.receive(size - received)

        assert (meanwhile, queued) == (([], True), [0])


async def test_a_waiter_for_written_bytes_is_not_told_off_by_an_orderly_end(network: Network) -> None:
    """Another task disconnects as soon as all is sent: both were right, whoever comes to its turn first."""
    for _ in range(10):  # in either order
        async with connection(network) as pair:
            await fill(pair.sock)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.sock.wait_for_bytes_written)
                nursery.start_soon(pair.sock.disconnect_from_host)
                nursery.start_soon(pair.sock.wait_for_bytes_written)
                await pair.peer.receive_to_end()

            assert pair.sock.state() is SocketState.UNCONNECTED


async def test_a_large_message_over_a_stream_goes_in_pieces() -> None:
    """What the peer has taken is no longer queued, so progress can be seen before the whole message is through."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    data = numbered(1_000_000)
    async with TcpSocket.from_stream(ours) as sock:
        sock.write(data)
        received = bytearray()
        while len(received) < 500_000:
            received += await theirs.receive_some(10_000)
        await trio.testing.wait_all_tasks_blocked()
        halfway = sock.bytes_to_write()
        while len(received) < len(data):
            received += await theirs.receive_some(10_000)
        await sock.wait_for_bytes_written()

        assert 450_000 <= halfway <= 570_000
        assert bytes(received) == data
        sock.abort()


async def test_an_abort_in_the_moment_a_stream_took_the_queue_is_no_trouble() -> None:
    """The sending task comes to its turn after the abort, with the news that all was sent, and ends quietly."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with TcpSocket.from_stream(ours) as sock:
        sock.write(b"abc")
        received = await theirs.receive_some(100)
        sock.abort()
        await trio.testing.wait_all_tasks_blocked()

        assert (received, sock.bytes_to_write(), sock.state()) == (b"abc", 0, SocketState.UNCONNECTED)


# ---- send_all ----------------------------------------------------------------------------------


async def test_send_all_waits_for_room_and_then_sends_whole(network: Network) -> None:
    """It returns when its message is queued, not when it has arrived."""
    async with connection(network) as pair:
        accepted = await fill(pair.sock)
        sent = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                await pair.sock.send_all(b"message")
                sent.append(pair.sock.bytes_to_write())

            await trio.testing.wait_all_tasks_blocked()
            before = list(sent)
            received = await pair.peer.receive(accepted + 7)

        assert (before, len(sent), sent[0] < 65536 + 7) == ([], 1, True)
        assert received == bytes(accepted) + b"message"


async def test_a_cancelled_send_all_sent_nothing(network: Network) -> None:
    """Not one byte, whether it was waiting for room or could have sent at once; the next message is whole."""
    async with connection(network) as pair:
        with trio.CancelScope() as at_once:
            at_once.cancel()
            await pair.sock.send_all(b"cancelled")
        accepted = await fill(pair.sock)
        with trio.CancelScope() as waiting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.sock.send_all, b"cancelled")
                await trio.testing.wait_all_tasks_blocked()
                waiting.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.sock.send_all, b"message")
            received = await pair.peer.receive(accepted + 7)

        assert (at_once.cancelled_caught, waiting.cancelled_caught) == (True, True)
        assert received == bytes(accepted) + b"message"


async def test_wait_send_all_might_not_block_waits_for_room(network: Network) -> None:
    """It returns when ``write`` would be accepted, and not before."""
    async with connection(network) as pair:
        await pair.sock.wait_send_all_might_not_block()
        await fill(pair.sock)
        room = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                await pair.sock.wait_send_all_might_not_block()
                room.append(pair.sock.write(b"message"))

            await trio.testing.wait_all_tasks_blocked()
            before = list(room)
            await until_queued_below(pair, 65536)

        assert (before, room) == ([], [7])


async def test_the_sending_verbs_are_always_checkpoints(network: Network) -> None:
    """They let other tasks run, though they need not wait."""
    async with connection(network) as pair:
        calls: list[Callable[[], Awaitable[None]]] = [
            lambda: pair.sock.send_all(b"a"),
            lambda: pair.sock.send_all(b""),
            pair.sock.wait_send_all_might_not_block,
            pair.sock.wait_for_bytes_written,
            pair.sock.send_eof,
            pair.sock.send_eof,
        ]
        for call in calls:
            with trio.testing.assert_checkpoints():
                await call()
        with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await pair.sock.send_all(b"b")

        assert await pair.peer.receive_to_end() == b"a"


@pytest.mark.parametrize("send", [*SENDS.values(), lambda sock: sock.wait_for_bytes_written()])
async def test_every_sending_verb_looks_for_cancellation_first(network: Network, send: Call) -> None:
    """A cancelled task sends nothing and finishes nothing."""
    async with connection(network) as pair:
        with trio.CancelScope() as scope:
            scope.cancel()
            await send(pair.sock)
        pair.sock.write(b"end")
        await pair.sock.send_eof()

        assert scope.cancelled_caught
        assert await pair.peer.receive_to_end() == b"end"


# ---- send_eof ----------------------------------------------------------------------------------


async def test_send_eof_sends_the_queue_first(network: Network) -> None:
    """The peer gets every byte and then a clean end; it can still answer, and we can still receive."""
    data = numbered(20_000_000)
    async with connection(network) as pair:
        pair.sock.write(data)
        queued = pair.sock.bytes_to_write()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.sock.send_eof)
            received = await pair.peer.receive_to_end()
        await pair.peer.send(b"thank you\n")
        answer = await pair.sock.receive_line()
        await pair.sock.send_eof()

        assert (queued > 0, received == data, answer) == (True, True, b"thank you\n")
        assert (pair.sock.state(), pair.sock.error()) == (SocketState.CONNECTED, None)


async def test_a_cancelled_send_eof_has_not_finished(network: Network) -> None:
    """It was waiting for the queue; what is written after goes out, and a second try finishes."""
    async with connection(network) as pair:
        accepted = await fill(pair.sock)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.sock.send_eof)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        received = await pair.peer.receive(accepted)
        await pair.sock.send_all(b"more")
        await pair.sock.send_eof()

        assert scope.cancelled_caught
        assert (received, await pair.peer.receive_to_end()) == (bytes(accepted), b"more")


async def test_after_send_eof_nothing_can_be_sent(network: Network) -> None:
    """The end was said here, so it is a closed resource, for every verb that would send."""
    async with connection(network) as pair:
        await pair.sock.send_eof()

        with pytest.raises(trio.ClosedResourceError):
            pair.sock.write(b"a")
        with pytest.raises(trio.ClosedResourceError):
            pair.sock.put_char(b"a")
        with pytest.raises(trio.ClosedResourceError):
            await pair.sock.send_all(b"a")
        with pytest.raises(trio.ClosedResourceError):
            await pair.sock.wait_send_all_might_not_block()
        await pair.sock.wait_for_bytes_written()
        assert await pair.peer.receive_to_end() == b""


async def test_what_is_written_while_send_eof_waits_goes_out_before_the_end() -> None:
    """Sending is not finished before the queue is empty, so ``write`` from another task still counts."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    data = numbered(100_000)
    async with TcpSocket.from_stream(ours) as sock:
        sock.write(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sock.send_eof)
            await trio.testing.wait_all_tasks_blocked()
            received = bytearray()
            while len(received) < 70_000:
                received += await theirs.receive_some(10_000)
            await trio.testing.wait_all_tasks_blocked()
            queued = sock.bytes_to_write()
            sock.write(b"late")
            async for chunk in theirs:
                received += chunk

        assert 0 < queued < 65536
        assert bytes(received) == data + b"late"


async def test_send_eof_over_a_stream_that_cannot_says_so() -> None:
    """It is refused, and nothing has changed: sending goes on."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(OnlyStream(ours)) as sock:
        refused = await refusal(sock.send_eof)
        await sock.send_all(b"more")

        assert refused == (
            ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
            "cannot finish sending: the stream has no send_eof",
        )
        assert await theirs.receive_some() == b"more"


# ---- several tasks -----------------------------------------------------------------------------


@every_send
@pytest.mark.parametrize("second", SENDS.values(), ids=SENDS)
async def test_one_task_at_a_time_may_send(network: Network, send: Call, second: Call) -> None:
    """The second is refused at once; ``write`` and waiting for the queue are nobody's privilege."""
    async with connection(network) as pair:
        accepted = await fill(pair.sock)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, pair.sock)
                nursery.start_soon(pair.sock.wait_for_bytes_written)
                nursery.start_soon(pair.sock.wait_for_bytes_written)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await second(pair.sock)
                with pytest.raises(trio.WouldBlock):
                    pair.sock.write(b"x")
                scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second, pair.sock)  # free again at once
            received = await pair.peer.receive(accepted)

        assert received == bytes(accepted)


# ---- in the wrong state ------------------------------------------------------------------------


async def every_refusal(sock: TcpSocket) -> list[tuple[type[BaseException], str]]:
    """What each verb that would send raises."""
    calls: list[Callable[[], object]] = [
        lambda: sock.write(b"x"),
        lambda: sock.put_char(b"x"),
        lambda: sock.send_all(b"x"),
        sock.wait_send_all_might_not_block,
        sock.send_eof,
        sock.wait_for_bytes_written,
    ]
    raised: list[tuple[type[BaseException], str]] = []
    for call in calls:
        with pytest.raises((SocketError, trio.ClosedResourceError)) as refused:
            result = call()
            if isinstance(result, Awaitable):
                await result
        kind = refused.value.kind.name + ": " if isinstance(refused.value, SocketError) else ""
        raised.append((type(refused.value), kind + str(refused.value)))
    return raised


ATTEMPTS = ("write", "write", "send", "send", "finish sending", "wait for bytes to be written")


async def test_sending_without_a_connection_is_a_mistake(network: Network) -> None:
    """It says what was attempted in which state: never connected, outside of the block, and disconnected."""
    async with TcpSocket() as sock:
        never = await every_refusal(sock)
    outside = await every_refusal(TcpSocket())
    async with connection(network) as pair:
        await pair.sock.disconnect_from_host()
        disconnected = await every_refusal(pair.sock)

    unconnected = [(SocketError, f"OPERATION: cannot {attempted} while unconnected") for attempted in ATTEMPTS]
    assert never == disconnected == unconnected
    assert outside == [
        (SocketError, f"OPERATION: cannot {attempted} outside of the socket's `async with` block")
        for attempted in ATTEMPTS
    ]


async def test_sending_on_a_closed_or_aborted_socket(network: Network) -> None:
    """It was ended here, which is not the network's doing."""
    async with connection(network) as pair:
        pair.sock.abort()
        aborted = await every_refusal(pair.sock)
        await pair.sock.aclose()
        closed = await every_refusal(pair.sock)

    assert aborted == [
        (trio.ClosedResourceError, f"cannot {attempted}: the connection was ended here") for attempted in ATTEMPTS
    ]
    assert closed == [(trio.ClosedResourceError, f"cannot {attempted}: the socket is closed") for attempted in ATTEMPTS]


A_LOT = 20_000_000
"""More bytes than the kernel takes for a peer that does not read."""


async def test_what_is_written_while_closing_goes_behind_the_queue(network: Network) -> None:
    """D-005: the end waits for it too."""
    async with connection(network, write_buffer_size=1 << 30) as pair:
        pair.sock.write(bytes(A_LOT))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.sock.disconnect_from_host)
            await trio.testing.wait_all_tasks_blocked()
            state = pair.sock.state()
            written = pair.sock.write(b"the last words")
            received = await pair.peer.receive_to_end()

        assert (state, written, pair.sock.state()) == (SocketState.CLOSING, 14, SocketState.UNCONNECTED)
        assert (len(received), received[-14:]) == (A_LOT + 14, b"the last words")


async def test_sending_while_another_task_ends_the_connection_is_refused(network: Network) -> None:
    """Who sends on and on would keep it from ending, and could not know; waiting for the queue is in order."""
    async with connection(network) as pair:
        await fill(pair.sock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.sock.disconnect_from_host)
            await trio.testing.wait_all_tasks_blocked()
            queued = pair.sock.bytes_to_write()
            nursery.start_soon(pair.sock.wait_for_bytes_written)
            with pytest.raises(trio.WouldBlock):
                pair.sock.write(b"too much")
            raised = []
            for call in (functools.partial(pair.sock.send_all, b"x"), pair.sock.send_eof):
                with pytest.raises(trio.ClosedResourceError) as caught:
                    await call()
                raised.append(str(caught.value))
            still_queued = pair.sock.bytes_to_write()
            await pair.peer.receive_to_end()

        assert queued == still_queued > 0
        assert raised == [
            "cannot send: the connection was ended here",
            "cannot finish sending: the connection was ended here",
        ]


async def test_writing_when_all_is_sent_and_only_the_peers_end_is_waited_for_is_refused(network: Network) -> None:
    """There is no queue any more that it could go behind."""
    async with connection(network) as pair:
        await pair.peer.send(b"unread")
        await pair.sock.wait_for_ready_read()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.sock.disconnect_from_host)
            await trio.testing.wait_all_tasks_blocked()
            state = pair.sock.state()
            with pytest.raises(trio.ClosedResourceError, match="cannot write: the connection was ended here"):
                pair.sock.write(b"x")
            pair.peer.close()

        assert state is SocketState.CLOSING
