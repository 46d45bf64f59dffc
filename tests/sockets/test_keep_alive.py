"""Peers that vanish without a word, and how a server notices."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network, RawPeer, Virtual
from trioqt import ErrorKind, SocketError, SocketOption, TcpServer, TcpSocket
from trioqt.core.options import USER_TIMEOUT
from trioqt.testing import VirtualNetwork

TCP, SOL = socket.IPPROTO_TCP, socket.SOL_SOCKET

VANISHED = 100


def keep_alive(network: Network, descriptor: int) -> list[int]:
    """| on | idle | interval | count | TCP_USER_TIMEOUT in milliseconds |."""
    names = ((TCP, "TCP_KEEPIDLE"), (TCP, "TCP_KEEPINTVL"), (TCP, "TCP_KEEPCNT"), (TCP, "TCP_USER_TIMEOUT"))
    with network.socket(descriptor) as below:
        values = [below.getsockopt(SOL, socket.SO_KEEPALIVE)]
        values += [below.getsockopt(level, getattr(socket, name)) for level, name in names]
    return values


SYSTEMS_OWN = [0, 7200, 75, 9, 0]
OURS = [1, 60, 10, 6, USER_TIMEOUT]


@pytest.mark.parametrize(("options", "expected"), [({}, OURS), ({"keep_alive": False}, SYSTEMS_OWN)])
async def test_accepted_sockets_have_keep_alive_unless_the_server_has_not(
    network: Network, options: dict[str, Any], expected: list[int]
) -> None:
    """They inherit it from the listening socket."""
    async with TcpServer(**options) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            sock = await server.accept()
            assert keep_alive(network, sock.socket_descriptor()) == expected


@pytest.mark.parametrize(("options", "expected"), [({}, OURS), ({"keep_alive": False}, SYSTEMS_OWN)])
async def test_so_has_what_an_adopted_listener_accepts(
    network: Loopback, options: dict[str, Any], expected: list[int]
) -> None:
    """The listening socket of a parent process is told when it is adopted."""
    async with TcpServer(**options) as server:
        with socket.create_server((network.host, 0)) as listening:
            server.set_socket_descriptor(listening.detach())
        with await network.raw_connect(server.server_port()):
            sock = await server.accept()
            assert keep_alive(network, sock.socket_descriptor()) == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({SocketOption.KEEP_ALIVE: 0}, [0, *OURS[1:]]),
        ({SocketOption.KEEP_ALIVE_IDLE: 600}, [1, 600, 10, 6, 660_000]),
        ({SocketOption.KEEP_ALIVE_IDLE: 5, SocketOption.KEEP_ALIVE_COUNT: 2}, [1, 5, 10, 2, 25_000]),
        ({SocketOption.LOW_DELAY: 0}, OURS),
    ],
)
async def test_the_options_of_the_factory_win(
    network: Network, own: dict[SocketOption, int], expected: list[int]
) -> None:
    """Linux takes TCP_USER_TIMEOUT in place of the number of questions, so that follows the figures."""

    def factory() -> TcpSocket:
        sock = TcpSocket()
        for option, value in own.items():
            sock.set_socket_option(option, value)
        return sock

    async with TcpServer(factory) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            sock = await server.accept()
            assert keep_alive(network, sock.socket_descriptor()) == expected


async def test_the_figures_of_a_factory_mean_nothing_to_a_server_without_keep_alive(network: Network) -> None:
    """It has no TCP_USER_TIMEOUT that would have to follow them."""

    def factory() -> TcpSocket:
        sock = TcpSocket()
        sock.set_socket_option(SocketOption.KEEP_ALIVE_IDLE, 5)
        return sock

    async with TcpServer(factory, keep_alive=False) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            sock = await server.accept()
            assert keep_alive(network, sock.socket_descriptor()) == [0, 5, 75, 9, 0]


class Losses:
    """When the handlers of a server lost their connections, by when after the partition they had sent something."""

    def __init__(self, net: VirtualNetwork, *, says_at: float | None) -> None:
        self.net = net
        self.says_at = says_at
        self.seen: Counter[tuple[float, ErrorKind | None]] = Counter()

    async def handler(self, sock: TcpSocket) -> None:
        try:
            if self.says_at is not None:
                await trio.sleep_until(self.says_at)
                await sock.send_all(b"are you there?")
            await sock.receive_some()
        except SocketError as error:
            self.seen[trio.current_time(), error.kind] += 1
            raise
        self.seen[trio.current_time(), None] += 1


async def vanish(losses: Losses, *, partition_at: float, run_until: float, **options: Any) -> None:
    """A hundred clients connect at 0, the link goes dead, and none of them says anything any more."""
    net = losses.net
    async with trio.open_nursery() as nursery:
        with net.host("server"):
            server = TcpServer(**options)
            await nursery.start(serve_on, server, losses)
        clients: list[RawPeer] = []
        with net.host("clients"):
            for _ in range(VANISHED):
                sock = trio.socket.socket()
                await sock.connect((str(net.hosts["server"].addresses[0]), 4000))
                clients.append(RawPeer(sock))
        await trio.sleep_until(partition_at)
        with net.partition("server", "clients"):
            await trio.sleep_until(run_until)
        for client in clients:
            client.close()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def serve_on(
    server: TcpServer[TcpSocket], losses: Losses, *, task_status: trio.TaskStatus[TcpServer[TcpSocket]]
) -> None:
    async with server:
        await server.listen("0.0.0.0", 4000)
        await server.serve(losses.handler, task_status=task_status)


async def test_all_silent_peers_that_vanish_are_noticed(autojump_clock: trio.testing.MockClock) -> None:
    """Asked after 60 s, then every 10 s; the sixth question has no answer after 120 s."""
    async with VirtualNetwork() as net:
        losses = Losses(net, says_at=None)
        await vanish(losses, partition_at=10, run_until=1000)

    assert losses.seen == {(120.0, ErrorKind.SOCKET_TIMEOUT): VANISHED}


async def test_all_peers_that_vanish_with_something_under_way_are_noticed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """120 s after the first byte that did not get through, where Linux alone would go on for a quarter of an hour."""
    async with VirtualNetwork() as net:
        losses = Losses(net, says_at=20)
        await vanish(losses, partition_at=10, run_until=2000)

    assert losses.seen == {(140.0, ErrorKind.SOCKET_TIMEOUT): VANISHED}


@pytest.mark.parametrize("says_at", [None, 20])
async def test_without_keep_alive_nobody_notices_so_soon(
    autojump_clock: trio.testing.MockClock, says_at: float | None
) -> None:
    """So it is the options that do it: the clients' ends arrive when the link is there again."""
    async with VirtualNetwork() as net:
        losses = Losses(net, says_at=says_at)
        await vanish(losses, partition_at=10, run_until=600, keep_alive=False)

    assert losses.seen == {(600.0, None): VANISHED}


