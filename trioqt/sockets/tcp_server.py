"""A listening socket whose connections have owners.

One task per listening socket accepts, only while there is room, and hands each connection over in the same
synchronous step: to a handler's task while ``serve`` runs (``serving.py``), else to the pending queue
(``pending_connections.py``).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import operator
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast, overload

import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, from_sockaddr
from trioqt.core.errors import ErrorKind, SocketError, kind_of, raise_bare, reason_of
from trioqt.core.events import AcceptError, NewConnection
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input, StateMachine, Told
from trioqt.links.base import Link, ListenerLink, Sockaddr
from trioqt.links.bind import any_target, listen_on
from trioqt.links.connect import look_up
from trioqt.links.interrupts import call_interruptible, protected
from trioqt.links.native import NativeListener
from trioqt.sockets.arguments import Host, check_host, check_port, check_size, spelled
from trioqt.sockets.descriptors import open_listener
from trioqt.sockets.pending_connections import PendingConnections
from trioqt.sockets.serving import Service
from trioqt.sockets.tcp_socket import TcpSocket

__all__ = ["TcpServer"]

SocketT = TypeVar("SocketT", bound=TcpSocket)

logger: logging.Logger = logging.getLogger("trioqt.server")

# The queue of the kernel.  What trio asks for: as many as the system lets us have (Linux cuts it to
# net.core.somaxconn, 4096).
BACKLOG = 65535

# After this many connections in one step other tasks get their turn.  Accepting only one per turn starved 600 of
# 1,000 clients that came at once.
ACCEPTS_AT_ONCE = 64

# trio's and Ranch's pause after a failed accept, in seconds: short enough that who waits is served soon after
# descriptors are free, long enough to cost nothing.
ACCEPT_PAUSE = 0.1

# What accept says of a connection that has ended already, or was refused on the way: Linux hands over the network's
# errors of the new socket there (accept(2), "Error handling"), and BSDs and Windows have names of their own.  Such a
# connection is nobody's business, and the next one may be fine.
ENDED_BEFORE_ACCEPT_NAMES = (
    "ECONNABORTED EPROTO ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH EOPNOTSUPP ENETUNREACH EPERM ETIMEDOUT "
    "ECONNRESET ENOTCONN WSAECONNRESET WSAECONNABORTED"
)
ENDED_BEFORE_ACCEPT: frozenset[int] = frozenset(
    getattr(errno, name) for name in ENDED_BEFORE_ACCEPT_NAMES.split() if hasattr(errno, name)
)

NEW_CONNECTION = NewConnection()


@protected
class TcpServer(PendingConnections[SocketT], trio.abc.Listener[SocketT], Generic[SocketT]):
    """Listens for TCP connections.  Qt: QTcpServer.

    It is a ``trio.abc.Listener`` (``accept``, ``aclose``).  Use ``serve`` rather than ``trio.serve_listeners``: that
    one closes each socket forcefully after its handler, which drops what is queued unless the handler awaited
    ``wait_for_bytes_written``.  ``async for sock in server`` accepts until the server stops listening.

    From ``listen()`` on, a task in the server's scope accepts into the pending queue, at most
    ``max_pending_connections``; ``accept`` and ``next_pending_connection`` take from it, and ``serve`` hands
    connections straight to handlers.  A pending connection counts; a slot is free again when its socket is UNCONNECTED
    or closed.
    While paused or full the kernel's queue fills.

    ``close()`` and ``aclose()``: no new connections; pending ones are aborted, as Qt does; running handlers and sockets
    you took go on.  Leaving the block, however, stops listening, cancels ``serve`` with its handlers and aborts every
    accepted socket that is still open.  Entering a server that is entered already does nothing, and that exit is
    ``aclose()``.

    Args:
      socket_factory: What makes the socket of an accepted connection: TcpSocket, your subclass, or any callable.
        (Qt's ``incomingConnection`` override, as a parameter.)  An exception out of it is a bug, and ends the block.
      max_connections: At this many open connections the server stops accepting until one ends; exact.  None: no limit
        but the system's, which is handled.
    """

    __slots__ = (
        "__weakref__",
        "_address",
        "_connections",
        "_ended",
        "_entries",
        "_error",
        "_error_string",
        "_factory",
        "_listeners",
        "_machine",
        "_manager",
        "_max_connections",
        "_nursery",
        "_opener",
        "_next_log",
        "_port",
        "_serve_scope",
        "_service",
    )

    @overload
    def __init__(
        self: TcpServer[TcpSocket], socket_factory: None = None, *, max_connections: int | None = None
    ) -> None: ...
    @overload
    def __init__(self, socket_factory: Callable[[], SocketT], *, max_connections: int | None = None) -> None: ...
    def __init__(self, socket_factory: Any = None, *, max_connections: int | None = None) -> None:
        if socket_factory is not None and not callable(socket_factory):
            raise TypeError(f"a socket factory is callable, not {type(socket_factory).__name__}")
        if max_connections is not None:
            max_connections = check_size(max_connections, "max_connections", least=1)
        super().__init__()
        self._factory: Callable[[], Any] = TcpSocket if socket_factory is None else socket_factory
        self._max_connections = max_connections
        self._machine = StateMachine()
        self._error: ErrorKind | None = None
        self._error_string = ""
        self._listeners: dict[ListenerLink, trio.CancelScope] = {}  # each with the scope of its accept task
        self._address = HostAddress.NULL
        self._port = 0
        self._connections: dict[SocketT, None] = {}  # accepted and not ended, in the order they came
        # Those that have ended: one may be connected elsewhere, or still be listened to, and ends with our block too.
        self._ended: weakref.WeakSet[SocketT] = weakref.WeakSet()
        self._service: Service[SocketT] | None = None  # while serve() takes connections
        self._serve_scope: trio.CancelScope | None = None  # of serve() and its handlers
        self._next_log = -math.inf
        self._nursery: trio.Nursery | None = None  # of the server's block
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._opener: trio.lowlevel.Task | None = None  # who opened the nursery, and must close it
        self._entries = 0  # of the opener

    # -- the scope --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin the server's life; its tasks, and those of accepted sockets, run in a nursery that ends with the block.

        Raises: trio.ClosedResourceError if it has been closed.
        """
        if self._closed:
            raise trio.ClosedResourceError("the server is closed")
        if self._nursery is None:
            self._manager = trio.open_nursery()
            self._nursery = await self._manager.__aenter__()
            self._opener = trio.lowlevel.current_task()
        if self._opener is trio.lowlevel.current_task():
            self._entries += 1
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening, cancel ``serve`` with its handlers, abort what is still open.

        The body's exception goes out as it is.  (A bug in ``socket_factory``, or in trioqt, arrives in a group.)
        Cancelled: all the same.
        """
        outermost = False
        if self._opener is trio.lowlevel.current_task():
            self._entries -= 1
            outermost = self._entries == 0
        if not outermost:
            self._shut()
            if exc_type is None:
                await trio.lowlevel.checkpoint()
            return
        manager, nursery, self._opener = self._manager, self._nursery, None
        assert manager is not None
        assert nursery is not None
        try:
            if exc_type is None:
                await trio.lowlevel.checkpoint()
        finally:
            self._shut()
            if self._serve_scope is not None:
                self._serve_scope.cancel(reason="the server's block is left")
            for sock in (*self._connections, *self._ended):
                sock._close()
            self._end_events()
            # Cancelled, shielded and told of no exception, for the reasons given in AbstractSocket._end_nursery.
            nursery.cancel_scope.cancel(reason="the server's block is left")
            nursery.cancel_scope.shield = True
            try:
                await manager.__aexit__(None, None, None)
            except BaseExceptionGroup as group:
                raise_bare(group)

    # -- listening --------------------------------------------------------------------------

    async def listen(self, host: Host = HostAddress.ANY, port: int = 0, *, backlog: int | None = None) -> None:
        """Begin to listen, on every interface if not told otherwise (one port for IPv4 and IPv6).

        Args:
          host: An address, a name (all its addresses, with one port), or ``HostAddress.ANY``.
          port: 0 lets the system choose; ``server_port()`` tells.
          backlog: How many connections the kernel may queue; None: as many as the system allows.

        Raises:
          SocketError: ADDRESS_IN_USE, SOCKET_ACCESS, SOCKET_ADDRESS_NOT_AVAILABLE, HOST_NOT_FOUND, ...; OPERATION if it
            listens already, or is not entered.
          trio.ClosedResourceError: It has been closed by ``aclose()`` or by leaving its block.
        Cancelled: it does not listen.
        Qt: listen().
        """
        host, port = check_host(host), check_port(port)
        backlog = BACKLOG if backlog is None else min(check_size(backlog, "backlog"), BACKLOG)
        self._check_can_listen()
        try:
            if host == HostAddress.NULL:
                raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "there is no address to listen on")
            dual_stack = host == HostAddress.ANY
            targets = [any_target(port)] if dual_stack else await look_up(host, port, NetworkLayerProtocol.ANY_IP)
            listeners = await listen_on(targets, backlog, dual_stack=dual_stack)
        except (OSError, UnicodeError) as exc:
            kind, message = (
                kind_of(exc),
                f"cannot listen on {spelled(host) or 'no address'} port {port}: {reason_of(exc)}",
            )
            self._error, self._error_string = kind, message
            raise SocketError(kind, message, errno=exc.errno if isinstance(exc, OSError) else None) from exc
        self._begin(listeners, host if isinstance(host, HostAddress) else None)

    def set_socket_descriptor(self, descriptor: int) -> None:
        """Listen on an open listening socket (systemd, a parent process).  It is the server's from now on.

        Raises:
          SocketError: UNSUPPORTED_SOCKET_OPERATION if it is no listening TCP socket, and then ``server_error()`` says
            so too; the descriptor is still yours.  OPERATION if the server listens already, or is not entered.
          trio.ClosedResourceError: as ``listen``.
        Qt: setSocketDescriptor().  There, whatever it is, it is assumed to listen.
        """
        descriptor = operator.index(descriptor)
        self._check_can_listen()
        try:
            sock = open_listener(descriptor)
        except SocketError as error:
            self._error, self._error_string = error.kind, error.message
            raise
        self._begin([NativeListener(sock)], None)

    def _check_can_listen(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("cannot listen: the server is closed")
        if self._nursery is None:
            raise SocketError(ErrorKind.OPERATION, "cannot listen outside of the server's `async with` block")
        if not self._machine.allows(Input.LISTEN):
            raise SocketError(ErrorKind.OPERATION, "cannot listen while listening")

    def _begin(self, listeners: list[NativeListener], address: HostAddress | None) -> None:
        try:
            self._check_can_listen()  # another task may have been faster
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        assert self._nursery is not None
        self._machine.feed(Input.LISTEN, _tell_nobody)
        self._stopped = trio.Event()
        sockaddr = listeners[0].local_address()
        self._address = HostAddress.ANY if address == HostAddress.ANY else from_sockaddr(sockaddr)
        self._port = sockaddr[1]
        for listener in listeners:
            # Shielded for the same reason as a socket's tasks: a shielded body may still want to be served.
            self._listeners[listener] = scope = trio.CancelScope(shield=True)
            self._nursery.start_soon(self._accept_from, listener, scope)

    def close(self) -> None:
        """Stop listening, and abort the pending connections; ``serve`` returns once its last handler is done.

        Handlers and sockets you took go on.  The server may listen again.
        Qt: close().
        """
        self._stop_listening()

    async def aclose(self) -> None:
        """``close``, and never listen again.  Cancelled: closed all the same."""
        self._shut()
        await trio.lowlevel.checkpoint()

    def _shut(self) -> None:
        self._closed = True
        self._stop_listening()

    def _stop_listening(self) -> None:
        self._machine.feed(Input.ABORT, _tell_nobody)
        listeners, self._listeners = self._listeners, {}
        for listener, scope in listeners.items():
            listener.close()
            scope.cancel(reason="the server stopped listening")
        self._address, self._port = HostAddress.NULL, 0
        self._service = None
        if self._stopped is not None:
            self._stopped.set()
        self._full = self._paused = False
        while self._pending:
            self._pending.popleft()._close()
        self._lot.unpark_all()

    # -- accepting --------------------------------------------------------------------------

    async def _accept_from(self, listener: ListenerLink, scope: trio.CancelScope) -> None:
        """Accept while there is room, until the server stops listening."""
        with scope:
            while listener in self._listeners:
                if not self._has_room():
                    await self._lot.park()
                    continue
                for _ in range(ACCEPTS_AT_ONCE):
                    # From here to the connection's entry in _connections there is no checkpoint, so the limit is exact
                    # and no accepted connection is without an owner.
                    if not self._has_room() or listener not in self._listeners:
                        break
                    try:
                        link, peer = listener.try_accept()
                    except BlockingIOError:
                        await _until_acceptable(listener)
                        break
                    except OSError as exc:
                        await self._accept_failed(exc)
                        break
                    self._admit(link, peer)
                else:
                    await trio.lowlevel.checkpoint()

    def _has_room(self) -> bool:
        if self._paused or (self._max_connections is not None and len(self._connections) >= self._max_connections):
            return False
        return self._service is not None or not (self._full or len(self._pending) >= self._max_pending)

    def _admit(self, link: Link, peer: Sockaddr) -> None:
        """An accepted connection becomes a socket with an owner."""
        try:
            # What is a caller's can be interrupted, and that ends the block.
            made = TcpSocket() if self._factory is TcpSocket else call_interruptible(self._factory)
            if not isinstance(made, TcpSocket) or made.state() is not SocketState.UNCONNECTED or made._home is not None:
                raise TypeError(f"a socket factory must make new TcpSockets without a parent, not {made!r}")
            sock = cast("SocketT", made)
            assert self._nursery is not None
            sock._accepted(link, self._nursery, self)
        except BaseException:
            link.close(reset=True)
            raise
        self._connections[sock] = None
        if self._machine.state is SocketState.LISTENING:
            self._give(sock)
        else:
            sock._close()  # the factory has closed the server

    def _give(self, sock: SocketT) -> None:
        """To a handler if there are any, else to the pending queue."""
        if self._service is not None:
            self._service.start(sock)
        else:
            self._pending.append(sock)
            self._note_full()
            self._lot.unpark_all()
        if self._subscriptions:
            self._post(NEW_CONNECTION)

    def _forget(self, sock: Any) -> None:
        """A connection has ended: its slot is free."""
        del self._connections[sock]
        self._ended.add(sock)
        self._lot.unpark_all()

    async def _accept_failed(self, exc: OSError) -> None:
        if exc.errno in ENDED_BEFORE_ACCEPT:
            await trio.lowlevel.checkpoint()
            return
        kind, message = kind_of(exc), f"cannot accept: {reason_of(exc)}"
        self._error, self._error_string = kind, message
        if self._subscriptions:
            self._post(AcceptError(kind, message))
        now = trio.current_time()
        if now >= self._next_log:  # one record a second tells as much as ten
            self._next_log = now + 1
            logger.warning("%s; trying again every %g s", message, ACCEPT_PAUSE)
        await trio.sleep(ACCEPT_PAUSE)

    # -- serving ----------------------------------------------------------------------------

    async def serve(
        self,
        handler: Callable[[SocketT], Awaitable[object]],
        *,
        isolate: bool = False,
        task_status: trio.TaskStatus[TcpServer[SocketT]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Give each connection a child task that runs ``async with sock: await handler(sock)``.

        A handler that ends with ``SocketError`` (except OPERATION) or ``trio.ClosedResourceError``, of whatever socket,
        or with a group of nothing else, has ended and no more: vanished peers are not bugs.  Nor is the
        ``trio.BrokenResourceError`` of a stream that the handler laid over the socket, TLS for one, if a network error
        is its cause.  Any other ``Exception`` is a bug, and goes out of ``serve`` in an ExceptionGroup; with
        ``isolate`` it is logged with its traceback, reported as ``ConnectionFinished``, and the server serves on.
        KeyboardInterrupt, SystemExit and cancellation always go out.  Returns after ``close()`` once the last handler
        is done.

        Args:
          task_status: Told the server, once connections are taken.

        Raises:
          SocketError: OPERATION if the server does not listen.
          trio.ClosedResourceError: It did, and has stopped.
          trio.BusyResourceError: Another task accepts or serves.
        Cancelled: stops accepting and cancels every handler.
        Qt: no counterpart; newConnection with a slot per connection.
        """
        if not callable(handler):
            raise TypeError(f"a handler is an async function, not {type(handler).__name__}")
        stopped = self._begin_taking("serve")
        try:
            async with trio.open_nursery() as handlers:
                service = Service(self, handler, isolate, handlers)
                self._serve_scope = handlers.cancel_scope
                self._service = service
                try:
                    while self._pending:
                        service.start(self._take())
                    self._lot.unpark_all()
                    task_status.started(self)
                    await stopped.wait()
                finally:
                    self._service = None
        finally:
            self._serve_scope = None
            self._taking = False
            self._lot.unpark_all()

    def add_pending_connection(self, sock: SocketT) -> None:
        """Put ``sock`` with the pending ones, or give it to ``serve``.  The limits are not asked.

        Raises: TypeError if it is no TcpSocket; trio.ClosedResourceError if the server is closed.
        Qt: addPendingConnection().
        """
        if not isinstance(sock, TcpSocket):
            raise TypeError(f"a connection is a TcpSocket, not {type(sock).__name__}")
        if self._closed:
            raise trio.ClosedResourceError("cannot add a connection: the server is closed")
        self._give(sock)

    # -- what it says of itself -------------------------------------------------------------

    def is_listening(self) -> bool:
        """Qt: isListening()."""
        return self._machine.state is SocketState.LISTENING

    def server_address(self) -> HostAddress:
        """Where it listens, the first address if a name has several; ``HostAddress.NULL`` if it does not.

        Qt: serverAddress().
        """
        return self._address

    def server_port(self) -> int:
        """The port it listens on, one for all addresses; 0 if it does not.  Qt: serverPort()."""
        return self._port

    def server_error(self) -> ErrorKind | None:
        """The last error of ``listen``, ``set_socket_descriptor`` or accepting, or None.

        A good ``listen`` does not reset it.

        Qt: serverError().
        """
        return self._error

    def error_string(self) -> str:
        """The same in words; empty if there was none.  Qt: errorString()."""
        return self._error_string

    def connection_count(self) -> int:
        """How many accepted connections have not ended, the pending ones included.  Qt: no counterpart."""
        return len(self._connections)

    def socket_descriptor(self) -> int:
        """The OS handle of the (first) listening socket, or -1.  Qt: socketDescriptor()."""
        return next((listener.native().fileno() for listener in self._listeners), -1)


async def _until_acceptable(listener: ListenerLink) -> None:
    with contextlib.suppress(trio.ClosedResourceError):  # it stopped listening, which the loop sees
        await listener.wait_acceptable()


def _tell_nobody(thing: Told) -> None:
    """A server's states are told by ``is_listening``."""
