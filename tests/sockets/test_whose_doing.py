"""What another task did to a connection is never the caller's mistake: every verb, every way to end, in every order.

``SocketError(OPERATION)`` is for programs that are wrong.  A task whose connection was ended by another one, or lost,
is not: it gets ``trio.ClosedResourceError``, or the failure.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from tests.links.scripted import names
from tests.networks import Loopback, Network, RawPeer
from tests.sockets.arrivals import bytes_arrived, fill
from trioqt import NetworkProxy, PauseMode, ProxyKind, SocketError, SocketOption, SocketState, TcpServer, TcpSocket

OVER_TLS = True

Call = Callable[[TcpSocket], object]

# What needs the connection, and what it says when that is over.
# fmt: off
NEEDS: dict[str, Call] = {
    "write":                         lambda sock: sock.write(b"x"),
    "write nothing":                 lambda sock: sock.write(b""),
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
    "socket_option":                 lambda sock: sock.socket_option(SocketOption.KEEP_ALIVE),
}
# What reads the buffer, or prepares something: possible as long as the socket is not closed.
USES: dict[str, Call] = {
    "read":                          lambda sock: sock.read(1),
    "read_all":                      lambda sock: sock.read_all(),
    "read_line":                     lambda sock: sock.read_line(),
    "get_char":                      lambda sock: sock.get_char(),
    "peek":                          lambda sock: sock.peek(1),
    "skip":                          lambda sock: sock.skip(1),
    "unget_char":                    lambda sock: sock.unget_char(b"x"),
    "start_transaction":             lambda sock: sock.start_transaction(),
    "set_socket_option":             lambda sock: sock.set_socket_option(SocketOption.LOW_DELAY, 1),
}
# What is always possible.
ASKS: dict[str, Call] = {
    "bytes_available":               lambda sock: sock.bytes_available(),
    "can_read_line":                 lambda sock: sock.can_read_line(),
    "at_end":                        lambda sock: sock.at_end(),
    "bytes_to_write":                lambda sock: sock.bytes_to_write(),
    "flush":                         lambda sock: sock.flush(),
    "is_transaction_started":        lambda sock: sock.is_transaction_started(),
    "wait_for_disconnected":         lambda sock: sock.wait_for_disconnected(),
    "disconnect_from_host":          lambda sock: sock.disconnect_from_host(),
    "aclose":                        lambda sock: sock.aclose(),
    "abort":                         lambda sock: sock.abort(),
}
# fmt: on
VERBS = NEEDS | USES | ASKS

TRANSACTIONS: dict[str, Call] = {
    "commit_transaction": lambda sock: sock.commit_transaction(),
    "rollback_transaction": lambda sock: sock.rollback_transaction(),
}


async def outcome_of(call: Call, sock: TcpSocket) -> str:
    """How it ended, as a word."""
    try:
        result = call(sock)
        if inspect.isawaitable(result):
            await result
    except SocketError as error:
        return error.kind.name
    except trio.ClosedResourceError:
        return "closed"
    return "done"


# ---- ways in which another task ends it --------------------------------------------------------


@attrs.define(eq=False)
class Pair:
    """A connected socket that lives in the block of another task, and its peer."""

    sock: TcpSocket
    peer: RawPeer
    leave: trio.Event = attrs.Factory(trio.Event)
    left: trio.Event = attrs.Factory(trio.Event)
    cancelled: bool = False
    """The block is left by a cancellation, ..."""
    error: BaseException | None = None
    """... or by this."""

    async def disconnect(self) -> None:
        await self.sock.disconnect_from_host()

    async def aclose(self) -> None:
        await self.sock.aclose()

    async def abort(self) -> None:
        self.sock.abort()

    async def abort_by_reset(self) -> None:
        self.sock.abort(reset=True)

    async def lose(self) -> None:
        self.peer.reset()
        await self.sock.wait_for_disconnected()

    async def leave_the_block(self) -> None:
        self.leave.set()
        await self.left.wait()

    async def leave_it_by_an_exception(self) -> None:
        self.error = KeyError("of the other task")
        await self.leave_the_block()

    async def leave_it_by_cancellation(self) -> None:
        self.cancelled = True
        await self.leave_the_block()


@asynccontextmanager
async def connected(network: Network) -> AsyncIterator[Pair]:
    """A socket whose block is open in another task than this."""

    async def live(sock: TcpSocket, *, task_status: trio.TaskStatus[Pair]) -> None:
        # A loss that no call has told is told by the exit.
        with contextlib.suppress(KeyError, SocketError), trio.CancelScope() as scope:
            async with sock:
                with await network.raw_listener() as listener:
                    await sock.connect_to_host(network.host, listener.port)
                    pair = Pair(sock, await listener.accept())
                task_status.started(pair)
                await pair.leave.wait()
                if pair.error is not None:
                    raise pair.error
                if pair.cancelled:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        pair.left.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            pair = await nursery.start(live, TcpSocket())
            yield pair
            pair.sock.abort()
            await pair.leave_the_block()
            pair.peer.close()


# Each with what the verbs of the first two lists get after it.
# fmt: off
ENDS: dict[str, tuple[Callable[[Pair], Awaitable[None]], str, str]] = {
    "disconnect_from_host":          (Pair.disconnect,               "closed",             "done"),
    "aclose":                        (Pair.aclose,                   "closed",             "closed"),
    "abort":                         (Pair.abort,                    "closed",             "done"),
    "abort(reset=True)":             (Pair.abort_by_reset,           "closed",             "done"),
    "the peer's reset":              (Pair.lose,                     "REMOTE_HOST_CLOSED", "done"),
    "a block left normally":         (Pair.leave_the_block,          "closed",             "closed"),
    "a block left by an exception":  (Pair.leave_it_by_an_exception, "closed",             "closed"),
    "a block that was cancelled":    (Pair.leave_it_by_cancellation, "closed",             "closed"),
}
# fmt: on
ORDERLY = ("disconnect_from_host", "aclose", "a block left normally")
every_end = pytest.mark.parametrize("end", ENDS)


@every_end
@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_that_is_called_after_another_task_has_ended_it(network: Network, verb: str, end: str) -> None:
    """Between two calls of its own nobody can know."""
    play, needs, uses = ENDS[end]
    ended = trio.Event()
    outcomes: list[str] = []

    async def use(sock: TcpSocket) -> None:
        await ended.wait()
        outcomes.append(await outcome_of(VERBS[verb], sock))

    async with connected(network) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(use, pair.sock)
        await play(pair)
        state = pair.sock.state()
        ended.set()

    assert state is SocketState.UNCONNECTED
    dropped = verb == "unget_char" and end.startswith("abort")  # there is nothing to put it in front of
    assert outcomes == [needs if verb in NEEDS or dropped else uses if verb in USES else "done"]


# What waits for bytes that do not come, or for room in a full queue, and what it gets: at an end in order, for which
# the peer reads everything; at one that drops the queue; and when the peer resets.
# fmt: off
TOLD = ("closed", "closed", "REMOTE_HOST_CLOSED")
WAITS: dict[str, tuple[str, str, str]] = {
    "receive_some":                  TOLD,
    "receive_line":                  TOLD,
    "receive_until":                 TOLD,
    "receive_exactly":               TOLD,
    "receive_message":               TOLD,
    "lines":                         TOLD,
    "async for":                     TOLD,
    "wait_for_ready_read":           TOLD,
    "send_all":                      TOLD,
    "wait_send_all_might_not_block": TOLD,
    "send_eof":                      TOLD,
    "wait_for_bytes_written":        ("done", "closed", "REMOTE_HOST_CLOSED"),
    "disconnect_from_host":          ("done", "closed", "REMOTE_HOST_CLOSED"),
    "aclose":                        ("done", "done",   "REMOTE_HOST_CLOSED"),
    "wait_for_disconnected":         ("done", "done",   "done"),
}
# fmt: on


@every_end
@pytest.mark.parametrize("verb", WAITS)
async def test_a_verb_that_waits_while_another_task_ends_it(network: Network, verb: str, end: str) -> None:
    """It wakes, and is told; nothing waits for ever, and what can be finished in order is."""
    outcomes: list[str] = []

    async def wait(sock: TcpSocket) -> None:
        outcomes.append(await outcome_of(VERBS[verb], sock))

    async with connected(network) as pair, trio.open_nursery() as nursery:
        await fill(pair.sock)
        nursery.start_soon(wait, pair.sock)
        await trio.testing.wait_all_tasks_blocked()
        before = list(outcomes)
        if end in ORDERLY:
            nursery.start_soon(pair.peer.how_it_ends)
        await ENDS[end][0](pair)

    assert before == []
    assert outcomes == [WAITS[verb][0 if end in ORDERLY else 2 if end == "the peer's reset" else 1]]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_that_is_called_while_another_task_ends_it_in_order(network: Network, verb: str) -> None:
    """The queue is still being sent: what is written goes behind it, if there is room, and what would keep it is
    refused; but it is nobody's mistake."""
    outcomes: list[str] = []

    async with connected(network) as pair, trio.open_nursery() as nursery:
        await fill(pair.sock)
        nursery.start_soon(quietly, pair.sock.disconnect_from_host)
        await trio.testing.wait_all_tasks_blocked()
        state = pair.sock.state()
        nursery.start_soon(read_when_all_wait, pair.peer)
        try:
            outcomes.append(await outcome_of(VERBS[verb], pair.sock))
        except trio.WouldBlock:
            outcomes.append("full")

    expected = "closed" if verb in NEEDS else "done"
    if verb in ("write", "write nothing", "put_char"):
        expected = "full"
    elif verb in ("wait_for_bytes_written", "socket_option"):
        expected = "done"
    assert state is SocketState.CLOSING
    assert outcomes == [expected]


