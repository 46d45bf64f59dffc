"""Errors: Qt's kinds, the one table of error numbers, and an exception that is what everybody catches."""

from __future__ import annotations

import copy
import errno
import pickle
import socket
import ssl

import pytest
import trio

from trioqt.core import errors
from trioqt.core.errors import (
    ERRNO_KINDS,
    ErrorKind,
    SocketError,
    is_cancellation,
    kind_of,
    raise_bare,
    reason_of,
)

# QAbstractSocket::SocketError of Qt 6.12, by number.
QT_ERRORS = {
    -1: "UnknownSocketError",
    0: "ConnectionRefusedError",
    1: "RemoteHostClosedError",
    2: "HostNotFoundError",
    3: "SocketAccessError",
    4: "SocketResourceError",
    5: "SocketTimeoutError",
    6: "DatagramTooLargeError",
    7: "NetworkError",
    8: "AddressInUseError",
    9: "SocketAddressNotAvailableError",
    10: "UnsupportedSocketOperationError",
    11: "UnfinishedSocketOperationError",
    12: "ProxyAuthenticationRequiredError",
    13: "SslHandshakeFailedError",
    14: "ProxyConnectionRefusedError",
    15: "ProxyConnectionClosedError",
    16: "ProxyConnectionTimeoutError",
    17: "ProxyNotFoundError",
    18: "ProxyProtocolError",
    19: "OperationError",
    20: "SslInternalError",
    21: "SslInvalidUserDataError",
    22: "TemporaryError",
}

# What a program may be told, and what it then wants to know.
KINDS_BY_NAME = {
    "ECONNREFUSED": ErrorKind.CONNECTION_REFUSED,
    "ECONNRESET": ErrorKind.REMOTE_HOST_CLOSED,
    "EPIPE": ErrorKind.REMOTE_HOST_CLOSED,
    "ECONNABORTED": ErrorKind.REMOTE_HOST_CLOSED,
    "ESHUTDOWN": ErrorKind.REMOTE_HOST_CLOSED,
    "ENOTCONN": ErrorKind.REMOTE_HOST_CLOSED,
    "EACCES": ErrorKind.SOCKET_ACCESS,
    "EPERM": ErrorKind.SOCKET_ACCESS,
    "EMFILE": ErrorKind.SOCKET_RESOURCE,
    "ENFILE": ErrorKind.SOCKET_RESOURCE,
    "ENOBUFS": ErrorKind.SOCKET_RESOURCE,
    "ENOMEM": ErrorKind.SOCKET_RESOURCE,
    "ETIMEDOUT": ErrorKind.SOCKET_TIMEOUT,
    "EMSGSIZE": ErrorKind.DATAGRAM_TOO_LARGE,
    "ENETUNREACH": ErrorKind.NETWORK,
    "EHOSTUNREACH": ErrorKind.NETWORK,
    "ENETDOWN": ErrorKind.NETWORK,
    "EHOSTDOWN": ErrorKind.NETWORK,
    "ENETRESET": ErrorKind.NETWORK,
    "ENONET": ErrorKind.NETWORK,
    "EADDRINUSE": ErrorKind.ADDRESS_IN_USE,
    "EADDRNOTAVAIL": ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE,
    "ENODEV": ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE,
    "EAFNOSUPPORT": ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
    "EPFNOSUPPORT": ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
    "EPROTONOSUPPORT": ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
    "EPROTOTYPE": ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
    "ESOCKTNOSUPPORT": ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
    "EOPNOTSUPP": ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
    "ENOPROTOOPT": ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
    "ENOTSOCK": ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
    "EBADF": ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
    "EINVAL": ErrorKind.UNSUPPORTED_SOCKET_OPERATION,
    "EINPROGRESS": ErrorKind.UNFINISHED_SOCKET_OPERATION,
    "EALREADY": ErrorKind.UNFINISHED_SOCKET_OPERATION,
}


