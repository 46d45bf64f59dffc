"""What a simulated socket answers about options that nobody has set: facts, TCP's state, multicast memberships."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Any

from trioqt.testing.network.fabric import Address
from trioqt.testing.network.host import ETHERNET, INTERFACES, LOOPBACK, Host, fail, is_multicast
from trioqt.testing.network.options import number
from trioqt.testing.network.socket_addresses import canonical
from trioqt.testing.network.sorts import DEFAULT_PROTOCOLS
from trioqt.testing.network.stream_ends import StreamListener
from trioqt.testing.network.tcp import TcpEnd
from trioqt.testing.network.tcp_listener import TcpListener
from trioqt.testing.network.udp import UdpEnd

__all__ = ["choose_interface", "join_or_leave", "remote_of", "what_is_so"]

# linux/tcp.h: struct tcp_info; net/tcp_states.h.
TCP_INFO_SIZE = 104
TCP_STATES = {
    "ESTABLISHED": 1,
    "SYN_SENT": 2,
    "SYN_RECV": 3,
    "FIN_WAIT1": 4,
    "FIN_WAIT2": 5,
    "TIME_WAIT": 6,
    "CLOSED": 7,
    "CLOSE_WAIT": 8,
    "LAST_ACK": 9,
    "LISTEN": 10,
    "CLOSING": 11,
}


def what_is_so(host: Host, family: int, type_: int, proto: int, end: Any, level: int, name: int) -> int | bytes | None:
    """What is not set but so, or None; of TCP_INFO only the first byte, the state, is told."""
    if level == socket.SOL_SOCKET:
        return _fact(family, type_, proto, end, name)
    if (level, name) in ((socket.IPPROTO_IP, number("IP_MTU")), (socket.IPPROTO_IPV6, number("IPV6_MTU"))):
        if family == socket.AF_UNIX:
            fail(errno.EOPNOTSUPP)
        return _path_mtu(host, end, level)
    is_tcp = family != socket.AF_UNIX and type_ == socket.SOCK_STREAM and proto in (0, socket.IPPROTO_TCP)
    if level == socket.IPPROTO_TCP and is_tcp:
        if name == number("TCP_MAXSEG") and isinstance(end, TcpEnd) and end.is_connected():
            return _path_mtu(host, end, level) - 40
        if name == number("TCP_INFO"):
            return bytes([_tcp_state(end)]).ljust(TCP_INFO_SIZE, b"\0")
    return None


def _fact(family: int, type_: int, proto: int, end: Any, name: int) -> int | bytes | None:
    if name == socket.SO_ERROR:
        error: int = end.take_error() if hasattr(end, "take_error") else 0
        return error
    if name == number("SO_MEMINFO"):  # linux/sock_diag.h: nine numbers, the last of them counts what was dropped
        unread, _ = end.queued() if hasattr(end, "queued") else (0, 0)
        return struct.pack("=I28xI", unread, end.dropped if isinstance(end, UdpEnd) else 0)
    if name == socket.SO_ACCEPTCONN:
        return int(isinstance(end, StreamListener))
    facts = {"SO_TYPE": type_, "SO_DOMAIN": family, "SO_PROTOCOL": proto or DEFAULT_PROTOCOLS.get((family, type_), 0)}
    return next((int(fact) for key, fact in facts.items() if getattr(socket, key, None) == name), None)


def _tcp_state(end: Any) -> int:
    if isinstance(end, TcpListener):
        return TCP_STATES["CLOSED" if end.is_shut else "LISTEN"]
    if isinstance(end, TcpEnd):
        return TCP_STATES[end.state if end.is_connected() or end.state == "SYN_SENT" else "CLOSED"]
    return TCP_STATES["CLOSED"]


def remote_of(end: Any) -> Address | None:
    """With whom a TCP or UDP socket talks."""
    return end.remote if isinstance(end, TcpEnd | UdpEnd) else None


def _path_mtu(host: Host, end: Any, level: int) -> int:
    remote = remote_of(end)
    if remote is None:
        fail(errno.ENOTCONN)
    path = host.path_to(remote[0])
    mtu = host.world.mtu() if path is None else path.conditions.mtu
    # No IPv4 packet is longer than its length can say; Linux: IP_MAX_MTU in net/ip.h.
    return min(int(mtu), 65535) if level == socket.IPPROTO_IP else int(mtu)


# How each membership request is laid out: | group | interface's address | its number |, | group | number |, and
# struct group_source_req (RFC 3678, 5.1.2).
_SOURCES = {number("MCAST_JOIN_SOURCE_GROUP"): True, number("MCAST_LEAVE_SOURCE_GROUP"): False}


def join_or_leave(host: Host, end: Any, level: int, name: int, value: int | bytes) -> bool:
    """Joining and leaving multicast groups, and choosing where to send to them.  False: it is another option."""
    family = {socket.IPPROTO_IP: socket.AF_INET, socket.IPPROTO_IPV6: socket.AF_INET6}.get(level)
    if family is None:
        return False
    joins = {socket.IPPROTO_IP: socket.IP_ADD_MEMBERSHIP, socket.IPPROTO_IPV6: socket.IPV6_JOIN_GROUP}[level]
    leaves = {socket.IPPROTO_IP: socket.IP_DROP_MEMBERSHIP, socket.IPPROTO_IPV6: socket.IPV6_LEAVE_GROUP}[level]
    if name not in (joins, leaves, *_SOURCES):
        return False
    if not isinstance(end, UdpEnd):
        fail(errno.EPROTO if family == socket.AF_INET else errno.ENOPROTOOPT)
    if isinstance(value, int):
        fail(errno.EINVAL)
    if name in _SOURCES:
        group, source, interface = _source_request(value)
        _check_group(group, family)
        (end.join_source if _SOURCES[name] else end.leave_source)(group, interface or ETHERNET, source)
        return True
    size = 4 if family == socket.AF_INET else 16
    if len(value) < size + 4:
        fail(errno.EINVAL)
    group = canonical(socket.inet_ntop(family, value[:size]))
    interface = _interface_of(host, value[4:]) if family == socket.AF_INET else _checked(value[16:20], errno.ENODEV)
    _check_group(group, family)
    (end.join if name == joins else end.leave)(group, interface or ETHERNET)
    return True


def choose_interface(host: Host, end: Any, level: int, name: int, value: int | bytes) -> int | bytes:
    """IP_MULTICAST_IF, IPV6_MULTICAST_IF: what is kept of the value, as ``getsockopt`` tells it."""
    if not isinstance(end, UdpEnd):
        return value
    if (level, name) == (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF):
        packed = struct.pack("i", value) if isinstance(value, int) else value
        end.multicast_interface = _checked(packed, errno.ENODEV)
    elif (level, name) == (socket.IPPROTO_IP, socket.IP_MULTICAST_IF):
        packed = struct.pack("i", value) if isinstance(value, int) else value
        own = packed if len(packed) < 8 else packed[4:]  # struct ip_mreq and ip_mreqn begin with a group
        end.multicast_interface = _interface_of(host, own, errno.EADDRNOTAVAIL)
        return own[:4]
    return value


def _interface_of(host: Host, value: bytes, unknown: int = errno.ENODEV) -> int:
    """| address | number |: the number counts if there is one."""
    if any(value[4:8]):
        return _checked(value[4:8], unknown)
    address = socket.inet_ntop(socket.AF_INET, value[:4])
    if address == "0.0.0.0":
        return 0
    if not host.owns(address):
        fail(unknown)
    return LOOPBACK if address.startswith("127.") else ETHERNET


def _checked(value: bytes, unknown: int) -> int:
    index: int = struct.unpack("i", value[:4])[0]
    if index and index not in INTERFACES.values():
        fail(unknown)
    return index


def _source_request(value: bytes) -> tuple[str, str, int]:
    if len(value) < 264:
        fail(errno.EINVAL)
    addresses = []
    for storage in (value[8:136], value[136:264]):
        family = int.from_bytes(storage[:2], sys.byteorder)
        packed = storage[4:8] if family == socket.AF_INET else storage[8:24]
        addresses.append(canonical(socket.inet_ntop(family, packed)))
    return addresses[0], addresses[1], _checked(value[:4], errno.ENODEV)


def _check_group(group: str, family: int) -> None:
    if not is_multicast(group) or (":" in group) != (family == socket.AF_INET6):
        fail(errno.EINVAL)
