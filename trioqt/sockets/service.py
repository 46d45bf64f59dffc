"""What ``serve`` gives a connection: a task with its handler, and the judgement how that ended.

Of the server it needs no more than who listens to its events, its log, and somebody to tell when a handler is done.
"""

from __future__ import annotations

import contextvars
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

import trio

from trioqt.core.addresses import HostAddress, from_sockaddr, location
from trioqt.core.errors import (
    SocketError,
    as_exception,
    class_name,
    holds_cancellation,
    in_one_line,
    is_network_trouble,
)
from trioqt.core.events import ConnectionFinished, Event
from trioqt.links.base import Link, Sockaddr
from trioqt.links.interrupts import await_interruptible, protected
from trioqt.sockets.arguments import name_of
from trioqt.sockets.connection import Connection
from trioqt.sockets.subscription import Subscription
from trioqt.sockets.survived_bugs import tell_bug
from trioqt.sockets.trouble_log import TroubleLog

__all__ = ["Service"]

SocketT = TypeVar("SocketT", bound=Connection)

STARTING = object()
"""A handler that has not taken its first step."""


class Served(Protocol):
    """The server."""

    _subscriptions: tuple[Subscription[Any], ...]
    _log: TroubleLog | None

    def _post(self, event: Event) -> None: ...

    def _handler_done(self, handler: trio.lowlevel.Task) -> None:
        """A handler has ended."""


@protected
class Service(Generic[SocketT]):
    """One call of ``serve``: what each connection gets."""

    def __init__(
        self, server: Served, handler: Callable[[SocketT], Awaitable[object]], isolate: bool, nursery: trio.Nursery
    ) -> None:
        self._server = server
        self._handler = handler
        self._isolate = isolate
        self._nursery = nursery
        self.running: int = 0
        """How many handlers have not ended."""
        # A handler sees the context variables of whoever serves, not those of the accept task.
        self._context = contextvars.copy_context()
        self._name = name_of(handler)

    def start(self, sock: SocketT) -> None:
        """Give ``sock`` its task."""
        self.running += 1
        sock._handler = STARTING
        self._context.run(self._nursery.start_soon, self._handle, sock, name=self._name)  # type: ignore[arg-type]

    def cancel(self, reason: str) -> None:
        """Cancel every handler."""
        self._nursery.cancel_scope.cancel(reason=reason)

    def handler_above(self, task: trio.lowlevel.Task) -> trio.lowlevel.Task | None:
        """The handler's task that ``task`` is, or works for."""
        above: trio.lowlevel.Task | None = task
        while above is not None and above.parent_nursery is not None:
            if above.parent_nursery is self._nursery:
                return above
            above = above.parent_nursery.parent_task
        return None

    async def _handle(self, sock: SocketT) -> None:
        # Every open connection holds this frame, so what is seldom needed is elsewhere.
        link = sock._link
        sock._handler = handler = trio.lowlevel.current_task()
        try:
            async with sock:
                try:
                    await await_interruptible(self._handler, sock)
                except (trio.Cancelled, BaseExceptionGroup) as exc:
                    if _is_of_nobody(exc):
                        raise RuntimeError("the handler raised trio.Cancelled, and nobody had cancelled it") from exc
                    raise
                sock._task_ends = True
        except BaseException as exc:
            if not self._ended(link, exc):
                raise
        else:
            if self._server._subscriptions:
                self._ended(link, None)
        finally:
            if sock._link is not None:
                self._end(sock)
            self.running -= 1
            self._server._handler_done(handler)

    def _end(self, sock: SocketT) -> None:
        """End a connection that the end of its block has not: a class of the program's has its own block, which failed.

        Else its peer would wait for ever, and its slot would never be free.
        """
        try:
            sock._abort(reset=True)
        finally:
            sock._close()

    def _ended(self, link: Link | None, error: BaseException | None) -> bool:
        """A handler has ended: tell; was that an end, and not a bug or a cancellation that must go out?

        Args:
          link: Of the connection that it was given; None if that had ended before.
        """
        peer = None if link is None else link.peer_address()  # which a link knows after its end too
        if self._server._subscriptions:
            address, port = (HostAddress.NULL, 0) if peer is None else (from_sockaddr(peer), peer[1])
            self._server._post(ConnectionFinished(address, port, error))
        if error is None:
            return True
        if isinstance(error, Exception):
            return self._stays_here(peer, error)
        if isinstance(error, BaseExceptionGroup):
            if (plain := as_exception(error)) is not None:
                return self._stays_here(peer, plain)
            # A handler with a nursery of its own may end by cancellation and by other things at once.
            try:
                others, goes_out = error.split(Exception)
            except Exception:
                return False  # an odd class, or too deep: it goes out as it is
            if others is not None and goes_out is not None and self._stays_here(peer, others):
                raise goes_out from None
        return False

    def _stays_here(self, peer: Sockaddr | None, error: Exception) -> bool:
        """Log it, if it ends no more than its own connection; else it is told by going out."""
        is_trouble = is_network_trouble(error)
        if not is_trouble and not self._isolate:
            return False
        if is_trouble and trio.current_effective_deadline() == -math.inf:
            return True  # it was cancelled, and its socket closed: that is no peer's doing
        whose = "a connection" if peer is None else f"the connection from {location(from_sockaddr(peer), peer[1])}"
        log = self._server._log
        assert log is not None
        if is_trouble:
            first = _first(error)
            kind = first.kind if isinstance(first, SocketError) else class_name(first)
            log.tell(("ended", kind), logging.INFO, f"{whose} ended: {in_one_line(first)}")
        else:
            log.tell(("failed", class_name(_first(error))), logging.ERROR, f"the handler of {whose} failed", exc=error)
            tell_bug(error)
        return True


def _is_of_nobody(exc: BaseException) -> bool:
    """Is there a cancellation in it that is not the handler's, as when a result was kept of a task that was cancelled?

    A nursery would take it for its own: it would cancel all other handlers, and end as if nothing had been wrong.
    """
    return holds_cancellation(exc) and trio.current_effective_deadline() != -math.inf


def _first(error: BaseException) -> BaseException:
    """Of a group, what stands for it in the log."""
    while isinstance(error, BaseExceptionGroup):
        try:
            error = error.exceptions[0]
        except Exception:  # of a class that fails when it is asked what is in it
            break
    return error
