"""A native link that knows when a byte last moved on it, for a server that ends connections on which none does.

All bytes of a connection pass through its link, so a server without such limits gives its connections an ordinary one
and pays nothing.
"""

from __future__ import annotations

import math

import trio

from trioqt.links.base import Bytes, Link, Sockaddr
from trioqt.links.interrupts import protected
from trioqt.links.native import NativeLink

__all__ = ["TimedLink"]

# Who asks again after less than so many seconds has never stopped asking: a loop around a receive with a scope of a
# second does not give the peer a new limit each time.
PAUSE = 0.1

# How exactly the system knows when bytes came, in seconds: Linux counts ticks, of which it has at least 100 a second.
GRAIN = 0.01


@protected
class TimedLink(NativeLink):
    """A native link, in place of ``link``.  Times are trio's.

    Args:
      limits: What is said of them where the connection is described.
    """

    __slots__ = ("_left_at", "_local", "_now", "_waits", "asked_at", "limits", "moved_at", "queued_at")

    def __init__(self, link: Link, limits: str) -> None:
        native = link.native()
        assert native is not None
        super().__init__(native, link.peer_address())
        # What the system does not know, as behind a proxy.
        self._local = None if isinstance(link, NativeLink) else link.local_address()
        self.limits: str = limits
        self._now = trio.lowlevel.current_clock().current_time
        self._waits = 0
        self.drained: bool = link.is_drained()
        self.moved_at: float = self._now()
        """When the system last took a byte or gave one; at first, when the connection began."""
        self.asked_at: float = -math.inf
        """Since when, after that, somebody waits for the rest of something; see ``ask``."""
        self._left_at = -math.inf  # when the last wait ended
        self.queued_at: float = -math.inf
        """When the system last took no more, and bytes were queued; see ``queue``."""

    def local_address(self) -> Sockaddr | None:
        return super().local_address() if self._local is None else self._local

    def ask(self) -> None:
        """Somebody begins to wait for the rest of something that has begun."""
        now = self._now()
        if self.asked_at < self.moved_at or now - self._left_at > PAUSE:
            self.asked_at = now

    def leave(self) -> None:
        """Who waited does so no more."""
        self._left_at = self._now()

    def queue(self) -> None:
        """Bytes are queued, and none were before."""
        self.queued_at = self._now()

    def is_waited_on(self) -> bool:
        """Is a task in ``wait_receivable``?"""
        return self._waits > 0

    def correct(self, before: float) -> None:
        """What was taken just now, or could not be, came earlier, but not before ``before``: the system may know."""
        now = self._now()
        arrived_at = self._sock.arrived_at(now)
        if arrived_at is None:
            return
        if self.moved_at != before:
            self.moved_at = max(before, min(arrived_at, now))
        elif arrived_at > before + GRAIN:  # else it is what was taken last
            self.moved_at = min(arrived_at, now)

    def try_receive(self, max_bytes: int) -> bytes | None:
        data = super().try_receive(max_bytes)
        if data:
            self.moved_at = self._now()
        return data

    async def wait_receivable(self, max_bytes: int) -> None:
        self._waits += 1
        try:
            await super().wait_receivable(max_bytes)
        finally:
            self._waits -= 1
            self.leave()

    def try_send(self, data: Bytes) -> int:
        sent = super().try_send(data)
        if sent:
            self.moved_at = self._now()
        return sent
