"""Links over what is nothing but a trio stream; and sockets over such links, TLS among them, end to end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.certificates import Contexts
from tests.streams import OnlyStream
from trioqt import (
    Disconnected,
    ErrorKind,
    Event,
    HostAddress,
    ReadChannelFinished,
    SocketError,
    SocketOption,
    SocketState,
    StateChanged,
    TcpSocket,
)
from trioqt.links.stream import StreamLink

CONNECTED, CLOSING, UNCONNECTED = SocketState.CONNECTED, SocketState.CLOSING, SocketState.UNCONNECTED


class OneWay(OnlyStream):
    """A stream that cannot finish sending, and says what was asked of it."""

    def __init__(self, below: trio.abc.Stream) -> None:
        super().__init__(below)
        self.asked: list[int | None] = []
        self.ends: list[str] = []

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self.asked.append(max_bytes)
        return await super().receive_some(max_bytes)

    async def aclose(self) -> None:
        self.ends.append("forced" if trio.current_effective_deadline() == -math.inf else "in order")
        await super().aclose()


@asynccontextmanager
async def tls_pair(tls: Contexts) -> AsyncIterator[tuple[TcpSocket, trio.SSLStream[trio.abc.Stream]]]:
    """A socket over TLS, and trio's stream at the other end."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(theirs, tls.server, server_side=True)
    stream: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(ours, tls.client, server_hostname="peer.example")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.do_handshake)
        await stream.do_handshake()
    yield TcpSocket.from_stream(stream), peer
    await trio.aclose_forcefully(peer)


# ---- The link ----------------------------------------------------------------------------------


async def test_a_stream_cannot_be_asked_without_waiting() -> None:
    """Bytes that have arrived are seen only after a wait has brought them; before, nobody can know."""
    ours, theirs = trio.testing.memory_stream_pair()
    link = StreamLink(ours)
    await theirs.send_all(b"word")

    before = link.is_drained(), link.try_receive(10)
    await link.wait_receivable(10)
    brought = link.is_drained()
    taken = link.try_receive(10)

    assert before == (True, None)
    assert (brought, taken) == (False, b"word")
    assert (link.is_drained(), link.try_receive(10)) == (True, None)


async def test_what_a_wait_brought_is_kept_until_all_of_it_is_taken() -> None:
    """The stream is asked again only then, and never for more than was wanted."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = OneWay(ours)
    link = StreamLink(stream)
    await theirs.send_all(b"0123456789")

    await link.wait_receivable(8)
    pieces = [link.try_receive(3)]
    await link.wait_receivable(100)
    pieces += [link.try_receive(100), link.try_receive(100)]
    await link.wait_receivable(100)
    pieces.append(link.try_receive(100))

    assert pieces == [b"012", b"34567", None, b"89"]
    assert stream.asked == [8, 100]


async def test_a_wait_for_what_is_there_is_still_a_checkpoint() -> None:
    """A task that finds bytes every time must let others run all the same."""
    ours, theirs = trio.testing.memory_stream_pair()
    link = StreamLink(ours)
    await theirs.send_all(b"x")
    await link.wait_receivable(1)

    with trio.testing.assert_checkpoints():
        await link.wait_receivable(1)

    assert link.try_receive(1) == b"x"


async def test_the_end_stays_the_end() -> None:
    """However often it is asked for."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = OneWay(ours)
    link = StreamLink(stream)
    await theirs.send_eof()

    await link.wait_receivable(10)
    await link.wait_receivable(10)

    assert [link.try_receive(10), link.try_receive(1)] == [b"", b""]
    assert stream.asked == [10]


async def test_a_cancelled_wait_takes_nothing() -> None:
    """The bytes that come after it are for the next wait."""
    ours, theirs = trio.testing.memory_stream_pair()
    link = StreamLink(ours)

    with trio.CancelScope() as scope:
        scope.cancel()
        await link.wait_receivable(10)
    await theirs.send_all(b"still here")
    await link.wait_receivable(10)

    assert scope.cancelled_caught
    assert link.try_receive(10) == b"still here"


