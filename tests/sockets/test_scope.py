"""The life of a socket is a block, or a nursery: how it begins, how it ends, and what comes out of it."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.links.scripted import Answer, ScriptedNetwork, ScriptedSocket
from tests.networks import Network, RawPeer
from tests.sockets.arrivals import open_descriptors
from tests.sockets.ports import be_refused
from tests.sockets.telling import told
from trioqt import (
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    Event,
    HostAddress,
    ReadChannelFinished,
    SocketError,
    SocketState,
    StateChanged,
    TcpServer,
    TcpSocket,
    UdpSocket,
)
from trioqt.links.native import NativeLink

OVER_TLS = True

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState

LARGE = bytes(range(256)) * 40_000
"""More than the kernel takes for a peer that does not read."""


@asynccontextmanager
async def peer_of(network: Network, sock: TcpSocket) -> AsyncIterator[RawPeer]:
    """Connect ``sock``, whose block is open, and give its peer."""
    with await network.raw_listener() as listener:
        await sock.connect_to_host(network.host, listener.port)
        with await listener.accept() as peer:
            await peer.ready()
            yield peer


async def meet(network: Network, sock: TcpSocket) -> RawPeer:
    """As ``peer_of``; the caller closes the peer."""
    with await network.raw_listener() as listener:
        await sock.connect_to_host(network.host, listener.port)
        peer = await listener.accept()
        await peer.ready()
        return peer


async def how_it_ended(peer: RawPeer) -> tuple[int, str]:
    """How many bytes the peer received, and if the end was clean."""
    count = 0
    with peer:
        try:
            while piece := await peer.receive_some():
                count += len(piece)
        except ConnectionResetError:
            return count, "reset"
        return count, "end"


@contextmanager
def raises_just(exc: BaseException) -> Iterator[None]:
    """That very exception comes out: not a copy, not in a group, nothing raised on its way."""
    with pytest.raises(type(exc)) as caught:
        yield
    assert caught.value is exc
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


# ---- Leaving it normally -----------------------------------------------------------------------


async def test_leaving_normally_sends_what_is_queued_and_ends_in_order(network: Network) -> None:
    """Law 3: everything that was written arrives, whole and in order, before a clean end."""
    received = bytearray()

    async def receive(peer: RawPeer) -> None:
        received.extend(await peer.receive_to_end())

    async with trio.open_nursery() as nursery:
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            sock.write(LARGE)
            queued = sock.bytes_to_write()
            nursery.start_soon(receive, peer)
        left = sock.state(), sock.bytes_to_write(), sock.error()
    peer.close()

    assert 0 < queued < len(LARGE)
    assert received == LARGE
    assert left == (UNCONNECTED, 0, None)


async def test_what_leaving_tells(network: Network) -> None:
    """Qt's order, and the iteration ends with the block."""
    events: list[Event] = []

    async def listen(sock: TcpSocket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with sock.events() as subscription:
            task_status.started()
            async for event in subscription:
                events.append(event)

    async with trio.open_nursery() as nursery:
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            await nursery.start(listen, sock)
    peer.close()

    assert events == [StateChanged(CLOSING), StateChanged(UNCONNECTED), ReadChannelFinished(), Disconnected()]


async def test_leaving_an_unconnected_socket_tells_nothing() -> None:
    """There is nothing to end."""
    sock = TcpSocket()
    async with sock:
        async with told(sock) as events:
            pass

    assert events == []
    assert sock.state() is UNCONNECTED


async def test_leaving_after_aclose_finds_nothing_to_do(network: Network) -> None:
    """Closed twice is closed once."""
    async with TcpSocket() as sock:
        peer = await meet(network, sock)
        await sock.aclose()
        await sock.aclose()

    assert await how_it_ended(peer) == (0, "end")


# ---- Leaving it on an exception ----------------------------------------------------------------


async def idle(sock: TcpSocket) -> None:
    """None of the socket's own tasks runs."""


async def drained(sock: TcpSocket) -> None:
    sock.write(LARGE)
    assert sock.bytes_to_write() > 0


async def watched(sock: TcpSocket) -> None:
    await sock.events().__aenter__()
    await trio.testing.wait_all_tasks_blocked()


async def watched_and_drained(sock: TcpSocket) -> None:
    await watched(sock)
    await drained(sock)


TASKS = [idle, drained, watched, watched_and_drained]


# fmt: off
BODY_EXCEPTIONS: list[BaseException] = [
    KeyError("body"),
    SocketError(ErrorKind.OPERATION, "the body's own"),
    trio.ClosedResourceError("the body's own"),
    ExceptionGroup("the body's own", [ValueError()]),
    SystemExit(3),
    GeneratorExit(),
]
# fmt: on


@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize("exc", BODY_EXCEPTIONS, ids=lambda exc: type(exc).__name__)
async def test_the_bodys_exception_goes_out_as_it_is(
    network: Network, exc: BaseException, tasks: Callable[[TcpSocket], Awaitable[None]]
) -> None:
    """Whatever it is, and whatever the socket's own tasks were doing: never in a group of our making.

    And the peer sees a reset: it must not take half an answer for the whole.
    """
    exc.__context__ = None
    with raises_just(exc):
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            await tasks(sock)
            raise exc

    assert sock.state() is UNCONNECTED
    assert (await how_it_ended(peer))[1] == "reset"


@pytest.mark.parametrize("tasks", TASKS)
async def test_an_exception_during_an_outer_cancellation_is_not_replaced(
    network: Network, tasks: Callable[[TcpSocket], Awaitable[None]]
) -> None:
    """A clean-up that fails is a bug, and must not vanish because somebody has cancelled us too."""
    exc = KeyError("in a clean-up")
    with trio.CancelScope() as scope:
        with raises_just(exc):
            async with TcpSocket() as sock:
                peer = await meet(network, sock)
                await tasks(sock)
                scope.cancel()
                raise exc
    with trio.CancelScope(shield=True):
        ended = await how_it_ended(peer)

    assert scope.cancel_called
    assert not scope.cancelled_caught
    assert ended[1] == "reset"


async def test_an_exception_during_an_outer_cancellation_over_a_stream_is_not_replaced() -> None:
    """Closing a stream takes a task, which the cancellation reaches as well: that is not the body's business."""
    exc = KeyError("in a clean-up")
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.CancelScope() as scope:
        with raises_just(exc):
            async with TcpSocket.from_stream(ours) as sock:
                scope.cancel()
                raise exc
    end = await theirs.receive_some()

    assert scope.cancel_called
    assert not scope.cancelled_caught
    assert sock.state() is UNCONNECTED
    assert end == b""


@pytest.mark.parametrize("tasks", TASKS)
async def test_cancelling_the_body_aborts(network: Network, tasks: Callable[[TcpSocket], Awaitable[None]]) -> None:
    """The cancellation goes out bare, to the scope it is meant for; a peer that was robbed of bytes sees a reset."""
    with trio.CancelScope() as scope:
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            await tasks(sock)
            scope.cancel()
            await trio.sleep_forever()
    ended = await how_it_ended(peer)

    assert scope.cancelled_caught
    assert sock.state() is UNCONNECTED
    assert ended[1] == ("reset" if tasks in (drained, watched_and_drained) else "end")


async def test_what_an_exception_tells(network: Network) -> None:
    """As ``abort``: there is no CLOSING."""
    with pytest.raises(KeyError):
        async with TcpSocket() as sock:
            async with peer_of(network, sock):
                subscription = await sock.events().__aenter__()
                raise KeyError

    assert [event async for event in subscription] == [
        StateChanged(UNCONNECTED),
        ReadChannelFinished(),
        Disconnected(),
    ]


async def test_cancelled_while_it_flushes(network: Network) -> None:
    """Ending is the exception to "it did not happen": a cancelled exit has ended the connection, as by ``abort``."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            async with TcpSocket() as sock:
                peer = await meet(network, sock)
                sock.write(LARGE)
                nursery.start_soon(cancel_when_blocked, scope)
    ended = await how_it_ended(peer)

    assert scope.cancelled_caught
    assert (sock.state(), sock.error(), sock.bytes_to_write()) == (UNCONNECTED, None, 0)
    assert ended[1] == "reset"


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_a_shielded_goodbye_in_a_cancelled_scope_still_works(network: Network) -> None:
    """The socket's own tasks outlive an outer cancellation until the block ends, so the last words go out whole."""
    received = bytearray()

    async def receive(peer: RawPeer) -> None:
        with trio.CancelScope(shield=True):
            received.extend(await peer.receive_to_end())

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with TcpSocket() as sock:
                peer = await meet(network, sock)
                async with sock.events():
                    scope.cancel()
                    try:
                        await trio.sleep_forever()
                    finally:
                        with trio.CancelScope(shield=True):
                            await sock.send_all(LARGE)
                            queued = sock.bytes_to_write()
                            nursery.start_soon(receive, peer)
                            await sock.disconnect_from_host()
    peer.close()

    assert scope.cancelled_caught
    assert queued > 0
    assert received == LARGE
    assert sock.state() is UNCONNECTED


async def test_abort_works_when_cancelled(network: Network) -> None:
    """It is sync and waits for nothing, so it can be called where nothing else can."""
    with trio.CancelScope() as scope:
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            sock.write(LARGE)
            scope.cancel()
            sock.abort()
            after = sock.state(), sock.bytes_to_write(), sock.error()

    assert after == (UNCONNECTED, 0, None)
    assert (await how_it_ended(peer))[1] == "reset"


# ---- What leaving raises -----------------------------------------------------------------------


async def test_bytes_that_were_lost_without_a_word_are_told_at_the_end(network: Network) -> None:
    """Nobody has heard yet that the queue did not go out: the exit says so, and so does every later call."""
    with pytest.raises(SocketError) as caught:
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            sock.write(LARGE)
            peer.reset()
            await sock.wait_for_disconnected()
            error = sock.error()

    assert caught.value.kind is error is ErrorKind.REMOTE_HOST_CLOSED
    assert caught.value.errno in (errno.ECONNRESET, errno.EPIPE)
    assert sock.state() is UNCONNECTED


async def flush_in_vain(sock: TcpSocket) -> None:
    await sock.wait_for_bytes_written()


async def send_in_vain(sock: TcpSocket) -> None:
    await sock.send_all(b"more")


async def disconnect_in_vain(sock: TcpSocket) -> None:
    await sock.disconnect_from_host()


@pytest.mark.parametrize("call", [flush_in_vain, send_in_vain, disconnect_in_vain])
async def test_a_failure_that_a_call_has_raised_is_not_raised_again(
    network: Network, call: Callable[[TcpSocket], Awaitable[None]]
) -> None:
    """Who has handled it has handled it."""
    async with TcpSocket() as sock:
        peer = await meet(network, sock)
        sock.write(LARGE)
        peer.reset()
        with pytest.raises(SocketError) as caught:
            await call(sock)

    assert caught.value.kind is ErrorKind.REMOTE_HOST_CLOSED
    assert sock.error() is ErrorKind.REMOTE_HOST_CLOSED


async def test_a_lost_connection_with_nothing_unsent_is_not_raised(network: Network) -> None:
    """No byte of ours was lost, and nobody asked for more."""
    async with TcpSocket() as sock:
        peer = await meet(network, sock)
        peer.reset()
        await sock.wait_for_disconnected()

    assert sock.error() is ErrorKind.REMOTE_HOST_CLOSED


async def test_bytes_that_were_dropped_on_purpose_are_not_told(network: Network) -> None:
    """``abort`` is a decision, not a failure."""
    async with TcpSocket() as sock:
        peer = await meet(network, sock)
        sock.write(LARGE)
        sock.abort()

    assert sock.error() is None
    assert (await how_it_ended(peer))[1] == "reset"


async def test_the_bodys_exception_comes_before_what_was_lost(network: Network) -> None:
    """An exit that follows an exception adds nothing to it."""
    exc = KeyError("body")
    with raises_just(exc):
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            sock.write(LARGE)
            peer.reset()
            await sock.wait_for_disconnected()
            raise exc

    assert sock.error() is ErrorKind.REMOTE_HOST_CLOSED


# ---- flush_timeout -----------------------------------------------------------------------------


async def test_a_peer_that_takes_nothing_does_not_hold_the_exit_for_ever(
    network: Network, mock_clock: trio.testing.MockClock
) -> None:
    """After ``flush_timeout`` it is aborted: a reset for the peer, SOCKET_TIMEOUT for us."""
    peers: list[RawPeer] = []
    raised: list[SocketError] = []

    async def leave() -> None:
        with pytest.raises(SocketError) as caught:
            async with TcpSocket(flush_timeout=3.0) as sock:
                peers.append(await meet(network, sock))
                async with told(sock) as events:
                    sock.write(LARGE)
                    seen.append(events)
        raised.append(caught.value)
        states.append(sock.state())

    seen: list[list[Event]] = []
    states: list[SocketState] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked(0.01)
        waited = not raised
        mock_clock.jump(3.1)

    (error,) = raised
    assert waited
    assert (error.kind, error.errno) == (ErrorKind.SOCKET_TIMEOUT, errno.ETIMEDOUT)
    assert "the peer took nothing for 3 s" in error.message
    assert states == [UNCONNECTED]
    assert (await how_it_ended(peers[0]))[1] == "reset"


class Trickle(ScriptedSocket):
    """A kernel that takes so many bytes a second."""

    rate: int
    pace: float

    def __init__(self, network: TrickleNetwork, family: int) -> None:
        super().__init__(network, family)
        self.rate, self.pace = network.rate, network.pace
        self.room = 0
        self.taken = 0

    def try_send(self, data: bytes | memoryview, /) -> int:
        taken = min(self.room, len(data))
        if not taken:
            raise BlockingIOError
        self.room -= taken
        self.taken += taken
        return taken

    async def wait_writable(self) -> None:
        await trio.sleep(self.pace)
        self.room = self.rate


class TrickleNetwork(ScriptedNetwork):
    """Peers that read slowly."""

    def __init__(self, rate: int, pace: float) -> None:
        super().__init__({"1.1.1.1": Answer()})
        self.rate, self.pace = rate, pace

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> Trickle:
        sock = Trickle(self, family)
        self.sockets.append(sock)
        return sock


async def test_every_byte_that_goes_starts_the_flush_timeout_anew(autojump_clock: Any) -> None:
    """Slow is not stuck: 100 bytes at one in 9 s take 900 s, and all arrive, with a timeout of 10."""
    network = TrickleNetwork(rate=1, pace=9.0)

    async with TcpSocket(flush_timeout=10.0) as sock:
        await sock.connect_to_host("1.1.1.1", 80)
        began = trio.current_time()
        sock.write(bytes(100))

    (below,) = network.sockets
    assert isinstance(below, Trickle)
    assert (below.taken, below.resets, below.closed) == (100, False, True)
    assert trio.current_time() - began == 900.0


async def test_the_flush_timeout_begins_when_the_block_is_left(autojump_clock: Any) -> None:
    """A peer may be as slow as it likes before; only the exit is bounded, here at 10 s, where a byte takes 11."""
    network = TrickleNetwork(rate=10, pace=11.0)

    with pytest.raises(SocketError) as caught:
        async with TcpSocket(flush_timeout=10.0) as sock:
            await sock.connect_to_host("1.1.1.1", 80)
            sock.write(bytes(35))
            await trio.sleep(25.0)
            left = trio.current_time()

    (below,) = network.sockets
    assert isinstance(below, Trickle)
    assert caught.value.kind is sock.error() is ErrorKind.SOCKET_TIMEOUT
    assert caught.value.message == "the connection was lost: the peer took nothing for 10 s, 5 bytes were not sent"
    assert (below.taken, below.resets, below.closed) == (30, True, True)
    assert trio.current_time() - left == 18.0


async def test_only_the_exit_has_a_flush_timeout(autojump_clock: Any) -> None:
    """``disconnect_from_host`` waits as long as it takes: who wants less writes a scope around it."""
    network = TrickleNetwork(rate=1, pace=1000.0)

    async with TcpSocket(flush_timeout=1.0) as sock:
        await sock.connect_to_host("1.1.1.1", 80)
        sock.write(b"abc")
        await sock.disconnect_from_host()

    (below,) = network.sockets
    assert isinstance(below, Trickle)
    assert (below.taken, below.resets) == (3, False)
    assert trio.current_time() - network.began == 3000.0


async def test_a_flush_timeout_of_zero_does_not_wait(autojump_clock: Any) -> None:
    """What the kernel has not taken by then is dropped."""
    network = TrickleNetwork(rate=1, pace=1.0)

    with pytest.raises(SocketError) as caught:
        async with TcpSocket(flush_timeout=0.0) as sock:
            await sock.connect_to_host("1.1.1.1", 80)
            sock.write(b"abc")

    assert caught.value.kind is ErrorKind.SOCKET_TIMEOUT
    assert network.sockets[0].resets
    assert trio.current_time() == network.began


@pytest.mark.parametrize("value", [-1.0, float("nan"), "10", None])
def test_a_flush_timeout_is_a_number_of_seconds(value: Any) -> None:
    """Told when the socket is made, not when it is left."""
    with pytest.raises((TypeError, ValueError)):
        TcpSocket(flush_timeout=value)


# ---- Another task ends it meanwhile ------------------------------------------------------------


async def test_disconnecting_is_told_when_another_task_aborts(network: Network) -> None:
    """Its bytes did not go out, and it was waiting for that: ClosedResourceError."""
    ended: list[str] = []

    async def disconnect(sock: TcpSocket) -> None:
        with pytest.raises(trio.ClosedResourceError) as caught:
            await sock.disconnect_from_host()
        ended.append(str(caught.value))

    async with TcpSocket() as sock:
        peer = await meet(network, sock)
        sock.write(LARGE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disconnect, sock)
            await trio.testing.wait_all_tasks_blocked()
            before = sock.state()
            sock.abort()

    assert before is CLOSING
    assert ended == ["cannot disconnect: another task aborted the connection"]
    assert (await how_it_ended(peer))[1] == "reset"


async def test_leaving_is_not_told_when_another_task_aborts(network: Network) -> None:
    """Who aborted knows why; the block ends, and that was all it wanted."""

    async def abort_when_blocked(sock: TcpSocket) -> None:
        await trio.testing.wait_all_tasks_blocked()
        states.append(sock.state())
        sock.abort()

    states: list[SocketState] = []
    async with trio.open_nursery() as nursery:
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            sock.write(LARGE)
            nursery.start_soon(abort_when_blocked, sock)

    assert states == [CLOSING]
    assert (sock.state(), sock.error()) == (UNCONNECTED, None)
    assert (await how_it_ended(peer))[1] == "reset"


# ---- Nested ------------------------------------------------------------------------------------


async def test_the_inner_exit_ends_the_socket_and_the_outer_finds_nothing_to_do(network: Network) -> None:
    """A function that is given an entered socket may enter it again, without knowing."""
    async with TcpSocket() as sock:
        async with sock as again:
            peer = await meet(network, sock)
            sock.write(b"all of it")
        between = sock.state()
        with pytest.raises(trio.ClosedResourceError):
            sock.write(b"more")

    assert again is sock
    assert between is UNCONNECTED
    assert await how_it_ended(peer) == (9, "end")


async def test_another_task_may_enter_it(network: Network) -> None:
    """Its exit ends the socket; the block it was opened in goes on until its own end."""
    received = bytearray()

    async def use(sock: TcpSocket) -> None:
        async with sock:
            sock.write(LARGE)

    async def receive(peer: RawPeer) -> None:
        received.extend(await peer.receive_to_end())

    async with TcpSocket() as sock:
        peer = await meet(network, sock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, sock)
            nursery.start_soon(receive, peer)
        between = sock.state()
        await trio.lowlevel.checkpoint()
    peer.close()

    assert received == LARGE
    assert between is UNCONNECTED


async def test_the_block_it_was_opened_in_may_end_first(network: Network) -> None:
    """Then the inner block, in another task, finds nothing to do."""
    leave = trio.Event()

    async def use(sock: TcpSocket) -> None:
        async with sock:
            await leave.wait()

    async with trio.open_nursery() as nursery:
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            nursery.start_soon(use, sock)
            await trio.testing.wait_all_tasks_blocked()
        between = sock.state()
        leave.set()

    assert between is UNCONNECTED
    assert await how_it_ended(peer) == (0, "end")


@pytest.mark.parametrize("depth", [1, 2])
async def test_an_exception_through_nested_blocks_is_still_bare(network: Network, depth: int) -> None:
    """However many blocks it crosses, in the task that opened them."""
    exc = KeyError("inner")
    with raises_just(exc):
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            async with sock:
                async with sock if depth == 2 else TcpSocket():
                    raise exc

    assert await how_it_ended(peer) == (0, "reset")


async def test_a_handler_may_enter_the_socket_that_serve_entered(network: Network) -> None:
    """The same handler works for connections that it accepts itself."""
    states: list[SocketState] = []

    async def handle(sock: TcpSocket) -> None:
        async with sock:
            sock.write(b"hello")
        states.append(sock.state())
        server.close()

    async with TcpServer() as server:
        await server.listen(network.host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, handle)
            peer = await network.raw_connect(server.server_port())
            ended = await how_it_ended(peer)

    assert ended == (5, "end")
    assert states == [UNCONNECTED]


# ---- Without one, and after it -----------------------------------------------------------------


# fmt: off
CALLS: list[tuple[str, Callable[[TcpSocket], Any]]] = [
    ("write",                          lambda sock: sock.write(b"x")),
    ("write",                          lambda sock: sock.put_char(b"x")),
    ("send",                           lambda sock: sock.send_all(b"x")),
    ("send",                           lambda sock: sock.wait_send_all_might_not_block()),
    ("finish sending",                 lambda sock: sock.send_eof()),
    ("wait for bytes to be written",   lambda sock: sock.wait_for_bytes_written()),
    ("receive",                        lambda sock: sock.receive_some()),
    ("receive",                        lambda sock: sock.receive_line()),
    ("receive",                        lambda sock: sock.receive_until(b"x")),
    ("receive",                        lambda sock: sock.receive_exactly(1)),
    ("receive",                        lambda sock: sock.wait_for_ready_read()),
    ("receive",                        lambda sock: anext(sock)),
    ("receive",                        lambda sock: anext(sock.lines())),
    ("unget",                          lambda sock: sock.unget_char(b"x")),
    ("start a transaction",            lambda sock: sock.start_transaction()),
    ("connect",                        lambda sock: sock.connect_to_host("127.0.0.1", 1)),
    ("bind",                           lambda sock: sock.bind("127.0.0.1")),
    ("wait for a connection",          lambda sock: sock.wait_for_connected()),
]
# fmt: on


async def call(sock: TcpSocket, verb: Callable[[TcpSocket], Any]) -> None:
    result = verb(sock)
    if isinstance(result, Awaitable):
        await result


@pytest.mark.parametrize(("attempted", "verb"), CALLS)
async def test_without_a_scope_a_socket_does_not_work(attempted: str, verb: Callable[[TcpSocket], Any]) -> None:
    """OPERATION, which says what is missing."""
    sock = TcpSocket()

    with pytest.raises(SocketError) as caught:
        await call(sock, verb)

    assert caught.value.kind is ErrorKind.OPERATION
    assert caught.value.message == f"cannot {attempted} outside of the socket's `async with` block"
    assert (sock.state(), sock.error()) == (UNCONNECTED, None)


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(("attempted", "verb"), CALLS)
async def test_after_its_block_a_socket_is_closed(
    network: Network, attempted: str, verb: Callable[[TcpSocket], Any], connected: bool
) -> None:
    """ClosedResourceError, however the block ended and whatever is called."""
    async with TcpSocket() as sock:
        if connected:
            peer = await meet(network, sock)
            peer.close()

    with pytest.raises(trio.ClosedResourceError, match=f"cannot {attempted}: the socket is closed"):
        await call(sock, verb)


async def test_what_may_be_asked_of_a_closed_socket(network: Network) -> None:
    """What it is, and that it is at its end; ending it again does nothing."""
    async with TcpSocket() as sock:
        async with peer_of(network, sock) as peer:
            await peer.send(b"unread")
            assert await sock.wait_for_ready_read()

    sock.abort()
    await sock.disconnect_from_host()
    await sock.aclose()
    await sock.wait_for_disconnected()
    async with told(sock) as events:
        pass

    assert events == []
    assert (sock.state(), sock.is_valid(), sock.error(), sock.error_string()) == (UNCONNECTED, False, None, "")
    assert (sock.local_address(), sock.peer_address()) == (HostAddress.NULL, HostAddress.NULL)
    assert (sock.peer_name(), sock.socket_descriptor()) == (network.host, -1)
    assert (sock.bytes_available(), sock.bytes_to_write(), sock.flush()) == (0, 0, False)


@pytest.mark.parametrize("how", ["left", "closed", "failed"])
async def test_a_closed_socket_is_not_entered_again(how: str) -> None:
    """One socket, one life."""
    sock = TcpSocket()
    if how == "closed":
        await sock.aclose()
    else:
        try:
            async with sock:
                assert how == "left"
        except AssertionError:
            pass

    with pytest.raises(trio.ClosedResourceError, match="the socket is closed"):
        async with sock:
            pytest.fail("it was entered")


# ---- The tasks of a block ----------------------------------------------------------------------


@pytest.mark.parametrize("body", ["ends", "raises"])
async def test_a_bug_in_a_sockets_task_comes_out_of_its_block_in_a_group(
    network: Network, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    """It ends neither the run nor any other block; the socket is closed at once, and the body's own is behind it."""
    own = ValueError("of the body") if body == "raises" else None

    def fails(link: NativeLink, max_bytes: int) -> bytes | None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with TcpSocket() as sock:
            peer = await meet(network, sock)
            async with sock.events() as events:
                with monkeypatch.context() as patch:
                    patch.setattr(NativeLink, "try_receive", fails)
                    await peer.send(b"x")
                    seen = [event async for event in events]
            state = sock.state()
            if own is not None:
                raise own
    peer.close()

    assert [type(exc) for exc in caught.value.exceptions] == [ZeroDivisionError]
    assert caught.value.__context__ is own
    assert (state, seen[-1]) == (UNCONNECTED, Disconnected())


@pytest.mark.unwatched("its task is one more")
async def test_a_blocks_tasks_have_ended_when_it_has(network: Network) -> None:
    """A block has no nursery until it needs a task, and then none to see: but none of its tasks outlives it."""
    root = trio.lowlevel.current_root_task()
    assert root is not None

    def tasks() -> set[str]:
        nurseries = list(root.child_nurseries)
        found: set[str] = set()
        while nurseries:
            for task in nurseries.pop().child_tasks:
                found.add(task.name.rpartition(".")[2])
                nurseries += task.child_nurseries
        return found

    before = tasks()
    async with TcpSocket() as sock:
        peer = await meet(network, sock)
        await trio.testing.wait_all_tasks_blocked()  # whoever listened over TLS has ended
        async with sock.events():
            sock.write(LARGE)
            during = tasks() - before
            with trio.CancelScope() as scope:
                scope.cancel()
                async with sock:
                    pass
    peer.close()

    assert during == {"_watch", "_drain"}
    assert tasks() == before


@pytest.mark.unwatched("its task began before")
async def test_a_blocks_task_sees_the_context_of_who_started_it(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a nursery's does; on a simulated network the context says which host it is on."""
    seen: list[str] = []
    variable = contextvars.ContextVar[str]("variable")
    really_wait = NativeLink.wait_receivable

    def wait(link: NativeLink, max_bytes: int) -> Awaitable[None]:
        seen.append(variable.get())
        return really_wait(link, max_bytes)

    async with TcpSocket() as sock:
        peer = await meet(network, sock)
        monkeypatch.setattr(NativeLink, "wait_receivable", wait)
        variable.set("of the body")
        async with sock.events():
            await trio.testing.wait_all_tasks_blocked()
    peer.close()

    assert seen == ["of the body"]


# ---- A parent nursery --------------------------------------------------------------------------


@pytest.mark.unwatched("its task holds the nursery")
async def test_a_parent_nursery_is_scope_enough(network: Network) -> None:
    """It holds the socket's tasks; closing the socket is ours to do, as for any trio stream."""
    received = bytearray()

    async def receive(peer: RawPeer) -> None:
        received.extend(await peer.receive_to_end())

    async with trio.open_nursery() as parent:
        sock = TcpSocket(parent)
        peer = await meet(network, sock)
        idle_tasks = len(parent.child_tasks)
        await sock.send_all(LARGE)
        busy_tasks = len(parent.child_tasks)
        parent.start_soon(receive, peer)
        await sock.aclose()
    peer.close()

    assert (idle_tasks, busy_tasks) == (0, 1)
    assert received == LARGE
    assert sock.state() is UNCONNECTED


async def test_a_socket_with_a_parent_may_be_entered(network: Network) -> None:
    """Then its block ends it as well, and the nursery goes on."""
    async with trio.open_nursery() as parent:
        async with TcpSocket(parent) as sock:
            peer = await meet(network, sock)
            sock.write(b"all of it")
        between = sock.state()
        parent.start_soon(trio.lowlevel.checkpoint)

    assert between is UNCONNECTED
    assert await how_it_ended(peer) == (9, "end")


@pytest.mark.unwatched("its task holds the nursery")
@pytest.mark.parametrize("verb", [verb for _, verb in CALLS])
async def test_once_the_parent_has_ended_the_socket_is_closed(
    network: Network, verb: Callable[[TcpSocket], Any]
) -> None:
    """A nursery has no exit hook, so it is found by whatever is called first; none gets through."""
    async with trio.open_nursery() as parent:
        sock = TcpSocket(parent)
        peer = await meet(network, sock)
    await peer.send(b"too late")

    with pytest.raises(trio.ClosedResourceError, match=": the socket is closed"):
        await call(sock, verb)

    assert sock.state() is UNCONNECTED
    peer.close()


async def listen(sock: TcpSocket) -> None:
    async with sock.events() as events:
        told_at_last = [event async for event in events]
    assert told_at_last == [StateChanged(UNCONNECTED), ReadChannelFinished(), Disconnected()]


async def ask(sock: TcpSocket) -> None:
    assert sock.state() is UNCONNECTED


async def wait_for_the_end(sock: TcpSocket) -> None:
    await sock.wait_for_disconnected()


async def close(sock: TcpSocket) -> None:
    await sock.aclose()


@pytest.mark.unwatched("its task holds the nursery")
@pytest.mark.parametrize("act", [listen, ask, wait_for_the_end, close])
async def test_once_the_parent_has_ended_nothing_waits(
    network: Network, act: Callable[[TcpSocket], Awaitable[None]]
) -> None:
    """Listening ends at once, the state is UNCONNECTED, and the peer sees the end."""
    async with trio.open_nursery() as parent:
        sock = TcpSocket(parent)
        peer = await meet(network, sock)

    await act(sock)

    assert await how_it_ended(peer) == (0, "end")
    assert sock.state() is UNCONNECTED


@pytest.mark.unwatched("its task holds the nursery")
async def test_a_write_in_the_step_in_which_the_parent_ends(network: Network) -> None:
    """Its block is left, and it takes no more tasks, but is not gone: the socket is closed, whoever comes first."""
    peers: list[RawPeer] = []
    outcomes: list[str] = []
    go = trio.Event()

    async def write_late() -> None:
        await go.wait()
        try:
            sock.write(LARGE)
        except trio.ClosedResourceError:
            outcomes.append("closed")
        else:
            outcomes.append("dropped")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_late)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as parent:
            sock = TcpSocket(parent)
            peers.append(await meet(network, sock))
            go.set()

    (peer,) = peers
    assert sock.state() is UNCONNECTED
    assert (outcomes, (await how_it_ended(peer))[1]) in [(["closed"], "end"), (["dropped"], "reset")]


async def test_a_parent_that_is_cancelled_while_bytes_are_queued(network: Network) -> None:
    """They cannot be sent any more, so the peer sees a reset, and the nursery ends without waiting for them."""
    async with trio.open_nursery() as parent:
        sock = TcpSocket(parent)
        peer = await meet(network, sock)
        sock.write(LARGE)
        await trio.testing.wait_all_tasks_blocked()
        parent.cancel_scope.cancel()

    assert (sock.state(), sock.bytes_to_write()) == (UNCONNECTED, 0)
    assert (await how_it_ended(peer))[1] == "reset"


@pytest.mark.parametrize("half_open", [True, False])
async def test_a_parent_that_is_cancelled_while_somebody_listens(network: Network, half_open: bool) -> None:
    """The task that reads ahead dies with the nursery and is not started again; who listens elsewhere is told, once."""
    events: list[Event] = []

    async def listen(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with sock.events() as subscription:
            task_status.started()
            async for event in subscription:
                events.append(event)

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as parent:
            sock = TcpSocket(parent, half_open=half_open)
            peer = await meet(network, sock)
            await nursery.start(listen)
            await trio.testing.wait_all_tasks_blocked()
            parent.cancel_scope.cancel()

    assert events == [StateChanged(UNCONNECTED), ReadChannelFinished(), Disconnected()]
    assert sock.state() is UNCONNECTED
    assert await how_it_ended(peer) == (0, "end")


@pytest.mark.parametrize("watched", ["", "subscribed", "not half-open", "waited for"])
async def test_a_shielded_goodbye_under_a_parent_that_is_cancelled(network: Network, watched: str) -> None:
    """It can be sent and answered, whoever watches; who does is told when the nursery has ended.

    Watched, the socket used to be closed at the cancellation.
    """
    told: list[Event] = []
    over = trio.Event()

    async def talk(parent: trio.Nursery) -> None:
        await trio.testing.wait_all_tasks_blocked()
        parent.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            await sock.send_all(b"goodbye")
            assert await peer.receive(7) == b"goodbye"
            await peer.send(b"bye\n")
            assert (sock.state(), await sock.receive_line()) == (SocketState.CONNECTED, b"bye\n")

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as parent:
            sock = TcpSocket(parent, half_open=watched != "not half-open")
            peer = await meet(network, sock)
            if watched == "subscribed":

                @nursery.start_soon
                async def _() -> None:
                    async with sock.events(Disconnected) as events:
                        told.extend([event async for event in events])
                    over.set()
            elif watched == "waited for":

                @nursery.start_soon
                async def _() -> None:
                    await sock.wait_for_disconnected()
                    over.set()
            else:
                over.set()
            parent.start_soon(talk, parent)
        await over.wait()

    assert told == ([Disconnected()] if watched == "subscribed" else [])
    assert sock.state() is UNCONNECTED
    assert await how_it_ended(peer) == (0, "end")


async def test_many_sockets_under_a_parent_that_is_cancelled(network: Network) -> None:
    """Each hears of the end of its own nursery; nobody needs to ask."""
    told = []

    async def listen(sock: TcpSocket) -> None:
        async with sock.events(Disconnected) as events:
            told.extend([(event, sock) async for event in events])

    async with trio.open_nursery() as nursery:
        socks, peers = [], []
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as inner:
                for parent in (outer, inner, outer, inner):
                    socks.append(TcpSocket(parent))
                    peers.append(await meet(network, socks[-1]))
                    nursery.start_soon(listen, socks[-1])
                await trio.testing.wait_all_tasks_blocked()
                inner.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()
            early = [sock._machine.state for sock in socks]
            outer.cancel_scope.cancel()

    assert early == [SocketState.CONNECTED, UNCONNECTED, SocketState.CONNECTED, UNCONNECTED]
    assert {id(sock) for _, sock in told} == {id(sock) for sock in socks}
    assert len(told) == 4
    for peer in peers:
        peer.close()


async def test_a_body_that_fails_under_a_parent_is_the_parents(network: Network) -> None:
    """The nursery is not ours: what leaves it comes in its group, as trio has it, and the socket is not spared."""
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as parent:
            sock = TcpSocket(parent)
            peer = await meet(network, sock)
            sock.write(LARGE)
            raise KeyError

    assert [type(exc) for exc in caught.value.exceptions] == [KeyError]
    assert sock.state() is UNCONNECTED
    assert (await how_it_ended(peer))[1] == "reset"


@pytest.mark.parametrize("parent", [1, "nursery", trio.CancelScope()])
def test_a_parent_is_a_nursery(parent: Any) -> None:
    """Told when the socket is made."""
    with pytest.raises(TypeError, match=r"a parent is a trio\.Nursery, not"):
        TcpSocket(parent)


# ---- Nothing is left ---------------------------------------------------------------------------


async def test_no_descriptor_is_left_behind(network: Network) -> None:
    """However the block ends: normally, by an exception, cancelled, or refused."""
    before = open_descriptors()

    async with TcpSocket() as sock:
        (await meet(network, sock)).close()
    with pytest.raises(KeyError):
        async with TcpSocket() as sock:
            (await meet(network, sock)).close()
            raise KeyError
    with trio.CancelScope() as scope:
        async with TcpSocket() as sock:
            (await meet(network, sock)).close()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    with pytest.raises(SocketError):
        async with TcpSocket() as sock:
            await be_refused(sock)

    assert open_descriptors() == before


async def test_an_error_that_leaves_the_block_is_told_once(network: Network) -> None:
    """A refused connection that nobody handles: one event, one exception, and no group around it."""
    sock = TcpSocket()

    with pytest.raises(SocketError) as caught:
        async with sock:
            subscription = await sock.events(ErrorOccurred).__aenter__()
            await be_refused(sock)

    assert [event async for event in subscription] == [ErrorOccurred(caught.value.kind, caught.value.message)]


# ---- the end of the run --------------------------------------------------------------------------


@pytest.mark.parametrize("busy", ["listens", "sends", "datagrams"])
def test_a_run_ends_though_a_generator_was_left_inside_of_a_block(busy: str) -> None:
    """Trio closes it after its system tasks, which are all that a block has: it waited for them, for ever."""
    kept = []

    async def inside(port: int) -> AsyncIterator[int]:
        async with UdpSocket() if busy == "datagrams" else TcpSocket() as sock:
            if isinstance(sock, UdpSocket):
                await sock.bind("127.0.0.1")
            else:
                await sock.connect_to_host("127.0.0.1", port)
            async with contextlib.AsyncExitStack() as stack:
                if isinstance(sock, UdpSocket) or busy == "listens":
                    await stack.enter_async_context(sock.events())
                else:
                    while not sock.bytes_to_write():
                        sock.write(bytes(65536))
                yield port

    async def main(port: int) -> str:
        generator = inside(port)
        kept.append(generator)
        await anext(generator)
        await trio.testing.wait_all_tasks_blocked()
        return "over"

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert trio.run(main, listener.getsockname()[1]) == "over"
        if busy != "datagrams":
            peer, _ = listener.accept()
            with peer, pytest.raises(ConnectionResetError):
                while peer.recv(65536):
                    pass


@pytest.mark.parametrize("listens", [False, True], ids=["unwatched", "watched"])
def test_a_system_task_can_say_goodbye_when_the_run_ends(listens: bool) -> None:
    """It is cancelled only then, and its shielded last words need the tasks of its socket."""
    size = 3_000_000
    heard: list[int] = []

    async def serve_on(port: int) -> None:
        async with TcpSocket() as sock, contextlib.AsyncExitStack() as stack:
            await sock.connect_to_host("127.0.0.1", port)
            if listens:
                await stack.enter_async_context(sock.events())
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await sock.send_all(bytes(size))
                    await sock.wait_for_bytes_written()

    async def main(port: int) -> None:
        trio.lowlevel.spawn_system_task(serve_on, port)
        await trio.testing.wait_all_tasks_blocked()

    def read(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            heard.append(sum(iter(lambda: len(peer.recv(65536)), 0)))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader = threading.Thread(target=read, args=(listener,))
        reader.start()
        trio.run(main, listener.getsockname()[1])
        reader.join()

    assert heard == [size]
