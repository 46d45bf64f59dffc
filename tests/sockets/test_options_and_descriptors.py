"""What the system's socket is told, and the system's socket itself, given away or taken over."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.links.scripted import Answer, ScriptedNetwork, names
from tests.networks import Loopback, Network, RawListener, RawPeer
from tests.sockets.arrivals import open_descriptors
from tests.sockets.ports import be_refused
from tests.sockets.telling import told
from trioqt import (
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    Event,
    HostAddress,
    ReadChannelFinished,
    SocketError,
    SocketOption,
    SocketState,
    StateChanged,
    TcpServer,
    TcpSocket,
)

RECEIVE_BUFFER = socket.SOL_SOCKET, socket.SO_RCVBUF

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState

UNSUPPORTED = ErrorKind.UNSUPPORTED_SOCKET_OPERATION

# fmt: off
# What is set, and what the system makes of it: Linux doubles buffers, and TCP keeps two bits of the type of service.
SETTINGS: list[tuple[SocketOption, int, int]] = [
    (SocketOption.LOW_DELAY,           0,     0),
    (SocketOption.LOW_DELAY,           5,     1),
    (SocketOption.KEEP_ALIVE,          1,     1),
    (SocketOption.KEEP_ALIVE,          0,     0),
    (SocketOption.TYPE_OF_SERVICE,     32,    32),
    (SocketOption.TYPE_OF_SERVICE,     35,    32),
    (SocketOption.SEND_BUFFER_SIZE,    20000, 40000),
    (SocketOption.RECEIVE_BUFFER_SIZE, 20000, 40000),
    (SocketOption.KEEP_ALIVE_IDLE,     77,    77),
    (SocketOption.KEEP_ALIVE_INTERVAL, 7,     7),
    (SocketOption.KEEP_ALIVE_COUNT,    3,     3),
]
# fmt: on


async def listen_on(host: str) -> RawListener:
    sock = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    await sock.bind((host, 0))
    sock.listen()
    return RawListener(sock)


@asynccontextmanager
async def connected_to(host: str, *options: tuple[SocketOption, int]) -> AsyncIterator[TcpSocket]:
    """A socket with ``options`` set before it was connected."""
    with await listen_on(host) as listener:
        async with TcpSocket() as sock:
            for option, value in options:
                sock.set_socket_option(option, value)
            await sock.connect_to_host(host, listener.port)
            yield sock


@asynccontextmanager
async def raw_pair(network: Loopback) -> AsyncIterator[tuple[socket.socket, RawPeer]]:
    """A connected socket of the system, and its peer."""
    with await network.raw_listener() as listener:
        sock = socket.create_connection((network.host, listener.port))
        with sock, await listener.accept() as peer:
            yield sock, peer


def is_open(descriptor: int) -> bool:
    return descriptor in open_descriptors()


# ---- Options on a connection -------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(("option", "value", "reported"), SETTINGS)
async def test_an_option_set_on_a_connection(
    network: Network, host: str, option: SocketOption, value: int, reported: int
) -> None:
    """Read back as the system has it, on both families."""
    async with connected_to(host) as sock:
        sock.set_socket_option(option, value)

        assert sock.socket_option(option) == reported


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(("option", "value", "reported"), SETTINGS)
async def test_an_option_set_before_connecting(
    network: Network, host: str, option: SocketOption, value: int, reported: int
) -> None:
    """It is remembered, and on the socket before the first packet; Qt forgets it."""
    async with connected_to(host, (option, value)) as sock:
        assert sock.socket_option(option) == reported


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_low_delay_is_on_by_default(network: Network, host: str) -> None:
    """As in trio: a small message goes out at once."""
    async with connected_to(host) as sock:
        assert sock.socket_option(SocketOption.LOW_DELAY) == 1
        assert sock.socket_option(SocketOption.KEEP_ALIVE) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_path_mtu_can_be_read_and_not_set(network: Network, host: str) -> None:
    """UNSUPPORTED; it is the route's, not ours."""
    async with connected_to(host) as sock:
        mtu = sock.socket_option(SocketOption.PATH_MTU)
        with pytest.raises(SocketError, match="PATH_MTU cannot be set") as caught:
            sock.set_socket_option(SocketOption.PATH_MTU, 1500)

        assert mtu > 1000
        assert caught.value.kind is UNSUPPORTED
        assert sock.socket_option(SocketOption.PATH_MTU) == mtu