def broken_by(cause: BaseException | None, text: str = "") -> trio.BrokenResourceError:
    """What a trio stream raises when its connection is lost."""
    error = trio.BrokenResourceError(text) if text else trio.BrokenResourceError()
    error.__cause__ = cause
    return error


# ---- kinds ---------------------------------------------------------------------------------


def test_the_kinds_are_qts_with_qts_numbers() -> None:
    """All of Qt's, named as Qt's without ``Error``, and two of ours far away from them."""
    ours = {kind.value: kind.name.replace("_", "").lower() for kind in ErrorKind}
    qts = {number: name.removesuffix("Error").removesuffix("Socket").lower() for number, name in QT_ERRORS.items()}

    assert ours == {**qts, 100: "limitexceeded", 101: "corruptdata"}


@pytest.mark.parametrize("name", KINDS_BY_NAME)
def test_an_error_number_has_a_kind(name: str) -> None:
    """What the system says becomes what Qt would say."""
    if not hasattr(errno, name):
        pytest.skip(f"this platform has no {name}")

    assert kind_of(OSError(getattr(errno, name), "as the system says it")) is KINDS_BY_NAME[name]


def test_every_number_in_the_table_has_one_kind() -> None:
    """No name stands in two rows, and the table holds nothing beside the names above and their Windows twins."""
    names = [name for row in errors._NAMES.values() for name in row.split()]
    numbers = {getattr(errno, p + name) for name in KINDS_BY_NAME for p in ("", "WSA") if hasattr(errno, p + name)}

    assert sorted(names) == sorted(KINDS_BY_NAME)
    assert len(names) == len(set(names))
    assert set(ERRNO_KINDS) == numbers


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (ConnectionRefusedError("nobody there"), ErrorKind.CONNECTION_REFUSED),
        (ConnectionResetError("gone"), ErrorKind.REMOTE_HOST_CLOSED),
        (BrokenPipeError(), ErrorKind.REMOTE_HOST_CLOSED),
        (PermissionError("no"), ErrorKind.SOCKET_ACCESS),
        (TimeoutError("timed out"), ErrorKind.SOCKET_TIMEOUT),
        (type("HangUp", (ConnectionResetError,), {})("gone"), ErrorKind.REMOTE_HOST_CLOSED),
        (OSError("something"), ErrorKind.UNKNOWN),
        (OSError(), ErrorKind.UNKNOWN),
    ],
    ids=repr,
)
def test_an_error_without_a_number_has_the_kind_of_its_class(exc: OSError, kind: ErrorKind) -> None:
    """A stream or a resolver written in Python raises ``ConnectionResetError("gone")`` and means what it says."""
    assert exc.errno is None
    assert kind_of(exc) is kind


def test_a_number_that_the_table_does_not_know_is_unknown() -> None:
    """Nothing is guessed: the reason is still in the message."""
    exc = OSError(999_999, "a thing of the future")

    assert kind_of(exc) is ErrorKind.UNKNOWN
    assert reason_of(exc) == "a thing of the future"


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (socket.herror(1, "Unknown host"), "Unknown host"),
        (UnicodeError("label empty or too long"), "label empty or too long"),
    ],
    ids=["gaierror", "herror", "UnicodeError"],
)
def test_a_name_that_cannot_be_looked_up_is_not_found(exc: Exception, reason: str) -> None:
    """A resolver's numbers are its own: 1 is "unknown host" there and "not permitted" elsewhere."""
    assert kind_of(exc) is ErrorKind.HOST_NOT_FOUND
    assert reason_of(exc) == reason


