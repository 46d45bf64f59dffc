"""Three datagram sockets, four tasks, and calls in any order: whatever they meet is said in one of a few words."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.networks import Network
from trioqt import HostAddress, NetworkDatagram, SocketError, SocketState, StateChanged, UdpSocket

HOSTS = ("127.0.0.1", "::1", "0.0.0.0", "*", "127.0.0.2")
TARGETS = ("127.0.0.1", "::1", "239.83.17.63", "127.255.255.255", "::ffff:127.0.0.1", "*")

# What a call may raise, whatever other tasks do.
SAID = (SocketError, trio.ClosedResourceError, trio.BusyResourceError, trio.WouldBlock)

Call = Callable[[random.Random, UdpSocket, int], Awaitable[object] | object]


async def listen(sock: UdpSocket) -> None:
    async with sock.events() as events:
        async for _ in events:
            break


def datagram(chance: random.Random, port: int) -> NetworkDatagram:
    """Of any size, some too large; from and by whatever."""
    size = chance.choice([0, 1, 100, 1500, 65507, 65508])
    return NetworkDatagram(
        bytes(size),
        chance.choice(["", "127.0.0.1", "::1", "203.0.113.7"]),
        0,
        chance.choice(["", *TARGETS]),
        port,
        chance.choice([-1, -1, 1, 255]),
        chance.choice([0, 0, 1]),
    )


CALLS: tuple[Call, ...] = (
    lambda chance, sock, port: sock.bind(chance.choice(HOSTS)),
    lambda chance, sock, port: sock.connect_to_host(chance.choice(TARGETS), port),
    lambda chance, sock, port: sock.disconnect_from_host(),
    lambda chance, sock, port: sock.abort(),
    lambda chance, sock, port: sock.write_datagram(bytes(chance.randrange(99)), chance.choice(TARGETS), port),
    lambda chance, sock, port: sock.write_datagram(datagram(chance, port)),
    lambda chance, sock, port: sock.send_datagram(datagram(chance, port)),
    lambda chance, sock, port: sock.write(b"x"),
    lambda chance, sock, port: sock.receive_datagram(chance.choice([None, 0, 5])),
    lambda chance, sock, port: sock.__anext__(),
    lambda chance, sock, port: sock.wait_for_ready_read(),
    lambda chance, sock, port: sock.read_datagram(chance.choice([None, 0, 5])),
    lambda chance, sock, port: sock.read_all(),
    lambda chance, sock, port: (sock.bytes_available(), sock.is_valid(), repr(sock), sock.dropped_datagrams()),
    lambda chance, sock, port: sock.join_multicast_group("239.83.17.63", "lo"),
    lambda chance, sock, port: sock.leave_multicast_group("239.83.17.63", "lo"),
    lambda chance, sock, port: sock.set_multicast_interface(chance.choice(["lo", None])),
    lambda chance, sock, port: sock.wait_for_disconnected(),
    lambda chance, sock, port: listen(sock),
)


async def call_anything(chance: random.Random, socks: list[UdpSocket], raised: list[BaseException]) -> None:
    for _ in range(80):
        sock, other = chance.choice(socks), chance.choice(socks)
        with trio.move_on_after(chance.choice([0, 0.0005, 0.002])):
            try:
                result: Any = chance.choice(CALLS)(chance, sock, other.local_port() or 9)
                if hasattr(result, "__await__"):
                    await result
            except SAID as exc:
                raised.append(exc)


@pytest.mark.parametrize("seed", range(12))
async def test_calls_in_any_order(network: Network, seed: int) -> None:
    """Nothing else is raised, nothing hangs, each state was told, and nothing is left."""
    before = network.open_descriptors()
    chance, raised = random.Random(seed), list[BaseException]()
    told: list[list[SocketState]] = [[], [], []]

    async def record(sock: UdpSocket, states: list[SocketState], *, task_status: trio.TaskStatus[None]) -> None:
        async with sock.events(StateChanged, facts=10_000) as events:
            task_status.started()
            states.extend([event.state async for event in events])

    async with trio.open_nursery() as listeners:
        async with UdpSocket() as one, UdpSocket() as two, UdpSocket() as three:
            socks = [one, two, three]
            watched = chance.sample(range(3), chance.randrange(3))
            for index in watched:
                await listeners.start(record, socks[index], told[index])
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(call_anything, chance, socks, raised)
            last = [sock.state() for sock in socks]

    assert len(raised) > 20
    for sock, state, states in zip(socks, last, told, strict=True):
        assert (sock.state(), sock.socket_descriptor()) == (SocketState.UNCONNECTED, -1)
        assert sock.local_address() == HostAddress.NULL
        if states:
            assert states[-1] is SocketState.UNCONNECTED
            assert state in states or state is SocketState.UNCONNECTED
    assert network.open_descriptors() - before == set()
