"""The interfaces that the kernel has: all of them from Linux, by rtnetlink; elsewhere what the standard library tells.

Read rtnetlink(7) beside it.  A message is ``| u32 length | u16 type | u16 flags | u32 sequence | u32 port |``, then a
structure, then attributes, ``| u16 length | u16 type | value |``, each padded to four bytes; numbers are the machine's.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface

import trio

from trioqt.core.addresses import HostAddress
from trioqt.core.interfaces import InterfaceAddress, InterfaceFlag, NetworkInterface

__all__ = [
    "ANSWER_SIZE",
    "HEADER",
    "NLMSG_DONE",
    "NLMSG_ERROR",
    "addresses_in",
    "kernel_interfaces",
    "links_in",
    "split",
]

HEADER = struct.Struct("=IHHII")
LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: | family | kind of device | index | flags | changed |
ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: | family | prefix length | flags | scope | index |
ATTRIBUTE = struct.Struct("=HH")
NUMBER = struct.Struct("=I")

# linux/netlink.h and linux/rtnetlink.h.
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x10, 0x300
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU = 1, 3, 4
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4

# linux/if.h: IFF_UP and so on.
FLAGS = {
    0x1: InterfaceFlag.IS_UP,
    0x2: InterfaceFlag.CAN_BROADCAST,
    0x8: InterfaceFlag.IS_LOOPBACK,
    0x10: InterfaceFlag.IS_POINT_TO_POINT,
    0x40: InterfaceFlag.IS_RUNNING,
    0x1000: InterfaceFlag.CAN_MULTICAST,
}

# More than the kernel puts into one answer: 32 KiB (netlink_dump() in net/netlink/af_netlink.c).
ANSWER_SIZE = 65536

# An answer in several parts that changes meanwhile is marked, and asked for again.  A machine whose interfaces never
# rest gives what it last said.
TRIES = 3

# Where the machine has run out of something, half an answer would hide that.
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

# RFC 3021: a network of two has no address left that could stand for everybody.
SHORTEST_NETWORK = 31

Message = tuple[int, bytes]


@trio.lowlevel.enable_ki_protection
def kernel_interfaces() -> Sequence[NetworkInterface]:
    """Every interface, by index.  Raises: OSError."""
    if sys.platform == "linux":
        try:
            return _ask_linux()
        except OSError as exc:  # a sandbox, or Android, where it is not allowed
            if exc.errno in EXHAUSTED:
                raise
    return [NetworkInterface(name, index, is_complete=False) for index, name in sorted(socket.if_nameindex())]


def _ask_linux() -> Sequence[NetworkInterface]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.setblocking(False)  # what is asked for is there at once
        links = links_in(_dump(sock, RTM_GETLINK, LINK.size))
        return addresses_in(_dump(sock, RTM_GETADDR, ADDRESS.size), links)


def _dump(sock: socket.socket, kind: int, size: int) -> list[Message]:
    """All that there is of a kind.  Raises: OSError."""
    found: list[Message] = []
    for sequence in range(1, TRIES + 1):
        flags = NLM_F_REQUEST | NLM_F_DUMP
        sock.send(HEADER.pack(HEADER.size + size, kind, flags, sequence, 0) + bytes(size))
        found, changed = [], False
        for message_kind, message_flags, body in _answers(sock, sequence):
            changed |= bool(message_flags & NLM_F_DUMP_INTR)
            if message_kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", body.ljust(4, b"\0"))[0]
                raise OSError(code, os.strerror(code))
            found.append((message_kind, body))
        if not changed:
            break
    return found


def _answers(sock: socket.socket, sequence: int) -> Iterator[tuple[int, int, bytes]]:
    """| type | flags | what is behind the header | of each message, up to the one that says that it was the last."""
    while True:
        for kind, flags, number, body in split(sock.recv(ANSWER_SIZE)):
            if number != sequence:
                continue  # of a question that was given up
            if kind == NLMSG_DONE:
                return
            yield kind, flags, body
            if kind == NLMSG_ERROR:
                return


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages in one answer: | type | flags | sequence | what is behind the header |.  A torn one is left out."""
    start = 0
    while start + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, start)
        if not HEADER.size <= length <= len(data) - start:
            return
        yield kind, flags, sequence, data[start + HEADER.size : start + length]
        start += length + -length % 4


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    start = 0
    while start + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, start)
        if not ATTRIBUTE.size <= length <= len(data) - start:
            break
        found[kind] = data[start + ATTRIBUTE.size : start + length]
        start += length + -length % 4
    return found


def links_in(messages: Sequence[Message]) -> dict[int, NetworkInterface]:
    """The interfaces in them, without addresses."""
    found: dict[int, NetworkInterface] = {}
    for kind, body in messages:
        if kind != RTM_NEWLINK or len(body) < LINK.size:
            continue
        _, _, index, flags, _ = LINK.unpack_from(body)
        known = _attributes(body[LINK.size :])
        found[index] = NetworkInterface(
            name=os.fsdecode(known.get(IFLA_IFNAME, b"").partition(b"\0")[0]),
            index=index,
            hardware_address=known.get(IFLA_ADDRESS, b"").hex(":"),
            flags=_flags(flags),
            mtu=NUMBER.unpack(known[IFLA_MTU])[0] if len(known.get(IFLA_MTU, b"")) == NUMBER.size else 0,
        )
    return found


def _flags(bits: int) -> InterfaceFlag:
    found = InterfaceFlag(0)
    for bit, flag in FLAGS.items():
        if bits & bit:
            found |= flag
    return found


def addresses_in(messages: Sequence[Message], links: dict[int, NetworkInterface]) -> list[NetworkInterface]:
    """The interfaces, by index, with the addresses in the messages."""
    found: dict[int, list[InterfaceAddress]] = {index: [] for index in links}
    for kind, body in messages:
        if kind != RTM_NEWADDR or len(body) < ADDRESS.size:
            continue
        family, prefix_length, _, _, index = ADDRESS.unpack_from(body)
        if index not in found or family not in (socket.AF_INET, socket.AF_INET6):
            continue  # it has come in between
        known = _attributes(body[ADDRESS.size :])
        # Where there is one other end, ADDRESS is that one's, and LOCAL ours.
        own = _host_address(family, known.get(IFA_LOCAL, known.get(IFA_ADDRESS, b"")), links[index])
        broadcast = _host_address(family, known.get(IFA_BROADCAST, b""), links[index])
        if family == socket.AF_INET and own and not broadcast and prefix_length < SHORTEST_NETWORK:
            # Nobody has set it, as for 127.0.0.1, and Linux has it all the same (fib_add_ifaddr() in fib_frontend.c).
            broadcast = HostAddress(IPv4Interface(f"{own}/{prefix_length}").network.broadcast_address)
        if own:
            found[index].append(InterfaceAddress(own, prefix_length, broadcast))
    return [
        NetworkInterface(link.name, index, link.hardware_address, link.flags, link.mtu, tuple(found[index]))
        for index, link in sorted(links.items())
    ]


def _host_address(family: int, packed: bytes, link: NetworkInterface) -> HostAddress:
    if len(packed) != (4 if family == socket.AF_INET else 16):
        return HostAddress.NULL
    address = HostAddress(socket.inet_ntop(family, packed))
    if not address.ip.is_link_local or family == socket.AF_INET:
        return address
    try:
        return HostAddress(f"{address}%{link.name}")
    except ValueError:  # a name that would spoil an address: the number says the same
        return HostAddress(f"{address}%{link.index}")
