"""What goes beside a datagram, as the system's ancillary data spell it (ip(7), RFC 3542)."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any, Final

from trioqt.links.base import Ancillary
from trioqt.testing.network.host import fail
from trioqt.testing.network.options import Options, number
from trioqt.testing.network.socket_addresses import canonical
from trioqt.testing.network.udp import Arrival, Beside

__all__ = ["known_beside", "said_beside"]

IP, IP6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6

PKTINFO: Final = struct.Struct("=I4s4s")
"""struct in_pktinfo: | interface | local address | address in the header |."""

PKTINFO6: Final = struct.Struct("=16sI")
"""struct in6_pktinfo: | address | interface |."""

INT: Final = struct.Struct("=i")


def known_beside(arrival: Arrival, family: int, options: Options, room: int) -> tuple[list[Ancillary], int]:
    """What the socket has asked for, as far as there is room for it, and MSG_CTRUNC if there is not."""
    known = [item for item in _known(arrival, family, options) if item[2]]
    for index, (_, _, value) in enumerate(known):
        room -= _length(len(value))
        if room < 0:
            return known[:index], socket.MSG_CTRUNC
        room -= _space(len(value)) - _length(len(value))
    return known, 0


def _known(arrival: Arrival, family: int, options: Options) -> list[Ancillary]:
    found: list[Ancillary] = []
    if arrival.dropped and _asked(options, socket.SOL_SOCKET, "SO_RXQ_OVFL"):
        found.append((socket.SOL_SOCKET, number("SO_RXQ_OVFL") or 0, struct.pack("=I", arrival.dropped)))
    if not arrival.target:
        return found
    is_ipv6 = ":" in arrival.target
    if not is_ipv6 and _asked(options, IP, "IP_PKTINFO"):
        address = socket.inet_pton(socket.AF_INET, arrival.target)
        found.append((IP, number("IP_PKTINFO") or 0, PKTINFO.pack(arrival.interface, address, address)))
    if family == socket.AF_INET6 and _asked(options, IP6, "IPV6_RECVPKTINFO"):
        text = arrival.target if is_ipv6 else f"::ffff:{arrival.target}"
        address = socket.inet_pton(socket.AF_INET6, text)
        found.append((IP6, socket.IPV6_PKTINFO, PKTINFO6.pack(address, arrival.interface)))
    if not is_ipv6 and _asked(options, IP, "IP_RECVTTL"):
        found.append((IP, socket.IP_TTL, INT.pack(arrival.hops)))
    if is_ipv6 and _asked(options, IP6, "IPV6_RECVHOPLIMIT"):
        found.append((IP6, socket.IPV6_HOPLIMIT, INT.pack(arrival.hops)))
    return found


def _asked(options: Options, level: int, name: str) -> bool:
    constant = number(name)
    return constant is not None and options.flag(level, constant)


def _length(size: int) -> int:
    length: Any = getattr(socket, "CMSG_LEN", lambda size: size)
    return int(length(size))


def _space(size: int) -> int:
    space: Any = getattr(socket, "CMSG_SPACE", lambda size: size)
    return int(space(size))


def said_beside(ancillary: Sequence[Ancillary]) -> Beside | None:
    """What the program says of one datagram.  Raises: NotImplementedError for what is none of that; OSError."""
    if not ancillary:
        return None
    source, hops, interface = "", -1, 0
    for level, kind, value in ancillary:
        if (level, kind) == (IP, number("IP_PKTINFO")):
            interface, own, _ = PKTINFO.unpack(value)
            source = canonical(socket.inet_ntop(socket.AF_INET, own))
        elif (level, kind) == (IP6, number("IPV6_PKTINFO")):
            own, interface = PKTINFO6.unpack(value)
            source = canonical(socket.inet_ntop(socket.AF_INET6, own))
        elif (level, kind) in ((IP, socket.IP_TTL), (IP6, number("IPV6_HOPLIMIT"))):
            hops = int.from_bytes(value, sys.byteorder, signed=True)
            if not (1 if level == IP else -1) <= hops <= 255:
                fail(errno.EINVAL)
        else:
            raise NotImplementedError("simulated sockets carry no such ancillary data")
    return Beside("" if source in ("0.0.0.0", "::") else source, hops, interface)
