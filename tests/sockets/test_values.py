"""What a socket says of itself at the very moment in which it tells something, and right after."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.links.scripted import names
from tests.networks import Loopback, Network, RawPeer
from tests.sockets.arrivals import reset_arrived
from tests.sockets.ports import refusing_port
from trioqt import HostAddress, SocketError, SocketState, TcpServer, TcpSocket
from trioqt.core.states import Told

OVER_TLS = True

Values = tuple[bool, bool, bool, bool]
"""Is it valid, has it a descriptor, a local address and port, a peer's?"""

NOTHING, VALID = (False, False, False, False), (True, False, False, False)
BOUND, CONNECTED = (True, True, True, False), (True, True, True, True)
# In the moment in which the connection has ended there is no descriptor any more; addresses there are.
ENDED, ABORTED = (True, False, True, True), (False, False, True, True)
# And in the moment in which that is found out, though the state is still CONNECTED.
LOST = (False, True, True, True)


class Watched(TcpSocket):
    """Writes down what it says whenever it tells something."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.seen: list[tuple[str, Values]] = []
        super().__init__(*args, **options)

    def _tell(self, thing: Told) -> None:
        name = thing.name if isinstance(thing, SocketState) else thing.__name__
        self.seen.append((name, self.values()))
        super()._tell(thing)

    def values(self) -> Values:
        local = self.local_address() != HostAddress.NULL, self.local_port() != 0
        peer = self.peer_address() != HostAddress.NULL, self.peer_port() != 0
        assert local[0] == local[1]
        assert peer[0] == peer[1]
        return self.is_valid(), self.socket_descriptor() != -1, local[0], peer[0]


@attrs.frozen
class Story:
    """What happens to a socket."""

    sock: Watched
    network: Network

    async def connect(self) -> RawPeer:
        with await self.network.raw_listener() as listener:
            await self.sock.connect_to_host(self.network.host, listener.port)
            return await listener.accept()

    async def connect_by_name_and_disconnect(self) -> None:
        names({"peer.example": ["127.0.0.1"]})
        with await self.network.raw_listener() as listener:
            await self.sock.connect_to_host("peer.example", listener.port)
            await self.sock.disconnect_from_host()

    async def be_refused(self) -> None:
        async with refusing_port() as port:
            with pytest.raises(SocketError):
                await self.sock.connect_to_host("127.0.0.1", port)

    async def be_refused_when_bound(self) -> None:
        await self.sock.bind("127.0.0.1")
        await self.be_refused()

    async def find_no_name(self) -> None:
        names({})
        with pytest.raises(SocketError):
            await self.sock.connect_to_host("peer.example", 80)

    async def cancel_while_looking_up(self) -> None:
        await self.look_up_until(lambda nursery: nursery.cancel_scope.cancel())

    async def abort_while_looking_up(self) -> None:
        await self.look_up_until(lambda nursery: self.sock.abort())

    async def look_up_until(self, end: Callable[[trio.Nursery], None]) -> None:
        names({"peer.example": []}, gate=trio.Event())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(quietly, functools.partial(self.sock.connect_to_host, "peer.example", 80))
            await trio.testing.wait_all_tasks_blocked()
            end(nursery)

    async def abort(self) -> None:
        with await self.connect():
            self.sock.abort()

    async def aclose(self) -> None:
        with await self.connect():
            await self.sock.aclose()

    async def abort_what_had_ended(self) -> None:
        with await self.connect():
            await self.sock.disconnect_from_host()
        self.sock.abort()

    async def lose_it_while_reading(self) -> None:
        peer = await self.connect()
        peer.reset()
        await quietly(self.sock.receive_some)

    async def lose_it_in_a_write(self) -> None:
        peer = await self.connect()
        peer.reset()
        await reset_arrived(self.sock)
        with pytest.raises(SocketError):
            self.sock.write(b"x")

    async def the_peer_finishes(self) -> None:
        with await self.connect() as peer:
            peer.finish()
            await self.sock.wait_for_disconnected()

    async def bind_and_disconnect(self) -> None:
        await self.sock.bind("127.0.0.1")
        await self.sock.disconnect_from_host()

    async def bind_and_abort(self) -> None:
        await self.sock.bind("127.0.0.1")
        self.sock.abort()


async def quietly(call: Callable[[], Awaitable[object]]) -> None:
    try:
        await call()
    except (SocketError, trio.ClosedResourceError):
        pass


LOOKING_UP = [("HOST_LOOKUP", VALID)]
TRYING = [*LOOKING_UP, ("CONNECTING", VALID), ("HostFound", VALID)]
CONNECTING = [*TRYING, ("CONNECTED", CONNECTED), ("Connected", CONNECTED)]


def ending(values: Values) -> list[tuple[str, Values]]:
    return [("UNCONNECTED", values), ("ReadChannelFinished", values), ("Disconnected", values)]


CLOSING = ("CLOSING", CONNECTED)
FOUND_LOST = ("ErrorOccurred", LOST)
BOUND_ENDS = ending((False, False, True, False))

# fmt: off
STORIES: list[tuple[Callable[[Story], Awaitable[None]], list[tuple[str, Values]], Values]] = [
    (Story.connect_by_name_and_disconnect, [*CONNECTING, CLOSING, *ending(ENDED)], VALID),
    (Story.be_refused,              [*TRYING, ("UNCONNECTED", VALID), ("ErrorOccurred", VALID)], VALID),
    (Story.find_no_name,            [*LOOKING_UP, ("UNCONNECTED", VALID), ("ErrorOccurred", VALID)], VALID),
    (Story.cancel_while_looking_up, [*LOOKING_UP, ("UNCONNECTED", VALID)], VALID),
    (Story.abort_while_looking_up,  [*LOOKING_UP, ("UNCONNECTED", NOTHING), ("ReadChannelFinished", NOTHING)], NOTHING),
    (Story.abort,                   [*CONNECTING, *ending(ABORTED)], NOTHING),
    (Story.aclose,                  [*CONNECTING, CLOSING, *ending(ABORTED)], NOTHING),
    (Story.abort_what_had_ended,    [*CONNECTING, CLOSING, *ending(ENDED)], NOTHING),
    (Story.lose_it_while_reading,   [*CONNECTING, FOUND_LOST, CLOSING, *ending(ENDED)], VALID),
    (Story.lose_it_in_a_write,      [*CONNECTING, FOUND_LOST, *ending(ENDED)], VALID),
    (Story.the_peer_finishes,       [*CONNECTING, FOUND_LOST, CLOSING, *ending(ENDED)], VALID),
    (Story.bind_and_disconnect,     [("BOUND", BOUND), ("CLOSING", BOUND), *BOUND_ENDS], NOTHING),
    (Story.bind_and_abort,          [("BOUND", BOUND), *BOUND_ENDS[:2]], NOTHING),
    (
        Story.be_refused_when_bound,
        [
            ("BOUND", BOUND), ("HOST_LOOKUP", BOUND), ("CONNECTING", BOUND), ("HostFound", BOUND),
            ("UNCONNECTED", (True, False, True, False)), ("ErrorOccurred", (True, False, True, False)),
        ],
        VALID,
    ),
]
# fmt: on


@pytest.mark.parametrize(("play", "seen", "after"), STORIES)
async def test_what_a_socket_says_while_it_tells(
    network: Network,
    play: Callable[[Story], Awaitable[None]],
    seen: list[tuple[str, Values]],
    after: Values,
) -> None:
    """As Qt's slots see it: a connection that ends keeps its addresses until that is told, and stays valid."""
    async with Watched(half_open=play is not Story.the_peer_finishes) as sock:
        fresh = sock.values()
        await play(Story(sock, network))
        left = sock.values()

    assert fresh == NOTHING
    assert sock.seen == seen
    assert left == after
    assert sock.values() == NOTHING  # its block is left