async def test_a_dead_link_that_comes_back_in_time_costs_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """Five questions without an answer are not six."""
    async with VirtualNetwork() as net:
        losses = Losses(net, says_at=None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vanish_for_a_while, losses)

    assert losses.seen == {(1000.0, None): 1}


async def vanish_for_a_while(losses: Losses) -> None:
    net = losses.net
    async with trio.open_nursery() as nursery:
        with net.host("server"):
            await nursery.start(serve_on, TcpServer(), losses)
        with net.host("client"):
            client = trio.socket.socket()
            await client.connect((str(net.hosts["server"].addresses[0]), 4000))
        await trio.sleep(10)
        with net.partition("server", "client"):
            await trio.sleep_until(119)
        await trio.sleep_until(1000)
        client.close()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_a_peer_that_lives_and_takes_nothing_is_given_up_too(
    autojump_clock: trio.testing.MockClock, keep_alive: bool
) -> None:
    """120 s after the system first asked for room, 0.2 s after there was none; without keep-alive, never."""
    losses: list[tuple[float, ErrorKind]] = []

    async def handler(sock: TcpSocket) -> None:
        try:
            while True:
                await sock.send_all(bytes(16384))
        except SocketError as error:
            losses.append((round(trio.current_time(), 6), error.kind))

    async with VirtualNetwork() as net, TcpServer(keep_alive=keep_alive) as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve, handler)
        with await Virtual(net).raw_connect(server.server_port()):
            await trio.sleep(1000)
        nursery.cancel_scope.cancel()

    assert losses == ([(120.2, ErrorKind.SOCKET_TIMEOUT)] if keep_alive else [])
