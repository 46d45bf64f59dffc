"""What is below a simulated socket when nothing is: not connected yet, closed, or dead with its host or network."""

from __future__ import annotations

import errno
import socket
from typing import Any, NoReturn

import trio

from trioqt.links.base import Bytes
from trioqt.links.interrupts import protected
from trioqt.testing.network.host import fail
from trioqt.testing.network.waiting import for_a_thread, is_system_task

__all__ = ["CLOSED", "CRASHED", "LEFT_OPEN", "Closed", "Fresh"]


@protected
class Closed:
    """Below a closed socket: every call fails with EBADF."""

    def __init__(self, error: int) -> None:
        self._error = error

    def fail(self) -> NoReturn:
        fail(self._error)

    def accept(self) -> NoReturn:
        self.fail()

    def __getattr__(self, name: str) -> Any:
        fail(self._error)

    def is_readable(self) -> bool:
        return True

    def is_writable(self) -> bool:
        return True

    def writer_waits(self) -> None:
        """Nothing to prepare."""

    def close(self, *, reset: bool = False) -> None:
        """It is."""


@protected
class Dead(Closed):
    """Below a socket whose host has crashed, or whose network has ended: every call fails with ENETDOWN.

    To a system task of trio's nothing will ever come, so it waits, until it is cancelled or the socket is closed.  A
    machine without power says nothing to what ran on it; the others are told so that nothing hangs.
    """

    def __init__(self, error: int, accept_error: int) -> None:
        super().__init__(error)
        self._accept_error = accept_error

    def accept(self) -> NoReturn:
        fail(errno.EAGAIN if _is_asked_by_the_system() else self._accept_error)

    def __getattr__(self, name: str) -> Any:
        fail(errno.EAGAIN if _is_asked_by_the_system() else self._error)

    def is_readable(self) -> bool:
        return not _is_asked_by_the_system()

    def is_writable(self) -> bool:
        return not _is_asked_by_the_system()


def _is_asked_by_the_system() -> bool:
    if for_a_thread.get() or not trio.lowlevel.in_trio_task():
        return False
    return is_system_task(trio.lowlevel.current_task())


@protected
class Fresh:
    """Below a socket that is neither connected nor listening."""

    def __init__(self, family: int) -> None:
        self._is_unix = family == socket.AF_UNIX

    def is_readable(self) -> bool:
        return True

    def is_writable(self) -> bool:
        return True

    def read(self, count: int, *, peek: bool = False) -> bytes:
        fail(errno.EINVAL if self._is_unix else errno.ENOTCONN)

    def send(self, data: Bytes) -> int:
        fail(errno.ENOTCONN if self._is_unix else errno.EPIPE)

    def finish(self) -> None:
        if not self._is_unix:
            fail(errno.ENOTCONN)

    def receive_no_more(self) -> None:
        self.finish()

    def take_error(self) -> int:
        return 0

    def writer_waits(self) -> None:
        """Nothing to prepare."""

    def is_listening(self) -> bool:
        return False

    def is_gone(self) -> bool:
        return False

    def close(self, *, reset: bool = False) -> None:
        """Nothing to undo."""


CLOSED = Closed(errno.EBADF)
# accept() does not say ENETDOWN: servers take that for the end of a connection that was never accepted (accept(2)), and
# would try again at once, for ever.
CRASHED = Dead(errno.ENETDOWN, accept_error=errno.EINVAL)
LEFT_OPEN = Dead(errno.ENETDOWN, accept_error=errno.ENETDOWN)  # when the network ended