async def test_a_stream_takes_nothing_at_once_and_all_when_one_waits() -> None:
    """Nobody can know how much a stream would take, so what is written is queued and a task sends it."""
    ours, theirs = trio.testing.memory_stream_pair()
    link = StreamLink(ours)

    at_once = link.try_send(b"word")
    waited = await link.send(memoryview(b"word"))

    assert (at_once, waited) == (0, 4)
    assert await theirs.receive_some() == b"word"


async def test_finishing_is_the_streams_to_do() -> None:
    """Where it can, the peer sees the end and we still receive; where it cannot, that is said."""
    ours, theirs = trio.testing.memory_stream_pair()
    link = StreamLink(ours)
    await link.finish_sending()
    await theirs.send_all(b"answer")
    await link.wait_receivable(10)

    assert await theirs.receive_some() == b""
    assert link.try_receive(10) == b"answer"
    with pytest.raises(NotImplementedError, match="no send_eof"):
        await StreamLink(OneWay(ours)).finish_sending()


async def test_finishing_that_is_cancelled_has_not_begun() -> None:
    """The sending half of a memory pair is finished by closing it, which happens at once or not at all."""
    ours, theirs = trio.testing.memory_stream_pair()
    link = StreamLink(ours)

    with trio.CancelScope() as scope:
        scope.cancel()
        await link.finish_sending()
    await link.send(b"on")
    before = await theirs.receive_some()
    with trio.CancelScope() as too_late:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.finish_sending)
            for _ in range(2):  # whoever comes to its turn first
                await trio.lowlevel.checkpoint()
            too_late.cancel()

    assert (scope.cancelled_caught, before) == (True, b"on")
    assert await theirs.receive_some() == b""


@pytest.mark.parametrize("in_nursery", [True, False])
async def test_closing_at_once_is_forced_and_wakes_who_waits(in_nursery: bool) -> None:
    """The close itself needs a task, in the socket's nursery or in trio's own; it never says goodbye."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = OneWay(ours)

    async with trio.open_nursery() as nursery:
        link = StreamLink(stream, nursery if in_nursery else None)

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await link.wait_receivable(10)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        link.close()
        link.close(reset=True)
        await link.say_goodbye()
        await trio.testing.wait_all_tasks_blocked()

    assert stream.ends == ["forced"]
    assert await theirs.receive_some() == b""


async def test_a_nursery_that_has_ended_does_not_keep_the_stream_open() -> None:
    """Then one of trio's own tasks closes it."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = OneWay(ours)
    async with trio.open_nursery() as nursery:
        link = StreamLink(stream, nursery)

    link.close()
    await trio.testing.wait_all_tasks_blocked()

    assert stream.ends == ["forced"]
    assert await theirs.receive_some() == b""


async def test_a_stream_that_fails_while_it_is_closed_is_closed() -> None:
    """It is gone, which is all that was wanted; nobody is there to be told."""
    ours, _ = trio.testing.memory_stream_pair()
    stream = Failing(ours)

    StreamLink(stream).close()
    await trio.testing.wait_all_tasks_blocked()

    assert stream.ends == ["forced"]


class Odd(OneWay):
    """Its ``aclose`` raises what no stream should."""

    def __init__(self, below: trio.abc.Stream, error: Exception) -> None:
        super().__init__(below)
        self.error = error

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            raise self.error


