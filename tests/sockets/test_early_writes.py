"""What is written before there is a connection goes out once there is one, or never."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.links.scripted import Answer, ScriptedNetwork, names
from tests.networks import Loopback, Network, RawListener
from tests.sockets.arrivals import fill
from tests.sockets.ports import refusing_port
from tests.sockets.telling import told
from trioqt import BytesWritten, Connected, ErrorKind, SocketError, SocketState, StateChanged, TcpSocket
from trioqt.core.states import Told

OVER_TLS = True

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState

Call = Callable[[TcpSocket], Awaitable[object]]

# The calls that wait for what becomes of the attempt, the first of them because the queue is full.
# fmt: off
WAITS: dict[str, Call] = {
    "send_all":                       lambda sock: sock.send_all(b"no room"),
    "wait_send_all_might_not_block":  lambda sock: sock.wait_send_all_might_not_block(),
    "wait_for_bytes_written":         lambda sock: sock.wait_for_bytes_written(),
    "wait_for_ready_read":            lambda sock: sock.wait_for_ready_read(),
    "wait_for_connected":             lambda sock: sock.wait_for_connected(),
}
# fmt: on
every_wait = pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)


async def note(call: Callable[[], Awaitable[object]], into: list[str]) -> None:
    """Make the call, and write down how it ended."""
    try:
        await call()
    except SocketError as error:
        into.append(error.kind.name)
    except trio.ClosedResourceError:
        into.append("closed")
    else:
        into.append("done")


@attrs.define
class Attempt:
    """A socket whose look-up is answered when the gate opens."""

    sock: TcpSocket
    gate: trio.Event
    listener: RawListener
    nursery: trio.Nursery
    ended: list[str]
    """How the connect ended."""

    async def wait_with(self, wait: Call) -> list[str]:
        """Another task waits; the list will say how that ended."""
        ended: list[str] = []
        self.nursery.start_soon(note, functools.partial(wait, self.sock), ended)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
        return ended


@asynccontextmanager
async def attempt(
    network: Network, *, found: str = "127.0.0.1", port: int = 0, **options: Any
) -> AsyncIterator[Attempt]:
    """A socket that looks up a host, where a peer listens unless ``port`` says otherwise."""
    gate = trio.Event()
    names({"peer.example": [found] if found else []}, gate=gate)
    async with TcpSocket(**options) as sock, trio.open_nursery() as nursery:
        with trio.fail_after(5), await network.raw_listener() as listener:
            ended: list[str] = []
            connect = functools.partial(sock.connect_to_host, "peer.example", port or listener.port)
            nursery.start_soon(note, connect, ended)
            await trio.testing.wait_all_tasks_blocked()
            assert sock.state() is HOST_LOOKUP
            yield Attempt(sock, gate, listener, nursery, ended)
            sock.abort()
        nursery.cancel_scope.cancel()


# ---- they go out -------------------------------------------------------------------------------


@pytest.mark.plain("TLS has more to tell")
async def test_what_is_written_while_looking_up_is_sent_after_connected(network: Network) -> None:
    """Qt's order: the state, ``Connected``, and then the bytes; until then they are counted, and flush does nothing."""
    async with attempt(network) as it:
        async with told(it.sock) as events:
            written = [it.sock.write(b"early, "), it.sock.write(b"")]
            it.sock.put_char(b"a")
            await it.sock.send_all(bytearray(b"nd whole"))
            before = it.sock.state(), it.sock.bytes_to_write(), it.sock.flush(), it.sock.bytes_to_write()
            it.gate.set()
            await it.sock.wait_for_bytes_written()
            after = it.sock.state(), it.sock.bytes_to_write()
        with await it.listener.accept() as peer:
            received = await peer.receive(16)

    assert written == [7, 0]
    assert before == (HOST_LOOKUP, 16, False, 16)
    assert after == (CONNECTED, 0)
    assert events[-3:] == [StateChanged(CONNECTED), Connected(), BytesWritten(16)]
    assert received == b"early, and whole"


async def test_what_is_written_while_connecting_is_sent_after_connected(network: Network) -> None:
    """The same when the address is known already."""
    seen: list[SocketState] = []

    async def write_early(sock: TcpSocket, *, task_status: trio.TaskStatus[None]) -> None:
        async with sock.events(StateChanged) as events:
            task_status.started()
            async for event in events:
                if event.state is CONNECTING:
                    seen.append(sock.state())
                    sock.write(b"early")
                    assert not sock.flush()
                    return

    async with TcpSocket() as sock, trio.open_nursery() as nursery:
        with await network.raw_listener() as listener:
            await nursery.start(write_early, sock)
            await sock.connect_to_host(network.host, listener.port)
            await sock.send_all(b" and late")
            with await listener.accept() as peer:
                assert await peer.receive(14) == b"early and late"

    assert seen == [CONNECTING]


