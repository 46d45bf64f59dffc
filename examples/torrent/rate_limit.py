"""So many bytes a second, whoever moves them."""

from __future__ import annotations

import math

import trio

__all__ = ["RateLimit"]


class RateLimit:
    """Bytes wait here for their turn, first come, first served.

    Args:
      rate: Bytes a second; ``math.inf``: no limit.
    """

    def __init__(self, rate: float = math.inf) -> None:
        self._rate = rate
        self._turn = trio.Lock()
        self._free_at = -math.inf

    async def take(self, count: int) -> None:
        """Wait until so many may move.  Cancelled: they have not moved, and nobody waits for them."""
        async with self._turn:
            await trio.sleep_until(max(self._free_at, trio.current_time()))
            self._free_at = trio.current_time() + count / self._rate
