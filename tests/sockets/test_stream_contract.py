"""A TcpSocket is an ordinary trio stream: trio's own checks of that promise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.networks import Network
from tests.sockets.arrivals import fill
from trioqt import TcpServer, TcpSocket

OVER_TLS = True

Pair = tuple[TcpSocket, TcpSocket]
Maker = Callable[[], Awaitable[Pair]]


def clogged(make: Maker) -> Maker:
    """As ``make``, with nothing more to be sent in either direction until somebody receives."""

    async def make_clogged() -> Pair:
        ours, theirs = await make()
        for sock in (ours, theirs):
            await fill(sock)
        return ours, theirs

    return make_clogged


def tcp_maker(network: Network, server: TcpServer[TcpSocket], nursery: trio.Nursery, **options: int | bool) -> Maker:
    """Pairs of a connected socket, its tasks in ``nursery``, and the accepted one at its other end."""

    async def make() -> Pair:
        ours = TcpSocket(nursery, **options)  # type: ignore[arg-type]
        await ours.connect_to_host(network.host, server.server_port())
        return ours, await server.accept()

    return make


async def test_connected_and_accepted_sockets_are_trio_streams(network: Network) -> None:
    """Over TCP, one end accepted by a server and the other in a nursery, trio finds nothing wrong."""
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        make = tcp_maker(network, server, nursery)

        await trio.testing.check_half_closeable_stream(make, clogged(make))


@pytest.mark.once
async def test_watched_sockets_are_trio_streams(network: Network) -> None:
    """The same with a listener on both ends: reading ahead does not change what a stream promises."""
    async with TcpServer() as server, trio.open_nursery() as nursery, trio.open_nursery() as listeners:
        await server.listen(network.host)
        make_unwatched = tcp_maker(network, server, nursery)

        async def make() -> Pair:
            pair = await make_unwatched()
            for sock in pair:
                await listeners.start(listen_to, sock)
            return pair

        await trio.testing.check_half_closeable_stream(make, clogged(make))
        listeners.cancel_scope.cancel()


async def listen_to(sock: TcpSocket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """A listener that never gets behind and never leaves."""
    async with sock.events() as events:
        task_status.started()
        async for _ in events:
            pass
        await trio.sleep_forever()


@pytest.mark.once
async def test_sockets_that_end_with_their_peer_are_trio_streams_one_way_at_a_time(network: Network) -> None:
    """With half_open=False there is no half-close, but what a two-way stream promises still holds."""
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        make = tcp_maker(network, server, nursery, half_open=False)

        await trio.testing.check_two_way_stream(make, clogged(make))


@pytest.mark.once
@pytest.mark.parametrize("make_streams", [trio.testing.memory_stream_pair, trio.testing.lockstep_stream_pair])
async def test_sockets_over_memory_streams_are_trio_streams(
    make_streams: Callable[[], tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]],
) -> None:
    """``from_stream`` makes a socket of any stream, and it is as good a stream as what is below."""
    async with trio.open_nursery() as nursery:

        async def make() -> Pair:
            left, right = make_streams()
            return TcpSocket.from_stream(left, nursery), TcpSocket.from_stream(right, nursery)

        # A memory stream has no bound, so nothing can clog it.
        can_clog = make_streams is trio.testing.lockstep_stream_pair
        await trio.testing.check_half_closeable_stream(make, clogged(make) if can_clog else None)


@pytest.mark.once
async def test_sockets_over_sockets_are_trio_streams(network: Network) -> None:
    """A TcpSocket is a stream, so it can carry another one."""
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        make_below = tcp_maker(network, server, nursery)

        async def make() -> Pair:
            left, right = await make_below()
            return TcpSocket.from_stream(left, nursery), TcpSocket.from_stream(right, nursery)

        await trio.testing.check_half_closeable_stream(make, clogged(make))
