"""The options of a simulated socket: which there are, and what Linux answers."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

import attrs

from trioqt.core.options import IPPROTO_SCTP
from trioqt.links.interrupts import protected
from trioqt.testing.network.host import INTERFACES, Binding, fail

__all__ = ["Options"]

INT: Final = struct.Struct("i")
LINGER: Final = struct.Struct("ii")

# What is in the kernel's headers and not in Python's module (linux/in.h, linux/in6.h, linux/tcp.h).
NUMBERS: Final = {
    "SO_PRIORITY": 12,
    "SO_MARK": 36,
    "SO_TIMESTAMP": 29,
    "IP_MTU": 14,
    "IP_MTU_DISCOVER": 10,
    "IP_FREEBIND": 15,
    "IP_BIND_ADDRESS_NO_PORT": 24,
    "IP_PKTINFO": 8,
    "IP_RECVTTL": 12,
    "IP_MULTICAST_ALL": 49,
    "IPV6_MULTICAST_ALL": 29,
    "MCAST_JOIN_SOURCE_GROUP": 46,
    "MCAST_LEAVE_SOURCE_GROUP": 47,
    "SO_RXQ_OVFL": 40,
    "SO_MEMINFO": 55,
    "IPV6_MTU": 24,
    "IPV6_MTU_DISCOVER": 23,
    "SCTP_NODELAY": 3,
}
LEVELS: Final = {"IPPROTO_SCTP": IPPROTO_SCTP}
_COMMON_LEVELS: Final = (socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6)

# What a kernel of ours keeps at once: what Linux gives a connection that it does not know yet.
SEND_BUFFER: Final = 65536
RECEIVE_BUFFER: Final = 65536

# Linux: SOCK_MIN_SNDBUF and SOCK_MIN_RCVBUF, and net.core.wmem_max, doubled as setsockopt() doubles.
MIN_SEND_BUFFER: Final = 4608
MIN_RECEIVE_BUFFER: Final = 2304
MAX_BUFFER: Final = 2 * 212_992

# Linux: net.core.rmem_default and wmem_default, of all that is not TCP.
DATAGRAM_BUFFER: Final = 212_992

UINT_MAX: Final = 2**32 - 1


@attrs.frozen
class Spec:
    """One option: | default | smallest | largest |, and what is kept of the value set."""

    default: int | bytes = 0
    low: int = -(2**31)
    high: int = 2**31 - 1
    keep: Callable[[int], int] = int
    where: str = "tcp udp unix"
    """On which sockets there is one."""
    read_only: int = 0
    """The error that setting it gives."""
    substitutes: dict[int, int] = attrs.Factory(dict)
    """Values that stand for another: -1 for the default."""


def _flag(**more: Any) -> Spec:
    return Spec(keep=lambda value: int(value != 0), **more)


def _byte(default: int, where: str, low: int = 0, **more: Any) -> Spec:
    return Spec(default, low, 255, where=where, **more)


_TABLE: Final[dict[tuple[str, str], Spec]] = {
    ("SOL_SOCKET", "SO_REUSEADDR"): _flag(),
    ("SOL_SOCKET", "SO_REUSEPORT"): _flag(),
    ("SOL_SOCKET", "SO_KEEPALIVE"): _flag(),
    ("SOL_SOCKET", "SO_BROADCAST"): _flag(),
    ("SOL_SOCKET", "SO_DONTROUTE"): _flag(),
    ("SOL_SOCKET", "SO_OOBINLINE"): _flag(),
    ("SOL_SOCKET", "SO_TIMESTAMP"): _flag(),
    ("SOL_SOCKET", "SO_RXQ_OVFL"): _flag(),
    ("SOL_SOCKET", "SO_PASSCRED"): _flag(where="unix"),
    ("SOL_SOCKET", "SO_PRIORITY"): Spec(),
    ("SOL_SOCKET", "SO_MARK"): Spec(),
    ("SOL_SOCKET", "SO_RCVLOWAT"): Spec(1, keep=lambda value: value or 1),
    ("SOL_SOCKET", "SO_SNDLOWAT"): Spec(1, read_only=errno.ENOPROTOOPT),
    ("SOL_SOCKET", "SO_LINGER"): Spec(LINGER.pack(0, 0)),
    ("SOL_SOCKET", "SO_BINDTODEVICE"): Spec(b"", where="tcp udp"),
    ("SOL_SOCKET", "SO_SNDTIMEO"): Spec(bytes(16)),
    ("SOL_SOCKET", "SO_RCVTIMEO"): Spec(bytes(16)),
    ("SOL_SOCKET", "SO_SNDBUF"): Spec(
        SEND_BUFFER, keep=lambda value: max(MIN_SEND_BUFFER, min(2 * value, MAX_BUFFER) if value >= 0 else MAX_BUFFER)
    ),
    ("SOL_SOCKET", "SO_RCVBUF"): Spec(
        RECEIVE_BUFFER,
        keep=lambda value: max(MIN_RECEIVE_BUFFER, min(2 * value, MAX_BUFFER) if value >= 0 else MAX_BUFFER),
    ),
    ("IPPROTO_TCP", "TCP_NODELAY"): _flag(where="tcp"),
    ("IPPROTO_TCP", "TCP_CORK"): _flag(where="tcp"),
    ("IPPROTO_TCP", "TCP_QUICKACK"): Spec(1, keep=lambda value: int(value != 0), where="tcp"),
    ("IPPROTO_TCP", "TCP_MAXSEG"): Spec(536, 88, 32767, where="tcp"),
    ("IPPROTO_TCP", "TCP_KEEPIDLE"): Spec(7200, 1, 32767, where="tcp"),
    ("IPPROTO_TCP", "TCP_KEEPINTVL"): Spec(75, 1, 32767, where="tcp"),
    ("IPPROTO_TCP", "TCP_KEEPCNT"): Spec(9, 1, 127, where="tcp"),
    ("IPPROTO_TCP", "TCP_SYNCNT"): Spec(6, 1, 127, where="tcp"),
    ("IPPROTO_TCP", "TCP_LINGER2"): Spec(60, where="tcp"),
    ("IPPROTO_TCP", "TCP_DEFER_ACCEPT"): Spec(0, where="tcp"),
    ("IPPROTO_TCP", "TCP_WINDOW_CLAMP"): Spec(0, where="tcp"),
    ("IPPROTO_TCP", "TCP_USER_TIMEOUT"): Spec(0, 0, where="tcp"),
    ("IPPROTO_TCP", "TCP_NOTSENT_LOWAT"): Spec(0, where="tcp"),
    ("IPPROTO_TCP", "TCP_FASTOPEN"): Spec(0, where="tcp"),
    ("IPPROTO_TCP", "TCP_CONGESTION"): Spec(b"cubic".ljust(16, b"\0"), where="tcp"),
    ("IPPROTO_SCTP", "SCTP_NODELAY"): _flag(where="sctp"),
    ("IPPROTO_IP", "IP_TOS"): Spec(keep=lambda value: value & 0xFF, where="tcp udp"),
    ("IPPROTO_IP", "IP_TTL"): _byte(64, "tcp udp", 1, substitutes={-1: 64}),
    ("IPPROTO_IP", "IP_MTU_DISCOVER"): Spec(1, 0, 5, where="tcp udp"),
    ("IPPROTO_IP", "IP_FREEBIND"): _flag(where="tcp udp"),
    ("IPPROTO_IP", "IP_RECVTOS"): _flag(where="tcp udp"),
    ("IPPROTO_IP", "IP_BIND_ADDRESS_NO_PORT"): _flag(where="tcp udp"),
    ("IPPROTO_IP", "IP_MULTICAST_TTL"): _byte(1, "tcp udp", substitutes={-1: 1}),
    ("IPPROTO_IP", "IP_MULTICAST_LOOP"): Spec(1, keep=lambda value: int(value != 0), where="tcp udp"),
    ("IPPROTO_IP", "IP_MULTICAST_IF"): Spec(bytes(4), where="udp"),
    ("IPPROTO_IP", "IP_MULTICAST_ALL"): Spec(1, 0, 1, where="tcp udp"),
    ("IPPROTO_IP", "IP_PKTINFO"): _flag(where="tcp udp"),
    ("IPPROTO_IP", "IP_RECVTTL"): _flag(where="tcp udp"),
    ("IPPROTO_IPV6", "IPV6_V6ONLY"): _flag(where="tcp6 udp6"),
    ("IPPROTO_IPV6", "IPV6_UNICAST_HOPS"): _byte(64, "tcp6 udp6", substitutes={-1: 64}),
    ("IPPROTO_IPV6", "IPV6_MULTICAST_HOPS"): _byte(1, "udp6", substitutes={-1: 1}),
    ("IPPROTO_IPV6", "IPV6_MULTICAST_LOOP"): Spec(1, 0, 1, where="tcp6 udp6"),
    ("IPPROTO_IPV6", "IPV6_MULTICAST_IF"): Spec(0, where="udp6"),
    ("IPPROTO_IPV6", "IPV6_TCLASS"): _byte(0, "tcp6 udp6", substitutes={-1: 0}),
    ("IPPROTO_IPV6", "IPV6_MULTICAST_ALL"): Spec(1, 0, 1, where="tcp6 udp6"),
    ("IPPROTO_IPV6", "IPV6_RECVPKTINFO"): _flag(where="tcp6 udp6"),
    ("IPPROTO_IPV6", "IPV6_RECVHOPLIMIT"): _flag(where="tcp6 udp6"),
    ("IPPROTO_IPV6", "IPV6_MTU_DISCOVER"): Spec(1, 0, 5, where="tcp6 udp6"),
}


def number(name: str) -> int | None:
    """The number that a constant of the socket module has on this platform, or on Linux."""
    found: int | None = getattr(socket, name, NUMBERS.get(name))
    return found


_SPECS: Final = {
    (getattr(socket, level, LEVELS.get(level)), number(name)): spec
    for (level, name), spec in _TABLE.items()
    if number(name) is not None and (hasattr(socket, level) or level in LEVELS)
}

_BUFFER_KEYS: Final = ((socket.SOL_SOCKET, socket.SO_SNDBUF), (socket.SOL_SOCKET, socket.SO_RCVBUF))
_DEVICE_KEY: Final = (socket.SOL_SOCKET, number("SO_BINDTODEVICE"))
_LINGER_KEY: Final = (socket.SOL_SOCKET, socket.SO_LINGER)


@protected
class Options:
    """The options of one socket, as set; sizes in bytes, times in seconds.

    Args:
      sort: | tcp, sctp, udp or unix |, with a 6 for IPv6.
    """

    def __init__(self, sort: str) -> None:
        self.sort = sort
        self._values: dict[tuple[int, int], int | bytes] = {}
        self._is_connection = sort.startswith(("tcp", "sctp"))
        if not self._is_connection:
            self._values = dict.fromkeys(_BUFFER_KEYS, DATAGRAM_BUFFER)
        # What TCP looks at with every segment.
        self.send_buffer: int = SEND_BUFFER
        self.receive_buffer: int = RECEIVE_BUFFER
        self.unsent_limit: int = UINT_MAX
        self.keep_alive: bool = False
        self._refresh()

    def copy(self) -> Options:
        """What an accepted socket inherits: everything."""
        copied = Options(self.sort)
        copied._values.update(self._values)
        copied._refresh()
        return copied

    def get(self, level: int, name: int) -> int | bytes:
        """Raises: OSError ENOPROTOOPT, EOPNOTSUPP."""
        spec = self._spec(level, name, errno.EOPNOTSUPP)
        return self._values.get((level, name), spec.default)

    def set(self, level: int, name: int, value: int | bytes) -> None:
        """Raises: OSError EINVAL, ENOPROTOOPT, EOPNOTSUPP."""
        spec = self._spec(level, name, errno.ENOPROTOOPT)
        if spec.read_only:
            fail(spec.read_only)
        if (level, name) == _DEVICE_KEY:
            self._values[level, name] = self._device(value)
        elif isinstance(spec.default, bytes):
            self._values[level, name] = self._structure(level, name, value, spec.default)
        else:
            given = value if isinstance(value, int) else _unpacked(level, value)
            wanted = spec.substitutes.get(given, given)
            if not spec.low <= wanted <= spec.high:
                fail(errno.EINVAL)
            kept = spec.keep(wanted)
            if (level, name) in _SERVICE_TYPES and self._is_connection:
                kept &= ~ECN_MASK
            self._values[level, name] = kept
        self._refresh()

    @staticmethod
    def _device(value: int | bytes) -> bytes:
        """As it is kept.  Every host has these two interfaces; the addresses choose between them, and this does not."""
        device = INT.pack(value) if isinstance(value, int) else value
        device = device.partition(b"\0")[0]
        if device and device.decode("latin-1") not in INTERFACES:
            fail(errno.ENODEV)
        return device + b"\0" if device else b""

    def _structure(self, level: int, name: int, value: int | bytes, default: bytes) -> bytes:
        if isinstance(value, int):
            value = INT.pack(value)
        if len(value) < min(len(default), LINGER.size) and level == socket.SOL_SOCKET:
            fail(errno.EINVAL)
        if (level, name) == _LINGER_KEY and not LINGER.unpack_from(value)[0]:
            # Switched off, it keeps its seconds.
            old = self._values.get(_LINGER_KEY, default)
            assert isinstance(old, bytes)
            return LINGER.pack(0, LINGER.unpack(old)[1])
        return value[: len(default)].ljust(len(default), b"\0")

    def flag(self, level: int, name: int) -> bool:
        """Is it switched on?"""
        return bool(self._values.get((level, name), 0))

    def binding(self, owner: object, family: int, address: str, port: int) -> Binding:
        """A hold on that port, as these options want it; no port table knows of it yet."""
        return Binding(
            owner,
            family,
            address,
            port,
            only_ipv6=self.flag(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
            reuse_address=self.flag(socket.SOL_SOCKET, socket.SO_REUSEADDR),
            reuse_port=self.flag(socket.SOL_SOCKET, socket.SO_REUSEPORT),
        )

    @property
    def lingers(self) -> int | None:
        """SO_LINGER's seconds, or None if it is off."""
        value = self._values.get(_LINGER_KEY, b"")
        on, seconds = LINGER.unpack(value) if isinstance(value, bytes) and value else (0, 0)
        return seconds if on else None

    @property
    def keep_alive_times(self) -> tuple[float, float, int]:
        """| idle | interval | count |."""
        return tuple(int(self._tcp(name)) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"))  # type: ignore[return-value]

    @property
    def syn_retries(self) -> int:
        return self._tcp("TCP_SYNCNT")

    @property
    def user_timeout(self) -> float:
        return self._tcp("TCP_USER_TIMEOUT") / 1000

    def _tcp(self, name: str) -> int:
        value = self._values.get((socket.IPPROTO_TCP, number(name) or -1), _TABLE["IPPROTO_TCP", name].default)
        assert isinstance(value, int)
        return value

    def _spec(self, level: int, name: int, unknown_level: int) -> Spec:
        spec = _SPECS.get((level, name))
        sorts = () if spec is None else spec.where.split()
        # Where SCTP's own options are not meant, its sockets have those of TCP's.
        sort = self.sort.replace("sctp", "tcp") if level in _COMMON_LEVELS else self.sort
        if spec is None or not (sort in sorts or sort.rstrip("6") in sorts):
            if self.sort == "unix" and level != socket.SOL_SOCKET:
                fail(errno.EOPNOTSUPP)
            fail(errno.ENOPROTOOPT if level in self._levels() else unknown_level)
        return spec

    def _levels(self) -> list[int]:
        levels: list[int] = [socket.SOL_SOCKET, socket.IPPROTO_IP]
        levels += [socket.IPPROTO_IPV6] if self.sort.endswith("6") else []
        own = {"tcp": socket.IPPROTO_TCP, "sctp": IPPROTO_SCTP}.get(self.sort.rstrip("6"), socket.IPPROTO_UDP)
        return [*levels, own]

    def _refresh(self) -> None:
        values = self._values
        self.send_buffer = _size(values, socket.SO_SNDBUF, SEND_BUFFER)
        self.receive_buffer = _size(values, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.keep_alive = bool(values.get((socket.SOL_SOCKET, socket.SO_KEEPALIVE), 0))
        limit = values.get((socket.IPPROTO_TCP, _NOTSENT_LOWAT), 0)
        self.unsent_limit = limit & UINT_MAX if isinstance(limit, int) and limit else UINT_MAX


_NOTSENT_LOWAT: Final = number("TCP_NOTSENT_LOWAT") or -1


# Of IPv4's and IPv6's service type; RFC 3168: they are TCP's own.
ECN_MASK: Final = 3
_SERVICE_TYPES: Final = {(socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, number("IPV6_TCLASS"))}


def _unpacked(level: int, value: bytes) -> int:
    if len(value) < INT.size:
        if value and level == socket.IPPROTO_IP:
            return value[0]
        fail(errno.EINVAL)
    number: int = INT.unpack_from(value)[0]
    return number


def _size(values: dict[tuple[int, int], int | bytes], name: int, default: int) -> int:
    value = values.get((socket.SOL_SOCKET, name), default)
    assert isinstance(value, int)
    return value
