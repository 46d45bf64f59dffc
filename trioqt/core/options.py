"""What a socket can be told, and by which numbers this system is told it.

This module touches no socket: it says which ``setsockopt`` calls another layer has to make.
"""

from __future__ import annotations

import enum
import errno
import socket
import sys
from typing import Final

import attrs

__all__ = [
    "IPPROTO_SCTP",
    "KEEP_ALIVE_FIGURES",
    "QUICK_UNSENT_LIMIT",
    "UNSENT_LIMIT",
    "USER_TIMEOUT",
    "BindMode",
    "OptionSpec",
    "SocketOption",
    "SocketType",
    "SystemOption",
    "bind_options",
    "can_be_remembered",
    "check_mode",
    "first_options",
    "inherited_options",
    "listen_options",
    "name_of",
    "option_for",
    "protocol_of",
    "unsent_options",
]

# A peer that never reads made a server push 3.9 MB into the kernel, and 320 KiB with this, our own queue included.
UNSENT_LIMIT: Final = 131072
"""How many bytes of a connection the kernel takes, about, and has not sent yet; unless told otherwise."""

# The price is that we send, where else the kernel does when acknowledgements come, and wake for each small room: 1 GiB
# on loopback by `write` costs 0.71 s of CPU with 128 KiB, 0.65 with 512, 0.60 with 2 MiB, and 0.56 without a limit.
QUICK_UNSENT_LIMIT: Final = 2 * 1024 * 1024
"""The same for a peer that has been quick, because it takes so much in no time."""


class SocketType(enum.Enum):
    """The transport.  Qt: QAbstractSocket::SocketType."""

    TCP = 0
    """A stream."""
    UDP = 1
    """Datagrams."""
    SCTP = 2
    """Connections as TCP's, where the system has them: many a Linux needs its ``sctp`` module for it."""
    UNKNOWN = -1
    """What is below is no socket that we could ask, but a stream."""


class SocketOption(enum.Enum):
    """What can be set on, or asked of, an open socket.  Qt: QAbstractSocket::SocketOption, all of it.

    ``LOW_DELAY``, ``KEEP_ALIVE`` and ``MULTICAST_LOOPBACK`` are 0 or 1.  Buffer sizes and the path MTU are bytes
    (Linux answers with twice the buffer size it was told), ``KEEP_ALIVE_IDLE`` and ``KEEP_ALIVE_INTERVAL`` whole
    seconds.  TCP keeps the two lowest bits of ``TYPE_OF_SERVICE`` for itself (ECN) and Linux drops them.
    ``MULTICAST_TTL`` is 0 to 255, and -1 stands for the 1 that it is at first.

    A datagram socket has no ``LOW_DELAY`` and none of the three figures of keep-alive, SCTP has its own figures; a
    stream can read ``MULTICAST_TTL`` and not set it.  ``PATH_MTU`` can be read, of a socket that is connected.
    """

    LOW_DELAY = 0
    KEEP_ALIVE = 1
    MULTICAST_TTL = 2
    MULTICAST_LOOPBACK = 3
    TYPE_OF_SERVICE = 4
    SEND_BUFFER_SIZE = 5
    """Bytes that the system holds for the peer (SO_SNDBUF); Linux doubles what it is told."""
    RECEIVE_BUFFER_SIZE = 6
    """Bytes that the system holds for us (SO_RCVBUF); Linux doubles what it is told."""
    PATH_MTU = 7
    KEEP_ALIVE_IDLE = 8
    KEEP_ALIVE_INTERVAL = 9
    KEEP_ALIVE_COUNT = 10
    """After so many questions without an answer the connection is lost (TCP_KEEPCNT)."""


# How a server notices that a peer has vanished.  A silent one is asked after a minute, and then every 10 s; six
# questions without an answer end it (Linux asks first after two hours).  One that owes acknowledgements has as long
# (Linux: some 15 minutes), in milliseconds.
KEEP_ALIVE_FIGURES: Final = {
    SocketOption.KEEP_ALIVE_IDLE: 60,
    SocketOption.KEEP_ALIVE_INTERVAL: 10,
    SocketOption.KEEP_ALIVE_COUNT: 6,
}
USER_TIMEOUT: Final = 120_000


