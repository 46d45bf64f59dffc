"""Stream sockets between programs of one simulated host (AF_UNIX).

Names live on the host, not in a file system: a name is free again when its listener closes, and no file is made.
"""

from __future__ import annotations

import errno
import os
from collections import deque

from trioqt.core.buffers import ReadBuffer
from trioqt.links.base import Bytes
from trioqt.testing.network.host import Host, Waker, fail
from trioqt.testing.network.options import Options

__all__ = ["UnixEnd", "UnixListener", "UnixName", "spelled"]

UnixName = str | bytes
"""A path is a str, a name in the abstract name space bytes that begin with a null."""


def spelled(name: UnixName) -> UnixName:
    """The one spelling of a name."""
    if isinstance(name, str):
        return name.encode() if name.startswith("\0") else name
    return name if name.startswith(b"\0") else os.fsdecode(name)


class UnixEnd:
    """One end of a connection.  What is sent is at once in the other end's queue; there is nothing between them."""

    def __init__(self, name: UnixName, options: Options) -> None:
        self.name = name
        self.options = options
        self.peer: UnixEnd | None = None
        self.peer_name: UnixName = ""
        self.socket: Waker | None = None
        self.error: int = 0
        self.arrived: ReadBuffer = ReadBuffer()
        self.sending_ended: bool = False
        self.receiving_ended: bool = False

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

    def take_error(self) -> int:
        error, self.error = self.error, 0
        return error

    def _is_at_end(self) -> bool:
        return self.receiving_ended or self.peer is None or self.peer.sending_ended

    def send(self, data: Bytes) -> int:
        """Raises: BlockingIOError, OSError EPIPE."""
        peer = self.peer
        if self.error:
            fail(self.take_error())
        if peer is None or self.sending_ended or peer.receiving_ended:
            fail(errno.EPIPE)
        room = self.options.send_buffer - len(peer.arrived)
        if not len(data):
            return 0
        if room <= 0:
            fail(errno.EAGAIN)
        piece = bytes(data) if len(data) <= room else bytes(memoryview(data)[:room])
        peer.arrived.append(piece)
        if peer.socket is not None:
            peer.socket.wake_reader()
        return len(piece)

    def read(self, count: int, *, peek: bool = False) -> bytes:
        """Raises: BlockingIOError, OSError ECONNRESET if the peer closed with bytes unread."""
        if not self.arrived:
            if self.error:
                fail(self.take_error())
            if self._is_at_end():
                return b""
            if count == 0:
                return b""
            fail(errno.EAGAIN)
        if peek:
            return self.arrived.peek(count)
        data = self.arrived.take(count)
        if self.peer is not None and self.peer.socket is not None and self.peer.is_writable():
            self.peer.socket.wake_writer()
        return data

    def finish(self) -> None:
        self.sending_ended = True
        self._wake_both()

    def receive_no_more(self) -> None:
        self.receiving_ended = True
        self._wake_both()

    def writer_waits(self) -> None:
        """Nothing to prepare."""

    def close(self, *, reset: bool = False) -> None:
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.peer = None
            if self.arrived:
                peer.error = errno.ECONNRESET
            peer._wake()
        self.socket = None

    def _wake_both(self) -> None:
        self._wake()
        if self.peer is not None:
            self.peer._wake()

    def _wake(self) -> None:
        if self.socket is not None:
            self.socket.wake_reader()
            self.socket.wake_writer()


class UnixListener:
    """A name that accepts connections."""

    def __init__(self, host: Host, name: UnixName, options: Options, backlog: int) -> None:
        self.host = host
        self.name = name
        self.options = options
        self.backlog = backlog
        self.socket: Waker | None = None
        self.ready: deque[UnixEnd] = deque()
        self.is_shut: bool = False

    def is_readable(self) -> bool:
        return bool(self.ready) or self.is_shut

    def is_writable(self) -> bool:
        return self.is_shut

    def writer_waits(self) -> None:
        """Nothing to prepare."""

    def take_error(self) -> int:
        return 0

    def shut(self) -> None:
        """shutdown(): it listens no more, but keeps its name."""
        self.is_shut = True
        self.close()

    def connect(self, client: UnixEnd) -> None:
        """Raises: BlockingIOError if too many wait."""
        if self.is_shut:
            fail(errno.ECONNREFUSED)
        if len(self.ready) > self.backlog:
            fail(errno.EAGAIN)
        end = UnixEnd(self.name, self.options.copy())
        client.connect(end)
        self.ready.append(end)
        if self.socket is not None:
            self.socket.wake_reader()

    def close(self) -> None:
        for end in self.ready:
            peer = end.peer
            end.close()
            if peer is not None:
                peer.error = errno.ECONNRESET
        self.ready.clear()