async def test_an_option_that_cannot_be_set_is_refused_before_there_is_a_socket() -> None:
    """Remembering it would only make every later connection fail."""
    async with TcpSocket() as sock:
        with pytest.raises(SocketError) as caught:
            sock.set_socket_option(SocketOption.PATH_MTU, 1500)
        with pytest.raises(SocketError) as read:
            sock.socket_option(SocketOption.PATH_MTU)

    assert (caught.value.kind, read.value.kind) == (UNSUPPORTED, ErrorKind.OPERATION)


async def test_what_the_system_refuses_is_raised_and_harms_nothing(network: Network) -> None:
    """The kind is the system's reason; no event is told, no state changes, and the refused value is not remembered."""
    async with trio.open_nursery() as nursery:
        sock, peer = await network.connected(nursery)
        with peer:
            async with told(sock) as events:
                with pytest.raises(SocketError) as caught:
                    sock.set_socket_option(SocketOption.MULTICAST_TTL, 3)
            await sock.send_all(b"still here")

            assert (caught.value.kind, caught.value.errno) == (UNSUPPORTED, errno.EINVAL)
            assert caught.value.message == "cannot set MULTICAST_TTL to 3: Invalid argument"
            assert events == []
            assert await peer.receive(10) == b"still here"
            with await network.raw_listener() as listener:
                await sock.disconnect_from_host()
                await sock.connect_to_host(network.host, listener.port)
            await sock.aclose()


# fmt: off
WRONG: list[tuple[Any, Any, type[Exception]]] = [
    (1,                         1,        TypeError),
    ("LOW_DELAY",               1,        TypeError),
    (SocketOption.LOW_DELAY,    "1",      TypeError),
    (SocketOption.LOW_DELAY,    1.0,      TypeError),
    (SocketOption.LOW_DELAY,    None,     TypeError),
    (SocketOption.LOW_DELAY,    -1,       ValueError),
    (SocketOption.LOW_DELAY,    2**31,    ValueError),
]
# fmt: on


@pytest.mark.parametrize("when", ["before", "connected"])
@pytest.mark.parametrize(("option", "value", "kind"), WRONG)
async def test_wrong_values_touch_nothing(
    network: Network, when: str, option: Any, value: Any, kind: type[Exception]
) -> None:
    """With and without a connection: TypeError or ValueError, and the option is as it was."""
    async with TcpSocket() as unconnected, connected_to("127.0.0.1") as connected:
        sock = connected if when == "connected" else unconnected
        with pytest.raises(kind):
            sock.set_socket_option(option, value)

        assert connected.socket_option(SocketOption.LOW_DELAY) == 1
        with pytest.raises(SocketError):
            unconnected.socket_option(SocketOption.LOW_DELAY)


async def test_only_an_option_can_be_read(network: Network) -> None:
    """A number of the system's is none of ours."""
    async with connected_to("127.0.0.1") as sock:
        with pytest.raises(TypeError, match="an option is a SocketOption, not int"):
            sock.socket_option(socket.TCP_NODELAY)  # type: ignore[arg-type]


# ---- Options before there is a socket ----------------------------------------------------------


async def test_without_a_socket_an_option_is_what_was_set_here() -> None:
    """Or OPERATION if nothing was: there is nobody to ask."""
    sock = TcpSocket()
    sock.set_socket_option(SocketOption.KEEP_ALIVE, 1)
    sock.set_socket_option(SocketOption.KEEP_ALIVE_COUNT, 3)
    sock.set_socket_option(SocketOption.LOW_DELAY, 7)

    async with sock:
        values = [sock.socket_option(option) for option in (SocketOption.KEEP_ALIVE, SocketOption.KEEP_ALIVE_COUNT)]
        flag = sock.socket_option(SocketOption.LOW_DELAY)
        with pytest.raises(SocketError) as caught:
            sock.socket_option(SocketOption.SEND_BUFFER_SIZE)

    assert (values, flag) == ([1, 3], 1)
    assert caught.value.kind is ErrorKind.OPERATION
    assert caught.value.message == "cannot read SEND_BUFFER_SIZE while unconnected"


async def test_options_are_on_every_connection_of_the_socket(network: Network) -> None:
    """Set once, on a connection or before: the next one has them too."""
    values: list[int] = []
    with await listen_on("127.0.0.1") as listener:
        async with TcpSocket() as sock:
            sock.set_socket_option(SocketOption.KEEP_ALIVE_IDLE, 77)
            await sock.connect_to_host("127.0.0.1", listener.port)
            sock.set_socket_option(SocketOption.KEEP_ALIVE_COUNT, 3)
            await sock.disconnect_from_host()
            await sock.connect_to_host("127.0.0.1", listener.port)
            values += [sock.socket_option(SocketOption.KEEP_ALIVE_IDLE)]
            values += [sock.socket_option(SocketOption.KEEP_ALIVE_COUNT)]

    assert values == [77, 3]


