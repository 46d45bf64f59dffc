"""Stream sockets between programs of one simulated host (AF_UNIX).

Names live on the host, and their files are for who looks at them: a name is free again when its listener closes, and
also when its file is unlinked.
"""

from __future__ import annotations

import errno
import os

from trioqt.links.base import Bytes
from trioqt.links.interrupts import protected
from trioqt.testing.network.checksums import checksum, is_hello
from trioqt.testing.network.host import Host, fail
from trioqt.testing.network.options import Options
from trioqt.testing.network.stream_ends import StreamEnd, StreamListener, first_bytes

__all__ = ["UnixEnd", "UnixListener", "UnixName", "spelled"]

UnixName = str | bytes
"""A path is a str, a name in the abstract name space bytes that begin with a null."""


def spelled(name: UnixName) -> UnixName:
    """The one spelling of a name."""
    if isinstance(name, str):
        return os.fsencode(name) if name.startswith("\0") else name
    return name if name.startswith(b"\0") else os.fsdecode(name)


@protected
class UnixEnd(StreamEnd):
    """One end of a connection.  What is sent is at once in the other end's queue; there is nothing between them."""

    __slots__ = ("_encrypted", "_host", "name", "options", "peer", "peer_name")

    def __init__(self, name: UnixName, options: Options, host: Host) -> None:
        super().__init__()
        self._host = host
        self._encrypted = False
        self.name: UnixName = name
        self.options: Options = options
        self.peer: UnixEnd | None = None
        self.peer_name: UnixName = ""

    def connect(self, other: UnixEnd) -> None:
        """Make a pair of the two."""
        self.peer, other.peer = other, self
        self.peer_name, other.peer_name = other.name, self.name

    def is_connected(self) -> bool:
        return True

    def is_readable(self) -> bool:
        return bool(self.arrived or self._is_at_end() or self.error)

    def is_writable(self) -> bool:
        """Would a send take something, or fail, at once?"""
        peer = self.peer
        if peer is None or self.sending_ended or peer.receiving_ended:
            return True
        return len(peer.arrived) < self.options.send_buffer

    def queued(self) -> tuple[int, int]:
        return len(self.arrived), 0

    def _is_at_end(self) -> bool:
        return self.receiving_ended or self.peer is None or self.peer.sending_ended

    def send(self, data: Bytes) -> int:
        """Raises: BlockingIOError, OSError EPIPE."""
        peer = self.peer
        self.fail_once()
        if peer is None or self.sending_ended or peer.receiving_ended:
            fail(errno.EPIPE)
        room = self.options.send_buffer - len(peer.arrived)
        if not len(data):
            return 0
        if room <= 0:
            fail(errno.EAGAIN)
        piece = first_bytes(data, room)
        if not self._encrypted:
            self._encrypted = is_hello(piece)
            self._host.fabric.trace.carry(0 if self._encrypted else checksum(piece))
        peer.arrived.append(piece)
        if peer.waker is not None:
            peer.waker.wake_reader()
        return len(piece)

    def _read_nothing(self, count: int) -> bytes:
        """Raises: BlockingIOError, OSError ECONNRESET if the peer closed with bytes unread."""
        self.fail_once()
        if self._is_at_end() or count == 0:
            return b""
        fail(errno.EAGAIN)

    def _tell_room(self) -> None:
        if self.peer is not None and self.peer.waker is not None and self.peer.is_writable():
            self.peer.waker.wake_writer()

    def finish(self) -> None:
        self.sending_ended = True
        self._wake_all()

    def receive_no_more(self) -> None:
        self.receiving_ended = True
        self._wake_all()

    def writer_waits(self) -> None:
        """Nothing to prepare."""

    def close(self, *, reset: bool = False) -> None:
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.peer = None
            if self.arrived:
                peer.error = errno.ECONNRESET
            peer.wake_both()
        self.let_go()

    def _wake_all(self) -> None:
        self.wake_both()
        if self.peer is not None:
            self.peer.wake_both()


@protected
class UnixListener(StreamListener[UnixEnd]):
    """A name that accepts connections."""

    def __init__(self, host: Host, name: UnixName, options: Options, backlog: int) -> None:
        super().__init__(backlog)
        self.host = host
        self.name = name
        self.options = options

    def connect(self, client: UnixEnd) -> None:
        """Raises: BlockingIOError if too many wait."""
        if self.is_shut:
            fail(errno.ECONNREFUSED)
        if len(self.ready) > self.backlog:
            fail(errno.EAGAIN)
        end = UnixEnd(self.name, self.options.copy(), self.host)
        client.connect(end)
        self.offer(end)

    def close(self) -> None:
        for end in self.ready:
            peer = end.peer
            end.close()
            if peer is not None:
                peer.error = errno.ECONNRESET
        self.ready.clear()
