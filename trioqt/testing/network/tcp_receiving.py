"""The receiving half of a simulated TCP connection: segments in their order, and the room that the peer is told of."""

from __future__ import annotations

from trioqt.core.buffers import ReadBuffer
from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Packet

__all__ = ["Receiving"]


@protected
class Receiving:
    """Puts into ``arrived`` what comes, in its order."""

    __slots__ = ("arrived", "early", "fin_received", "position", "room_told")

    def __init__(self, arrived: ReadBuffer) -> None:
        self.arrived: ReadBuffer = arrived
        self.position: int = 0
        """The next byte expected."""
        self.early: dict[int, Packet] = {}
        """Overtook what is expected."""
        self.fin_received: bool = False
        self.room_told: int = 0
        """How far the peer has been told that it may send."""

    def take(self, packet: Packet) -> bool:
        """What was expected has come, and what was too early may follow it.  True: the last of it is the end."""
        self._take(packet)
        while self.early and (early := self.early.pop(self.position, None)) is not None:
            self._take(early)
        return self.fin_received

    def _take(self, packet: Packet) -> None:
        if packet.kind == "FIN":
            self.position += 1
            self.fin_received = True
        else:
            self.position += len(packet.data)
            self.arrived.append(packet.data)

    def tell_room(self, size: int) -> int:
        """How far the peer may send, with a buffer of that size.  What it has been told is not taken back."""
        edge = self.position + max(size - len(self.arrived), 0)
        self.room_told = edge = max(edge, self.room_told)
        return edge

    def has_much_room(self, size: int) -> bool:
        """Is half the buffer free that the peer believes full?  (RFC 9293, 3.8.6.2.2)"""
        return self.position + size - len(self.arrived) - self.room_told >= size // 2
