"""A listening socket that is about to close: connections under way are finished, and nobody new is answered.

The kernel answers a client without us.  Between the last ``accept`` and ``close`` it may finish another handshake, and
then resets that connection, whose client was told that it is connected.  Measured on Linux 6.18, with six processes
that connect as fast as they can: 2 to 18 lost in 400 stops.  So Linux is asked, for the last millisecond, to drop who
asks for a connection; these ask again after a second, and are refused then (or find whoever listens there by then).
Who is in the middle of a handshake after that millisecond comes from farther away, see ``handshakes.py``.
Whoever has the same socket in another process would be deaf too, so it is not for one that may be shared.
"""

from __future__ import annotations

import array
import socket
import struct
import sys
import time

from trioqt.core.options import IPPROTO_SCTP
from trioqt.links.base import NativeSocket

__all__ = ["ignore_newcomers"]

# asm-generic/socket.h; Python has no name for it.
SO_ATTACH_FILTER = 26

# Classic BPF over a TCP header: drop it if of the flags SYN and ACK, in byte 13, only SYN is set.  (code, where to
# jump if true, and if false, operand), as in linux/filter.h.
DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte
        (0x54, 0, 0, 0x12),  # mask it
        (0x15, 0, 1, 0x02),  # is it SYN alone?
        (0x06, 0, 0, 0),  # then drop
        (0x06, 0, 0, 0xFFFFFFFF),  # else let it pass
    )
)

# Twenty times what a handshake on loopback takes.
HANDSHAKE = 0.001


def ignore_newcomers(sock: NativeSocket) -> bool:
    """Answer nobody any more until it is closed, and give handshakes under way the time to end.

    Returns: False where that is not possible.
    """
    if sys.platform != "linux" or not isinstance(sock, socket.socket) or sock.proto == IPPROTO_SCTP:
        return False
    program = array.array("B", DROP_SYN)
    address, _ = program.buffer_info()
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(DROP_SYN) // 8, address))
    except OSError:  # a sandbox
        return False
    time.sleep(HANDSHAKE)  # blocking, because a stop is one step: nobody may see half of it
    return True