async def quietly(call: Callable[[], Awaitable[object]]) -> None:
    with contextlib.suppress(trio.ClosedResourceError):
        await call()


async def read_when_all_wait(peer: RawPeer) -> None:
    await trio.testing.wait_all_tasks_blocked()
    await peer.end_in_answer()


# ---- an attempt ------------------------------------------------------------------------------------

DROPS: dict[str, Call] = {
    "disconnect_from_host": lambda sock: sock.disconnect_from_host(),
    "aclose": lambda sock: sock.aclose(),
    "abort": lambda sock: sock.abort(),
}


@pytest.mark.parametrize("drop", [*DROPS, "cancelled"])
@pytest.mark.parametrize("verb", NEEDS)
async def test_a_verb_that_is_called_after_another_task_has_dropped_the_attempt(verb: str, drop: str) -> None:
    """It was to be for the connection that never came."""
    names({"peer.example": ["127.0.0.1"]}, gate=trio.Event())
    outcomes: list[str] = []

    async with trio.open_nursery() as nursery, TcpSocket() as sock:
        nursery.start_soon(quietly, functools.partial(sock.connect_to_host, "peer.example", 80))
        await trio.testing.wait_all_tasks_blocked()
        state = sock.state()
        if drop == "cancelled":
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
        else:
            async with trio.open_nursery() as other:
                other.start_soon(outcome_of, DROPS[drop], sock)
        with trio.CancelScope(shield=True):
            outcomes.append(await outcome_of(VERBS[verb], sock))

    assert (state, sock.state()) == (SocketState.HOST_LOOKUP, SocketState.UNCONNECTED)
    assert outcomes == ["closed"]