class BindMode(enum.Flag):
    """Who else may bind the address.  Qt: QAbstractSocket::BindFlag; REUSE_PORT is ours.

    ``SHARE_ADDRESS`` and ``REUSE_ADDRESS_HINT``: others that say so too.  ``DONT_SHARE_ADDRESS``: nobody.
    ``REUSE_PORT``: every process of this user that says so too, listening as well, and Linux spreads connections
    over them.
    """

    DEFAULT_FOR_PLATFORM = 0
    """As the system does it unless told."""
    SHARE_ADDRESS = 1
    DONT_SHARE_ADDRESS = 2
    REUSE_ADDRESS_HINT = 4
    REUSE_PORT = 8


@attrs.frozen
class OptionSpec:
    """One option as ``setsockopt`` and ``getsockopt`` want it: ``| level | number | int |``.

    A flag is 0 or 1.  One that is ``read_only`` can be asked, never set; refusing is the caller's part.
    """

    level: int
    number: int
    is_flag: bool = False
    read_only: bool = False
    default: int | None = None
    """What -1 stands for."""

    def to_system(self, value: int) -> int:
        """The int to set; anything but 0 switches a flag on.

        Raises:
          ValueError: Negative where -1 does not stand for a default, or more than a C int holds.  (Linux takes a buffer
            of -1 bytes for the largest.)
          TypeError: Not an int.
        Qt: setSocketOption; there, text becomes 0 and a refused value is forgotten silently.
        """
        if not isinstance(value, int):
            raise TypeError(f"a socket option is an int, not {type(value).__name__}")
        if value == -1 and self.default is not None:
            return self.default
        if not 0 <= value < 2**31:
            raise ValueError(f"a socket option is 0 to {2**31 - 1}, not {value}")
        return int(value != 0) if self.is_flag else int(value)

    def from_system(self, value: int) -> int:
        """The value to report.  BSD and macOS answer a flag with its bit (TCP_NODELAY with 4), we with 1."""
        return int(value != 0) if self.is_flag else value


