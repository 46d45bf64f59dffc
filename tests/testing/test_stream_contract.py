"""A simulated connection is an ordinary trio stream: trio's own checks of that promise.

The checks that tests/sockets/test_stream_contract.py makes on the kernel's sockets, on networks that take their time,
shuffle what they carry and lose some of it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs
import pytest
import trio
import trio.testing
import trustme

from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork
from trioqt.testing.fabric import Conditions

StreamT = TypeVar("StreamT", bound=trio.abc.Stream)
Maker = Callable[[], Awaitable[tuple[StreamT, StreamT]]]

NETWORKS = {
    "at once": Conditions(),
    "latency": Conditions(latency=0.05),
    "latency, jitter and loss": Conditions(latency=0.05, jitter=0.02, loss=0.01),
}

PORT = 4000


@attrs.frozen
class Place:
    """Where the server is: how it is bound, and how it is called."""

    family: socket.AddressFamily
    addresses: tuple[str, ...]

    @property
    def sockaddr(self) -> tuple[Any, ...]:
        """The address of the server."""
        return self.addresses[0], PORT


PLACES = {
    "IPv4": Place(socket.AF_INET, ("10.1.0.1",)),
    "IPv6": Place(socket.AF_INET6, ("fd00::1",)),
}

conditions_of_the_link = pytest.mark.parametrize("conditions", NETWORKS.values(), ids=NETWORKS)
place_of_the_server = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def clogged(make: Maker[StreamT]) -> Maker[StreamT]:
    """As ``make``, with nothing more to be sent in either direction until somebody receives."""

    async def make_clogged() -> tuple[StreamT, StreamT]:
        pair = await make()
        for stream in pair:
            # An hour: what was lost has been repeated by then, so a full buffer stays full.
            with trio.move_on_after(3600):
                while True:
                    await stream.send_all(bytes(16384))
        return pair

    return make_clogged


def losses(net: VirtualNetwork) -> int:
    """How many segments the network has lost."""
    return sum(event.kind == "lost" for event in net.trace())


@attrs.frozen
class TrioStreams:
    """Pairs of trio's own streams between a client and a server with another address."""

    net: VirtualNetwork
    place: Place

    async def make(self) -> tuple[trio.SocketStream, trio.SocketStream]:
        """One pair: | connected | accepted |."""
        with trio.socket.socket(self.place.family) as listener:
            with self.net.host("server"):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
