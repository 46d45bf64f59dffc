"""What the kernel may keep for a peer that does not read."""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network, RawPeer, TlsPeer
from trioqt import SslServer, TcpServer, TcpSocket
from trioqt.core.options import QUICK_UNSENT_LIMIT, UNSENT_LIMIT
from trioqt.links.native import set_where_possible

OVER_TLS = True

if TYPE_CHECKING:
    from tests.certificates import Contexts

MIB = 1024 * 1024


def unsent_limit(network: Network, descriptor: int) -> int:
    with network.socket(descriptor) as below:
        value: int = below.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    return value


async def send_on_and_on(sent: list[int], sock: TcpSocket) -> None:
    while True:
        await sock.send_all(bytes(65536))
        sent[0] += 65536


async def taken_for_a_peer_that_never_reads(network: Network, **options: Any) -> int:
    """How many bytes ``send_all`` takes until it waits for good."""
    sent = [0]
    async with TcpServer(lambda: TcpSocket(**options)) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        nursery.start_soon(server.serve, functools.partial(send_on_and_on, sent))
        with await network.raw_connect(server.server_port()):
            before = -1
            while before != sent[0]:
                before = sent[0]
                await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
    return sent[0]


async def test_little_is_taken_for_a_peer_that_never_reads(network: Network) -> None:
    """The queue of 64 KiB, one message, 128 KiB in the kernel, and what the peer's kernel takes; it was 3.9 MB."""
    assert await taken_for_a_peer_that_never_reads(network) < MIB


async def test_none_leaves_it_to_the_system(network: Loopback) -> None:
    """Then Linux lets its buffer grow as far as it likes."""
    assert await taken_for_a_peer_that_never_reads(network, unsent_limit=None) > MIB


LIMITS = [({}, UNSENT_LIMIT), ({"unsent_limit": 50_000}, 50_000), ({"unsent_limit": None}, 0)]


@pytest.mark.parametrize(("options", "expected"), LIMITS)
async def test_an_accepted_socket_has_its_limit(network: Network, options: dict[str, Any], expected: int) -> None:
    """It inherits the listener's; what its factory says of it wins."""
    async with TcpServer(lambda: TcpSocket(**options)) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            sock = await server.accept()
            assert unsent_limit(network, sock.socket_descriptor()) == expected


async def test_what_an_adopted_listener_accepts_has_it_too(network: Loopback) -> None:
    """The listening socket of a parent process is told when it is adopted."""
    async with TcpServer() as server:
        with socket.create_server((network.host, 0)) as listening:
            server.set_socket_descriptor(listening.detach())
        with await network.raw_connect(server.server_port()):
            sock = await server.accept()
            assert unsent_limit(network, sock.socket_descriptor()) == UNSENT_LIMIT


async def connect(sock: TcpSocket, network: Network, port: int) -> None:
    await sock.connect_to_host(network.host, port)


async def bind_and_connect(sock: TcpSocket, network: Network, port: int) -> None:
    await sock.bind(network.host)
    await sock.connect_to_host(network.host, port)


@pytest.mark.parametrize("begin", [connect, bind_and_connect])
@pytest.mark.parametrize(("options", "expected"), LIMITS)
async def test_a_socket_that_connects_has_its_limit(
    network: Network,
    options: dict[str, Any],
    expected: int,
    begin: Callable[[TcpSocket, Network, int], Awaitable[None]],
) -> None:
    """Also from an address of its own."""
    with await network.raw_listener() as listener:
        async with TcpSocket(**options) as sock:
            await begin(sock, network, listener.port)
            assert unsent_limit(network, sock.socket_descriptor()) == expected


@pytest.mark.parametrize(("options", "expected"), LIMITS)
async def test_a_socket_that_is_adopted_has_its_limit(
    network: Loopback, options: dict[str, Any], expected: int
) -> None:
    """Whoever made it."""
    with await network.raw_listener() as listener:
        below = socket.create_connection((network.host, listener.port))
        async with TcpSocket(**options) as sock:
            sock.set_socket_descriptor(below.detach())
            assert unsent_limit(network, sock.socket_descriptor()) == expected


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (-1, ValueError), ("much", TypeError), (1.5, TypeError)])
def test_a_limit_is_at_least_one_byte(limit: Any, error: type[Exception]) -> None:
    """Before anything is touched."""
    with pytest.raises(error):
        TcpSocket(unsent_limit=limit)


