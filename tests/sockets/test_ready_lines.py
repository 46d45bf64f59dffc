"""Lines that came together are handed out by a short way: it looks for all that the plain way looks for."""

from __future__ import annotations

from time import perf_counter

import pytest
import trio
import trio.testing

from tests.networks import Network
from trioqt import TcpServer, TcpSocket
from trioqt.sockets.answers import Marks


async def three_lines(network: Network, server: TcpServer[TcpSocket]) -> TcpSocket:
    """A socket that holds two lines of three."""
    await server.listen(network.host)
    with await network.raw_connect(server.server_port()) as peer:
        await peer.send(b"one\ntwo\nthree\n")
        sock = await server.accept()
        assert await sock.receive_line() == b"one\n"
    return sock


async def test_trios_marks_say_what_trio_says() -> None:
    """Of a task in a scope that is cancelled, and of one that is not; a trio that moved them is asked by its call."""
    assert Marks._agree(trio.lowlevel.current_task())
    with trio.CancelScope() as scope:
        scope.cancel()
        assert Marks._agree(trio.lowlevel.current_task())
        await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("iterates", [True, False])
async def test_a_task_that_cancels_itself_gets_no_more_lines(
    network: Network, monkeypatch: pytest.MonkeyPatch, known: bool, iterates: bool
) -> None:
    """At the next line at once, though that is there; it stays, and the iterator goes on with it."""
    monkeypatch.setattr(Marks, "_known", known)
    async with TcpServer() as server:
        sock = await three_lines(network, server)
        lines = sock.lines()
        with trio.CancelScope() as scope:
            scope.cancel()
            await (anext(lines) if iterates else sock.receive_line())

        assert scope.cancelled_caught
        assert [await anext(lines), await anext(lines)] == [b"two\n", b"three\n"]


async def test_a_line_that_is_there_is_for_one_task_at_a_time(network: Network) -> None:
    """Another task than the one that waited before gets its line too, by the plain way."""
    got: list[bytes] = []
    async with TcpServer() as server:
        sock = await three_lines(network, server)

        async def take() -> None:
            got.append(await sock.receive_line())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
        got.append(await sock.receive_line())

    assert got == [b"two\n", b"three\n"]


async def test_the_millisecond_is_the_processors_on_trios_own_clock(network: Network) -> None:
    """Trio's own clock is that and an offset, so no method of it is called for each line."""
    assert type(trio.lowlevel.current_clock()).__name__ == "SystemClock"
    async with TcpServer() as server:
        sock = await three_lines(network, server)

        assert sock._now is perf_counter


async def test_any_other_clock_is_asked_itself(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """On a mock clock the turns do not depend on the machine."""
    async with TcpServer() as server:
        sock = await three_lines(network, server)

        assert sock._now == mock_clock.current_time
