"""What an operation asks of the system and of trio: counted, because time is nothing that a test can hold to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.networks import Network, RawPeer
from trioqt import TcpServer, TcpSocket
from trioqt.core.buffers import ReadBuffer
from trioqt.links.native import NativeLink
from trioqt.links.poller import POLLER_TASK
from trioqt.sockets.answers import ANSWERS

pytestmark = pytest.mark.unwatched("a task that watches does some of what is counted")


@attrs.define
class Calls:
    """How often the system was asked, and what came of it."""

    received: list[int | None] = attrs.Factory(list)
    """Of each receive how many bytes; None: it would have had to wait."""
    sent: list[int] = attrs.Factory(list)
    waits: int = 0

    def clear(self) -> None:
        self.received.clear()
        self.sent.clear()
        self.waits = 0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    try_receive, try_send, wait = NativeLink.try_receive, NativeLink.try_send, NativeLink.wait_receivable

    def counted_receive(link: NativeLink, max_bytes: int) -> bytes | None:
        data = try_receive(link, max_bytes)
        calls.received.append(None if data is None else len(data))
        return data

    def counted_send(link: NativeLink, data: Any) -> int:
        sent = try_send(link, data)
        calls.sent.append(sent)
        return sent

    def counted_wait(link: NativeLink, max_bytes: int) -> Awaitable[None]:
        calls.waits += 1
        return wait(link, max_bytes)

    monkeypatch.setattr(NativeLink, "try_receive", counted_receive)
    monkeypatch.setattr(NativeLink, "try_send", counted_send)
    monkeypatch.setattr(NativeLink, "wait_receivable", counted_wait)
    return calls


class Steps(trio.abc.Instrument):
    """Counts the tasks that begin, and the turns of the one that made it."""

    def __init__(self) -> None:
        self.turns = 0
        self.began: list[str] = []
        self._task = trio.lowlevel.current_task()

    def __enter__(self) -> Steps:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.turns += task is self._task

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if task.name != POLLER_TASK:
            self.began.append(task.name)


@asynccontextmanager
async def accepted(network: Network, **options: Any) -> AsyncIterator[tuple[TcpSocket, RawPeer]]:
    """A socket, and its peer."""
    async with TcpServer(lambda: TcpSocket(**options)) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as peer:
            yield await server.accept(), peer


# ---- One message -------------------------------------------------------------------------------


async def test_an_echo_by_qts_verbs_waits_once_and_asks_once(network: Network, calls: Calls) -> None:
    """``wait_for_ready_read`` hands on what it read, and nobody looks for more in the same step."""
    async with accepted(network) as (sock, peer):
        await peer.send(b"first")  # for which the kernel is asked before anybody waits
        assert await sock.receive_exactly(5) == b"first"
        for _ in range(3):
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def ask() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    calls.clear()
                    await peer.send(b"word")

                with Steps() as steps:
                    assert await sock.wait_for_ready_read()
                    assert (sock.bytes_available(), sock.bytes_available(), sock.at_end()) == (4, 4, False)
                    sock.write(sock.read_all())
            assert await peer.receive(4) == b"word"

            assert (calls.received, calls.sent, steps.turns) == ([4], [4], 1)


async def test_what_comes_later_is_asked_for_in_the_next_step(network: Network) -> None:
    """Not asking twice holds for one step only."""
    async with accepted(network) as (sock, peer):
        await peer.send(b"one")
        assert await sock.wait_for_ready_read()
        before = sock.bytes_available()
        await peer.send(b"two")
        while sock.bytes_available() == before:
            await trio.lowlevel.checkpoint()

        assert (before, sock.read_all()) == (3, b"onetwo")


async def test_who_puts_a_task_to_sleep_keeps_what_it_noted_there(network: Network) -> None:
    """The mark of a step stands where trio lets others leave theirs."""
    async with accepted(network) as (sock, peer):
        await peer.send(b"word")
        await sock.wait_for_ready_read()
        sock.read_all()
        await trio.lowlevel.checkpoint()
        await peer.send(b"more")
        task = trio.lowlevel.current_task()
        task.custom_sleep_data = "somebody's"
        while not sock.read_all():
            pass

        assert task.custom_sleep_data == "somebody's"


async def test_an_empty_socket_is_asked_each_time(network: Network) -> None:
    """A program may wait for a byte without letting go, in a loop of its own."""
    async with accepted(network) as (sock, peer):
        assert sock.bytes_available() == 0
        await peer.send(b"word")  # which is no turn of anybody's, where there is room
        while sock.bytes_available() == 0:
            pass

        assert sock.read_all() == b"word"


async def test_a_receive_waits_once_and_asks_once(network: Network, calls: Calls) -> None:
    """After a recv that came short it waits first, in every form."""
    forms: list[Callable[[TcpSocket], Awaitable[bytes]]] = [
        lambda sock: sock.receive_some(),
        lambda sock: sock.receive_some(100),
        lambda sock: sock.receive_exactly(5),
        lambda sock: sock.receive_line(),
        lambda sock: sock.receive_until(b"\n"),
    ]
    async with accepted(network) as (sock, peer):
        for receive in forms:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def ask() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    calls.clear()
                    await peer.send(b"word\n")

                with Steps() as steps:
                    assert await receive(sock) == b"word\n"

            assert (calls.received, steps.turns) == ([5], 1)


# ---- Many that came together ---------------------------------------------------------------------


async def test_answers_to_a_block_of_lines_are_one_send_and_no_task(
    network: Network, calls: Calls, mock_clock: trio.testing.MockClock
) -> None:
    """But the run's own, once.  Time stands still, so that no millisecond is over in between."""
    async with accepted(network) as (sock, peer):
        for turn in range(3):
            await peer.send(b"line\n" * 50)
            calls.clear()
            with Steps() as steps:
                for _ in range(50):
                    sock.write(await sock.receive_line())
            assert await peer.receive(250) == b"line\n" * 50

            assert calls.sent == [250]
            assert steps.began == ([] if turn else ["trioqt's collected answers"])


