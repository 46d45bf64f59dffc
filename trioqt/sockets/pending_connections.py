"""Accepted connections that nobody has taken yet: how they are taken, how many may wait, and when accepting rests."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

import trio

from trioqt.core.errors import ErrorKind, SocketError
from trioqt.links.interrupts import protected
from trioqt.sockets.abstract_socket import AbstractSocket
from trioqt.sockets.arguments import check_size
from trioqt.sockets.proxy_choice import HasProxy

__all__ = ["MAX_PENDING_CONNECTIONS", "PendingConnections"]

SocketT = TypeVar("SocketT", bound=AbstractSocket)

# Qt: "The default is 30."
MAX_PENDING_CONNECTIONS = 30


@protected
class PendingConnections(HasProxy, Generic[SocketT]):
    """A server as who takes connections sees it."""

    __slots__ = (
        "_closed",
        "_ends_when_taken",
        "_full",
        "_lot",
        "_max_pending",
        "_paused",
        "_pending",
        "_stopped",
        "_taker",
    )

    def __init__(self) -> None:
        super().__init__()
        self._pending: deque[SocketT] = deque()
        self._max_pending = MAX_PENDING_CONNECTIONS
        self._full = False  # as many are pending as may be, and none has been taken since
        self._paused = False
        self._taker: trio.Event | None = None  # the `_stopped` of who is in accept() or serve()
        self._stopped: trio.Event | None = None  # set when this listen() ends; None: it never listened
        self._ends_when_taken = False  # it listens no more, and ends when those that are pending have been taken
        self._closed = False
        self._lot = trio.lowlevel.ParkingLot()  # of all who wait for a connection, for room, or for the end

    async def accept(self) -> SocketT:
        """Wait for a connection and take it.

        Raises:
          SocketError: OPERATION if the server does not listen.
          trio.ClosedResourceError: It did, and has stopped.
          trio.BusyResourceError: Another task accepts or serves.
        Cancelled: no connection was taken.
        Qt: waitForNewConnection + nextPendingConnection.
        """
        self._check_run()
        stopped = self._begin_taking("accept")
        try:
            await trio.lowlevel.checkpoint()
            await self._until_pending(stopped, "accept")
            return self._take()
        finally:
            self._end_taking(stopped)

    def __aiter__(self) -> AsyncIterator[SocketT]:
        """``async for sock in server``: `accept` again and again, until the server stops listening."""
        return _Connections(self)

    async def wait_for_new_connection(self) -> None:
        """Wait until a connection is pending; returns at once if one is.

        Raises: SocketError, trio.ClosedResourceError: as ``accept``.
        Cancelled: nothing has happened.
        Qt: waitForNewConnection().  There, it waits for a further one.
        """
        self._check_run()
        attempted = "wait for a connection"
        stopped = self._check_listening(attempted)
        await trio.lowlevel.checkpoint()
        await self._until_pending(stopped, attempted)

    def has_pending_connections(self) -> bool:
        """Is there a connection that nobody has taken?  Qt: hasPendingConnections()."""
        self._check_run()
        return bool(self._pending)

    def next_pending_connection(self) -> SocketT | None:
        """The oldest accepted connection nobody took, or None.

        It works at once, in its server's scope; entering it sets when it ends, never later than the server's block.
        Its peer may be gone already.
        Qt: nextPendingConnection().
        """
        self._check_run()
        return self._take() if self._pending else None

    def max_pending_connections(self) -> int:
        """How many connections may wait to be taken; 30 unless changed.  Qt: maxPendingConnections()."""
        self._check_run()
        return self._max_pending

    def set_max_pending_connections(self, count: int) -> None:
        """Change it; 0 accepts none.

        Once as many are pending as may be, accepting rests until one is taken or ``resume_accepting`` is called; a
        higher limit alone does not end that rest.

        Qt: setMaxPendingConnections().  There, 0 switches accepting off for good, and a negative count is as 0.
        """
        self._check_run()
        self._max_pending = check_size(count, "count")
        self._note_full()
        self._lot.unpark_all()

    def pause_accepting(self) -> None:
        """Accept no more until ``resume_accepting``, or until it has stopped listening and listens anew.

        It goes on listening.
        Qt: pauseAccepting().  There, taking a connection resumes too, and it crashes if the server does not listen.
        """
        self._check_run()
        self._paused = True

    def resume_accepting(self) -> None:
        """Accept again, as far as the limits allow.  Qt: resumeAccepting()."""
        self._check_run()
        self._paused = self._full = False
        self._lot.unpark_all()

    def _note_full(self) -> None:
        if self._pending and len(self._pending) >= self._max_pending:
            self._full = True

    def _take(self) -> SocketT:
        sock = self._pending.popleft()
        self._full = False
        self._end_if_taken()
        self._lot.unpark_all()
        sock._taken()
        return sock

    def _end_if_taken(self) -> None:
        """Who waits for a connection hears that there will be none."""
        if self._ends_when_taken and self._stopped is not None and not (self._pending or self._are_coming()):
            self._stopped.set()

    def _are_coming(self) -> bool:
        """Are there connections that were accepted, and will be pending?"""
        return False

    async def _until_pending(self, stopped: trio.Event, attempted: str) -> None:
        while not stopped.is_set():  # what is pending after that belongs to a later listen()
            if self._pending:
                return
            await self._lot.park()
        raise trio.ClosedResourceError(f"cannot {attempted}: the server has stopped listening")

    def _begin_taking(self, attempted: str) -> trio.Event:
        stopped = self._check_listening(attempted)
        if self._taker is stopped:
            raise trio.BusyResourceError("another task accepts or serves on this server")
        self._taker = stopped
        return stopped

    def _end_taking(self, stopped: trio.Event) -> None:
        if self._taker is stopped:
            self._taker = None

    def _check_listening(self, attempted: str) -> trio.Event:
        """The event that will tell the end of this listening."""
        if self._closed or (self._stopped is not None and self._stopped.is_set()):
            raise trio.ClosedResourceError(f"cannot {attempted}: the server has stopped listening")
        if self._stopped is None:
            raise SocketError(ErrorKind.OPERATION, f"cannot {attempted} while not listening")
        return self._stopped


@protected
class _Connections(AsyncIterator[SocketT], Generic[SocketT]):
    """Accepts until the server stops listening.  An iterator object, so a cancelled step does not end it."""

    __slots__ = ("_server",)

    def __init__(self, server: PendingConnections[SocketT]) -> None:
        self._server = server

    async def __anext__(self) -> SocketT:
        try:
            return await self._server.accept()
        except trio.ClosedResourceError:
            raise StopAsyncIteration from None
