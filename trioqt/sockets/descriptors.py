"""A descriptor that somebody hands over, looked at before it is adopted: is it what it is said to be?"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Sequence
from typing import cast

from trioqt.core.errors import ErrorKind, SocketError, reason_of
from trioqt.core.socket_state import SocketState
from trioqt.links.base import Sockaddr
from trioqt.links.native import KernelSocket, set_where_possible

__all__ = ["open_connection", "open_datagram_socket", "open_listener"]


def open_connection(descriptor: int, state: SocketState) -> tuple[socket.socket, Sockaddr | None]:
    """The TCP socket in ``state`` that ``descriptor`` is, and its peer.

    Raises: SocketError; the descriptor stays open.
    """
    attempted = f"cannot adopt descriptor {descriptor}"
    try:
        sock = _socket_of(descriptor)
    except (OSError, ValueError) as exc:
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, f"{attempted}: {reason_of(exc)}") from exc
    try:
        if sock.fileno() != descriptor:  # Python cuts a large number down to a C int
            raise OSError(errno.EBADF, "there is none of that number")
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            raise OSError(errno.EPROTONOSUPPORT, "it is no TCP socket")
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(errno.EOPNOTSUPP, "it listens")
        if state is SocketState.CONNECTED:
            return sock, _peer_of(sock)
        if _is_connected(sock):
            raise OSError(errno.EISCONN, "it is connected")
        if (sock.getsockname()[1] == 0) != (state is SocketState.UNCONNECTED):
            raise OSError(errno.EINVAL, "it is not bound" if state is SocketState.BOUND else "it is bound")
        return sock, None
    except OSError as exc:
        sock.detach()
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, f"{attempted}: {reason_of(exc)}") from exc


def open_datagram_socket(descriptor: int, state: SocketState) -> tuple[KernelSocket, Sockaddr | None]:
    """The UDP socket in ``state``, CONNECTED or BOUND, that ``descriptor`` is, and its peer.

    Raises: SocketError; the descriptor stays open.
    """
    attempted = f"cannot adopt descriptor {descriptor}"
    try:
        sock = _socket_of(descriptor)
    except (OSError, ValueError) as exc:
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, f"{attempted}: {reason_of(exc)}") from exc
    try:
        if sock.fileno() != descriptor:  # Python cuts a large number down to a C int
            raise OSError(errno.EBADF, "there is none of that number")
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_DGRAM:
            raise OSError(errno.EPROTONOSUPPORT, "it is no UDP socket")
        if _is_connected(sock) != (state is SocketState.CONNECTED):
            raise OSError(errno.EINVAL, "it is connected" if state is SocketState.BOUND else "it is not connected")
        if sock.getsockname()[1] == 0:
            raise OSError(errno.EINVAL, "it is not bound")
        peer = sock.getpeername() if state is SocketState.CONNECTED else None
        return KernelSocket.adopt(sock), peer
    except OSError as exc:
        sock.detach()
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, f"{attempted}: {reason_of(exc)}") from exc


def _socket_of(descriptor: int) -> socket.socket:
    """Raises: OSError, ValueError."""
    try:
        return socket.socket(fileno=descriptor)
    except OverflowError as exc:
        raise OSError(errno.EBADF, "there is none of that number") from exc


def _peer_of(sock: socket.socket) -> Sockaddr | None:
    """The peer; None if it has reset the connection already, which the first read will find.  Raises: OSError."""
    try:
        return cast("Sockaddr", sock.getpeername())
    except OSError:
        if not hasattr(select, "poll"):  # Windows
            raise
        poll = select.poll()
        poll.register(sock, 0)
        # A failure waits to be read, so there was a connection.  SO_ERROR would say so too, and forget it.
        if any(happened & select.POLLERR for _, happened in poll.poll(0)):
            return None
        raise


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def open_listener(descriptor: int, inherited: Sequence[tuple[int, int, int]] = ()) -> KernelSocket:
    """The listening socket that ``descriptor`` is.

    Args:
      inherited: Options for what is accepted there, where the system has them.

    Raises: SocketError; the descriptor stays open.
    """
    attempted = f"cannot listen on descriptor {descriptor}"
    try:
        sock = _socket_of(descriptor)
    except (OSError, ValueError) as exc:
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, f"{attempted}: {reason_of(exc)}") from exc
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            raise OSError(errno.EPROTONOSUPPORT, "it is no TCP socket")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(errno.EINVAL, "it does not listen")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits it
        set_where_possible(sock, inherited)
    except OSError as exc:
        sock.detach()
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, f"{attempted}: {reason_of(exc)}") from exc
    return KernelSocket.adopt(sock)
