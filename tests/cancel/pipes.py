"""A connection in memory that can be full, finished and reset, as a kernel's can.

``trio.testing.memory_stream_pair`` has no bound and no reset.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import trio

__all__ = ["PipeEnd", "pipe_pair"]


@attrs.define(eq=False)
class Flow:
    """One direction.  Whoever changes it wakes everybody who waits for a change."""

    capacity: int
    data: bytearray = attrs.Factory(bytearray)
    ended: bool = False
    reset: bool = False
    changed: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def end(self, *, reset: bool = False) -> None:
        self.ended = True
        self.reset = self.reset or reset
        self.changed.unpark_all()


@attrs.define(eq=False)
class PipeEnd(trio.abc.HalfCloseableStream):
    """One end; the other is its mirror.

    Bytes that were sent before a reset arrive before it.
    """

    inward: Flow
    outward: Flow
    closed: bool = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Cancelled: the peer has got a part."""
        await trio.lowlevel.checkpoint_if_cancelled()
        rest = memoryview(data)
        while rest:
            await self._until(lambda: len(self.outward.data) < self.outward.capacity, self.outward)
            if self.outward.ended:
                raise trio.BrokenResourceError("the peer is gone")
            room = self.outward.capacity - len(self.outward.data)
            self.put(rest[:room])
            rest = rest[room:]
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.finish()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Cancelled: nothing was taken."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._until(lambda: bool(self.inward.data), self.inward)
        if self.inward.reset and not self.inward.data:
            raise trio.BrokenResourceError("reset by the peer")
        data = bytes(self.inward.data[:max_bytes])
        del self.inward.data[: len(data)]
        self.inward.changed.unpark_all()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    async def aclose(self) -> None:
        """Cancelled: a reset, as TLS without its goodbye."""
        self.close(reset=trio.current_effective_deadline() == -math.inf)
        await trio.lowlevel.checkpoint()

    def put(self, data: bytes | memoryview) -> None:
        """Send at once."""
        self.outward.data += data
        self.outward.changed.unpark_all()

    def finish(self) -> None:
        """Send no more."""
        self.outward.end()

    def close(self, *, reset: bool = False) -> None:
        """Send no more and receive no more."""
        if self.closed:
            return
        self.closed = True
        self.outward.end(reset=reset)
        self.inward.end(reset=True)

    async def _until(self, happened: Callable[[], bool], flow: Flow) -> None:
        while not self.closed and not happened() and not flow.ended:
            await flow.changed.park()
        if self.closed:
            raise trio.ClosedResourceError


def pipe_pair(capacity: int) -> tuple[PipeEnd, PipeEnd]:
    """Two ends of one connection."""
    there, back = Flow(capacity), Flow(capacity)
    return PipeEnd(back, there), PipeEnd(there, back)
