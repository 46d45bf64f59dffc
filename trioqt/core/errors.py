"""What can go wrong, and how the system's error numbers say it.

The one table from errno to :class:`ErrorKind` is here; nothing else in trioqt maps an error number.
This is the one module of ``core`` that imports trio, for two names: ``SocketError`` is a
``trio.BrokenResourceError``, and ``trio.Cancelled`` is no error.
"""

from __future__ import annotations

import enum
import errno
import socket
import ssl
import traceback
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import NoReturn

import trio

__all__ = [
    "ErrorKind",
    "SocketError",
    "class_name",
    "in_one_line",
    "is_cancellation",
    "is_network_trouble",
    "keeping",
    "kind_of",
    "put_behind",
    "raise_bare",
    "reason_of",
    "traceback_of",
]


class ErrorKind(enum.Enum):
    """Why an operation failed.

    Qt: QAbstractSocket::SocketError, all of it, with Qt's numbers.  Renamed, because in Python a name that ends in
    ``Error`` is an exception.  Qt's UnknownSocketError as "no error" is ``None`` here.
    """

    CONNECTION_REFUSED = 0
    """The peer answered that nobody listens there."""
    REMOTE_HOST_CLOSED = 1
    """The peer closed or reset the connection."""
    HOST_NOT_FOUND = 2
    """The name has no address (of the wanted family)."""
    SOCKET_ACCESS = 3
    """The system forbids it: a privileged port, a firewall."""
    SOCKET_RESOURCE = 4
    """Out of descriptors, buffers or memory."""
    SOCKET_TIMEOUT = 5
    """The network, ``flush_timeout``, or a server's ``idle_limit`` or ``stall_limit``, gave up waiting."""
    DATAGRAM_TOO_LARGE = 6
    """The datagram exceeds what the system can send."""
    NETWORK = 7
    """No route, or the network is down."""
    ADDRESS_IN_USE = 8
    """Somebody else has this local address and port."""
    SOCKET_ADDRESS_NOT_AVAILABLE = 9
    """The local address is not one of this host's."""
    UNSUPPORTED_SOCKET_OPERATION = 10
    """The system, or this kind of socket, cannot do that."""
    UNFINISHED_SOCKET_OPERATION = 11
    """An operation is still under way; here: what was queued for a connection is dropped before that is made."""
    PROXY_AUTHENTICATION_REQUIRED = 12
    """The proxy wants credentials."""
    SSL_HANDSHAKE_FAILED = 13
    """The TLS handshake failed."""
    PROXY_CONNECTION_REFUSED = 14
    """The proxy refused the connection."""
    PROXY_CONNECTION_CLOSED = 15
    """The proxy closed the connection before the target was reached."""
    PROXY_CONNECTION_TIMEOUT = 16
    """The proxy did not answer in time."""
    PROXY_NOT_FOUND = 17
    """The proxy's name has no address."""
    PROXY_PROTOCOL = 18
    """The proxy's answer makes no sense."""
    OPERATION = 19
    """The call is not possible in the socket's present state: a mistake of the program, not of the network."""
    SSL_INTERNAL = 20
    """The TLS library failed."""
    SSL_INVALID_USER_DATA = 21
    """A certificate or key given by the user is not usable."""
    TEMPORARY = 22
    """Try again later."""
    UNKNOWN = -1
    """The system gave a reason that the table does not know."""
    LIMIT_EXCEEDED = 100
    """Ours, not Qt's: a bound was reached (line length, buffer, subscription); the message names it."""
    CORRUPT_DATA = 101
    """Ours, not Qt's: what the peer sent is not what was to be read, a message of another kind or none."""


