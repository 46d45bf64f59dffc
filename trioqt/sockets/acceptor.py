"""A server's listening sockets: how connections come out of the kernel's queues, and how that ends without losing one.

Whether there is room for a connection, and whose it is, the server says; what it is then is not known here.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from typing import Protocol

import trio

from trioqt.core.errors import SocketError
from trioqt.links.base import Link, ListenerLink, Sockaddr
from trioqt.links.interrupts import protected

__all__ = ["BACKLOG", "Acceptor"]

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


class Accepting(Protocol):
    """The server."""

    _lot: trio.lowlevel.ParkingLot
    """Of those who wait for room, and are woken when there may be some."""

    def _has_room(self) -> bool:
        """May one more be accepted?"""

    def _admit(self, link: Link, peer: Sockaddr) -> None:
        """Give a connection an owner; there was room for it."""

    def _admit_or_refuse(self, link: Link, peer: Sockaddr) -> None:
        """The same, and if there is no room, end it."""

    def _note_accept_failure(self, exc: Exception, what_now: str) -> None:
        """The system refuses."""


@protected
class Acceptor:
    """The listening sockets of one ``listen``, each with a task that accepts.

    Args:
      is_shared: Another process may have the same ones.
    """

    __slots__ = ("_finishing", "_half_open", "_is_shared", "_listeners", "_server")

    def __init__(self, server: Accepting, *, is_shared: bool) -> None:
        self._server = server
        self._is_shared = is_shared
        self._listeners: dict[ListenerLink, trio.CancelScope] = {}  # each with the scope of its accept task
        self._half_open: dict[ListenerLink, frozenset[object]] = {}  # who was half in when it began to finish
        self._finishing = trio.CancelScope(shield=True)  # as the accept tasks are

    def begin(self, listeners: Sequence[ListenerLink], nursery: trio.Nursery) -> None:
        """Accept from these."""
        for listener in listeners:
            # Shielded for the same reason as a socket's tasks: a shielded body may still want to be served.
            self._listeners[listener] = scope = trio.CancelScope(shield=True)
            nursery.start_soon(self._accept_from, listener, scope)

    def lend(self) -> int:
        """The descriptor of the first one, which others may use from now on, as far as we know; -1: it has none."""
        self._is_shared = True
        natives = (listener.native() for listener in self._listeners)
        return next((native.fileno() for native in natives if native is not None), -1)

    def close(self) -> None:
        """Accept no more.  One that cannot be closed does not keep the others open."""
        listeners, self._listeners = self._listeners, {}
        self._finishing.cancel(reason="the server closes its listening sockets")
        with contextlib.ExitStack() as stack:
            for listener, scope in listeners.items():
                scope.cancel(reason="the server stopped listening")
                stack.callback(listener.close)

    def finish(self) -> bool:
        """Accept what the kernel has queued, and answer nobody new.

        Returns: Is that all?  Else some are half in, and ``wait_for_handshakes`` is to follow.
        """
        for listener, scope in list(self._listeners.items()):
            is_deaf = not self._is_shared and listener.ignore_newcomers()
            peers = listener.half_open() if is_deaf else frozenset()  # first: who ends now is in the queue then
            emptied = self._empty_queue(listener, last=not is_deaf)
            if listener not in self._listeners:
                continue  # the factory has closed the server
            if is_deaf and (peers or not emptied):
                self._half_open[listener] = peers
            else:
                del self._listeners[listener]
                scope.cancel(reason="the server stopped listening")
                listener.close()
        return not (self._half_open and self._listeners)

    async def wait_for_handshakes(self) -> bool:
        """Accept until nobody is half in any more, or for a time; False if it was closed meanwhile."""
        with self._finishing:
            until = trio.current_time() + HANDSHAKES
            while self._half_open and trio.current_time() < until:
                await trio.sleep(HANDSHAKES_PAUSE)
                for listener, peers in list(self._half_open.items()):
                    are_done = not peers & listener.half_open()
                    if self._empty_queue(listener, last=False) and are_done:
                        del self._half_open[listener]
        if not self._listeners:
            return False
        for listener in self._half_open:
            self._empty_queue(listener, last=True)
        return True

    async def _accept_from(self, listener: ListenerLink, scope: trio.CancelScope) -> None:
        """Accept while there is room, until the server stops listening."""
        server = self._server
        failed = 0  # so often, one after the other
        with scope:
            while listener in self._listeners:
                if not server._has_room():
                    await server._lot.park()
                    continue
                for _ in range(ACCEPTS_AT_ONCE):
                    # From here to the connection's entry in the server's books there is no checkpoint, so the limit is
                    # exact and no accepted connection is without an owner.
                    if listener not in self._listeners or not server._has_room():
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
                    server._admit(link, peer)
                else:
                    await trio.lowlevel.checkpoint()

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
                        self._server._note_accept_failure(exc, "while draining: whoever still waits for it is reset")
                    return False
            else:
                self._server._admit_or_refuse(link, peer)
        return True

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
        self._server._note_accept_failure(exc, what_now)
        await trio.sleep(ACCEPT_PAUSE)