async def test_the_callers_bytes_are_its_own_again(network: Network) -> None:
    """A bytearray may change as soon as the write has returned."""
    async with attempt(network) as it:
        data = bytearray(b"as it was")
        it.sock.write(data)
        data[:] = b"different"
        it.gate.set()
        with await it.listener.accept() as peer:
            assert await peer.receive(9) == b"as it was"


async def test_the_queue_is_bounded_before_there_is_a_connection_too(network: Network) -> None:
    """At the mark ``write`` raises and has taken nothing; ``send_all`` waits, and comes in its order."""
    async with attempt(network, write_buffer_size=10) as it:
        it.sock.write(b"12345678")
        it.sock.write(b"abcdefgh")
        with pytest.raises(trio.WouldBlock, match=r"await send_all\(\)"):
            it.sock.write(b"refused")
        sent = await it.wait_with(lambda sock: sock.send_all(b" and more"))
        queued = it.sock.bytes_to_write()
        it.gate.set()
        with await it.listener.accept() as peer:
            received = await peer.receive(25)
        await trio.testing.wait_all_tasks_blocked()

    assert queued == 16
    assert received == b"12345678abcdefgh and more"
    assert sent == ["done"]


@pytest.mark.parametrize("name", ["wait_send_all_might_not_block", "wait_for_bytes_written"])
async def test_waiting_for_the_queue_is_waiting_for_the_connection_first(network: Network, name: str) -> None:
    """Even if nothing is queued."""
    async with attempt(network) as it:
        ended = await it.wait_with(WAITS[name])
        it.gate.set()
        await trio.testing.wait_all_tasks_blocked()

        assert (ended, it.sock.state()) == (["done"], CONNECTED)


async def test_waiting_for_bytes_is_waiting_for_the_connection_first(network: Network) -> None:
    """Qt: waitForReadyRead connects, using the same time."""
    async with attempt(network) as it:
        ended = await it.wait_with(WAITS["wait_for_ready_read"])
        it.gate.set()
        with await it.listener.accept() as peer:
            await trio.testing.wait_all_tasks_blocked()
            connected = it.sock.state(), list(ended)
            await peer.send(b"hello")
            await trio.testing.wait_all_tasks_blocked()

            assert connected == (CONNECTED, [])
            assert (ended, it.sock.read_all()) == (["done"], b"hello")


async def test_an_early_queue_goes_out_before_an_orderly_end(network: Network) -> None:
    """The block is left as soon as there is a connection: it sends what is queued, as ever."""
    names({"peer.example": ["127.0.0.1"]}, gate=(gate := trio.Event()))
    data = bytes(range(256)) * 250
    async with trio.open_nursery() as nursery:
        with await network.raw_listener() as listener:

            async def use_socket() -> None:
                async with TcpSocket() as sock, trio.open_nursery() as own:
                    own.start_soon(sock.connect_to_host, "peer.example", listener.port)
                    await trio.testing.wait_all_tasks_blocked()
                    sock.write(data)
                    gate.set()

            nursery.start_soon(use_socket)
            with await listener.accept() as peer:
                assert await peer.receive_to_end() == data


@pytest.mark.plain("the peer ends before there is a handshake")
async def test_a_peer_that_ends_at_once_gets_the_early_queue(network: Network) -> None:
    """With ``half_open=False`` its end ends the connection, and what is queued is sent first."""
    async with attempt(network, half_open=False) as it:
        it.sock.write(b"early")
        it.gate.set()
        with await it.listener.accept() as peer:
            peer.finish()

            assert await peer.receive_to_end() == b"early"
        await it.sock.wait_for_disconnected()


async def test_another_connection_is_not_adopted_meanwhile(network: Loopback) -> None:
    """That is refused, and the queue is not touched."""
    async with attempt(network) as it:
        it.sock.write(b"early")
        other = trio.socket.socket()
        with other, pytest.raises(SocketError, match="cannot adopt a descriptor while host lookup"):
            it.sock.set_socket_descriptor(other.fileno())
        it.gate.set()
        with await it.listener.accept() as peer:
            assert await peer.receive(5) == b"early"


# ---- or never ----------------------------------------------------------------------------------