# ---- transactions ------------------------------------------------------------------------------


@pytest.mark.parametrize("over", TRANSACTIONS)
@every_end
async def test_a_transaction_that_another_task_has_cut_off(network: Network, end: str, over: str) -> None:
    """An end that drops what is unread drops it too; other ends leave it, and what it has read can be brought back."""
    play, _, uses = ENDS[end]
    async with connected(network) as pair:
        await pair.peer.send(b"abcd")
        await bytes_arrived(pair.sock, 4)
        pair.sock.start_transaction()
        pair.sock.read(2)
        async with trio.open_nursery() as other:
            other.start_soon(play, pair)
            if end in ORDERLY:
                other.start_soon(pair.peer.end_in_answer)
        began = pair.sock.is_transaction_started()
        outcomes = [await outcome_of(TRANSACTIONS[over], pair.sock) for _ in range(2)]
        left = b"" if uses == "closed" else pair.sock.read_all()

    if end in ("disconnect_from_host", "the peer's reset"):
        assert (began, outcomes) == (True, ["done", "OPERATION"])  # the second one is a mistake
        assert left == (b"cd" if over == "commit_transaction" else b"abcd")
    else:
        assert (began, left) == (False, b"")
        assert outcomes == ["closed", uses.replace("done", "OPERATION")]