def test_a_name_that_idna_cannot_encode_is_not_found() -> None:
    """Python raises UnicodeError for it, before any resolver is asked."""
    with pytest.raises(UnicodeError) as caught:
        "a..b".encode("idna")

    assert kind_of(caught.value) is ErrorKind.HOST_NOT_FOUND
    assert reason_of(caught.value) != ""


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), ErrorKind.SSL_HANDSHAKE_FAILED),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), ErrorKind.SSL_HANDSHAKE_FAILED),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), ErrorKind.REMOTE_HOST_CLOSED),
        (ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed"), ErrorKind.REMOTE_HOST_CLOSED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, OSError) else "",
)
def test_the_numbers_of_openssl_are_no_error_numbers(exc: OSError, kind: ErrorKind) -> None:
    """The bug was: SSL_ERROR_SSL is 1, as EPERM is, so a bad certificate was told as SOCKET_ACCESS."""
    assert kind_of(exc) is kind
    assert kind_of(broken_by(exc)) is kind
    assert reason_of(broken_by(exc)) == exc.strerror


def test_a_broken_stream_tells_what_broke_it() -> None:
    """trio's streams wrap the system's error, with its number in the text; we look through to it, however deep."""
    reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    once = broken_by(reset, f"socket connection broken: {reset}")
    twice = broken_by(once)

    assert [kind_of(exc) for exc in (reset, once, twice)] == [ErrorKind.REMOTE_HOST_CLOSED] * 3
    assert [reason_of(exc) for exc in (reset, once, twice)] == ["Connection reset by peer"] * 3
    assert kind_of(broken_by(OSError(errno.ETIMEDOUT, "timed out"))) is ErrorKind.SOCKET_TIMEOUT


def test_a_stream_that_is_broken_without_a_reason_lost_its_peer() -> None:
    """A memory stream says no more than that it broke; a cause that is no network error is not asked."""
    assert kind_of(broken_by(None)) is ErrorKind.REMOTE_HOST_CLOSED
    assert reason_of(broken_by(None)) == "BrokenResourceError"
    assert kind_of(broken_by(ValueError("a bug"))) is ErrorKind.REMOTE_HOST_CLOSED
    assert reason_of(broken_by(ValueError("a bug"), "it broke")) == "it broke"


def test_a_socket_error_keeps_its_kind_whatever_caused_it() -> None:
    """What has been mapped is not mapped again, also inside another stream."""
    inner = SocketError(ErrorKind.SOCKET_TIMEOUT, "the peer took nothing for 10 s")
    inner.__cause__ = OSError(errno.ECONNRESET, "Connection reset by peer")

    assert kind_of(inner) is kind_of(broken_by(inner)) is ErrorKind.SOCKET_TIMEOUT
    assert reason_of(inner) == reason_of(broken_by(inner)) == "the peer took nothing for 10 s"


def test_what_is_no_network_error_is_unknown() -> None:
    """It has a kind and a reason all the same: asking never fails."""
    assert kind_of(ValueError()) is kind_of(KeyboardInterrupt()) is ErrorKind.UNKNOWN
    assert reason_of(ValueError()) == "ValueError"
    assert reason_of(ValueError("bad")) == "bad"


# ---- the exception -------------------------------------------------------------------------


def test_a_socket_error_is_what_trio_and_python_catch() -> None:
    """Code for any trio stream catches BrokenResourceError, code for any network OSError; both get this one."""
    error = SocketError(ErrorKind.NETWORK, "no route")

    assert isinstance(error, trio.BrokenResourceError)
    assert isinstance(error, OSError)
    assert (error.kind, error.message, error.errno) == (ErrorKind.NETWORK, "no route", None)


def test_a_socket_error_reads_as_its_message() -> None:
    """``print(error)`` is for people, ``repr`` for programmers; the number spoils neither."""
    error = SocketError(ErrorKind.CONNECTION_REFUSED, "cannot connect to a.example port 80", errno=111)

    assert str(error) == "cannot connect to a.example port 80"
    assert repr(error) == "SocketError(ErrorKind.CONNECTION_REFUSED, 'cannot connect to a.example port 80')"
    assert error.errno == 111


def test_a_socket_error_can_be_an_error_without_words() -> None:
    """An empty message stays one."""
    assert str(SocketError(ErrorKind.UNKNOWN, "")) == ""


class OwnError(SocketError):
    """A subclass, as a program may write it."""


