"""How many connections one address may have: a server's ``max_connections_per_peer``."""

from __future__ import annotations

import math
from collections import Counter

from trioqt.links.interrupts import protected

__all__ = ["PeerLimit"]

# A refused peer may come again at once, and for ever: ten records a minute tell as much as all.
LOG_PAUSE = 6.0


@protected
class PeerLimit:
    """Counts the connections of each address.

    Args:
      most: So many may one have.
    """

    __slots__ = ("_counts", "_hosts", "_left_out", "_next_record", "most")

    def __init__(self, most: int) -> None:
        self.most: int = most
        self._counts: Counter[str] = Counter()
        self._hosts: dict[int, str] = {}  # of each socket, by its id
        self._next_record = -math.inf
        self._left_out = 0

    def is_reached(self, host: str) -> bool:
        """Has that address as many as it may?"""
        return self._counts[_unmapped(host)] >= self.most

    def count(self, sock: object, host: str) -> None:
        """A connection of that address was accepted."""
        self._hosts[id(sock)] = host = _unmapped(host)
        self._counts[host] += 1

    def forget(self, sock: object) -> None:
        """It has ended."""
        host = self._hosts.pop(id(sock), None)
        if host is not None:
            self._counts[host] -= 1
            if not self._counts[host]:
                del self._counts[host]

    def record(self, message: str, now: float) -> str | None:
        """What to log of a refusal; None if enough was logged lately."""
        if now < self._next_record:
            self._left_out += 1
            return None
        if self._left_out:
            message += f" ({self._left_out:,} more since the last record)"
        self._left_out, self._next_record = 0, now + LOG_PAUSE
        return message


def _unmapped(host: str) -> str:
    """An IPv4-mapped address is the same peer as its IPv4 form."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host
