"""What happens in one step with an end, or behind it: a call belongs to the connection that it began with."""

from __future__ import annotations

import errno
import functools
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.links.scripted import Answer, ScriptedNetwork, names
from tests.networks import Loopback, Network
from tests.sockets.arrivals import fill
from tests.sockets.telling import told
from trioqt import HostFound, ReadChannelFinished, SocketError, SocketState, StateChanged, TcpSocket

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState

Call = Callable[[TcpSocket], Awaitable[object]]

# fmt: off
RECEIVES: dict[str, Call] = {
    "receive_some":         lambda sock: sock.receive_some(),
    "receive_some limited": lambda sock: sock.receive_some(10),
    "receive_line":         lambda sock: sock.receive_line(),
    "receive_until":        lambda sock: sock.receive_until(b"\n"),
    "receive_exactly":      lambda sock: sock.receive_exactly(2),
    "receive_message":      lambda sock: sock.receive_message(lambda stream: stream.read_raw_data(2)),
    "lines":                lambda sock: anext(sock.lines()),
    "wait_for_ready_read":  lambda sock: sock.wait_for_ready_read(),
}
# fmt: on
every_receive = pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)


async def note(call: Callable[[], Awaitable[object]], into: list[object]) -> None:
    """Make the call, and write down how it ended."""
    try:
        into.append(await call())
    except trio.ClosedResourceError:
        into.append("closed")
    except SocketError as error:
        into.append(error.kind.name)


class Late(trio.abc.Stream):
    """A stream that brings ``data`` when the gate opens, once, and then its end; it takes nothing if it is deaf."""

    def __init__(self, data: bytes, *, deaf: bool = False) -> None:
        self.data = data
        self.gate = trio.Event()
        self.deaf = deaf

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self.gate.wait()
        data, self.data = self.data, b""
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.deaf:
            raise trio.BrokenResourceError("deaf")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def real_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection of the kernel's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


# ---- Receiving ---------------------------------------------------------------------------------


@every_receive
@pytest.mark.parametrize("data", [b"old\n", b"ol", b""])
async def test_what_comes_with_an_abort_is_dropped(receive: Call, data: bytes) -> None:
    """The bytes, or the end: nothing is left of them, and the call was ended here."""
    stream, ended = Late(data), list[object]()
    async with TcpSocket.from_stream(stream) as sock, trio.open_nursery() as nursery:
        nursery.start_soon(note, functools.partial(receive, sock), ended)
        await trio.testing.wait_all_tasks_blocked()
        stream.gate.set()
        sock.abort()
        await trio.testing.wait_all_tasks_blocked()

        assert (ended, sock.bytes_available(), sock.read_all()) == (["closed"], 0, b"")


@every_receive
@pytest.mark.parametrize("data", [b"old\n", b"ol", b""])
@pytest.mark.parametrize("way", ["adopt", "connect"])
async def test_what_comes_with_an_abort_is_none_of_the_next_connections_business(
    network: Loopback, receive: Call, data: bytes, way: str
) -> None:
    """Neither are the old bytes in front of the new ones, nor does the old end end it; nor does the old call go on."""
    stream, ended = Late(data), list[object]()
    ours, theirs = real_pair()
    with ours, theirs, await network.raw_listener() as listener, trio.fail_after(5):
        async with TcpSocket.from_stream(stream) as sock, trio.open_nursery() as nursery:
            nursery.start_soon(note, functools.partial(receive, sock), ended)
            await trio.testing.wait_all_tasks_blocked()
            stream.gate.set()
            if way == "adopt":
                sock.set_socket_descriptor(ours.detach())
                theirs.sendall(b"new\n")
                await trio.testing.wait_all_tasks_blocked()
            else:
                sock.abort()
                await sock.connect_to_host(network.host, listener.port)  # which begins in this very step
                with await listener.accept() as peer:
                    await peer.send(b"new\n")
            line = await sock.receive_line()

    assert (ended, line) == (["closed"], b"new\n")


@every_receive
@pytest.mark.parametrize("watched", [False, True])
async def test_who_waits_on_a_connection_gets_nothing_of_the_next(
    network: Loopback, nursery: trio.Nursery, receive: Call, watched: bool
) -> None:
    """Whether it waits itself or the watcher does; and the new bytes are there for the next call."""
    sock, peer = await network.connected(nursery)
    ours, theirs = real_pair()
    theirs.sendall(b"new\n")
    ended: list[object] = []
    with peer, ours, theirs, trio.fail_after(5):
        if watched:
            nursery.start_soon(sock.wait_for_disconnected)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(note, functools.partial(receive, sock), ended)
        await trio.testing.wait_all_tasks_blocked()
        sock.set_socket_descriptor(ours.detach())
        there = sock.bytes_available()
        await trio.testing.wait_all_tasks_blocked()
        left = sock.read_all()
        await sock.aclose()

    assert (ended, left) == (["closed"], b"new\n")
    assert there in (0, 4)


