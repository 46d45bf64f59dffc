"""How an option is set on a socket of the system, or read from it, and what is told if it cannot be."""

from __future__ import annotations

import errno
import functools
import socket

import trio

from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.core.options import KEEP_ALIVE_FIGURES, OptionSpec, SocketOption, SocketType, first_options, option_for
from trioqt.links.base import NativeSocket, Sockaddr
from trioqt.links.native import set_where_possible

__all__ = ["fit_user_timeout", "read_option", "set_first_options", "set_option", "unsupported"]

# What trio or a link has.
System = NativeSocket | trio.socket.SocketType


def set_option(
    sock: System, option: SocketOption, value: int, peer: Sockaddr | None, kind: SocketType = SocketType.TCP
) -> None:
    """Set ``option`` on ``sock``, which is connected to ``peer``, or will be.  Raises: SocketError.

    An IPv6 socket without a peer may carry IPv4 too: there IPv4's option of the same name is set as well, where the
    system lets both be set on one socket (Linux; macOS does not).
    """
    spec = _spec(sock, option, peer, kind)
    number = spec.to_system(value)
    try:
        sock.setsockopt(spec.level, spec.number, number)
    except OSError as exc:
        raise _error(f"cannot set {option.name} to {value}", exc) from exc
    if peer is None and spec.level == socket.IPPROTO_IPV6:
        twin = option_for(option, socket.AF_INET, kind)
        if twin is not None:
            set_where_possible(sock, [(twin.level, twin.number, number)])


def set_first_options(sock: System, kind: SocketType) -> None:
    """What a new socket is told of which nobody has set anything.  Raises: SocketError."""
    for option, value, level, number in _first_calls(kind):
        try:
            sock.setsockopt(level, number, value)
        except OSError as exc:
            raise _error(f"cannot set {option.name} to {value}", exc) from exc


# One by one, as ``set_option`` does it, it is 6 us of a short life.
@functools.cache
def _first_calls(kind: SocketType) -> tuple[tuple[SocketOption, int, int, int], ...]:
    """``| option | value | level | number |``; TCP's and SCTP's numbers are the same for both families."""
    found = ((option, value, _known(option, socket.AF_INET, kind)) for option, value in first_options(kind).items())
    return tuple((option, spec.to_system(value), spec.level, spec.number) for option, value, spec in found if spec)


def read_option(sock: System, option: SocketOption, peer: Sockaddr | None, kind: SocketType = SocketType.TCP) -> int:
    """The value that ``option`` has.  Raises: SocketError; OPERATION for what only a connected socket has."""
    spec = _spec(sock, option, peer, kind)
    try:
        return spec.from_system(sock.getsockopt(spec.level, spec.number))
    except OSError as exc:
        error = _error(f"cannot read {option.name}", exc)
        if peer is None and exc.errno == errno.ENOTCONN:
            error.kind = ErrorKind.OPERATION
        raise error from exc


def fit_user_timeout(sock: NativeSocket) -> None:
    """If its server gave ``sock`` a TCP_USER_TIMEOUT, make that as long as its keep-alive options say.

    Linux ends a silent connection by it, and no more by their count (tcp_keepalive_timer() in net/ipv4/tcp_timer.c).
    """
    number = getattr(socket, "TCP_USER_TIMEOUT", None)
    if number is not None and sock.getsockopt(socket.IPPROTO_TCP, number):
        idle, interval, count = (read_option(sock, option, None) for option in KEEP_ALIVE_FIGURES)
        sock.setsockopt(socket.IPPROTO_TCP, number, (idle + interval * count) * 1000)


def unsupported(option: SocketOption) -> SocketError:
    """This socket, or this platform, has no such option."""
    message = f"{option.name} cannot be set or read on this socket"
    return SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, message)


def _spec(sock: System, option: SocketOption, peer: Sockaddr | None, kind: SocketType) -> OptionSpec:
    mapped = peer is not None and str(peer[0]).startswith("::ffff:") and "." in peer[0]
    spec = _known(option, socket.AF_INET if mapped else sock.family, kind)
    if spec is None:
        raise unsupported(option)
    return spec


# Asked for each new socket, and always the same.
_known = functools.lru_cache(128)(option_for)


def _error(attempted: str, exc: OSError) -> SocketError:
    return SocketError(kind_of(exc), f"{attempted}: {reason_of(exc)}", errno=exc.errno)
