"""Looking up a name, as a program of Qt does it."""

from __future__ import annotations

import enum
import socket

import trioqt
from tests.conformance.stand_in.on_stage import stage
from tests.conformance.stand_in.values import QHostAddress

__all__ = ["QHostInfo"]


class QHostInfo:
    """A ``HostInfo``; what trioqt raises is kept in it, as Qt keeps it."""

    class HostInfoError(enum.Enum):
        NoError = 0
        HostNotFound = 1
        UnknownError = 2

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._addresses: tuple[trioqt.HostAddress, ...] = ()
        self._error: trioqt.SocketError | None = None

    @staticmethod
    def fromName(name: str) -> QHostInfo:
        """Waits, with trio's loop at work; Qt's event loop stands still meanwhile."""
        found = QHostInfo(name)
        try:
            info = stage().wait(lambda: trioqt.look_up_host(name))
        except trioqt.SocketError as error:
            found._error = error
        else:
            found._name, found._addresses = info.host_name, info.addresses
        return found

    @staticmethod
    def localHostName() -> str:
        return stage().see(trioqt.local_host_name)

    def hostName(self) -> str:
        return self._name

    def addresses(self) -> list[QHostAddress]:
        return [QHostAddress(address) for address in self._addresses]

    def error(self) -> HostInfoError:
        if self._error is None:
            return self.HostInfoError.NoError
        silent = isinstance(self._error.__cause__, socket.gaierror) and self._error.__cause__.errno == socket.EAI_AGAIN
        return self.HostInfoError.UnknownError if silent else self.HostInfoError.HostNotFound

    def errorString(self) -> str:
        return "Unknown error" if self._error is None else self._error.message
