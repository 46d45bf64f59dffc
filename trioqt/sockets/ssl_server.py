"""A TcpServer whose handlers get encrypted sockets.

The handshake is the first thing that a connection's own task does, so whoever says nothing waits alone.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Self, TypedDict, TypeVar, Unpack, overload

import trio

from trioqt.core.addresses import HostAddress, from_sockaddr, location
from trioqt.core.errors import class_name, in_one_line, is_network_trouble, kind_of
from trioqt.core.events import ConnectionFinished
from trioqt.core.socket_state import SocketState
from trioqt.links.base import Sockaddr
from trioqt.links.interrupts import await_interruptible, protected
from trioqt.links.tls_terms import Terms
from trioqt.sockets.arguments import check_handler, check_seconds, check_size
from trioqt.sockets.ssl_socket import SslSocket, check_side
from trioqt.sockets.survived_bugs import tell_bug
from trioqt.sockets.tcp_server import TcpServer

__all__ = ["SslServer"]

SslSocketT = TypeVar("SslSocketT", bound=SslSocket)


class ServerArguments(TypedDict, total=False):
    """What ``TcpServer`` takes by name."""

    max_connections: int | None
    max_connections_per_peer: int | None
    idle_limit: float | None
    stall_limit: float | None
    keep_alive: bool


@protected
class SslServer(TcpServer[SslSocketT], Generic[SslSocketT]):
    """A TcpServer whose handlers get encrypted sockets.  Qt: QSslServer.

    The handshake runs in the connection's own task: a client that says nothing holds up nobody.  With ``serve`` that is
    the handler's task; a handshake that fails is told and logged as a handler that ends so, and the handler is not
    called.  Without it a connection is pending once its handshake is done, and one whose handshake fails is told and
    logged in the same way.

    Args:
      context: Of the standard library, yours, with the certificate.  Which one a client gets by the name it asks for
        is the matter of its ``sni_callback``.
      socket_factory: As for ``TcpServer``; it makes SslSockets.
      handshake_timeout: In seconds; then the connection is dropped with SOCKET_TIMEOUT.  Qt's default.
      max_handshakes: So many at once; further clients wait in the kernel's queue.  None: no limit.
      server: As for ``TcpServer``.

    Raises: TypeError if the context is none; ValueError if it is a client's.
    """

    __slots__ = ("_coming", "_context", "_greeted", "_handshake_timeout", "_max_handshakes")

    @overload
    def __init__(
        self: SslServer[SslSocket],
        context: ssl.SSLContext,
        socket_factory: None = None,
        *,
        handshake_timeout: float = 5.0,
        max_handshakes: int | None = 1000,
        **server: Unpack[ServerArguments],
    ) -> None: ...
    @overload
    def __init__(
        self,
        context: ssl.SSLContext,
        socket_factory: Callable[[], SslSocketT],
        *,
        handshake_timeout: float = 5.0,
        max_handshakes: int | None = 1000,
        **server: Unpack[ServerArguments],
    ) -> None: ...
    def __init__(
        self,
        context: ssl.SSLContext,
        socket_factory: Any = None,
        *,
        handshake_timeout: float = 5.0,
        max_handshakes: int | None = 1000,
        **server: Unpack[ServerArguments],
    ) -> None:
        self._context = check_side(context, server_side=True)
        self._handshake_timeout = check_seconds(handshake_timeout, "handshake_timeout")
        if max_handshakes is not None:
            max_handshakes = check_size(max_handshakes, "max_handshakes", least=1)
        self._max_handshakes = max_handshakes
        self._greeted: dict[int, SslSocketT] = {}  # accepted, and not encrypted yet
        self._coming = 0  # so many of them nobody serves
        factory: Any = SslSocket if socket_factory is None else socket_factory
        super().__init__(factory, **server)

    def set_context(self, context: ssl.SSLContext) -> None:
        """For connections from now on: a renewed certificate needs no restart.

        Raises: TypeError, ValueError: It is no context, or a client's.
        Qt: setSslConfiguration().
        """
        self._check_run()
        self._context = check_side(context, server_side=True)

    async def serve(
        self,
        handler: Callable[[SslSocketT], Awaitable[object]],
        *,
        isolate: bool = True,
        task_status: trio.TaskStatus[Self] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """As ``TcpServer.serve``; ``handler`` is called once its socket is encrypted.

        Raises: as ``TcpServer.serve``.
        Cancelled: as ``TcpServer.serve``.
        Qt: no counterpart; pendingConnectionAvailable with a slot per connection.
        """
        self._check_run()
        check_handler(handler)

        @functools.wraps(handler)
        @trio.lowlevel.enable_ki_protection
        async def encrypt_and_handle(sock: SslSocketT) -> None:
            await self._encrypt(sock)
            await await_interruptible(handler, sock)

        await super().serve(encrypt_and_handle, isolate=isolate, task_status=task_status)

    # -- handshakes -------------------------------------------------------------------------

    def _make_socket(self) -> SslSocketT:
        sock = super()._make_socket()
        if not isinstance(sock, SslSocket):
            raise TypeError(f"the socket factory of an SslServer must make SslSockets, not {sock!r}")
        sock._terms = Terms(self._context, True)
        return sock

    def _has_room(self) -> bool:
        if self._max_handshakes is not None and len(self._greeted) >= self._max_handshakes:
            return False
        if self._service is None and len(self._pending) + len(self._greeted) >= self._max_pending:
            return False
        return super()._has_room()

    def _greet(self, sock: SslSocketT) -> None:
        self._greeted[id(sock)] = sock
        if self._service is not None:
            self._give(sock)
        else:
            assert self._nursery is not None
            self._coming += 1
            self._nursery.start_soon(self._encrypt_for_taking, sock)

    def _are_coming(self) -> bool:
        return self._coming > 0

    async def _encrypt(self, sock: SslSocketT) -> None:
        """The handshake, unless it has been done, or is not the server's business."""
        if id(sock) in self._greeted:
            try:
                await sock._shake_hands(self._handshake_timeout)
            finally:
                self._over(sock)

    def _over(self, sock: SslSocketT) -> None:
        if self._greeted.pop(id(sock), None) is not None:
            self._lot.unpark_all()

    def _forget(self, sock: Any) -> None:
        self._over(sock)
        super()._forget(sock)

    async def _encrypt_for_taking(self, sock: SslSocketT) -> None:
        """The task of a connection that nobody serves: it is pending once it is encrypted."""
        try:
            await self._encrypt_and_give(sock)
        finally:
            self._coming -= 1
            self._end_if_taken()
            self._lot.unpark_all()

    async def _encrypt_and_give(self, sock: SslSocketT) -> None:
        peer = sock._peer()
        try:
            await self._encrypt(sock)
        except trio.ClosedResourceError:
            pass  # the server has been closed
        except Exception as exc:
            self._handshake_failed(sock, peer, exc)
        else:
            if self._machine.state is SocketState.LISTENING or self._ends_when_taken:
                self._give(sock)
            else:
                sock._close()

    def _handshake_failed(self, sock: SslSocketT, peer: Sockaddr | None, exc: Exception) -> None:
        """Nobody has it yet, so it is told here."""
        with contextlib.suppress(OSError):  # somebody has closed the descriptor, for one
            sock._close()
        address, port = (HostAddress.NULL, 0) if peer is None else (from_sockaddr(peer), peer[1])
        self._post(ConnectionFinished(address, port, exc))
        assert self._log is not None
        whose = f"the connection from {location(address, port)}"
        if is_network_trouble(exc):
            self._log.tell(("ended", kind_of(exc)), logging.INFO, f"{whose} ended: {in_one_line(exc)}")
        else:
            self._log.tell(("failed", class_name(exc)), logging.ERROR, f"the handshake of {whose} failed", exc=exc)
            tell_bug(exc)

    def _stop_listening(self, *, keep_pending: bool = False) -> None:
        super()._stop_listening(keep_pending=keep_pending)
        if not keep_pending:
            for sock in [sock for sock in self._greeted.values() if sock._handler is None]:
                sock._close()

    def __repr__(self) -> str:
        parts = [super().__repr__()[:-1], f"handshake_timeout {self._handshake_timeout:g} s"]
        if self._max_handshakes is not None:
            parts.append(f"max_handshakes {self._max_handshakes:,}")
        return f"{', '.join(parts)}>"