class AfterTheFirstStep(trio.abc.Instrument):
    """Calls ``call`` once, when the task that is in its first step has made it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        trio.lowlevel.remove_instrument(self)
        self.call()


@every_receive
async def test_a_receive_that_has_just_begun_belongs_to_the_old_connection_too(
    network: Loopback, nursery: trio.Nursery, receive: Call
) -> None:
    """It is in its checkpoint when the connection is replaced."""
    sock, peer = await network.connected(nursery, half_open=False)  # watched, so that it waits for nothing itself
    ours, theirs = real_pair()
    theirs.sendall(b"new\n")
    ended: list[object] = []
    with peer, ours, theirs:
        adopts = AfterTheFirstStep(lambda: sock.set_socket_descriptor(ours.detach()))
        trio.lowlevel.add_instrument(adopts)
        await note(functools.partial(receive, sock), ended)
        left = sock.read_all()
        await sock.aclose()

    assert (ended, left) == (["closed"], b"new\n")


@pytest.mark.parametrize("verb", ["receive_some", "receive_line"])
async def test_what_comes_with_an_orderly_end_is_received(verb: str) -> None:
    """Law 5: it had arrived before."""
    stream, ended = Late(b"last\n"), list[object]()
    async with TcpSocket.from_stream(stream) as sock, trio.open_nursery() as nursery:
        nursery.start_soon(note, getattr(sock, verb), ended)
        await trio.testing.wait_all_tasks_blocked()
        stream.gate.set()
        await sock.disconnect_from_host()  # which begins in this very step

    assert ended == [b"last\n"]


@pytest.mark.parametrize("data", [b"last words", b""])
async def test_a_stream_that_is_heard_out_and_aborted_leaves_nothing(data: bytes) -> None:
    """It takes no more, so it is asked for its last words, and aborted in the step in which they come."""
    stream, ended = Late(data, deaf=True), list[object]()
    async with TcpSocket.from_stream(stream) as sock, trio.open_nursery() as nursery:
        sock.write(b"for nobody")
        await trio.testing.wait_all_tasks_blocked()
        stream.gate.set()
        sock.abort()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(note, sock.receive_some, ended)
        await trio.testing.wait_all_tasks_blocked()

        assert (ended, sock.read_all()) == (["closed"], b"")


# ---- Sending -----------------------------------------------------------------------------------


async def test_bytes_that_were_sent_are_sent_though_another_attempt_has_begun(
    network: Loopback, nursery: trio.Nursery
) -> None:
    """The last of them goes out, the connection ends and the next attempt begins, all in one step."""
    sock, peer = await network.connected(nursery)
    ended: list[object] = []
    with peer, await network.raw_listener() as listener, trio.fail_after(5):
        await fill(sock)
        nursery.start_soon(note, sock.wait_for_bytes_written, ended)
        await trio.testing.wait_all_tasks_blocked()
        while sock.bytes_to_write():
            peer.receive_now(1 << 20)
            sock.flush()
        sock.abort()
        await sock.connect_to_host(network.host, listener.port)  # which begins in this very step
        await sock.aclose()

    assert ended == [None]


async def test_finishing_one_connection_does_not_finish_the_next(network: Loopback, nursery: trio.Nursery) -> None:
    """``send_eof`` waited for the queue of the old one."""
    sock, peer = await network.connected(nursery)
    ours, theirs = real_pair()
    ended: list[object] = []
    with peer, ours, theirs:
        await fill(sock)
        nursery.start_soon(note, sock.send_eof, ended)
        await trio.testing.wait_all_tasks_blocked()
        sock.set_socket_descriptor(ours.detach())
        await trio.testing.wait_all_tasks_blocked()
        sock.write(b"not finished")
        await sock.aclose()
        received = theirs.recv(100)

    assert (ended, received) == (["closed"], b"not finished")


# ---- Waiting for the end -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["adopt", "connect", "bind"])
async def test_who_waits_for_the_end_is_told_of_it_whatever_has_begun_since(
    network: Loopback, nursery: trio.Nursery, way: str
) -> None:
    """The connection that it waited for has ended."""
    sock, peer = await network.connected(nursery)
    ours, theirs = real_pair()
    ended: list[object] = []
    with peer, ours, theirs, await network.raw_listener() as listener:
        nursery.start_soon(note, sock.wait_for_disconnected, ended)
        await trio.testing.wait_all_tasks_blocked()
        if way == "adopt":
            sock.set_socket_descriptor(ours.detach())
        else:
            sock.abort()
            if way == "connect":
                await sock.connect_to_host(network.host, listener.port)  # which begins in this very step
            else:
                await sock.bind("127.0.0.1")
        await trio.testing.wait_all_tasks_blocked()
        told_of, state = list(ended), sock.state()
        await sock.aclose()

    assert told_of == [None]
    assert state is (BOUND if way == "bind" else CONNECTED)


async def test_who_waits_for_the_end_of_a_bound_socket_waits_while_it_connects(network: Network) -> None:
    """A bound socket that connects has not ended."""
    ended: list[object] = []
    async with TcpSocket() as sock, trio.open_nursery() as nursery:
        with await network.raw_listener() as listener:
            await sock.bind("127.0.0.1")
            nursery.start_soon(note, sock.wait_for_disconnected, ended)
            await trio.testing.wait_all_tasks_blocked()
            await sock.connect_to_host(network.host, listener.port)
            await trio.testing.wait_all_tasks_blocked()
            before = list(ended)
            sock.abort()

    assert (before, ended) == ([], [None])


@pytest.mark.parametrize("name", [name for name in RECEIVES if name != "wait_for_ready_read"])
async def test_a_receive_while_connecting_is_judged_by_the_state_in_which_it_is_made(name: str) -> None:
    """Looking up or connecting refuses it as OPERATION, also if another task ends that in the same step."""
    names({}, gate=trio.Event())
    attempt, ended = list[object](), list[object]()
    async with TcpSocket() as sock, trio.open_nursery() as nursery:
        nursery.start_soon(note, functools.partial(sock.connect_to_host, "one.example", 80), attempt)
        await trio.testing.wait_all_tasks_blocked()

        trio.lowlevel.add_instrument(AfterStep(sock.abort))
        await note(functools.partial(RECEIVES[name], sock), ended)

    assert (ended, attempt) == (["OPERATION"], ["closed"])


class AfterStep(trio.abc.Instrument):
    """Calls once, after the step in which the present task begins its wait."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        trio.lowlevel.remove_instrument(self)
        self.call()


