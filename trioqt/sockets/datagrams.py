"""A socket's datagrams: what has arrived, who waits for more, who watches.

What the system holds is taken in batches, so that most calls are answered without asking it.  A batch is bounded, and
what is behind it stays with the system, whose buffer bounds it; so does what a program does not read.

Who receives is one rule, as for connections: a caller that waits on the link receives, and the watcher stands by
meanwhile; while the watcher waits on the link, a caller waits for what it brings.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import deque
from typing import Any, NoReturn

import attrs
import trio

from trioqt.core.addresses import HostAddress, from_sockaddr
from trioqt.core.datagram import NetworkDatagram
from trioqt.core.errors import SocketError, kind_of, reason_of
from trioqt.core.events import ReadyRead
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input
from trioqt.links.base import DatagramLink, NativeSocket, Sockaddr
from trioqt.links.datagram import NativeDatagramLink, native_datagram_socket
from trioqt.links.interrupts import protected
from trioqt.sockets.abstract_socket import AbstractSocket
from trioqt.sockets.answers import ANSWERS, ANSWERS_PERIOD
from trioqt.sockets.generation import Failure, Generation, raise_failure
from trioqt.sockets.nursery_ends import at_end_of
from trioqt.sockets.subscription import Subscription

__all__ = ["BATCH", "BOUND", "CONNECTED", "ENDS", "UNCONNECTED", "Datagrams"]

# How many datagrams are taken from the system in one go, and so how many a socket holds at most of its own accord.
# Each costs at most 64 KiB.  Taken one by one a receiver waits for each (4.2 to 4.9 times as slow); more at once gained
# nothing measurable.
BATCH = 64

# Where datagrams come one by one, a peer that answers at once has done so by the time that others have had their turn:
# to look then costs 5 us less than to wait, and 8 more if there is nothing yet.  So that is tried once after so many
# waits that brought one each, and kept up while it brings one.
WAITS = 16

READY_READ = ReadyRead()
UNCONNECTED, CONNECTED, BOUND = SocketState.UNCONNECTED, SocketState.CONNECTED, SocketState.BOUND

# What a wait on a link can end with.
ENDS = (OSError, trio.ClosedResourceError)

# A descriptor that is none, or somebody else's, says nothing of a datagram.
LOST = (errno.EBADF, errno.ENOTSOCK)


@protected
class Datagrams(AbstractSocket):
    """A socket that has, at times, a link for datagrams."""

    __slots__ = (
        "_answers",
        "_answers_until",
        "_arrived",
        "_attempt",
        "_is_any",
        "_link",
        "_luck",
        "_multicast_interface",
        "_news",
        "_now",
        "_orphaned",
        "_parked",
        "_read_buffer_size",
        "_ready_told",
        "_receiving",
        "_sender_waits",
        "_trouble",
        "_watch_scope",
        "_watcher_waits",
    )

    def __init__(self, parent: trio.Nursery | None = None) -> None:
        super().__init__(parent)
        self._link: DatagramLink | None = None
        self._is_any = False  # bound to every address, of both families where there are both
        self._attempt: trio.CancelScope | None = None  # of the connect_to_host that runs
        self._arrived: deque[NetworkDatagram] = deque()
        self._trouble: Failure | None = None  # what the network said of a datagram, until a receiver has heard of it
        self._ready_told = False  # ReadyRead was told, and nothing was taken since: as in Qt it is not told again
        self._news = False  # something came, or was taken, since wait_for_ready_read returned
        self._receiving = False  # a task is in receive_datagram, in a step of the iteration or in wait_for_ready_read
        self._parked = False  # and waits for what the watcher brings, not on the link
        self._sender_waits = False  # a task waits on the link until there is room
        self._orphaned = False  # the parent nursery is cancelled: nobody can watch any more
        self._watch_scope: trio.CancelScope | None = None
        self._watcher_waits = False  # the watcher waits on the link
        self._multicast_interface = 0
        self._read_buffer_size = 0
        self._luck = 0  # above 0: look after a turn, before it waits; else so many waits until that is tried, and one
        self._answers = 0  # how many more calls are answered before other tasks get their turn ...
        self._now = trio.current_time  # the clock that says so; its own method once there have been answers
        self._answers_until = 0.0  # ... and until when

    # -- a link begins and ends -------------------------------------------------------------

    def _begin(self, link: DatagramLink, is_any: bool) -> None:
        """Nothing of an earlier time holds any more."""
        self._generation = Generation()
        self._forget_arrived()
        self._link, self._is_any = link, is_any
        self._multicast_interface = 0

    def _forget_arrived(self) -> None:
        self._arrived.clear()
        self._trouble = None
        self._ready_told = self._news = False

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        self._is_any = False
        if link is not None:
            with contextlib.suppress(OSError):  # somebody has closed what is below, and that is what was wanted
                link.close()
        if self._watch_scope is not None:
            self._watch_scope.cancel(reason="the socket has ended")
        self._changed()

    # -- datagrams arrive -------------------------------------------------------------------

    def _peek(self) -> NetworkDatagram | None:
        """The oldest that has arrived, after a look at the system if none has."""
        self._check_thread()
        if self._closed:
            self._check_open("look for datagrams")
        # A task that waits on the link would not hear of what is taken here.
        if not self._arrived and (not self._receiving or self._parked):
            self._pull(BATCH)
        return self._arrived[0] if self._arrived else None

    def _take(self, limit: int | None) -> NetworkDatagram:
        datagram = self._arrived.popleft()
        self._news = True
        self._ready_told = False
        if self._arrived:
            self._tell_ready()  # as in Qt, where readyRead comes again after a read, if there are more
        if self._lot is not None:
            self._lot.unpark_all()  # there is room for the watcher
        if limit is not None and len(datagram.data) > limit:
            return attrs.evolve(datagram, data=datagram.data[:limit], truncated=True)
        return datagram

    def _pull(self, most: int) -> None:
        """Take in what the system holds, until ``most`` datagrams are there."""
        link, arrived = self._link, self._arrived
        before = len(arrived)
        if link is None or before >= most:
            return
        for _ in range(BATCH):  # each may end in what the network says of one that was sent
            exc = link.try_receive(arrived, most - len(arrived))
            if exc is None:
                break
            if exc.errno in LOST:
                self._lose(exc)
                break
            self._note(exc)
        if len(arrived) > before:
            self._news = True
            if self._subscriptions:
                self._tell_ready()
            if self._lot is not None:
                self._lot.unpark_all()

    def _take_rest(self, link: DatagramLink) -> None:
        """What the system holds can still be read after the end; its own buffer bounds how much that is."""
        try:
            room = link.native().getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        except OSError:
            return  # there is no socket below any more
        while room > 0 and self._link is link:
            before = len(self._arrived)
            self._pull(before + BATCH)
            if link.is_drained() or len(self._arrived) == before:
                return
            room -= sum(len(self._arrived[index].data) + 256 for index in range(before, len(self._arrived)))

    def _note(self, exc: OSError) -> None:
        """The network says that a datagram could not be delivered: told now, and to the next who waits for one."""
        message = f"a datagram was not delivered: {reason_of(exc)}"
        self._trouble = Failure(kind_of(exc), message, exc.with_traceback(None))
        self._set_error(self._trouble.kind, message)
        self._machine.feed(Input.DATAGRAM_FAILED, self._tell)
        self._changed()

    def _lose(self, exc: OSError) -> None:
        """Somebody has closed the descriptor below us, or the proxy carries nothing more than what is here."""
        if isinstance(exc, SocketError) and self._link is not None:
            self._take_rest(self._link)
        self._set_failure(kind_of(exc), f"the socket was lost: {reason_of(exc)}", exc)
        self._machine.feed(Input.DATAGRAM_FAILED, self._tell)
        self._machine.feed(Input.ABORT, self._tell)
        self._drop_link()

    def _tell_ready(self) -> None:
        if self._subscriptions and not self._ready_told:
            self._ready_told = True
            self._post(READY_READ)

    # -- waiting for them -------------------------------------------------------------------

    async def _turn(self) -> bool:
        """Look for cancellation, and let other tasks run, or say that this is owed: see ``_is_idle``."""
        if self._link is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            return True
        await trio.lowlevel.checkpoint()
        return False

    def _refill_answers(self) -> None:
        # trio's clock, not the processor's: on a mock clock the turns must not depend on the machine's speed.
        if not self._answers_until:
            self._now = trio.lowlevel.current_clock().current_time
        self._answers = ANSWERS
        self._answers_until = self._now() + ANSWERS_PERIOD

    async def _fill(self, generation: Generation) -> None:
        """Wait for news: a datagram, or trouble, or the reason why neither can come.

        Raises: SocketError, trio.ClosedResourceError: no more can come.
        Cancelled: nothing was taken.
        """
        link = self._link
        if link is None:
            self._refuse("receive")
        if self._watcher_waits:
            await self._park()
        elif not link.is_drained():  # the last batch was full, so there may be more
            before = len(self._arrived)
            self._pull(BATCH)
            if len(self._arrived) == before:
                await trio.lowlevel.checkpoint()
        elif self._luck > 0:
            await trio.lowlevel.checkpoint()
            if self._link is link and not self._watcher_waits:
                self._pull(BATCH)
            if len(self._arrived) != 1:
                self._luck = -WAITS
            self._refill_answers()
        else:
            try:
                await link.wait_receivable()
            except ENDS as exc:
                self._link_failed(link, exc)
            else:
                if self._link is link:
                    self._pull(BATCH)
            self._luck = self._luck + 1 if len(self._arrived) == 1 else -WAITS
            self._refill_answers()
        if self._generation is not generation:
            self._check_same(generation, "receive")

    def _link_failed(self, link: DatagramLink, exc: Exception) -> None:
        """A wait on ``link`` ended: it was closed here, or is lost."""
        if self._link is not link:
            return
        if isinstance(exc, OSError) and (exc.errno in LOST or isinstance(exc, SocketError)):
            self._lose(exc)
        else:
            self.abort()

    async def _park(self) -> None:
        """Wait, as the one who receives, for what the watcher brings, or for the attempt that runs."""
        self._parked = True
        try:
            await self._wait_changed()
        finally:
            self._parked = False

    def _raise_trouble(self) -> NoReturn:
        trouble, self._trouble = self._trouble, None
        assert trouble is not None
        raise_failure(trouble)

    # -- the watcher ------------------------------------------------------------------------

    def _listeners_changed(self) -> None:
        self._check_call()
        self._update_watcher()

    def _tell_what_is_so(self, subscription: Subscription[Any]) -> None:
        if self._arrived:
            subscription.post(READY_READ)
        elif not self._receiving or self._parked:
            self._pull(BATCH)

    def _update_watcher(self) -> None:
        """Start the watcher if somebody wants to know sooner, stop it if nobody does."""
        wanted = bool(self._subscriptions) and self._link is not None and not self._orphaned
        if self._watch_scope is not None:
            if not wanted:
                self._watch_scope.cancel(reason="nobody watches")
        elif wanted and self._in_scope():
            self._watch_scope = trio.CancelScope(shield=self._is_shielded())
            self._start(self._watch, self._link, self._watch_scope)

    async def _watch(self, link: DatagramLink, scope: trio.CancelScope) -> None:
        """Take in what comes, up to a batch, while no caller does."""
        try:
            with scope:
                while self._link is link:
                    if len(self._arrived) >= BATCH or self._watcher_waits or (self._receiving and not self._parked):
                        await self._wait_changed()
                        continue
                    self._watcher_waits = True
                    try:
                        await link.wait_receivable()
                    finally:
                        self._watcher_waits = False
                    if self._link is link:
                        self._pull(BATCH)
        except ENDS as exc:
            self._link_failed(link, exc)
        except trio.Cancelled:
            # The run ends, or the parent nursery is cancelled.  Then the socket is closed once it has ended, and who
            # listens must hear of it.
            self._orphaned = True
            if self._parent is not None:
                at_end_of(self._parent, self._in_scope)
            raise
        except BaseException:
            self._close()
            raise
        finally:
            self._watch_scope = None
            self._update_watcher()  # it may be wanted again
            self._changed()

    # -- what it says of itself -------------------------------------------------------------

    def _make_link(self, sock: trio.socket.SocketType, peer: Sockaddr | None = None) -> DatagramLink:
        """Raises: SocketError if an option that was set before is refused now."""
        self._prepare(sock, peer)
        return NativeDatagramLink(native_datagram_socket(sock))

    def _local(self) -> tuple[HostAddress, int]:
        if self._link is None:
            return HostAddress.NULL, 0
        address = self._link.local_address()
        return (HostAddress.ANY if self._is_any else from_sockaddr(address)), int(address[1])

    def _peer(self) -> Sockaddr | None:
        return None if self._link is None else self._link.peer_address()

    def _native(self) -> NativeSocket | trio.socket.SocketType | None:
        return None if self._link is None else self._link.native()