# Where each option is, for an IPv4 and an IPv6 socket: the level, then the names to try, of which a platform has one.
#
# TYPE_OF_SERVICE on IPv6: Qt gives nothing and sets nothing (B-009).  The traffic class is the same byte with the
# same meaning (RFC 2474), so we set that.  It does not reach IPv4: on a dual-stack socket with an IPv4 peer
# (Linux 6.18) IPV6_TCLASS 32 left TOS 0 on the wire, IP_TOS 64 put 64 there.  So whoever holds a socket whose peer
# is IPv4-mapped asks for AF_INET.
#
# MULTICAST_TTL on TCP: every platform has it, Linux refuses it there (EINVAL; IPv6: ENOPROTOOPT).  That is the
# kernel's to say, when it is set on a socket; set before there is one, it would only make every connection fail.
#
# PATH_MTU: Linux only (IP_MTU is not settable; IPV6_MTU is, but that would be another option).  KEEP_ALIVE_IDLE
# is TCP_KEEPALIVE on macOS.
#
# What is at TCP's level, TCP alone has: Linux answers ENOPROTOOPT or EOPNOTSUPP on a datagram socket, other systems
# read another option under that number.  SCTP has a LOW_DELAY of its own, and looks after silent peers by heartbeats,
# whose figures are in structures (RFC 6458, 8.1.12).
_TCP = (socket.IPPROTO_TCP, socket.IPPROTO_TCP)
_SOCKET = (socket.SOL_SOCKET, socket.SOL_SOCKET)
_IP = (socket.IPPROTO_IP, socket.IPPROTO_IPV6)
_OPTIONS: Final[dict[SocketOption, tuple[tuple[int, int], tuple[str, ...], tuple[str, ...]]]] = {
    #                                  level    AF_INET                              AF_INET6
    SocketOption.LOW_DELAY:           (_TCP,    ("TCP_NODELAY",),                    ("TCP_NODELAY",)),
    SocketOption.KEEP_ALIVE:          (_SOCKET, ("SO_KEEPALIVE",),                   ("SO_KEEPALIVE",)),
    SocketOption.MULTICAST_TTL:       (_IP,     ("IP_MULTICAST_TTL",),               ("IPV6_MULTICAST_HOPS",)),
    SocketOption.MULTICAST_LOOPBACK:  (_IP,     ("IP_MULTICAST_LOOP",),              ("IPV6_MULTICAST_LOOP",)),
    SocketOption.TYPE_OF_SERVICE:     (_IP,     ("IP_TOS",),                         ("IPV6_TCLASS",)),
    SocketOption.SEND_BUFFER_SIZE:    (_SOCKET, ("SO_SNDBUF",),                      ("SO_SNDBUF",)),
    SocketOption.RECEIVE_BUFFER_SIZE: (_SOCKET, ("SO_RCVBUF",),                      ("SO_RCVBUF",)),
    SocketOption.PATH_MTU:            (_IP,     ("IP_MTU",),                         ("IPV6_MTU",)),
    SocketOption.KEEP_ALIVE_IDLE:     (_TCP,    ("TCP_KEEPIDLE", "TCP_KEEPALIVE"),   ("TCP_KEEPIDLE", "TCP_KEEPALIVE")),
    SocketOption.KEEP_ALIVE_INTERVAL: (_TCP,    ("TCP_KEEPINTVL",),                  ("TCP_KEEPINTVL",)),
    SocketOption.KEEP_ALIVE_COUNT:    (_TCP,    ("TCP_KEEPCNT",),                    ("TCP_KEEPCNT",)),
}  # fmt: skip
_FLAGS: Final = {SocketOption.LOW_DELAY, SocketOption.KEEP_ALIVE, SocketOption.MULTICAST_LOOPBACK}

# What Linux has and Python's socket module does not name (linux/in.h, linux/in6.h, linux/sctp.h; one number on every
# architecture).
_LINUX_NUMBERS: Final = {"IP_MTU": 14, "IPV6_MTU": 24, "SCTP_NODELAY": 3}

# IANA's number, which is the same everywhere; not every platform's socket module has the name.
IPPROTO_SCTP: Final = 132

# Of the names of options, by their level.
_PREFIXES: Final = {
    socket.SOL_SOCKET: "SO_",
    socket.IPPROTO_IP: "IP_",
    socket.IPPROTO_IPV6: "IPV6_",
    socket.IPPROTO_TCP: "TCP_",
    socket.IPPROTO_UDP: "UDP_",
    IPPROTO_SCTP: "SCTP_",
}

SystemOption = tuple[int, int, int | bytes]
"""One option by the system's own numbers: | level | number | value |."""

# RFC 1112, 6.1: what nobody has set is 1.
_MULTICAST_TTL: Final = 1

# What to switch on before bind(), at level SOL_SOCKET.
#
# Measured on Linux 6.18, two TCP sockets bound to one address and port, neither listening (UDP: the same):
#
#   first \ second   nothing   REUSEADDR   REUSEPORT   both
#   nothing          in use    in use      in use      in use
#   REUSEADDR        in use    bound       in use      bound
#   REUSEPORT        in use    in use      bound       bound
#   both             in use    bound       bound       bound
#
# So nothing for Default and DontShare and REUSEADDR for the other two gives what Qt does (B-024, and all 25 cells of
# the trace udp_bind_modes).  Once the first one listens, REUSEADDR no longer lets a second one in, only REUSEPORT does.
#
# On macOS and the BSDs REUSEADDR lets no two datagram sockets have one address, but for a group; REUSEPORT does.  So Qt
# sets that there, and for TCP never does (QTBUG-6305; qnativesocketengine_unix.cpp, setOption).
#
# Windows: there REUSEADDR takes an address from its holder, unless that asked for exclusive use.  Qt sets what is
# below; both at once is refused (WSAEINVAL), so with DontShare the exclusive use wins.
_BIND_OPTIONS: Final[dict[BindMode, tuple[str | None, str | None]]] = {
    #                             Unix            Windows
    BindMode.SHARE_ADDRESS:      ("SO_REUSEADDR", None),
    BindMode.DONT_SHARE_ADDRESS: (None,           "SO_EXCLUSIVEADDRUSE"),
    BindMode.REUSE_ADDRESS_HINT: ("SO_REUSEADDR", "SO_REUSEADDR"),
    BindMode.REUSE_PORT:         ("SO_REUSEPORT", "SO_REUSEPORT"),
}  # fmt: skip