@pytest.mark.parametrize("error", [ValueError("a bug"), trio.BusyResourceError("a bug"), KeyError("a bug")])
async def test_a_stream_with_a_bug_in_its_close_does_not_end_the_run(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Where no block can fail, one of trio's system tasks closes it; what that raised was a ``TrioInternalError``."""
    ours, _ = trio.testing.memory_stream_pair()
    sock = TcpSocket.from_stream(Odd(ours, error))
    sock.abort()
    await trio.testing.wait_all_tasks_blocked()

    (record,) = caplog.records
    assert (record.name, record.levelname) == ("trioqt.stream", "ERROR")
    assert record.getMessage() == "a stream of class Odd could not be closed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_a_stream_with_a_bug_in_its_close_fails_its_block() -> None:
    """As any task of a block that calls what is not ours."""
    ours, _ = trio.testing.memory_stream_pair()
    error = ValueError("a bug")
    with pytest.raises(ExceptionGroup) as caught:
        async with TcpSocket.from_stream(Odd(ours, error)) as sock:
            sock.abort()
            await trio.testing.wait_all_tasks_blocked()

    assert caught.value.exceptions == (error,)


class Giving(OneWay):
    """Its ``receive_some`` gives what it is told."""

    def __init__(self, below: trio.abc.Stream, given: object) -> None:
        super().__init__(below)
        self.given = given

    async def receive_some(self, max_bytes: int | None = None) -> Any:
        await trio.lowlevel.checkpoint()
        return self.given


@pytest.mark.parametrize("given", [5, None, "text", [1, 2]], ids=repr)
async def test_what_a_stream_gives_that_is_no_bytes_is_refused(given: object) -> None:
    """``bytes(5)`` are five that nobody has sent."""
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(TypeError, match="a bytes-like object is required"):
        async with TcpSocket.from_stream(Giving(ours, given)) as sock:
            await sock.receive_some()


async def test_a_stream_may_give_any_kind_of_bytes() -> None:
    """As trio's interface says: bytes or a bytearray."""
    ours, _ = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(Giving(ours, bytearray(b"hello"))) as sock:
        assert await sock.receive_exactly(5) == b"hello"


async def test_a_stream_that_says_that_it_is_closed_already_is_closed() -> None:
    """Wherever the task runs that closes it, that is all that was wanted."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(Odd(ours, trio.ClosedResourceError())) as sock:
        sock.abort()
        await trio.testing.wait_all_tasks_blocked()

    assert await theirs.receive_some() == b""


async def test_closing_in_order_lets_the_stream_say_goodbye() -> None:
    """TLS has one to say; and once it is said, closing again does nothing."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = OneWay(ours)
    link = StreamLink(stream)

    await link.say_goodbye()
    await link.say_goodbye()
    link.close()
    await trio.testing.wait_all_tasks_blocked()

    assert stream.ends == ["in order"]
    assert await theirs.receive_some() == b""


async def test_a_stream_has_no_addresses_and_no_socket() -> None:
    """So there are no options and no descriptor either."""
    ours, _ = trio.testing.memory_stream_pair()
    link = StreamLink(ours)

    assert (link.local_address(), link.peer_address(), link.native()) == (None, None, None)


# ---- A socket over a stream --------------------------------------------------------------------


async def test_a_socket_over_a_stream_says_what_it_is() -> None:
    """CONNECTED from the beginning, with no addresses, no name and no descriptor."""
    ours, _ = trio.testing.memory_stream_pair()
    sock = TcpSocket.from_stream(ours)
    before = sock.state()

    async with sock:
        said = (
            sock.state(),
            sock.local_address(),
            sock.local_port(),
            sock.peer_address(),
            sock.peer_port(),
            sock.peer_name(),
            sock.socket_descriptor(),
        )

    assert before is CONNECTED
    assert said == (CONNECTED, HostAddress.NULL, 0, HostAddress.NULL, 0, "", -1)
    assert sock.state() is UNCONNECTED


async def test_a_socket_over_a_stream_works_only_in_a_scope() -> None:
    """Before it is entered it sends and receives nothing, and takes nothing away; then it does."""
    ours, theirs = trio.testing.memory_stream_pair()
    sock = TcpSocket.from_stream(ours)
    await theirs.send_all(b"early\n")

    refused: list[ErrorKind] = []
    for call in (sock.receive_line(), sock.send_all(b"x"), sock.wait_for_bytes_written()):
        with pytest.raises(SocketError, match="outside of the socket's `async with` block") as caught:
            await call
        refused.append(caught.value.kind)
    async with sock:
        line = await sock.receive_line()
        await sock.send_all(b"answer")

    assert refused == [ErrorKind.OPERATION] * 3
    assert line == b"early\n"
    assert await theirs.receive_some() == b"answer"


async def test_a_parent_nursery_is_scope_enough() -> None:
    """It works at once; closing it closes the stream in order."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = OneWay(ours)

    async with trio.open_nursery() as nursery:
        sock = TcpSocket.from_stream(stream, nursery)
        await sock.send_all(b"word")
        await sock.aclose()

    assert await theirs.receive_some() == b"word"
    assert await theirs.receive_some() == b""
    assert stream.ends == ["in order"]
    assert sock.state() is UNCONNECTED


async def test_leaving_the_block_sends_what_is_queued_and_closes_the_stream_in_order() -> None:
    """The same promise as over a kernel socket."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = OneWay(ours)

    async with TcpSocket.from_stream(stream) as sock:
        sock.write(b"queued")
        queued = sock.bytes_to_write()

    assert queued == 6
    assert await theirs.receive_some() == b"queued"
    assert await theirs.receive_some() == b""
    assert stream.ends == ["in order"]


async def test_an_exception_closes_the_stream_by_force_before_the_block_is_left() -> None:
    """No goodbye to a peer that was cut off, and no task left behind that still has to do it."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = OneWay(ours)

    with pytest.raises(KeyError):
        async with TcpSocket.from_stream(stream):
            raise KeyError

    assert stream.ends == ["forced"]
    assert await theirs.receive_some() == b""


@pytest.mark.parametrize(
    ("end", "seen"), [("aclose", "in order"), ("disconnect_from_host", "in order"), ("abort", "forced")]
)
async def test_a_socket_that_nobody_entered_closes_its_stream(end: str, seen: str) -> None:
    """It owns the stream from the beginning, so ending it ends that too."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = OneWay(ours)
    sock = TcpSocket.from_stream(stream)

    if end == "aclose":
        await sock.aclose()
    elif end == "disconnect_from_host":
        await sock.disconnect_from_host()
    else:
        sock.abort()
    await trio.testing.wait_all_tasks_blocked()

    assert sock.state() is UNCONNECTED
    assert stream.ends == [seen]
    assert await theirs.receive_some() == b""


async def test_a_stream_without_send_eof_says_so_and_goes_on() -> None:
    """The call is refused, not half done: bytes still go both ways."""
    ours, theirs = trio.testing.memory_stream_pair()

    async with TcpSocket.from_stream(OneWay(ours)) as sock:
        with pytest.raises(SocketError) as caught:
            await sock.send_eof()
        await sock.send_all(b"more")
        await theirs.send_all(b"answer")
        answer = await sock.receive_some()

    assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
    assert answer == b"answer"
    assert await theirs.receive_some() == b"more"


async def test_a_stream_has_no_options() -> None:
    """Set or read, before and after the block is entered: unsupported, and nothing is remembered."""
    ours, _ = trio.testing.memory_stream_pair()
    kinds: list[ErrorKind] = []

    async with TcpSocket.from_stream(ours) as sock:
        with pytest.raises(SocketError) as caught:
            sock.set_socket_option(SocketOption.KEEP_ALIVE, 1)
        kinds.append(caught.value.kind)
        with pytest.raises(SocketError) as caught:
            sock.socket_option(SocketOption.LOW_DELAY)
        kinds.append(caught.value.kind)

    assert kinds == [ErrorKind.UNSUPPORTED_SOCKET_OPERATION] * 2


async def test_only_a_stream_will_do() -> None:
    """Anything else is a mistake of the program, told before anything is made."""
    with pytest.raises(TypeError, match=r"not a trio\.abc\.Stream: object"):
        TcpSocket.from_stream(object())  # type: ignore[arg-type]


async def test_a_broken_stream_is_a_lost_connection() -> None:
    """The stream's own error becomes a SocketError whose cause it is, and stays."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.aclose()

    async with TcpSocket.from_stream(ours) as sock:
        sock.write(b"to nobody")
        with pytest.raises(SocketError) as caught:
            await sock.wait_for_bytes_written()
        with pytest.raises(SocketError) as again:
            await sock.send_all(b"more")

        assert caught.value.kind is again.value.kind is ErrorKind.REMOTE_HOST_CLOSED
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
        assert sock.state() is UNCONNECTED


# ---- TLS ---------------------------------------------------------------------------------------


async def test_lines_over_tls_both_ways(tls: Contexts) -> None:
    """trio's TLS below, our lines above: the whole of a conversation, ended with TLS's own goodbye."""
    async with tls_pair(tls) as (sock, peer):
        events: list[Event] = []

        async def converse() -> None:
            async with sock:
                await sock.send_all(b"hello\n")
                lines.append(await sock.receive_line())
                lines.append(await sock.receive_line())
                sock.write(b"bye\n")

        lines: list[bytes] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(_collect, sock, events)
            nursery.start_soon(converse)
            first = await peer.receive_some()
            await peer.send_all(b"one\ntwo")
            await peer.send_all(b"\n")
            last = await peer.receive_some()
            end = await peer.receive_some()

    assert (first, last, end) == (b"hello\n", b"bye\n", b"")
    assert lines == [b"one\n", b"two\n"]
    assert [event for event in events if isinstance(event, (StateChanged, ReadChannelFinished, Disconnected))] == [
        StateChanged(CLOSING),
        StateChanged(UNCONNECTED),
        ReadChannelFinished(),
        Disconnected(),
    ]


async def test_a_megabyte_over_tls_arrives_whole(tls: Contexts) -> None:
    """TLS has records of its own; what is queued is sent whole and in order through them."""
    data = bytes(range(256)) * 4096

    async with tls_pair(tls) as (sock, peer):
        received = bytearray()

        async def receive() -> None:
            async for piece in peer:
                received.extend(piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            async with sock:
                for start in range(0, len(data), 50_000):
                    await sock.send_all(data[start : start + 50_000])

    assert received == data


async def test_a_truncated_tls_connection_is_no_end(tls: Contexts) -> None:
    """Without TLS's goodbye anybody in between may have cut it off; what came before stays readable."""
    async with tls_pair(tls) as (sock, peer):
        async with sock:
            await peer.send_all(b"half a sen")
            assert await sock.wait_for_ready_read()
            await trio.aclose_forcefully(peer)
            with pytest.raises(SocketError) as caught:
                await sock.receive_line()
            rest = sock.read_all()

    assert caught.value.kind is ErrorKind.REMOTE_HOST_CLOSED
    assert rest == b"half a sen"


async def test_aborting_over_tls_says_no_goodbye(tls: Contexts) -> None:
    """The peer must not take what it has for the whole."""
    async with tls_pair(tls) as (sock, peer):
        async with sock:
            sock.write(b"never sent whole")
            sock.abort()
            with pytest.raises(trio.BrokenResourceError):
                await peer.receive_some()

    assert sock.state() is UNCONNECTED


class Failing(OneWay):
    """Breaks when it is closed."""

    async def aclose(self) -> None:
        await super().aclose()
        raise trio.BrokenResourceError


async def _collect(sock: TcpSocket, into: list[Event], *, task_status: trio.TaskStatus[None]) -> None:
    async with sock.events() as events:
        task_status.started()
        async for event in events:
            into.append(event)