async def test_options_on_a_bound_socket(network: Network) -> None:
    """It has a system's socket already, so they are set at once, and kept when it connects."""
    with await listen_on("127.0.0.1") as listener:
        async with TcpSocket() as sock:
            sock.set_socket_option(SocketOption.KEEP_ALIVE_IDLE, 77)
            await sock.bind("127.0.0.1")
            sock.set_socket_option(SocketOption.KEEP_ALIVE_COUNT, 3)
            bound = sock.socket_option(SocketOption.KEEP_ALIVE_COUNT)
            await sock.connect_to_host("127.0.0.1", listener.port)
            connected = [
                sock.socket_option(SocketOption.KEEP_ALIVE_COUNT),
                sock.socket_option(SocketOption.KEEP_ALIVE_IDLE),
                sock.socket_option(SocketOption.LOW_DELAY),
            ]

    assert (bound, connected) == (3, [3, 77, 1])


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_type_of_service_of_an_ipv4_peer_of_an_ipv6_socket(network: Network, when: str) -> None:
    """A dual-stack socket sends it IPv4 packets, which carry IPv4's type of service, not IPv6's traffic class."""
    with await listen_on("127.0.0.1") as listener:
        async with TcpSocket() as sock:
            await sock.bind()
            if when == "before":
                sock.set_socket_option(SocketOption.TYPE_OF_SERVICE, 32)
            await sock.connect_to_host("127.0.0.1", listener.port)
            if when == "after":
                sock.set_socket_option(SocketOption.TYPE_OF_SERVICE, 32)
            with network.socket(sock.socket_descriptor()) as below:
                family, on_the_wire = below.family, below.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)

            assert (family, on_the_wire) == (socket.AF_INET6, 32)
            assert sock.socket_option(SocketOption.TYPE_OF_SERVICE) == 32


async def test_a_closed_socket_takes_no_options() -> None:
    """Closed is closed: nothing will ever be opened with them."""
    sock = TcpSocket()
    async with sock:
        pass

    with pytest.raises(trio.ClosedResourceError, match="cannot set LOW_DELAY: the socket is closed"):
        sock.set_socket_option(SocketOption.LOW_DELAY, 1)
    with pytest.raises(trio.ClosedResourceError, match="cannot read LOW_DELAY: the socket is closed"):
        sock.socket_option(SocketOption.LOW_DELAY)


async def test_accepted_sockets_have_low_delay_and_what_their_factory_set(network: Network) -> None:
    """The factory may set options on the socket it makes: the accepted connection gets them."""

    def make() -> TcpSocket:
        sock = TcpSocket()
        sock.set_socket_option(SocketOption.KEEP_ALIVE, 1)
        sock.set_socket_option(SocketOption.KEEP_ALIVE_IDLE, 77)
        sock.set_socket_option(SocketOption.SEND_BUFFER_SIZE, 20000)
        return sock

    async with TcpServer(make) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            async with await server.accept() as sock:
                values = [
                    sock.socket_option(SocketOption.LOW_DELAY),
                    sock.socket_option(SocketOption.KEEP_ALIVE),
                    sock.socket_option(SocketOption.KEEP_ALIVE_IDLE),
                    sock.socket_option(SocketOption.SEND_BUFFER_SIZE),
                ]

    assert values == [1, 1, 77, 40000]


async def test_a_factory_may_switch_low_delay_off(network: Network) -> None:
    """The default is a default."""

    def make() -> TcpSocket:
        sock = TcpSocket()
        sock.set_socket_option(SocketOption.LOW_DELAY, 0)
        return sock

    async with TcpServer(make) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            async with await server.accept() as sock:
                assert sock.socket_option(SocketOption.LOW_DELAY) == 0


# ---- The descriptor ----------------------------------------------------------------------------


