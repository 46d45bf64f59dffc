"""Many datagrams with one system call: recvmmsg(2), which Python does not offer.  A shortcut: nothing depends on it.

Where datagrams come in crowds a receiver in Python pays more for each call than the kernel does: 3.3 us a datagram one
by one, 1.6 by the batch.  A single one costs as much either way, so who has no crowd need not come here.

Only Linux has the call, and what it is given is laid out here for machines of 64 bits that are little-endian.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from typing import Any, Final

import trio

from trioqt.links.base import Ancillary, Sockaddr
from trioqt.links.interrupts import protected

__all__ = ["AT_ONCE", "ManyDatagrams", "many_of_this_run", "opened"]

# Taken by one call; 64 gained nothing more.  Each has room for the longest, but what none has filled is no memory.
AT_ONCE: Final = 32

# Where the kernel puts one datagram: its data, and in front the sender and what else is told.  No datagram has more
# than 65,535 bytes, and no struct sockaddr_in6 more than 28.
ROOM, NAME_ROOM, ANCILLARY_ROOM = 65536, 32, 256
HEAD: Final = NAME_ROOM + ANCILLARY_ROOM

IOVEC: Final = struct.Struct("=QQ")  # | where | how much |
# struct mmsghdr: | name, and its length | iovec, how many | ancillary data, and their length | flags | bytes received |
HEADER: Final = struct.Struct("=QI4xQQQQI4xI4x")
RECEIVED: Final = struct.Struct("=40xQ8xI4x")  # of that: how long the ancillary data are, and the datagram

CMSGHDR: Final = struct.Struct("=Qii")  # | length, this included | level | type |
SOCKADDR_IN: Final = struct.Struct("=2x2s4s")  # | family | port | address |, in the network's order but for the family
SOCKADDR_IN6: Final = struct.Struct("=2x2s4s16sI")  # | family | port | flow | address |, and the scope in the host's

HEADERS, IOVECS = 0, AT_ONCE * HEADER.size
HEADS: Final = IOVECS + AT_ONCE * IOVEC.size
FRONT: Final = HEADS + AT_ONCE * HEAD
PLACES: Final = -(-FRONT // mmap.PAGESIZE) * mmap.PAGESIZE
HEAD_OFFSETS = [HEADS + number * HEAD for number in range(AT_ONCE)]
PLACE_OFFSETS = [PLACES + number * ROOM for number in range(AT_ONCE)]


@protected
class ManyDatagrams:
    """Room for a batch, whose datagrams are taken out before the next.

    Raises: OSError: The system has no such call.
    """

    def __init__(self) -> None:
        try:
            self._call: Any = ctypes.CDLL(None, use_errno=True).recvmmsg
        except AttributeError as exc:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from exc
        self._call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
        # A child that is forked has its own; shared memory would be that of both.
        self._memory = mmap.mmap(-1, PLACES + AT_ONCE * ROOM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._start = start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for number, (head, place) in enumerate(zip(HEAD_OFFSETS, PLACE_OFFSETS, strict=True)):
            iovec = IOVECS + number * IOVEC.size
            IOVEC.pack_into(self._memory, iovec, start + place, ROOM)
            told = start + head + NAME_ROOM
            header = (start + head, NAME_ROOM, start + iovec, 1, told, ANCILLARY_ROOM, 0, 0)
            HEADER.pack_into(self._memory, HEADERS + number * HEADER.size, *header)
        self._fresh = self._memory[:FRONT]
        try:
            self.receive(-1, 1)
        except OSError as exc:
            if exc.errno != errno.EBADF:  # a sandbox, for one, may know only the older calls
                raise

    def receive(self, descriptor: int, most: int) -> list[tuple[bytes, bytes]]:
        """Take up to ``most`` datagrams, each with what ``opened`` opens.  Raises: BlockingIOError, OSError."""
        memory = self._memory
        # What the last call has left there: the kernel reads the lengths, and equal senders shall look equal.
        memory[:FRONT] = self._fresh
        received = self._call(descriptor, self._start, min(most, AT_ONCE), socket.MSG_DONTWAIT, None)
        if received < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        lengths = RECEIVED.iter_unpack(memory[: received * HEADER.size])
        return [
            (memory[place : place + length], memory[head : head + NAME_ROOM + told])
            for (told, length), place, head in zip(lengths, PLACE_OFFSETS, HEAD_OFFSETS, strict=False)
        ]


def opened(head: bytes) -> tuple[Sockaddr, tuple[Ancillary, ...]]:
    """Whom it came from, and what came beside it, as ``recvmsg`` of the standard library has them."""
    family = int.from_bytes(head[:2], sys.byteorder)
    source: Sockaddr
    if family == socket.AF_INET:
        port, address = SOCKADDR_IN.unpack_from(head)
        source = socket.inet_ntop(socket.AF_INET, address), int.from_bytes(port, "big")
    else:
        port, flow, address, scope = SOCKADDR_IN6.unpack_from(head)
        text = socket.inet_ntop(socket.AF_INET6, address)
        source = text, int.from_bytes(port, "big"), int.from_bytes(flow, "big"), scope
    ancillary: list[Ancillary] = []
    start = NAME_ROOM
    while start + CMSGHDR.size <= len(head):
        length, level, kind = CMSGHDR.unpack_from(head, start)
        if length < CMSGHDR.size:
            break
        ancillary.append((level, kind, head[start + CMSGHDR.size : start + length]))
        start += -(-length // 8) * 8
    return source, tuple(ancillary)


_MANY = trio.lowlevel.RunVar["ManyDatagrams | None"]("many datagrams")


def many_of_this_run() -> ManyDatagrams | None:
    """The room that all sockets of a run share, where there is such a call."""
    try:
        return _MANY.get()
    except LookupError:
        many = None
        if sys.platform == "linux" and sys.byteorder == "little" and struct.calcsize("P") == 8:
            try:
                many = ManyDatagrams()
            except OSError:
                pass
        _MANY.set(many)
        return many
    except RuntimeError:  # outside of a run
        return None
