"""The same calls in any order on datagram sockets of the kernel's loopback and of a simulated host: equal outcomes.

hypothesis is not asked: a seed makes a plan, and the first call that differs is shown with all before it.
"""

from __future__ import annotations

import inspect
import random
import re
from typing import Any

import attrs
import pytest
import trio

from trioqt import BindMode, HostAddress, NetworkDatagram, SocketError, SocketOption, UdpSocket
from trioqt.testing import VirtualNetwork

SOCKETS, CALLS, SEEDS = 4, 60, 40

# Of another process may be just the port that one of ours has by another address; see test_parity.py.
ATTEMPTS = 4

BOUND_TO = ("127.0.0.1", "127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::", "*", "::ffff:127.0.0.1")
THERE = ("127.0.0.1", "127.0.0.1", "::1", "::1", "127.0.0.2", "0.0.0.0", "::ffff:127.0.0.1", "::", "*")
SOURCES = ("", "", "127.0.0.1", "::1", "127.0.0.5", "::ffff:127.0.0.1", "0.0.0.0", "2001:db8::1", "239.83.17.64")
MODES = tuple(BindMode(value) for value in (0, 0, 1, 2, 4, 5))
GROUP = "239.83.17.64"
GROUP_ADDRESS = HostAddress(GROUP)

# How much a datagram is charged beside its own size, and what is known of the way to a peer, differ between kernels.
OPTIONS = sorted({*SocketOption} - {SocketOption.RECEIVE_BUFFER_SIZE, SocketOption.PATH_MTU}, key=str)

Step = tuple[int, str, tuple[Any, ...]]


def plan(seed: int) -> list[Step]:
    """Calls, each with the socket that it is made on; a port is that of a socket, or 0."""
    chance = random.Random(seed)
    steps: list[Step] = [
        (index, "bind", (chance.choice(BOUND_TO), None, BindMode.DEFAULT_FOR_PLATFORM)) for index in range(SOCKETS)
    ]
    for number in range(CALLS):
        # What was drawn for a call that does not need it is drawn all the same, so plans stay alike.
        port, there = chance.choice([0, 1, 1, 2, 2, 3, 3, None]), chance.choice(THERE)
        size, most = chance.choice([0, 1, 5, 1500, 65507, 65508]), chance.choice([None, None, 0, 3])
        source, hops = chance.choice(SOURCES), chance.choice([-1, -1, 0, 1, 255])
        interface = chance.choice([0, 0, 1])
        option, value = chance.choice(OPTIONS), chance.choice([0, 1, 64, 255, 256, 5000])
        name, arguments = chance.choice(
            [
                ("bind", (chance.choice(BOUND_TO), chance.choice([None, None, port]), chance.choice(MODES))),
                ("connect_to_host", (there, port)),
                *[("write_datagram", (number, size, there, port))] * 3,
                *[("datagram", (number, size, source, chance.choice(THERE[:-2]), port, hops, interface))] * 3,
                *[("reply", (size,))] * 2,
                ("to_group", (number, size, port)),
                *[("read_datagram", (most,))] * 4,
                ("write", (number, size)),
                ("read_all", ()),
                ("pending_datagram_size", ()),
                ("dropped_datagrams", ()),
                ("join_multicast_group", (GROUP, "lo")),
                ("leave_multicast_group", (GROUP, "lo")),
                ("set_multicast_interface", (chance.choice(["lo", None]),)),
                ("set_socket_option", (option, value)),
                ("socket_option", (option,)),
                ("disconnect_from_host", ()),
                ("abort", ()),
            ]
        )
        steps.append((chance.randrange(SOCKETS), name, arguments))
    return steps


def content(number: int, size: int) -> bytes:
    """Of a datagram: which one it is, as far as there is room for that."""
    return number.to_bytes(2, "big").ljust(size, b".")[:size]