@pytest.mark.parametrize("over", TRANSACTIONS)
async def test_a_transaction_that_another_task_has_cut_off_by_a_new_connection(network: Network, over: str) -> None:
    """The next connection has no part in it."""
    async with connected(network) as pair:
        pair.sock.start_transaction()

        async def connect_anew() -> None:
            pair.sock.abort()
            with await network.raw_listener() as listener:
                await pair.sock.connect_to_host(network.host, listener.port)

        async with trio.open_nursery() as other:
            other.start_soon(connect_anew)
        first = await outcome_of(TRANSACTIONS[over], pair.sock)
        pair.sock.start_transaction()
        second = await outcome_of(TRANSACTIONS[over], pair.sock)

    assert (first, second) == ("closed", "done")


async def test_a_transaction_that_one_has_cut_off_oneself_is_ones_own_mistake(network: Network) -> None:
    async with connected(network) as pair:
        pair.sock.start_transaction()
        pair.sock.abort()

        assert await outcome_of(TRANSACTIONS["rollback_transaction"], pair.sock) == "OPERATION"


# ---- the parent --------------------------------------------------------------------------------


async def step_of_events(sock: TcpSocket) -> None:
    async with sock.events() as events:
        with contextlib.suppress(StopAsyncIteration):
            await anext(events)


# What a call takes; and for those that wait in steps, the first step.
# fmt: off
CALLS: dict[str, Call] = {
    **{name.partition("(")[0]: call for name, call in (VERBS | TRANSACTIONS).items() if " " not in name},
    "bind":                          lambda sock: sock.bind("127.0.0.1"),
    "connect_to_host":               lambda sock: sock.connect_to_host("127.0.0.1", 1),
    "events":                        step_of_events,
    "set_pause_mode":                lambda sock: sock.set_pause_mode(PauseMode.NEVER),
    "set_protocol_tag":              lambda sock: sock.set_protocol_tag("http"),
    "set_proxy":                     lambda sock: sock.set_proxy(NetworkProxy(ProxyKind.NONE)),
    "set_proxy_authenticator":       lambda sock: sock.set_proxy_authenticator(None),
    "set_read_buffer_size":          lambda sock: sock.set_read_buffer_size(1),
    "set_socket_descriptor":         lambda sock: sock.set_socket_descriptor(-1),
}
# fmt: on
# A constant, and one that makes a socket.
NO_CALLS = {"socket_type", "from_stream"}


def every_call() -> list[str]:
    """Of the public methods."""
    return sorted(name for name in dir(TcpSocket) if not name.startswith("_") and name not in NO_CALLS)


