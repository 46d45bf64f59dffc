"""Datagrams over a kernel socket, or over a simulated one that offers the same calls.

What a datagram has beside its data, whom it came to, by which interface and how far it had to go, is here translated
from the system's ancillary data (RFC 3542, ip(7)) and back.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Awaitable
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, from_sockaddr, to_sockaddr
from trioqt.core.datagram import NetworkDatagram, with_header
from trioqt.links.base import Ancillary, Bytes, DatagramLink, DatagramSocket, Sockaddr, Where
from trioqt.links.interrupts import protected
from trioqt.links.many_datagrams import many_of_this_run, opened
from trioqt.links.native import KernelSocket, native_socket, set_where_possible

__all__ = ["NativeDatagramLink", "native_datagram_socket"]

Key = TypeVar("Key")
Value = TypeVar("Value")

Route = tuple[Sockaddr | None, tuple[Ancillary, ...]]
"""How the system is told where a datagram goes, None if to the peer; and what it is told beside."""

# So many senders, and so many destinations, are remembered.
MOST_KNOWN: Final = 1024

# No datagram is longer: a length has 16 bits (RFC 768), and nobody uses the jumbograms of RFC 2675.
MAX_DATAGRAM: Final = 65535

# Room for what is asked for below: 40 + 24 bytes for IPv6 on Linux, and an IPv4 time to live of 24 beside it.
MAX_ANCILLARY: Final = 256

# So many at once are a crowd, and so is what comes next: a call for many costs as much as one and a half for one.
CROWD: Final = 4

# What Linux has and Python's socket module does not name before 3.14, or at all (linux/in.h, linux/in6.h,
# asm-generic/socket.h).  Elsewhere an unnamed option is one that there is not.
_LINUX: Final = {
    "IP_PKTINFO": 8,
    "IP_RECVTTL": 12,
    "IP_MULTICAST_ALL": 49,
    "IPV6_MULTICAST_ALL": 29,
    "MCAST_JOIN_SOURCE_GROUP": 46,
    "MCAST_LEAVE_SOURCE_GROUP": 47,
    "SO_MEMINFO": 55,
}


def _number(name: str) -> int | None:
    number: int | None = getattr(socket, name, None)
    return _LINUX.get(name) if number is None and sys.platform == "linux" else number


IP, IP6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
IP_PKTINFO: Final = _number("IP_PKTINFO")
IP_TTLS: Final = (socket.IP_TTL, _number("IP_RECVTTL"))  # BSD answers under the name of the option
IPV6_PKTINFO: Final = _number("IPV6_PKTINFO")
IPV6_HOPLIMIT: Final = _number("IPV6_HOPLIMIT")
SO_MEMINFO: Final = _number("SO_MEMINFO")

# Broadcasts need no permission of their own, as in Qt.  What comes beside a datagram has to be asked for, of an IPv6
# socket that carries IPv4 too for both.  And a socket receives the groups that it has joined itself: unless told, Linux
# gives it those of every other socket of the machine as well (ip(7), IP_MULTICAST_ALL).
_WANTED: Final = (
    (socket.SOL_SOCKET, "SO_BROADCAST", 1, "4"),
    (IP, "IP_PKTINFO", 1, "4"),
    (IP, "IP_RECVTTL", 1, "46"),
    (IP, "IP_MULTICAST_ALL", 0, "46"),
    (IP6, "IPV6_RECVPKTINFO", 1, "6"),
    (IP6, "IPV6_RECVHOPLIMIT", 1, "6"),
    (IP6, "IPV6_MULTICAST_ALL", 0, "6"),
    (socket.SOL_SOCKET, "SO_BROADCAST", 1, "6"),
)


def _wanted_by(version: str) -> tuple[tuple[int, int, int], ...]:
    wanted = ((level, _number(name), value) for level, name, value, versions in _WANTED if version in versions)
    return tuple((level, number, value) for level, number, value in wanted if number is not None)


_OPTIONS: Final = {int(socket.AF_INET): _wanted_by("4"), int(socket.AF_INET6): _wanted_by("6")}

PKTINFO: Final = struct.Struct("=I4s4s")  # | interface | local address | address in the header |
PKTINFO6: Final = struct.Struct("=16sI")  # | address | interface |
MREQN: Final = struct.Struct("=4s4sI")  # struct ip_mreqn: | group | local address | interface |
MEMINFO_DROPS: Final = struct.Struct("=32xI")  # linux/sock_diag.h: SK_MEMINFO_DROPS is the ninth
INT: Final = struct.Struct("=i")
MAPPED: Final = "::ffff:"

# What Linux says of a sender's address that is not this host's; the last since 6.x, on a socket of both families.
NOT_OURS: Final = (errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH)

# Any address: a datagram that has it for its sender's goes out from whatever the system chooses.
NO_SOURCE: Final = ("", HostAddress.ANY.text, HostAddress.ANY_IPV4.text, HostAddress.ANY_IPV6.text)


@protected
class NativeDatagramLink(DatagramLink):
    """A native datagram socket, which this sets up."""

    __slots__ = (
        *("_closed", "_crowded", "_drained", "_family", "_heads", "_only_ipv6"),
        *("_own", "_peer", "_port", "_routes", "_sock"),
    )

    def __init__(self, sock: DatagramSocket, peer: Sockaddr | None = None) -> None:
        self._sock = sock
        self._family = int(sock.family)
        self._peer = peer
        self._own, self._port = "", 0
        self._closed = False
        self._drained = True
        self._crowded = False  # the last batch was a crowd
        # As long as nothing changes here; the peers of a socket are few, or they come again.
        self._heads: dict[bytes, tuple[Sockaddr, dict[str, Any]]] = {}
        self._routes: dict[Where, Route] = {}
        set_where_possible(sock, _OPTIONS[self._family])
        self._only_ipv6 = self._family == socket.AF_INET6 and bool(sock.getsockopt(IP6, socket.IPV6_V6ONLY))

    def is_drained(self) -> bool:
        return self._drained

    def try_receive(self, arrived: deque[NetworkDatagram], most: int) -> OSError | None:
        was_drained, self._drained = self._drained, False
        many = many_of_this_run() if self._crowded else None
        left, peer = most, self._peer
        try:
            port = self._port or self._look_at_own_address()
            if many is None:
                receive, append = self._sock.try_receive_message, arrived.append
                while left > 0:
                    data, ancillary, _, source = receive(MAX_DATAGRAM, MAX_ANCILLARY)
                    left -= 1
                    if peer is None or source[:2] == peer[:2]:  # others may have sent before there was one
                        append(with_header(data, _header(source, tuple(ancillary), port)))
            else:
                descriptor = self._sock.fileno()
                while left > 0:
                    came = many.receive(descriptor, left)
                    left -= len(came)
                    for data, head in came:
                        known = self._heads.get(head)
                        if known is None:
                            source, beside = opened(head)
                            known = source, _header(source, beside, port)
                            _remember(self._heads, head, known)
                        source, header = known
                        if peer is None or source[:2] == peer[:2]:
                            arrived.append(with_header(data, header))
        except BlockingIOError:
            self._drained = True
            if left == most and not was_drained and isinstance(self._sock, KernelSocket):
                self._sock.drop_reports()  # a wait has ended, and for no datagram
        except OSError as exc:
            return exc
        finally:
            if left < most:
                self._crowded = most - left >= CROWD and isinstance(self._sock, KernelSocket)
        return None

    def wait_receivable(self) -> Awaitable[None]:
        self._check_open()
        self._drained = False
        return self._sock.wait_readable()

    def try_send(self, data: Bytes, where: Where) -> None:
        known = self._routes.get(where)
        if known is None:
            known = self._find_route(where)
        target, ancillary = known
        if ancillary:
            self._send_with(data, where, target, ancillary)
        elif target is None:
            self._sock.try_send(data)
        else:
            self._sock.try_send_to(data, target)

    def _find_route(self, where: Where) -> Route:
        if not self._port:
            self._look_at_own_address()
        route = _route(self._family, self._own, where, self._peer)
        # The interface of a name may have another number tomorrow, so addresses with a name are not remembered.
        if "%" not in where[0]:
            _remember(self._routes, where, route)
        return route

    def _send_with(self, data: Bytes, where: Where, target: Sockaddr | None, ancillary: tuple[Ancillary, ...]) -> None:
        try:
            self._sock.try_send_message([data], ancillary, 0, target)
        except OSError as exc:
            address, port, source, interface, hop_limit = where
            if exc.errno not in NOT_OURS or not (source or self._own):
                raise
            # It may be no address of this host: that of a subnet's broadcast for one, which looks like any other.
            target, ancillary = _route(self._family, "", (address, port, "", interface, hop_limit), self._peer)
            self._sock.try_send_message([data], ancillary, 0, target)

    async def wait_sendable(self) -> None:
        self._check_open()
        await self._sock.wait_writable()
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the link is closed")

    def connect(self, address: Sockaddr) -> None:
        self._sock.try_connect(address)
        try:
            self._peer = self._sock.getpeername()
        except OSError as exc:
            if exc.errno != errno.ENOTCONN:
                raise
            self._peer = address  # Linux connects to port 0 too, but knows of no peer then
        self._port = 0
        self._heads.clear()
        self._routes.clear()

    def dropped(self) -> int | None:
        # SO_RXQ_OVFL tells the same number, but with the next datagram that comes after.
        if SO_MEMINFO is None:
            return None
        try:
            counters = self._sock.option_bytes(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO_DROPS.size)
        except OSError:
            return None
        if len(counters) < MEMINFO_DROPS.size:
            return None
        drops: int = MEMINFO_DROPS.unpack(counters)[0]
        return drops

    # -- groups -----------------------------------------------------------------------------

    def join(self, group: HostAddress, interface: int, source: HostAddress | None) -> None:
        self._membership(group, interface, source, "IP_ADD_MEMBERSHIP", "IPV6_JOIN_GROUP", "MCAST_JOIN_SOURCE_GROUP")

    def leave(self, group: HostAddress, interface: int, source: HostAddress | None) -> None:
        names = "IP_DROP_MEMBERSHIP", "IPV6_LEAVE_GROUP", "MCAST_LEAVE_SOURCE_GROUP"
        try:
            self._membership(group, interface, source, *names)
        except OSError as exc:
            if source is None or exc.errno != errno.EINVAL:
                raise
            # Linux has two words for "it was not joined"; who gives no source gets this one.
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)) from exc

    def _membership(self, group: HostAddress, interface: int, source: HostAddress | None, *names: str) -> None:
        is_ipv6 = group.protocol() is NetworkLayerProtocol.IPV6
        level = IP6 if is_ipv6 else IP
        if is_ipv6 and self._family == socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "an IPv4 socket joins no IPv6 group")
        if not is_ipv6 and self._family == socket.AF_INET6:
            # Linux would let one that carries both, and no other system does; so Qt does not either.
            raise OSError(errno.EAFNOSUPPORT, "an IPv4 group needs a socket that is bound for IPv4 alone")
        number = _number(names[2] if source is not None else names[is_ipv6])
        if number is None:
            raise OSError(errno.EOPNOTSUPP, "this system has no such groups")
        if source is not None:
            request = _source_request(group, interface, source)
        elif is_ipv6:
            request = PKTINFO6.pack(group.ip.packed, interface)  # struct ipv6_mreq is alike
        else:
            request = MREQN.pack(group.ip.packed, bytes(4), interface)
        self._sock.setsockopt(level, number, request)

    def set_multicast_interface(self, interface: int) -> None:
        if self._family == socket.AF_INET6:
            self._sock.setsockopt(IP6, socket.IPV6_MULTICAST_IF, interface)
        if not self._only_ipv6:
            self._sock.setsockopt(IP, socket.IP_MULTICAST_IF, MREQN.pack(bytes(4), bytes(4), interface))

    # -- what it is -------------------------------------------------------------------------

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._sock.close()

    def _look_at_own_address(self) -> int:
        """Kept from the first time on, because both are asked for with every datagram."""
        address, port, *_ = self._sock.getsockname()
        self._own = "" if address in ("0.0.0.0", "::") else str(address)
        self._port = int(port)
        return self._port

    def protocol(self) -> NetworkLayerProtocol:
        if self._family == socket.AF_INET:
            return NetworkLayerProtocol.IPV4
        return NetworkLayerProtocol.IPV6 if self._only_ipv6 else NetworkLayerProtocol.ANY_IP

    def local_address(self) -> Sockaddr:
        return cast("Sockaddr", self._sock.getsockname())

    def peer_address(self) -> Sockaddr | None:
        return self._peer

    def native(self) -> DatagramSocket:
        return self._sock


def native_datagram_socket(sock: trio.socket.SocketType) -> DatagramSocket:
    """As ``native_socket``."""
    return cast("DatagramSocket", native_socket(sock))


def _remember(known: dict[Key, Value], key: Key, value: Value) -> None:
    """What a flood invents is forgotten, with the rest."""
    if len(known) >= MOST_KNOWN:
        known.clear()
    known[key] = value


@lru_cache(MOST_KNOWN)
def _header(source: Sockaddr, ancillary: tuple[Ancillary, ...], port: int) -> dict[str, Any]:
    """What a datagram has beside its data; not to be changed."""
    destination, hop_limit, interface = HostAddress.NULL, -1, 0
    for level, kind, value in ancillary:
        if level == IP and kind == IP_PKTINFO:
            interface, _, address = PKTINFO.unpack(value)
            destination = HostAddress(socket.inet_ntop(socket.AF_INET, address))
        elif level == IP and kind in IP_TTLS:
            hop_limit = int.from_bytes(value, sys.byteorder)
        elif level == IP6 and kind == IPV6_PKTINFO:
            address, interface = PKTINFO6.unpack(value)
            text = socket.inet_ntop(socket.AF_INET6, address)
            is_link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80  # RFC 4291, 2.5.6: fe80::/10
            destination = from_sockaddr((text, 0, 0, interface if is_link_local else 0))
        elif level == IP6 and kind == IPV6_HOPLIMIT:
            hop_limit = int.from_bytes(value, sys.byteorder)
    return {
        "sender_address": from_sockaddr(source),
        "sender_port": int(source[1]),
        "destination_address": destination,
        "destination_port": port,
        "hop_limit": hop_limit,
        "interface_index": interface,
        "truncated": False,
    }


def _route(family: int, own: str, where: Where, peer: Sockaddr | None) -> Route:
    """How a socket of ``family``, bound to ``own``, is told where to send, and what goes beside it.

    Args:
      own: Empty if it is bound to every address.

    Raises: OSError if it cannot get there.
    """
    address, port, source, interface, hop_limit = where
    target = _target(address, port, family) if address else None
    there = str((target or peer or ("",))[0])
    if source == own and not (interface and _may_leave(own, there)):
        # The answer of a socket with one address: what it is from is so, and by which interface too, unless there are
        # several ways.  An ordinary send is 0.7 us faster.
        source, interface = "", 0
    is_ipv4 = "." in there
    if interface and is_ipv4 and not source:
        source = own  # IPv4's two are told together, and without the one Linux takes any that the other has
    return target, _ancillary(4 if is_ipv4 else 6, source, interface, hop_limit)


def _may_leave(own: str, there: str) -> bool:
    """Can what goes from here to there leave this machine?"""
    return not (HostAddress(own).is_loopback() and HostAddress(there).is_loopback())


def _target(address: str, port: int, family: int) -> Sockaddr:
    if family == socket.AF_INET6:
        if ":" not in address and address != HostAddress.ANY.text:
            return f"{MAPPED}{address}", port, 0, 0
        return to_sockaddr(HostAddress(address), port)
    plain = address.removeprefix(MAPPED)
    if address == HostAddress.ANY.text:
        plain = HostAddress.ANY_IPV4.text
    if ":" in plain:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    return plain, port


def _ancillary(version: int, source: str, interface: int, hop_limit: int) -> tuple[Ancillary, ...]:
    """What is told beside a datagram that goes out by that version of IP."""
    plain = source.partition("%")[0].removeprefix(MAPPED)
    if plain in NO_SOURCE or (4 if "." in plain else 6) != version:
        plain = ""
    wanted: list[Ancillary] = []
    if version == 4:
        if (plain or interface) and IP_PKTINFO is not None:
            own = socket.inet_pton(socket.AF_INET, plain or "0.0.0.0")
            wanted.append((IP, IP_PKTINFO, PKTINFO.pack(interface, own, bytes(4))))
        if hop_limit >= 0:
            wanted.append((IP, socket.IP_TTL, INT.pack(hop_limit)))
    else:
        if (plain or interface) and IPV6_PKTINFO is not None:
            own = socket.inet_pton(socket.AF_INET6, plain or "::")
            wanted.append((IP6, IPV6_PKTINFO, PKTINFO6.pack(own, interface)))
        if hop_limit >= 0 and IPV6_HOPLIMIT is not None:
            wanted.append((IP6, IPV6_HOPLIMIT, INT.pack(hop_limit)))
    return tuple(wanted)


def _source_request(group: HostAddress, interface: int, source: HostAddress) -> bytes:
    """struct group_source_req (RFC 3678, 5.1.2): | interface | group | source |, the two aligned as a long is."""
    head = struct.pack("@I0L", interface)
    return head + b"".join(_storage(address).ljust(128, b"\0") for address in (group, source))


def _storage(address: HostAddress) -> bytes:
    """struct sockaddr_storage, as Linux has it: | family | port | IPv4 address |, or behind flow info an IPv6 one."""
    if address.protocol() is NetworkLayerProtocol.IPV4:
        return struct.pack("=HH", socket.AF_INET, 0) + address.ip.packed
    return struct.pack("=HHI", socket.AF_INET6, 0, 0) + address.ip.packed
