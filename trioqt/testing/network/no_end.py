"""What is below a simulated socket when nothing is: not connected yet, closed, or dead with its host or network."""

from __future__ import annotations

import errno
import socket
from typing import Any, NoReturn

from trioqt.links.base import Bytes
from trioqt.testing.network.host import fail

__all__ = ["CLOSED", "CRASHED", "LEFT_OPEN", "Closed", "Fresh"]


class Closed:
    """Below a closed socket: every call fails with EBADF.  Below one whose host has crashed: with ENETDOWN."""

    def __init__(self, error: int) -> None:
        self._error = error

    def fail(self) -> NoReturn:
        fail(self._error)

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
CRASHED = Closed(errno.ENETDOWN)
LEFT_OPEN = Closed(errno.ENETDOWN)  # when the network ended
