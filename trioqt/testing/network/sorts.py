"""Which sorts of sockets there are, and what Linux says to who asks for another one."""

from __future__ import annotations

import errno
import socket
from typing import Literal

from trioqt.core.options import IPPROTO_SCTP
from trioqt.testing.network.host import fail

__all__ = ["DEFAULT_PROTOCOLS", "SOCKET_FLAGS", "sort_of"]

# SOCK_NONBLOCK and SOCK_CLOEXEC, which a socket is anyway.
SOCKET_FLAGS = getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0)

# What Linux says to an internet socket of another type below SOCK_MAX; a raw one wants a protocol.
SOCKET_TYPE_ERRORS: dict[int, int] = {
    **dict.fromkeys(range(1, 11), errno.ESOCKTNOSUPPORT),
    socket.SOCK_RAW: errno.EPROTONOSUPPORT,
}

DEFAULT_PROTOCOLS: dict[tuple[int, int], int] = {
    (family, type_): protocol
    for family in (socket.AF_INET, socket.AF_INET6)
    for type_, protocol in ((socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.SOCK_DGRAM, socket.IPPROTO_UDP))
}


Sort = Literal["tcp", "tcp6", "sctp", "sctp6", "udp", "udp6", "unix"]


def sort_of(family: int, type_: int, proto: int) -> Sort:
    """Raises: OSError EAFNOSUPPORT, ESOCKTNOSUPPORT, EPROTONOSUPPORT as Linux; NotImplementedError."""
    if family == getattr(socket, "AF_UNIX", None):
        if type_ == socket.SOCK_STREAM:
            return "unix"
        if type_ in (socket.SOCK_DGRAM, getattr(socket, "SOCK_SEQPACKET", None)):
            raise NotImplementedError("AF_UNIX sockets of messages are not simulated; those of streams are")
        fail(errno.ESOCKTNOSUPPORT)
    if family not in (socket.AF_INET, socket.AF_INET6):
        fail(errno.EAFNOSUPPORT)
    if type_ not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        fail(SOCKET_TYPE_ERRORS.get(type_, errno.EINVAL))
    if (type_, proto) == (socket.SOCK_STREAM, IPPROTO_SCTP):
        return "sctp6" if family == socket.AF_INET6 else "sctp"
    if proto not in (0, DEFAULT_PROTOCOLS[family, type_]):
        fail(errno.EPROTONOSUPPORT)
    if type_ == socket.SOCK_STREAM:
        return "tcp6" if family == socket.AF_INET6 else "tcp"
    return "udp6" if family == socket.AF_INET6 else "udp"
