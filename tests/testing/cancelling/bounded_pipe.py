"""A connection in memory with a bounded buffer in each direction.

Like a kernel's socket, and unlike trio's memory streams: a slow reader holds the writer up, and a cancelled
``send_all`` may have sent a part.
"""

from __future__ import annotations

from typing import Self

import attrs
import trio

__all__ = ["PipeEnd", "pipe_pair"]


@attrs.define(eq=False)
class _Flow:
    """One direction.  Whoever changes it wakes everybody who waits for a change."""

    capacity: int
    data: bytearray = attrs.Factory(bytearray)
    ended: bool = False
    changed: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)


@attrs.define(eq=False)
class PipeEnd:
    """One end; the other is its mirror."""

    _inward: _Flow
    _outward: _Flow
    closed: bool = False

    async def send_all(self, data: bytes) -> None:
        """Cancelled: the peer has got a part."""
        await trio.lowlevel.checkpoint_if_cancelled()
        flow = self._outward
        while data:
            self._must_be_open()
            room = flow.capacity - len(flow.data)
            if not room:
                await flow.changed.park()
                continue
            flow.data += data[:room]
            data = data[room:]
            flow.changed.unpark_all()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def receive_some(self) -> bytes:
        """Cancelled: nothing was taken."""
        await trio.lowlevel.checkpoint_if_cancelled()
        flow = self._inward
        while not flow.data and not flow.ended:
            self._must_be_open()
            await flow.changed.park()
        chunk = bytes(flow.data)
        flow.data.clear()
        flow.changed.unpark_all()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return chunk

    def close(self) -> None:
        self.closed = self._outward.ended = True
        for flow in (self._inward, self._outward):
            flow.changed.unpark_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _must_be_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError


def pipe_pair(capacity: int) -> tuple[PipeEnd, PipeEnd]:
    """Two ends of one connection."""
    there, back = _Flow(capacity), _Flow(capacity)
    return PipeEnd(back, there), PipeEnd(there, back)
