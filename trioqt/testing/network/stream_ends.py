"""What the ends of every simulated stream have in common, TCP's and AF_UNIX's: bytes that wait, an error that is told
once, who waits for it, and the queue of a listener.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from trioqt.core.buffers import ReadBuffer
from trioqt.links.base import Bytes
from trioqt.links.interrupts import protected
from trioqt.testing.network.host import Waker, fail

__all__ = ["StreamEnd", "StreamListener", "first_bytes"]


@protected
class StreamEnd:
    """One end of a stream, as the socket above it sees it."""

    __slots__ = ("arrived", "error", "receiving_ended", "sending_ended", "waker")

    def __init__(self) -> None:
        self.waker: Waker | None = None
        """Whom to wake; None: no program holds it."""
        self.arrived: ReadBuffer = ReadBuffer()
        self.error: int = 0
        self.sending_ended: bool = False
        self.receiving_ended: bool = False

    def take_error(self) -> int:
        """The error that has not been told yet; it is told once."""
        error, self.error = self.error, 0
        return error

    def fail_once(self) -> None:
        """Raises: OSError if there is an error that has not been told yet."""
        if self.error:
            fail(self.take_error())

    def read(self, count: int, *, peek: bool = False) -> bytes:
        """Up to ``count`` bytes of what has arrived; ``b""`` at the end.

        Raises: BlockingIOError if nothing has; OSError.
        """
        if not self.arrived:
            return self._read_nothing(count)
        if peek:
            return self.arrived.peek(count)
        data = self.arrived.take(count)
        self._tell_room()
        return data

    def _read_nothing(self, count: int) -> bytes:
        """The answer when no bytes wait: ``b""``, or an error."""
        raise NotImplementedError

    def _tell_room(self) -> None:
        """Bytes were taken, so the peer may send more."""
        raise NotImplementedError

    def let_go(self) -> None:
        """No program holds it any more."""
        self.waker = None

    def wake_both(self) -> None:
        """It is over, or half over: whoever waits looks again."""
        if self.waker is not None:
            self.waker.wake_reader()
            self.waker.wake_writer()


EndT = TypeVar("EndT", bound=StreamEnd)


@protected
class StreamListener(Generic[EndT]):
    """A port, or a name, that accepts connections."""

    def __init__(self, backlog: int) -> None:
        self.backlog = backlog
        self.waker: Waker | None = None
        self.ready: deque[EndT] = deque()
        """Established, and not accepted yet."""
        self.is_shut: bool = False

    def is_listening(self) -> bool:
        return not self.is_shut

    def is_gone(self) -> bool:
        return False

    def is_readable(self) -> bool:
        return bool(self.ready) or self.is_shut

    def is_writable(self) -> bool:
        return self.is_shut

    def writer_waits(self) -> None:
        """Nothing to prepare."""

    def take_error(self) -> int:
        return 0

    def offer(self, end: EndT) -> None:
        """A connection can be accepted."""
        self.ready.append(end)
        if self.waker is not None:
            self.waker.wake_reader()

    def shut(self) -> None:
        """shutdown(): it listens no more, but keeps its port, or name."""
        self.is_shut = True
        self.close()

    def close(self) -> None:
        """Accept no more.  Those that wait are reset, as by Linux."""
        raise NotImplementedError


def first_bytes(data: Bytes, room: int) -> bytes:
    """As much of it as there is room for, as a copy that nobody changes."""
    return bytes(data) if len(data) <= room else bytes(memoryview(data)[:room])