class SocketError(trio.BrokenResourceError, OSError):
    """An operation on a socket failed.

    A ``trio.BrokenResourceError``, so code written for any trio stream handles it, and an ``OSError``, as every
    network failure in Python is; ``errno`` is kept where the system gave one.  The original exception is its
    ``__cause__``; when several addresses were tried, the cause is a group with one exception per attempt.

    Qt: the pair error() and errorString(); the wording is ours.
    """

    kind: ErrorKind = ErrorKind.UNKNOWN  # of a class derived from it that does not call __init__
    """Why; its numbers are those of Qt."""
    message: str = ""
    """What was attempted, and what went wrong, in a sentence."""

    def __init__(self, kind: ErrorKind, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.errno = errno

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"SocketError({self.kind}, {self.message!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # The third item keeps what else an exception may carry: notes, attributes of a subclass.
        return _rebuild, (type(self), self.kind, self.message, self.errno), self.__dict__


def _rebuild(cls: type[SocketError], kind: ErrorKind, message: str, number: int | None) -> SocketError:
    return cls(kind, message, errno=number)


# The names are those of POSIX; where Windows has its own number for the same cause (WSAECONNREFUSED beside
# ECONNREFUSED), that is entered too.  Names a platform lacks are left out.
_NAMES: dict[ErrorKind, str] = {
    ErrorKind.CONNECTION_REFUSED: "ECONNREFUSED",
    ErrorKind.REMOTE_HOST_CLOSED: "ECONNRESET EPIPE ECONNABORTED ESHUTDOWN ENOTCONN",
    ErrorKind.SOCKET_ACCESS: "EACCES EPERM",
    ErrorKind.SOCKET_RESOURCE: "EMFILE ENFILE ENOBUFS ENOMEM",
    ErrorKind.SOCKET_TIMEOUT: "ETIMEDOUT",
    ErrorKind.DATAGRAM_TOO_LARGE: "EMSGSIZE",
    ErrorKind.NETWORK: "ENETUNREACH EHOSTUNREACH ENETDOWN EHOSTDOWN ENETRESET ENONET",
    ErrorKind.ADDRESS_IN_USE: "EADDRINUSE",
    ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE: "EADDRNOTAVAIL ENODEV",
    ErrorKind.UNSUPPORTED_SOCKET_OPERATION: (
        "EAFNOSUPPORT EPFNOSUPPORT EPROTONOSUPPORT EPROTOTYPE ESOCKTNOSUPPORT EOPNOTSUPP ENOPROTOOPT ENOTSOCK EBADF "
        "EINVAL"
    ),
    ErrorKind.UNFINISHED_SOCKET_OPERATION: "EINPROGRESS EALREADY",
}
ERRNO_KINDS: dict[int, ErrorKind] = {
    getattr(errno, prefix + name): kind
    for kind, names in _NAMES.items()
    for name in names.split()
    for prefix in ("", "WSA")
    if hasattr(errno, prefix + name)
}

# For what was raised without a number, ``ConnectionResetError("...")`` for one: Python has a class for some of them.
CLASS_KINDS: dict[type[OSError], ErrorKind] = {
    type(OSError(number, "")): kind for number, kind in ERRNO_KINDS.items() if type(OSError(number, "")) is not OSError
}


def kind_of(exc: BaseException) -> ErrorKind:
    """The kind of a failure that the system, trio or another trio stream reported."""
    try:
        return _kind_of(_teller(exc))
    except Exception:  # a class of the program's may have an errno that fails, or that is a list
        return ErrorKind.UNKNOWN


def _kind_of(exc: BaseException) -> ErrorKind:
    if isinstance(exc, SocketError):
        return exc.kind
    # These three have numbers of their own, which mean something else as an errno: 1 is EPERM there.
    if isinstance(exc, (socket.gaierror, socket.herror, UnicodeError)):  # UnicodeError: IDNA cannot encode the name
        return ErrorKind.HOST_NOT_FOUND
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return ErrorKind.REMOTE_HOST_CLOSED
    if isinstance(exc, ssl.SSLError):  # a stream does not say in which phase it was; nearly all of them are of this one
        return ErrorKind.SSL_HANDSHAKE_FAILED
    if isinstance(exc, OSError):
        if exc.errno is None:
            return next((CLASS_KINDS[base] for base in type(exc).__mro__ if base in CLASS_KINDS), ErrorKind.UNKNOWN)
        return ERRNO_KINDS.get(exc.errno, ErrorKind.UNKNOWN)
    if isinstance(exc, trio.BusyResourceError):
        return ErrorKind.OPERATION
    return ErrorKind.REMOTE_HOST_CLOSED if isinstance(exc, trio.BrokenResourceError) else ErrorKind.UNKNOWN


def reason_of(exc: BaseException) -> str:
    """The same in words, for messages: the system's, without the number in front."""
    exc = _teller(exc)
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__


# Of what a peer may have had a hand in; an address and a reason have room.
LINE_LENGTH = 200

# What networks, and peers that do as they like, bring about; the rest says something about the program.
NETWORK_KINDS = frozenset(
    {
        ErrorKind.CONNECTION_REFUSED,
        ErrorKind.REMOTE_HOST_CLOSED,
        ErrorKind.HOST_NOT_FOUND,
        ErrorKind.SOCKET_RESOURCE,
        ErrorKind.SOCKET_TIMEOUT,
        ErrorKind.NETWORK,
        ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE,  # to a program that connects: no local port is left
        ErrorKind.SSL_HANDSHAKE_FAILED,
    }
)


def is_network_trouble(exc: BaseException) -> bool:
    """Can it come about without any mistake of the program, because of a peer, a network, or a time limit?

    A group is, if everything in it is.  Never fails: what cannot be judged is none.
    """
    try:
        return all(map(_is_trouble, _leaves(exc)))
    except Exception:  # as in kind_of; or its causes go round in a circle
        return False


def _is_trouble(exc: BaseException) -> bool:
    if isinstance(exc, SocketError):
        return exc.kind is not ErrorKind.OPERATION
    if isinstance(exc, (trio.ClosedResourceError, trio.TooSlowError)):
        return True
    if isinstance(exc, trio.BrokenResourceError):
        # A stream over a socket, trio's TLS for one; when it is used again after a loss, it has no cause any more.
        return not isinstance(exc.__cause__, SocketError) or _is_trouble(exc.__cause__)
    if isinstance(exc, OSError):
        if exc.errno is None and isinstance(exc.__cause__, (OSError, BaseExceptionGroup)):
            # trio.open_tcp_stream: "all attempts to connect ... failed".  One of them may be for a family that this
            # host has not.
            return any(map(_is_trouble, _leaves(exc.__cause__)))
        return kind_of(exc) in NETWORK_KINDS
    return False


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """What is in a group, however deep; ``split`` fails if the depth, or the class of a group, is odd."""
    waiting = deque([exc])
    while waiting:
        inner = waiting.popleft()
        if isinstance(inner, BaseExceptionGroup):
            waiting.extendleft(reversed(inner.exceptions))
        else:
            yield inner


def in_one_line(exc: BaseException) -> str:
    """For a log: its class and what it says, cut to a length, without anything that a terminal would act on."""
    try:
        text = traceback.format_exception_only(exc)[0].removeprefix("trioqt.core.errors.")
    except Exception:  # of its notes, for one
        text = class_name(exc)
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:LINE_LENGTH]


