"""Who is in the middle of a handshake with a listening socket: the kernel has answered, and their next word is awaited.

Such a client may know already that it is connected, and we do not; if the listening socket closes now, it is reset.
Linux tells by sock_diag(7), which every user may ask; it takes one or two milliseconds, however many are connected.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from trioqt.links import newcomers
from trioqt.links.base import NativeSocket
from trioqt.links.netlink import ANSWER_SIZE, HEADER, NLMSG_DONE, NLMSG_ERROR, split

__all__ = ["half_open", "ignore_newcomers"]

# linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h; Python has no names for them.
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
REQUEST_DUMP = 0x301
REQUEST = struct.Struct("=BBxxI2s2x44x")  # family, protocol, states, our port; any peer
ANSWER = struct.Struct("=6x2s16x16s")  # the peer's port and address

# net/tcp_states.h: TCP_SYN_RECV and TCP_NEW_SYN_RECV.
SYN_RECV = 1 << 3 | 1 << 12

# The kernel answers at once; something that only looks like one may not.
PATIENCE = 0.1


@runtime_checkable
class Simulated(Protocol):
    """A simulated listening socket."""

    def ignore_newcomers(self) -> bool:
        """Answer nobody any more."""

    def half_open(self) -> frozenset[object]:
        """Who has been answered, and has not been heard of again."""


def ignore_newcomers(sock: NativeSocket) -> bool:
    """Answer nobody any more until ``sock`` is closed; False where that is not possible."""
    return sock.ignore_newcomers() if isinstance(sock, Simulated) else newcomers.ignore_newcomers(sock)


def half_open(sock: NativeSocket) -> frozenset[object]:
    """The peers whose handshake with ``sock`` is half done; nobody where that cannot be known."""
    if isinstance(sock, Simulated):
        return sock.half_open()
    if sys.platform != "linux" or not isinstance(sock, socket.socket):
        return frozenset()
    try:
        port = sock.getsockname()[1].to_bytes(2, "big")
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
            diag.settimeout(PATIENCE)
            families = (socket.AF_INET, socket.AF_INET6)
            return frozenset(peer for family in families for peer in _ask(diag, family, port))
    except OSError:  # a sandbox, or there is no descriptor left
        return frozenset()


def _ask(diag: socket.socket, family: int, port: bytes) -> Iterator[tuple[bytes, bytes]]:
    """| port | address | of each.  Raises: OSError."""
    request = REQUEST.pack(family, socket.IPPROTO_TCP, SYN_RECV, port)
    diag.sendto(HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 0, 0) + request, (0, 0))
    while True:
        messages = list(split(diag.recv(ANSWER_SIZE)))
        if not messages:
            return  # nothing that a kernel says
        for kind, _, _, body in messages:
            if kind in (NLMSG_DONE, NLMSG_ERROR) or len(body) < ANSWER.size:
                return
            yield ANSWER.unpack_from(body)