@pytest.mark.unwatched("its task holds the nursery")
@pytest.mark.parametrize("line", [False, True])
@pytest.mark.parametrize("name", every_call())
async def test_every_call_finds_out_that_the_parent_nursery_has_ended(network: Network, name: str, line: bool) -> None:
    """Whatever is asked first, also if the buffer could answer it: from then on the socket is closed, and the peer
    sees that it is."""
    async with trio.open_nursery() as nursery:
        sock, peer = await network.connected(nursery)
        if line:
            await peer.send(b"a line\n")
            assert await sock.wait_for_ready_read()
        descriptor = sock.socket_descriptor()
    before = descriptor in network.open_descriptors()

    with peer, trio.fail_after(5):
        outcome = await outcome_of(CALLS.get(name, operator.methodcaller(name)), sock)

        assert before
        assert descriptor not in network.open_descriptors()
        assert outcome in ("closed", "done")
        assert await outcome_of(lambda sock: sock.read(1), sock) == "closed"
        await peer.how_it_ends()


@pytest.mark.parametrize("verb", ["connect_to_host", "bind", "listen"])
async def test_what_begins_cancelled_after_the_end_is_cancelled(verb: str) -> None:
    """A task may have its first turn when the block that it was started in has been left; nobody's mistake either."""
    async with trio.open_nursery() as nursery:
        async with TcpServer() if verb == "listen" else TcpSocket() as endpoint:
            await endpoint.aclose()
        nursery.start_soon(getattr(endpoint, verb), "127.0.0.1", 1)
        nursery.cancel_scope.cancel()

    assert nursery.cancel_scope.cancelled_caught


# ---- one's own doing ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", NEEDS)
async def test_to_go_on_with_what_one_has_ended_in_order_oneself_is_a_mistake(network: Network, verb: str) -> None:
    """The same task knows."""
    async with connected(network) as pair:
        await pair.sock.disconnect_from_host()

        assert await outcome_of(VERBS[verb], pair.sock) == "OPERATION"


# Loopback: a descriptor is handed over.
@pytest.mark.parametrize("verb", ["receive_line", "send_all", "send_eof"])
async def test_a_verb_that_waits_while_another_connection_takes_over(network: Loopback, verb: str) -> None:
    """It is not served by that."""
    outcomes: list[str] = []

    async def wait(sock: TcpSocket) -> None:
        outcomes.append(await outcome_of(VERBS[verb], sock))

    async with connected(network) as pair, trio.open_nursery() as nursery:
        await fill(pair.sock)
        nursery.start_soon(wait, pair.sock)
        await trio.testing.wait_all_tasks_blocked()
        with await network.raw_listener() as listener:
            pair.sock.set_socket_descriptor(socket.create_connection((network.host, listener.port)).detach())

    assert outcomes == ["closed"]


# ---- in a server -------------------------------------------------------------------------------


@pytest.mark.parametrize("polite", [False, True])
async def test_a_heartbeat_that_sends_once_too_often_does_not_end_the_server(network: Network, polite: bool) -> None:
    """One task of the handler ends the connection; the other, between two beats, cannot know."""
    beaten = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        if await sock.receive_line() != b"quit\n":
            return await sock.send_all(b"hello\n")
        ended = trio.Event()

        async def heartbeat() -> None:
            await sock.send_all(b"ping\n")
            await ended.wait()
            try:
                await sock.send_all(b"ping\n")
            finally:
                beaten.set()

        async with trio.open_nursery() as own:
            own.start_soon(heartbeat)
            await trio.testing.wait_all_tasks_blocked()
            if polite:
                await sock.disconnect_from_host()
            else:
                sock.abort()
            ended.set()
        return None

    with trio.fail_after(10):
        async with TcpServer() as server, trio.open_nursery() as nursery:
            await server.listen(network.host)
            nursery.start_soon(functools.partial(server.serve, handler, isolate=False))
            with await network.raw_connect(server.server_port()) as client:
                await client.send(b"quit\n")
                heard = await client.receive_to_end()
            await beaten.wait()
            with await network.raw_connect(server.server_port()) as client:
                await client.send(b"?\n")
                served = await client.receive_to_end()
            server.close()

    assert (heard, served) == (b"ping\n", b"hello\n")