@every_wait
async def test_when_the_attempt_fails_everybody_is_told_why_and_the_queue_is_gone(network: Network, wait: Call) -> None:
    """Law 4, for who waited and for who comes later; a later connection has nothing of it."""
    async with refusing_port() as port, attempt(network, port=port, write_buffer_size=5) as it:
        it.sock.write(b"never sent")
        ended = await it.wait_with(wait)
        it.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        left = it.sock.state(), it.sock.error(), it.sock.bytes_to_write()
        with pytest.raises(SocketError) as caught:
            it.sock.write(b"x")
        with pytest.raises(SocketError) as later:
            await wait(it.sock)
        await it.sock.connect_to_host(network.host, it.listener.port)
        it.sock.write(b"new")
        with await it.listener.accept() as peer:
            await it.sock.disconnect_from_host()
            received = await peer.receive_to_end()

    assert it.ended == ended == ["CONNECTION_REFUSED"]
    assert left == (UNCONNECTED, ErrorKind.CONNECTION_REFUSED, 0)
    assert caught.value.kind is later.value.kind is ErrorKind.CONNECTION_REFUSED
    assert received == b"new"


@every_wait
async def test_when_the_name_is_not_found_everybody_is_told_so(network: Network, wait: Call) -> None:
    """It never came as far as CONNECTING."""
    async with attempt(network, found="", write_buffer_size=5) as it:
        it.sock.write(b"never sent")
        ended = await it.wait_with(wait)
        it.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        left = it.sock.bytes_to_write()

    assert it.ended == ended == ["HOST_NOT_FOUND"]
    assert left == 0


@every_wait
@pytest.mark.parametrize("queued", [b"", b"never sent"])
@pytest.mark.parametrize("end", ["abort", "disconnect", "cancel", "aclose"])
async def test_when_the_attempt_is_dropped_whoever_waits_is_told_that_it_was_ended_here(
    network: Network, wait: Call, queued: bytes, end: str
) -> None:
    """And the queue goes with it, whoever dropped it and how."""
    scope = trio.CancelScope()
    names({"peer.example": ["127.0.0.1"]}, gate=trio.Event())
    ended: list[str] = []
    called: list[str] = []

    async def connect(sock: TcpSocket) -> None:
        with scope, pytest.raises(trio.ClosedResourceError):
            await sock.connect_to_host("peer.example", 80)

    async with trio.open_nursery() as nursery, TcpSocket(write_buffer_size=5) as sock:
        nursery.start_soon(connect, sock)
        await trio.testing.wait_all_tasks_blocked()
        sock.write(queued)
        if queued or wait is not WAITS["send_all"]:
            nursery.start_soon(note, functools.partial(wait, sock), ended)
        await trio.testing.wait_all_tasks_blocked()
        if end == "abort":
            sock.abort()
        elif end == "disconnect":
            await note(sock.disconnect_from_host, called)
        elif end == "aclose":
            await note(sock.aclose, called)
        else:
            scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        left = sock.state(), sock.bytes_to_write()

    assert left == (UNCONNECTED, 0)
    if end in ("disconnect", "aclose"):
        assert called == (["UNFINISHED_SOCKET_OPERATION"] if queued else ["done"])
    assert ended == (["closed"] if queued or wait is not WAITS["send_all"] else [])


@pytest.mark.parametrize("name", ["send_all", "wait_send_all_might_not_block", "wait_for_bytes_written"])
async def test_nothing_of_an_old_queue_reaches_an_attempt_that_begins_in_the_same_step(
    network: Network, name: str
) -> None:
    """Who waited for the old connection is not served by the new one."""
    async with attempt(network, write_buffer_size=5) as it:
        it.sock.write(b"never sent")
        ended = await it.wait_with(WAITS[name])
        it.sock.abort()
        await it.sock.connect_to_host(network.host, it.listener.port)  # which begins in this very step
        it.sock.write(b"new")
        with await it.listener.accept() as peer:
            await it.sock.disconnect_from_host()
            received = await peer.receive_to_end()

    assert (ended, received) == (["closed"], b"new")


@pytest.mark.parametrize("name", ["send_all", "wait_send_all_might_not_block", "wait_for_bytes_written"])
async def test_who_waited_for_a_connection_is_told_of_its_end_though_another_attempt_has_begun(
    network: Network, nursery: trio.Nursery, name: str
) -> None:
    """The bytes that were dropped are not taken for written because the new queue is empty."""
    sock, peer = await network.connected(nursery)
    with peer, await network.raw_listener() as listener:
        await fill(sock)
        ended: list[str] = []
        nursery.start_soon(note, functools.partial(WAITS[name], sock), ended)
        await trio.testing.wait_all_tasks_blocked()
        sock.abort()
        await sock.connect_to_host(network.host, listener.port)  # which begins in this very step
        await sock.aclose()

    assert ended == ["closed"]


