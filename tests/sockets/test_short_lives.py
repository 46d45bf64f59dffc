"""A short life takes few steps: what nobody needs is not made, and nobody waits for what is there."""

from __future__ import annotations

import contextlib
import os
import socket
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network
from tests.sockets.turns import counted_steps
from trioqt import SocketState, TcpServer, TcpSocket

QUESTION = b"x" * 64

pytestmark = pytest.mark.unwatched("a task that watches does some of what is counted")


class Steps(trio.abc.Instrument):
    """Counts the steps of the tasks that have a name, and notes the names of those that begin."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.spawned: list[str] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += self.name in task.name

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.spawned.append(task.name)


@pytest.fixture
def scopes(monkeypatch: pytest.MonkeyPatch) -> list[trio.CancelScope]:
    """The cancel scopes that have been entered since the test began."""
    entered: list[trio.CancelScope] = []
    really_enter = trio.CancelScope.__enter__

    def enter(scope: trio.CancelScope) -> trio.CancelScope:
        entered.append(scope)
        return really_enter(scope)

    monkeypatch.setattr(trio.CancelScope, "__enter__", enter)
    return entered


def descriptors() -> set[str]:
    """The process's own."""
    return set(os.listdir("/proc/self/fd"))


async def test_a_handler_that_finds_all_there_takes_three_steps(network: Network) -> None:
    """One begins it and takes what has come, one answers and waits, one finds the end and ends the connection."""
    steps = Steps("short_handler")

    async def short_handler(sock: TcpSocket) -> None:
        while data := await sock.receive_some():
            sock.write(data)

    async with TcpServer() as server, TcpSocket() as client, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await client.connect_to_host(network.host, server.server_port())
        await client.send_all(QUESTION)
        await client.send_eof()
        await trio.testing.wait_all_tasks_blocked(0.01)
        trio.lowlevel.add_instrument(steps)
        nursery.start_soon(server.serve, short_handler)
        answer = b"".join([piece async for piece in client])
        await trio.testing.wait_all_tasks_blocked(0.01)
        trio.lowlevel.remove_instrument(steps)
        left = server.connection_count()
        nursery.cancel_scope.cancel()

    assert (answer, left, steps.count) == (QUESTION, 0, 3)


async def test_one_address_is_connected_to_without_a_task(network: Network) -> None:
    """Where there is nobody to race with there is no race."""
    steps = Steps("attempt")
    async with TcpServer() as server, TcpSocket() as sock:
        await server.listen(network.host)
        trio.lowlevel.add_instrument(steps)
        await sock.connect_to_host(network.host, server.server_port())
        trio.lowlevel.remove_instrument(steps)
        state = sock.state()

    assert state is SocketState.CONNECTED
    assert [name for name in steps.spawned if "attempt" in name] == []


async def test_an_address_that_answers_at_once_is_connected_to_in_one_turn_and_without_a_scope(
    network: Loopback, scopes: list[trio.CancelScope]
) -> None:
    """On one machine there is nothing to wait for: others have their turn, and nothing is there to be called off."""
    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            del scopes[:]
            with counted_steps() as steps:
                await sock.connect_to_host(network.host, listener.port)
                state, count, entered = sock.state(), steps[0], len(scopes)

    assert (state, count, entered) == (SocketState.CONNECTED, 1, 0)


class BetweenSteps(trio.abc.Instrument):
    """Ends the socket once a step of a task has left it CONNECTING."""

    def __init__(self, sock: TcpSocket) -> None:
        self.sock = sock
        self.found = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.sock._machine.state is SocketState.CONNECTING:
            self.found += 1
            self.sock.abort()


async def test_an_abort_between_the_two_steps_of_an_attempt_leaves_nothing_open(network: Loopback) -> None:
    """The system's socket is connected, and who connects has not had the turn in which that is told: the end holds."""
    outcome = ""
    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            before = descriptors()
            between = BetweenSteps(sock)
            trio.lowlevel.add_instrument(between)
            try:
                await sock.connect_to_host(network.host, listener.port)
            except trio.ClosedResourceError:
                outcome = "ended"
            trio.lowlevel.remove_instrument(between)
            state, left = sock.state(), descriptors() - before
        with await listener.accept() as peer:
            said = await peer.receive_to_end()

    assert (between.found, outcome, state, left, said) == (1, "ended", SocketState.UNCONNECTED, set(), b"")