async def test_a_connection_that_was_accepted_or_adopted_is_valid(network: Loopback) -> None:
    """Nobody here has connected it."""
    async with TcpServer(Watched) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            sock = await server.accept()
            client.finish()
            assert await sock.receive_some() == b""
            values = sock.values()
            await sock.disconnect_from_host()

            assert sock.seen == [
                ("CONNECTED", CONNECTED),
                ("ReadChannelFinished", CONNECTED),
                ("CLOSING", CONNECTED),
                ("UNCONNECTED", ENDED),
                ("Disconnected", ENDED),
            ]
            assert (values, sock.values()) == (CONNECTED, VALID)


async def test_a_stream_is_valid_from_the_beginning_to_the_end_of_its_block() -> None:
    """It has no addresses and no descriptor."""
    ours, _ = trio.testing.memory_stream_pair()
    sock = TcpSocket.from_stream(ours)
    before = sock.is_valid()
    async with sock:
        during = sock.is_valid()
        await sock.disconnect_from_host()
        ended = sock.is_valid()

    assert (before, during, ended, sock.is_valid()) == (True, True, True, False)


@pytest.mark.unwatched("its task holds the nursery")
async def test_a_socket_whose_parent_nursery_reset_arrived_is_not_valid(network: Network) -> None:
    """It is closed by that."""
    async with trio.open_nursery() as nursery:
        sock, peer = await network.connected(nursery)
        valid = sock.is_valid()
    peer.close()

    assert (valid, sock.is_valid()) == (True, False)