class WritesEarly(TcpSocket):
    """Writes as soon as it is CONNECTING, in the same step."""

    def _tell(self, thing: Told) -> None:
        super()._tell(thing)
        if thing is CONNECTING:
            self.write(b"early")


ENDS: dict[str, Call] = {
    "disconnect_from_host": lambda sock: sock.disconnect_from_host(),
    "aclose": lambda sock: sock.aclose(),
    "block": lambda sock: trio.lowlevel.checkpoint(),  # noqa: ASYNC105  (the caller awaits it)
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_an_orderly_end_that_drops_an_attempt_tells_of_the_bytes_that_were_promised(end: Call) -> None:
    """Row 12: the attempt is dropped at once.  But a ``send_all`` that returned is not forgotten without a word."""
    ScriptedNetwork({"1.1.1.1": Answer(gate=trio.Event())})
    ended: list[str] = []
    async with trio.open_nursery() as nursery:
        with pytest.raises(SocketError) as caught:
            async with TcpSocket() as sock:
                nursery.start_soon(note, functools.partial(sock.connect_to_host, "1.1.1.1", 80), ended)
                await trio.testing.wait_all_tasks_blocked()
                await sock.send_all(b"precious")
                await end(sock)
        await sock.aclose()  # it is told once

    assert caught.value.kind is ErrorKind.UNFINISHED_SOCKET_OPERATION
    assert caught.value.message == "8 bytes were queued for a connection that was not made"
    assert (ended, sock.state(), sock.bytes_to_write()) == (["closed"], UNCONNECTED, 0)
    assert (sock.error(), sock.error_string()) == (caught.value.kind, caught.value.message)


@pytest.mark.parametrize("end", ["abort", "exception", "cancelled"])
async def test_an_end_at_once_tells_of_the_promised_bytes_and_raises_nothing(end: str) -> None:
    """Who ends it so knows what it does; who had sent them may not."""
    ScriptedNetwork({"1.1.1.1": Answer(gate=trio.Event())})
    ended: list[str] = []
    error = KeyError("the body's own")
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope, contextlib.suppress(KeyError):
            async with TcpSocket() as sock:
                nursery.start_soon(note, functools.partial(sock.connect_to_host, "1.1.1.1", 80), ended)
                await trio.testing.wait_all_tasks_blocked()
                await sock.send_all(b"precious")
                if end == "abort":
                    sock.abort()
                elif end == "exception":
                    raise error
                else:
                    scope.cancel()

    assert (ended, sock.state(), sock.bytes_to_write()) == (["closed"], UNCONNECTED, 0)
    assert sock.error() is ErrorKind.UNFINISHED_SOCKET_OPERATION
    assert error.__context__ is None


@every_wait
async def test_who_waited_for_an_old_attempt_does_not_wait_for_the_new_one(wait: Call) -> None:
    """It is told at once, though the new one has a queue of its own already."""
    ScriptedNetwork({"1.1.1.1": Answer(gate=trio.Event())})
    ended: list[str] = []

    async def connect(*, anew: bool) -> None:
        if anew:
            sock.abort()
        await note(functools.partial(sock.connect_to_host, "1.1.1.1", 80), [])

    async with WritesEarly(write_buffer_size=5) as sock, trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(connect, anew=False))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(note, functools.partial(wait, sock), ended)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(functools.partial(connect, anew=True))
        await trio.testing.wait_all_tasks_blocked()
        told_of, state, queued = list(ended), sock.state(), sock.bytes_to_write()
        sock.abort()

    assert (told_of, state, queued) == (["closed"], CONNECTING, 5)


async def test_a_write_after_the_parent_nursery_has_ended_is_refused() -> None:
    """Then the socket is closed, the attempt too."""
    ScriptedNetwork({"1.1.1.1": Answer(gate=trio.Event())})
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as parent:
            sock = TcpSocket(parent)
            ended: list[str] = []
            nursery.start_soon(note, functools.partial(sock.connect_to_host, "1.1.1.1", 80), ended)
            await trio.testing.wait_all_tasks_blocked()
            sock.write(b"early")
        with pytest.raises(trio.ClosedResourceError):
            sock.write(b"late")

    assert ended == ["closed"]
    assert sock.bytes_to_write() == 0