async def test_the_descriptor_in_every_state(network: Network) -> None:
    """-1 unless there is a system's socket: bound, connected or closing."""
    gate = trio.Event()
    names({"peer.example": [network.host]}, gate=gate)
    seen: list[tuple[SocketState, bool]] = []

    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:

            def look() -> None:
                descriptor = sock.socket_descriptor()
                seen.append((sock.state(), descriptor != -1))
                assert descriptor == -1 or is_open(descriptor)

            look()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sock.connect_to_host, "peer.example", listener.port)
                await trio.testing.wait_all_tasks_blocked()
                look()
                gate.set()
            look()
            with await listener.accept() as peer:
                sock.write(bytes(8_000_000))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sock.disconnect_from_host)
                    await trio.testing.wait_all_tasks_blocked()
                    look()
                    await peer.receive_to_end()
            look()

    assert seen == [
        (UNCONNECTED, False),
        (HOST_LOOKUP, False),
        (CONNECTED, True),
        (CLOSING, True),
        (UNCONNECTED, False),
    ]


async def test_there_is_no_descriptor_while_several_addresses_are_tried() -> None:
    """Which of them it would be is not known yet."""
    ScriptedNetwork({"1.1.1.1": Answer(gate=trio.Event())})

    async with TcpSocket() as sock, trio.open_nursery() as nursery:
        nursery.start_soon(sock.connect_to_host, "1.1.1.1", 80)
        await trio.testing.wait_all_tasks_blocked()
        seen = sock.state(), sock.socket_descriptor()
        nursery.cancel_scope.cancel()

    assert seen == (CONNECTING, -1)


# ---- Taking one over ---------------------------------------------------------------------------

# Loopback from here on: a descriptor that somebody hands over is the kernel's.


async def test_adopting_a_connection(network: Loopback) -> None:
    """B-001: CONNECTED is told, ``Connected`` is not; the addresses are there, the name is not; and it works."""
    async with raw_pair(network) as (theirs, peer):
        local, remote = theirs.getsockname(), theirs.getpeername()
        descriptor = theirs.detach()
        async with TcpSocket() as sock:
            async with told(sock) as events:
                sock.set_socket_descriptor(descriptor)
            said = sock.socket_descriptor(), sock.state(), sock.error(), sock.peer_name()
            addresses = (
                (sock.local_address().text, sock.local_port()),
                (sock.peer_address().text, sock.peer_port()),
            )
            await peer.send(b"question\n")
            question = await sock.receive_line()
            await sock.send_all(b"answer")
        answer = await peer.receive_to_end()

    assert events == [StateChanged(CONNECTED)]
    assert said == (descriptor, CONNECTED, None, "")
    assert addresses == (local, remote)
    assert (question, answer) == (b"question\n", b"answer")
    assert not is_open(descriptor)


async def test_adopting_a_connection_that_its_peer_has_reset(network: Loopback) -> None:
    """The system has forgotten the peer, and keeps the failure for the first read."""
    async with raw_pair(network) as (theirs, peer):
        peer.reset()
        async with TcpSocket() as sock:
            sock.set_socket_descriptor(theirs.detach())
            said = sock.state(), sock.error(), sock.peer_address(), sock.peer_port()
            with pytest.raises(SocketError) as caught:
                await sock.receive_some()

    assert said == (CONNECTED, None, HostAddress.NULL, 0)
    assert (caught.value.kind, caught.value.errno) == (ErrorKind.REMOTE_HOST_CLOSED, errno.ECONNRESET)


async def test_adopting_a_bound_socket(network: Loopback) -> None:
    """BOUND is told, and connecting leaves from its address."""
    theirs = socket.socket()
    theirs.bind(("127.0.0.2", 0))
    local = theirs.getsockname()
    descriptor = theirs.detach()

    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            async with told(sock) as events:
                sock.set_socket_descriptor(descriptor, BOUND)
            said = sock.state(), sock.socket_descriptor(), (sock.local_address().text, sock.local_port())
            await sock.connect_to_host(network.host, listener.port)
            with await listener.accept() as peer:
                seen = peer.sock.getpeername()

    assert events == [StateChanged(BOUND)]
    assert said == (BOUND, descriptor, local)
    assert seen == local


async def test_adopting_a_socket_that_is_bound_to_every_address(network: Loopback) -> None:
    """A dual-stack one is as good as one of ours: it reports ANY, and reaches IPv4."""
    theirs = socket.socket(socket.AF_INET6)
    theirs.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    theirs.bind(("::", 0))

    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            sock.set_socket_descriptor(theirs.detach(), BOUND)
            address = sock.local_address()
            await sock.connect_to_host(network.host, listener.port)

            assert address == HostAddress.ANY
            assert sock.peer_address() == HostAddress.LOCAL_HOST