# ---- Quick peers ---------------------------------------------------------------------------------


async def take(
    sock: TcpSocket, peer: RawPeer | TlsPeer, times: int, clock: trio.testing.MockClock, seconds: float
) -> None:
    """So often the queue is filled, and the peer takes all of it after so many seconds."""
    for _ in range(times):
        sent = 0
        while True:
            try:
                sent += sock.write(bytes(65536))
            except trio.WouldBlock:
                break
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(seconds)
        assert len(await peer.receive(sent)) == sent
        await sock.wait_for_bytes_written()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_quick_peer_has_a_larger_one_for_as_long_as_it_is_quick(
    network: Loopback, mock_clock: trio.testing.MockClock
) -> None:
    """It takes so much in no time, and where room is small we wake for each piece of it.  One pause is forgiven."""
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as peer:
            sock = await server.accept()
            descriptor = sock.socket_descriptor()
            limits = []
            for times, seconds in ((3, 0.0), (1, 0.0), (3, 0.1), (1, 1.0), (1, 0.0), (2, 1.0), (5, 0.1), (4, 0.0)):
                await take(sock, peer, times, mock_clock, seconds)
                limits.append(unsent_limit(network, descriptor))

    large, small = QUICK_UNSENT_LIMIT, UNSENT_LIMIT
    assert limits == [small, large, large, large, large, small, small, large]


@pytest.mark.parametrize("limit", [50_000, None])
async def test_a_limit_that_was_asked_for_stays(
    network: Loopback, mock_clock: trio.testing.MockClock, limit: int | None
) -> None:
    """However quick the peer is."""
    async with TcpServer(lambda: TcpSocket(unsent_limit=limit)) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as peer:
            sock = await server.accept()
            await take(sock, peer, 6, mock_clock, 0.0)
            assert unsent_limit(network, sock.socket_descriptor()) == (limit or 0)


async def test_a_server_that_ends_stalled_connections_keeps_it_small(
    network: Loopback, mock_clock: trio.testing.MockClock
) -> None:
    """A peer that takes less than half of it in the time counts as stalled."""
    async with TcpServer(stall_limit=10) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as peer:
            sock = await server.accept()
            await take(sock, peer, 6, mock_clock, 0.0)
            assert unsent_limit(network, sock.socket_descriptor()) == UNSENT_LIMIT


async def test_a_server_with_tls_over_it_keeps_it_small_too(
    network: Loopback, tls: Contexts, mock_clock: trio.testing.MockClock
) -> None:
    """The limits in seconds are those of what lies below."""
    peers = []

    async def connect_by_tls(port: int) -> None:
        raw = await network.raw_connect(port)
        peers.append(await TlsPeer.over(raw, tls.client, server_side=False, server_hostname="peer.example"))

    async with SslServer(tls.server, stall_limit=10) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        nursery.start_soon(connect_by_tls, server.server_port())
        sock = await server.accept()
        await trio.testing.wait_all_tasks_blocked()
        [peer] = peers
        with peer:
            await take(sock, peer, 6, mock_clock, 0.0)
            assert unsent_limit(network, sock.socket_descriptor()) == UNSENT_LIMIT


async def test_the_next_connection_of_a_socket_begins_anew(
    network: Loopback, mock_clock: trio.testing.MockClock
) -> None:
    """Nobody knows that peer yet."""
    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            limits = []
            for _ in range(2):
                await sock.connect_to_host(network.host, listener.port)
                with await listener.accept() as peer:
                    limits.append(unsent_limit(network, sock.socket_descriptor()))
                    await take(sock, peer, 4, mock_clock, 0.0)
                    limits.append(unsent_limit(network, sock.socket_descriptor()))
                    await sock.disconnect_from_host()

    assert limits == [UNSENT_LIMIT, QUICK_UNSENT_LIMIT] * 2


class Refusing:
    """A socket of a system that knows no such option."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def setsockopt(self, *option: int) -> None:
        self.asked.append((option[0], option[1], option[2]))
        raise OSError(92, "Protocol not available")


def test_a_system_that_refuses_an_option_breaks_nothing() -> None:
    """Each is tried, and done without."""
    sock: Any = Refusing()
    options = [(6, 25, 1), (6, 26, 2)]

    set_where_possible(sock, options)

    assert sock.asked == options