@attrs.define
class Player:
    """Makes the calls of a plan, and writes down what comes of each; ports by their order, for each run has others."""

    socks: list[UdpSocket]
    ports: dict[int, str] = attrs.Factory(dict)
    last: NetworkDatagram | None = None

    async def play(self, steps: list[Step]) -> list[str]:
        log = []
        for index, name, arguments in steps:
            outcome = await self.outcome(self.socks[index], name, arguments)
            log.append(f"{index}.{name}{arguments} -> {outcome} {self.state(self.socks[index])}")
        for sock in self.socks:
            while (datagram := sock.read_datagram()) is not None:
                log.append(f"left: {self.shown(datagram)}")
            log.append(self.state(sock))
        return log

    async def outcome(self, sock: UdpSocket, name: str, arguments: tuple[Any, ...]) -> str:
        try:
            result = self.call(sock, name, arguments)
            if inspect.isawaitable(result):
                result = await result
        except SocketError as error:
            return re.sub(r"port \d+", "port", str(error))
        except (trio.ClosedResourceError, trio.WouldBlock, ValueError) as exc:
            return repr(exc)
        if isinstance(result, NetworkDatagram):
            if result.destination_address != GROUP_ADDRESS:
                self.last = result
            return self.shown(result)
        return repr(result)

    def call(self, sock: UdpSocket, name: str, arguments: tuple[Any, ...]) -> Any:
        match name, arguments:
            case "bind", (address, port, mode):
                return sock.bind(HostAddress(address), self.port(port), mode)
            case "connect_to_host", (address, port):
                return sock.connect_to_host(address, self.port(port))
            case "write_datagram", (number, size, address, port):
                return sock.write_datagram(content(number, size), address, self.port(port))
            case "datagram", (number, size, source, address, port, hops, interface):
                data = content(number, size)
                return sock.write_datagram(NetworkDatagram(data, source, 0, address, self.port(port), hops, interface))
            case "to_group", (number, size, port):
                data = content(number, size)
                return sock.write_datagram(NetworkDatagram(data, "", 0, GROUP, self.port(port), interface_index=1))
            case "reply", (size,):
                return None if self.last is None else sock.write_datagram(self.last.make_reply(content(255, size)))
            case "write", (number, size):
                return sock.write(content(number, size))
        return getattr(sock, name)(*arguments)

    def port(self, index: int | None) -> int:
        return 0 if index is None else self.socks[index].local_port()

    def named(self, port: int) -> str:
        return self.ports.setdefault(port, f"port {len(self.ports)}") if port else "0"

    def shown(self, datagram: NetworkDatagram) -> str:
        # Who sends to a group sends from an address that this machine has, and another has not.
        sender = "" if datagram.destination_address == GROUP_ADDRESS else datagram.sender_address
        addresses = f"{sender}:{self.named(datagram.sender_port)} -> {datagram.destination_address}"
        rest = datagram.hop_limit, datagram.interface_index, datagram.truncated
        return (
            f"{datagram.data[:4]!r} of {len(datagram.data)}, {addresses}:{self.named(datagram.destination_port)} {rest}"
        )

    def state(self, sock: UdpSocket) -> str:
        own, peer = self.named(sock.local_port()), self.named(sock.peer_port())
        return f"({sock.state().name} {sock.local_address()}:{own} {sock.peer_address()}:{peer} {sock.error()})"


async def played(steps: list[Step]) -> list[str]:
    async with UdpSocket() as one, UdpSocket() as two, UdpSocket() as three, UdpSocket() as four:
        return await Player([one, two, three, four]).play(steps)


async def played_in_memory(steps: list[Step]) -> list[str]:
    async with VirtualNetwork():
        return await played(steps)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_same_calls_have_the_same_outcomes(seed: int) -> None:
    """Results, errors, states, addresses, datagrams and what is beside them."""
    steps = plan(seed)
    simulated = trio.run(played_in_memory, steps)
    for _ in range(ATTEMPTS):
        real = trio.run(played, steps)
        if real == simulated:
            break

    for number, (ours, kernels) in enumerate(zip(simulated, real, strict=False)):
        assert ours == kernels, "\n".join([f"seed {seed}, after:", *real[:number]])
    assert len(simulated) == len(real)
