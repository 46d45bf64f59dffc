"""How many connections one address may have: a server's ``max_connections_per_peer``."""

from __future__ import annotations

from collections import Counter

from trioqt.core.addresses import unmapped
from trioqt.links.interrupts import protected

__all__ = ["PeerLimit"]


@protected
class PeerLimit:
    """Counts the connections of each address; an IPv4-mapped one is the same peer as its IPv4 form.

    Args:
      most: So many may one have.
    """

    __slots__ = ("_counts", "_hosts", "most")

    def __init__(self, most: int) -> None:
        self.most: int = most
        self._counts: Counter[str] = Counter()
        self._hosts: dict[int, str] = {}  # of each socket, by its id

    def is_reached(self, host: str) -> bool:
        """Has that address as many as it may?"""
        return self._counts[unmapped(host)] >= self.most

    def count(self, sock: object, host: str) -> None:
        """A connection of that address was accepted."""
        self._hosts[id(sock)] = host = unmapped(host)
        self._counts[host] += 1

    def forget(self, sock: object) -> None:
        """It has ended."""
        host = self._hosts.pop(id(sock), None)
        if host is not None:
            self._counts[host] -= 1
            if not self._counts[host]:
                del self._counts[host]