@pytest.mark.parametrize("kind", [SocketError, OwnError])
@pytest.mark.parametrize("number", [None, errno.ECONNRESET])
@pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy"])
def test_a_socket_error_survives_a_copy_and_a_pickle(kind: type[SocketError], number: int | None, how: str) -> None:
    """Errors cross process borders and queues; kind, message, number and the notes on it come along."""
    error = kind(ErrorKind.REMOTE_HOST_CLOSED, "the peer closed the connection", errno=number)
    error.add_note("while reading the greeting")

    ways = {"pickle": lambda e: pickle.loads(pickle.dumps(e)), "copy": copy.copy, "deepcopy": copy.deepcopy}
    again = ways[how](error)

    assert type(again) is kind
    assert again is not error
    assert (again.kind, again.message, again.errno) == (error.kind, error.message, number)
    assert (str(again), again.args, again.__notes__) == (str(error), error.args, ["while reading the greeting"])


# ---- what is no error --------------------------------------------------------------------------

CANCELLED = trio.Cancelled._create(source="explicit")


def nested(depth: int, exc: BaseException) -> BaseException:
    """In as many groups."""
    for _ in range(depth):
        exc = BaseExceptionGroup("of a nursery", [exc])
    return exc


@pytest.mark.parametrize(
    ("exc", "is_one"),
    [
        (CANCELLED, True),
        (BaseExceptionGroup("a", [CANCELLED, BaseExceptionGroup("b", [CANCELLED])]), True),
        (BaseExceptionGroup("a", [CANCELLED, BaseExceptionGroup("b", [CANCELLED, KeyError()])]), False),
        (BaseExceptionGroup("a", [KeyboardInterrupt()]), False),
        (nested(3000, CANCELLED), True),
        (nested(3000, KeyError()), False),
        (KeyError(), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_a_cancellation_is_one_alone_or_among_its_like(exc: BaseException, is_one: bool) -> None:
    """However deep in groups; one other exception makes it an exception."""
    assert is_cancellation(exc) is is_one


def raised_by(exc: BaseException) -> BaseException:
    """What comes out where ``exc`` is handled."""
    with pytest.raises(BaseException) as caught:
        try:
            raise exc
        except BaseException as seen:
            raise_bare(seen)
    return caught.value


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("depth", [0, 1, 2, 3000])
@pytest.mark.parametrize("cancelled", [False, True])
def test_the_one_interrupt_or_exit_in_a_group_comes_out_as_itself(
    kind: type[BaseException], depth: int, cancelled: bool
) -> None:
    """So that ``except KeyboardInterrupt`` catches it; what it knows of its past it keeps."""
    wanted = kind()
    wanted.__cause__, wanted.__context__ = cause, context = KeyError("cause"), KeyError("context")
    group = wanted
    for _ in range(depth):
        group = BaseExceptionGroup("of a nursery", [CANCELLED, group] if cancelled else [group])

    found = raised_by(group)

    assert found is wanted
    assert (found.__cause__, found.__context__) == (cause, context)


@pytest.mark.parametrize(
    "exc",
    [
        BaseExceptionGroup("two", [KeyboardInterrupt(), KeyboardInterrupt()]),
        BaseExceptionGroup("beside a bug", [KeyboardInterrupt(), KeyError()]),
        BaseExceptionGroup("inner", [BaseExceptionGroup("two", [SystemExit(), KeyError()])]),
        ExceptionGroup("one bug", [KeyError()]),
        BaseExceptionGroup("cancelled", [CANCELLED]),
        BaseExceptionGroup("closed", [GeneratorExit()]),
        KeyError(),
        CANCELLED,
    ],
    ids=str,
)
def test_whatever_else_comes_out_as_it_was(exc: BaseException) -> None:
    """A second exception keeps the group, and a bug stays in its own."""
    exc.__context__ = None

    found = raised_by(exc)

    assert found is exc
    assert found.__context__ is None