def option_for(
    option: SocketOption, family: int, kind: SocketType = SocketType.TCP, *, constants: object = socket
) -> OptionSpec | None:
    """How ``option`` is set on a socket of ``family``, or None if this platform, family or kind has no such option.

    Args:
      family: AF_INET or AF_INET6, of the packets: AF_INET too for an IPv6 socket whose peer is IPv4-mapped.
      constants: Where the platform's numbers are looked up.
    """
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    levels, *names_by_family = _OPTIONS[option]
    version = int(family == socket.AF_INET6)
    level, names = levels[version], names_by_family[version]
    if levels is _TCP and kind is not SocketType.TCP:
        if kind is not SocketType.SCTP or option is not SocketOption.LOW_DELAY:
            return None
        level, names = IPPROTO_SCTP, ("SCTP_NODELAY",)
    default = _MULTICAST_TTL if option is SocketOption.MULTICAST_TTL else None
    for name in names:
        number = _number(name, constants)
        if number is not None:
            return OptionSpec(level, number, option in _FLAGS, option is SocketOption.PATH_MTU, default)
    return None


def can_be_remembered(option: SocketOption, kind: SocketType) -> bool:
    """Can it be set on a socket of that kind that does not exist yet?"""
    only_datagrams = option is SocketOption.MULTICAST_TTL and kind is not SocketType.UDP
    return option is not SocketOption.PATH_MTU and not only_datagrams


def protocol_of(kind: SocketType) -> int:
    """What ``socket()`` is told; 0 is the usual one of the type, TCP or UDP."""
    return IPPROTO_SCTP if kind is SocketType.SCTP else 0


def first_options(kind: SocketType) -> dict[SocketOption, int]:
    """What a new socket is told if nobody has set anything else."""
    return {} if kind is SocketType.UDP else {SocketOption.LOW_DELAY: 1}


def check_mode(mode: BindMode) -> None:
    """Raises: ValueError: DONT_SHARE_ADDRESS with SHARE_ADDRESS or REUSE_PORT."""
    if BindMode.DONT_SHARE_ADDRESS in mode and mode & (BindMode.SHARE_ADDRESS | BindMode.REUSE_PORT):
        raise ValueError(f"an address is shared or it is not: {mode}")


def bind_options(
    mode: BindMode, platform: str = sys.platform, *, datagrams: bool = False, constants: object = socket
) -> tuple[tuple[int, int, int], ...]:
    """The ``(level, number, value)`` to set, in this order, on a new socket before it is bound.

    Args:
      datagrams: It is a UDP socket.

    Raises:
      ValueError: As ``check_mode``.
      OSError: EOPNOTSUPP for REUSE_PORT where there is none (Windows).
    Qt: bind(..., BindMode); there, contradictions are not noticed.
    """
    check_mode(mode)
    on_windows = platform == "win32"
    if on_windows and BindMode.DONT_SHARE_ADDRESS in mode:
        mode = BindMode.DONT_SHARE_ADDRESS
    names = dict.fromkeys(_BIND_OPTIONS[flag][on_windows] for flag in mode)
    if datagrams and not on_windows and platform != "linux" and "SO_REUSEADDR" in names:
        names = {"SO_REUSEPORT": None}
    return tuple(_switch_on(name, constants) for name in names if name is not None)


