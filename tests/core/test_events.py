"""Events: frozen values with Qt's fields, and which of them merge."""

from __future__ import annotations

import copy
import pickle

import attrs
import pytest

import trioqt
from trioqt.core import events
from trioqt.core.addresses import HostAddress
from trioqt.core.errors import ErrorKind
from trioqt.core.events import (
    AcceptError,
    BytesWritten,
    Connected,
    ConnectionFinished,
    Disconnected,
    Draining,
    Encrypted,
    ErrorOccurred,
    Event,
    HostFound,
    NewConnection,
    Nudge,
    ReadChannelFinished,
    ReadyRead,
    StateChanged,
)
from trioqt.core.socket_state import SocketState

PEER = HostAddress("192.0.2.1")

# One of each, twice: made apart, and equal.
EXAMPLES: list[tuple[Event, Event]] = [
    (StateChanged(SocketState.BOUND), StateChanged(state=SocketState.BOUND)),
    (HostFound(), HostFound()),
    (Connected(), Connected()),
    (Encrypted(), Encrypted()),
    (ReadChannelFinished(), ReadChannelFinished()),
    (Disconnected(), Disconnected()),
    (ErrorOccurred(ErrorKind.NETWORK, "no route"), ErrorOccurred(kind=ErrorKind.NETWORK, message="no route")),
    (ReadyRead(), ReadyRead()),
    (BytesWritten(3), BytesWritten(count=3)),
    (NewConnection(), NewConnection()),
    (AcceptError(ErrorKind.SOCKET_RESOURCE, "full"), AcceptError(kind=ErrorKind.SOCKET_RESOURCE, message="full")),
    (ConnectionFinished(PEER, 4000, None), ConnectionFinished(peer=PEER, peer_port=4000, error=None)),
    (Draining(), Draining()),
]


def test_these_are_facts_and_these_are_nudges() -> None:
    """A fact is never lost silently; a nudge says "look again", and a waiting one absorbs the next."""
    classes = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
    kinds = set(classes) - {Event, Nudge}

    assert {kind for kind in kinds if not issubclass(kind, Nudge)} == {
        StateChanged,
        HostFound,
        Connected,
        Encrypted,
        ReadChannelFinished,
        Disconnected,
        ErrorOccurred,
        ConnectionFinished,
        Draining,
    }
    assert {kind for kind in kinds if issubclass(kind, Nudge)} == {ReadyRead, BytesWritten, NewConnection, AcceptError}
    assert {type(event) for event, _ in EXAMPLES} == kinds
    assert kinds <= {getattr(trioqt, name) for name in trioqt.__all__}


def test_events_have_these_fields_in_this_order() -> None:
    """The order is what ``case ErrorOccurred(kind, message)`` matches by."""
    fields = {type(event).__name__: type(event).__match_args__ for event, _ in EXAMPLES}

    assert fields == {
        "StateChanged": ("state",),
        "HostFound": (),
        "Connected": (),
        "Encrypted": (),
        "ReadChannelFinished": (),
        "Disconnected": (),
        "ErrorOccurred": ("kind", "message"),
        "ReadyRead": (),
        "BytesWritten": ("count",),
        "NewConnection": (),
        "AcceptError": ("kind", "message"),
        "ConnectionFinished": ("peer", "peer_port", "error"),
        "Draining": (),
    }


@pytest.mark.parametrize("event", [event for event, _ in EXAMPLES], ids=lambda event: type(event).__name__)
def test_an_event_cannot_be_changed(event: Event) -> None:
    """Every listener gets the same object, so nobody may write on it."""
    for field in attrs.fields(type(event)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(event, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        event.note = "mine"  # type: ignore[attr-defined]


def test_events_are_equal_if_they_say_the_same() -> None:
    """Kind and fields decide, so a test can compare a whole list of them; equal ones hash alike."""
    for number, (event, same) in enumerate(EXAMPLES):
        others = [other for other_number, (other, _) in enumerate(EXAMPLES) if other_number != number]

        assert event == same
        assert hash(event) == hash(same)
        assert event is not same
        assert event not in others
    assert StateChanged(SocketState.BOUND) != StateChanged(SocketState.CLOSING)
    assert BytesWritten(3) != BytesWritten(4)
    like_an_error: Event = AcceptError(ErrorKind.NETWORK, "no route")
    assert like_an_error != ErrorOccurred(ErrorKind.NETWORK, "no route")


@pytest.mark.parametrize("event", [event for event, _ in EXAMPLES], ids=lambda event: type(event).__name__)
def test_an_event_survives_a_copy_and_a_pickle(event: Event) -> None:
    """It can be logged, queued to another process, and compared there."""
    assert copy.copy(event) == event
    assert pickle.loads(pickle.dumps(event)) == event


def test_bytes_written_adds_up() -> None:
    """However many nudges merge, the sum is what the system has taken."""
    first, second = BytesWritten(3), BytesWritten(4)

    assert first.merge(second).merge(BytesWritten(1)) == BytesWritten(8)
    assert (first, second) == (BytesWritten(3), BytesWritten(4))


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (ReadyRead(), ReadyRead()),
        (NewConnection(), NewConnection()),
        (AcceptError(ErrorKind.SOCKET_RESOURCE, "full"), AcceptError(ErrorKind.SOCKET_ACCESS, "forbidden")),
    ],
    ids=["ReadyRead", "NewConnection", "AcceptError"],
)
def test_of_other_nudges_the_later_one_stays(earlier: Nudge, later: Nudge) -> None:
    """It says what is so now; the earlier one says what was."""
    assert earlier.merge(later) is later
