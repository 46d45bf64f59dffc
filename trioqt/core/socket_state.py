"""The names of a socket's states, apart from their table: an event carries one, and the table names the events."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

__all__ = ["SocketState"]


class SocketState(enum.Enum):
    """The seven states of a socket.  Qt: QAbstractSocket::SocketState (same numbers)."""

    UNCONNECTED = 0
    """No connection, and none being made."""
    HOST_LOOKUP = 1
    """``connect_to_host`` is looking up the name."""
    CONNECTING = 2
    """``connect_to_host`` is trying the addresses."""
    CONNECTED = 3
    """Bytes can be sent and received.  Still so when only the peer has finished (``half_open=True``)."""
    BOUND = 4
    """A local address is taken, nothing more."""
    LISTENING = 5
    """A server accepts connections."""
    CLOSING = 6
    """What is queued is being sent; then the connection ends."""

    if not TYPE_CHECKING:
        __hash__ = object.__hash__  # Enum's is a function in Python, and each step of the table asks for two
