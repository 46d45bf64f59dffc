"""Serving and draining: connections go to handlers, and a server stops without losing what it has taken on.

How connections come is the server's business; what becomes of one in its handler is that of ``service.py``.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, Self, TypeVar

import attrs
import trio

from trioqt.core.errors import raise_bare
from trioqt.core.events import Draining, NewConnection
from trioqt.core.socket_state import SocketState
from trioqt.links.interrupts import await_interruptible, protected
from trioqt.sockets.arguments import check_handler, check_seconds
from trioqt.sockets.connection import Connection
from trioqt.sockets.pending_connections import PendingConnections
from trioqt.sockets.service import Service
from trioqt.sockets.trouble_log import TroubleLog

__all__ = ["HARD_LIMIT", "DrainReport", "Serving"]

SocketT = TypeVar("SocketT", bound=Connection)

# How long ``drain`` waits, after it has cut what was left, for handlers that shield themselves, in seconds.
HARD_LIMIT = 1.0

DRAINING, NEW_CONNECTION = Draining(), NewConnection()


@attrs.frozen
class DrainReport:
    """What became of the connections that a draining server had."""

    finished: int
    """They ended by themselves, within the grace."""
    cancelled: int
    """They were cut when that was over, and their peers saw a reset; or their ``serve`` was cancelled meanwhile."""


@protected
@attrs.define(eq=False)
class _Drain:
    """One draining, whoever waits for it."""

    deadline: float
    finished: int = 0
    cancelled: int = 0
    is_cut: bool = False  # what was left then has been counted
    waiting: int = 0  # tasks in drain()
    is_over: bool = False
    callers: set[trio.lowlevel.Task] = attrs.field(factory=set)  # handlers that have called drain() themselves

    def report(self) -> DrainReport:
        return DrainReport(self.finished, self.cancelled)

    def count(self, *, cancelled: bool) -> None:
        """One more has ended."""
        if self.is_cut or self.is_over:
            return
        if cancelled:
            self.cancelled += 1
        else:
            self.finished += 1


@protected
class Serving(PendingConnections[SocketT], Generic[SocketT]):
    """A server as who hands its connections to handlers sees it."""

    __slots__ = ("_connections", "_drain", "_drain_lot", "_is_finishing", "_log", "_nursery", "_service", "_services")

    def __init__(self) -> None:
        super().__init__()
        # Accepted and not ended, in the order they came.  By identity: a user's class may have an equality of its own.
        self._connections: dict[int, SocketT] = {}
        self._nursery: trio.Nursery | None = None  # of the server's block
        self._log: TroubleLog | None = None  # from the block's beginning on
        self._service: Service[SocketT] | None = None  # while a serve() takes connections
        self._services: list[Service[SocketT]] = []  # and those that have not ended
        self._is_finishing = False  # it listens no more, but waits for handshakes that are half done
        self._drain: _Drain | None = None  # from the beginning of a drain() until it listens again
        # Of all who wait for that.  Each handler may have a task that does, so no other news is to wake them.
        self._drain_lot = trio.lowlevel.ParkingLot()

    # -- what the server below must do ------------------------------------------------------

    def _stop_in_order(self) -> None:
        """Accept what the kernel has queued, and listen no more."""
        raise NotImplementedError

    def _stop_listening(self, *, keep_pending: bool = False) -> None:
        """Listen no more."""
        raise NotImplementedError

    # -- serving ----------------------------------------------------------------------------

    async def serve(
        self,
        handler: Callable[[SocketT], Awaitable[object]],
        *,
        isolate: bool = True,
        task_status: trio.TaskStatus[Self] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Give each connection a child task that runs ``async with sock: await handler(sock)``.

        An ``Exception`` out of a handler ends its own connection, by a reset, and no more.  It is told as
        ``ConnectionFinished``, and logged with the peer's address in the logger ``trioqt.server``: what peers and
        networks do (``SocketError`` except OPERATION, ``ClosedResourceError``, ``BrokenResourceError``,
        ``TooSlowError``, a network's ``OSError``, groups of these) at INFO in one line, anything else, a bug, at ERROR
        with its traceback; at most ten records a minute of each kind.  With ``isolate=False`` a bug goes out of
        ``serve``, in an ExceptionGroup; trouble of peers and networks never does.  Under ``simulate`` and the pytest
        plug-in an isolated bug fails the test, unless the test takes it.
        KeyboardInterrupt, SystemExit and cancellation always go out, bare if nothing else does.  So does what else is
        no ``Exception``, as ``asyncio.CancelledError``, in a group.  But a ``trio.Cancelled`` of somebody else's, as
        out of a result that was kept of a cancelled task, is a bug of its handler: a RuntimeError.
        Returns after ``close()`` once the last handler is done; ``listen`` and ``serve`` may begin again before.

        Args:
          task_status: Told the server, once connections are taken.

        Raises:
          SocketError: OPERATION if the server does not listen.
          trio.ClosedResourceError: It did, and has stopped.
          trio.BusyResourceError: Another task accepts or serves.
          TypeError: ``handler`` is no async function of one socket, as far as can be seen before it is called.
        Cancelled: stops accepting and listening in that step, and cancels every handler.
        Qt: no counterpart; newConnection with a slot per connection.
        """
        self._check_run()
        check_handler(handler)
        stopped = self._begin_taking("serve")
        try:
            async with trio.open_nursery() as handlers:
                service = Service(self, handler, isolate, handlers)
                self._service = service
                self._services.append(service)
                try:
                    while self._pending:
                        service.start(self._take())
                    self._lot.unpark_all()
                    task_status.started(self)
                    await stopped.wait()
                except BaseException:
                    if self._stopped is stopped:  # else it listens again already, for another serve()
                        self._stop_listening()
                    raise
                finally:
                    if self._service is service:
                        self._service = None
                    self._end_taking(stopped)
        except BaseExceptionGroup as group:
            raise_bare(group)
        finally:
            self._end_taking(stopped)
            self._services = [other for other in self._services if other is not service]
            self._lot.unpark_all()
            if self._closed and not self._services and self._log is not None:
                self._log.end()  # handlers may have outlived the block

    async def serve_descriptors(
        self,
        handler: Callable[[int], Awaitable[object]],
        *,
        isolate: bool = True,
        task_status: trio.TaskStatus[Self] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """``serve``, but each handler is given an open descriptor in place of a socket, for a thread with a
        ``trio.run`` of its own, or another process.

        The descriptor is lent: it stays the server's, which neither reads nor writes, and ends the connection once the
        handler has ended: in order, or by a reset if that has failed or was cancelled.  Whoever is to use it takes a
        duplicate, ``socket.dup(descriptor)``, and adopts that with ``TcpSocket.set_socket_descriptor``.  So a thread
        that never begins leaves nothing open, and the limits on how many there are, ``ConnectionFinished``, ``isolate``
        and ``drain`` are those of ``serve``: the connection counts until its handler has ended.  A handler that is
        cancelled must see to it that its thread ends, because the peer is told when the last duplicate is closed.

        Raises:
          SocketError: UNSUPPORTED_SOCKET_OPERATION if the server has an ``idle_limit`` or a ``stall_limit``, which do
            not see what others move, or makes sockets of its own, by a ``socket_factory``.
          others: as ``serve``.
        A connection that is not the system's alone, as on a simulated network or by a proxy, ends with
        UNSUPPORTED_SOCKET_OPERATION, and the handler is not called.
        Cancelled: as ``serve``.
        Qt: incomingConnection().
        """
        self._check_run()
        check_handler(handler, "descriptor")
        self._check_can_lend()

        @functools.wraps(handler)
        @trio.lowlevel.enable_ki_protection
        async def lend(sock: SocketT) -> None:
            try:
                await await_interruptible(handler, sock._lend())
            except BaseException:
                sock.abort(reset=True)  # what others had queued, and dropped, cannot be known
                raise

        await self.serve(lend, isolate=isolate, task_status=task_status)

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

    def _check_can_lend(self) -> None:
        """Raises: SocketError."""
        raise NotImplementedError

    def _handler_done(self, handler: trio.lowlevel.Task) -> None:
        """A handler has ended."""
        drain = self._drain
        if drain is not None:
            if handler in drain.callers:
                drain.callers.remove(handler)
            else:
                drain.count(cancelled=trio.current_effective_deadline() == -math.inf)
            self._lot.unpark_all()

    # -- draining ---------------------------------------------------------------------------

    async def drain(self, grace: float) -> DrainReport:
        """Stop without losing a request: take what has come, listen no more, let handlers finish, cut what is left.

        In one step it accepts what the kernel has queued (as far as ``max_connections`` and the descriptors allow; the
        others are reset, told as ``AcceptError`` and logged), stops listening, so that later clients are refused, and
        tells the handlers: ``is_draining()``, ``wait_for_draining()`` and the event ``Draining``.  Only whose handshake
        is half done, or who waits for a descriptor, has a second more to come in, on Linux and the simulated network;
        nobody else is answered meanwhile.  Then it waits ``grace`` seconds at most for the handlers, and for
        connections that have been or can still be taken by ``accept``.  Those left then are cut: their peers see a
        reset, and their handlers are cancelled.  For handlers that shield themselves it waits one second more.

        Args:
          grace: In seconds; 0 cuts at once.

        Returns: How many connections finished, and how many were cut.

        Called again: joins the first; the earlier deadline holds.  Called in a handler: that handler is not waited for
        and not counted; it returns when the others have finished or have been cut, and in the second case the handler
        has one second to end before it is cancelled too, and they with it.
        Raises: TypeError, ValueError if ``grace`` is no number of seconds.
        Cancelled: listens no more, and cuts in that step what is left.
        Qt: no counterpart.
        """
        self._check_run()
        deadline = trio.current_time() + check_seconds(grace, "grace")
        drain, begins = self._drain, self._drain is None
        if drain is None:
            drain = self._drain = _Drain(deadline)
        elif deadline < drain.deadline and not drain.is_cut:
            drain.deadline = deadline
        caller = self._handler_above(trio.lowlevel.current_task())
        if caller is not None:
            drain.callers.add(caller)
        drain.waiting += 1
        try:
            if begins:
                self._begin_drain()
            self._lot.unpark_all()  # there may be an earlier deadline, or one handler less to wait for
            await trio.lowlevel.checkpoint()
            await self._until_drained(drain, is_handler=caller is not None)
        except BaseException:
            self._cut(drain)
            raise
        finally:
            drain.waiting -= 1
            drain.is_over = drain.is_over or drain.waiting == 0
        return drain.report()

    def is_draining(self) -> bool:
        """Has ``drain`` begun?  So until the server listens again.  Qt: no counterpart."""
        self._check_run()
        return self._drain is not None

    async def wait_for_draining(self) -> None:
        """Wait until ``drain`` has begun; returns at once if it has.

        Raises: trio.ClosedResourceError if the server is closed for good instead.
        Cancelled: nothing has happened.
        Qt: no counterpart.
        """
        self._check_run()
        await trio.lowlevel.checkpoint()
        while self._drain is None:
            if self._closed:
                raise trio.ClosedResourceError("cannot wait for draining: the server is closed")
            await self._drain_lot.park()

    def _begin_drain(self) -> None:
        self._stop_in_order()
        self._drain_lot.unpark_all()
        if self._subscriptions:
            self._post(DRAINING)

    async def _until_drained(self, drain: _Drain, *, is_handler: bool) -> None:
        while not drain.is_over:
            if self._is_drained(drain):
                break
            if drain.is_cut and is_handler:
                return  # it is in the way itself: those that were cut are cancelled with it, at the latest
            with trio.move_on_at(drain.deadline):
                await self._lot.park()
            if trio.current_time() >= drain.deadline:
                if drain.is_cut:
                    break  # what is left shields itself
                self._cut(drain)
        drain.is_over = True
        self._lot.unpark_all()

    def _is_drained(self, drain: _Drain) -> bool:
        """Is there none left but the handlers that called it, and connections of theirs?

        Asked whenever one ends, so it must not look at each of the others.
        """
        if self._is_finishing or sum(service.running for service in self._services) > len(drain.callers):
            return False
        return next(self._without_handler(), None) is None

    def _without_handler(self) -> Iterator[SocketT]:
        """Connections that have been taken by ``accept`` or can still be, and have not ended."""
        for sock in self._connections.values():
            if sock._handler is None:
                yield sock
        for sock in self._pending:
            if id(sock) not in self._connections and sock.state() is not SocketState.UNCONNECTED:
                yield sock  # given to add_pending_connection

    def _cut(self, drain: _Drain) -> None:
        """End what is left."""
        if drain.is_cut or drain.is_over:
            return
        drain.is_cut = True
        handlers = sum(service.running for service in self._services) - len(drain.callers)
        drain.cancelled += handlers + sum(1 for _ in self._without_handler())
        drain.deadline = trio.current_time() + HARD_LIMIT
        with contextlib.ExitStack() as stack:  # last in, first out; one that cannot be cut keeps no other alive
            stack.callback(self._stop_listening)
            for sock in self._connections.values():
                if sock._handler not in drain.callers:
                    stack.callback(sock.abort, reset=True)
            stack.callback(self._cancel_handlers, drain)  # before they hear that their sockets are closed

    def _cancel_handlers(self, drain: _Drain) -> None:
        """Cancel them: now, or once those that called ``drain`` themselves have ended, for they share a nursery."""
        services = list(self._services)
        if not drain.callers or self._nursery is None:
            self._cancel(services)
            return
        try:
            self._nursery.start_soon(self._cancel_after_callers, drain, services)
        except RuntimeError:  # the server's block has been left
            self._cancel(services)

    async def _cancel_after_callers(self, drain: _Drain, services: list[Service[SocketT]]) -> None:
        try:
            with trio.move_on_at(drain.deadline):
                while drain.callers:
                    await self._lot.park()
        finally:
            drain.deadline = trio.current_time() + HARD_LIMIT
            self._cancel(services)
            self._lot.unpark_all()

    def _cancel(self, services: list[Service[SocketT]]) -> None:
        for service in services:
            service.cancel("the server was drained, and its grace is over")

    def _handler_above(self, task: trio.lowlevel.Task) -> trio.lowlevel.Task | None:
        found = (service.handler_above(task) for service in self._services)
        return next((handler for handler in found if handler is not None), None)
