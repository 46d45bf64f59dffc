"""A listening socket whose connections have owners.

One task per listening socket accepts, only while there is room, and hands each connection over in the same
synchronous step: to a handler's task while ``serve`` runs (``serving.py``), else to the pending queue
(``pending_connections.py``).

Half of it is docstrings of the public members.  What is left belongs together: listening, accepting and the books of
what was accepted must agree in every step, or a connection has no owner.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import operator
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast, overload

import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, from_sockaddr, location
from trioqt.core.errors import (
    ErrorKind,
    SocketError,
    class_name,
    in_one_line,
    is_cancellation,
    is_network_trouble,
    keeping,
    kind_of,
    raise_bare,
    reason_of,
)
from trioqt.core.events import AcceptError, NewConnection
from trioqt.core.network_proxy import NetworkProxy
from trioqt.core.options import SocketType, SystemOption, inherited_options, protocol_of
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input, StateMachine, Told
from trioqt.links.base import Link, ListenerLink, NativeSocket, Sockaddr
from trioqt.links.bind import any_target, listen_on
from trioqt.links.connect import Prepare, Target, look_up, race
from trioqt.links.interrupts import call_interruptible, protected
from trioqt.links.native import NativeListener, set_options, set_where_possible
from trioqt.links.through_proxy import listen_through
from trioqt.sockets.arguments import (
    Host,
    check_factory,
    check_hosts,
    check_limit,
    check_options,
    check_port,
    check_size,
    check_stream_type,
    spelled,
)
from trioqt.sockets.descriptors import open_listener
from trioqt.sockets.peer_limit import PeerLimit
from trioqt.sockets.proxy_choice import is_loopback
from trioqt.sockets.serving import Serving
from trioqt.sockets.survived_bugs import tell_bug
from trioqt.sockets.tcp_socket import TcpSocket
from trioqt.sockets.time_limits import TimeLimits
from trioqt.sockets.trouble_log import TroubleLog
from trioqt.sockets.under_way import UnderWay

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
TRYING_AGAIN = f"trying again every {ACCEPT_PAUSE:g} s"

# How long a server that drains waits for handshakes that are half done, in seconds, and how often it looks.  A client
# that hears nothing repeats itself after a second, and one that comes anew is not answered meanwhile.
HANDSHAKES = 1.0
HANDSHAKES_PAUSE = 0.02

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
class TcpServer(Serving[SocketT], trio.abc.Listener[SocketT], Generic[SocketT]):
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
        "_address",
        "_backlog_size",
        "_ended",
        "_entries",
        "_error",
        "_error_string",
        "_factory",
        "_is_shared",
        "_keep_alive",
        "_listeners",
        "_machine",
        "_manager",
        "_max_connections",
        "_most_connections",
        "_opener",
        "_peer_limit",
        "_port",
        "_socket_type",
        "_time_limits",
        "_under_way",
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
        self._socket_type = check_stream_type(socket_type)
        self._keep_alive = bool(keep_alive)
        super().__init__()
        self._factory: Callable[[], Any] = TcpSocket if socket_factory is None else socket_factory
        self._max_connections = max_connections
        self._machine = StateMachine()
        self._under_way = UnderWay()  # calls of listen
        self._error: ErrorKind | None = None
        self._error_string = ""
        self._backlog_size = BACKLOG
        self._listeners: dict[ListenerLink, trio.CancelScope] = {}  # each with the scope of its accept task
        self._is_shared = False  # another process may have the same listening socket
        self._address = HostAddress.NULL
        self._port = 0
        self._most_connections = 0  # that there have been at one time
        # Those that have ended: one may be connected elsewhere, or still be listened to, and ends with our block too.
        self._ended: weakref.WeakValueDictionary[int, SocketT] = weakref.WeakValueDictionary()
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._opener: trio.lowlevel.Task | None = None  # who opened the nursery, and must close it
        self._entries = 0  # of the opener

    # -- the scope --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin the server's life; its tasks, and those of accepted sockets, run in a nursery that ends with the block.

        Raises: trio.ClosedResourceError if it has been closed.
        """
        self._check_run()
        if self._closed:
            raise trio.ClosedResourceError("the server is closed")
        if self._nursery is None:
            self._manager = trio.open_nursery()
            self._nursery = await self._manager.__aenter__()
            self._belongs_here()
            self._log = TroubleLog(logger, self._nursery)
            self._opener = trio.lowlevel.current_task()
        if self._opener is trio.lowlevel.current_task():
            self._entries += 1
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
        outermost = False
        if self._opener is trio.lowlevel.current_task():
            self._entries -= 1
            outermost = self._entries == 0
        if not outermost:
            self._shut()
            if exc is None:
                await trio.lowlevel.checkpoint()
            return
        manager, nursery, self._opener = self._manager, self._nursery, None
        assert manager is not None
        assert nursery is not None
        try:
            if exc is None:
                await trio.lowlevel.checkpoint()
        finally:
            try:
                self._end_all(reset=exc is not None and not is_cancellation(exc))
            finally:
                # Cancelled, shielded and told of no exception, for the reasons given in Block.
                nursery.cancel_scope.cancel(reason="the server's block is left")
                nursery.cancel_scope.shield = True
                try:
                    with keeping(sys.exception()):
                        try:
                            await manager.__aexit__(None, None, None)
                        except BaseExceptionGroup as group:
                            raise_bare(group)
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

    # -- listening --------------------------------------------------------------------------

    async def listen(
        self,
        host: Host | Sequence[Host] = HostAddress.ANY,
        port: int = 0,
        *,
        backlog: int | None = None,
        reuse_port: bool = False,
        options: Sequence[SystemOption] = (),
    ) -> None:
        """Begin to listen, on every interface if not told otherwise (one port for IPv4 and IPv6).

        By a SOCKS5 proxy, unless ``host`` is a loopback address: the proxy listens, at ``server_address()``, for one
        connection; another needs another ``listen``.  ``backlog`` and ``reuse_port`` are the proxy's business then.

        Args:
          host: An address, a name (all its addresses), ``HostAddress.ANY``, or several of these; all with one port.
          port: 0 lets the system choose; ``server_port()`` tells.
          backlog: How many connections the kernel may queue; None: ``listen_backlog_size()``, which is as many as the
            system allows unless changed.
          reuse_port: Other sockets of this user that ask for it too, in this process or another, may listen there as
            well, and the system shares the clients out (SO_REUSEPORT).
          options: Of the system's, as ``(level, number, value)`` with an int or bytes, set on each socket before its
            address is taken: ``(IPPROTO_TCP, TCP_FASTOPEN, 16)``.  What it accepts inherits most of them.

        Raises:
          SocketError: ADDRESS_IN_USE, SOCKET_ACCESS, SOCKET_ADDRESS_NOT_AVAILABLE, HOST_NOT_FOUND, ...; what the system
            says to an option that it refuses, which the message names;
            UNSUPPORTED_SOCKET_OPERATION if ``host`` is empty or null, or the system has no ``reuse_port``; OPERATION if
            it listens already, drains, or is not entered.  By a proxy: as ``TcpSocket.connect_to_host``.
          trio.ClosedResourceError: It has been closed by ``aclose()`` or by leaving its block; or ``close`` or
            ``drain`` was called meanwhile.
        Cancelled: it does not listen.
        Qt: listen().  There, an IPv4-mapped address is refused.
        """
        self._check_run()
        hosts, port = check_hosts(host), check_port(port)
        backlog = min(self._backlog_size if backlog is None else check_size(backlog, "backlog"), BACKLOG)
        wanted = check_options(options)
        inherited = inherited_options(keep_alive=self._keep_alive, kind=self._socket_type)

        def prepare(sock: NativeSocket | trio.socket.SocketType, address: Sockaddr) -> None:
            set_where_possible(sock, inherited)
            set_options(sock, wanted)

        if self._closed:  # a task that is cancelled with the block, and has its first turn after that, is cancelled
            await trio.lowlevel.checkpoint_if_cancelled()
        self._check_can_listen()
        listeners: list[ListenerLink] = []
        proxy: NetworkProxy | None = None
        try:
            with self._under_way.call("listen"):
                if not all(is_loopback(str(each)) for each in hosts):  # a proxy could not get there
                    proxy = self._choose_proxy("server", "", port)
                targets = list(dict.fromkeys([target for each in hosts for target in await _targets(each, port)]))
                if proxy is None:
                    proto, reuse_port = protocol_of(self._socket_type), bool(reuse_port)
                    listeners += await listen_on(targets, backlog, reuse_port=reuse_port, prepare=prepare, proto=proto)
                else:
                    there = HostAddress.ANY_IPV4 if hosts[0] == HostAddress.ANY else from_sockaddr(targets[0].address)
                    listeners.append(await self._listen_through(proxy, there, port, prepare))
        except trio.ClosedResourceError:
            for listener in listeners:
                listener.close()
            raise
        except (OSError, UnicodeError) as exc:
            where = ", ".join(spelled(each) or "no address" for each in hosts)
            kind, message = kind_of(exc), f"cannot listen on {where} port {port}: {reason_of(exc)}"
            self._error, self._error_string = kind, message
            raise SocketError(kind, message, errno=exc.errno if isinstance(exc, OSError) else None) from exc
        self._begin(listeners, HostAddress.ANY if hosts[0] == HostAddress.ANY and proxy is None else None)

    async def _listen_through(
        self, proxy: NetworkProxy, host: HostAddress, port: int, prepare: Prepare
    ) -> ListenerLink:
        """Let the proxy listen.  Raises: OSError, UnicodeError."""
        if self._time_limits is not None and _is_encrypted(proxy):
            raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "no limit in seconds holds over TLS to a proxy")

        async def reach(host: str, port: int) -> Link:
            return await race(await look_up(host, port, NetworkLayerProtocol.ANY_IP), prepare)

        return await listen_through(proxy, host, port, reach, self._authenticate)

    def set_socket_descriptor(self, descriptor: int) -> None:
        """Listen on an open listening socket (systemd, a parent process).  It is the server's from now on.

        Raises:
          SocketError: UNSUPPORTED_SOCKET_OPERATION if it is no listening TCP socket, and then ``server_error()`` says
            so too; the descriptor is still yours.  OPERATION if the server listens already, or is not entered.
          trio.ClosedResourceError: as ``listen``.
        Qt: setSocketDescriptor().  There, whatever it is, it is assumed to listen.
        """
        self._check_run()
        descriptor = operator.index(descriptor)
        self._check_can_listen()
        try:
            sock = open_listener(descriptor, keep_alive=self._keep_alive)
        except SocketError as error:
            self._error, self._error_string = error.kind, error.message
            raise
        self._begin([NativeListener(sock)], None, is_shared=True)

    def _check_can_listen(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("cannot listen: the server is closed")
        if self._nursery is None:
            raise SocketError(ErrorKind.OPERATION, "cannot listen outside of the server's `async with` block")
        if not self._machine.allows(Input.LISTEN):
            raise SocketError(ErrorKind.OPERATION, "cannot listen while listening")
        if self._drain is not None and not self._drain.is_over:
            raise SocketError(ErrorKind.OPERATION, "cannot listen while draining")

    def _begin(
        self, listeners: Sequence[ListenerLink], address: HostAddress | None, *, is_shared: bool = False
    ) -> None:
        try:
            self._check_can_listen()  # another task may have been faster
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        assert self._nursery is not None
        self._machine.feed(Input.LISTEN, _tell_nobody)
        if self._stopped is not None:
            self._stopped.set()  # a connection that nobody took has kept it from that
        self._stopped = trio.Event()
        self._drain, self._ends_when_taken, self._is_shared = None, False, is_shared
        sockaddr = listeners[0].local_address()
        self._address = from_sockaddr(sockaddr) if address is None else address
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
        self._check_run()
        self._stop_listening()

    async def aclose(self) -> None:
        """``close``, and never listen again.  Cancelled: closed all the same."""
        self._check_run()
        self._shut()
        await trio.lowlevel.checkpoint()

    def _shut(self) -> None:
        self._closed = True
        self._drain_lot.unpark_all()
        self._stop_listening()

    def _stop_listening(self, *, keep_pending: bool = False) -> None:
        self._say_not_listening()
        listeners, self._listeners = self._listeners, {}
        handshakes, self._handshakes = self._handshakes, None
        if handshakes is not None:
            handshakes.cancel(reason="the server closes its listening sockets")
        self._service = None
        self._full = self._paused = False
        self._ends_when_taken = keep_pending
        pending: list[SocketT] = []
        if not keep_pending:
            pending.extend(self._pending)
            self._pending.clear()
        if self._stopped is not None and not keep_pending:
            self._stopped.set()
        self._end_if_taken()
        self._lot.unpark_all()
        with contextlib.ExitStack() as stack:  # one that cannot be closed does not keep the others open
            for sock in reversed(pending):
                stack.callback(sock._close)
            for listener, scope in listeners.items():
                scope.cancel(reason="the server stopped listening")
                stack.callback(listener.close)

    def _say_not_listening(self) -> None:
        self._machine.feed(Input.ABORT, _tell_nobody)
        self._under_way.call_off()
        self._address, self._port = HostAddress.NULL, 0

    def _stop_in_order(self) -> None:
        half_open: dict[ListenerLink, frozenset[object]] = {}
        for listener, scope in list(self._listeners.items()):
            is_deaf = not self._is_shared and listener.ignore_newcomers()
            peers = listener.half_open() if is_deaf else frozenset()  # first: who ends now is in the queue then
            emptied = self._empty_queue(listener, last=not is_deaf)
            if listener not in self._listeners:
                continue  # the factory has closed the server
            if is_deaf and (peers or not emptied):
                half_open[listener] = peers
            else:
                del self._listeners[listener]
                scope.cancel(reason="the server stopped listening")
                listener.close()
        if not half_open or self._nursery is None:
            self._stop_listening(keep_pending=True)
            return
        self._say_not_listening()
        self._handshakes = trio.CancelScope(shield=True)  # as the accept tasks are
        self._nursery.start_soon(self._finish_handshakes, half_open, self._handshakes)
        self._lot.unpark_all()  # those tasks accept them, paused or not

    async def _finish_handshakes(
        self, half_open: dict[ListenerLink, frozenset[object]], scope: trio.CancelScope
    ) -> None:
        """Close the listening sockets once nobody is half in any more, or after a time."""
        with scope:
            until = trio.current_time() + HANDSHAKES
            while half_open and trio.current_time() < until:
                await trio.sleep(HANDSHAKES_PAUSE)
                for listener, peers in list(half_open.items()):
                    are_done = not peers & listener.half_open()
                    if self._empty_queue(listener, last=False) and are_done:
                        del half_open[listener]
        if self._handshakes is scope:  # else it was closed meanwhile, or what was left was cut
            for listener in half_open:
                self._empty_queue(listener, last=True)
            self._stop_listening(keep_pending=True)

    # -- accepting --------------------------------------------------------------------------

    async def _accept_from(self, listener: ListenerLink, scope: trio.CancelScope) -> None:
        """Accept while there is room, until the server stops listening."""
        failed = 0  # so often, one after the other
        with scope:
            while listener in self._listeners:
                if not self._has_room():
                    await self._lot.park()
                    continue
                for _ in range(ACCEPTS_AT_ONCE):
                    # From here to the connection's entry in _connections there is no checkpoint, so the limit is exact
                    # and no accepted connection is without an owner.
                    if listener not in self._listeners or not self._has_room():
                        break
                    try:
                        link, peer = listener.try_accept()
                    except BlockingIOError:
                        failed = 0
                        await self._until_acceptable(listener)
                        break
                    except OSError as exc:
                        failed += 1
                        await self._accept_failed(exc, failed)
                        break
                    failed = 0
                    self._admit(link, peer)
                else:
                    await trio.lowlevel.checkpoint()

    def _has_room(self) -> bool:
        if self._max_connections is not None and self._is_at_most():
            return False
        if self._handshakes is not None:
            return True
        if self._paused:
            return False
        return self._service is not None or not (self._full or len(self._pending) >= self._max_pending)

    def _is_at_most(self) -> bool:
        """Are there as many connections as there may be?"""
        return self._max_connections is not None and len(self._connections) >= self._max_connections

    def _empty_queue(self, listener: ListenerLink, *, last: bool) -> bool:
        """Accept what the kernel has queued there; whether that was all of it.

        Args:
          last: Whoever is left is reset, which is told.
        """
        # No peer can keep us here for longer than the longest queue that a kernel has.
        for _ in range(BACKLOG):
            if listener not in self._listeners:
                break
            try:
                link, peer = listener.try_accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno not in ENDED_BEFORE_ACCEPT:
                    if last:
                        self._note_accept_failure(exc, "while draining: whoever still waits for it is reset")
                    return False
            else:
                if self._is_at_most():
                    link.close(reset=True)
                    self._refused(peer, f"while draining with {self._max_connections:,} connections")
                else:
                    self._admit(link, peer)
        return True

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
        if self._machine.state is SocketState.LISTENING or self._handshakes is not None:
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

    def _give(self, sock: SocketT) -> None:
        """To a handler if there are any, else to the pending queue."""
        if self._service is not None:
            sock._taken()
            self._service.start(sock)
        else:
            self._pending.append(sock)
            self._note_full()
            self._lot.unpark_all()
        if self._subscriptions:
            self._post(NEW_CONNECTION)

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

    async def _accept_failed(self, exc: OSError, times: int) -> None:
        # Where nothing else comes, as from a sandbox that forbids accept with EPERM, it is no connection's business.
        if exc.errno in ENDED_BEFORE_ACCEPT and times % ACCEPTS_AT_ONCE:
            await trio.lowlevel.checkpoint()
            return
        # A proxy listens for one connection.
        is_over = isinstance(exc, SocketError)
        await self._pause_after(exc, "it takes another listen()" if is_over else TRYING_AGAIN)

    async def _until_acceptable(self, listener: ListenerLink) -> None:
        try:
            await listener.wait_acceptable()
        except trio.ClosedResourceError:
            pass  # it stopped listening, which the loop sees
        except (OSError, trio.BusyResourceError) as exc:
            # The system's epoll is full, or the program waits for our descriptor as well: so it is asked now and then.
            await self._pause_after(exc, TRYING_AGAIN)

    async def _pause_after(self, exc: Exception, what_now: str) -> None:
        self._note_accept_failure(exc, what_now)
        await trio.sleep(ACCEPT_PAUSE)

    def _note_accept_failure(self, exc: Exception, what_now: str) -> None:
        kind, message = kind_of(exc), f"cannot accept: {reason_of(exc)}"
        self._note_accept_error(kind, message)
        assert self._log is not None
        # One a second tells as much as ten.
        self._log.tell(("accept", kind, what_now), logging.WARNING, f"{message}; {what_now}", spacing=1.0)

    def _note_accept_error(self, kind: ErrorKind, message: str) -> None:
        self._error, self._error_string = kind, message
        if self._subscriptions:
            self._post(AcceptError(kind, message))

    def _check_can_lend(self) -> None:
        reason = ""
        if self._time_limits is not None:
            reason = f"{self._time_limits} would not see what others move"
        elif self._factory is not TcpSocket:
            reason = "its socket_factory makes sockets"
        if reason:
            kind = ErrorKind.UNSUPPORTED_SOCKET_OPERATION
            raise SocketError(kind, f"cannot serve descriptors: {reason}")

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

    def is_listening(self) -> bool:
        """Qt: isListening()."""
        self._check_run()
        return self._machine.state is SocketState.LISTENING

    def server_address(self) -> HostAddress:
        """Where it listens, the first address if a name has several; ``HostAddress.NULL`` if it does not.

        Qt: serverAddress().
        """
        self._check_run()
        return self._address

    def server_port(self) -> int:
        """The port it listens on, one for all addresses; 0 if it does not.  Qt: serverPort()."""
        self._check_run()
        return self._port

    def listen_backlog_size(self) -> int:
        """How many connections the kernel may queue when ``listen`` is not told; 65535, which is as many as the system
        allows, unless changed.

        Qt: listenBacklogSize().  There, 50 unless changed.
        """
        self._check_run()
        return self._backlog_size

    def set_listen_backlog_size(self, size: int) -> None:
        """Change it, for the next ``listen``.  Never more than the system allows.

        Qt: setListenBacklogSize().
        """
        self._check_run()
        self._backlog_size = check_size(size, "size")

    def server_error(self) -> ErrorKind | None:
        """The last error of ``listen``, ``set_socket_descriptor`` or accepting, or None.

        A good ``listen`` does not reset it.

        Qt: serverError().
        """
        self._check_run()
        return self._error

    def error_string(self) -> str:
        """The same in words; empty if there was none.  Qt: errorString()."""
        self._check_run()
        return self._error_string

    def connection_count(self) -> int:
        """How many accepted connections have not ended, the pending ones included.  Qt: no counterpart."""
        self._check_run()
        return len(self._connections)

    def socket_descriptor(self) -> int:
        """The OS handle of the (first) listening socket, or -1.  Qt: socketDescriptor()."""
        self._check_run()
        if self._machine.state is not SocketState.LISTENING:
            return -1
        self._is_shared = True  # as far as we know
        natives = (listener.native() for listener in self._listeners)
        return next((native.fileno() for native in natives if native is not None), -1)


async def _targets(host: HostAddress | str, port: int) -> list[Target]:
    """What ``host`` stands for.  Raises: OSError, UnicodeError."""
    if host == HostAddress.ANY:
        return [any_target(port)]
    if not host:
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "there is no address to listen on")
    return await look_up(host, port, NetworkLayerProtocol.ANY_IP)


def _is_encrypted(proxy: NetworkProxy | None) -> bool:
    return proxy is not None and (proxy.context is not None or _is_encrypted(proxy.via))


def _tell_nobody(thing: Told) -> None:
    """A server's states are told by ``is_listening``."""
