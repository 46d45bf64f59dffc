"""The sending half of a simulated TCP connection: what the peer has, what is on its way, and what still waits.

It counts and keeps.  How a segment gets to the peer, and when it is repeated, the end of the connection knows.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from trioqt.links.interrupts import protected
from trioqt.testing.network.checksums import is_hello
from trioqt.testing.network.fabric import Packet

__all__ = ["SEGMENT_SIZE", "Sending"]

# What a segment carries at most: what a card with segmentation offload takes in one piece.  Segments of 1,460 bytes
# would make ten events of one, and nothing that a program could notice.
SEGMENT_SIZE: Final = 16384


class Limits(Protocol):
    """The socket options that say how much is kept here, in bytes."""

    send_buffer: int
    unsent_limit: int


@protected
class Sending:
    """| acknowledged | unacked: sent, may have to be repeated | unsent: the peer has no room |."""

    __slots__ = ("acked", "edge", "encrypted", "fin_seq", "sent", "unacked", "unacked_size", "unsent", "unsent_size")

    def __init__(self) -> None:
        self.acked: int = 0
        """The peer has everything before this byte."""
        self.sent: int = 0
        self.edge: int = 0
        """The end of the peer's room."""
        self.fin_seq: int = -1
        """Of the FIN, once it is sent."""
        self.unacked: deque[Packet] = deque()
        self.unacked_size: int = 0
        self.unsent: deque[bytes] = deque()
        self.unsent_size: int = 0
        self.encrypted: bool = False
        """A TLS handshake has begun."""

    def room(self, limits: Limits) -> int:
        """How many bytes it takes now."""
        if self.unsent_size >= limits.unsent_limit:
            return 0
        return max(limits.send_buffer - self.unacked_size - self.unsent_size, 0)

    def goes_at_once(self, size: int) -> bool:
        """Does a piece of that size fit into one segment, with nothing before it and room at the peer?"""
        return not self.unsent and size <= SEGMENT_SIZE and self.sent + size <= self.edge

    def queue(self, piece: bytes) -> None:
        """It waits for room at the peer."""
        self.unsent.append(piece)
        self.unsent_size += len(piece)

    def next_piece(self) -> bytes:
        """Take what the next segment carries; ``b""`` if nothing waits, or the peer has no room."""
        window = min(self.edge - self.sent, SEGMENT_SIZE)
        if not self.unsent or window <= 0:
            return b""
        data = self.unsent.popleft()
        if len(data) > window:
            self.unsent.appendleft(data[window:])
            data = data[:window]
        self.unsent_size -= len(data)
        return data

    def waits_for_room(self) -> bool:
        """Has the peer got everything that it has had room for, and is there more?"""
        return bool(self.unsent) and not self.unacked

    def depart(self, packet: Packet) -> None:
        """It is on its way, and is kept until it is acknowledged.  A FIN counts as a byte."""
        size = len(packet.data)
        if size and not self.encrypted and is_hello(packet.data):
            self.encrypted = True
        packet.encrypted = self.encrypted
        self.sent += size or 1
        self.unacked.append(packet)
        self.unacked_size += size

    def acknowledged(self, ack: int, edge: int) -> bool:
        """The peer has everything before ``ack``, and room as far as ``edge``.  True: it has more than before."""
        if edge > self.edge:
            self.edge = edge
        if ack <= self.acked:
            return False
        self.acked = ack
        unacked = self.unacked
        while unacked and unacked[0].seq + len(unacked[0].data) <= ack and unacked[0].seq < ack:
            self.unacked_size -= len(unacked.popleft().data)
        return True

    def has_lost(self) -> bool:
        """Has something not got through?"""
        return any(packet.lost for packet in self.unacked)

    def again(self) -> list[Packet]:
        """What is to be repeated: all that is known to be lost, or else the first."""
        return [packet for packet in self.unacked if packet.lost] or [self.unacked[0]]

    def drop(self) -> None:
        """Nothing of it is to be sent any more."""
        self.unacked.clear()
        self.unsent.clear()
        self.unacked_size = self.unsent_size = 0
