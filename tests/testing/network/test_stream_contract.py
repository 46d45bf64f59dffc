"""A simulated connection is an ordinary trio stream: trio's own checks of that promise.

The checks that tests/sockets/test_stream_contract.py makes on the kernel's sockets, on networks that take their time,
let segments overtake each other, and lose some.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import attrs
import pytest
import trio
import trio.testing

from tests.certificates import Contexts
from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork
from trioqt.testing.network.fabric import Conditions

StreamT = TypeVar("StreamT", bound=trio.abc.Stream)
Maker = Callable[[], Awaitable[tuple[StreamT, StreamT]]]

PORT = 4000

NETWORKS = {
    "at once": Conditions(),
    "latency": Conditions(latency=0.05),
    "latency, jitter and loss": Conditions(latency=0.05, jitter=0.02, loss=0.01),
}
on_every_network = pytest.mark.parametrize("conditions", NETWORKS.values(), ids=NETWORKS)
at_every_address = pytest.mark.parametrize("address", ["10.1.0.1", "fd00::1"], ids=["IPv4", "IPv6"])


def clogged(make: Maker[StreamT]) -> Maker[StreamT]:
    """As ``make``, with nothing more to be sent in either direction until somebody receives."""

    async def make_clogged() -> tuple[StreamT, StreamT]:
        pair = await make()
        for stream in pair:
            # An hour: by then what was lost has been repeated, and what is full stays full.
            with trio.move_on_after(3600):
                while True:
                    await stream.send_all(bytes(16384))
        return pair

    return make_clogged


def losses(net: VirtualNetwork) -> int:
    """How many segments this network has lost."""
    return sum(event.kind == "lost" for event in net.trace())


@contextlib.asynccontextmanager
async def two_hosts(conditions: Conditions, address: str) -> AsyncIterator[VirtualNetwork]:
    """A network with a server at ``address``, on which the block is the client; lossy ones must have lost something."""
    client = "fd00::2" if ":" in address else "10.1.0.2"
    async with VirtualNetwork(conditions=conditions, seed=1) as net:
        with net.host("server", addresses=[address]):
            pass
        with net.host("client", addresses=[client]):
            yield net
        assert bool(losses(net)) == bool(conditions.loss)


@contextlib.asynccontextmanager
async def trio_streams(net: VirtualNetwork, address: str) -> AsyncIterator[Maker[trio.SocketStream]]:
    """A maker of trio's own streams: | connected | accepted |."""
    with net.host("server"):
        [listener] = await trio.open_tcp_listeners(PORT, host=address)

    async def make() -> tuple[trio.SocketStream, trio.SocketStream]:
        return await trio.open_tcp_stream(address, PORT), await listener.accept()

    async with listener:
        yield make


# ---- trio's streams ----------------------------------------------------------------------------


@at_every_address
@on_every_network
async def test_simulated_tcp_makes_trio_streams(conditions: Conditions, address: str, autojump_clock: object) -> None:
    """Trio's own streams over the simulated network keep all that trio promises of them, half-close too."""
    async with two_hosts(conditions, address) as net, trio_streams(net, address) as make:
        await trio.testing.check_half_closeable_stream(make, None)
        await trio.testing.check_half_closeable_stream(make, clogged(make))


async def test_simulated_local_sockets_make_trio_streams(autojump_clock: object) -> None:
    """The same over AF_UNIX, between two programs of one host."""
    async with VirtualNetwork(latency=0.05) as net, trio.open_nursery() as nursery:
        with net.host("server"), trio.socket.socket(trio.socket.AF_UNIX) as listener:
            await listener.bind("/run/simulated")
            listener.listen()

            async def make() -> tuple[trio.SocketStream, trio.SocketStream]:
                ours = await trio.open_unix_socket("/run/simulated")
                theirs, _ = await listener.accept()
                return ours, trio.SocketStream(theirs)

            await trio.testing.check_half_closeable_stream(make, None)
            await trio.testing.check_half_closeable_stream(make, clogged(make))
        nursery.cancel_scope.cancel()


# ---- TLS ---------------------------------------------------------------------------------------


@on_every_network
async def test_tls_over_simulated_tcp_makes_trio_streams(
    conditions: Conditions, tls: Contexts, autojump_clock: object
) -> None:
    """TLS has no half-close; what else a two-way stream promises holds over it."""
    async with two_hosts(conditions, "10.1.0.1") as net, trio_streams(net, "10.1.0.1") as make_below:

        async def make() -> tuple[trio.SSLStream[trio.SocketStream], trio.SSLStream[trio.SocketStream]]:
            ours, theirs = await make_below()
            client = trio.SSLStream(ours, tls.client, server_hostname="peer.example")
            server = trio.SSLStream(theirs, tls.server, server_side=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.do_handshake)
                nursery.start_soon(server.do_handshake)
            return client, server

        await trio.testing.check_two_way_stream(make, None)


# ---- ours --------------------------------------------------------------------------------------


@attrs.frozen
class BusyTime(trio.abc.Instrument):
    """Makes every pass of the run loop take a millisecond of a mock clock.

    The clock jumps only when all tasks wait.  One of trio's checks sends on and on without ever having to wait, until
    the other end has closed; and ours closes in order, which takes a second if bytes came that nobody read.
    """

    clock: trio.testing.MockClock

    def after_io_wait(self, timeout: float) -> None:
        """One pass more."""
        self.clock.jump(0.001)


@on_every_network
async def test_our_sockets_over_simulated_tcp_are_trio_streams(
    conditions: Conditions, autojump_clock: trio.testing.MockClock
) -> None:
    """A TcpSocket that has connected and one that a TcpServer has accepted, as on the kernel's network."""
    trio.lowlevel.add_instrument(BusyTime(autojump_clock))
    # Without keep_alive: in two minutes the system would give up a peer that lives and takes nothing.
    server = TcpServer(keep_alive=False)
    async with two_hosts(conditions, "10.1.0.1") as net, server, trio.open_nursery() as nursery:
        with net.host("server"):
            await server.listen("10.1.0.1", PORT)

        async def make() -> tuple[TcpSocket, TcpSocket]:
            ours = TcpSocket(nursery)
            await ours.connect_to_host("10.1.0.1", PORT)
            return ours, await server.accept()

        await trio.testing.check_half_closeable_stream(make, None)
        await trio.testing.check_half_closeable_stream(make, clogged(make))