async def test_answers_that_wait_go_out_when_others_get_their_turn(network: Network, calls: Calls) -> None:
    """Those of two sockets in the same turn, and however often they begin to collect."""
    async with accepted(network) as (one, its_peer), accepted(network) as (other, others_peer):
        for _ in range(3):
            for sock, peer in ((one, its_peer), (other, others_peer)):
                await peer.send(b"a\nb\n")
                assert await sock.receive_line() == b"a\n"
                calls.clear()
                sock.write(b"answer")
                assert calls.sent == []
            assert [await its_peer.receive(6), await others_peer.receive(6)] == [b"answer", b"answer"]
            assert [await one.receive_line(), await other.receive_line()] == [b"b\n", b"b\n"]


async def test_what_is_collected_for_a_peer_that_has_gone_harms_nobody(network: Network) -> None:
    """The task that sends it goes on for the others, and the loss is told where it belongs."""
    async with accepted(network) as (one, its_peer), accepted(network) as (other, others_peer):
        for sock, peer in ((one, its_peer), (other, others_peer)):
            await peer.send(b"a\nb\n")
            assert await sock.receive_line() == b"a\n"
            sock.write(b"answer")
            if sock is one:
                its_peer.reset()
        assert await others_peer.receive(6) == b"answer"
        while one.error() is None:
            one.read_all()
            await trio.lowlevel.checkpoint()


async def test_send_all_sends_at_once_and_starts_no_task(network: Network, calls: Calls) -> None:
    """It lets others have their turn behind each, so nothing is kept."""
    async with accepted(network) as (sock, peer):
        await peer.send(b"line\n" * 50)
        await sock.wait_for_ready_read()
        calls.clear()
        with Steps() as steps:
            async for line in sock.lines():
                await sock.send_all(line)
                if len(calls.sent) == 50:
                    break

        assert (calls.sent, steps.began) == ([5] * 50, [])