# ---- Connecting --------------------------------------------------------------------------------


async def test_a_look_up_of_a_dropped_attempt_does_not_push_the_next_one_forward() -> None:
    """Its name is found in the step in which it is dropped and another name is asked for."""
    first, second = trio.Event(), trio.Event()
    names({"one.example": ["1.1.1.1"]}, gate=first)
    ended: list[object] = []
    async with TcpSocket() as sock, trio.open_nursery() as nursery, told(sock) as events:
        nursery.start_soon(note, functools.partial(sock.connect_to_host, "one.example", 80), ended)
        await trio.testing.wait_all_tasks_blocked()
        names({}, gate=second)
        first.set()
        sock.abort()
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_blocked, scope)
            await sock.connect_to_host("two.example", 80)  # which begins in this very step

    assert ended == ["closed"]
    assert HostFound() not in events
    assert events == [
        *(StateChanged(HOST_LOOKUP), StateChanged(UNCONNECTED), ReadChannelFinished()),
        *(StateChanged(HOST_LOOKUP), StateChanged(UNCONNECTED)),
    ]


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("end", ["abort", "cancel"])
async def test_an_attempt_that_fails_while_it_is_dropped_raises_no_group(steps: int, end: str) -> None:
    """Whichever is first: the failure, or that it was dropped."""
    for _ in range(8):
        answer = Answer(gate=trio.Event(), error=errno.ECONNREFUSED)
        ScriptedNetwork({"1.1.1.1": answer})
        ended: list[object] = []
        async with TcpSocket() as sock, trio.open_nursery() as nursery:
            nursery.start_soon(note, functools.partial(sock.connect_to_host, "1.1.1.1", 80), ended)
            await trio.testing.wait_all_tasks_blocked()
            assert answer.gate is not None
            answer.gate.set()
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            if end == "abort":
                sock.abort()
            else:
                nursery.cancel_scope.cancel()

        assert ended in (["CONNECTION_REFUSED"], ["closed"] if end == "abort" else [])
