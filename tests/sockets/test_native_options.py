"""One option on one socket of the system, whatever kind that is of: set, read, refused."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from tests.networks import Network
from trioqt import ErrorKind, SocketError, SocketOption, SocketType
from trioqt.links.native import native_socket
from trioqt.sockets.native_options import read_option, set_option

UDP = SocketType.UDP
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

# fmt: off
# What is set on a datagram socket, and what the system makes of it: Linux doubles buffers, and knows no ECN here.
SETTINGS: list[tuple[SocketOption, int, int]] = [
    (SocketOption.KEEP_ALIVE,          1,     1),
    (SocketOption.MULTICAST_TTL,       0,     0),
    (SocketOption.MULTICAST_TTL,       255,   255),
    (SocketOption.MULTICAST_TTL,       -1,    1),
    (SocketOption.MULTICAST_LOOPBACK,  0,     0),
    (SocketOption.MULTICAST_LOOPBACK,  2,     1),
    (SocketOption.TYPE_OF_SERVICE,     32,    32),
    (SocketOption.SEND_BUFFER_SIZE,    20000, 40000),
    (SocketOption.RECEIVE_BUFFER_SIZE, 20000, 40000),
]
# fmt: on


@pytest.mark.parametrize("family", HOSTS)
@pytest.mark.parametrize(("option", "value", "reported"), SETTINGS)
async def test_an_option_of_a_datagram_socket(
    network: Network, family: socket.AddressFamily, option: SocketOption, value: int, reported: int
) -> None:
    """Read back as the system has it, on both families."""
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        set_option(sock, option, value, None, UDP)

        assert read_option(sock, option, None, UDP) == reported


@pytest.mark.parametrize("family", HOSTS)
async def test_a_ttl_beyond_a_byte_is_the_systems_to_refuse(network: Network, family: socket.AddressFamily) -> None:
    """As in Qt (U-043) the old one stays; here it is said."""
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        set_option(sock, SocketOption.MULTICAST_TTL, 255, None, UDP)
        with pytest.raises(SocketError, match="cannot set MULTICAST_TTL to 1024: Invalid argument") as caught:
            set_option(sock, SocketOption.MULTICAST_TTL, 1024, None, UDP)

        assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
        assert read_option(sock, SocketOption.MULTICAST_TTL, None, UDP) == 255


@pytest.mark.parametrize("family", HOSTS)
@pytest.mark.parametrize(
    "option",
    [
        SocketOption.LOW_DELAY,
        SocketOption.KEEP_ALIVE_IDLE,
        SocketOption.KEEP_ALIVE_INTERVAL,
        SocketOption.KEEP_ALIVE_COUNT,
    ],
)
async def test_a_datagram_socket_has_no_connection_to_tune(
    network: Network, family: socket.AddressFamily, option: SocketOption
) -> None:
    """UNSUPPORTED, and not whatever is under TCP's number on this system."""
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        with pytest.raises(SocketError, match=f"{option.name} cannot be set or read") as written:
            set_option(sock, option, 1, None, UDP)
        with pytest.raises(SocketError, match=f"{option.name} cannot be set or read") as read:
            read_option(sock, option, None, UDP)

    assert [caught.value.kind for caught in (written, read)] == [ErrorKind.UNSUPPORTED_SOCKET_OPERATION] * 2


@pytest.mark.parametrize("kind", [SocketType.TCP, SocketType.UDP])
@pytest.mark.parametrize("family", HOSTS)
async def test_the_path_mtu_wants_a_peer(network: Network, family: socket.AddressFamily, kind: SocketType) -> None:
    """OPERATION without one: it is asked too early, and nothing is wrong with the network."""
    type_ = socket.SOCK_DGRAM if kind is UDP else socket.SOCK_STREAM
    with trio.socket.socket(family, type_) as sock:
        with pytest.raises(SocketError, match="cannot read PATH_MTU") as caught:
            read_option(sock, SocketOption.PATH_MTU, None, kind)

    assert (caught.value.kind, caught.value.errno) == (ErrorKind.OPERATION, errno.ENOTCONN)


@pytest.mark.parametrize("family", HOSTS)
async def test_a_connected_datagram_socket_knows_its_path_mtu(network: Network, family: socket.AddressFamily) -> None:
    """That of the loopback interface, which both networks have."""
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        await sock.connect((HOSTS[family], 9))
        peer = sock.getpeername()

        assert read_option(sock, SocketOption.PATH_MTU, peer, UDP) == (65536 if family == socket.AF_INET6 else 65535)


@pytest.mark.parametrize(
    ("option", "names"),
    [
        (SocketOption.TYPE_OF_SERVICE, ("IPV6_TCLASS", "IP_TOS")),
        (SocketOption.MULTICAST_TTL, ("IPV6_MULTICAST_HOPS", "IP_MULTICAST_TTL")),
    ],
)
async def test_a_socket_of_both_families_has_an_option_of_both(
    network: Network, option: SocketOption, names: tuple[str, str]
) -> None:
    """Its datagrams may go either way; on Linux each family has a setting of its own on the one socket."""
    with trio.socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        set_option(sock, option, 32, None, UDP)

        there = [sock.getsockopt(socket.IPPROTO_IPV6, getattr(socket, names[0]))]
        there += [sock.getsockopt(socket.IPPROTO_IP, getattr(socket, names[1]))]

    assert there == [32, 32]


async def test_a_socket_of_a_local_family_has_none_of_these(network: Network) -> None:
    """AF_UNIX knows neither TCP nor IP; UNSUPPORTED."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        native = native_socket(sock)
        with pytest.raises(SocketError) as caught:
            read_option(native, SocketOption.LOW_DELAY, None)
        native.close()

    assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