def listen_options(
    platform: str = sys.platform, *, reuse_port: bool = False, constants: object = socket
) -> tuple[tuple[int, int, int], ...]:
    """The ``(level, number, value)`` to set on a socket that will listen, before it is bound.

    Unix: REUSEADDR, so that a server can come back while its old connections are in TIME_WAIT (S-013; measured:
    without it, bind says "in use").  Windows needs none for that, and exclusive use keeps others off the port.

    Raises:
      OSError: EOPNOTSUPP for ``reuse_port`` where there is none (Windows).
    """
    mode = BindMode.DONT_SHARE_ADDRESS if platform == "win32" else BindMode.REUSE_ADDRESS_HINT
    if reuse_port:
        mode |= BindMode.REUSE_PORT
    return bind_options(mode, platform, constants=constants)


def name_of(level: int, number: int, *, constants: object = socket) -> str:
    """What a system's option is called, for messages: ``SO_MARK``; ``option 99 of level 6`` if it has no name here."""
    prefix = _PREFIXES.get(level)
    found = [] if prefix is None else [name for name in {*dir(constants), *_LINUX_NUMBERS} if name.startswith(prefix)]
    # Of several that have this number the others are values, as IP_DEFAULT_MULTICAST_TTL is beside IP_TOS.
    names = sorted((name for name in found if _number(name, constants) == number), key=lambda name: (len(name), name))
    return names[0] if names else f"option {number} of level {level}"


def unsent_options(limit: int | None, *, constants: object = socket) -> tuple[tuple[int, int, int], ...]:
    """The ``(level, number, value)`` that bound what the kernel keeps of a connection and has not sent yet.

    Empty where the system has no such option (Windows).

    Args:
      limit: In bytes; None is the system's own (Linux: ``net.ipv4.tcp_notsent_lowat``, which is no limit).
    """
    number = _number("TCP_NOTSENT_LOWAT", constants)
    if number is None:
        return ()
    # Linux, tcp_notsent_lowat() in net/tcp.h: 0 stands for the system's own.
    return ((socket.IPPROTO_TCP, number, 0 if limit is None else min(limit, 2**31 - 1)),)


def inherited_options(
    *, keep_alive: bool, kind: SocketType = SocketType.TCP, constants: object = socket
) -> tuple[tuple[int, int, int], ...]:
    """The ``(level, number, value)`` to set on a listening socket for what it accepts, as far as the platform has them.

    Set once, they cost a connection nothing.

    Args:
      keep_alive: A peer that has vanished is noticed.  TCP_USER_TIMEOUT, for one that owes acknowledgements, is Linux's
        alone.  SCTP notices it by itself.
    """
    values = first_options(kind)
    options: list[tuple[int, int, int]] = []
    if kind is SocketType.TCP:
        options += unsent_options(UNSENT_LIMIT, constants=constants)
        if keep_alive:
            values |= {**KEEP_ALIVE_FIGURES, SocketOption.KEEP_ALIVE: 1}
            number = _number("TCP_USER_TIMEOUT", constants)
            if number is not None:
                options.append((socket.IPPROTO_TCP, number, USER_TIMEOUT))
    for option, value in values.items():
        spec = option_for(option, socket.AF_INET, kind, constants=constants)
        if spec is not None:
            options.append((spec.level, spec.number, value))
    return tuple(options)


def _switch_on(name: str, constants: object) -> tuple[int, int, int]:
    number = _number(name, constants)
    if number is None:
        raise OSError(errno.EOPNOTSUPP, f"this platform has no {name}")
    return socket.SOL_SOCKET, number, 1


def _number(name: str, constants: object) -> int | None:
    number: int | None = getattr(constants, name, None)
    if number is None and constants is socket and sys.platform == "linux":
        return _LINUX_NUMBERS.get(name)
    return number
