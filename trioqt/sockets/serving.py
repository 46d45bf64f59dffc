"""What ``serve`` gives a connection: a task with its handler, and the judgement how that ended.

Of the server it needs no more than who listens to its events.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from trioqt.core.addresses import HostAddress, from_sockaddr
from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.events import ConnectionFinished
from trioqt.links.base import Sockaddr
from trioqt.links.interrupts import await_interruptible, protected
from trioqt.sockets.abstract_socket import AbstractSocket
from trioqt.sockets.subscription import EventSource

__all__ = ["Service"]

SocketT = TypeVar("SocketT", bound=AbstractSocket)

logger: logging.Logger = logging.getLogger("trioqt.server")


@protected
class Service(Generic[SocketT]):
    """One call of ``serve``: what each connection gets."""

    def __init__(
        self,
        server: EventSource,
        handler: Callable[[SocketT], Awaitable[object]],
        isolate: bool,
        nursery: trio.Nursery,
    ) -> None:
        self._server = server
        self._handler = handler
        self._isolate = isolate
        self._nursery = nursery
        # A handler sees the context variables of whoever serves, not those of the accept task.
        self._context = contextvars.copy_context()
        self._name = f"{getattr(handler, '__module__', '?')}.{getattr(handler, '__qualname__', repr(handler))}"

    def start(self, sock: SocketT) -> None:
        """Give ``sock`` its task."""
        self._context.run(self._start, sock)

    def _start(self, sock: SocketT) -> None:
        self._nursery.start_soon(self._handle, sock, name=self._name)

    async def _handle(self, sock: SocketT) -> None:
        # Every open connection holds this frame, so what is seldom needed is elsewhere.
        peer = sock._peer()
        try:
            async with sock:
                await await_interruptible(self._handler, sock)
        except BaseException as exc:
            if not self._ended(peer, exc):
                raise
        else:
            self._ended(peer, None)

    def _ended(self, peer: Sockaddr | None, error: BaseException | None) -> bool:
        """A handler has ended: tell; was that an end, and not a bug or a cancellation that must go out?"""
        if self._server._subscriptions:
            address, port = (HostAddress.NULL, 0) if peer is None else (from_sockaddr(peer), peer[1])
            self._server._post(ConnectionFinished(address, port, error))
        if error is None:
            return True
        if isinstance(error, Exception):
            return self._stays_here(error)
        if isinstance(error, BaseExceptionGroup):
            # A handler with a nursery of its own may end by cancellation and by other things at once.
            others, goes_out = error.split(Exception)
            if others is not None and goes_out is not None and self._stays_here(others):
                raise goes_out from None
        return False

    def _stays_here(self, error: Exception) -> bool:
        if _peer_vanished(error):
            return True
        if self._isolate:
            logger.error("a handler failed", exc_info=error)
        return self._isolate


def _peer_vanished(exc: BaseException) -> bool:
    """Is this how a handler ends whose peer is gone, or whose connection was ended under it?"""
    if isinstance(exc, ExceptionGroup):
        return all(_peer_vanished(inner) for inner in exc.exceptions)
    if isinstance(exc, SocketError):
        return exc.kind is not ErrorKind.OPERATION
    if isinstance(exc, trio.BrokenResourceError):
        # A stream over the socket: trio's TLS tells so that its client left without a goodbye, or in the handshake.
        # Without a network error as its cause it is a broken channel, and a bug.
        return isinstance(exc.__cause__, OSError) and getattr(exc.__cause__, "kind", None) is not ErrorKind.OPERATION
    return isinstance(exc, trio.ClosedResourceError)
