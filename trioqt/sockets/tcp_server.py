"""A server whose connections have owners: within which limits it has them, in which scope, and how each begins.

How it listens is ``listening.py``.  What that accepts becomes a socket here, and is handed over in the same synchronous
step: to a handler's task while ``serve`` runs (``serving.py``), else to the pending queue
(``pending_connections.py``).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast, overload

import trio

from trioqt.core.addresses import HostAddress, from_sockaddr, location
from trioqt.core.errors import (
    ErrorKind,
    SocketError,
    class_name,
    in_one_line,
    is_cancellation,
    is_network_trouble,
    keeping,
    kind_of,
)
from trioqt.core.events import AcceptError
from trioqt.core.network_proxy import NetworkProxy
from trioqt.core.options import SocketType
from trioqt.core.socket_state import SocketState
from trioqt.links.base import Link, ListenerLink, Sockaddr
from trioqt.links.connect import Prepare
from trioqt.links.interrupts import call_interruptible, protected
from trioqt.sockets.arguments import check_factory, check_limit, check_size, check_stream_type
from trioqt.sockets.block import Block
from trioqt.sockets.listening import Listening
from trioqt.sockets.peer_limit import PeerLimit
from trioqt.sockets.survived_bugs import tell_bug
from trioqt.sockets.tcp_socket import TcpSocket
from trioqt.sockets.time_limits import TimeLimits
from trioqt.sockets.trouble_log import TroubleLog

__all__ = ["TcpServer"]

SocketT = TypeVar("SocketT", bound=TcpSocket)

logger: logging.Logger = logging.getLogger("trioqt.server")


@protected
class TcpServer(Listening[SocketT], trio.abc.Listener[SocketT], Generic[SocketT]):
    """Listens for TCP connections.  Qt: QTcpServer.

    It is a ``trio.abc.Listener`` (``accept``, ``aclose``).  Use ``serve`` rather than ``trio.serve_listeners``: that
    one closes each socket forcefully after its handler, which drops what is queued unless the handler awaited
    ``wait_for_bytes_written``.  ``async for sock in server`` accepts until the server stops listening.

    From ``listen()`` on, a task in the server's scope accepts into the pending queue, at most
    ``max_pending_connections``; ``accept`` and ``next_pending_connection`` take from it, and ``serve`` hands
    connections straight to handlers.  Nobody watches a pending connection; what its peer did meanwhile is told to who
    takes it and subscribes.  It counts; a slot is free again when its socket is UNCONNECTED
    or closed.
    While paused or full the kernel's queue fills.

    ``close()`` and ``aclose()``: no new connections; pending ones are aborted, as Qt does; running handlers and sockets
    you took go on.  Leaving the block, however, stops listening, cancels ``serve`` with its handlers and aborts every
    accepted socket that is still open.  Entering a server that is entered already does nothing, and that exit is
    ``aclose()``.

    Until its block has ended a call from another thread or run raises RuntimeError, as for a socket.

    Args:
      socket_factory: What makes the socket of an accepted connection: TcpSocket, your subclass, or any callable.
        (Qt's ``incomingConnection`` override, as a parameter.)  If it fails, or makes something else, that connection
        is closed, which is told as ``AcceptError`` and logged, and the next one is served.
      max_connections: At this many open connections the server stops accepting until one ends; exact.  None: no limit
        but the system's, which is handled.
      max_connections_per_peer: How many one address may have open; further ones are reset, which is told as
        ``AcceptError`` and logged.  An IPv4-mapped address is the same as its IPv4 form.  None: no limit.
      idle_limit: After so many seconds in which no byte moved in either direction a connection fails with
        SOCKET_TIMEOUT: the handler's call raises it, it is told as ``ErrorOccurred``, and the peer sees a reset.
        Whoever works in silence for longer needs a higher one.  None: no limit.
      stall_limit: The same, but for the time in which a byte is due: bytes are queued that the peer does not take, or a
        ``receive_...`` or ``wait_for_ready_read`` waits with a part there of what has begun, as half a line.  Who is
        silent between two messages is idle, and not stalled.  None: no limit.
      keep_alive: Vanished peers are noticed within 2 minutes: silent ones are asked after 60 s and then every 10 s, and
        six questions, or 120 s in which they acknowledge nothing or take nothing, end the connection.  Options that
        the factory's socket has of its own win.
      socket_type: What ``listen`` opens: TCP, or SCTP, where the system has it; else UNSUPPORTED_SOCKET_OPERATION.
    """

    __slots__ = (
        "__weakref__",
        "_block",
        "_ended",
        "_factory",
        "_max_connections",
        "_most_connections",
        "_peer_limit",
        "_time_limits",
    )

    @overload
    def __init__(
        self: TcpServer[TcpSocket],
        socket_factory: None = None,
        *,
        max_connections: int | None = None,
        max_connections_per_peer: int | None = None,
        idle_limit: float | None = None,
        stall_limit: float | None = None,
        keep_alive: bool = True,
        socket_type: SocketType = SocketType.TCP,
    ) -> None: ...
    @overload
    def __init__(
        self,
        socket_factory: Callable[[], SocketT],
        *,
        max_connections: int | None = None,
        max_connections_per_peer: int | None = None,
        idle_limit: float | None = None,
        stall_limit: float | None = None,
        keep_alive: bool = True,
        socket_type: SocketType = SocketType.TCP,
    ) -> None: ...
    def __init__(
        self,
        socket_factory: Any = None,
        *,
        max_connections: int | None = None,
        max_connections_per_peer: int | None = None,
        idle_limit: float | None = None,
        stall_limit: float | None = None,
        keep_alive: bool = True,
        socket_type: SocketType = SocketType.TCP,
    ) -> None:
        if socket_factory is not None:
            check_factory(socket_factory, TcpSocket)
        if max_connections is not None:
            max_connections = check_size(max_connections, "max_connections", least=1)
        self._peer_limit: PeerLimit | None = None
        if max_connections_per_peer is not None:
            most = check_size(max_connections_per_peer, "max_connections_per_peer", least=1)
            self._peer_limit = PeerLimit(most)
        idle_limit, stall_limit = check_limit(idle_limit, "idle_limit"), check_limit(stall_limit, "stall_limit")
        has_time_limits = idle_limit is not None or stall_limit is not None
        self._time_limits = TimeLimits(idle_limit, stall_limit) if has_time_limits else None
        super().__init__(keep_alive=bool(keep_alive), socket_type=check_stream_type(socket_type))
        self._factory: Callable[[], Any] = TcpSocket if socket_factory is None else socket_factory
        self._max_connections = max_connections
        self._most_connections = 0  # that there have been at one time
        # Those that have ended: one may be connected elsewhere, or still be listened to, and ends with our block too.
        self._ended: weakref.WeakValueDictionary[int, SocketT] = weakref.WeakValueDictionary()
        self._block: Block | None = None  # with the nursery

    # -- the scope --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin the server's life; its tasks, and those of accepted sockets, run in a nursery that ends with the block.

        Raises: trio.ClosedResourceError if it has been closed.
        """
        self._check_run()
        if self._closed:
            raise trio.ClosedResourceError("the server is closed")
        if self._nursery is None:
            self._block = Block()
            self._nursery = await self._block.open_nursery()
            self._belongs_here()
            self._log = TroubleLog(logger, self._nursery)
        if self._block is not None and self._block.task is trio.lowlevel.current_task():
            self._block.entries += 1
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening, cancel ``serve`` with its handlers, abort what is still open.

        After an exception that is no cancellation, connections whose sockets nobody has entered are reset.  Those with
        a block of their own end as what leaves that block says.

        The body's exception goes out as it is.  (A bug in trioqt is the one thing that arrives in a group.)
        Cancelled: all the same.
        """
        self._check_run()
        with keeping(exc):
            await self._leave(exc)

    async def _leave(self, exc: BaseException | None) -> None:
        block, outermost = self._block, False
        if block is not None and block.task is trio.lowlevel.current_task():
            block.entries -= 1
            outermost = block.entries == 0
        if block is None or not outermost:
            self._shut()
            if exc is None:
                await trio.lowlevel.checkpoint()
            return
        self._block = None
        try:
            if exc is None:
                await trio.lowlevel.checkpoint()
        finally:
            try:
                self._end_all(reset=exc is not None and not is_cancellation(exc))
            finally:
                try:
                    with keeping(sys.exception()):
                        await block.end("the server's block is left")
                finally:
                    self._belongs_nowhere()

    def _end_all(self, *, reset: bool) -> None:
        """End everything that belongs to the block.  What goes wrong with one thing keeps none of the others open.

        Args:
          reset: An exception leaves the block; and so it does for sockets that have none of their own.
        """
        with contextlib.ExitStack() as stack:
            if self._log is not None:
                stack.callback(self._log.end)
            stack.callback(self._end_events)
            for sock in (*self._connections.values(), *self._ended.values()):
                stack.callback(sock._close)
            for service in self._services:
                stack.callback(service.cancel, "the server's block is left")
            stack.callback(self._shut)
            if reset:  # which comes first, as the stack has it
                for sock in self._connections.values():
                    if not sock._was_entered:
                        stack.callback(sock.abort, reset=True)
            if self._drain is not None:
                stack.callback(self._cut, self._drain)

    # -- accepting --------------------------------------------------------------------------

    def _has_room(self) -> bool:
        if self._max_connections is not None and self._is_at_most():
            return False
        if self._is_finishing:
            return True
        if self._paused:
            return False
        return self._service is not None or not (self._full or len(self._pending) >= self._max_pending)

    def _is_at_most(self) -> bool:
        """Are there as many connections as there may be?"""
        return self._max_connections is not None and len(self._connections) >= self._max_connections

    def _admit_or_refuse(self, link: Link, peer: Sockaddr) -> None:
        if self._is_at_most():
            link.close(reset=True)
            self._refused(peer, f"while draining with {self._max_connections:,} connections")
        else:
            self._admit(link, peer)

    def _admit(self, link: Link, peer: Sockaddr) -> None:
        """An accepted connection becomes a socket with an owner; if it cannot, that ends it and no more."""
        assert self._nursery is not None
        if self._peer_limit is not None and self._peer_limit.is_reached(peer[0]):
            link.close(reset=True)
            self._refused(peer, f"which has {self._peer_limit.most:,} already")
            return
        if self._time_limits is not None:
            link = self._time_limits.timed(link)
        sock: SocketT | None = None
        try:
            sock = self._make_socket()
            self._connections[id(sock)] = sock  # before it begins: it may end in doing so
            sock._accepted(link, self._nursery, self, self._factory is TcpSocket)
        except BaseException as exc:
            if sock is not None:
                self._connections.pop(id(sock), None)
            # In order: a reset may come before the peer has seen that it is connected, which then looks like a network
            # that is broken.  Nothing has been said that it could take for an answer.
            link.close()
            if not isinstance(exc, Exception):
                raise
            self._cannot_take(peer, exc)
            return
        if len(self._connections) > self._most_connections:
            self._most_connections = len(self._connections)
        if id(sock) in self._connections:  # else it has ended already
            if self._peer_limit is not None:
                self._peer_limit.count(sock, peer[0])
            if self._time_limits is not None:
                self._time_limits.watch(sock, self._nursery)
        if self._machine.state is SocketState.LISTENING or self._is_finishing:
            self._greet(sock)
        else:
            sock._close()  # the factory has closed the server

    def _make_socket(self) -> SocketT:
        # What is a caller's can be interrupted, and that ends the block.
        if self._factory is TcpSocket:
            return cast("SocketT", TcpSocket())
        try:
            made = call_interruptible(self._factory)
        except trio.Cancelled as exc:  # nothing waits here, so it is nobody's, and would end our block in silence
            raise RuntimeError("the socket factory raised trio.Cancelled, and nobody had cancelled it") from exc
        is_socket = isinstance(made, TcpSocket)
        if not is_socket or made._closed or made._home is not None or made.state() is not SocketState.UNCONNECTED:
            raise TypeError(f"a socket factory must make new TcpSockets without a parent, not {made!r}")
        return cast("SocketT", made)

    def _cannot_take(self, peer: Sockaddr, exc: Exception) -> None:
        """The factory failed, or the system refused an option of the new socket."""
        where = location(from_sockaddr(peer), peer[1])
        message = f"cannot take the connection from {where}: {in_one_line(exc)}"
        assert self._log is not None
        self._note_accept_error(kind_of(exc), message)
        if isinstance(exc, SocketError) or is_network_trouble(exc):
            self._log.tell(("refused", kind_of(exc)), logging.WARNING, message)
        else:
            self._log.tell(("factory", class_name(exc)), logging.ERROR, message, exc=exc)
            tell_bug(exc)

    def _greet(self, sock: SocketT) -> None:
        """What a connection gets that was accepted just now."""
        self._give(sock)

    def _fact_limit(self) -> int:
        # They may all end in one step, while handlers of as many that have ended before are still at work.
        return max(super()._fact_limit(), 2 * self._most_connections)

    def _forget(self, sock: Any) -> None:
        """A connection has ended: its slot is free."""
        if self._connections.pop(id(sock), None) is None:
            return  # it ended before it was in the books
        if not sock._retired:  # else whoever ends it closes it for good
            self._ended[id(sock)] = sock
        if sock._handler is None and self._drain is not None:
            self._drain.count(cancelled=False)
        if self._peer_limit is not None:
            self._peer_limit.forget(sock)
        if self._time_limits is not None:
            self._time_limits.forget(sock)
        if self._lot:
            self._lot.unpark_all()

    def _refused(self, peer: Sockaddr, why: str) -> None:
        """A limit has ended a connection before it became a socket."""
        message = f"refused a connection from {location(from_sockaddr(peer), peer[1])}, {why}"
        if self._subscriptions:
            self._post(AcceptError(ErrorKind.LIMIT_EXCEEDED, message))
        assert self._log is not None
        self._log.tell("refused by a limit", logging.WARNING, message)

    def _check_can_lend(self) -> None:
        reason = ""
        if self._time_limits is not None:
            reason = f"{self._time_limits} would not see what others move"
        elif self._factory is not TcpSocket:
            reason = "its socket_factory makes sockets"
        if reason:
            kind = ErrorKind.UNSUPPORTED_SOCKET_OPERATION
            raise SocketError(kind, f"cannot serve descriptors: {reason}")

    # -- by a proxy -------------------------------------------------------------------------

    async def _listen_through(
        self, proxy: NetworkProxy, host: HostAddress, port: int, prepare: Prepare
    ) -> ListenerLink:
        if self._time_limits is not None and _is_encrypted(proxy):
            raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "no limit in seconds holds over TLS to a proxy")
        return await super()._listen_through(proxy, host, port, prepare)

    # -- taking what others have accepted ----------------------------------------------------

    def add_pending_connection(self, sock: SocketT) -> None:
        """Put ``sock`` with the pending ones, or give it to ``serve``.  The limits are not asked.

        Raises: TypeError if it is no TcpSocket; trio.ClosedResourceError if it, or the server, is closed; RuntimeError
        if it belongs to another run.
        Qt: addPendingConnection().
        """
        self._check_run()
        if not isinstance(sock, TcpSocket):
            raise TypeError(f"a connection is a TcpSocket, not {type(sock).__name__}")
        if self._closed:
            raise trio.ClosedResourceError("cannot add a connection: the server is closed")
        sock._check_call()
        sock._check_open("add the connection")
        self._give(sock)

    # -- what it says of itself -------------------------------------------------------------

    def __repr__(self) -> str:
        if self._machine.state is SocketState.LISTENING:
            parts = [f"listening on {location(self._address, self._port)}"]
        else:
            parts = ["closed" if self._closed else "not listening"]
        most = "" if self._max_connections is None else f" of at most {self._max_connections:,}"
        parts.append(f"{len(self._connections):,}{most} connections")
        if self._peer_limit is not None:
            parts.append(f"max_connections_per_peer {self._peer_limit.most:,}")
        if self._time_limits is not None:
            parts.append(str(self._time_limits))
        return f"<{type(self).__name__} {', '.join(parts)}>"

    def connection_count(self) -> int:
        """How many accepted connections have not ended, the pending ones included.  Qt: no counterpart."""
        self._check_run()
        return len(self._connections)


def _is_encrypted(proxy: NetworkProxy | None) -> bool:
    return proxy is not None and (proxy.context is not None or _is_encrypted(proxy.via))