async def test_adopting_over_a_connection_closes_the_old_one_without_a_word(network: Loopback) -> None:
    """B-004: the state does not change, so nothing is told; the old peer sees the end, old bytes are gone."""
    async with trio.open_nursery() as nursery:
        sock, old = await network.connected(nursery)
        async with raw_pair(network) as (theirs, new):
            await old.send(b"old")
            assert await sock.wait_for_ready_read()
            async with told(sock) as events:
                sock.set_socket_descriptor(theirs.detach())
            old_end = await old.receive_to_end()
            buffered = sock.bytes_available()
            await new.send(b"new")
            data = await sock.receive_some()
            old.close()
            await sock.aclose()

    assert events == []
    assert old_end == b""
    assert (buffered, data) == (0, b"new")


async def test_adopting_over_a_connection_whose_peer_had_finished(network: Loopback) -> None:
    """The new peer's end is news again, although nothing was told when it took the old one's place."""
    async with trio.open_nursery() as nursery:
        sock, old = await network.connected(nursery)
        async with raw_pair(network) as (theirs, new):
            old.finish()
            old_end = await sock.receive_some()
            sock.set_socket_descriptor(theirs.detach())
            async with told(sock) as events:
                new.finish()
                new_end = await sock.receive_some()
            old.close()
            await sock.aclose()

    assert (old_end, new_end) == (b"", b"")
    assert events == [ReadChannelFinished()]


async def test_adopting_over_unsent_bytes_resets_the_old_connection(network: Loopback) -> None:
    """Bytes for the old peer are dropped, so it must not take what it has for the whole."""
    async with trio.open_nursery() as nursery:
        sock, old = await network.connected(nursery)
        async with raw_pair(network) as (theirs, new):
            sock.write(bytes(8_000_000))
            unsent = sock.bytes_to_write()
            sock.set_socket_descriptor(theirs.detach())
            with old, pytest.raises(ConnectionResetError):
                await old.receive_to_end()
            left = sock.bytes_to_write()
            await sock.send_all(b"fresh")
            fresh = await new.receive(5)
            await sock.aclose()

    assert unsent > 0
    assert (left, fresh) == (0, b"fresh")


async def test_adopting_over_a_bound_socket_gives_its_address_back(network: Loopback) -> None:
    """The connection has an address of its own."""
    async with raw_pair(network) as (theirs, _):
        local = theirs.getsockname()
        async with TcpSocket() as sock:
            await sock.bind("127.0.0.2")
            bound = sock.socket_descriptor()
            async with told(sock) as events:
                sock.set_socket_descriptor(theirs.detach())

            assert events == [StateChanged(CONNECTED)]
            assert (sock.local_address().text, sock.local_port()) == local
            assert not is_open(bound)


async def test_adopting_clears_what_is_left_of_a_failure(network: Loopback) -> None:
    """A new connection knows nothing of the old one's error."""
    async with TcpSocket() as sock:
        with pytest.raises(SocketError):
            await be_refused(sock)
        async with raw_pair(network) as (theirs, peer):
            sock.set_socket_descriptor(theirs.detach())
            sock.write(b"works")

            assert (sock.error(), sock.error_string(), sock.peer_name()) == (None, "", "")
            assert await peer.receive(5) == b"works"


