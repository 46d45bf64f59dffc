"""A descriptor that somebody hands over, looked at before it is adopted: is it what it is said to be?"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Iterator
from typing import cast

from trioqt.core.errors import ErrorKind, SocketError, reason_of
from trioqt.core.options import inherited_options
from trioqt.core.socket_state import SocketState
from trioqt.links.base import Sockaddr
from trioqt.links.native import KernelSocket, kind_of_socket, set_where_possible

__all__ = ["open_connection", "open_datagram_socket", "open_listener"]


def open_connection(descriptor: int, state: SocketState) -> tuple[socket.socket, Sockaddr | None]:
    """The TCP socket in ``state`` that ``descriptor`` is, and its peer.

    Raises: SocketError; the descriptor stays open.
    """
    with _looked_at(descriptor, "adopt", socket.SOCK_STREAM) as sock:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(errno.EOPNOTSUPP, "it listens")
        if state is SocketState.CONNECTED:
            return sock, _peer_of(sock)
        if _is_connected(sock):
            raise OSError(errno.EISCONN, "it is connected")
        if (sock.getsockname()[1] == 0) != (state is SocketState.UNCONNECTED):
            raise OSError(errno.EINVAL, "it is not bound" if state is SocketState.BOUND else "it is bound")
        return sock, None


def open_datagram_socket(descriptor: int, state: SocketState) -> tuple[KernelSocket, Sockaddr | None]:
    """The UDP socket in ``state``, CONNECTED or BOUND, that ``descriptor`` is, and its peer.

    Raises: SocketError; the descriptor stays open.
    """
    with _looked_at(descriptor, "adopt", socket.SOCK_DGRAM) as sock:
        if _is_connected(sock) != (state is SocketState.CONNECTED):
            raise OSError(errno.EINVAL, "it is connected" if state is SocketState.BOUND else "it is not connected")
        if sock.getsockname()[1] == 0:
            raise OSError(errno.EINVAL, "it is not bound")
        peer = sock.getpeername() if state is SocketState.CONNECTED else None
        return KernelSocket.adopt(sock), peer


def open_listener(descriptor: int, *, keep_alive: bool = False) -> KernelSocket:
    """The listening socket that ``descriptor`` is.

    Args:
      keep_alive: As for ``inherited_options``.

    Raises: SocketError; the descriptor stays open.
    """
    with _looked_at(descriptor, "listen on", socket.SOCK_STREAM) as sock:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(errno.EINVAL, "it does not listen")
        set_where_possible(sock, inherited_options(keep_alive=keep_alive, kind=kind_of_socket(sock)))
        return KernelSocket.adopt(sock)


@contextlib.contextmanager
def _looked_at(descriptor: int, verb: str, kind: int) -> Iterator[socket.socket]:
    """The socket of ``kind`` that ``descriptor`` is.  An OSError of the block is why it will not do.

    Raises: SocketError; the descriptor stays open.
    """
    sock: socket.socket | None = None
    try:
        sock = _socket_of(descriptor)
        if sock.fileno() != descriptor:  # Python cuts a large number down to a C int
            raise OSError(errno.EBADF, "there is none of that number")
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != kind:
            raise OSError(errno.EPROTONOSUPPORT, f"it is no {'TCP' if kind == socket.SOCK_STREAM else 'UDP'} socket")
        yield sock
    except (OSError, ValueError) as exc:
        if sock is not None:
            sock.detach()
        message = f"cannot {verb} descriptor {descriptor}: {reason_of(exc)}"
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, message) from exc


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
