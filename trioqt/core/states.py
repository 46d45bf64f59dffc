"""The life of a socket, as one table.

Everything that changes a socket's state is here and nowhere else.  This module knows nothing about bytes, tasks or
the network, so its tests are plain functions.

A row says: in this state, on this input, the socket ends in that state and tells these things in this order.  A
state among them is told as ``StateChanged``, and the machine is in that state from there on: an error that stands
before a state is told while the old state still holds.  The orders were read off the real Qt 6.12, and they are not
uniform: a refused attempt changes the state first and tells the error after, a lost connection does it the other way
round, and a loss that a write found has no CLOSING in between.

A pair that has no row is illegal: the call raises ``SocketError(OPERATION)`` and nothing has changed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.events import (
    Connected,
    Disconnected,
    ErrorOccurred,
    Event,
    HostFound,
    ReadChannelFinished,
)
from trioqt.core.socket_state import SocketState

__all__ = ["TRANSITIONS", "Input", "StateMachine", "Told"]


class Input(enum.Enum):
    """What can happen to a socket: calls, and news from the network."""

    LOOK_UP = "connect_to_host is called"
    FOUND = "an address is known"
    LEFT_TO_PROXY = "the proxy is to look up the name"
    NO_PROXY = "none of the proxies can carry a connection"
    ATTEMPT_FAILED = "no address could be connected, or none was found"
    ATTEMPT_DROPPED = "connect_to_host was cancelled"
    QUEUE_DROPPED = "an attempt is dropped, and with it bytes that were queued for its connection"
    ESTABLISHED = "an attempt succeeded"
    ADOPTED = "a connection that exists already is taken over"
    BIND = "a local address was taken"
    BIND_FAILED = "a local address could not be taken"
    DATAGRAM_FAILED = "a datagram could not be sent, or did not arrive"
    LISTEN = "a server begins to listen"
    PEER_FINISHED = "the peer will send no more, and we go on (half_open=True)"
    PEER_CLOSED = "the peer will send no more, and we end too (half_open=False)"
    READ_FAILED = "a failure was found while reading"
    WRITE_FAILED = "a failure was found while writing"
    DISCONNECT = "disconnect_from_host is called"
    FLUSHED = "all that was queued is sent"
    ABORT = "the end, now"

    if not TYPE_CHECKING:
        __hash__ = object.__hash__  # as SocketState's


Told = SocketState | type[Event]
"""One thing to tell: a state (as StateChanged), or an event class."""

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState

# fmt: off
TRANSITIONS: dict[tuple[SocketState, Input], tuple[SocketState, tuple[Told, ...]]] = {
    # -- connecting.  A second connect_to_host is refused aloud: it tells OPERATION and disturbs nothing.
    (UNCONNECTED, Input.LOOK_UP):         (HOST_LOOKUP, (HOST_LOOKUP,)),
    (BOUND,       Input.LOOK_UP):         (HOST_LOOKUP, (HOST_LOOKUP,)),
    (HOST_LOOKUP, Input.LOOK_UP):         (HOST_LOOKUP, (ErrorOccurred,)),
    (CONNECTING,  Input.LOOK_UP):         (CONNECTING,  (ErrorOccurred,)),
    (CONNECTED,   Input.LOOK_UP):         (CONNECTED,   (ErrorOccurred,)),
    (CLOSING,     Input.LOOK_UP):         (CLOSING,     (ErrorOccurred,)),
    (HOST_LOOKUP, Input.FOUND):           (CONNECTING,  (CONNECTING, HostFound)),
    (HOST_LOOKUP, Input.LEFT_TO_PROXY):   (CONNECTING,  (CONNECTING,)),
    (UNCONNECTED, Input.NO_PROXY):        (UNCONNECTED, (ErrorOccurred,)),
    (BOUND,       Input.NO_PROXY):        (BOUND,       (ErrorOccurred,)),
    (HOST_LOOKUP, Input.ATTEMPT_FAILED):  (UNCONNECTED, (UNCONNECTED, ErrorOccurred)),
    (CONNECTING,  Input.ATTEMPT_FAILED):  (UNCONNECTED, (UNCONNECTED, ErrorOccurred)),
    (HOST_LOOKUP, Input.ATTEMPT_DROPPED): (UNCONNECTED, (UNCONNECTED,)),
    (CONNECTING,  Input.ATTEMPT_DROPPED): (UNCONNECTED, (UNCONNECTED,)),
    (HOST_LOOKUP, Input.QUEUE_DROPPED):   (UNCONNECTED, (UNCONNECTED, ErrorOccurred, ReadChannelFinished)),
    (CONNECTING,  Input.QUEUE_DROPPED):   (UNCONNECTED, (UNCONNECTED, ErrorOccurred, ReadChannelFinished)),
    (CONNECTING,  Input.ESTABLISHED):     (CONNECTED,   (CONNECTED, Connected)),

    # -- taking over what is there.  A second connection replaces the first without a word, as in Qt.
    (UNCONNECTED, Input.ADOPTED):         (CONNECTED,   (CONNECTED,)),
    (BOUND,       Input.ADOPTED):         (CONNECTED,   (CONNECTED,)),
    (CONNECTED,   Input.ADOPTED):         (CONNECTED,   ()),

    # -- a local address.  A bind at the wrong moment fails aloud too, and disturbs nothing.
    (UNCONNECTED, Input.BIND):            (BOUND,       (BOUND,)),
    (UNCONNECTED, Input.BIND_FAILED):     (UNCONNECTED, (ErrorOccurred,)),
    (HOST_LOOKUP, Input.BIND_FAILED):     (HOST_LOOKUP, (ErrorOccurred,)),
    (CONNECTING,  Input.BIND_FAILED):     (CONNECTING,  (ErrorOccurred,)),
    (CONNECTED,   Input.BIND_FAILED):     (CONNECTED,   (ErrorOccurred,)),
    (BOUND,       Input.BIND_FAILED):     (BOUND,       (ErrorOccurred,)),
    (CLOSING,     Input.BIND_FAILED):     (CLOSING,     (ErrorOccurred,)),
    (UNCONNECTED, Input.LISTEN):          (LISTENING,   ()),

    # -- datagrams.  One that fails is told, and says nothing of the next one.
    (UNCONNECTED, Input.DATAGRAM_FAILED): (UNCONNECTED, (ErrorOccurred,)),
    (HOST_LOOKUP, Input.DATAGRAM_FAILED): (HOST_LOOKUP, (ErrorOccurred,)),
    (CONNECTING,  Input.DATAGRAM_FAILED): (CONNECTING,  (ErrorOccurred,)),
    (CONNECTED,   Input.DATAGRAM_FAILED): (CONNECTED,   (ErrorOccurred,)),
    (BOUND,       Input.DATAGRAM_FAILED): (BOUND,       (ErrorOccurred,)),

    # -- the peer
    (CONNECTED,   Input.PEER_FINISHED):   (CONNECTED,   (ReadChannelFinished,)),
    (CONNECTED,   Input.PEER_CLOSED):     (CLOSING,     (ErrorOccurred, CLOSING)),
    (CONNECTED,   Input.READ_FAILED):     (UNCONNECTED, (ErrorOccurred, CLOSING, UNCONNECTED, ReadChannelFinished, Disconnected)),  # noqa: E501
    (CONNECTED,   Input.WRITE_FAILED):    (UNCONNECTED, (ErrorOccurred, UNCONNECTED, ReadChannelFinished, Disconnected)),  # noqa: E501
    (CLOSING,     Input.WRITE_FAILED):    (UNCONNECTED, (ErrorOccurred, UNCONNECTED, ReadChannelFinished, Disconnected)),  # noqa: E501

    # -- ending it ourselves.  A socket that was only bound tells all of it on disconnect and less on abort, as in Qt.
    (UNCONNECTED, Input.DISCONNECT):      (UNCONNECTED, ()),
    (HOST_LOOKUP, Input.DISCONNECT):      (UNCONNECTED, (UNCONNECTED, ReadChannelFinished)),
    (CONNECTING,  Input.DISCONNECT):      (UNCONNECTED, (UNCONNECTED, ReadChannelFinished)),
    (BOUND,       Input.DISCONNECT):      (CLOSING,     (CLOSING,)),
    (CONNECTED,   Input.DISCONNECT):      (CLOSING,     (CLOSING,)),
    (CLOSING,     Input.DISCONNECT):      (CLOSING,     ()),
    (CLOSING,     Input.FLUSHED):         (UNCONNECTED, (UNCONNECTED, ReadChannelFinished, Disconnected)),
    (UNCONNECTED, Input.ABORT):           (UNCONNECTED, ()),
    (HOST_LOOKUP, Input.ABORT):           (UNCONNECTED, (UNCONNECTED, ReadChannelFinished)),
    (CONNECTING,  Input.ABORT):           (UNCONNECTED, (UNCONNECTED, ReadChannelFinished)),
    (BOUND,       Input.ABORT):           (UNCONNECTED, (UNCONNECTED, ReadChannelFinished)),
    (CONNECTED,   Input.ABORT):           (UNCONNECTED, (UNCONNECTED, ReadChannelFinished, Disconnected)),
    (CLOSING,     Input.ABORT):           (UNCONNECTED, (UNCONNECTED, ReadChannelFinished, Disconnected)),
    (LISTENING,   Input.ABORT):           (UNCONNECTED, ()),
}
# fmt: on


class StateMachine:
    """One socket's place in the table."""

    __slots__ = ("_finish_told", "state")

    def __init__(self) -> None:
        self.state: SocketState = UNCONNECTED
        self._finish_told = False

    def allows(self, happened: Input) -> bool:
        """Has the table a row for ``happened`` in the present state?"""
        return (self.state, happened) in TRANSITIONS

    def feed(self, happened: Input, tell: Callable[[Told], None]) -> None:
        """Go where the table says, and tell what it says, in its order.

        Args:
          tell: Called for each thing; ``state`` already has the value that holds at that moment.

        Raises:
          SocketError: OPERATION if the table has no such row; nothing has changed.
        """
        row = TRANSITIONS.get((self.state, happened))
        if row is None:
            state = self.state.name.lower().replace("_", " ")
            raise SocketError(ErrorKind.OPERATION, f"not possible while {state}: {happened.value}")
        following, told = row
        if happened is Input.ADOPTED:  # it may replace a connection without a word, so no told state says it is new
            self._finish_told = False
        for thing in told:
            if thing is ReadChannelFinished:
                # The one thing the table cannot say: it is told once in a connection, so the row that ends a
                # connection whose peer had finished already leaves it out.
                if self._finish_told:
                    continue
                self._finish_told = True
            elif type(thing) is SocketState:
                self.state = thing
                if thing is not CLOSING and thing is not UNCONNECTED:
                    self._finish_told = False
            tell(thing)
        self.state = following