async def test_an_adopted_connection_ends_like_any_other(network: Loopback) -> None:
    """The peer's reset, told in Qt's order."""
    async with raw_pair(network) as (theirs, peer):
        async with TcpSocket() as sock:
            sock.set_socket_descriptor(theirs.detach())
            async with told(sock) as events:
                peer.reset()
                with pytest.raises(SocketError) as caught:
                    await sock.receive_some()

    assert caught.value.kind is ErrorKind.REMOTE_HOST_CLOSED
    assert events == [
        ErrorOccurred(caught.value.kind, caught.value.message),
        StateChanged(CLOSING),
        StateChanged(UNCONNECTED),
        ReadChannelFinished(),
        Disconnected(),
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_option_of_the_factory_reaches_the_clients_of_both_families(network: Network, host: str) -> None:
    """One port for both: what an IPv4 client gets is set by another number, and used to be forgotten."""

    def make() -> TcpSocket:
        sock = TcpSocket()
        sock.set_socket_option(SocketOption.TYPE_OF_SERVICE, 32)
        return sock

    async with TcpServer(make) as server:
        await server.listen()
        async with TcpSocket() as client:
            await client.connect_to_host(host, server.server_port())
            sock = await server.accept()
            assert sock.peer_address() == HostAddress(host)
            in_force = sock.socket_option(SocketOption.TYPE_OF_SERVICE)
            sock.abort()

    assert in_force == 32


# ---- Taking one over that is neither bound nor connected ---------------------------------------


@pytest.mark.parametrize("by_name", [False, True])
async def test_adopting_an_unconnected_socket_to_connect_it_later(network: Loopback, by_name: bool) -> None:
    """B-006: nothing is told, and connecting uses that descriptor, by name too, as Qt does."""
    names({"peer.example": ["::1", network.host]})
    descriptor = socket.socket().detach()
    async with TcpSocket() as sock:
        with await network.raw_listener() as listener:
            async with told(sock) as events:
                sock.set_socket_descriptor(descriptor, UNCONNECTED)
            said = sock.state(), sock.is_valid(), sock.socket_descriptor(), sock.local_address(), sock.local_port()
            await sock.connect_to_host("peer.example" if by_name else network.host, listener.port)
            with await listener.accept() as peer:
                connected = sock.state(), sock.socket_descriptor(), sock.local_port()
                seen = peer.sock.getpeername()[1]
        await sock.disconnect_from_host()

        assert events == []
        assert said == (UNCONNECTED, True, descriptor, HostAddress.NULL, 0)
        assert connected == (CONNECTED, descriptor, seen)
        assert sock.socket_descriptor() == -1
        assert not is_open(descriptor)


@pytest.mark.parametrize("state", [UNCONNECTED, BOUND])
@pytest.mark.parametrize("first", ["224.0.0.0", "127.0.0.2", "::1"], ids=["unreachable", "refused", "other family"])
async def test_an_adopted_socket_is_the_one_that_connects(network: Loopback, state: SocketState, first: str) -> None:
    """Also when other addresses have failed before: the same descriptor, its options and its port.

    A new one used to take its place, without a word and without the options.
    """
    names({"peer.example": [first, "127.0.0.3", "127.0.0.1"]})
    mine = socket.socket()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    if state is BOUND:
        mine.bind(("127.0.0.4", 0))
    port, inode, size = mine.getsockname()[1], os.fstat(mine.fileno()).st_ino, mine.getsockopt(*RECEIVE_BUFFER)
    async with TcpSocket() as sock:
        with await network.raw_listener() as listener:
            sock.set_socket_descriptor(mine.detach(), state)
            await sock.connect_to_host("peer.example", listener.port)
            with await listener.accept() as peer, network.socket(sock.socket_descriptor()) as ours:
                assert (os.fstat(ours.fileno()).st_ino, ours.getsockopt(*RECEIVE_BUFFER)) == (inode, size)
                assert port in (0, sock.local_port())
                assert peer.sock.getpeername() == (str(sock.local_address()), sock.local_port())
                await sock.send_all(b"hello")
                assert await peer.receive(5) == b"hello"


async def test_an_unconnected_socket_reaches_its_own_family_only(network: Loopback) -> None:
    """It is what was given, and it is gone with the attempt."""
    descriptor = socket.socket().detach()
    async with TcpSocket() as sock:
        sock.set_socket_descriptor(descriptor, UNCONNECTED)
        with pytest.raises(SocketError) as caught:
            await sock.connect_to_host("::1", 1)

        assert caught.value.kind is ErrorKind.CONNECTION_REFUSED
        assert (sock.state(), sock.socket_descriptor(), is_open(descriptor)) == (UNCONNECTED, -1, False)


async def end_by_abort(sock: TcpSocket) -> None:
    sock.abort()


async def end_by_bind(sock: TcpSocket) -> None:
    await sock.bind("127.0.0.1")


async def end_by_another(sock: TcpSocket) -> None:
    sock.set_socket_descriptor(socket.socket().detach(), UNCONNECTED)


async def end_by_a_bound_one(sock: TcpSocket) -> None:
    sock.set_socket_descriptor(unconnected().detach(), BOUND)


async def end_by_a_connected_one(sock: TcpSocket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock.set_socket_descriptor(socket.create_connection(listener.getsockname()).detach())


# fmt: off
ENDS: list[tuple[Callable[[TcpSocket], Awaitable[None]], list[Event]]] = [
    (end_by_abort,                                  []),
    (lambda sock: sock.disconnect_from_host(),      []),
    (lambda sock: sock.aclose(),                    []),
    (end_by_bind,                                   [StateChanged(BOUND)]),
    (end_by_another,                                []),
    (end_by_a_bound_one,                            [StateChanged(BOUND)]),
    (end_by_a_connected_one,                        [StateChanged(CONNECTED)]),
]
# fmt: on


@pytest.mark.parametrize(("end", "expected"), ENDS)
async def test_an_unconnected_socket_is_closed_with_its_owner_or_for_another(
    network: Loopback, end: Callable[[TcpSocket], Awaitable[None]], expected: list[Event]
) -> None:
    """Whatever takes its place; and an end tells nothing, because nothing had begun."""
    first = socket.socket()
    device = os.fstat(first.fileno()).st_ino
    async with TcpSocket() as sock:
        sock.set_socket_descriptor(first.detach(), UNCONNECTED)
        async with told(sock) as events:
            await end(sock)

        assert events == expected
        assert device not in {os.fstat(descriptor).st_ino for descriptor in open_descriptors()}


async def test_aborting_takes_the_validity_of_an_unconnected_socket(network: Loopback) -> None:
    """As it does for whatever else is aborted; what was connected before does not count any more."""
    async with TcpSocket() as sock:
        sock.set_socket_descriptor(socket.socket().detach(), UNCONNECTED)
        before = sock.is_valid()
        sock.abort()

        assert (before, sock.is_valid()) == (True, False)


async def test_leaving_the_block_closes_an_unconnected_socket(network: Loopback) -> None:
    """No descriptor stays."""
    before = open_descriptors()
    async with TcpSocket() as sock:
        sock.set_socket_descriptor(socket.socket(socket.AF_INET6).detach(), UNCONNECTED)

    assert (sock.is_valid(), sock.socket_descriptor()) == (False, -1)
    assert open_descriptors() == before


# ---- Refusing one ------------------------------------------------------------------------------


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def unix() -> socket.socket:
    sock, other = socket.socketpair()
    other.close()
    return sock


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def unconnected() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def unbound() -> socket.socket:
    return socket.socket()


# fmt: off
SOCKETS: list[tuple[Callable[[], socket.socket], SocketState, str]] = [
    (udp,         CONNECTED, "it is no TCP socket"),
    (udp,         BOUND,     "it is no TCP socket"),
    (unix,        CONNECTED, "it is no TCP socket"),
    (listening,   CONNECTED, "it listens"),
    (listening,   BOUND,     "it listens"),
    (unconnected, CONNECTED, "Transport endpoint is not connected"),
    (unbound,     BOUND,     "it is not bound"),
    (unconnected, UNCONNECTED, "it is bound"),
    (udp,         UNCONNECTED, "it is no TCP socket"),
]
# fmt: on


@pytest.mark.parametrize(("make", "state", "reason"), SOCKETS)
async def test_a_socket_that_is_not_what_was_said_is_refused(
    make: Callable[[], socket.socket], state: SocketState, reason: str
) -> None:
    """B-002: UNSUPPORTED with the reason, nothing told but ``error()``; the descriptor is the caller's, and open."""
    with make() as theirs:
        before = theirs.getsockname()
        async with TcpSocket() as sock:
            async with told(sock) as events:
                with pytest.raises(SocketError) as caught:
                    sock.set_socket_descriptor(theirs.fileno(), state)
            left = sock.state(), sock.error(), sock.error_string(), sock.socket_descriptor()

        assert caught.value.kind is UNSUPPORTED
        assert caught.value.message == f"cannot adopt descriptor {theirs.fileno()}: {reason}"
        assert events == []
        assert left == (UNCONNECTED, UNSUPPORTED, caught.value.message, -1)
        assert theirs.getsockname() == before


async def test_a_connection_is_not_bound(network: Loopback) -> None:
    """Adopted as BOUND it would fail only when it is connected; so it is refused at once."""
    async with raw_pair(network) as (theirs, peer):
        async with TcpSocket() as sock:
            with pytest.raises(SocketError, match="it is connected") as caught:
                sock.set_socket_descriptor(theirs.fileno(), BOUND)
        theirs.send(b"still mine")

        assert caught.value.kind is UNSUPPORTED
        assert await peer.receive(10) == b"still mine"


async def test_a_pipe_is_refused_and_stays_open() -> None:
    """B-003 differs: Qt takes anything that has a number."""
    reader, writer = os.pipe()
    try:
        async with TcpSocket() as sock:
            with pytest.raises(SocketError) as caught:
                sock.set_socket_descriptor(reader)

        assert caught.value.kind is UNSUPPORTED
        assert (is_open(reader), is_open(writer)) == (True, True)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("descriptor", [-1, -5, 2**40, "closed"])
async def test_a_number_that_is_no_descriptor_is_refused(descriptor: int | str) -> None:
    """B-002: negative, closed, or beyond what the system counts to; nothing is told."""
    if isinstance(descriptor, str):
        with socket.socket() as gone:
            descriptor = gone.fileno()

    async with TcpSocket() as sock:
        async with told(sock) as events:
            with pytest.raises(SocketError, match=f"cannot adopt descriptor {descriptor}: ") as caught:
                sock.set_socket_descriptor(descriptor)

        assert caught.value.kind is UNSUPPORTED
        assert events == []
        assert (sock.state(), sock.socket_descriptor()) == (UNCONNECTED, -1)
        assert (sock.error(), sock.is_valid()) == (UNSUPPORTED, False)


@pytest.mark.parametrize(
    ("descriptor", "state", "kind"),
    [
        ("3", CONNECTED, TypeError),
        (None, CONNECTED, TypeError),
        (3.0, CONNECTED, TypeError),
        (3, LISTENING, ValueError),
        (3, HOST_LOOKUP, ValueError),
    ],
)
async def test_wrong_arguments_touch_nothing(descriptor: Any, state: Any, kind: type[Exception]) -> None:
    """TypeError or ValueError before the descriptor is looked at."""
    async with TcpSocket() as sock:
        with pytest.raises(kind):
            sock.set_socket_descriptor(descriptor, state)

        assert sock.state() is UNCONNECTED


async def test_a_socket_does_not_adopt_its_own_descriptor(network: Network) -> None:
    """It would close what it takes over; the connection goes on."""
    async with trio.open_nursery() as nursery:
        sock, peer = await network.connected(nursery)
        with peer:
            with pytest.raises(SocketError, match="is this socket's own") as caught:
                sock.set_socket_descriptor(sock.socket_descriptor())
            await sock.send_all(b"still here")

            assert caught.value.kind is UNSUPPORTED
            assert await peer.receive(10) == b"still here"
            await sock.aclose()


@pytest.mark.parametrize(
    ("stage", "state"),
    [
        ("host lookup", CONNECTED),
        ("connecting", CONNECTED),
        ("connecting", UNCONNECTED),
        ("bound", BOUND),
        ("bound", UNCONNECTED),
        ("connected", BOUND),
        ("connected", UNCONNECTED),
        ("closing", BOUND),
    ],
)
async def test_adopting_at_the_wrong_moment_is_refused(network: Loopback, stage: str, state: SocketState) -> None:
    """OPERATION, which says when; what goes on is not disturbed, and the descriptor stays the caller's."""
    gate = trio.Event()
    names({"peer.example": ["1.1.1.1"]}, gate=gate)

    async with raw_pair(network) as (theirs, _), network_of(stage, network) as port:
        async with TcpSocket() as sock, trio.open_nursery() as nursery:
            if stage in ("host lookup", "connecting"):
                nursery.start_soon(sock.connect_to_host, "peer.example" if stage == "host lookup" else "1.1.1.1", 80)
            elif stage == "bound":
                await sock.bind(network.host)
            else:
                await sock.connect_to_host(network.host, port)
                if stage == "closing":
                    sock.write(bytes(8_000_000))
                    nursery.start_soon(sock.disconnect_from_host)
            await trio.testing.wait_all_tasks_blocked()
            before = sock.state()
            with pytest.raises(SocketError) as caught:
                sock.set_socket_descriptor(theirs.fileno(), state)
            after = sock.state()
            error = sock.error()
            nursery.cancel_scope.cancel()

        assert (caught.value.kind, caught.value.message) == (
            ErrorKind.OPERATION,
            f"cannot adopt a descriptor while {stage}",
        )
        assert error is None
        assert before is after is SocketState[stage.upper().replace(" ", "_")]
        assert is_open(theirs.fileno())


@asynccontextmanager
async def network_of(stage: str, network: Loopback) -> AsyncIterator[int]:
    """A network on which a connection stays in that stage."""
    if stage in ("host lookup", "connecting"):
        ScriptedNetwork({"1.1.1.1": Answer(gate=trio.Event())})
        yield 0
        return
    with await network.raw_listener() as listener:
        yield listener.port


async def test_without_a_scope_nothing_is_adopted(network: Loopback) -> None:
    """Nor after the end: the descriptor would have no owner."""
    async with raw_pair(network) as (theirs, _):
        sock = TcpSocket()
        with pytest.raises(SocketError, match="cannot adopt a descriptor outside of the socket's `async with` block"):
            sock.set_socket_descriptor(theirs.fileno())
        async with sock:
            pass
        with pytest.raises(trio.ClosedResourceError, match="cannot adopt a descriptor: the socket is closed"):
            sock.set_socket_descriptor(theirs.fileno())

        assert is_open(theirs.fileno())