# ---- Fair ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", ["lines", "exactly", "until"])
async def test_reads_that_the_buffer_answers_let_others_have_their_turn(network: Network, read: str) -> None:
    """At the 64th at the latest; in two turns of trio's that are next to each other the other may be first and last."""
    forms: dict[str, Callable[[TcpSocket], Awaitable[bytes]]] = {
        "lines": lambda sock: sock.receive_line(),
        "exactly": lambda sock: sock.receive_exactly(2),
        "until": lambda sock: sock.receive_until(b"\n"),
    }
    async with accepted(network, read_buffer_size=100_000) as (sock, peer), trio.open_nursery() as nursery:
        await peer.send(b"x\n" * 10_000)
        await sock.receive_exactly(2)
        turns = 0

        @nursery.start_soon
        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        await trio.lowlevel.checkpoint()
        longest = since = last = 0
        for _ in range(9_000):
            await forms[read](sock)
            since = since + 1 if turns == last else 0
            last = turns
            longest = max(longest, since)
        nursery.cancel_scope.cancel()

    assert longest <= 2 * ANSWERS
    assert turns >= 9_000 // ANSWERS


async def test_a_slow_reader_lets_others_have_their_turn_each_millisecond(
    network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """64 answers with a second of work for each would be a minute."""
    async with accepted(network) as (sock, peer), trio.open_nursery() as nursery:
        await peer.send(b"x\n" * 50)
        await sock.receive_line()
        with Steps() as steps:
            for _ in range(40):
                mock_clock.jump(0.002)
                await sock.receive_line()
        nursery.cancel_scope.cancel()

    assert steps.turns >= 40


# ---- Linear --------------------------------------------------------------------------------------


def test_a_long_line_in_single_bytes_is_searched_once() -> None:
    """Each byte is looked at once, whatever the number of pieces that it comes in."""
    looked_at = 0

    class Counted(bytearray):
        def find(self, what: Any, start: Any = 0, *_: Any) -> int:
            nonlocal looked_at
            looked_at += len(self) - int(start)
            return super().find(what, start)

    buffer = ReadBuffer()
    size = 1 << 16
    for _ in range(size - 1):
        buffer.append(b"x")
        if type(buffer.data) is bytearray:
            buffer.data = Counted(buffer.data)
        assert buffer.take_through(b"\n", size) is None
    buffer.append(b"\n")

    assert buffer.take_through(b"\n", size) == b"x" * (size - 1) + b"\n"
    assert looked_at <= 3 * size


async def test_a_long_line_comes_through_in_small_pieces(network: Network, calls: Calls) -> None:
    """As many receives as pieces, and one line."""
    size, piece = 1 << 18, 64
    async with accepted(network) as (sock, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            for _ in range(size // piece - 1):
                await peer.send(b"x" * piece)
                await trio.lowlevel.checkpoint()
            await peer.send(b"x" * (piece - 1) + b"\n")

        assert await sock.receive_line(max_bytes=size) == b"x" * (size - 1) + b"\n"

    assert len(calls.received) <= 2 * size // piece + 1


async def test_a_large_message_is_sent_without_a_copy_of_its_rest(network: Network, calls: Calls) -> None:
    """4 MiB in one ``send_all``: what is queued is the message itself, and no send is longer than what is left."""
    message = bytes(range(256)) * (1 << 14)
    async with accepted(network) as (sock, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            assert len(await peer.receive(len(message))) == len(message)

        await sock.send_all(message)
        block = sock._queue.block()
        assert isinstance(block, memoryview)
        assert block.obj is message
        await sock.wait_for_bytes_written()

    assert sum(calls.sent) == len(message)
    assert len(calls.sent) <= len(message) // 1024


async def test_many_short_writes_are_few_sends_and_bounded(network: Network, calls: Calls) -> None:
    """10,000 of one byte: to a peer that does not read they are queued, up to the bound, and joined."""
    async with accepted(network, write_buffer_size=4096) as (sock, peer), trio.open_nursery() as nursery:
        while True:
            try:
                sock.write(bytes(65536))
            except trio.WouldBlock:
                break
        await trio.testing.wait_all_tasks_blocked()
        ahead = sum(calls.sent) + sock.bytes_to_write()
        calls.clear()
        most = 0

        @nursery.start_soon
        async def read() -> None:
            assert len(await peer.receive(ahead + 10_000)) == ahead + 10_000

        for _ in range(10_000):
            while True:
                try:
                    sock.write(b"x")
                    break
                except trio.WouldBlock:
                    most = max(most, len(sock._queue))
                    await sock.wait_send_all_might_not_block()
        await sock.wait_for_bytes_written()

    assert most <= 4096 + 65536
    assert len(calls.sent) <= 12_000
