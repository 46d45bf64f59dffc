"""A short life takes few steps: what nobody needs is not made, and nobody waits for what is there."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from tests.networks import Network
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
