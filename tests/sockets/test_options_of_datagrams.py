"""Options and bind modes as every socket has them, on one for datagrams."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from tests.networks import Network
from trioqt import BindMode, ErrorKind, SocketError, SocketOption, SocketState, UdpSocket

UNSUPPORTED = ErrorKind.UNSUPPORTED_SOCKET_OPERATION

OF_CONNECTIONS = (
    SocketOption.LOW_DELAY,
    SocketOption.KEEP_ALIVE_IDLE,
    SocketOption.KEEP_ALIVE_INTERVAL,
    SocketOption.KEEP_ALIVE_COUNT,
)

# fmt: off
SETTINGS: list[tuple[SocketOption, int, int]] = [
    (SocketOption.KEEP_ALIVE,          1,     1),
    (SocketOption.MULTICAST_TTL,       7,     7),
    (SocketOption.MULTICAST_TTL,       -1,    1),
    (SocketOption.MULTICAST_LOOPBACK,  0,     0),
    (SocketOption.TYPE_OF_SERVICE,     32,    32),
    (SocketOption.SEND_BUFFER_SIZE,    20000, 40000),
    (SocketOption.RECEIVE_BUFFER_SIZE, 20000, 40000),
]
# fmt: on


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "*"])
@pytest.mark.parametrize(("option", "value", "reported"), SETTINGS)
async def test_an_option_is_on_the_bound_socket_whenever_it_was_set(
    network: Network, host: str, option: SocketOption, value: int, reported: int
) -> None:
    """Before, remembered; after, at once; on one family and on both."""
    async with UdpSocket() as early, UdpSocket() as late:
        early.set_socket_option(option, value)
        await early.bind(host)
        await late.bind(host)
        late.set_socket_option(option, value)

        assert [early.socket_option(option), late.socket_option(option)] == [reported, reported]


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("option", OF_CONNECTIONS)
async def test_what_only_connections_have_is_unsupported(network: Network, option: SocketOption, bound: bool) -> None:
    """To set and to read, before and after; Qt says nothing of it, and the system may know another option by it."""
    async with UdpSocket() as sock:
        if bound:
            await sock.bind(network.host)
        with pytest.raises(SocketError) as written:
            sock.set_socket_option(option, 1)
        with pytest.raises(SocketError) as read:
            sock.socket_option(option)

    assert [written.value.kind, read.value.kind] == [UNSUPPORTED, UNSUPPORTED]


async def test_ipv4_keeps_the_byte_that_a_type_of_service_is(network: Network) -> None:
    """Linux drops the rest without a word, and Qt says what is so; IPv6 refuses it."""
    async with UdpSocket() as four, UdpSocket() as six:
        await four.bind("127.0.0.1")
        four.set_socket_option(SocketOption.TYPE_OF_SERVICE, 300)
        await six.bind("::1")
        with pytest.raises(SocketError) as caught:
            six.set_socket_option(SocketOption.TYPE_OF_SERVICE, 300)

        assert four.socket_option(SocketOption.TYPE_OF_SERVICE) == 300 & 0xFF
        assert caught.value.kind is UNSUPPORTED


async def test_the_path_mtu_wants_a_peer_and_is_nobodys_to_set(network: Network) -> None:
    """OPERATION to read it while bound; UNSUPPORTED to set it at any time."""
    kinds: list[ErrorKind] = []
    async with UdpSocket() as sock:
        for bound in (False, True):
            if bound:
                await sock.bind(network.host)
            with pytest.raises(SocketError) as read:
                sock.socket_option(SocketOption.PATH_MTU)
            with pytest.raises(SocketError) as written:
                sock.set_socket_option(SocketOption.PATH_MTU, 1500)
            kinds += [read.value.kind, written.value.kind]

    assert kinds == [ErrorKind.OPERATION, UNSUPPORTED] * 2


async def test_a_ttl_that_the_system_refuses_fails_the_bind_and_is_named(network: Network) -> None:
    """It could not be known before; the socket is as it was, and binds without it."""
    async with UdpSocket() as sock:
        sock.set_socket_option(SocketOption.MULTICAST_TTL, 1024)
        with pytest.raises(SocketError, match="cannot set MULTICAST_TTL to 1024: Invalid argument") as caught:
            await sock.bind(network.host)
        state = sock.state()
        sock.set_socket_option(SocketOption.MULTICAST_TTL, 4)
        await sock.bind(network.host)

        assert (caught.value.kind, caught.value.errno, state) == (UNSUPPORTED, errno.EINVAL, SocketState.UNCONNECTED)
        assert sock.socket_option(SocketOption.MULTICAST_TTL) == 4


async def test_options_of_the_system_are_set_before_the_address_is_taken(network: Network) -> None:
    """SO_REUSEADDR for one: behind bind() it would let nobody in."""
    options: list[tuple[int, int, int | bytes]] = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)]
    async with UdpSocket() as first, UdpSocket() as second:
        await first.bind(network.host, options=options)
        await second.bind(network.host, first.local_port(), options=options)

        assert first.local_port() == second.local_port()


SHARING = (BindMode.SHARE_ADDRESS, BindMode.REUSE_ADDRESS_HINT, BindMode.SHARE_ADDRESS | BindMode.REUSE_ADDRESS_HINT)
MODES = (BindMode.DEFAULT_FOR_PLATFORM, BindMode.DONT_SHARE_ADDRESS, BindMode.REUSE_PORT, *SHARING)


@pytest.mark.parametrize("first", MODES)
@pytest.mark.parametrize("second", MODES)
async def test_who_may_have_the_same_address(network: Network, first: BindMode, second: BindMode) -> None:
    """As in Qt on Unix (U-008): both must share; and both must reuse the port, which is another thing."""
    shared = (first in SHARING and second in SHARING) or first is second is BindMode.REUSE_PORT
    async with UdpSocket() as sock, UdpSocket() as other:
        await sock.bind(network.host, mode=first)
        outcome: Any = "bound"
        try:
            await other.bind(network.host, sock.local_port(), second)
        except SocketError as error:
            outcome = error.kind

        assert outcome == ("bound" if shared else ErrorKind.ADDRESS_IN_USE)


@pytest.mark.parametrize("bound", [False, True])
async def test_options_of_the_system_are_on_a_socket_with_a_peer(network: Network, bound: bool) -> None:
    """Given to connect_to_host they are set before the peer is fixed, on a socket that was bound too."""
    async with UdpSocket() as sock:
        if bound:
            await sock.bind(network.host)
        await sock.connect_to_host(network.host, 9, options=[(socket.SOL_SOCKET, socket.SO_PRIORITY, 3)])
        with network.socket(sock.socket_descriptor()) as below:
            there = below.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY)

        assert there == 3
        assert sock.socket_option(SocketOption.PATH_MTU) == 65535


@pytest.mark.parametrize("bound", [False, True])
async def test_an_option_that_the_system_refuses_fails_the_connect_and_is_named(network: Network, bound: bool) -> None:
    """The kind and the number are the system's; the socket is UNCONNECTED, and can be used again."""
    option = (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"nosuch0")
    async with UdpSocket() as sock:
        if bound:
            await sock.bind(network.host)
        with pytest.raises(SocketError, match="cannot set SO_BINDTODEVICE to b'nosuch0': No such device") as caught:
            await sock.connect_to_host(network.host, 9, options=[option])
        state = sock.state()
        with pytest.raises(TypeError, match="options are a list of"):
            await sock.connect_to_host(network.host, 9, options=7)  # type: ignore[arg-type]
        await sock.connect_to_host(network.host, 9)

    assert (caught.value.kind, caught.value.errno) == (ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE, errno.ENODEV)
    assert state is SocketState.UNCONNECTED