def traceback_of(exc: BaseException) -> str | None:
    """Its traceback; None if it cannot be written down: a class of the program's may fail at it, or it is too deep."""
    try:
        return "".join(traceback.format_exception(exc))
    except Exception:
        return None


def class_name(exc: BaseException) -> str:
    """By which the logs tell kinds apart: a class that is made anew each time is one kind, and is not kept alive."""
    return f"{type(exc).__module__}.{type(exc).__qualname__}"


def _teller(exc: BaseException) -> BaseException:
    """The exception that knows the reason: a trio stream tells its own, if it knows one, as the cause."""
    seen = set[int]()
    while isinstance(exc, trio.BrokenResourceError) and not isinstance(exc, SocketError) and id(exc) not in seen:
        seen.add(id(exc))
        if not isinstance(exc.__cause__, (OSError, trio.BrokenResourceError)):
            break
        exc = exc.__cause__
    return exc


def is_cancellation(exc: BaseException) -> bool:
    """Is it ``trio.Cancelled``, or a group of nothing else?  Never fails: the end of a connection hangs on it."""
    try:
        return all(type(leaf) is trio.Cancelled for leaf in _leaves(exc))
    except Exception:  # of a group whose class fails when it is asked what is in it
        return False


def holds_cancellation(exc: BaseException) -> bool:
    """Is it ``trio.Cancelled``, or a group with one in which all else is an ``Exception``?  Never fails."""
    try:
        others = [leaf for leaf in _leaves(exc) if not isinstance(leaf, Exception)]
    except Exception:  # as above
        return False
    return bool(others) and all(type(other) is trio.Cancelled for other in others)


def as_exception(group: BaseExceptionGroup[BaseException]) -> ExceptionGroup[Exception] | None:
    """A group that is no ``Exception``, because its class is not, though all in it is, as one that is; else None."""
    try:
        leaves = [leaf for leaf in _leaves(group) if isinstance(leaf, Exception)]
        if len(leaves) < sum(1 for _ in _leaves(group)):
            return None
        return ExceptionGroup(str(group.message), leaves).with_traceback(group.__traceback__)
    except Exception:  # as above
        return None


class keeping:
    """What is raised in the block, while ``earlier`` is on its way out, has that behind it: nothing is lost.

    A class, because every end of a socket passes through it, and a generator's manager costs 1 us more.
    """

    __slots__ = ("_earlier",)

    def __init__(self, earlier: BaseException | None) -> None:
        self._earlier = earlier

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            put_behind(exc, self._earlier)


def put_behind(exc: BaseException, earlier: BaseException | None) -> None:
    """``earlier`` becomes the context of ``exc``, or of the last in its chain, if it is not there already."""
    if earlier is None or any(exc is known for known in _contexts(earlier)):
        return
    *_, last = chain = list(_contexts(exc))
    if not any(earlier is known for known in chain):
        last.__context__ = earlier


def _contexts(exc: BaseException | None) -> Iterator[BaseException]:
    seen = set[int]()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        exc = exc.__context__


def raise_bare(exc: BaseException) -> NoReturn:
    """Raise ``exc``, which a nursery gave; or the one KeyboardInterrupt or SystemExit in it, as itself.

    A second exception beside that keeps the group.  A cancellation does not count: the program ends anyway.
    """
    others = [leaf for leaf in _leaves(exc) if type(leaf) is not trio.Cancelled]
    bare = others[0] if len(others) == 1 and isinstance(others[0], (KeyboardInterrupt, SystemExit)) else exc
    context = bare.__context__
    try:
        raise bare
    finally:
        bare.__context__ = context  # not the group that is being handled
        del exc, others, bare, context  # or this frame, in the traceback, would hold what holds it
