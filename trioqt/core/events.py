"""Qt's signals as frozen values, each marked fact or nudge.

FACTS are never lost silently: a subscription that falls too far behind is told, and ends.
NUDGES say "look again"; while one waits unread in a subscription, a later one of its kind merges into it.
"""

from __future__ import annotations

import attrs

from trioqt.core.addresses import HostAddress
from trioqt.core.errors import ErrorKind
from trioqt.core.network_proxy import NetworkProxy
from trioqt.core.socket_state import SocketState
from trioqt.core.tls import SslError, SslMode

__all__ = [
    "AcceptError",
    "BytesWritten",
    "Connected",
    "ConnectionFinished",
    "Disconnected",
    "Draining",
    "Encrypted",
    "ErrorOccurred",
    "Event",
    "HostFound",
    "ModeChanged",
    "NewConnection",
    "Nudge",
    "ProxyAuthenticationRequired",
    "ReadChannelFinished",
    "ReadyRead",
    "SslErrors",
    "StateChanged",
]


@attrs.frozen
class Event:
    """Base of everything a subscription yields."""


@attrs.frozen
class Nudge(Event):
    """Base of the events that merge while they wait unread; every other event is a fact."""

    def merge(self, later: Nudge) -> Nudge:
        """What stands for this event and a later one of its kind: the later one, unless a class adds them up."""
        return later


# ---- of a socket ---------------------------------------------------------------------------


@attrs.frozen
class StateChanged(Event):
    """The socket entered ``state``.  Fact.  Qt: stateChanged."""

    state: SocketState


@attrs.frozen
class HostFound(Event):
    """The name has an address; for an address given as such it comes too.  Fact.  Qt: hostFound."""


@attrs.frozen
class Connected(Event):
    """An attempt succeeded.  Not told of an adopted or accepted connection.  Fact.  Qt: connected."""


@attrs.frozen
class Encrypted(Event):
    """The TLS handshake is done.  Fact.  Qt: QSslSocket::encrypted."""


@attrs.frozen
class ModeChanged(Event):
    """The socket has become one end of TLS, or speaks none any more.  Fact.  Qt: QSslSocket::modeChanged."""

    mode: SslMode
    """What it speaks now."""


@attrs.frozen
class SslErrors(Event):
    """The peer's certificate was found wrong.  Fact.  Qt: QSslSocket::sslErrors.

    What follows depends on which errors are ignored by then, see ``SslSocket.ignore_ssl_errors``, and on ``PauseMode``.
    """

    errors: tuple[SslError, ...]


@attrs.frozen
class ReadChannelFinished(Event):
    """No byte will arrive any more; some may still be unread.  Fact.  Qt: readChannelFinished."""


@attrs.frozen
class Disconnected(Event):
    """The connection has ended.  Not told of an attempt that failed.  Fact.  Qt: disconnected."""


@attrs.frozen
class ErrorOccurred(Event):
    """Something failed, and why.  Fact.  Qt: errorOccurred."""

    kind: ErrorKind
    """Why."""
    message: str
    """What was attempted, and what went wrong, in a sentence."""


@attrs.frozen
class ProxyAuthenticationRequired(Event):
    """A proxy wants a name and a password, for ``realm``; what it was shown, if anything, will not do.  Fact.

    Who knows them is asked by ``set_proxy_authenticator``.

    Qt: proxyAuthenticationRequired.  There, the slot answers.
    """

    proxy: NetworkProxy
    realm: str
    """As the proxy calls what the name and the password are for; empty with SOCKS5."""


@attrs.frozen
class ReadyRead(Nudge):
    """Bytes have arrived.  Nudge.  Qt: readyRead."""


@attrs.frozen
class BytesWritten(Nudge):
    """The system has taken ``count`` more bytes.  Nudge; merged ones add up.  Qt: bytesWritten."""

    count: int

    def merge(self, later: Nudge) -> Nudge:
        """Both counts in one."""
        assert isinstance(later, BytesWritten)
        return BytesWritten(self.count + later.count)


# ---- of a server ---------------------------------------------------------------------------


@attrs.frozen
class NewConnection(Nudge):
    """A connection is pending.  Nudge.  Qt: newConnection.

    Connections that ``serve`` hands straight to handlers are announced too.
    """


@attrs.frozen
class AcceptError(Nudge):
    """A connection was not accepted; accepting goes on.  Nudge.  Qt: acceptError.

    ``accept`` failed, out of descriptors for one, or a limit leaves no place (LIMIT_EXCEEDED): to a peer that has as
    many connections as it may, or to whoever still waits when a full server drains.
    """

    kind: ErrorKind
    """Why."""
    message: str
    """What went wrong, in a sentence."""


@attrs.frozen
class ConnectionFinished(Event):
    """How one handler ended, isolated or not: ``error`` is None after a normal return.  Fact.  Qt: no counterpart."""

    peer: HostAddress
    """Whose connection it was."""
    peer_port: int
    """And from which port."""
    error: BaseException | None


@attrs.frozen
class Draining(Event):
    """The server has begun to drain.  Fact.  Qt: no counterpart."""
