"""What happened on a simulated network, as values, and as one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from zlib import crc32

import attrs

from trioqt.links.interrupts import protected

__all__ = ["Record", "TRACE_LIMIT", "Trace", "TraceEvent"]

Record = tuple[float, str, str, int, str, int, int, str, int, float, bool]
"""| time | kind | source | its port | target | its port | size | note | checksum of the content | when it was sent |
is it sent again? |
"""

# So many columns of a record are hashed: when a packet was sent, and what repeats what, follows from those.
_HASHED = 9

# Some 200 bytes each: a network that nobody asks keeps at most 40 MB of history.
TRACE_LIMIT = 100_000


@attrs.frozen
class TraceEvent:
    """One thing that happened on the network.

    Attributes:
      time: Seconds of trio's clock.
      kind: A segment or datagram that arrived: SYN, SYN-ACK, DATA, FIN, RST, UDP.  Or what befell one: lost, held.  Or
        what a host or the network did: listen, lookup, fault, heal, crash, restart, and so on.
      source: From where: ``host:port``, or a host.
      target: To where.
      size: Bytes of content.
      note: Anything else: which segment was lost, which fault began.
      checksum: Of the content; 0 if there is none, or it is encrypted.
    """

    time: float
    kind: str
    source: str = ""
    target: str = ""
    size: int = 0
    note: str = ""
    checksum: int = attrs.field(default=0, eq=False, repr=False)

    def __str__(self) -> str:
        way = f"{self.source} > {self.target}" if self.target else self.source
        size = f"{self.size} bytes" if self.size else ""
        return " ".join(filter(None, (f"{self.time:.6f}", self.kind, way, size, self.note)))


@protected
class Trace:
    """The last events, and the hash of all."""

    def __init__(self, limit: int = TRACE_LIMIT) -> None:
        self._limit = limit
        self._hash = hashlib.sha256()
        self._hashed = 0  # how many of `_records` the hash has in it
        # Tuples: a frozen attrs object for each would cost as much as delivering the segment.
        self._records: list[Record] = []
        self.total: int = 0
        """How many events there were, those that are no longer kept included."""
        self.deliveries = 0
        """How many segments and datagrams reached a host; acknowledgements are not among them."""
        self._within_hosts = 0

    def carry(self, checksum: int) -> None:
        """Count what went from one program of a host to another, which is no event."""
        self._within_hosts = crc32(checksum.to_bytes(4, "big"), self._within_hosts)

    def add(self, record: Record) -> None:
        """Note that this happened."""
        self._records.append(record)
        self.total += 1
        if len(self._records) >= 2 * self._limit:
            self._update_hash()
            del self._records[: self._limit]
            self._hashed -= self._limit

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[TraceEvent]:
        return (_event(record) for record in list(self._records))

    def last(self, count: int) -> list[TraceEvent]:
        """The latest ``count`` events."""
        return [_event(record) for record in self._records[-count:]]

    def records(self) -> list[Record]:
        """The last events, as they are kept."""
        return list(self._records)

    def digest(self) -> str:
        """A hash of all events so far; 16 hexadecimal digits."""
        self._update_hash()
        found = self._hash.copy()
        found.update(repr(self._within_hosts).encode())
        return found.hexdigest()[:16]

    def _update_hash(self) -> None:
        for record in self._records[self._hashed :]:
            self._hash.update(repr(record[:_HASHED]).encode())
        self._hashed = len(self._records)


def _event(record: Record) -> TraceEvent:
    time, kind, source, source_port, target, target_port, size, note, checksum, _, _ = record
    return TraceEvent(time, kind, _place(source, source_port), _place(target, target_port), size, note, checksum)


def _place(host: str, port: int) -> str:
    return f"{host}:{port}" if port else host