@pytest.mark.parametrize("end", ["abort", "disconnect_from_host", "cancel"])
async def test_an_attempt_that_has_to_wait_can_be_ended(network: Loopback, nursery: trio.Nursery, end: str) -> None:
    """A listener whose queue is full does not answer: the attempt waits, and its end leaves nothing open."""
    outcomes: list[object] = []
    scope = trio.CancelScope()

    async def connects(sock: TcpSocket, port: int) -> None:
        with scope:
            try:
                await sock.connect_to_host(network.host, port)
            except trio.ClosedResourceError:
                outcomes.append("ended")

    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind((network.host, 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        async with TcpSocket() as sock:
            before = descriptors()
            nursery.start_soon(connects, sock, listener.getsockname()[1])
            await trio.testing.wait_all_tasks_blocked(0.01)
            waits, its_own = sock.state(), len(descriptors() - before)
            if end == "abort":
                sock.abort()
            elif end == "cancel":
                scope.cancel()
            else:
                await sock.disconnect_from_host()
            await trio.testing.wait_all_tasks_blocked(0.01)
            state, left = sock.state(), descriptors() - before

    assert (waits, its_own) == (SocketState.CONNECTING, 1)
    assert (state, left) == (SocketState.UNCONNECTED, set())
    assert (outcomes, scope.cancelled_caught) == (([], True) if end == "cancel" else (["ended"], False))


@pytest.mark.parametrize("end", ["aclose", "disconnect_from_host"])
async def test_an_end_without_anything_to_wait_for_enters_no_scope(
    network: Network, nursery: trio.Nursery, scopes: list[trio.CancelScope], end: str
) -> None:
    """A scope costs more than the look whether there is something to wait for."""
    sock, peer = await network.connected(nursery)
    with peer:
        del scopes[:]
        await getattr(sock, end)()
        entered = len(scopes)

    assert (entered, sock.state()) == (0, SocketState.UNCONNECTED)


async def test_an_end_with_unread_bytes_still_waits_for_the_peers(
    network: Network, nursery: trio.Nursery, scopes: list[trio.CancelScope]
) -> None:
    """A close at once would be a reset, and the peer might lose the last thing that we said."""
    sock, peer = await network.connected(nursery)
    with peer:
        await peer.send(QUESTION)
        await trio.testing.wait_all_tasks_blocked(0.01)
        sock.write(b"last")
        del scopes[:]
        nursery.start_soon(sock.aclose)
        answer = await peer.receive_to_end()
        await trio.testing.wait_all_tasks_blocked(0.01)
        waits = sock.state() is SocketState.CLOSING

    assert (answer, waits, len(scopes) > 0) == (b"last", True, True)


async def test_a_quiet_block_that_is_cancelled_as_it_is_left_says_so(network: Network) -> None:
    """Leaving a block looks for a cancellation, also where the end of its connection needs no time."""
    reached: list[str] = []
    async with TcpServer() as server:
        await server.listen(network.host)
        with trio.CancelScope() as scope:
            async with TcpSocket() as sock:
                await sock.connect_to_host(network.host, server.server_port())
                scope.cancel()
            reached.append("behind it")

    assert (scope.cancelled_caught, reached, sock.state()) == (True, [], SocketState.UNCONNECTED)


async def test_leaving_a_quiet_block_is_a_checkpoint(network: Network) -> None:
    """As ever: it looks for a cancellation, and gives others their turn."""
    async with TcpServer() as server, AsyncExitStack() as stack:
        await server.listen(network.host)
        sock = await stack.enter_async_context(TcpSocket())
        await sock.connect_to_host(network.host, server.server_port())
        with trio.testing.assert_checkpoints():
            await stack.aclose()
        assert sock.state() is SocketState.UNCONNECTED
